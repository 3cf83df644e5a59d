"""A systemd user unit that keeps `dblike watch` running for a linked folder."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from dblike_cli.errors import Failed

_UNIT: Final = """\
[Unit]
Description=DBLike keeps {plain} in sync
StartLimitIntervalSec=0

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5
# Damaged state, another instance, protocol too old: starting again would not help.  Where the
# disk is not mounted yet there is no linked folder, and that passes.
RestartPreventExitStatus=7 11 12
Nice=5

[Install]
WantedBy=default.target
"""


def unit_name(root: Path) -> str:
    """The unit of a linked folder: readable, and unlike that of any other folder."""
    digest = hashlib.blake2b(bytes(root), digest_size=4).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", root.name).strip("-")[:40] or "root"
    return f"dblike-{plain}-{digest}.service"


def unit_text(root: Path) -> str:
    """What the unit says."""
    words = [sys.executable, "-m", "dblike_cli", "-C", str(root), "watch"]
    plain = re.sub(r"[^\x20-\x7e]", "?", str(root)).replace("%", "%%")
    return _UNIT.format(plain=plain, command=" ".join(map(_quote, words)))


def install(root: Path, directory: Path) -> tuple[Path, bool]:
    """Write the unit and start it; (where it is, whether it runs: not so without systemd)."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / unit_name(root)
    file.write_text(unit_text(root), encoding="utf-8")
    if not _systemctl("daemon-reload"):
        return file, False
    if not _systemctl("enable", "--now", file.name):
        raise Failed(f"systemd did not start {file.name}; `systemctl --user status` says why")
    return file, True


def uninstall(root: Path, directory: Path) -> bool:
    """Stop the unit and remove it; whether there was one."""
    file = directory / unit_name(root)
    if not file.exists():
        return False
    _systemctl("disable", "--now", file.name)
    file.unlink()
    _systemctl("daemon-reload")
    return True


def is_active(root: Path) -> bool:
    """Whether the unit runs."""
    return _systemctl("is-active", "--quiet", unit_name(root))


def _systemctl(*arguments: str) -> bool:
    try:
        done = subprocess.run(
            ["systemctl", "--user", *arguments], check=False, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _quote(word: str) -> str:
    """A word of ExecStart as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{"".join(c if c.isprintable() else _bytes(c) for c in escaped)}"'


def _bytes(character: str) -> str:
    """A character as the bytes that the path has for it: an escape stands for one of them."""
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
