"""Write the next revision: what the models have and the migrations so far do not make.

Usage: scripts/revision "peers and their journals"

What it may and may not do is said in CONTRIBUTING.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from dblike_delta.seams import SystemRandom
from dblike_srv import schema
from dblike_srv.db import Database

VERSIONS = Path(schema.__file__).parent / "migrations" / "versions"
RUFF = Path(sys.executable).with_name("ruff")
STEPS = {
    "op.create_table": "add_table",
    "op.add_column": "add_column",
    "op.create_index": "add_index",
    "op.drop_table": "drop_table",
    "op.drop_column": "drop_column",
}


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    number = f"{int(max(['0000', *schema.revisions()])) + 1:04}"
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/empty.db", SystemRandom())
        database.transact(lambda connection: write(connection, number, arguments[0]))
        database.close()
    [path] = VERSIONS.glob(f"r{number}_*.py")
    path.write_text(tidy(path.read_text()))
    subprocess.run([RUFF, "format", "--quiet", path], check=True)
    subprocess.run([RUFF, "check", "--quiet", "--fix", path], check=True)
    print(f"Wrote {path}: read it, add what a machine can't know, then ./test -k schema")
    return 0


def tidy(text: str) -> str:
    """With our steps in place of alembic's, which can't be run twice."""
    for made, step in STEPS.items():
        text = text.replace(f"{made}(", f"{step}(")
    text = re.sub(r" *# ### .*\n", "", text)
    text = re.sub(r",\n +mysql_\w+='\w+'", "", text)  # said by the step
    return re.sub(r"op\.f\(('\w+')\)", r"\1", text)


def write(connection: Connection, number: str, message: str) -> None:
    """Bring an empty database to the newest revision, and compare it with the models."""
    if schema.revisions():
        schema.upgrade(connection)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(VERSIONS.parent))
    config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
    command.revision(config, message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
