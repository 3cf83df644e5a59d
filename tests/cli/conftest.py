"""A site in this process, and devices that sync with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.site import Site, open_site
from rig.devices import Laptop
from rig.wsgi import WsgiTransport

NewLaptop = Callable[..., Laptop]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty site on SQLite and local packs, with the user ada."""
    opened = open_site(decode_config({"data": str(tmp_path / "site"), "cluster_key": "k" * 64}))
    accounts.create_user(opened, "ada", "correct horse")
    yield opened
    opened.close()


@pytest.fixture
def wire(site: Site) -> Iterator[WsgiTransport]:
    """The way to that site."""
    app = create_app(site)
    yield WsgiTransport(app.wsgi_app)
    app.extensions["dblike-hub"].stop(wait=5)


@pytest.fixture
def laptop(tmp_path: Path, wire: WsgiTransport) -> Iterator[NewLaptop]:
    """Makes devices: `laptop("one")` has the folder `one`."""
    made: list[Laptop] = []

    def make(name: str = "laptop", **options: Any) -> Laptop:
        options.setdefault("transport", wire)
        made.append(Laptop(tmp_path / name, name=name, **options))
        return made[-1]

    yield make
    for device in made:
        device.close()
