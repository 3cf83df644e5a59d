"""Whole files: any name, ranges, preconditions, and rsync's steps as a stranger takes them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

import dblike_delta
from dblike_delta.commands import Copy
from dblike_delta.delta import Delta
from dblike_delta.exchange import Exchange, Request
from dblike_delta.formats import encode_commands
from dblike_delta.paths import MAX_PATH
from dblike_delta.signature import Signature
from dblike_srv import accounts
from dblike_srv.errors import Conflict, PreconditionFailed, QuotaExceeded, TooLarge
from dblike_srv.files import FileWish, Precondition, put_file
from dblike_srv.site import Site
from dblike_srv.store.local import LocalStore
from rig.core_site import CoreSite
from rig.wsgi import WsgiTransport

FILES = "/v1/folders/home/files/"


class Person:
    """Somebody with curl."""

    def __init__(self, app: Flask, token: str) -> None:
        self._transport = WsgiTransport(app.wsgi_app)
        self._client = app.test_client()
        self._token = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> TestResponse:
        """A request; `_` in a header's name stands for `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        chunked = {"wsgi.input_terminated": True} if "Transfer-Encoding" in given else {}
        return self._client.open(
            target,
            method=method,
            data=body,
            headers={**self._token, **given},
            environ_overrides=chunked,
        )

    def raw(self, method: str, path: bytes, body: bytes | None = None, query: str = "") -> Any:
        """A request for a path of any bytes, each of them escaped."""
        target = FILES + "".join(f"%{byte:02x}" for byte in path) + query
        length = None if body is None else len(body)
        return self._transport.request(Request(method, target, self._token, body, length))


@pytest.fixture
def person(app: Flask, exchange: Exchange) -> Person:
    return Person(app, exchange.token)


def text_of(reply: Any) -> bytes:
    return b"".join(reply.chunks())


def test_a_file_is_put_and_got(person: Person) -> None:
    made = person("PUT", FILES + "a/b.txt", b"hello", X_DBLike_Mode="755", X_DBLike_Mtime_Ns="5")
    assert (made.status_code, made.json["size"], made.json["mode"]) == (200, 5, 0o755)
    got = person("GET", FILES + "a/b.txt")
    assert (got.data, got.headers["ETag"]) == (b"hello", made.headers["ETag"])
    assert got.headers["X-DBLike-Hash"] == blake3(b"hello").hexdigest()
    assert (got.headers["X-DBLike-Mode"], got.headers["X-DBLike-Mtime-Ns"]) == ("755", "5")
    assert got.content_type == "application/octet-stream"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    head = person("HEAD", FILES + "a/b.txt")
    assert (head.status_code, head.data, head.content_length) == (200, b"", 5)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=3).map(
        lambda parts: b"/".join(part.replace(b"/", b"-") for part in parts)
    )
)
def test_any_name_is_one(person: Person, path: bytes) -> None:
    """Paths are compared byte by byte, whatever they are in any encoding."""
    person.raw("DELETE", path.split(b"/")[0])  # what an earlier example left in the way
    put = person.raw("PUT", path, b"content of " + path)
    if put.status == 422:
        assert (
            b"\0" in path
            or path.split(b"/")[0].lower() == b".dblike"
            or {b".", b".."} & set(path.split(b"/"))
        )
        return
    assert put.status == 200, text_of(put)
    assert text_of(person.raw("GET", path, query="?raw")) == b"content of " + path


@pytest.mark.parametrize(
    "path",
    [
        b"..", b"../x", b"a/../b", b"./a", b"a/.", b"a//b", b"/abs", b"a\0b", b".dblike/x",
        b".DBLike",
        b"x" * 256, b"a/" + b"x" * 256, b"x/" * (MAX_PATH // 2) + b"y", b"/" * 10_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_is_no_path(person: Person, method: str, path: bytes) -> None:
    reply = person.raw(method, path, b"x" if method == "PUT" else None)
    assert reply.status == 422
    assert b'"field":"path"' in text_of(reply)


@pytest.mark.parametrize(
    "path",
    [b"%2e%2e", b"..\\x", b"a:b", b"CON", b"\xc0\xae", b"\x7f\x80", b"~", b"$HOME", b"a\r\nb"],
)
def test_what_is_a_path_like_any_other(person: Person, path: bytes) -> None:
    assert person.raw("PUT", path, path).status == 200
    assert text_of(person.raw("GET", path)) == path


def test_names_that_mean_something_else_behind_a_slash(person: Person) -> None:
    for name in (b"signature", b"versions", b"delta", b"restore"):
        assert person.raw("PUT", name, b"at the top").status == 200
        assert text_of(person.raw("GET", name)) == b"at the top"
        path = b"d/" + name
        assert person.raw("PUT", path, path).status == 200
        assert text_of(person.raw("GET", path, query="?raw")) == path
        assert person.raw("DELETE", path).status == 204


def test_directories(person: Person) -> None:
    made = person("PUT", FILES + "d/e/")
    assert (made.status_code, made.json["kind"]) == (200, "directory")
    person("PUT", FILES + "d/f", b"x")
    listed = person("GET", FILES + "d")
    assert [entry["path"] for entry in listed.json["entries"]] == ["d", "d/e", "d/f"]
    assert person("GET", FILES + "d/").json == listed.json
    assert person("GET", FILES + "d/f/").status_code == 400


def test_directories_above_a_file_that_is_put_are_made_by_whoever_puts_it(person: Person) -> None:
    assert person("PUT", FILES + "one/two/a", b"x").status_code == 200
    for path in ("one", "one/two"):
        [made] = person("GET", f"{FILES}{path}/versions").get_json()["versions"]
        assert made["time"] > 0
        assert made["device"] == "laptop"


def test_a_file_does_not_take_the_place_of_a_directory(person: Person) -> None:
    """What is in the directory would be hidden or lost: 409, and nothing changed."""
    person("PUT", FILES + "d/inside", b"kept")
    assert person("PUT", FILES + "d", b"file").status_code == 409
    assert person("GET", FILES + "d/inside").data == b"kept"


def test_a_directory_does_not_take_the_place_of_a_file(person: Person) -> None:
    person("PUT", FILES + "plain", b"kept")
    refused = person("PUT", FILES + "plain/")
    assert (refused.status_code, refused.json["field"]) == (409, "path")
    assert "delete" in refused.json["detail"]
    assert person("GET", FILES + "plain").data == b"kept"
    assert person("DELETE", FILES + "plain").status_code == 204
    for _ in range(2):
        assert person("PUT", FILES + "plain/").status_code == 200


def test_a_file_comes_in_any_size(person: Person) -> None:
    for size in (0, 1, 511_999, 512 << 10, 3_000_001):
        content = os.urandom(size)
        assert person("PUT", FILES + "f", content).status_code == 200
        got = person("GET", FILES + "f")
        assert got.data == content
        assert got.content_length == size


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=-10", 200, b"0123456789"),
        ("bytes=-11", 200, b"0123456789"),  # the last eleven, or as many as there are
        ("bytes=-99999999999999999999", 200, b"0123456789"),
        ("bytes=-0", 416, None),
        ("bytes=8-100", 206, b"89"),
        ("bytes=0-9", 200, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=5-2", 416, None),
        ("bytes=x-y", 416, None),
        ("bytes=-", 416, None),
        ("bytes=99999999999999999999-", 416, None),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("bytes=" + ",".join("0-1" for _ in range(1000)), 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_ranges(person: Person, wanted: str, status: int, expected: bytes | None) -> None:
    person("PUT", FILES + "f", b"0123456789")
    got = person("GET", FILES + "f", Range=wanted)
    assert got.status_code == status
    if expected is None:
        assert got.headers["Content-Range"] == "bytes */10"
    else:
        assert got.data == expected


def test_a_range_of_what_is_meanwhile_another_file(person: Person) -> None:
    tag = person("PUT", FILES + "f", b"0123456789").headers["ETag"]
    assert person("GET", FILES + "f", Range="bytes=0-1", If_Range=tag).status_code == 206
    person("PUT", FILES + "f", b"abcdefghij")
    got = person("GET", FILES + "f", Range="bytes=0-1", If_Range=tag)
    assert (got.status_code, got.data) == (200, b"abcdefghij")


def test_the_end_of_an_empty_file(person: Person) -> None:
    person("PUT", FILES + "f", b"")
    got = person("GET", FILES + "f", Range="bytes=-5")
    assert (got.status_code, got.data) == (200, b"")
    assert person("GET", FILES + "f", Range="bytes=0-").status_code == 416


def test_preconditions(person: Person) -> None:
    """Nobody overwrites what they have not seen, if they say so."""
    first = person("PUT", FILES + "f", b"1", If_None_Match="*")
    assert first.status_code == 201
    assert person("PUT", FILES + "f", b"2", If_None_Match="*").status_code == 412
    tag = first.headers["ETag"]
    assert person("GET", FILES + "f", If_None_Match=tag).status_code == 304
    assert person("GET", FILES + "f", If_None_Match="W/" + tag).status_code == 304
    assert person("GET", FILES + "f", If_Match='"other"').status_code == 412
    assert person("GET", FILES + "f", If_Match='"other"', If_None_Match=tag).status_code == 412
    assert person("PUT", FILES + "f", b"2", If_Match="W/" + tag).status_code == 412
    second = person("PUT", FILES + "f", b"2", If_Match=tag)
    assert second.status_code == 200
    assert person("PUT", FILES + "f", b"3", If_Match=tag).status_code == 412
    assert person("DELETE", FILES + "f", If_Match=tag).status_code == 412
    assert person("PUT", FILES + "nowhere", b"3", If_Match="*").status_code == 412
    assert person("DELETE", FILES + "f", If_Match=second.headers["ETag"]).status_code == 204
    assert person("GET", FILES + "f").status_code == 404


def test_old_versions_stay(person: Person) -> None:
    tags = [person("PUT", FILES + "f", b"%d" % n).headers["ETag"].strip('"') for n in range(3)]
    for number, tag in enumerate(tags):
        assert person("GET", FILES + f"f?version={tag}").data == b"%d" % number
    listed = person("GET", FILES + "f/versions").json["versions"]
    assert [view["version"] for view in listed] == tags[::-1]
    assert person("GET", FILES + f"g?version={tags[0]}").status_code == 404
    for bad in ("x", "0" * 32 + ".0", "0" * 32 + ".1", "." * 9):
        assert person("GET", FILES + f"f?version={bad}").status_code in (404, 422)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-DBLike-Mode", "9"),
        ("X-DBLike-Mtime-Ns", "soon"),
        ("X-DBLike-Mtime-Ns", str(2**63)),
        ("X-DBLike-Mtime-Ns", "9" * 19),
        ("Content-Range", "bytes 0-1/2"),
    ],
)
def test_bad_wishes(person: Person, header: str, value: str) -> None:
    reply = person("PUT", FILES + "f", b"x", **{header.replace("-", "_"): value})
    assert (reply.status_code, reply.json["field"]) == (400, header)
    assert person("GET", FILES + "f").status_code == 404


def put_in_chunks(person: Person, data: bytes) -> TestResponse:
    """A PUT that does not say how long it is, as of `curl -T -`."""
    return person("PUT", FILES + "f", io.BytesIO(data), Transfer_Encoding="chunked")


def test_a_file_of_unknown_length_counts_for_the_quota_as_it_comes(
    person: Person, site: Site
) -> None:
    accounts.set_quota(site, "ada", 300_000)
    assert put_in_chunks(person, b"hello").status_code == 200
    assert person("GET", FILES + "f").data == b"hello"
    assert put_in_chunks(person, os.urandom(400_000)).status_code == 507
    assert person("GET", FILES + "f").data == b"hello"


def test_a_file_of_unknown_length_is_refused_where_it_passes_the_limit(
    person: Person, site: Site
) -> None:
    limits = msgspec.structs.replace(site.config.limits, file_size=100_000)
    site.config = msgspec.structs.replace(site.config, limits=limits)
    assert put_in_chunks(person, bytes(100_000)).status_code == 200
    refused = put_in_chunks(person, bytes(100_001))
    assert refused.status_code == 413
    assert "100000" in refused.json["detail"]
    assert person("GET", FILES + "f").content_length == 100_000


def test_what_is_refused_takes_no_space(tmp_path: Path) -> None:
    """Before its body is taken where that is known then, else before the disk has it."""
    core = CoreSite(tmp_path)
    core.laptop.put(b"f", b"here")
    core.laptop.make(b"d")
    held = set(core.store.names())

    def chunks(*, then: bytes = b"") -> Iterator[bytes]:
        assert then, "nothing is to be read"
        yield os.urandom(2_000_000)
        core.laptop.put(then, b"meanwhile")

    def put(path: bytes, body: Iterator[bytes], **condition: tuple[str, ...]) -> None:
        wish, precondition = FileWish(), Precondition(**condition)
        me = core.laptop.identity
        put_file(core.site, me, core.folder, path, body, wish=wish, condition=precondition)

    with pytest.raises(PreconditionFailed):
        put(b"f", chunks(), if_match=("00000000000000000000000000000001.1",))
    with pytest.raises(PreconditionFailed):
        put(b"f", chunks(), if_none_match=("*",))
    with pytest.raises(Conflict):
        put(b"d", chunks())
    with pytest.raises(PreconditionFailed):
        put(b"new", chunks(then=b"new"), if_none_match=("*",))
    assert set(core.store.names()) - held == {blake3(b"meanwhile").digest()}


@pytest.mark.parametrize("limit", ["file_size", "quota"])
def test_no_more_is_taken_of_a_file_that_is_too_large(tmp_path: Path, limit: str) -> None:
    core = CoreSite(tmp_path, limits={limit: 2_500_000})
    came: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        for _ in range(9):
            came.append(os.urandom(1_000_000))
            yield came[-1]

    with pytest.raises((TooLarge, QuotaExceeded)):
        put_file(core.site, core.laptop.identity, core.folder, b"f", chunks(), wish=FileWish())
    assert len(came) == 3
    assert not list(core.store.names())


def test_the_farthest_time(person: Person) -> None:
    farthest = str(2**63 - 1)
    assert person("PUT", FILES + "f", b"x", X_DBLike_Mtime_Ns=farthest).status_code == 200
    assert person("GET", FILES + "f").headers["X-DBLike-Mtime-Ns"] == farthest


def delta_of(signature: Signature, new: bytes) -> bytes:
    made = dblike_delta.delta(signature, io.BytesIO(new))
    try:
        return b"".join(bytes(piece) for piece in made.pieces())
    finally:
        made.close()


def apply(old: bytes, delta: bytes) -> bytes:
    out, loaded = io.BytesIO(), Delta.load(io.BytesIO(delta))
    dblike_delta.patch(io.BytesIO(old), loaded, out)
    loaded.close()
    return out.getvalue()


def test_rsync_by_a_stranger(person: Person) -> None:
    old = os.urandom(300_000)
    new = old[:100_000] + b"inserted" + old[100_000:]
    person("PUT", FILES + "f", old)
    signed = person("GET", FILES + "f/signature")
    delta = delta_of(Signature.unpack(signed.data), new)
    assert len(delta) < 20_000
    patched = person("PATCH", FILES + "f", delta, If_Match=signed.headers["ETag"])
    assert (patched.status_code, patched.json["size"]) == (200, len(new))
    assert person("GET", FILES + "f").data == new
    mine = dblike_delta.signature(io.BytesIO(old), format="librsync").pack()
    answer = person("POST", FILES + "f/delta", mine)
    assert apply(old, answer.data) == new
    assert len(answer.data) < 20_000


def test_a_delta_is_applied_once_and_to_nothing_else(person: Person) -> None:
    """A proxy may send it again, and another edit may come in between."""
    tag = person("PUT", FILES + "f", b"base").headers["ETag"]
    delta = delta_of(Signature.unpack(person("GET", FILES + "f/signature").data), b"base and more")
    for unnamed in ({}, {"If_Match": "*"}):
        refused = person("PATCH", FILES + "f", delta, **unnamed)
        assert (refused.status_code, refused.json["field"]) == (428, "If-Match")
    assert person("PATCH", FILES + "f", delta, If_Match=tag).status_code == 200
    assert person("PATCH", FILES + "f", delta, If_Match=tag).status_code == 412
    assert person("GET", FILES + "f").data == b"base and more"


@pytest.mark.parametrize(
    "query",
    ["block=0", "block=x", "block=8388609", "block=99999999999", "strong=1", "strong=33"],
)
def test_signatures_that_nobody_makes(person: Person, query: str) -> None:
    person("PUT", FILES + "f", b"x" * 1000)
    reply = person("GET", FILES + f"f/signature?{query}")
    assert (reply.status_code, reply.json["field"]) == (400, query.split("=", maxsplit=1)[0])


def test_a_signature_is_no_larger_than_the_memory_for_it(person: Person) -> None:
    """A file of many bytes is soon made of few; so would be a signature of twice as many."""
    tag = person("PUT", FILES + "f", bytes(1 << 20)).headers["ETag"]
    delta = encode_commands([Copy(0, 1 << 20)] * 256)
    assert person("PATCH", FILES + "f", delta, If_Match=tag).json["size"] == 256 << 20
    refused = person("GET", FILES + "f/signature?block=16")
    assert (refused.status_code, refused.json["field"]) == (422, "block")
    assert "have 128 bytes or more" in refused.json["detail"]
    assert person("GET", FILES + "f/signature?block=8388608").status_code == 200


def test_what_rotted_on_the_disk_is_not_there(person: Person, site: Site) -> None:
    """Nobody gets other bytes than the hash says, nor makes a new version of them."""
    old = os.urandom(30_000)
    tag = person("PUT", FILES + "f", old).headers["ETag"]
    mine = person("GET", FILES + "f/signature").data
    [name] = site.store.names()
    assert isinstance(site.store, LocalStore)
    site.store.path(name).write_bytes(old[:100] + b"rotten" + old[106:])
    assert person("GET", FILES + "f", Range="bytes=0-99").data == old[:100]
    change = delta_of(Signature.unpack(mine), old + b"more")
    for reply in (
        person("PATCH", FILES + "f", change, If_Match=tag),
        person("GET", FILES + "f"),
        person("GET", FILES + "f/signature"),
        person("POST", FILES + "f/delta", mine),
        person("GET", FILES + "f", Range="bytes=0-99"),
    ):
        assert (reply.status_code, reply.json["field"]) == (404, "version")
    person("PUT", FILES + "g", old)
    assert person("GET", FILES + "f").data == old


@pytest.mark.parametrize("body", [b"", b"x", b"rs\x026", b"rs\x026\x00trailing", os.urandom(500)])
def test_deltas_and_signatures_that_are_none(person: Person, body: bytes) -> None:
    tag = person("PUT", FILES + "f", b"here").headers["ETag"]
    assert person("PATCH", FILES + "f", body, If_Match=tag).status_code == 422
    assert person("POST", FILES + "f/delta", body).status_code == 422
    assert person("GET", FILES + "f").data == b"here"


def test_a_delta_bomb_is_refused(person: Person) -> None:
    """Few bytes of copies may not describe a file above the limit."""
    tag = person("PUT", FILES + "f", b"x" * 60_000).headers["ETag"]
    copies = b"\x4a\0\0\xea\x60" * 1800
    reply = person("PATCH", FILES + "f", b"rs\x026" + copies + b"\0", If_Match=tag)
    assert reply.status_code in (200, 413, 422, 507)
    assert person("GET", FILES + "f").status_code == 200


def test_restoring_a_path_by_its_url(person: Person) -> None:
    tag = person("PUT", FILES + "f", b"old").headers["ETag"].strip('"')
    person("PUT", FILES + "f", b"new")
    reply = person(
        "POST",
        FILES + "f/restore",
        b'{"version":"%s"}' % tag.encode(),
        Content_Type="application/json",
    )
    assert reply.json["restored"] == 1
    assert person("GET", FILES + "f").data == b"old"
    both = person("POST", FILES + "f/restore", b'{"path":"g"}', Content_Type="application/json")
    assert (both.status_code, both.json["field"]) == (422, "path")


@pytest.mark.skipif(shutil.which("rdiff") is None, reason="rdiff is not installed")
def test_rdiff_is_enough_to_be_a_client(person: Person, tmp_path: Path) -> None:
    """curl and rdiff alone: down by a delta for an old copy, and up by one against the file."""
    old, new = os.urandom(200_000), b"x" + os.urandom(100)
    now = old[:50_000] + new + old[60_000:]
    person("PUT", FILES + "f", now)
    names = ("old", "sig", "delta", "got", "mine", "theirs.sig", "up")
    at = {name: tmp_path / name for name in names}
    at["old"].write_bytes(old)
    rdiff("signature", at["old"], at["sig"])
    at["delta"].write_bytes(person("POST", FILES + "f/delta", at["sig"].read_bytes()).data)
    rdiff("patch", at["old"], at["delta"], at["got"])
    assert at["got"].read_bytes() == now
    at["mine"].write_bytes(now + b"appended")
    signed = person("GET", FILES + "f/signature")
    at["theirs.sig"].write_bytes(signed.data)
    rdiff("delta", at["theirs.sig"], at["mine"], at["up"])
    assert at["up"].stat().st_size < 10_000
    tag = signed.headers["ETag"]
    assert person("PATCH", FILES + "f", at["up"].read_bytes(), If_Match=tag).status_code == 200
    assert person("GET", FILES + "f").data == now + b"appended"


def rdiff(*words: str | Path) -> None:
    subprocess.run(["rdiff", *words], check=True)
