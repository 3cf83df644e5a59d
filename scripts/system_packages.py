"""What DBLike uses of the system beside Python, how to see whether it is there, and how to get it.

Standard library only: this runs before anything else is installed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Need(NamedTuple):
    """One thing wanted from the system: its apt packages, and what is lost without it."""

    name: str
    present: Callable[[], bool]
    packages: tuple[str, ...]
    without: str


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _has_compiler() -> bool:
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return headers.exists() and any(shutil.which(name) for name in ("cc", "gcc", "clang"))


def _has_ensurepip() -> bool:
    return importlib.util.find_spec("ensurepip") is not None


def _program(name: str, package: str, without: str) -> Need:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return Need(name, lambda: shutil.which(name, path=path) is not None, (package,), without)


RUN = (
    Need("venv", _has_ensurepip, (f"{PYTHON}-venv",), "pip is fetched without it"),
    Need(
        "certificates",
        lambda: Path("/etc/ssl/certs/ca-certificates.crt").exists(),
        ("ca-certificates",),
        "https may not work",
    ),
    Need(
        "compiler",
        _has_compiler,
        ("gcc", "libc6-dev", f"{PYTHON}-dev"),
        "deltas are computed in plain Python, which is slow for large files",
    ),
    Need(
        "librsync",
        lambda: _has_library("librsync.so.2"),
        ("librsync2",),
        "dblike_delta.librsync is not available",
    ),
)

TESTS = (
    _program("git", "git", "the tests of the repository itself are skipped"),
    _program("curl", "curl", "the sessions of docs/protocol.md are skipped"),
    _program("rdiff", "rdiff", "the comparisons with rdiff are skipped"),
    _program("rsync", "rsync", "the comparisons with rsync are skipped"),
    _program("strace", "strace", "the fault injection by strace is skipped"),
    _program("mariadbd", "mariadb-server", "the tests on MariaDB are skipped"),
    Need(
        "galera",
        lambda: Path("/usr/lib/galera/libgalera_smm.so").exists(),
        ("galera-4",),
        "the tests on a Galera cluster are skipped",
    ),
    _program("redis-server", "redis-server", "the tests with Redis are skipped"),
    _program("nginx", "nginx", "the tests behind nginx are skipped"),
    _program("ip", "iproute2", "the tests with networks of their own are skipped"),
    _program("iptables", "iptables", "the tests of networks that are cut are skipped"),
    _program("mkfs.ext4", "e2fsprogs", "the tests of power cuts are skipped"),
)


def missing(needs: Iterable[Need]) -> list[Need]:
    return [need for need in needs if not need.present()]


def become_root() -> list[str] | None:
    """The command prefix that makes one root, or None where there is none."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0:
        return ["sudo", "-n"]
    return ["sudo"] if sys.stdin.isatty() else None


def can_install() -> bool:
    """Whether `install` can work here at all."""
    return shutil.which("apt-get") is not None and become_root() is not None


def install(needs: Sequence[Need]) -> list[Need]:
    """Install with apt what is missing, without questions; returns what is still missing after."""
    apt = [
        *(become_root() or ()),
        *("env", "DEBIAN_FRONTEND=noninteractive"),
        *("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"),
    ]
    get = [*apt, "install", "--no-install-recommends"]
    _run([*apt, "update"])
    with _no_daemons():
        if not _run([*get, *(package for need in needs for package in need.packages)]):
            # One unknown name makes apt refuse all of them: what can be had is worth having.
            for need in missing(needs):
                _run([*get, *need.packages])
    return missing(needs)


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Debian starts a server that it installs; the tests start their own, on ports of their own."""
    policy = "/usr/sbin/policy-rc.d"
    root, ours = become_root() or [], not Path(policy).exists()
    if ours:
        script = f"printf '#!/bin/sh\\nexit 101\\n' >{policy} && chmod 755 {policy}"
        _run([*root, "sh", "-c", script])
    try:
        yield
    finally:
        if ours:
            _run([*root, "rm", "-f", policy])


def command_for(needs: Iterable[Need]) -> str:
    """The command that an administrator runs to provide these."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    names = " ".join(package for need in needs for package in need.packages)
    return f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {names}"


def _run(command: Sequence[str]) -> bool:
    """Run apt; of what it prints, only its errors are shown."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    for line in done.stderr.splitlines():
        if line.startswith("E:"):
            print(f"  apt-get: {line}", file=sys.stderr)
    return done.returncode == 0
