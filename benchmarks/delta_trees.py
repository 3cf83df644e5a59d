"""Two releases of a project as trees: our three steps beside rsync's one."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.delta_corpora import RELEASES, Corpus, fetched
from benchmarks.delta_engines import Run, transferred
from benchmarks.measure import BenchmarkError
from dblike_delta import delta_tree, patch_tree, sign_tree


def trees(folder: Path, fetched_to: Path) -> Iterator[dict[str, Any]]:
    """Seconds and bytes of each; what they made is compared by names, modes, times and hashes."""
    pair = fetched(fetched_to, *RELEASES[0])
    old, new = (unpacked(tar, folder / tar.stem) for tar in (pair.old, pair.new))
    wanted = sign_tree(new).entries
    for name, engine in (("dblike", ours), ("rsync", rsync)):
        if name == "rsync" and shutil.which(name) is None:
            continue
        made = folder / f"by-{name}"
        shutil.copytree(old, made, symlinks=True)
        run = Run(Corpus(pair.name, made, new), folder)
        engine(run, made, new)
        if sign_tree(made).entries != wanted:
            raise BenchmarkError(f"{name} made a wrong tree of {pair.name}")
        yield {
            "kind": "tree",
            "corpus": pair.name,
            "engine": name,
            "paths": len(wanted),
            "cpu": {step: round(spent, 3) for step, spent in run.cpu.items()},
            "bytes": run.sizes,
        }


def unpacked(tar: Path, to: Path) -> Path:
    """The files of a release's archive."""
    with tarfile.open(tar) as archive:
        archive.extractall(to, filter="data")
    (root,) = to.iterdir()
    return root


def ours(run: Run, made: Path, new: Path) -> None:
    """A signature, a changeset, and a tree that is patched in place."""
    signed = run.time("signature", lambda: sign_tree(made))
    with (run.out.parent / "changeset").open("w+b") as file:
        run.time("delta", lambda: delta_tree(signed, new, file))
        run.sizes = {"signature": len(signed.pack()), "delta": file.tell()}
        file.seek(0)
        run.time("patch", lambda: patch_tree(made, file))


def rsync(run: Run, made: Path, new: Path) -> None:
    """It trusts sizes and times; these have changed with the release."""
    said = run.call("all", "rsync", "-a", "--no-whole-file", "--delete", "--stats", f"{new}/", made)
    run.sizes = transferred(said)
