"""Logging in and out, devices, and who may see what."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from dblike_delta.exchange import Exchange, Refused
from dblike_delta.messages import MSGPACK_TYPE, LoginRequest, PasswordChange, Problem
from dblike_srv import accounts
from dblike_srv.api.problems import PROBLEM_TYPE
from dblike_srv.db import asked
from dblike_srv.models import metadata
from dblike_srv.site import Site
from rig.wsgi import WsgiTransport

pytestmark = pytest.mark.usefixtures("database_url")

USER, PASSWORD = "ada", "correct horse"


def enter(app: Flask, user: str = USER, password: str = PASSWORD, **more: Any) -> Exchange:
    made = Exchange(WsgiTransport(app.wsgi_app))
    made.login(LoginRequest(user=user, password=password, **more))
    return made


def refusal(call: Any, *arguments: Any) -> Problem:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.problem


def test_a_login_gives_a_token_for_the_device(app: Flask, site: Site) -> None:
    exchange = Exchange(WsgiTransport(app.wsgi_app))
    reply = exchange.login(
        LoginRequest(user=USER, password=PASSWORD, device="laptop", device_id="ab" * 16)
    )
    assert (reply.user, reply.device_id, reply.site_id) == (USER, "ab" * 16, site.id.hex())
    assert len(reply.token) > 43
    (device,) = exchange.devices()
    assert (device.id, device.name, device.current, device.revoked) == (
        "ab" * 16, "laptop", True, False,
    )  # fmt: skip


def test_the_site_chooses_an_id_for_who_has_none(app: Flask) -> None:
    one, two = enter(app), enter(app)
    assert len({device.id for device in one.devices()}) == 2
    assert two.devices()


def test_the_token_is_stored_as_a_hash_only(app: Flask, site: Site) -> None:
    """Secrets are stored hashed."""
    token = enter(app).token
    for table in metadata.sorted_tables:
        rows = site.database.read(asked(select(table)))
        assert token not in repr(rows)


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (USER, "wrong"),
        ("nobody", "x"),
        (USER, ""),
        ("", "x"),
        (USER, PASSWORD + "\0"),
        ("Ada", PASSWORD),
        ("ada ", PASSWORD),
    ],
)
def test_whoever_is_not_known_is_told_the_same(app: Flask, user: str, password: str) -> None:
    reply = app.test_client().post("/v1/login", json={"user": user or "x", "password": password})
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert reply.json == {
        "title": "not logged in", "status": 401, "detail": "unknown user or wrong password",
    }  # fmt: skip


def test_a_password_of_a_megabyte_is_not_hashed(client: FlaskClient) -> None:
    assert (
        client.post("/v1/login", json={"user": "ada", "password": "x" * 2**20}).status_code == 413
    )
    assert client.post("/v1/login", json={"user": "ada", "password": "x" * 2000}).status_code == 422


def test_logging_in_again_ends_the_former_token_of_the_device(app: Flask) -> None:
    first = enter(app, device_id="cd" * 16)
    second = enter(app, device_id="cd" * 16)
    assert refusal(first.devices).status == 401
    assert len(second.devices()) == 1


def test_a_device_id_of_somebody_else_is_a_conflict(app: Flask, site: Site) -> None:
    enter(app, device_id="cd" * 16)
    accounts.create_user(site, "bob", "pw of bob")
    with pytest.raises(Refused) as caught:
        enter(app, "bob", "pw of bob", device_id="cd" * 16)
    problem = caught.value.problem
    assert (problem.status, problem.field) == (409, "device_id")


def test_logging_out_ends_the_token(app: Flask) -> None:
    exchange = enter(app)
    exchange.logout()
    assert refusal(exchange.devices).status == 401
    assert refusal(exchange.logout).status == 401


def test_with_a_device_those_end_that_were_added_in_its_name(app: Flask) -> None:
    """Who stole a token can't outlive its end by having made another device of it."""
    stolen, safe = enter(app, device_id="01" * 16), enter(app, device_id="02" * 16)
    made = Exchange(WsgiTransport(app.wsgi_app), stolen.token)
    made.new_device("another")
    made.new_device("and another")
    safe.revoke("01" * 16)
    assert refusal(made.folders).status == 401
    assert [device.revoked for device in safe.devices()].count(False) == 1


def test_a_revoked_device_is_refused_at_once_and_for_good(app: Flask) -> None:
    one, two = enter(app, device_id="01" * 16), enter(app, device_id="02" * 16)
    one.revoke("02" * 16)
    assert refusal(two.devices).status == 401
    with pytest.raises(Refused) as caught:
        enter(app, device_id="02" * 16)
    assert caught.value.status == 409
    assert [device.revoked for device in one.devices()] == [False, True]


def test_revoking_another_users_device_is_as_if_there_were_none(app: Flask, site: Site) -> None:
    enter(app, device_id="01" * 16)
    accounts.create_user(site, "bob", "pw of bob")
    bob = enter(app, "bob", "pw of bob")
    of_ada, of_nobody = refusal(bob.revoke, "01" * 16), refusal(bob.revoke, "09" * 16)
    assert of_ada == of_nobody
    assert of_ada.status == 404
    assert refusal(bob.revoke, "../x").status == 404


def test_a_new_device_keeps_the_old_one_logged_in(app: Flask) -> None:
    exchange = enter(app, device_id="01" * 16)
    old = Exchange(WsgiTransport(app.wsgi_app), exchange.token)
    reply = exchange.new_device("laptop")
    assert reply.device_id != "01" * 16
    assert len(exchange.devices()) == len(old.devices()) == 2


def test_a_new_password_ends_all_other_sessions(app: Flask) -> None:
    """A password change is refused on from the next request."""
    one, two = enter(app), enter(app)
    one.change_password(PasswordChange(old=PASSWORD, new="battery staple"))
    assert one.devices()
    assert refusal(two.devices).status == 401
    assert enter(app, USER, "battery staple").devices()
    with pytest.raises(Refused):
        enter(app, USER, PASSWORD)


def test_a_new_password_that_was_set_may_be_set_again(app: Flask) -> None:
    """Its reply may be lost.  By whoever set it, and nobody else; and the old one is not asked for
    in vain."""
    one = enter(app)
    change = PasswordChange(old=PASSWORD, new="battery staple")
    one.change_password(change)
    two = enter(app, USER, "battery staple")
    one.change_password(change)
    assert two.devices(), "nothing was changed by it"
    assert refusal(two.change_password, change).status == 422
    assert refusal(one.change_password, PasswordChange("wrong", "another")).status == 422
    assert enter(app, USER, "battery staple").devices()


def test_the_old_password_is_needed_for_a_new_one(app: Flask) -> None:
    exchange = enter(app)
    problem = refusal(exchange.change_password, PasswordChange(old="wrong", new="x"))
    assert (problem.status, problem.field) == (422, "old")


def test_a_disabled_user_is_refused_at_once(app: Flask, site: Site) -> None:
    exchange = enter(app)
    accounts.set_disabled(site, USER, disabled=True)
    assert refusal(exchange.devices).status == 401
    with pytest.raises(Refused):
        enter(app)
    accounts.set_disabled(site, USER, disabled=False)
    assert enter(app).devices()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YWRhOmFkYQ==",
        "Bearer dbl_" + "A" * 43,
        "Bearer \xff",
        "bearer x y",
    ],
)
def test_without_a_good_token_there_is_nothing(client: FlaskClient, header: str) -> None:
    reply = client.get("/v1/folders", headers={"Authorization": header} if header else {})
    assert reply.status_code == 401
    assert reply.content_type == PROBLEM_TYPE


def test_a_token_in_the_url_counts_nothing(app: Flask) -> None:
    token = enter(app).token
    for name in ("token", "access_token", "Authorization"):
        assert app.test_client().get(f"/v1/folders?{name}={token}").status_code == 401


def test_a_folder_of_somebody_else_is_as_if_there_were_none(app: Flask, site: Site) -> None:
    """An id is no capability, and no oracle."""
    folder = enter(app).folders()[0].id
    accounts.create_user(site, "bob", "pw of bob")
    token = enter(app, "bob", "pw of bob").token
    client = app.test_client()
    headers = {"Authorization": f"Bearer {token}"}
    targets = ("changes", "tree", "log", "files/a", "files/a/versions", "uploads/" + "0" * 32)
    for target in targets:
        theirs = client.get(f"/v1/folders/{folder}/{target}", headers=headers)
        nobodys = client.get(f"/v1/folders/{'0' * 32}/{target}", headers=headers)
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.data == nobodys.data


def test_messages_come_as_they_are_asked_for(client: FlaskClient) -> None:
    assert json.loads(client.get("/v1/time").data)["time"] > 0
    packed = client.get("/v1/time", headers={"Accept": MSGPACK_TYPE})
    assert packed.content_type == MSGPACK_TYPE
    assert msgspec.msgpack.decode(packed.data)["time"] > 0


@pytest.mark.parametrize("target", ["/v1/devices", "/v1/password", "/v1/folders"])
def test_who_has_no_token_is_not_listened_to(client: FlaskClient, target: str) -> None:
    """What a stranger sends, and how slowly, is nobody's concern."""
    assert client.post(target, data=b"no message", content_type="text/plain").status_code == 401
