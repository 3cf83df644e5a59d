"""status, scrub, gc, compact, backup, migrate: looking after a site.

All of it is safe beside a running server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from dblike_delta.paths import display
from dblike_delta.seams import SystemRandom
from dblike_srv import maintenance, schema
from dblike_srv.commands.accounts import JSON
from dblike_srv.commands.options import FAILED, Place, emit, placed
from dblike_srv.db import Database
from dblike_srv.replication.repair import repair as fetch_lost
from dblike_srv.status import survey

DAMAGED = 6
A_DAY = 86_400
"""Seconds: a change of a large table may take its time."""


@click.command(epilog="Example: dblike-server status --json")
@JSON
@placed
def status(place: Place, as_json: bool) -> None:
    """What the site holds, and whether all is well. Exit 1 where it is not."""
    with place.site() as site:
        report = survey(site)
    if as_json:
        emit(report)
    else:
        for line in report.lines():
            click.echo(display(line.encode()))
    if report.problem:
        raise SystemExit(FAILED)


@click.command(epilog="Example: dblike-server scrub --repair")
@click.option("--repair", is_flag=True, help="Fetch what is damaged from a peer.")
@JSON
@placed
def scrub(place: Place, repair: bool, as_json: bool) -> None:
    """Read and verify every pack and content. Exit 6 where something is damaged."""
    with place.site() as site:
        report = maintenance.scrub(site)
        if repair:
            brought = fetch_lost(site, report.damaged_packs)
            click.echo(f"{brought:,} contents came from other sites", err=True)
            if not report.sound:
                report = maintenance.scrub(site)
    _tell(report, as_json)
    if not report.sound:
        click.echo("a device that still has a damaged content sends it anew", err=True)
        raise SystemExit(DAMAGED)


@click.command(epilog="Example: dblike-server gc --dry-run")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@JSON
@placed
def gc(place: Place, dry_run: bool, as_json: bool) -> None:
    """Forget what the retention lets go, and free its space."""
    with place.site() as site:
        _tell(maintenance.gc(site, dry_run=dry_run), as_json)


@click.command(epilog="Example: dblike-server compact")
@JSON
@placed
def compact(place: Place, as_json: bool) -> None:
    """Rewrite packs that are mostly waste, and contents that are scattered."""
    with place.site() as site:
        _tell(maintenance.compact(site), as_json)


@click.command(epilog="Example: dblike-server backup /backups/monday")
@click.argument("directory", type=click.Path(path_type=Path))
@JSON
@placed
def backup(place: Place, directory: Path, as_json: bool) -> None:
    """Make a consistent copy in a new directory, while the server runs."""
    with place.site() as site:
        _tell(maintenance.backup(site, directory.absolute()), as_json)


@click.command(epilog="Example: dblike-server migrate")
@placed
def migrate(place: Place) -> None:
    """Bring the database to this release's schema, while the release before goes on."""
    config = place.read()
    database = Database(config.database_url, SystemRandom(), answer=A_DAY)
    try:
        database.reach()
        done = schema.migrate(database)
    finally:
        database.close()
    if done.before == done.after:
        click.echo(f"The database is at revision {done.after}; there was nothing to do.")
    else:
        click.echo(f"The database was at revision {done.before or 'none'}, now {done.after}.")


def _tell(report: Any, as_json: bool) -> None:
    if as_json:
        emit(report)
        return
    for name, value in msgspec.to_builtins(report).items():
        shown = f"{value:,}" if isinstance(value, int) else value
        if isinstance(value, list | tuple):
            shown = "\n".join(["", *(f"  {each}" for each in value)]) if value else "none"
        click.echo(f"{name.replace('_', ' ')}: {shown}")
