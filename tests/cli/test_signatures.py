"""The cache of signatures."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from dblike_cli.context import Settings
from dblike_cli.realfs import RealFS
from dblike_cli.signatures import DIRECTORY, load_signature
from dblike_delta.exchange import Request, Response, Unreachable
from dblike_delta.signature import signature
from dblike_srv.site import Site
from rig.devices import Laptop
from rig.wsgi import WsgiTransport


class Cut:
    """A way to the site that may be cut before a commit."""

    cut = False

    def __init__(self, inner: WsgiTransport) -> None:
        self._inner = inner

    def request(self, request: Request) -> Response:
        if self.cut and "/commit" in request.target:
            raise Unreachable("cut")
        return self._inner.request(request)


@pytest.mark.parametrize("large", [False, True])
def test_only_what_is_agreed_on_has_a_signature(
    laptop: Callable[..., Laptop], wire: WsgiTransport, site: Site, large: bool
) -> None:
    """Of a content that nobody agreed on, nobody would drop it again."""
    transport = Cut(wire)
    settings = Settings(durable=False, whole_below=100_000 if large else 4 << 20)
    one = laptop("one", transport=transport, settings=settings)
    one.write("log", os.urandom(200_000))
    one.sync()
    agreed = _contents(one)
    assert _kept(one) == agreed
    transport.cut = True
    for line in range(3):
        one.write("log", one.read("log") + b"line %d" % line)
        with pytest.raises(Unreachable):
            one.sync()
    transport.cut = False
    limits = msgspec.structs.replace(site.config.limits, file_size=1000)
    allowing = site.config
    object.__setattr__(site, "config", msgspec.structs.replace(allowing, limits=limits))
    assert one.sync().refused
    assert _kept(one) == agreed
    object.__setattr__(site, "config", allowing)
    assert one.sync().uploaded == (b"log",)
    assert _kept(one) == _contents(one) != agreed
    two = laptop("two", settings=settings)
    two.write("log", one.read("log"))
    assert two.sync().adopted == (b"log",)
    assert _kept(two) == _contents(two)


def _kept(device: Laptop) -> set[str]:
    return {place.name for place in device.place(DIRECTORY.decode()).glob("*/*")}


def _contents(device: Laptop) -> set[str]:
    return {blake3(device.read("log")).hexdigest()}


def test_a_signature_costs_the_memory_of_its_size(tmp_path: Path) -> None:
    kept = signature(io.BytesIO(bytes(100_000)), hash=True)
    name = kept.hash.hex()
    place = tmp_path / DIRECTORY.decode() / name[:2] / name
    place.parent.mkdir(parents=True)
    place.write_bytes(kept.pack())
    fs = RealFS(tmp_path)
    tracemalloc.start()
    try:
        found = load_signature(fs, kept.hash)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        fs.close()
    assert found is not None
    assert found.pack() == kept.pack()
    assert peak < 1 << 20
