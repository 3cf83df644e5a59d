"""What is printed: results, notes, sizes, and names that would do something to a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblike_cli import output
from dblike_cli.eventlog import EventLog, last_events
from dblike_cli.failure import describe, is_temporary
from dblike_cli.output import CycleReporter, Output, escape, path_fields, plural, render_json, size
from dblike_cli.report import Code, Outcome, Pending, Progress
from dblike_delta.errors import IntegrityError
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.messages import Problem
from dblike_delta.seams import SystemClock


def made(**options: bool | int) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(stdout=out, stderr=err, **options), out, err  # type: ignore[arg-type]


def test_lines_for_people_json_for_programs() -> None:
    plain, out, _ = made()
    plain.result({"a": 1}, ["one", "two"])
    assert out.getvalue() == "one\ntwo\n"
    machine, out, _ = made(as_json=True)
    machine.result({"a": 1}, ["one"])
    machine.item({"b": 2}, "line")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [{"a": 1}, {"b": 2}]


def test_quiet_and_verbose() -> None:
    for verbosity, said in ((-1, ""), (0, "note\n"), (1, "note\nmore\n")):
        plain, _, err = made(verbosity=verbosity)
        plain.note("note")
        plain.note("more", verbosity=1)
        assert err.getvalue() == said


@given(st.text())
def test_nothing_that_a_terminal_obeys_comes_through(text: str) -> None:
    assert escape(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é", "plain é"),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("a\nb", "a\\nb"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.binary())
def test_a_path_in_json_is_exact(raw: bytes) -> None:
    """The text, or the bytes in base64 where the text does not have them."""
    import base64

    fields = path_fields(raw)
    exact = (
        base64.b64decode(fields["path_b64"]) if "path_b64" in fields else fields["path"].encode()
    )
    assert exact == raw
    json.loads(render_json(fields))


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (10**18, "1000 PB"),
    ],
)
def test_size(count: int, said: str) -> None:
    assert size(count) == said


def test_when_survives_any_time() -> None:
    assert output.when(0) == "never"
    for moment in (1, -(2**53), 2**53, 1_700_000_000_000):
        assert output.when(moment)


def test_plural() -> None:
    assert plural(1, "copy", "copies") == "1 copy"
    assert plural(2, "copy", "copies") == "2 copies"


def test_bytes_in_documents() -> None:
    assert render_json({"a": b"x\xff"}) == '{"a":"x\\\\xff"}'
    assert render_json(Outcome("upload", b"a", 1)) == '{"action":"upload","path":"a","size":1}'


def test_a_cycle_is_logged_and_told(tmp_path: Path) -> None:
    plain, _, err = made(verbosity=1)
    log = EventLog(tmp_path / "log", SystemClock())
    reporter = CycleReporter(plain, log)
    reporter.progress(Progress("scan", 1, 2))
    reporter.progress(Outcome("upload", b"a\n", 2000))
    reporter.progress(Pending(b"b", "still being\nwritten", Code.WRITING))
    reporter.close()
    log.flush()
    assert err.getvalue() == "up   a\\n  2.0 kB\n"
    assert [(e["action"], e["detail"]) for e in last_events(tmp_path / "log", b"a\n", 9)] == [
        ("upload", "")
    ]
    assert last_events(tmp_path / "log", b"b", 9)[0]["detail"] == "still being\\nwritten"


def test_the_log_turns_over(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = EventLog(file, SystemClock())
    log.write("upload", b"first")
    for number in range(60_000):
        log.write("upload", b"f%d" % number, "x" * 60)
    log.write("upload", b"last")
    log.flush()
    assert (tmp_path / "log.1").exists()
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) < 10 << 20
    assert last_events(file, b"last", 1)


def test_a_log_is_no_way_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    (tmp_path / "log").symlink_to("precious")
    log = EventLog(tmp_path / "log", SystemClock())
    log.write("upload", b"a")
    log.flush()
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.parametrize(
    ("error", "code", "temporary"),
    [
        (Unreachable("x"), 5, True),
        (Refused(Problem("no", 401)), 10, False),
        (Refused(Problem("no", 404)), 4, False),
        (Refused(Problem("no", 422, field="path")), 1, False),
        (Refused(Problem("no", 426)), 12, False),
        (Refused(Problem("no", 429), 3), 5, True),
        (Refused(Problem("no", 507)), 8, False),
        (IntegrityError("x"), 6, False),
        (KeyboardInterrupt(), 130, False),
        (OSError(28, "No space left on device", "f"), 1, False),
        (ZeroDivisionError("x"), 1, False),
    ],
)
def test_errors_are_one_line_and_a_code(error: BaseException, code: int, temporary: bool) -> None:
    text, said = describe(error)
    assert said == code
    assert text.isprintable()
    assert is_temporary(error) is temporary
