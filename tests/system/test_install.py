"""What an installation has to be: the kernel compiled where it can be, the commands in place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from dblike_delta import kernel


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (apt-get install gcc)")
@pytest.mark.skipif(
    not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="no headers of Python (apt-get install python3-dev)",
)
def test_the_kernel_is_compiled_where_it_can_be() -> None:
    assert kernel.name == "compiled"


@pytest.mark.parametrize("package", ["dblike_cli", "dblike_delta", "dblike_srv"])
def test_type_checkers_may_read_the_packages(package: str) -> None:
    files = metadata.packages_distributions()[package]
    assert set(files) == {"dblike"}
    (found,) = __import__(package).__path__
    assert Path(found, "py.typed").exists()


@pytest.mark.parametrize("program", ["dblike", "dblike-server"])
def test_the_version_is_one(program: str) -> None:
    command = [Path(sys.executable).parent / program, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{program} {metadata.version('dblike')}\n"


# --- the source distribution ----------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
BUILT = shutil.ignore_patterns("*.so", "__pycache__", "_kernel.c", "_files.c", "*.egg-info")


def build(what: str, tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BACKEND, what, str(tree.parent)]
    environment = os.environ | environment
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=True
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made of a clean copy."""
    tree = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT / "src", tree / "src", ignore=BUILT)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build("build_sdist", tree)
    (archive,) = tree.parent.glob("*.tar.gz")
    return archive


def installed(source: Path, to: Path, **environment: str) -> tuple[Path, str]:
    """What an installation of it has, and what was said while it was built."""
    subprocess.run(["tar", "-xf", source, "-C", to], check=True)
    (tree,) = to.iterdir()
    said = build("build_wheel", tree, **environment).stderr
    (wheel,) = to.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to / "installed")
    return to / "installed", said


def imported(place: Path) -> subprocess.CompletedProcess[str]:
    code = "import dblike_delta.kernel as kernel; print(kernel.__file__, kernel.name)"
    environment = os.environ | {"PYTHONPATH": str(place), "DBLIKE_KERNEL": ""}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_without_a_compiler_the_sdist_says_what_is_absent(source: Path, tmp_path: Path) -> None:
    place, said = installed(source, tmp_path, CC="false")
    assert "The compiled kernel of dblike_delta was NOT built" in said
    assert "install a C compiler" in said
    done = imported(place)
    assert done.stdout.split() == [str(place / "dblike_delta" / "kernel.py"), "python"]
    assert "RuntimeWarning: dblike_delta runs without its compiled kernel" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (apt-get install gcc)")
def test_with_a_compiler_the_sdist_has_the_kernel(source: Path, tmp_path: Path) -> None:
    place, said = installed(source, tmp_path)
    assert "NOT built" not in said
    assert imported(place).stdout.split()[1] == "compiled"
    assert {path.suffix for path in place.rglob("_kernel*")} <= {".so", ".py", ".pyi"}
    assert {path.suffix for path in place.rglob("_files*")} == {".so", ".pyi"}
