"""Tokens between sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from flask import Flask
from sqlalchemy import update
from sqlalchemy.event import listen

from dblike_delta.exchange import Exchange, Refused
from dblike_delta.messages import LoginRequest, PasswordChange
from dblike_srv import accounts, devices
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.models import devices as device_rows
from dblike_srv.replication import shared
from dblike_srv.replication.messages import SharedPage
from dblike_srv.site import Site, open_site
from dblike_srv.tokens import adopt, claim_of, hash_token
from rig.core_site import StillClock
from rig.wsgi import WsgiTransport
from srv.conftest import KEY, PASSWORD, USER


def test_a_token_that_was_heard_of_meanwhile_is_good(site: Site, exchange: Exchange) -> None:
    """Between the look for a token and its adoption its device may arrive from another site."""
    claim = claim_of(site.seal, exchange.token)
    assert claim is not None
    digest = hash_token(exchange.token)
    site.database.transact(lambda connection: adopt(connection, claim, digest))
    assert is_good(site, exchange.token)
    ended = update(device_rows).values(token=None, token_at=claim.made + 1)
    site.database.transact(lambda connection: connection.execute(ended))
    site.database.transact(lambda connection: adopt(connection, claim, digest))
    assert not is_good(site, exchange.token)


def test_a_token_that_ended_changes_nothing(site: Site, exchange: Exchange) -> None:
    """Whoever sends it again and again must keep no writer waiting, nor wake the other sites."""
    ended = exchange.token
    exchange.logout()
    before, notices = shared.news(site, 0), list[bytes]()
    site.notices.subscribe(lambda folder, _: notices.append(folder))
    said: list[str] = []
    listen(site.database.engine, "checkout", lambda raw, *_: raw.set_trace_callback(said.append))
    assert not is_good(site, ended)
    assert "BEGIN" in said
    assert "BEGIN IMMEDIATE" not in said
    assert notices == []
    assert shared.news(site, 0) == before


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


@pytest.mark.parametrize("disabled", [False, True])
def test_what_the_old_password_got_since_it_was_changed_ends(
    site: Site, far: Site, exchange: Exchange, disabled: bool
) -> None:
    """A site that has not heard of the change yet lets in who knows the old one."""
    shared.take_in(far, shared.news(site, 0))
    if disabled:
        accounts.set_disabled(site, USER, True)
    else:
        accounts.set_password(site, USER, "another horse")
    late = Exchange(WsgiTransport(create_app(far).wsgi_app))
    late.login(LoginRequest(USER, PASSWORD, "thief"))
    assert is_good(far, late.token)
    shared.take_in(far, shared.news(site, 0))
    shared.take_in(site, shared.news(far, 0))
    accounts.set_disabled(site, USER, False)
    shared.take_in(far, shared.news(site, 0))
    assert not is_good(far, late.token)
    assert not is_good(site, late.token)


def test_who_changes_the_password_stays_logged_in(site: Site, exchange: Exchange) -> None:
    exchange.change_password(PasswordChange(PASSWORD, "another horse"))
    assert accounts.identify(site, exchange.token)
    exchange.change_password(PasswordChange("another horse", PASSWORD))
    assert accounts.identify(site, exchange.token)


def test_a_new_password_that_is_said_again(site: Site, exchange: Exchange) -> None:
    """The reply was lost, and the client asks once more: it was not refused."""
    wish = PasswordChange(PASSWORD, "another horse")
    for _ in range(2):
        exchange.change_password(wish)
    assert accounts.identify(site, exchange.token)
    with pytest.raises(Refused, match="not the old password"):
        exchange.change_password(PasswordChange(PASSWORD, "a third horse"))


@pytest.fixture
def far(tmp_path: Path, site: Site) -> Iterator[Site]:
    """Another site, which has heard all that `site` says so far."""
    opened = open_site(decode_config({"data": str(tmp_path / "far"), "cluster_key": KEY}))
    shared.take_in(opened, shared.news(site, 0))
    yield opened
    opened.close()


def test_who_changes_the_password_stays_logged_in_where_a_clock_is_ahead(
    site: Site, far: Site, exchange: Exchange
) -> None:
    """The login was made at a site whose clock is: its token is of a time that is still to come."""
    far.clock = StillClock(site.clock.now_ms() + 300_000)
    tell(site, far)
    at_far = Exchange(WsgiTransport(create_app(far).wsgi_app))
    ended, exchange.token = (
        at_far.login(LoginRequest(USER, PASSWORD, name)).token for name in ("laptop", "phone")
    )
    tell(far, site)
    exchange.change_password(PasswordChange(PASSWORD, "another horse"))
    for here, there in ((site, far), (far, site)):
        assert is_good(here, exchange.token)
        assert not is_good(here, ended)
        tell(here, there)
        assert is_good(there, exchange.token)
        assert not is_good(there, ended)


def tell(here: Site, there: Site) -> None:
    shared.take_in(there, shared.news(here, 0))


def is_good(site: Site, token: str) -> bool:
    try:
        accounts.identify(site, token)
    except accounts.Unauthorized:
        return False
    return True


def add(site: Site, token: str) -> str:
    """The token of a device that the one with this token adds."""
    return accounts.add_device(site, accounts.identify(site, token).identity, "thief").token


def revoke(site: Site, token: str) -> None:
    identity = accounts.identify(site, token).identity
    devices.revoke_device(site, identity.user, identity.device.hex())


@pytest.mark.parametrize("first_heard", ["the revocation", "the devices"])
def test_what_a_stolen_device_added_elsewhere_ends_with_it(
    site: Site, far: Site, exchange: Exchange, first_heard: str
) -> None:
    """While the other site had not heard that it was revoked it was good there, and bred."""
    stolen = exchange.token
    children = [add(far, stolen)]
    children.append(add(far, children[0]))
    revoke(site, stolen)
    ways = [(site, far), (far, site)]
    for here, there in ways if first_heard == "the revocation" else ways[::-1]:
        tell(here, there)
    tell(site, far)
    left = [is_good(where, token) for where in (site, far) for token in (stolen, *children)]
    assert not any(left)
    assert not shared.take_in(site, shared.news(far, 0))
    assert not shared.take_in(far, shared.news(site, 0))


def test_a_device_that_was_revoked_meanwhile_adds_none(site: Site, exchange: Exchange) -> None:
    identity = accounts.identify(site, exchange.token).identity
    revoke(site, exchange.token)
    with pytest.raises(accounts.Unauthorized):
        accounts.add_device(site, identity, "thief")
    assert len(devices.list_devices(site, identity.user)) == 1


def test_who_logged_in_anew_is_nobodys_child_at_any_site(
    site: Site, far: Site, app: Flask, exchange: Exchange
) -> None:
    """Also where the new token came before the news of it did."""
    parent, child = exchange.token, exchange.new_device("child")
    tell(site, far)
    login = LoginRequest(USER, PASSWORD, "own", child.device_id)
    anew = Exchange(WsgiTransport(app.wsgi_app)).login(login)
    assert is_good(far, anew.token)
    revoke(far, parent)
    tell(far, site)
    assert is_good(far, anew.token)
    assert is_good(site, anew.token)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_device_of_two_users_is_one_users(site: Site, far: Site, app: Flask, turn: int) -> None:
    """A client chooses its device's id: who takes one at two sites, before they have heard of each
    other, must not keep them from hearing of anything else.  The same site's word holds at both."""
    accounts.create_user(site, "eve", PASSWORD)
    tell(site, far)
    apps, users = (app, create_app(far)), (USER, "eve")[:: 1 if turn else -1]
    logins = [Exchange(WsgiTransport(each.wsgi_app)) for each in apps]
    for login, user in zip(logins, users, strict=True):
        login.login(LoginRequest(user, PASSWORD, "laptop", "ab" * 16))
    for _ in range(2):
        tell(site, far)
        tell(far, site)
    good = [[is_good(where, login.token) for where in (site, far)] for login in logins]
    assert sorted(good) == [[False, False], [True, True]]
    accounts.create_user(far, "later", PASSWORD)
    tell(far, site)
    assert accounts.find_user(site, "later")
    lost = logins[good.index([False, False])], users[good.index([False, False])]
    with pytest.raises(Refused, match="choose another"):
        lost[0].login(LoginRequest(lost[1], PASSWORD, "laptop", "ab" * 16))
    assert not shared.take_in(site, shared.news(far, 0))
    assert not shared.take_in(far, shared.news(site, 0))
