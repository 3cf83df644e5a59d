"""The sites that a site named, in a file of `.dblike`: where to go when the config's are away.

The bearer token goes to them, so they are held to what the config is held to: never plain where the
config's servers are encrypted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from dblike_cli.config import Config, check_servers
from dblike_cli.credentials import write_private
from dblike_cli.errors import Usage
from dblike_delta.decoding import read_json

_MOST: Final = 32
_LARGEST: Final = 1 << 16
_STALE: Final = 24 * 3600


def read_learned(file: Path, config: Config) -> list[str]:
    """The URLs, of those that are fit to be used with this config."""
    try:
        raw = file.read_bytes()[:_LARGEST]
        return fit(read_json(raw, list[str]), config)
    except (OSError, msgspec.DecodeError):
        return []


def write_learned(file: Path, urls: Iterable[str], config: Config) -> list[str]:
    """Remember these, and return those that are fit to be used."""
    found = fit(urls, config)
    write_private(file, msgspec.json.encode(found) + b"\n")
    return found


def is_stale(file: Path) -> bool:
    """Whether it is time to ask again."""
    try:
        return not 0 <= time.time() - file.stat().st_mtime < _STALE
    except OSError:
        return True


def fit(urls: Iterable[str], config: Config) -> list[str]:
    """Those that may get the token."""
    plain = not any(server.startswith("https:") for server in config.servers)
    found: dict[str, None] = {}
    for url in urls:
        with contextlib.suppress(Usage):
            checked = check_servers(url, plain=config.tls.plain)
            if len(checked) == 1 and (plain or checked[0].startswith("https:")):
                found[checked[0]] = None
    return list(found)[:_MOST]
