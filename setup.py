"""Builds the compiled kernel of dblike_delta; everything else is in pyproject.toml.

Without a C compiler the package is installed all the same, and says what is absent.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("src/dblike_delta")
KERNEL = "dblike_delta._kernel"
CORE = ("hashes", "index", "roll", "scan", "select", "sign", "sums")
FLAGS = [] if sys.platform == "win32" else ["-O3", "-g0", "-std=gnu11", "-fvisibility=hidden"]
XXHASH = PACKAGE / "_vendor" / "xxhash"


class BuildKernel(build_ext):
    """Builds what can be built.

    Extension(optional=True) still fails where there is no compiler at all, so every failure is
    caught here.
    """

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the package works without
            self._say_absent(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:  # noqa: BLE001 - whatever it is, the package works without
            if ext.name == KERNEL:
                self._say_absent(error)

    def copy_extensions_to_source(self) -> None:
        self.extensions = [ext for ext in self.extensions if self._was_built(ext)]
        super().copy_extensions_to_source()

    def _was_built(self, ext: Extension) -> bool:
        name = self.get_ext_filename(self.get_ext_fullname(ext.name))
        return (Path(self.build_lib) / name).exists()

    def _say_absent(self, error: Exception) -> None:
        print(  # noqa: T201
            "\nThe compiled kernel of dblike_delta was NOT built:"
            f"\n    {type(error).__name__}: {error}"
            "\nThe package works without it, some hundred times slower, and warns when imported."
            "\nFor the kernel install a C compiler and Python's headers, then install again.\n",
            file=sys.stderr,
        )


def kernel() -> list[Extension]:
    """The extension, or nothing where Cython is absent and no generated C file is here."""
    sources = [str(PACKAGE / "_core" / f"{name}.c") for name in CORE]
    macros: list[tuple[str, str | None]] = []
    if platform.machine().lower() in {"x86_64", "amd64"} and sys.platform != "win32":
        # One build serves all x86 machines: the widest instructions are chosen when it runs.
        sources.append(str(XXHASH / "xxh_x86dispatch.c"))
        macros.append(("DK_XXH_DISPATCH", "1"))
    extension = Extension(
        KERNEL,
        [str(PACKAGE / "_kernel.pyx"), *sources],
        depends=[str(PACKAGE / "_core" / "core.h"), str(XXHASH / "xxhash.h")],
        define_macros=macros,
        extra_compile_args=FLAGS,
    )
    try:
        from Cython.Build import cythonize
    except ImportError:
        message = "\nCython is absent: the compiled kernel can't be built.\n"
        print(message, file=sys.stderr)  # noqa: T201
        return []
    return list(cythonize([extension, *files()], language_level=3))


def files() -> list[Extension]:
    """Where the client makes many small files by one call; elsewhere it makes them one by one."""
    if not sys.platform.startswith("linux"):
        return []
    return [Extension("dblike_cli._files", ["src/dblike_cli/_files.pyx"], extra_compile_args=FLAGS)]


setup(ext_modules=kernel(), cmdclass={"build_ext": BuildKernel})
