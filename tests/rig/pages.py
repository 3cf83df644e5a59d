"""What tables in the documentation say."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def rows_of(page: str, section: str) -> dict[str, list[str]]:
    """The rows of a section's table by their first cell, without its backquotes."""
    _, _, text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {section}\n")
    lines = text.partition("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {key.strip("`"): cells for key, *cells in rows}
