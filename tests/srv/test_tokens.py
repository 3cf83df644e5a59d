"""Tokens between sites."""

from __future__ import annotations

from sqlalchemy import update

from dblike_delta.exchange import Exchange
from dblike_srv.models import devices
from dblike_srv.site import Site
from dblike_srv.tokens import adopt, claim_of, hash_token


def test_a_token_that_was_heard_of_meanwhile_is_good(site: Site, exchange: Exchange) -> None:
    """Between the look for a token and its adoption its device may arrive from another site."""
    claim = claim_of(site.seal, exchange.token)
    assert claim is not None
    digest = hash_token(exchange.token)
    assert site.database.transact(lambda connection: adopt(connection, claim, digest))
    ended = update(devices).values(token=None, token_at=claim.made + 1)
    site.database.transact(lambda connection: connection.execute(ended))
    assert not site.database.transact(lambda connection: adopt(connection, claim, digest))
