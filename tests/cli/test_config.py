"""The config: strict, overridden by the environment, and never silent about a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dblike_cli import config
from dblike_cli.errors import ClientError, NotFound, Usage
from rig.pages import rows_of

SERVERS = '"servers": ["https://a.example"]'
JUST_SERVERS = "{" + SERVERS + "}"


def also(text: str) -> str:
    return "{" + SERVERS + ", " + text + "}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def read(file: Path, text: str, **environment: str) -> config.Config:
    file.write_text(text)
    return config.read_config(file, environment)


def test_defaults(file: Path) -> None:
    made = read(file, JUST_SERVERS)
    assert (made.folder, made.limits.up, made.lan.enabled, made.tls.ca) == ("home", 0, True, "")


def test_what_is_written_is_read(file: Path) -> None:
    made = config.Config(servers=["https://a"], ignore=["*.o"], limits=config.Limits(up=5))
    file.write_bytes(config.render_config(made))
    assert config.read_config(file, {}) == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sevrers": ["https://a"]}', "unknown key 'sevrers'; did you mean 'servers'?"),
        (also('"limits": {"upp": 1}'), "'limits.upp'; did you mean 'limits.up'?"),
        (also('"up": 1'), "did you mean 'limits.up'?"),
        (also('"zzz": 1'), "keys are "),
        (
            also('"limits": {"up": "fast"}'),
            "Expected `int`, got `str` - at `$.limits.up`",
        ),
        (also('"limits": {"up": -1}'), "$.limits.up"),
        (also('"limits": []'), "$.limits"),
        (also('"folder": ""'), "$.folder"),
        (also('"max_delete": "many"'), "$.max_delete"),
        ('{"servers": []}', "$.servers"),
        (also(SERVERS), "'servers' is there twice"),
        ("{}", "servers"),
        ("[]", "JSON object"),
        ("", "not valid JSON"),
        ("\ufeff{}", "BOM"),
        ('{"servers": ["https://a"]', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"servers": ["https://u:secret@a"]}', "can't carry a user or a password"),
    ],
)
def test_a_mistake_is_named(file: Path, text: str, said: str) -> None:
    with pytest.raises(Usage) as mistake:
        read(file, text)
    assert said in str(mistake.value)
    assert "\n" not in str(mistake.value)
    assert "secret" not in str(mistake.value)


def test_a_config_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(Usage, match=str(place)):
            config.read_config(place, {})


def test_every_key_has_a_variable(file: Path) -> None:
    values = {
        "servers": ("https://b,https://c", ["https://b", "https://c"]),
        "folder": ("photos", "photos"),
        "device": ("12", "12"),
        "ignore": ("*.o, tmp/", ["*.o", "tmp/"]),
        "limits.up": ("1000", 1000),
        "limits.down": ("2000", 2000),
        "lan.enabled": ("false", False),
        "tls.ca": ("ca.pem", "ca.pem"),
        "tls.plain": ("true", True),
        "max_delete": ("7%", "7%"),
        "rescan": ("60", 60),
    }
    assert sorted(values) == sorted(key for key, _ in config.all_keys())
    environment = {f"DBLIKE_{k.replace('.', '_').upper()}": v for k, (v, _) in values.items()}
    made = read(file, JUST_SERVERS, **environment)
    assert {key: config.get_key(made, key) for key in values} == {
        key: value for key, (_, value) in values.items()
    }


def test_a_wrong_variable_is_an_error_too(file: Path) -> None:
    with pytest.raises(Usage, match=r"\$\.limits\.up"):
        read(file, JUST_SERVERS, DBLIKE_LIMITS_UP="fast")


def test_what_the_environment_says_alone() -> None:
    given = {"DBLIKE_TLS_CA": "ca.pem", "DBLIKE_TLS_PLAIN": "true", "DBLIKE_OTHER": "x"}
    assert config.read_environment(given) == {"tls.ca": "ca.pem", "tls.plain": True}
    with pytest.raises(Usage, match=r"DBLIKE_DEVICE: .*\$\.device"):
        config.read_environment({"DBLIKE_DEVICE": ""})


def test_one_key_is_changed_and_the_rest_is_kept(file: Path) -> None:
    file.write_text(also('"ignore": ["a"]'))
    assert config.set_key(file, "limits.up", "5").limits.up == 5
    assert config.set_key(file, "limits.up", "5").ignore == ["a"]
    assert config.set_key(file, "servers", '["https://z"]').servers == ["https://z"]
    assert config.set_key(file, "servers", "https://y,https://z").servers[1] == "https://z"
    assert json.loads(file.read_text())["ignore"] == ["a"], "nothing is written here"


@pytest.mark.parametrize("key", ["limit.up", "limits", "servers.x"])
def test_a_key_that_is_none(file: Path, key: str) -> None:
    file.write_text(JUST_SERVERS)
    with pytest.raises(ClientError):
        config.set_key(file, key, "5")
    if key != "limits":
        with pytest.raises(NotFound):
            config.get_key(config.read_config(file, {}), key)


@pytest.mark.parametrize(
    "url",
    [
        "https://a",
        "https://a:8443/sync",
        "http://127.0.0.1:80",
        "http://localhost",
        "http://[::1]:9",
    ],
)
def test_servers(url: str) -> None:
    assert config.check_servers(f"{url}/, {url}") == [url, url]


@pytest.mark.parametrize(
    "url",
    [
        "",
        ",",
        "a",
        "file:///etc",
        "ftp://a",
        "https://",
        "https://a:70000",
        "https://u@a",
        "https://a?x=1",
        "https://a#x",
        "https://a b",
        "https://a\nb",
        "https://ä",
        "http://a.example",
        "http://127.evil.example",
        "https://[::1",
    ],
)
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(Usage):
        config.check_servers(url)


def test_plain_http_on_request() -> None:
    assert config.check_servers("http://a.example", plain=True) == ["http://a.example"]


def test_the_page_has_every_key_and_its_default(file: Path) -> None:
    told, made = rows_of("configuration.md", "The client"), read(file, JUST_SERVERS)
    assert told.keys() == dict(config.all_keys()).keys()
    values = {key: cells[0].strip("`") for key, cells in told.items() if cells[0].startswith("`")}
    assert len(values) > 7
    for key, default in values.items():
        assert config.get_key(made, key) == json.loads(default), key
