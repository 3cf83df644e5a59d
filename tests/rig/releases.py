"""Other releases of the programs than the one that is tested, each a directory of packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_REVISION = '''"""What the next release adds."""

import sqlalchemy as sa

from dblike_srv.migrations.steps import add_column, add_table

revision = "{number}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column that the release before does not write, and a table that it does not know."""
    add_column("versions", sa.Column("more", sa.BigInteger(), server_default="0", nullable=False))
    add_column("users", sa.Column("more", sa.String(length=64), nullable=True))
    add_table("more", sa.Column("id", sa.Integer(), nullable=False), sa.PrimaryKeyConstraint("id"))
'''


def next_release(directory: Path) -> Path:
    """What comes after this one: the same, with a revision of the database more."""
    packages = directory / "src"
    shutil.copytree(ROOT / "src", packages, ignore=shutil.ignore_patterns("__pycache__"))
    revisions = packages / "dblike_srv" / "migrations" / "versions"
    last = max(path.name[1:5] for path in revisions.glob("r[0-9]*.py"))
    number = f"{int(last) + 1:04}"
    text = _REVISION.format(number=number, before=last)
    (revisions / f"r{number}_more.py").write_text(text)
    return packages


def release_of(revision: str, directory: Path) -> Path:
    """The programs of a commit of this repository, with their kernel."""
    tree = directory / "tree"
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tree, check=True, capture_output=True)
    return tree / "src"


def environment(release: Path | None) -> dict[str, str]:
    """In which programs are those of the release; None: of this one."""
    return {**os.environ, "PYTHONPATH": str(release)} if release else dict(os.environ)
