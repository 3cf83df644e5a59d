"""Tokens between sites."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import update

from dblike_delta.exchange import Exchange
from dblike_delta.messages import PasswordChange
from dblike_srv import accounts
from dblike_srv.models import devices
from dblike_srv.replication import shared
from dblike_srv.replication.messages import SharedPage
from dblike_srv.site import Site
from dblike_srv.tokens import adopt, claim_of, hash_token
from srv.conftest import PASSWORD


def test_a_token_that_was_heard_of_meanwhile_is_good(site: Site, exchange: Exchange) -> None:
    """Between the look for a token and its adoption its device may arrive from another site."""
    claim = claim_of(site.seal, exchange.token)
    assert claim is not None
    digest = hash_token(exchange.token)
    assert site.database.transact(lambda connection: adopt(connection, claim, digest))
    ended = update(devices).values(token=None, token_at=claim.made + 1)
    site.database.transact(lambda connection: connection.execute(ended))
    assert not site.database.transact(lambda connection: adopt(connection, claim, digest))


def test_a_new_password_ends_what_the_old_one_got_elsewhere(site: Site, exchange: Exchange) -> None:
    """While another site had not heard of it, the old password was good there."""
    claim = claim_of(site.seal, exchange.token)
    assert claim is not None
    assert accounts.identify(site, exchange.token)
    page = shared.news(site, 0)
    accounts.set_password(site, "ada", "another horse")
    changed = shared.news(site, 0)
    # The other site's news come late: the device with its token, from before the change.
    shared.take_in(site, page)
    late = [msgspec.structs.replace(d, token_at=d.token_at + 1) for d in page.devices]
    late = [d for d in late if d.token_at < changed.users[0].password_at]
    shared.take_in(site, SharedPage(upto=1, users=page.users, devices=late))
    with pytest.raises(accounts.Unauthorized):
        accounts.identify(site, exchange.token)


def test_who_changes_the_password_stays_logged_in(site: Site, exchange: Exchange) -> None:
    exchange.change_password(PasswordChange(PASSWORD, "another horse"))
    assert accounts.identify(site, exchange.token)
    exchange.change_password(PasswordChange("another horse", PASSWORD))
    assert accounts.identify(site, exchange.token)
