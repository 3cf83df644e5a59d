"""`dblike-server`: a first run from nothing, each command, and one clear line for each failure."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

from dblike_delta.exchange import Unreachable
from dblike_srv import accounts
from dblike_srv.__main__ import COMMANDS, main
from dblike_srv.configfile import find_config
from dblike_srv.models import devices
from dblike_srv.replication.followed import note
from dblike_srv.replication.link import Link
from dblike_srv.replication.sites import announce
from dblike_srv.site import open_site
from rig.mariadb import PASSWORD as PASSWORD_THERE
from rig.mariadb import MariaDB
from rig.seaweed import SeaweedFS

PROGRAM = [sys.executable, "-m", "dblike_srv"]
PASSWORD = "correct horse"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DBLIKE_CONFIG", "DBLIKE_DATA"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: object, text: str = "", code: int = 0) -> Result:
        before = os.umask(0o022)
        try:
            result = CliRunner().invoke(main, [str(word) for word in words], input=text)
        finally:
            os.umask(before)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def made(run: Run, tmp_path: Path) -> Path:
    """A data directory with the user ada."""
    run("init", "--data", tmp_path / "data")
    run("user", "add", "ada", "--password-stdin", "--data", tmp_path / "data", text=PASSWORD + "\n")
    return tmp_path / "data"


def test_init_makes_a_config_with_a_secret_of_its_own(run: Run, tmp_path: Path) -> None:
    run("init", "--data", "one")
    run("init", "--data", "two")
    keys = set()
    for name in ("one", "two"):
        file = tmp_path / name / "config.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / name / "dblike.db").stat().st_mode) == 0o600
        keys.add(json.loads(file.read_text())["cluster_key"])
    assert len(keys) == 2
    assert all(len(key) == 64 for key in keys)


def test_init_again_changes_nothing(run: Run, tmp_path: Path) -> None:
    run("init", "--data", "d")
    before = (tmp_path / "d" / "config.json").read_bytes()
    assert "Kept" in run("init", "--data", "d").output
    assert (tmp_path / "d" / "config.json").read_bytes() == before


def test_a_config_elsewhere_names_its_data(run: Run, tmp_path: Path) -> None:
    run("init", "--config", "etc/server.json", "--data", "var/data", "--bind", "127.0.0.1:1234")
    config = json.loads((tmp_path / "etc" / "server.json").read_text())
    assert config["data"] == str(tmp_path / "var" / "data")
    assert config["bind"] == "127.0.0.1:1234"
    shown = json.loads(run("status", "--json", "--config", "etc/server.json").output)
    assert shown["data"] == config["data"]


@pytest.mark.parametrize("command", ["status", "run", "init"])
def test_a_config_that_the_environment_names_has_to_be_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """With the key of the cluster in the environment, too, an empty site would be believed."""
    monkeypatch.setenv("DBLIKE_CLUSTER_KEY", "k" * 64)
    monkeypatch.setenv("DBLIKE_CONFIG", str(tmp_path / "none.json"))
    said = run(command, code=2).output
    assert said == (
        f"dblike-server: DBLIKE_CONFIG names {tmp_path}/none.json, and there is none; "
        f"`dblike-server init --config {tmp_path}/none.json` makes it\n"
    )
    assert list(tmp_path.iterdir()) == []
    run("init", "--config", tmp_path / "none.json")
    run("status")


def test_a_config_may_be_the_environments_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBLIKE_CLUSTER_KEY", "k" * 64)
    said = run("init", "--data", "one").output
    assert said == "The config is the environment's; the data are in one\n"
    monkeypatch.setenv("DBLIKE_CONFIG", str(tmp_path / "none.json"))
    assert run("init", "--data", "one").output == said, "which is named by the option"
    assert not (tmp_path / "one" / "config.json").exists()
    assert "all is well" in run("status", "--data", "one").output


def test_a_data_directory_may_be_moved(run: Run, made: Path, tmp_path: Path) -> None:
    before = json.loads(run("status", "--json", "--data", made).output)
    made.rename(tmp_path / "moved")
    after = json.loads(run("status", "--json", "--config", tmp_path / "moved/config.json").output)
    assert after["site_id"] == before["site_id"]
    assert after["data"] == str(tmp_path / "moved")


def test_options_stand_before_or_after_the_command(run: Run, made: Path) -> None:
    after = run("status", "--json", "--data", made).output
    before = run("--data", made, "status", "--json").output
    assert json.loads(after)["site_id"] == json.loads(before)["site_id"]
    assert json.loads(after)["problem"] == ""


def test_a_peer_that_was_never_heard_is_not_well(run: Run, made: Path) -> None:
    url = "http://127.0.0.1:1"
    config = json.loads((made / "config.json").read_text()) | {"peers": [{"url": url}]}
    (made / "config.json").write_text(json.dumps(config))
    *_, peer, end = run("status", "--data", made).output.splitlines()
    assert peer == f"peer {url}: never heard: not followed yet"
    assert end == "this site is well, 1 of its peers not (see above)"
    with contextlib.closing(open_site(find_config(data=made))) as site:
        with pytest.raises(Unreachable, match=r"^Connection refused$"):
            Link(site, url).open(announce(site))
        note(site, url, problem="away: Connection refused")
    *_, peer, _ = run("status", "--data", made).output.splitlines()
    assert peer == f"peer {url}: never heard: away: Connection refused"


def test_users(run: Run, made: Path) -> None:
    at = ("--data", made)
    (ada,) = json.loads(run("user", "list", "--json", *at).output)
    assert (ada["name"], ada["disabled"], ada["quota"]) == ("ada", False, 0)
    run("user", "quota", "ada", "5G", *at)
    run("user", "disable", "ada", *at)
    (ada,) = json.loads(run("user", "list", "--json", *at).output)
    assert (ada["disabled"], ada["quota"]) == (True, 5 << 30)
    assert "log in again" in run("user", "disable", "ada", "--undo", *at).output
    assert "1 user, 1 folder\n" in run("status", *at).output
    run("user", "quota", "ada", "none", *at)
    run("user", "passwd", "ada", "--password-stdin", *at, text="other\n")
    assert "ada" in run("user", "list", *at).output
    (folder,) = json.loads(run("folder", "list", "--json", *at).output)["ada"]
    assert folder["name"] == "home"
    assert json.loads(run("device", "list", "--json", *at).output) == {"ada": []}


@pytest.mark.parametrize(
    ("words", "text", "code", "said"),
    [
        (("user", "add", "ada", "--password-stdin"), "x\n", 1, "there is a user ada already"),
        (("user", "add", "a:b", "--password-stdin"), "x\n", 1, "printable text"),
        (("user", "add", "bob", "--password-stdin"), "\n", 2, "1 to 1024 characters"),
        (("user", "add", "bob"), "", 2, "--password-stdin"),
        (("user", "disable", "bob"), "", 1, "no user bob"),
        (("user", "quota", "ada", "much"), "", 2, "no size"),
        (("user", "quota", "ada", "8388608T"), "", 2, "too large"),
        (("user", "quota", "ada", "999999999999999T"), "", 2, "too large"),
        (("device", "revoke", "zz"), "", 1, "no such device"),
        (("folder", "list", "--user", "bob"), "", 1, "no user bob"),
        (("nonsense",), "", 2, "No such command"),
        (("user", "add"), "", 2, "Missing argument"),
    ],
)
def test_failures_are_one_line(
    run: Run, made: Path, words: tuple[str, ...], text: str, code: int, said: str
) -> None:
    result = run("--data", made, *words, text=text, code=code)
    assert said in result.output
    assert "Traceback" not in result.output


def test_what_others_named_is_one_line_that_no_terminal_obeys(run: Run, made: Path) -> None:
    """A device's name is its user's to choose, and a peer's problem is the peer's words."""
    evil = "\x1b[2Jlaptop\n3f3f\tada\tgood\x07"
    with contextlib.closing(open_site(find_config(data=made))) as site:
        row = {"id": b"\x3f" * 16, "user": 1, "name": evil, "created": 1, "last_seen": 1}
        site.database.transact(lambda c: c.execute(insert(devices).values(**row)))
        note(site, "https://two.example", problem=evil)
    listed = run("device", "list", "--data", made).output
    status = run("status", "--data", made).output
    for said in (listed, status):
        assert "\\x1b[2Jlaptop\\n3f3f\\tada\\tgood\\x07" in said
        assert "\x1b" not in said
        assert "\x07" not in said
    assert len(listed.splitlines()) == 1


def test_the_beginning_of_a_devices_id_is_enough_to_revoke_it(run: Run, made: Path) -> None:
    site = open_site(find_config(None, made))
    ada = accounts.find_user(site, "ada").id
    rows = [
        {"id": bytes.fromhex(uid * 16), "user": ada, "name": uid, "created": 0}
        for uid in ("3f", "3e")
    ]
    site.database.transact(lambda connection: connection.execute(insert(devices), rows) and None)
    site.close()
    at = ("--data", made)
    run("device", "revoke", "3", *at, code=2)
    assert f"Revoked {'3f' * 16}." in run("device", "revoke", "3F", *at).output
    listed = json.loads(run("device", "list", "--json", *at).output)["ada"]
    assert [each["name"] for each in listed if each.get("revoked")] == ["3f"]


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_a_password_that_is_no_text_is_refused_in_one_line(made: Path, locale: str) -> None:
    words = ("user", "add", "bob", "--password-stdin", "--data", str(made))
    done = subprocess.run(
        [*PROGRAM, *words],
        input=b"caf\xe9\n",
        capture_output=True,
        env={**os.environ, "LC_ALL": locale},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == b"dblike-server: a password has to be UTF-8\n"


@pytest.mark.parametrize(
    "command", sorted(set(COMMANDS) - {"run", "init", "join", "user", "device", "folder"})
)
def test_nothing_is_made_by_accident(run: Run, tmp_path: Path, command: str) -> None:
    words = (command, "elsewhere") if command == "backup" else (command,)
    result = run(*words, "--data", "typo", code=2)
    assert "no server at typo/config.json" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON"),
        ("[]", "must be an object"),
        ("{", "not valid JSON"),
        ('{"bnid": "x"}', "did you mean bind?"),
        ('{"bnid": "x"}', "c.json: unknown key"),
        ('{"proxies": ["foo"]}', "proxies: 'foo' is no address"),
        ('{"workers": "two"}', "workers"),
        ('{"workers": 0}', "workers"),
        ('{"retention": {"day": 3}}', "did you mean retention.days?"),
        ('{"bind": "a", "bind": "b"}', "twice"),
        ("{}", "cluster_key is absent"),
        ('{"cluster_key": "short"}', "shorter than 32"),
        ('{"cluster_key": "%s", "auth": []}' % ("k" * 64), "no plugin is named"),
        ('{"cluster_key": "%s", "auth": [{"plugin": "simpel"}]}' % ("k" * 64), "'simple'"),
        ('{"cluster_key": "%s", "bind": "nowhere"}' % ("k" * 64), "is not HOST:PORT"),
        ('{"cluster_key": "%s", "bind": "127.0.0.1:1e9"}' % ("k" * 64), "is not HOST:PORT"),
        ('{"cluster_key": "%s", "store": "ftp://x"}' % ("k" * 64), "store: ftp://x"),
    ],
)
def test_a_bad_config_is_named_and_nothing_starts(
    run: Run, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "c.json").write_text(content)
    (tmp_path / "c.json").chmod(0o600)
    result = run("run", "--config", "c.json", "--data", "d", code=2)
    assert said in result.output
    assert result.output.count("\n") == 1


def test_a_secret_that_everybody_may_read_is_refused(run: Run, made: Path) -> None:
    (made / "config.json").chmod(0o644)
    assert "chmod" in run("status", "--data", made, code=2).output


def test_a_damaged_database_is_said_in_one_line(run: Run, made: Path) -> None:
    for beside in made.glob("dblike.db-*"):
        beside.unlink()
    (made / "dblike.db").write_bytes(b"garbage" * 1000)
    for command in ("run", "status"):
        result = run(command, "--data", made, code=1)
        assert result.output == "dblike-server: database: file is not a database\n"


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", "mysql+nodriver://x"])
def test_a_database_that_there_is_not_is_a_mistake_in_the_config(
    run: Run, made: Path, url: str
) -> None:
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "database": url}))
    assert run("status", "--data", made, code=2).output.startswith("dblike-server: database: ")


def test_a_directory_is_no_config(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    assert "Traceback" not in run("status", "--config", "dir", code=2).output


def test_a_port_in_use_is_said_in_one_line(run: Run, made: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("run", "--data", made, "--bind", bind, code=1)
    assert result.output == f"dblike-server: {bind}: another program listens on this port\n"


def test_maintenance(run: Run, made: Path, tmp_path: Path) -> None:
    at = ("--data", made)
    assert json.loads(run("gc", "--dry-run", "--json", *at).output)["packs"] == 0
    assert json.loads(run("compact", "--json", *at).output)["packs"] == 0
    assert json.loads(run("scrub", "--json", *at).output)["damaged_packs"] == []
    assert "damaged packs: none\n" in run("scrub", *at).output
    assert "nothing to do" in run("migrate", *at).output
    run("backup", tmp_path / "copy", *at)
    assert json.loads(run("status", "--json", "--data", tmp_path / "copy").output)["users"] == 1
    assert "is there already" in run("backup", tmp_path / "copy", *at, code=1).output


def test_help_shows_an_example(run: Run) -> None:
    for command in COMMANDS:
        text = run(command, "--help").output
        if command not in ("user", "device", "folder"):
            assert "Example: dblike-server" in text
    assert "Example: dblike-server" in run("user", "add", "--help").output
    assert "run" in run("--help").output


def test_a_first_run_from_nothing(tmp_path: Path, spawn: Callable[..., Any]) -> None:
    """No config: it makes what is absent, prints the URL, and SIGTERM ends it with 0."""
    server = spawn(
        *PROGRAM, "run", "--bind", "127.0.0.1:0", "--workers", "1",
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    line = server.stdout.readline().decode()
    assert line.startswith("DBLike serves at http://127.0.0.1:")
    assert "user add" in server.stdout.readline().decode()
    assert (tmp_path / "dblike-data" / "config.json").exists()
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0


def test_one_server_runs_on_a_data_directory(
    tmp_path: Path, spawn: Callable[..., Any], made: Path, run: Run
) -> None:
    words = [*PROGRAM, "run", "--data", made, "--bind", "127.0.0.1:0", "--workers", "1"]
    first = spawn(*words, stdout=subprocess.PIPE)
    assert b"serves at" in first.stdout.readline()
    second = subprocess.run(words, capture_output=True, check=False)
    assert second.returncode == 11
    assert second.stderr.decode() == f"dblike-server: another server runs on {made}\n"
    run("status", "--data", made)
    run("gc", "--data", made)
    first.send_signal(signal.SIGHUP)  # its workers change, it stays
    assert subprocess.run(words, capture_output=True, check=False).returncode == 11

    first.kill()  # alone: its workers go when they see it
    first.wait()
    third = spawn(*words, stdout=subprocess.PIPE)
    assert b"serves at" in third.stdout.readline()


def test_logs_for_machines(tmp_path: Path, spawn: Callable[..., Any], made: Path) -> None:
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "log": {"format": "json"}}))
    server = spawn(
        *PROGRAM, "run", "--bind", "127.0.0.1:0", "--workers", "1", "--data", made,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    url = server.stdout.readline().decode().split()[-1]
    asked = urllib.request.Request(url + "/v1/time", headers={"X-Request-Id": "me"})
    urllib.request.urlopen(asked).close()
    server.send_signal(signal.SIGTERM)
    _, errors = server.communicate(timeout=20)
    entries = [json.loads(line) for line in errors.decode().splitlines()]
    assert any(entry.get("request_id") == "me" and entry["status"] == 200 for entry in entries)


def test_ones_own_gunicorn_serves_it_too(
    made: Path, spawn: Callable[..., Any], free_port: int
) -> None:
    """`dblike_srv.wsgi:app` with DBLIKE_CONFIG; the settings are there for the asking."""
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", "python:dblike_srv.gunicorn_conf"]
    environment = {**os.environ, "DBLIKE_CONFIG": str(made / "config.json")}
    spawn(
        *gunicorn, "-b", f"127.0.0.1:{free_port}", "dblike_srv.wsgi:app",
        env=environment, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until_ready(free_port)


def test_what_ones_own_gunicorn_makes_is_nobody_elses_to_read(
    tmp_path: Path, spawn: Callable[..., Any], free_port: int
) -> None:
    config, data = tmp_path / "c.json", tmp_path / "data"
    config.write_text(json.dumps({"data": str(data), "cluster_key": "k" * 40}))
    config.chmod(0o600)
    data.mkdir(mode=0o755)
    spawn(
        *(sys.executable, "-m", "gunicorn", "-c", "python:dblike_srv.gunicorn_conf"),
        *("-b", f"127.0.0.1:{free_port}", "--workers", "1", "dblike_srv.wsgi:app"),
        env={**os.environ, "DBLIKE_CONFIG": str(config)}, stderr=subprocess.PIPE, umask=0o022,
    )  # fmt: skip
    wait_until_ready(free_port)
    assert (data / "dblike.db").exists()
    assert [each for each in data.rglob("*") if each.stat().st_mode & 0o077] == []


def wait_until_ready(port: int) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as reply:
                assert reply.status == 200
                return
        except urllib.error.URLError:
            continue


def test_a_worker_that_is_told_to_end_before_it_serves(
    made: Path, spawn: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "hasty.py").write_text(
        "import os, signal, sys\n"
        "from dblike_srv.wsgi import app\n"
        "print('loaded', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    server = spawn(
        *(sys.executable, "-m", "gunicorn", "-c", "python:dblike_srv.gunicorn_conf"),
        *("-b", "127.0.0.1:0", "--workers", "1", "hasty:app"), cwd=tmp_path,
        env={**os.environ, "DBLIKE_CONFIG": str(made / "config.json")}, stderr=subprocess.PIPE,
    )  # fmt: skip
    lines: list[bytes] = []
    while lines.count(b"loaded\n") < 2:  # the first one has ended by then
        lines.append(server.stderr.readline())
        assert lines[-1], lines
    assert not any(b"Traceback" in line for line in lines), b"".join(lines).decode()


# --- a database server


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"port": "1"}, "no answer from 127.0.0.1:1: is it running?"),
        ({"password": "wrong-secret"}, "lets no user 'dblike' in with this password"),
        ({"name": "dblike_absent"}, "CREATE DATABASE dblike_absent"),
        ({"name": "mysql"}, "GRANT ALL ON mysql.* TO 'dblike'"),
    ],
)
def test_a_database_that_can_not_be_used(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    mariadb_server: MariaDB,
    wrong: dict[str, str],
    said: str,
) -> None:
    """One line: where, why, and what to do; never the password."""
    url = mariadb_server.url(wrong.get("name", "dblike0"))
    url = url.replace(str(mariadb_server.port), wrong.get("port", str(mariadb_server.port)))
    url = url.replace(PASSWORD_THERE, wrong.get("password", PASSWORD_THERE))
    monkeypatch.setenv("DBLIKE_DATABASE", url)
    for command in ("init", "run", "status", "migrate"):
        output = run(command, "--data", "d", code=1).output
        assert said in output
        assert len(output.splitlines()) == 1
        assert "secret" not in output
        assert PASSWORD_THERE not in output


def test_a_url_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBLIKE_DATABASE", "mysql://u:secret@host")
    output = run("init", "--data", "d", code=2).output
    assert "the URL names no database" in output
    assert "secret" not in output


def test_a_database_is_used_by_each_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, mariadb: str
) -> None:
    monkeypatch.setenv("DBLIKE_DATABASE", mariadb)
    at = ("--data", "d")
    run("init", *at)
    run("user", "add", "ada", "--password-stdin", *at, text=PASSWORD + "\n")
    assert "ada" in run("user", "list", *at).output
    for command in ("status", "gc", "compact", "scrub", "migrate"):
        run(command, *at)
    assert "mariadb-backup" in run("backup", "b", *at, code=1).output


@pytest.mark.parametrize(("bucket", "said"), [("packs", "can't be reached"), ("nosuch", "make it")])
def test_a_store_that_can_not_be_used(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    seaweed: SeaweedFS,
    free_port: int,
    bucket: str,
    said: str,
) -> None:
    away = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("DBLIKE_STORE", f"s3://{bucket}/x")
    monkeypatch.setenv("DBLIKE_ENDPOINT_URL", seaweed.url if bucket == "nosuch" else away)
    for command in ("init", "run"):
        output = run(command, "--data", "d", code=1).output
        assert said in output
        assert len(output.splitlines()) == 1
