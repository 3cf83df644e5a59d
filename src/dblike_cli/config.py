"""The config: .dblike/config.json, overridden by the environment, as one frozen value.

The only reader of the environment.  Every key has a variable: `limits.up` is DBLIKE_LIMITS_UP.
"""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from dblike_cli.errors import NotFound, Usage
from dblike_delta.decoding import convert

PREFIX: Final = "DBLIKE_"
_LARGEST: Final = 1 << 20
_Seconds = Annotated[int, msgspec.Meta(ge=10)]
_Rate = Annotated[int, msgspec.Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes a second in each direction; 0 is no limit."""

    up: _Rate = 0
    down: _Rate = 0


class Lan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether content may come from devices on the same network."""

    enabled: bool = True


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ca`: a file of the authorities to trust instead of the system's.  `plain`: whether http://
    to other machines is allowed, where anyone on the way can read and change everything."""

    ca: str = ""
    plain: bool = False


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a user can set for a linked folder."""

    servers: Annotated[list[str], msgspec.Meta(min_length=1)]
    folder: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "home"
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "unnamed"
    ignore: list[str] = []
    limits: Limits = Limits()
    lan: Lan = Lan()
    tls: Tls = Tls()
    max_delete: Annotated[str, msgspec.Meta(pattern=r"^\d{1,15}%?$")] = "50%"
    rescan: _Seconds = 3600
    """Seconds between two looks at the whole folder while watching."""


def read_config(file: Path, environment: Mapping[str, str] | None = None) -> Config:
    """The config of a file, overridden by the environment; raises Usage."""
    data = _load(file)
    for key, value in read_environment(environment).items():
        _put(data, key, value)
    return _convert(data, str(file))


def read_environment(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The dotted keys that the environment has a value of, and that; raises Usage."""
    given = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    for key, kind in all_keys():
        variable = PREFIX + key.replace(".", "_").upper()
        text = given.get(variable)
        if text is not None:
            found[key] = _parse(text, kind)
            alone: dict[str, Any] = {"servers": ["https://any.example"]}
            _put(alone, key, found[key])
            _typed(alone, variable)  # or the file would be blamed
    return found


def render_config(config: Config) -> bytes:
    """The JSON text of a config, for people to edit."""
    return (json.dumps(msgspec.to_builtins(config), indent=2, ensure_ascii=False) + "\n").encode()


def unit_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where systemd looks for the user's own units."""
    given = os.environ if environment is None else environment
    home = given.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "systemd" / "user"


def get_key(config: Config, key: str) -> Any:
    """The value of a dotted key; raises NotFound."""
    value = msgspec.to_builtins(config)
    _field(key)
    for part in key.split("."):
        value = value[part]
    return value


def set_key(file: Path, key: str, text: str) -> Config:
    """The config of `file` with one key changed; `text` is JSON, a plain word, or a list of words
    with commas.  Raises Usage; nothing is written."""
    data = _load(file)
    _put(data, key, _parse(text, _field(key)))
    return _convert(data, str(file))


def all_keys() -> Iterator[tuple[str, Any]]:
    """Every dotted key and its type."""
    yield from _keys(Config, "")


def check_servers(text: str, *, plain: bool = False) -> list[str]:
    """The URLs of `URL[,URL…]`, each one checked; raises Usage."""
    urls = [url.strip().rstrip("/") for url in text.split(",") if url.strip()]
    if not urls:
        raise Usage("name a server, such as https://sync.example.org")
    for url in urls:
        _check_url(url, plain=plain)
    return urls


def _check_url(url: str, *, plain: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Usage(f"{url!r} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise Usage(
            "a URL can't carry a user or a password: it would end up in the config, in process "
            "lists and in logs; use --user, and type the password when asked"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise Usage(f"{url!r} is not an http:// or https:// URL of a server")
    if parts.query or parts.fragment or not url.isascii() or any(c <= " " for c in url):
        raise Usage(f"{url!r}: only scheme, host, port and path belong in a server's URL")
    if parts.scheme == "http" and not plain and not _loopback(host):
        raise Usage(
            f"{url} is not encrypted: passwords and files could be read on the way; "
            "use https://, or --insecure where the network itself is safe"
        )


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or (host.startswith("127.") and host.count(".") == 3)


# --- reading --------------------------------------------------------------------------------------


def _load(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
    except OSError as error:
        raise Usage(f"{file}: {error.strerror}") from None
    if len(raw) > _LARGEST:
        raise Usage(f"{file}: larger than any config")
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise Usage(f"{file}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise Usage(f"{file}: a config is a JSON object")
    return data


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return data


def _convert(data: dict[str, Any], source: str) -> Config:
    _check_names(data, Config, source, "")
    config = _typed(data, source)
    check_servers(",".join(config.servers), plain=config.tls.plain)
    return config


def _typed(data: dict[str, Any], source: str) -> Config:
    try:
        config = convert(data, Config)
        render_config(config)
    except msgspec.ValidationError as error:
        raise Usage(f"{source}: {error}") from None
    except UnicodeEncodeError:
        raise Usage(f"{source}: a text in it is not UTF-8") from None
    return config


def _check_names(data: Any, kind: type[msgspec.Struct], source: str, prefix: str) -> None:
    """Refuse a key that is not known, and name the one that was probably meant."""
    if not isinstance(data, dict):
        return
    known = typing.get_type_hints(kind)
    for name, value in data.items():
        if name not in known:
            raise Usage(f"{source}: unknown key {prefix + name!r}{_nearest(prefix + name)}")
        if isinstance(known[name], type) and issubclass(known[name], msgspec.Struct):
            _check_names(value, known[name], source, f"{prefix}{name}.")


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    names = [key for key, _ in all_keys()] + [
        key.split(".")[0] for key, _ in all_keys() if "." in key
    ]
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    near = near or [key for key in names if key.rpartition(".")[2] == name.rpartition(".")[2]]
    return f"; did you mean {near[0]!r}?" if near else f"; keys are {', '.join(sorted(set(names)))}"


# --- keys -----------------------------------------------------------------------------------------


def _keys(kind: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(kind).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _keys(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _field(key: str) -> Any:
    for name, kind in all_keys():
        if name == key:
            return kind
    if any(name.startswith(f"{key}.") for name, _ in all_keys()):
        return dict
    raise NotFound(f"there is no key {key!r}{_nearest(key)}")


def _parse(text: str, kind: Any) -> Any:
    """A value as it is typed: JSON where it is that, else words."""
    if kind is str:
        return text
    if isinstance(kind, types.GenericAlias) and not text.lstrip().startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            return  # the conversion that follows says what is wrong with it
        data = inner
    data[name] = value
