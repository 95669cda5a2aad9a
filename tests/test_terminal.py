"""What users, files and indexes contain never controls the terminal, and bad bytes in arguments are one line."""

import io
import logging
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from lexmotion import cli
from lexmotion.cli.base import PrintableRecord, terminal
from lexmotion.common.text import printable
from lexmotion.processing.recordings import inspection

HOSTILE = "kick\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp.exe\r\x08"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def table(text):
    made = Table(title=text)
    made.add_column(text)
    made.add_row(text)
    return made


@pytest.mark.parametrize("content", [HOSTILE, Text(HOSTILE), table(HOSTILE)], ids=["text", "Text", "table"])
def test_a_console_prints_no_controls(content):
    out = io.StringIO()
    terminal(file=out, width=200).print(content, markup=False)
    assert "kick[2J]0;title31mgnp.exe" in out.getvalue() and not CONTROLS.search(out.getvalue())


def test_every_command_prints_through_this_console():
    folder = Path(cli.__file__).parent
    own = {path.name for path in folder.glob("*.py") if re.search(r"\bConsole\(", path.read_text(encoding="utf-8"))}
    assert own <= {"base.py"}


def test_lines_tables_and_colours_stay():
    out = io.StringIO()
    terminal(file=out, force_terminal=True, color_system="standard", width=20).print("[red]a[/]\nb")
    assert out.getvalue() == "\x1b[31ma\x1b[0m\nb\n"


def test_a_log_record_has_no_controls():
    record = PrintableRecord("x", logging.WARNING, "", 0, "%s: damaged", (HOSTILE,), None)
    assert not CONTROLS.search(record.getMessage())


@pytest.mark.parametrize(
    ("logger", "shown"), [("lexmotion.processing", "pass --units"), ("datasets", "pass units=...")]
)
def test_a_log_record_names_options(logger, shown):
    words = ["prepare", "kit"]
    record = PrintableRecord(logger, logging.WARNING, "", 0, "%s", ("pass units=...",), None, words=words)
    assert record.getMessage() == shown


def test_half_characters_can_be_written():
    assert printable("caf\udce9").encode() == "caf\ufffd".encode()


@pytest.mark.parametrize(
    "words", [["inspect", "caf\udce9.npy"], ["search", "x\udcff", "text"], ["push", "m", "u/\udc80"]]
)
def test_an_argument_that_is_not_utf8_is_one_line(words, capsys):
    with pytest.raises(SystemExit, match="1"):
        cli.main(words)
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and "UTF-8" in first and "\ufffd" in first


def test_a_hostile_name_in_an_error_is_harmless(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        cli.main(["index", "info", str(tmp_path / "no\x1b[31mwhere")])
    assert not CONTROLS.search(capsys.readouterr().err)


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def inspect_motion(*_):
        raise RuntimeError("File too large (os error 27)")

    monkeypatch.setattr(inspection, "inspect_motion", inspect_motion)
    with pytest.raises(SystemExit, match="1"):
        cli.main(["inspect", "a.npy"])
    assert re.match(r"error: .*full.*free", capsys.readouterr().err)
