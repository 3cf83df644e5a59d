"""The server's configuration: what it says about what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblike_srv.config import Config, ConfigError, decode_config, load_config
from rig.pages import rows_of

KEY = "k" * 64


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_misspelt_variable_is_named_and_others_are_nobodys_business() -> None:
    with pytest.raises(ConfigError, match=r"DBLIKE_DATABSE .* did you mean DBLIKE_DATABASE"):
        load_config(None, environ={"DBLIKE_DATABSE": "sqlite://"})
    others = {"DBLIKE_DEBUG": "1", "DBLIKE_KERNEL": "python", "DBLIKE_MY_OWN": "x"}
    assert load_config(None, environ=others) == load_config(None, environ={})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DBLIKE_WORKERS", "many"),
        ("DBLIKE_WORKERS", "0"),
        ("DBLIKE_RETENTION", '{"day": 1}'),
        ("DBLIKE_BIND", "here"),
        ("DBLIKE_DATABSE", "sqlite://"),
    ],
)
def test_what_is_wrong_in_the_environment_is_not_sought_in_the_file(
    tmp_path: Path, variable: str, text: str
) -> None:
    file = write(tmp_path, json.dumps({"cluster_key": KEY}))
    with pytest.raises(ConfigError, match=variable) as said:
        load_config(file, environ={variable: text})
    assert "config.json" not in str(said.value)


def test_a_file_the_environment_and_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, json.dumps({"cluster_key": KEY, "bind": "0.0.0.0:1", "workers": 3}))
    environ = {"DBLIKE_WORKERS": "5", "DBLIKE_RETENTION": '{"days": 7}', "DBLIKE_CONFIG": "x"}
    config = load_config(file, environ=environ)
    assert (config.bind, config.workers, config.retention.days) == ("0.0.0.0:1", 5, 7)
    assert config.key == KEY.encode()
    assert config.limits.quota == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"binds": "x"}, "did you mean bind"),
        ({"site": {"nam": "x"}}, "did you mean site.name"),
        ({"frobnicate": 1}, "unknown key frobnicate"),
        ({"workers": "many"}, "workers"),
        ({"workers": 0}, "workers"),
        ({"limits": {"quota": -1}}, "limits.quota"),
        ({"retention": 5}, "retention"),
        ({"peers": ["http://a"]}, "peers"),
        ({"peers": [{"url": "ftp://a"}]}, "no http:// or https://"),
        ({"peers": [{"url": "http://two.example"}]}, "not encrypted"),
        ({"site": {"url": "http://10.0.0.1:8384"}}, "not encrypted"),
        ({"site": {"url": "HTTP://127.0.0.1.example"}}, "http"),
        ({"metrics_token": "short"}, "metrics_token"),
        ({"log": {"level": "loud"}}, "log.level is one of debug"),
        ({"log": {"format": "xml"}}, "log.format"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        decode_config({"cluster_key": KEY, **values})


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8384/x"])
def test_this_machine_itself_needs_no_encryption(url: str) -> None:
    assert decode_config({"site": {"url": url}, "peers": [{"url": url}]}).site.url == url


def test_a_network_that_is_safe_is_named_so() -> None:
    peers = [{"url": "http://two.example"}]
    assert decode_config({"peers": peers, "replication": {"insecure": True}}).peers


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"bind": "a", "bind": "b"}', "[" * 100_000, "\0", "nul"]
)
def test_what_is_no_config(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_config(write(tmp_path, text), environ={})


def test_a_config_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ConfigError):
            load_config(path, environ={})


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "\ufeff" + json.dumps({"workers": 4})), environ={})
    assert config.workers == 4


@pytest.mark.parametrize("key", ["", "short", "k" * 31])
def test_there_is_no_default_key_and_no_weak_one(key: str) -> None:
    with pytest.raises(ConfigError, match="cluster_key"):
        _ = decode_config({"cluster_key": key}).key


def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(ConfigError, match="cluster_key_file"):
        _ = decode_config({"cluster_key_file": str(file)}).key
    file.write_text(KEY + "\n")
    assert decode_config({"cluster_key_file": str(file)}).key == KEY.encode()


def _defaults(value: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(value):
        inner = getattr(value, field.name)
        if isinstance(inner, msgspec.Struct):
            yield from _defaults(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, msgspec.to_builtins(inner)


def test_the_page_has_every_key_and_its_default() -> None:
    """Defaults that are no values there (`none`) are empty texts here."""
    told = rows_of("configuration.md", "The server")
    defaults = dict(_defaults(Config()))
    assert told.keys() == defaults.keys()
    for key, (default, _) in told.items():
        said = json.loads(default.strip("`")) if default.startswith("`") else ""
        assert json.loads(msgspec.json.encode(defaults[key])) == said, key


@pytest.mark.parametrize("part", [{"name": "n" * 65}, {"url": "https://" + "u" * 505}])
def test_a_site_is_called_what_others_can_be_told(part: dict[str, str]) -> None:
    """Else none of them could believe it, nor hear anything else of it."""
    with pytest.raises(ConfigError, match=rf"site\.{next(iter(part))}"):
        decode_config({"cluster_key": KEY, "site": part})
    decode_config({"cluster_key": KEY, "site": {key: text[:-1] for key, text in part.items()}})
