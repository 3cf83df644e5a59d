"""Run the two commands on a Debian that has python3 and ca-certificates, and nothing else.

Usage (as root; needs debootstrap): scripts/check-fresh-debian [--tests] [--as root,sudo,user] …

The system is made by debootstrap; each run gets a copy of it (an overlay) and a clean clone of the
last commit. It happens in mount and process namespaces of its own, so that whatever is mounted and
started goes when this ends, also when it is killed. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "python3,ca-certificates"
USER = "newcomer"
ROLES = ("root", "sudo", "user")
# How this machine reaches package registries is a fact of the machine: it goes along.
REGISTRY_FILES = (
    *("pip.conf", "resolv.conf", "hosts"),
    "ssl/certs/ca-certificates.crt",
)
PASSED_ON = re.compile(
    r"PIP_(CERT|INDEX_URL|TRUSTED_HOST)|SSL_CERT_\w+|\w+_CA_BUNDLE|(https?|no|all)_proxy",
    re.IGNORECASE,
)


def main() -> int:
    options = parse()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("This needs root and debootstrap: sudo apt-get install debootstrap", file=sys.stderr)
        return 1
    if options.inside:
        return check_all(options)
    # The directory is made and removed out here, where none of the mounts in there can be seen.
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        spaces = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
        again = [sys.executable, __file__, "--inside", folder, *sys.argv[1:]]
        return subprocess.run(["unshare", *spaces, *again], check=False).returncode


def check_all(options: argparse.Namespace) -> int:
    mount("-t", "proc", "proc", Path("/proc"))
    base = make_system(options)
    failed = [role for role in options.roles if not try_as(role, base, options)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/check-fresh-debian", description=__doc__)
    parser.add_argument("--tests", action="store_true", help="run ./test, too (as root only)")
    parser.add_argument("--suite", default="bookworm", help="the release (default: bookworm)")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--directory", type=Path, help="where to work (default: TMPDIR)")
    parser.add_argument("--system", type=Path, help="keep the bare system here, and use it again")
    parser.add_argument(
        "--as",
        dest="roles",
        type=lambda text: text.split(","),
        default=list(ROLES),
        help="root, sudo (a user who may use sudo), user (one who may not); default: all",
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the system


def make_system(options: argparse.Namespace) -> Path:
    base: Path = options.system or options.inside / "base"
    if (base / "etc/debian_version").exists():
        return base
    begun = time.monotonic()
    subprocess.run(
        [
            *("debootstrap", "--variant=minbase", f"--include={PACKAGES}"),
            *(options.suite, base, options.mirror),
        ],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    print(f"debootstrap {options.suite}: {time.monotonic() - begun:.0f} s", flush=True)
    return base


def fresh_copy(base: Path, folder: Path) -> Path:
    """The system as an overlay: writable, and the base stays as it is."""
    upper, work, system = (folder / name for name in ("upper", "work", "system"))
    for directory in (upper, work, system):
        directory.mkdir(parents=True)
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    mount("-t", "overlay", "overlay", "-o", layers, system)
    mount("-t", "proc", "proc", system / "proc")
    mount("--rbind", "/dev", system / "dev")
    return system


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def configure_registries(system: Path) -> None:
    names = [Path("/etc", name) for name in REGISTRY_FILES]
    if release(Path("/")) == release(system):
        names += [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    names += [
        path
        for path in Path("/etc/apt/apt.conf.d").iterdir()
        if "Acquire::" in path.read_text(errors="replace")
    ]
    for path in filter(Path.exists, names):
        inside = system / path.relative_to("/")
        # Never through a link: seen from here, it would lead to a file of this machine.
        inside.unlink(missing_ok=True)
        shutil.copyfile(path, inside)


def release(system: Path) -> str:
    text = (system / "usr/lib/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    return found[1] if found else ""


def make_user(system: Path, role: str) -> None:
    in_system(system, ["useradd", "--create-home", "--shell", "/bin/sh", USER])
    if role == "sudo":
        in_system(system, ["apt-get", "-q", "update"])
        in_system(system, ["apt-get", "-q", "-y", "install", "--no-install-recommends", "sudo"])
        (system / "etc/sudoers.d" / USER).write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")


def in_system(system: Path, command: Sequence[str]) -> None:
    environment = environment_for("root")
    done = subprocess.run(
        ["chroot", system, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


# --- what runs in it


def try_as(role: str, base: Path, options: argparse.Namespace) -> bool:
    print(f"=== as {role}", flush=True)
    system = fresh_copy(base, options.inside / role)
    configure_registries(system)
    home = Path("/root") if role == "root" else Path("/home", USER)
    if role != "root":
        make_user(system, role)
    clone(system / home.relative_to("/") / "dblike")
    if role != "root":
        in_system(system, ["chown", "-R", f"{USER}:{USER}", str(home)])
    commands = ["./quickstart --once", "./quickstart --once", "./quickstart --once /tmp/other"]
    if options.tests and role == "root":
        commands.append("./test")
    return all(perform(command, system, home, role) for command in commands)


def clone(directory: Path) -> None:
    safe = ["-c", f"safe.directory={ROOT}", "-c", f"safe.directory={ROOT / '.git'}"]
    command = ["git", *safe, "clone", "--quiet", "--no-local", str(ROOT), str(directory)]
    subprocess.run(command, check=True)


def perform(command: str, system: Path, home: Path, role: str) -> bool:
    user = "root" if role == "root" else USER
    begun = time.monotonic()
    # setsid: none of these may need a terminal.
    done = subprocess.run(
        [
            *("setsid", "--wait", "chroot", f"--userspec={user}:{user}", system),
            *("sh", "-c", f"cd {home}/dblike && exec {command}"),
        ],
        env=environment_for(role),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.monotonic() - begun
    print(f"--- as {role}: {command}: exit {done.returncode}, {seconds:.1f} s\n", flush=True)
    return done.returncode == 0 and no_process_is_left()


def no_process_is_left() -> bool:
    """In our process namespace are we, and nobody else; orphans that ended are ours to bury."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    others = [
        (Path("/proc", name) / "cmdline").read_text().replace("\0", " ")
        for name in os.listdir("/proc")
        if name.isdigit() and int(name) != os.getpid()
    ]
    for other in others:
        print(f"still running: {other}")
    return not others


def environment_for(role: str) -> dict[str, str]:
    user = "root" if role == "root" else USER
    registries = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    return registries | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root" if role == "root" else f"/home/{USER}",
        "USER": user,
        "LANG": "C.UTF-8",
        "CI": "true",
    }


if __name__ == "__main__":
    sys.exit(main())
