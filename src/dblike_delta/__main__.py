"""The library's tool: `python -m dblike_delta`, as rdiff; its files interchange with rdiff's.

Exit codes: 0 done, 1 failed (a file can't be read or written), 2 usage, 6 not a usable signature or
delta, or not of this base.  A named output is there whole or not at all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn, TextIO, cast

from dblike_delta.delta import write_delta
from dblike_delta.errors import DeltaError
from dblike_delta.limits import DEFAULT_LIMITS
from dblike_delta.outputs import whole
from dblike_delta.patch import patch
from dblike_delta.paths import display
from dblike_delta.signature import Signature, signature

DONE, FAILED, USAGE, INTEGRITY = 0, 1, 2, 6

_EXAMPLE = """\
example:
  python -m dblike_delta signature old old.sig
  python -m dblike_delta delta old.sig new new.delta
  python -m dblike_delta patch old new.delta new.again
"""


class _UsageError(Exception):
    """Arguments that do not go together."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m dblike_delta") -> int:
    """Run one command; the exit code."""
    code = _run(arguments, program)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _let_go(1)
        if code == DONE and not isinstance(error, BrokenPipeError):
            return _say(program, str(error.strerror), FAILED)
        return code or FAILED
    return code


def _run(arguments: Sequence[str] | None, program: str) -> int:
    try:
        options = _parser(program).parse_args(arguments)
        _COMMANDS[options.command](options)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else USAGE
    except DeltaError as error:
        return _say(program, str(error), INTEGRITY)
    except _UsageError as error:
        return _say(program, str(error), USAGE)
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(program, f"{where}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return 130
    return DONE


def _say(program: str, message: str, code: int) -> int:
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{program}: {display(os.fsencode(message))}\n")
    except OSError:
        _let_go(2)
    return code


def _let_go(descriptor: int) -> None:
    """Nothing is left that would fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _standard(stream: TextIO | None, name: str) -> TextIO:
    """Python has none where it was started without."""
    if stream is None:
        raise OSError(f"standard {name} is closed")
    return stream


def _print(text: str) -> None:
    _standard(sys.stdout, "output").write(text)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_say(self.prog, f"{message}; see --help", USAGE))


class _Version(argparse.Action):
    """Found only when it is asked for, which takes longer than most of the work."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        _print(f"{parser.prog} {version('dblike')}\n")
        parser.exit()


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="Signatures, deltas and patches; - is a standard stream.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str, *files: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=what,
            description=what,
            epilog=_EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for file in files:
            added.add_argument(file.lower(), metavar=file)
        return added

    sign = command("signature", "write the signature of OLD to SIG", "OLD", "SIG")
    sign.add_argument(
        "-b", dest="block", metavar="BLOCK", type=_block_size, help="bytes of a block"
    )
    sign.add_argument(
        "-S", dest="strong", metavar="STRONG", type=_number, help="bytes of strong sums"
    )
    sign.add_argument(
        "--format",
        choices=["librsync", "xxh3"],
        default="librsync",
        help="librsync (the default): rdiff can read it; xxh3: keyed, and much faster",
    )
    command("delta", "write what makes NEW out of SIG's file to DELTA", "SIG", "NEW", "DELTA")
    apply = command("patch", "write OLD with DELTA applied to OUT", "OLD", "DELTA", "OUT")
    apply.add_argument("--max-size", type=_number, metavar="BYTES", help="refuse to write more")
    show = command("inspect", "say what a signature or a delta holds", "FILE")
    show.add_argument("--json", action="store_true", help="as one JSON document")
    times = command("bench", "time the three steps, ours and librsync's", "OLD", "NEW")
    times.add_argument("--json", action="store_true", help="one JSON document a line")
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def _block_size(text: str) -> int:
    value = _number(text)
    if value > DEFAULT_LIMITS.max_block_size:
        raise argparse.ArgumentTypeError(f"must be 0 to {DEFAULT_LIMITS.max_block_size}")
    return value


def _signature(options: argparse.Namespace) -> None:
    with _reading(options.old) as old:
        made = _sign(old, options)
    with _writing(options.sig) as out:
        made.dump(out)


def _sign(old: IO[bytes], options: argparse.Namespace) -> Signature:
    """As rdiff: 0 stands for the recommended block and the longest strong sum."""
    try:
        return signature(
            old,
            block_size=options.block or None,
            format=options.format,
            strong_size=options.strong or None,
        )
    except DeltaError:
        raise
    except ValueError as error:
        raise _UsageError(str(error)) from None


def _delta(options: argparse.Namespace) -> None:
    with _reading(options.sig) as file:
        found = Signature.load(file)
    with _reading(options.new) as new, _writing(options.delta) as out:
        write_delta(found, new, out)


def _patch(options: argparse.Namespace) -> None:
    with (
        _reading(options.old, seekable=True) as old,
        _reading(options.delta) as change,
        _writing(options.out) as out,
    ):
        patch(old, change, out, max_size=options.max_size)


def _inspect(options: argparse.Namespace) -> None:
    from dblike_delta.inspection import inspect

    with _reading(options.file) as file:
        fields = inspect(file)
    if options.json:
        _print(json.dumps({key.replace(" ", "_"): fields[key] for key in fields}) + "\n")
        return
    for key, value in fields.items():
        _print(f"{key + ':':12} {value}\n")


def _bench(options: argparse.Namespace) -> None:
    from dblike_delta.bench import bench

    for row in bench(Path(options.old), Path(options.new)):
        if options.json:
            _print(json.dumps(row._asdict()) + "\n")
        else:
            speed = f"{row.mib_per_second:10.0f} MiB/s {row.bytes:12} bytes"
            _print(f"{row.engine:16} {row.step:10} {row.seconds:8.3f} s {speed}\n")


_COMMANDS = {
    "signature": _signature,
    "delta": _delta,
    "patch": _patch,
    "inspect": _inspect,
    "bench": _bench,
}


@contextlib.contextmanager
def _reading(name: str, *, seekable: bool = False) -> Iterator[IO[bytes]]:
    if name != "-":
        with Path(name).open("rb", buffering=0) as file:
            yield cast("IO[bytes]", file)
        return
    given = _standard(sys.stdin, "input").buffer
    if seekable and not given.seekable():
        raise OSError("the old file is read at any place: it can't be a pipe")
    yield given


@contextlib.contextmanager
def _writing(name: str) -> Iterator[IO[bytes]]:
    """The output; a named one takes its place when it is whole."""
    if name == "-":
        out = _standard(sys.stdout, "output").buffer
        yield out
        out.flush()
        return
    with whole(Path(name)) as file:
        yield file


if __name__ == "__main__":
    sys.exit(main())
