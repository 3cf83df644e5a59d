"""The server's configuration: one JSON file, DBLIKE_… from the environment, defaults.

This is the only place that reads the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from dblike_delta.decoding import convert

Positive = Annotated[int, msgspec.Meta(ge=1)]
Natural = Annotated[int, msgspec.Meta(ge=0)]


REDIS = ("redis://", "rediss://", "unix://")
LEVELS = ("debug", "info", "warning", "error")
_SHORTEST_TOKEN = 16
_LARGEST_PORT = 65535
PLAIN = (
    "is not encrypted: hashes of passwords, tokens and files could be read on the way; use "
    "https://, or set replication.insecure (join --insecure) where the network itself is safe"
)
"""Why such a URL is refused."""


class ConfigError(Exception):
    """A configuration that can't be used: which key, and what to do."""


class WrongVariable(ConfigError):
    """A variable of the environment that can't be meant so; the file is not to blame."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class SiteConfig(_Part, frozen=True):
    """What the site is called, and where others reach it."""

    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    url: Annotated[str, msgspec.Meta(max_length=512)] = ""


class Peer(_Part, frozen=True):
    """Another site of the cluster."""

    url: str


class Retention(_Part, frozen=True):
    """What `gc` keeps of a path beside its heads: versions that were replaced less than `days` ago,
    and of a path that is not deleted the newest `versions`, however old they are."""

    days: Natural = 30
    versions: Natural = 10


class LimitsConfig(_Part, frozen=True):
    """Above these a request is refused.  Sizes in bytes; 0 is no limit for `quota`."""

    file_size: Positive = 1 << 40
    quota: Natural = 0
    sockets_per_user: Positive = 500
    uploads_per_user: Positive = 64


class Replication(_Part, frozen=True):
    """How many sites shall hold a commit before it is answered, and how long to wait for them.

    `follow` is "all" sites that are known of, or only the "peers" that are named here.  `insecure`
    allows http:// to other machines.
    """

    copies: Positive = 1
    wait_ms: Natural = 1000
    follow: str = "all"
    insecure: bool = False


class Log(_Part, frozen=True):
    """`format` is "text" or "json"."""

    format: str = "text"
    level: str = "info"


class Config(_Part, frozen=True):
    """All keys of the server's configuration.  `data` is where everything embedded lies.

    `proxies` are the addresses or networks whose X-Forwarded-For is believed ("unix" for a socket).
    `metrics_token` is what Prometheus sends; without one only this machine may read /metrics.
    """

    data: str = "dblike-data"
    site: SiteConfig = SiteConfig()
    bind: str = "127.0.0.1:8384"
    workers: Positive = 2
    threads: Positive = 16
    database: str = ""
    store: str = ""
    endpoint_url: str = ""
    proxies: tuple[str, ...] = ()
    peers: tuple[Peer, ...] = ()
    cluster_key: str = ""
    cluster_key_file: str = ""
    auth: tuple[dict[str, Any], ...] = ({"plugin": "simple"},)
    retention: Retention = Retention()
    limits: LimitsConfig = LimitsConfig()
    replication: Replication = Replication()
    notify: str = "local"
    metrics_token: str = ""
    log: Log = Log()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL; SQLite below `data` where none is given."""
        return self.database or f"sqlite:///{Path(self.data).absolute() / 'dblike.db'}"

    @property
    def key(self) -> bytes:
        """The cluster's key; raises ConfigError where there is none, or a weak one."""
        text = self.cluster_key
        if not text and self.cluster_key_file:
            try:
                text = Path(self.cluster_key_file).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigError(f"cluster_key_file: {error}") from None
        if len(text) < 32:
            raise ConfigError(
                "cluster_key is absent or shorter than 32 characters: "
                "`dblike-server init` writes a config with a fresh one"
            )
        return text.encode()


def load_config(
    path: Path | None, *, data: Path | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration from a file (or defaults), with `data` and the environment over it.

    Raises ConfigError, which names the key and the nearest known one.
    """
    values = {} if path is None else _read(path)
    try:
        return overlay(values, data=data, environ=environ)
    except WrongVariable:
        raise
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if path is not None else str(error)) from None


def overlay(
    values: dict[str, Any], *, data: Path | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration from a file's values, with `data` and the environment over them."""
    over = _from_environment(os.environ if environ is None else environ)
    if data is not None:
        over["data"] = str(data)
    return decode_config(values | over)


def decode_config(values: dict[str, Any]) -> Config:
    """A configuration from plain values.  Raises ConfigError."""
    config = _typed(values)
    _check_offered(config)
    return config


def _typed(values: dict[str, Any]) -> Config:
    _check_keys(values, Config, "")
    try:
        config = convert(values, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`")) from None
    check_address(config.bind)
    return config


def is_plain(url: str) -> bool:
    """Whether it is http:// to another machine."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname == "localhost":
            return False
        return not ipaddress.ip_address((parts.hostname or "").partition("%")[0]).is_loopback
    except ValueError:  # a name, or what is no address
        return True


def check_address(bind: str) -> None:
    """Refuse what can't be an address to listen at; raises ConfigError."""
    host, _, port = bind.rpartition(":")
    fit = host and port.isascii() and port.isdecimal() and int(port) <= _LARGEST_PORT
    if not fit and not bind.startswith(("unix:", "fd://")):
        raise ConfigError(f"bind: {bind!r} is not HOST:PORT")


def _check_offered(config: Config) -> None:
    """Refuse what is none of the words or URLs that a key may have."""
    for url in (config.site.url, *(peer.url for peer in config.peers)):
        if url and not url.startswith(("http://", "https://")):
            raise ConfigError(f"site.url and peers: {url!r} is no http:// or https:// URL")
        if url and is_plain(url) and not config.replication.insecure:
            raise ConfigError(f"site.url and peers: {url} {PLAIN}")
    for proxy in config.proxies:
        if proxy != "unix" and not _is_network(proxy):
            raise ConfigError(f'proxies: {proxy!r} is no address, no network, and not "unix"')
    if config.replication.follow not in ("all", "peers"):
        raise ConfigError('replication.follow is "all" or "peers"')
    if config.notify != "local" and not config.notify.startswith(REDIS):
        raise ConfigError('notify is "local", or redis://HOST:PORT where a site has several hosts')
    if config.metrics_token and len(config.metrics_token) < _SHORTEST_TOKEN:
        raise ConfigError(f"metrics_token has fewer than {_SHORTEST_TOKEN} characters")
    if config.log.format not in ("text", "json"):
        raise ConfigError('log.format is "text" or "json"')
    if config.log.level not in LEVELS:
        raise ConfigError(f"log.level is one of {', '.join(LEVELS)}")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_no_twice)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: the outermost value must be an object")
    return values


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _check_keys(values: dict[str, Any], kind: type[msgspec.Struct], prefix: str) -> None:
    known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ConfigError(f"unknown key {prefix}{key}{hint}")
        inner = known[key]
        if (
            isinstance(value, dict)
            and isinstance(inner, type)
            and issubclass(inner, msgspec.Struct)
        ):
            _check_keys(value, inner, f"{prefix}{key}.")


_ENVIRONMENT = "DBLIKE_"
_NEAR = 0.85
_NO_KEYS = frozenset({"complete", "config", "debug", "kernel"})
"""What else is read of the environment."""


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """DBLIKE_BIND=… and the like; values that are JSON are read as such.

    A name that is nearly one of a key's is a mistake; others may be somebody else's.
    """
    known = {field.encode_name for field in msgspec.structs.fields(Config)}
    values: dict[str, Any] = {}
    for name, text in environ.items():
        key = name.removeprefix(_ENVIRONMENT).lower()
        if not name.startswith(_ENVIRONMENT) or key in _NO_KEYS:
            continue
        if key in known:
            values[key] = _value(text)
            try:
                _typed({key: values[key]})
            except ConfigError as error:
                raise WrongVariable(f"{name} in the environment: {error}") from None
        elif near := difflib.get_close_matches(key, known, n=1, cutoff=_NEAR):
            meant = f"{_ENVIRONMENT}{near[0].upper()}"
            said = f"unknown variable {name} in the environment; did you mean {meant}?"
            raise WrongVariable(said)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
