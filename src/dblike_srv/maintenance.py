"""Maintenance of a site, by name: what `dblike-server gc`, `compact`, `scrub` and `backup` call.

All of it runs beside a working site, in small transactions, may be killed anywhere and run again.
"""

from __future__ import annotations

from dblike_srv.backup import BackupReport, backup
from dblike_srv.collect import GcReport, gc
from dblike_srv.compact import CompactReport, compact
from dblike_srv.contents import check_contents
from dblike_srv.retention import prune
from dblike_srv.scrub import ScrubReport, scrub

__all__ = [
    "BackupReport",
    "CompactReport",
    "GcReport",
    "ScrubReport",
    "backup",
    "check_contents",
    "compact",
    "gc",
    "prune",
    "scrub",
]
