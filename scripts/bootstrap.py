"""Make .venv with DBLike in it, from the lock file, on a system with Python and nothing else.

Usage: scripts/bootstrap [--tests] [--no-system-packages]

Installs the system packages that are missing where it may (root, or sudo), says which command
provides them where it may not, and goes on without. Does nothing, in some 50 ms, when everything
is as a former run left it. Standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import system_packages
from system_packages import Need

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "dblike-bootstrap.json"

# For systems whose Python lacks ensurepip and where we may not install it. pip is a wheel that can
# install itself; its hash makes the place that it comes from unimportant.
PIP = "26.3"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
INDEX = "https://pypi.org/simple"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bootstrap", description=__doc__)
    parser.add_argument("--tests", action="store_true", help="also what the tests need")
    parser.add_argument(
        "--no-system-packages", action="store_true", help="leave the system as it is"
    )
    options = parser.parse_args(arguments)
    with only_one():
        try:
            bootstrap(tests=options.tests, may_install=not options.no_system_packages)
        except subprocess.CalledProcessError as error:
            print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
            return 1
    return 0


def bootstrap(*, tests: bool, may_install: bool) -> None:
    needs = [*system_packages.RUN, *(system_packages.TESTS if tests else ())]
    if is_current(tests=tests):
        return
    absent = system_packages.missing(needs)
    with work_log() as log:
        if absent and may_install and system_packages.can_install():
            say(f"Installing system packages for: {', '.join(need.name for need in absent)} …")
            absent = system_packages.install(absent)
        warn_about(absent)
        say("Setting up .venv (once) …")
        make_venv(log)
        install_python_packages(log, tests=tests)
    warn_about_kernel(absent)
    remember(tests=tests)


# --- what was done before


def fingerprint(*, tests: bool) -> str:
    """Of everything that decides what belongs in .venv."""
    needs = [*system_packages.RUN, *(system_packages.TESTS if tests else ())]
    absent = [need.name for need in system_packages.missing(needs)]
    digest = hashlib.sha256(json.dumps([system_packages.PYTHON, str(VENV), absent]).encode())
    # _kernel.c and _files.c are made from .pyx files by the build.
    suffixes, made = {".pyx", ".pxd", ".c", ".h"}, {"_kernel.c", "_files.c"}
    compiled = sorted((ROOT / "src").rglob("*.*"))
    sources = [path for path in compiled if path.suffix in suffixes and path.name not in made]
    for path in [ROOT / "pyproject.toml", ROOT / "setup.py", lock_file(tests=tests), *sources]:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def recorded() -> dict[str, str]:
    try:
        stamps = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def is_current(*, tests: bool) -> bool:
    mode = "tests" if tests else "run"
    return recorded().get(mode) == fingerprint(tests=tests) and (VENV / "bin/dblike").exists()


def remember(*, tests: bool) -> None:
    # The test lock contains all of the other one, at the same versions.
    modes = ("run", "tests") if tests else ("run",)
    stamps = recorded() | {mode: fingerprint(tests=mode == "tests") for mode in modes}
    STAMP.write_text(json.dumps(stamps, indent=1))


# --- .venv


def make_venv(log: Path) -> None:
    python = VENV / "bin" / "python"
    if python.exists() and works(python):
        return
    if system_packages.missing(system_packages.RUN[:1]):
        run(log, sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
        install_pip(log, python)
    else:
        run(log, sys.executable, "-m", "venv", "--clear", VENV)


def works(python: Path) -> bool:
    """Whether this is the venv of the Python that we run under, with a pip in it."""
    probe = "import pip, sys; print(*sys.version_info[:2], sep='.')"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
    return found.returncode == 0 and f"python{found.stdout.strip()}" == system_packages.PYTHON


def install_pip(log: Path, python: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder, f"pip-{PIP}-py3-none-any.whl")
        wheel.write_bytes(fetch_pip(wheel.name))
        run(log, python, wheel / "pip", "install", "-q", "--no-index", wheel)


def fetch_pip(name: str) -> bytes:
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    trust = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    request = urllib.request.Request(  # noqa: S310 - the address is https, or the user's own choice
        f"{index}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60, context=trust) as reply:  # noqa: S310
        files = json.load(reply)["files"]
    url = next(file["url"] for file in files if file["filename"] == name)
    url = urljoin(f"{index}/pip/", url)
    with urllib.request.urlopen(url, timeout=60, context=trust) as reply:  # noqa: S310
        wheel = bytes(reply.read())
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        raise SystemExit(f"{name} is not the file that it should be: nothing was installed.")
    return wheel


def lock_file(*, tests: bool) -> Path:
    return ROOT / ("requirements-test.lock" if tests else "requirements.lock")


def install_python_packages(log: Path, *, tests: bool) -> None:
    pip = (VENV / "bin" / "python", "-m", "pip", "install", "-q", "--no-input")
    run(log, *pip, "-r", lock_file(tests=tests))
    run(log, *pip, "--no-deps", "--no-build-isolation", "-e", ROOT)


# --- plumbing


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warn_about(absent: Sequence[Need]) -> None:
    if not absent:
        return
    say("Going on without:")
    for need in absent:
        say(f"  {need.name}: {need.without}")
    say(f"To have them, run: {system_packages.command_for(absent)}")


def warn_about_kernel(absent: Sequence[Need]) -> None:
    """Whether the build gave what the system has the means for: pip hides what setup.py says."""
    probe = "from dblike_delta import kernel; print(kernel.name)"
    command = (VENV / "bin" / "python", "-W", "ignore", "-c", probe)
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if found != "compiled" and "compiler" not in {need.name for need in absent}:
        say("The compiled kernel was not built, though there is a compiler. To see why, run:")
        say("  .venv/bin/pip install -v --no-deps --no-build-isolation -e .")


@contextmanager
def only_one() -> Iterator[None]:
    """Hold off a second bootstrap of the same clone; the lock is on this file, so none is left."""
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def work_log() -> Iterator[Path]:
    """A file for what the steps print; shown when one of them fails, and gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        log.touch()
        try:
            yield log
        except BaseException:
            shutil.copyfileobj(log.open(), sys.stderr)
            raise


def run(log: Path, *command: str | Path) -> None:
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with log.open("wb") as out:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            check=True,
        )


if __name__ == "__main__":
    sys.exit(main())
