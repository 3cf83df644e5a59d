"""run, init: make a server and serve."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from dblike_srv import metrics
from dblike_srv.commands.options import Place, fail, placed
from dblike_srv.config import Config
from dblike_srv.configfile import find_or_create, locate
from dblike_srv.site import Site, open_site

LOCKED = 11


@click.command(epilog="Example: dblike-server run --data /srv/dblike --bind 0.0.0.0:8384")
@click.option("--bind", metavar="HOST:PORT", help="Address to listen at.")
@click.option("--workers", type=click.IntRange(1, 512), help="Processes that serve.")
@placed
def run(place: Place, bind: str | None, workers: int | None) -> None:
    """Serve; what is absent (config, database, directories) is made first."""
    from dblike_srv import server

    config, _ = find_or_create(place.config, place.data)
    with_options = _overlay(config, bind, workers)
    with server.alone(Path(with_options.data)) as alone:
        if not alone:
            fail(f"another server runs on {with_options.data}", LOCKED)
        _serve(place, bind, workers, with_options)


def _serve(place: Place, bind: str | None, workers: int | None, config: Config) -> None:
    from dblike_srv import server

    server.check_bind(config.bind)
    users = _prepare(config)
    where = f"--config {place.config}" if place.config else f"--data {config.data}"

    def announce(url: str) -> None:
        click.echo(f"DBLike serves at {url}")
        if not users:
            click.echo(f"No users yet: dblike-server user add NAME {where}")

    code = server.run(lambda: _overlay(place.read(), bind, workers), _try_out, announce)
    if code:
        fail("the server ended with an error; see its log above", code)


def _overlay(config: Config, bind: str | None, workers: int | None) -> Config:
    given: dict[str, Any] = {"bind": bind, "workers": workers}
    return msgspec.structs.replace(config, **{k: v for k, v in given.items() if v is not None})


def _prepare(config: Config) -> int:
    """Make database and directories, leave nothing open for a fork; the number of users.

    Raises OSError where the store can't be used.
    """
    from dblike_srv.accounts import list_users
    from dblike_srv.replication.returning import hear_first
    from dblike_srv.replication.sites import begin
    from dblike_srv.replication.supervisor import Following

    try:
        with _usable(config) as site:
            begin(site)
            users, others = len(list_users(site)), Following(site).urls()
        if others:
            hear_first(config, others)
            with contextlib.closing(open_site(config)) as site:
                users = len(list_users(site))
        return users
    finally:
        metrics.forget_ended(metrics.metrics_directory(config))


def _try_out(config: Config) -> None:
    """Raises what a worker would fail with."""
    with _usable(config):
        pass


@contextlib.contextmanager
def _usable(config: Config) -> Iterator[Site]:
    """The site, where everything that the config names can be used."""
    from dblike_srv.auth.plugins import load_gate
    from dblike_srv.wsgi import open_notices

    site = open_site(config)
    try:
        site.store.check()
        load_gate(site, config.auth)
        open_notices(config).close()
        yield site
    finally:
        site.close()


@click.command(epilog="Example: dblike-server init --data /srv/dblike")
@click.option("--bind", metavar="HOST:PORT", help="Address to listen at.")
@click.option("--workers", type=click.IntRange(1, 512), help="Processes that serve.")
@placed
def init(place: Place, bind: str | None, workers: int | None) -> None:
    """Write a config with fresh secrets, and create the database."""
    config, created = find_or_create(place.config, place.data, bind=bind, workers=workers)
    _prepare(config)
    file, _ = locate(place.config, place.data)
    done = f"{'Wrote' if created else 'Kept'} {file}"
    said = done if file.exists() else "The config is the environment's"
    click.echo(f"{said}; the data are in {config.data}")
