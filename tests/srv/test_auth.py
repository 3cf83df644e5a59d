"""Plugins of authentication, and the throttle before them: unknown, broken, hanging is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher
from sqlalchemy import event

from dblike_delta.messages import LoginRequest
from dblike_srv import accounts
from dblike_srv.accounts import TooMany, Unauthorized
from dblike_srv.auth import simple, throttle
from dblike_srv.auth.base import Credentials, Principal
from dblike_srv.auth.htpasswd import HtpasswdAuth
from dblike_srv.auth.plugins import Gate, load_gate
from dblike_srv.auth.simple import SimpleAuth
from dblike_srv.config import decode_config
from dblike_srv.errors import Busy
from dblike_srv.folders import list_folders
from dblike_srv.site import Site, open_site

GOOD = Credentials("ada", "correct horse")


class Plugin:
    """Answers what it is told to."""

    name = "told"

    def __init__(self, answer: Callable[[Credentials], Any]) -> None:
        self._answer = answer

    def authenticate(self, credentials: Credentials) -> Any:
        return self._answer(credentials)


def raises(error: BaseException) -> Callable[[Credentials], Any]:
    def answer(_: Credentials) -> Any:
        raise error

    return answer


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    """A site whose time is the test's."""
    config = decode_config({"data": str(tmp_path / "timed"), "cluster_key": "k" * 64})
    opened = open_site(config, clock=clock)
    accounts.create_user(opened, "ada", "correct horse")
    yield opened
    opened.close()


def test_the_first_plugin_that_knows_decides() -> None:
    nobody, ada, eve = (
        Plugin(lambda _: None),
        Plugin(lambda _: Principal("ada")),
        Plugin(lambda _: Principal("eve")),
    )
    assert Gate([nobody, ada, eve]).admit(GOOD) == Principal("ada")
    assert Gate([nobody, nobody]).admit(GOOD) is None


@pytest.mark.parametrize(
    "broken",
    [
        raises(RuntimeError("x")), raises(SystemExit(0)), raises(KeyboardInterrupt()),
        lambda _: True, lambda _: "ada", lambda _: 1, lambda _: {"user": "ada"},
        lambda _: Principal,
    ],
)  # fmt: skip
def test_a_broken_plugin_lets_nobody_in_and_keeps_nobody_out(broken: Any) -> None:
    """Unresolvable, unparsable, unknown is closed."""
    with pytest.raises(Busy):
        Gate([Plugin(broken)]).admit(GOOD)
    assert Gate([Plugin(broken), Plugin(lambda _: Principal("ada"))]).admit(GOOD) == Principal(
        "ada"
    )


def test_a_plugin_that_hangs_is_given_up() -> None:
    release = threading.Event()
    hanging = Gate([Plugin(lambda _: release.wait(60))], deadline=0.05)
    for _ in range(10):  # more than may hang at once
        with pytest.raises(Busy):
            hanging.admit(GOOD)
    release.set()


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ([{"plugin": "simpel"}], "did you mean 'simple'"),
        ([{}], "no plugin ''"),
        ([], "no plugin is named"),
        ([{"plugin": "simple", "file": "x"}], "no setting 'file'"),
        ([{"plugin": "htpasswd"}], "exactly one setting: file"),
        ([{"plugin": "htpasswd", "file": 5}], "exactly one setting: file"),
        ([{"plugin": "htpasswd", "file": "x", "fil": "y"}], "exactly one setting: file"),
        ([{"plugin": "htpasswd", "file": "/nowhere/x"}], "/nowhere/x: No such file or directory"),
    ],
)
def test_what_can_not_be_configured(
    site: Site, configured: list[Mapping[str, Any]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load_gate(site, configured)


def test_passwords_are_argon2id_with_room_for_growth(site: Site) -> None:
    stored = simple.hash_password("x")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not simple.HASHER.check_needs_rehash(simple._NOBODY)  # unknown users take as long


def test_an_old_hash_is_made_anew_at_a_login(site: Site) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("correct horse")
    site.database.transact(
        lambda connection: connection.exec_driver_sql("UPDATE users SET password = ?", (weak,))
    )
    plugin = SimpleAuth(site, {})
    assert plugin.authenticate(GOOD) == Principal("ada")
    stored = site.database.read(
        lambda connection: connection.exec_driver_sql("SELECT password FROM users").scalar()
    )
    assert "m=19456" in stored
    assert plugin.authenticate(GOOD) == Principal("ada")


@pytest.mark.parametrize("stored", ["", "plain", "$argon2id$", "$2b$12$" + "x" * 53])
def test_what_is_stored_must_be_a_hash(stored: str) -> None:
    assert not simple.verify_password(stored, "")
    assert not simple.verify_password(stored, "plain")


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    file = tmp_path / "htpasswd"
    good = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
    file.write_text(
        f"# people\n\nada:{good.replace('$2b$', '$2y$')}\n"
        "plain:plain\nold:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nmd5:$apr1$a$b\nnothing\n"
    )
    return file


def test_who_is_in_the_htpasswd_file_gets_an_account(site: Site, htpasswd: Path) -> None:
    htpasswd.write_text(htpasswd.read_text().replace("ada:", "grace:"))
    gate = load_gate(site, [{"plugin": "simple"}, {"plugin": "htpasswd", "file": str(htpasswd)}])
    reply = accounts.login(site, gate, LoginRequest("grace", "correct horse"), "192.0.2.1")
    assert reply.user == "grace"
    with pytest.raises(Unauthorized):
        accounts.login(site, gate, LoginRequest("grace", "wrong"), "192.0.2.1")


def homes(site: Site) -> dict[str, list[str]]:
    """The folders of each account."""
    names = [user.name for user in accounts.list_users(site)]
    mine = {name: list_folders(site, accounts.administrator(site, name)) for name in names}
    return {name: [folder.name for folder in mine[name]] for name in names}


def test_two_devices_that_log_in_first_at_once_have_one_account(
    site: Site, database_url: str, htpasswd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    htpasswd.write_text(htpasswd.read_text().replace("ada:", "grace:"))
    gate = load_gate(site, [{"plugin": "htpasswd", "file": str(htpasswd)}])
    create, logins = accounts.create_user, []

    def log_in(device: str) -> None:
        request = LoginRequest("grace", "correct horse", device)
        logins.append(accounts.login(site, gate, request, "192.0.2.1"))

    def create_second(*arguments: Any) -> None:
        """The other device comes while this one has found that there is no account."""
        monkeypatch.setattr(accounts, "create_user", create)
        log_in("first")
        create(*arguments)

    monkeypatch.setattr(accounts, "create_user", create_second)
    log_in("second")
    assert [login.user for login in logins] == ["grace", "grace"]
    assert homes(site) == {"ada": ["home"], "grace": ["home"]}


def test_an_account_is_made_with_its_folder_or_not_at_all(
    site: Site, database_url: str, htpasswd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is the matter with the database in between."""
    htpasswd.write_text(htpasswd.read_text().replace("ada:", "grace:"))
    gate = load_gate(site, [{"plugin": "htpasswd", "file": str(htpasswd)}])
    request = LoginRequest("grace", "correct horse")
    inserts: list[str] = []

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO folders"):
            inserts.append(statement)
            raise Busy("the database is away")

    event.listen(site.database.engine, "before_cursor_execute", fail)
    with pytest.raises(Busy):
        accounts.login(site, gate, request, "192.0.2.1")
    event.remove(site.database.engine, "before_cursor_execute", fail)
    assert len(inserts) == 1
    assert accounts.login(site, gate, request, "192.0.2.1").user == "grace"
    assert homes(site) == {"ada": ["home"], "grace": ["home"]}


@pytest.mark.parametrize("user", ["plain", "old", "md5", "nothing", "# people", "", "grace"])
def test_other_lines_of_an_htpasswd_file_let_nobody_in(
    site: Site, htpasswd: Path, user: str
) -> None:
    plugin = HtpasswdAuth(site, {"file": str(htpasswd)})
    for password in ("plain", "password", "", "x"):
        assert plugin.authenticate(Credentials(user, password)) is None


def test_an_unknown_user_takes_as_long_as_those_of_the_file(
    site: Site, htpasswd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry says how costly it is to check, `htpasswd -B` not very: who was answered later
    than that had no account."""
    seen, check = list[bytes](), bcrypt.hashpw
    plugin = HtpasswdAuth(site, {"file": str(htpasswd)})

    def note(password: bytes, salt: bytes) -> bytes:
        seen.append(salt[:7])
        return check(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", note)
    for user in ("ada", "nobody", "eve"):
        assert plugin.authenticate(Credentials(user, "wrong")) is None
    assert set(seen) == {b"$2b$04$"}
    assert plugin.authenticate(Credentials("nobody", "correct horse")) is None


def test_bcrypt_sees_the_whole_password_or_none(site: Site, tmp_path: Path) -> None:
    """The trap at 72 bytes: what bcrypt would cut off is refused."""
    file = tmp_path / "long"
    file.write_bytes(b"ada:" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)) + b"\n")
    plugin = HtpasswdAuth(site, {"file": str(file)})
    assert plugin.authenticate(Credentials("ada", "x" * 72)) == Principal("ada", create=True)
    assert plugin.authenticate(Credentials("ada", "x" * 73)) is None
    assert plugin.authenticate(Credentials("ada", "x" * 71 + "\0")) is None


def test_a_changed_file_is_read_again_and_a_lost_one_is_closed(site: Site, htpasswd: Path) -> None:
    gate = load_gate(site, [{"plugin": "htpasswd", "file": str(htpasswd)}])
    assert gate.admit(GOOD)
    htpasswd.write_text("eve:x\n")
    assert gate.admit(GOOD) is None
    htpasswd.unlink()
    with pytest.raises(Busy):
        gate.admit(GOOD)


def attempt(site: Site, password: str, *, user: str = "ada", address: str = "192.0.2.1") -> None:
    gate = load_gate(site, [{"plugin": "simple"}])
    accounts.login(site, gate, LoginRequest(user, password), address)


def test_after_a_few_failures_an_account_has_to_wait(timed: Site, clock: Clock) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            attempt(timed, "wrong")
    with pytest.raises(TooMany) as caught:
        attempt(timed, "correct horse")
    assert 0 < caught.value.retry_after <= 1
    clock.ms += 1000
    attempt(timed, "correct horse")
    for _ in range(5):  # it starts anew after a success
        with pytest.raises(Unauthorized):
            attempt(timed, "wrong")


def test_an_unknown_account_has_to_wait_as_well(timed: Site) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            attempt(timed, "x", user="nobody")
    with pytest.raises(TooMany):
        attempt(timed, "x", user="nobody")
    attempt(timed, "correct horse")


def test_an_account_is_guessed_at_less_than_a_hundred_times_a_day(
    timed: Site, clock: Clock
) -> None:
    guesses, end = 0, clock.ms + throttle.DAY_MS - 1
    while clock.ms < end:
        wait = throttle.attempt(timed, throttle.keys_of("ada", ""))
        guesses += not wait
        clock.ms += max(1, int(wait * 1000))
    assert guesses <= 120


def test_an_address_that_tries_many_accounts_has_to_wait(timed: Site) -> None:
    keys = [throttle.keys_of(f"user{n}", "2001:db8::1") for n in range(50)]
    assert [throttle.attempt(timed, each) for each in keys] == [0.0] * 50
    assert throttle.attempt(timed, throttle.keys_of("other", "2001:db8::ffff")) > 0
    assert throttle.attempt(timed, throttle.keys_of("other", "2001:db8:0:1::1")) == 0
    assert throttle.keys_of("ada", "::ffff:192.0.2.1") == throttle.keys_of("ada", "192.0.2.1")
    assert throttle.keys_of("ada", "::ffff:192.0.2.1") != throttle.keys_of("ada", "192.0.2.2")


@pytest.mark.usefixtures("database_url")
def test_attempts_at_once_are_all_counted(site: Site) -> None:
    """The count comes before the check, so a hundred guesses in parallel are not one."""
    keys, waits = throttle.keys_of("ada", ""), []
    threads = [
        threading.Thread(target=lambda: waits.append(throttle.attempt(site, keys)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits.count(0.0) == 5


def test_what_was_never_judged_is_not_counted(timed: Site) -> None:
    gate = Gate([Plugin(raises(RuntimeError()))])
    for _ in range(20):
        with pytest.raises(Busy):
            accounts.login(timed, gate, LoginRequest("ada", "x"), "192.0.2.1")
    attempt(timed, "correct horse")


def test_a_clock_that_was_set_back_locks_nobody_out(timed: Site, clock: Clock) -> None:
    for _ in range(5):
        throttle.attempt(timed, throttle.keys_of("ada", ""))
    clock.ms -= 50 * 365 * throttle.DAY_MS
    assert throttle.attempt(timed, throttle.keys_of("ada", "")) <= 1


def test_old_failures_are_forgotten(timed: Site, clock: Clock) -> None:
    throttle.attempt(timed, throttle.keys_of("ada", "192.0.2.1"))
    assert throttle.tidy(timed) == 0
    clock.ms += throttle.DAY_MS + 1
    assert throttle.tidy(timed) == 2


@pytest.mark.parametrize("name", ["", "a:b", " a", "a\n", "x" * 256, "\x1b[0m"])
def test_names_that_no_user_has(site: Site, name: str) -> None:
    with pytest.raises(accounts.Invalid):
        accounts.create_user(site, name, "pw")


def test_a_password_is_in_no_repr() -> None:
    assert "correct horse" not in repr(GOOD)
