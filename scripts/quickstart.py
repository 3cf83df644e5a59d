"""A server, a user and two linked folders that stay the same, on this machine.

Run it as ./quickstart, which first makes the environment that this needs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from processes import Command, Failed, Program, free_port, run, wait_for_server

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
USER = "demo"
PATIENCE = 60.0  # seconds until a file that did not arrive counts as lost
LOG_LINES = 25
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Demo(NamedTuple):
    """Where everything of one quickstart is."""

    directory: Path
    port: int
    password: str
    known: bool  # the password is that of the last time, and so are the links

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def folder(self, name: str) -> Path:
        return self.directory / name

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def server_command(self, *arguments: str) -> Command:
        return [BIN / "dblike-server", *arguments, "--data", self.directory / "server"]


FOLDERS = ("laptop", "desktop")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        with only_one(options.directory), open_demo(options.directory, options.port) as demo:
            play(demo, once=options.once)
    except Failed as failure:
        report(failure)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Everything is still in place: run it again to go on.")
        return 130 if options.once else 0
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./quickstart",
        description="Start a DBLike server and two folders that stay the same, to try it out.",
        epilog="Example: ./quickstart /tmp/demo --once",
    )
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        default=ROOT / "demo",
        metavar="DIR",
        help="where the server's data and the two folders go (default: ./demo)",
    )
    parser.add_argument("--once", action="store_true", help="one round, check it, stop everything")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the server's port")
    options = parser.parse_args(arguments)
    options.directory = options.directory.absolute()
    return options


def play(demo: Demo, *, once: bool) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_server(demo))
        say(f"Server      {demo.url}")
        for name in FOLDERS:
            link(demo, name)
            say(f"Folder      {shown(demo.folder(name))}")
        watchers = [stack.enter_context(running_watch(demo, name)) for name in FOLDERS]
        programs = [server, *watchers]
        show_rounds(demo, programs)
        if once:
            check_in_sync(demo)
            say("Both folders are in sync. Stopping everything.")
            return
        explain(demo)
        wait_for_interrupt(programs)


# --- what is started


@contextmanager
def open_demo(directory: Path, port: int) -> Iterator[Demo]:
    """The demo in this directory: a new one, or the one of the last time."""
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    notes = directory / "quickstart.json"
    last = json.loads(notes.read_text()) if notes.exists() else {}
    demo = Demo(
        directory,
        free_port(port or last.get("port", 0)),
        last.get("password") or secrets.token_urlsafe(12),
        "password" in last,
    )
    if port and demo.port != port:
        raise Failed(f"Port {port} is taken by another program.")
    # Only we may read the password. It is kept so that the next start can use the same account.
    notes.touch(mode=0o600)
    notes.write_text(json.dumps({"port": demo.port, "password": demo.password}))
    yield demo


@contextmanager
def running_server(demo: Demo) -> Iterator[Program]:
    command = demo.server_command("run", "--bind", f"127.0.0.1:{demo.port}")
    with running("The server", command, demo.log("server")) as server:
        wait_for_server(demo.url, server)
        add_user(demo)
        yield server


def add_user(demo: Demo) -> None:
    """The account. One whose password we do not know any more gets a new one."""
    log = demo.log("user")
    run("dblike-server user list", demo.server_command("user", "list"), log)
    exists = any(line.split()[:1] == [USER] for line in log.read_text().splitlines())
    if exists and demo.known:
        return
    action = "passwd" if exists else "add"
    command = demo.server_command("user", action, USER, "--password-stdin")
    run(f"dblike-server user {action}", command, log, stdin=demo.password)


def link(demo: Demo, name: str) -> None:
    """Link a folder to the server, or tell a linked one where the server is now."""
    folder = demo.folder(name)
    if demo.known and (folder / ".dblike" / "config.json").exists():
        command: Command = [BIN / "dblike", "-C", folder, "config", "servers", demo.url]
        run("dblike config", command, demo.log("link"))
        return
    action = "init" if name == FOLDERS[0] else "clone"
    who = ["--user", USER, "--password-stdin", "--device", name]
    command = [BIN / "dblike", action, demo.url, folder, *who]
    run(f"dblike {action}", command, demo.log("link"), stdin=demo.password)


@contextmanager
def running_watch(demo: Demo, name: str) -> Iterator[Program]:
    command: Command = [BIN / "dblike", "-C", demo.folder(name), "watch"]
    with running(f"dblike watch in {name}", command, demo.log(name)) as watch:
        yield watch


@contextmanager
def running(name: str, command: Command, log: Path) -> Iterator[Program]:
    program = Program(name, command, log)
    try:
        yield program
    finally:
        program.ask_to_end()
        if not program.end():
            say(f"{name} did not end when asked, and was killed.")


# --- what is shown


def show_rounds(demo: Demo, programs: Sequence[Program]) -> None:
    laptop, desktop = FOLDERS
    # The first file each way waits for the watchers to come up; the next ones show the way itself.
    for there, back in ((laptop, desktop), (desktop, laptop)):
        travel(demo, there, back, f"hello from {there}.txt", programs)
    say("")
    for there, back in ((laptop, desktop), (desktop, laptop)) * 2:
        took = travel(demo, there, back, f"hello from {there}.txt", programs)
        say(f"saved in {there:8}→ on the disk of {back:8}{took * 1000:6.1f} ms")
    say("")


def travel(demo: Demo, there: str, back: str, name: str, programs: Sequence[Program]) -> float:
    """Save a file in one folder and wait for it in the other; the seconds that it took."""
    text = f"Saved in {there} at {time.strftime('%H:%M:%S')}, {secrets.token_hex(8)}\n".encode()
    arrival = demo.folder(back) / name
    (demo.folder(there) / name).write_bytes(text)
    saved = time.perf_counter()
    while time.perf_counter() - saved < PATIENCE:
        with contextlib.suppress(FileNotFoundError):
            if arrival.read_bytes() == text:
                return time.perf_counter() - saved
        for program in programs:
            program.check()
        time.sleep(0.0005)
    logs = [program.log for program in programs]
    raise Failed(f"{name} did not arrive in {back} within {PATIENCE:.0f} seconds.", *logs)


def check_in_sync(demo: Demo) -> None:
    """`dblike status` must agree, on both sides."""
    for name in FOLDERS:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                run(
                    f"dblike status in {name}",
                    [BIN / "dblike", "-C", demo.folder(name), "status"],
                    demo.log("status"),
                )
                break
            except Failed:
                # The last file's news may still be on its way back to the one who sent it.
                if time.monotonic() > deadline:
                    raise


def explain(demo: Demo) -> None:
    laptop, desktop = (shown(demo.folder(name)) for name in FOLDERS)
    dblike = shown(BIN / "dblike")
    say(f"""\
All of it keeps running. Try, in another terminal:

  cp -r /usr/share/doc/python3 {laptop}/docs     # appears in {desktop}
  {dblike} -C {desktop} status
  {dblike} -C {desktop} log
  {dblike} -C {laptop} --help

Link one more folder (user {USER}, the password is in {shown(demo.directory / "quickstart.json")}):

  {dblike} clone {demo.url} another --user {USER}

Logs are in {shown(demo.directory / "logs")}. Ctrl-C stops everything and keeps the files.""")


def shown(path: Path) -> str:
    """As one would type it here."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith("..") else relative)


def wait_for_interrupt(programs: Sequence[Program]) -> NoReturn:
    while True:
        for program in programs:
            program.check()
        time.sleep(0.5)


def report(failure: Failed) -> None:
    print(f"\n{failure}", file=sys.stderr)
    for log in failure.logs:
        if log.exists() and (lines := log.read_text(errors="replace").splitlines()):
            print(f"\n--- the end of {log}", file=sys.stderr)
            print("\n".join(lines[-LOG_LINES:]), file=sys.stderr)


def say(text: str) -> None:
    print(text, flush=True)


# --- one at a time, and a clean end


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the directory; the lock goes with us, however we end, so that it is never stale."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Failed(f"{directory} cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Failed(f"A quickstart is running in {directory} already.") from None
    finally:
        os.close(handle)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: the clean end that this begins must not be cut short by a second one.
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
