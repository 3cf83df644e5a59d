"""A process beside the site's workers, with the same config: for work that must not hold up those
that answer requests.  It ends when its parent does, or when it is told to.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading

import msgspec

from dblike_srv import logs
from dblike_srv.config import Config, decode_config
from dblike_srv.site import Site


def start(module: str, config: Config) -> subprocess.Popen[str]:
    """Run a module's `main` in a process of its own; raises OSError."""
    program = [sys.executable, "-X", "faulthandler", "-m", module]
    child = subprocess.Popen(program, stdin=subprocess.PIPE, text=True)
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(config).decode() + "\n")
    child.stdin.flush()
    return child


def open_site() -> tuple[Site, threading.Event]:
    """In such a process: the site, and an event that comes when the parent ends."""
    config: Config = decode_config(json.loads(sys.stdin.readline()))
    logs.configure(form=config.log.format, level=config.log.level)
    from dblike_srv.wsgi import open_configured

    site = open_configured(config)
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # as for the workers: many objects, and no cycles
    ending = threading.Event()

    def wait_for_parent() -> None:
        sys.stdin.read()
        ending.set()

    threading.Thread(target=wait_for_parent, daemon=True).start()
    return site, ending
