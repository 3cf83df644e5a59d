"""join, leave: making a site one of a cluster, and taking it out."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from dblike_delta.exchange import ExchangeError
from dblike_srv.commands.options import FAILED, USAGE, Place, fail, placed
from dblike_srv.configfile import Absent, Draft, change_config, draft_change, draft_config
from dblike_srv.errors import Gone
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.copies import lacking
from dblike_srv.replication.link import Left, Link
from dblike_srv.replication.messages import SiteState
from dblike_srv.replication.shared import Clash, count_unheard
from dblike_srv.replication.sites import (
    announce,
    has_left,
    known_sites,
    part_with,
    urls_of,
    welcome,
)
from dblike_srv.site import Site, open_site, renew


@click.command(epilog="Example: dblike-server join https://one.example --url https://two.example")
@click.argument("url")
@click.option(
    "--url", "own", metavar="URL", help="Where the other sites and devices reach this one."
)
@click.option("--name", metavar="NAME", help="What this site is called.")
@click.option("--bind", metavar="HOST:PORT", help="Address to listen at.")
@click.option("--insecure", is_flag=True, help="Allow http:// to other machines.")
@click.option("--cluster-key-stdin", is_flag=True, help="The cluster's key is stdin's first line.")
@placed
def join(
    place: Place,
    url: str,
    own: str | None,
    name: str | None,
    bind: str | None,
    insecure: bool,
    cluster_key_stdin: bool,
) -> None:
    """Make this a site of the cluster that URL is of. It fills itself while it serves.

    The cluster's key is in the config of any of its sites (cluster_key). A site that is new gets a
    config with it; one that runs already has to have it.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        fail(f"{url!r} is no http:// or https:// URL", USAGE)
    if own and own.rstrip("/") == url.rstrip("/"):
        fail("--url is where this site is reached, and URL where another one is", USAGE)
    draft = _draft(place, url, own, name, bind, insecure, _read_key(cluster_key_stdin))
    config = draft.config()
    site = open_site(config)
    try:
        if has_left(site, site.id):
            renew(site, site.id, why="this site left its cluster before")
        there = _visit(site, url)
        draft.write()  # only now, so that a join that fails may be repeated with other words
        welcome(site, there)
    finally:
        site.close()
    click.echo(f"Joined {there.name or there.id.hex()} at {url}.")
    if not config.site.url:
        click.echo("This site has no URL, so the others can't fetch what it accepts: use --url.")
    where = f"--config {place.config}" if place.config else f"--data {config.data}"
    click.echo(f"Serve with: dblike-server run {where}   (or reload the running one: SIGHUP)")


def _read_key(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().strip()
    return ""


def _draft(
    place: Place,
    url: str,
    own: str | None,
    name: str | None,
    bind: str | None,
    insecure: bool,
    key: str,
) -> Draft:
    """The config with the peer in it, a first one where there is none.  A site keeps its key."""
    try:
        config = place.read()
    except Absent:
        if not key:
            fail("a new site needs the cluster's key: use --cluster-key-stdin", USAGE)
        part = {k: v for k, v in (("name", name), ("url", own)) if v}
        return draft_config(
            place.config, place.data,
            bind=bind, cluster_key=key, peers=[{"url": url}], site=part or None,
            replication={"insecure": True} if insecure else None,
        )  # fmt: skip
    if key and key.encode() != config.key:
        fail(
            "this site has another cluster key, under which its devices' tokens are sealed: set "
            "cluster_key in its config first, then all of its devices log in again",
            USAGE,
        )
    if not own and config.site.url.rstrip("/") == url.rstrip("/"):
        fail(f"{url} is this very site (site.url): name another one", USAGE)
    peers = [peer.url for peer in config.peers]
    values: dict[str, Any] = {"peers": [{"url": each} for each in dict.fromkeys([*peers, url])]}
    if own or name:
        values["site"] = {"name": name or config.site.name, "url": own or config.site.url}
    if insecure:
        values["replication"] = msgspec.to_builtins(config.replication) | {"insecure": True}
    return draft_change(place.config, place.data, **values)


def _visit(site: Site, url: str) -> SiteState:
    """Say who we are at a site; who it is."""
    link = Link(site, url)
    try:
        try:
            return link.open(announce(site))
        except Left:
            renew(site, site.id, why="this site was taken out of its cluster")
            return link.open(announce(site))
    except (ExchangeError, Fault) as error:
        fail(f"{url}: {error}", FAILED)
    finally:
        link.close()


@click.command(epilog="Example: dblike-server leave")
@click.argument("site_id", metavar="[ID]", required=False)
@click.option("--force", is_flag=True, help="Also where versions are on no other site yet.")
@placed
def leave(place: Place, site_id: str | None, force: bool) -> None:
    """Take this site out of its cluster, or the one of this ID, which may be lost.

    What left is followed no more and may follow no more; its own copy of the data stays with it.
    """
    with place.site() as site:
        if site_id:
            theirs = _part_with_other(site, site_id)
        else:
            _leave(site, force)
            theirs = {peer.url for peer in site.config.peers}
    rest = [{"url": peer.url} for peer in site.config.peers if peer.url not in theirs]
    if len(rest) < len(site.config.peers):
        change_config(place.config, place.data, peers=rest)


def _part_with_other(site: Site, site_id: str) -> set[str]:
    """Where it was reached, among our peers."""
    others = [state for state in known_sites(site) if state.id != site.id]
    found = [state for state in others if state.id.hex().startswith(site_id.lower())]
    if len(found) != 1:
        fail(f"{len(found)} other sites have an id that begins with {site_id!r}", USAGE)
    part_with(site, found[0])
    click.echo(f"{found[0].name or found[0].url or site_id} is no site of the cluster any more.")
    urls = {found[0].url.rstrip("/"), *urls_of(site, found[0].id)}
    return {peer.url for peer in site.config.peers if peer.url.rstrip("/") in urls}


def _leave(site: Site, force: bool) -> None:
    known = [state for state in known_sites(site) if state.id != site.id]
    if not known and not site.config.peers:
        fail("this site is in no cluster")
    here = announce(site)
    if known and not force:
        _check_held(site, here, known)
    gone = part_with(site, here)
    others = [state for state in known if state.url]
    told = [state.url for state in others if _told(site, state.url, gone)]
    if others and not told:
        fail(
            "this site follows nobody any more, but no other site could be told: run "
            f"`dblike-server leave {site.id.hex()}` at one of them",
        )
    click.echo("This site left the cluster; it goes on by itself with what it has.")


def _check_held(site: Site, here: SiteState, others: list[SiteState]) -> None:
    """Fail where none of the others holds all that is here, whichever site took it first.  They are
    asked: what one said once may have gone since, with its disk."""
    why: list[str] = []
    for other in others:
        lack = _lack(site, here, other)
        if not lack:
            return
        why.append(f"{other.name or other.url or other.id.hex()} {lack}")
    said = "; ".join(why)
    fail(f"no other site holds all that this one does: wait, or use --force ({said})")


def _lack(site: Site, here: SiteState, other: SiteState) -> str:
    """What keeps another site from holding all that is here; empty where it does."""
    if not other.url:
        return "has no URL to be asked at"
    link = Link(site, other.url)
    try:
        if link.open(here).id != other.id:
            return "is another site now"
        missing = lacking(site, link.positions())
        unheard = count_unheard(site, link.all_shared())
    except (ExchangeError, Fault, Gone, Clash) as error:
        return f"can't be asked: {error}"
    finally:
        link.close()
    lacks = [f"{missing:,} versions"] if missing else []
    lacks += [f"{unheard:,} changes of accounts"] if unheard else []
    return f"lacks {' and '.join(lacks)}" if lacks else ""


def _told(site: Site, url: str, gone: SiteState) -> bool:
    link = Link(site, url)
    try:
        link.open(gone)
    except (ExchangeError, Fault):
        return False
    finally:
        link.close()
    return True
