"""The implementation of `lexmotion compare`, from rows to tables."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .archive import read_archive
from .report import write_report
from .rows import select_rows
from .runner import Comparison
from .tables import write_tables


def compare(
    comparison: Comparison,
    rows: str = "all",
    seeds: str | int = 3,
    text_encoders: str | None = None,
    report: Path | None = None,
    archive: Path | None = None,
) -> dict[str, Any]:
    """
    Train and score missing rows, and write the tables of all results after each of them.

    Args:
        comparison: recipe, corpus and output folder.
        rows: comma-separated names and groups, see `select_rows`; `none` only writes the tables.
        seeds: number of trainings per row (seeds 0, 1, ...), or a list of seeds, see `read_seeds`.
        text_encoders: comma-separated; each is a row of dense MotionPatches.
        report: Markdown page to write from all results.
        archive: zip file to which all results are added.

    Returns:
        The summary, as in `results.json`.

    Raises:
        ValueError: if a row is unknown, an archive is damaged, or a result belongs to another run.
    """
    numbers = read_seeds(seeds)
    if "kit" in words(rows) and comparison.report.layout != "kit-ml":
        layout = comparison.report.layout
        raise ValueError(f"--rows: kit is for a corpus of the layout kit-ml, this one is {layout}; pass --rows all")
    chosen = select_rows([] if rows == "none" else words(rows), words(text_encoders or ""))
    if archive is not None and archive.exists():
        read_archive(archive)  # report a damaged archive before training

    def write(curves: bool) -> dict[str, Any]:
        return write_tables(comparison.collect(), comparison.output_dir, comparison.report.layout, curves)

    comparison.run(chosen, numbers, on_result=lambda _: write(curves=False))
    summary = write(curves=True)
    if report is not None:
        write_report(comparison.collect(), report, comparison.command(rows, str(seeds), text_encoders))
        comparison.notify(f"page: {report}")
    if archive is not None:
        added, replaced = comparison.archive(archive)
        comparison.notify(f"archive: {archive}, {added} added, {replaced} replaced")
    comparison.notify(f"tables: {comparison.output_dir / 'results.md'}")
    return summary


def read_seeds(seeds: str | int) -> list[int]:
    """
    Read a number of seeds, counted from 0, or a comma-separated list of them.

    Raises:
        ValueError: if it is neither, or a seed is negative or given twice.

    Example:
        >>> read_seeds("3"), read_seeds("3,7"), read_seeds("7,")
        ([0, 1, 2], [3, 7], [7])
    """
    text = str(seeds)
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*,?", text, re.ASCII):
        raise ValueError(f"seeds: got {text!r}; pass a number such as 3, or a list such as 3,7,11 (7, for one seed)")
    found = [int(part) for part in text.split(",") if part]
    if "," not in text:
        found = list(range(found[0]))
    if not found or len(set(found)) != len(found):
        raise ValueError(f"seeds: got {text!r}; pass at least one seed, each once")
    return found


def words(text: str) -> Sequence[str]:
    """Split text at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
