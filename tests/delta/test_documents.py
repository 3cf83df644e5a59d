"""What the documents show is what happens, and every public name is described."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import dblike_delta
import document_library

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["how-it-works.md", "formats-delta.md", "recipes.md"])
def test_the_examples_in_the_documents_are_true(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert results.attempted > 5
    assert results.failed == 0


def test_the_page_of_the_library_is_current() -> None:
    """If not: .venv/bin/python scripts/document_library.py"""
    assert document_library.page() == document_library.PAGE.read_text()


def test_every_public_name_is_on_it_with_a_sentence() -> None:
    page = document_library.PAGE.read_text()
    for name in dblike_delta.__all__:
        assert f"### `{name}" in page
    assert document_library.undocumented() == []
