"""The rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
import itertools
import pkgutil
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import document_commands

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PACKAGES = ("dblike_cli", "dblike_delta", "dblike_srv")

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
# "package/file.py:function" or "package/file.py" → the sentence that says why it may be longer.
ALLOWED: dict[str, str] = {
    "dblike_srv/migrations/versions/r0001_the_first_schema.py:upgrade": (
        "a list of all tables, written by a machine and never changed."
    ),
}

WRITTEN = {".cfg", ".ini", ".json", ".lock", ".md", ".py", ".pyi", ".pyx", ".sh", ".toml", ".yml"}
LEFT_BY_TOOLS = re.compile(r"/(\.venv|\.git|build|dist|demo|[^/]*cache[^/]*|[^/]*\.egg-info)/")
# Spelled with a class, so that this file does not match itself.
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K]|NotImplementedErro[r])\b|for no[w]\b")
MACHINE = re.compile(
    r"(?<![\w}])/(wor[k]|roo[t]|hom[e]/[a-z]+|op[t])/|pypi\.or[g]|pythonhoste[d]|artifactor[y]"
)
# Where such a name is the point: pip's default index, and the directories of a system under test.
MACHINE_ALLOWED = {"scripts/bootstrap.py", "scripts/check_fresh_debian.py"}


class Function(NamedTuple):
    name: str
    lines: int


def written_files() -> Iterator[Path]:
    for path in ROOT.rglob("*"):
        if LEFT_BY_TOOLS.search(f"/{path.relative_to(ROOT)}") or "_vendor" in path.parts:
            continue
        script = path.parent.name in {"scripts", ".ci"} or path.parent == ROOT
        if path.is_file() and (path.suffix in WRITTEN or (script and not path.suffix)):
            yield path


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            name = f"{path.relative_to(ROOT / 'src')}:{node.name}"
            yield Function(name, length - (docstring.count("\n") + 1 if docstring else 0))


def imported(path: Path) -> Iterator[str]:
    """Top-level names of every import, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def places(pattern: re.Pattern[str], allowed: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in written_files()
        if str(path.relative_to(ROOT)) not in allowed
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_imports_point_one_way() -> None:
    """cli → delta ← srv. import-linter also sees the indirect ones; this one needs no tool."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in SOURCES
        for name in imported(path)
        if name in PACKAGES
        and name not in {path.relative_to(ROOT / "src").parts[0], "dblike_delta"}
    ]
    assert wrong == []


def test_what_is_imported_is_declared() -> None:
    """A package that only happens to be installed here is missed at the next machine."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    declared = {
        re.split(r"[\[<>=]", entry)[0].lower() for entry in (*project["dependencies"], *extras)
    }
    names = {name for path in SOURCES for name in imported(path)} - sys.stdlib_module_names
    distributions = packages_distributions()
    undeclared = {
        name
        for name in names - {*PACKAGES, "", "Cython"}
        if not declared & {found.lower() for found in distributions.get(name, [])}
    }
    assert undeclared == set()


def test_functions_are_short() -> None:
    lengths = sorted(function.lines for path in SOURCES for function in functions(path))
    assert statistics.median(lengths) <= 10
    assert lengths[int(len(lengths) * 0.9) - 1] <= 35


def test_no_function_is_long() -> None:
    long = {
        f"{function.name} has {function.lines} lines"
        for path in SOURCES
        for function in functions(path)
        if function.lines > LONGEST_FUNCTION and function.name not in ALLOWED
    }
    assert long == set()


def test_no_file_is_long() -> None:
    sizes = {
        str(path.relative_to(ROOT / "src")): len(path.read_text().splitlines()) for path in SOURCES
    }
    long = {
        path: size for path, size in sizes.items() if size > LONGEST_FILE and path not in ALLOWED
    }
    assert long == {}


def test_every_exception_is_needed_and_says_why() -> None:
    lengths = {function.name: function.lines for path in SOURCES for function in functions(path)}
    sizes = {
        str(path.relative_to(ROOT / "src")): len(path.read_text().splitlines()) for path in SOURCES
    }
    for name, reason in ALLOWED.items():
        limit = LONGEST_FUNCTION if ":" in name else LONGEST_FILE
        assert (lengths | sizes).get(name, 0) > limit, f"{name} needs no exception"
        assert reason.endswith(".")


def test_public_names_are_sorted() -> None:
    unsorted = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                unsorted += [] if list(names) == sorted(names) else [str(path)]
    assert unsorted == []


def test_nothing_is_marked_unfinished() -> None:
    assert places(UNFINISHED, set()) == []


def test_nothing_names_the_machine_it_was_written_on() -> None:
    assert places(MACHINE, MACHINE_ALLOWED) == []


def test_lock_files_name_versions_only() -> None:
    for path in ROOT.glob("*.lock"):
        lines = path.read_text().splitlines()
        assert lines
        assert [line for line in lines if not re.match(r"[a-z0-9-]+==[\w.]+( ;|$)", line)] == []


def test_links_between_documents_lead_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)} → {target}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []


def test_names_in_the_reading_order_exist() -> None:
    page = (ROOT / "docs" / "reading-order.md").read_text()
    names = set(re.findall(r"`(dblike_\w+(?:\.\w+)+)`", page))
    assert len(names) > 30
    for name in names:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("program", sorted(document_commands.PROGRAMS))
def test_every_command_is_documented_with_an_example(program: str) -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    commands = [context for context in document_commands.contexts(program) if context.parent]
    assert len(commands) > 10
    assert [it.command_path for it in commands if f"### {it.command_path}\n" not in pages] == []
    plain = [it for it in commands if not isinstance(it.command, click.Group)]
    assert [it.command_path for it in plain if "Example" not in it.get_help()] == []


LOCKED_CLICK = f"click=={version('click')}" in (ROOT / "requirements.lock").read_text().split()


@pytest.mark.skipif(not LOCKED_CLICK, reason="another click lays its help out in another way")
def test_the_page_of_commands_is_current() -> None:
    """If not: .venv/bin/python scripts/document_commands.py"""
    # In a process of its own: click keeps what a command was first called with.
    command = [sys.executable, document_commands.__file__, "--print"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert document_commands.PAGE.read_text() == page
    assert "\\b" not in page


@pytest.mark.parametrize("group", ["console_scripts", "dblike.auth"])
def test_entry_points_lead_somewhere(group: str) -> None:
    ours = [point for point in entry_points(group=group) if point.module.startswith(PACKAGES)]
    assert ours
    for point in ours:
        assert callable(point.load())
