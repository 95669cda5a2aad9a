"""Results for the terminal: rich tables of retrieval rows, acceptance criteria and words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.constrain import Constrain
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lexmotion.processing.recordings.inspection import Inspection

    from .benchmarks.harness import Result
    from .explain import Explanation

DIRECTION_TITLES = {"t2m": "text→motion", "m2t": "motion→text"}
COLUMNS = {"R1": "R@1", "R2": "R@2", "R3": "R@3", "R5": "R@5", "R10": "R@10", "MedR": "MedR"}

MEASURES = {
    "frames": "{:.0f}",
    "seconds": "{:.2f}",
    "nan_frames": "{:.0f}",
    "height": "{:.2f} m, of the standing body, from its bones",
    "floor": "{:.2f} m, height of the lowest foot",
    "feet_on_floor": "{:.0%} of the frames",
    "foot_sliding": "{:.0%} of the frames",
    "top_speed": "{:.1f} m/s, of any joint",
    "speed_spikes": "{:.0f}",
    "bone_change": "{:.1%}, standard deviation over mean of the least rigid bone",
    "path_length": "{:.2f} m, of the root over the floor",
}

USAGE = {
    "active_words": "active words, mean",
    "distinct_words": "distinct words in use",
    "universal": "words active in over half of the items",
    "empty": "items without any word",
}


def retrieval_table(
    retrieval: Mapping[str, Mapping[str, Any]],
    title: str | None = None,
    floor: Mapping[str, Mapping[str, Any]] | None = None,
) -> Table:
    """
    Show protocols of `evaluate_retrieval` in two rows each, one per direction; 80 columns wide.

    Args:
        retrieval: protocol -> metrics.
        title: heading of the table.
        floor: protocol -> metrics of the ridge floor, shown below the protocols that it contains.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for name in ("protocol", "gallery", ""):
        table.add_column(name, no_wrap=True)
    for name in (*COLUMNS.values(), "Rsum"):
        table.add_column(name, justify="right")
    for protocol, row in retrieval.items():
        floors = [("  ridge floor", floor[protocol])] if floor and protocol in floor else []
        for label, metrics in [(protocol, row), *floors]:
            for number, (direction, words) in enumerate(DIRECTION_TITLES.items()):
                values = [f"{metrics[f'{direction}/{name}']:.1f}" for name in COLUMNS]
                shared = (label, str(metrics["gallery_size"]), f"{metrics['Rsum']:.1f}") if number == 0 else ("",) * 3
                table.add_row(*shared[:2], words, *values, shared[2])
    return table


def all_captions_table(figures: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Show recalls averaged over all captions of a clip, by clip length, as returned by `figures_by_clip`."""
    title = "All captions of a clip, all-strict"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("clips", no_wrap=True)
    for name in ("", "t→m R@1", "R@10", "m→t R@1", "R@10", "Rsum"):
        table.add_column(name, justify="right", no_wrap=True)
    for part, row in figures.items():
        if row is not None:
            values = [f"{row[name]:.1f}" for name in ("t2m/R1", "t2m/R10", "m2t/R1", "m2t/R10", "Rsum")]
            table.add_row(part, str(row["clips"]), *values)
    return table


def probe_table(found: Mapping[str, Any], title: str | None = None) -> Table:
    """Show the Rsum of a linear probe of a motion tower and of random weights, as returned by `evaluate_probe`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("tokens of", no_wrap=True)
    parts = [part for part, row in found["trained"]["all_captions"].items() if row is not None]
    for name in ("first caption", *(f"{part} clips" if part != "all" else "all captions" for part in parts)):
        table.add_column(f" {name}", justify="right")

    def values(probes: Sequence[Mapping[str, Any]]) -> list[str]:
        rows = [[p["retrieval"]["all-strict"], *(p["all_captions"][part] for part in parts)] for p in probes]
        return [f"{sum(row['Rsum'] for row in column) / len(column):.1f}" for column in zip(*rows, strict=True)]

    table.add_row("this tower", *values([found["trained"]]))
    count = len(found["untrained"])
    table.add_row(f"random weights, mean of {count}" if count > 1 else "random weights", *values(found["untrained"]))
    difference = found["difference"]
    table.caption = (
        f"difference, all captions: {difference['mean']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}]"
    )
    return table


def lexical_table(lexical: Mapping[str, float]) -> Table:
    """
    Show figures of `evaluate_lexical_space`: sparsity of the space, and how many of its words are the captions' words.
    """
    table = Table(title="Words", title_justify="left")
    table.add_column("")
    table.add_column("text", justify="right")
    table.add_column("motion", justify="right")
    for name, words in USAGE.items():
        values = [lexical.get(f"{side}_{name}") for side in ("text", "motion")]
        if None not in values:
            table.add_row(
                words, *(f"{value:.1f}" if value % 1 else f"{value:.0f}" for value in values if value is not None)
            )
    for name, words in (
        ("caption_coverage_top10", "content words of the caption among the top 10"),
        ("coverage_top20", "content words of all its captions among the top 20"),
    ):
        if name in lexical:
            table.add_row(words, "", f"{lexical[name]:.1%}")
    return table


def order_table(figures: Mapping[str, float], title: str | None = None) -> Table:
    """Show figures of `evaluate_order`."""
    table = Table(title=title, title_justify="left")
    table.add_column("captions that beat their version with events exchanged")
    table.add_column("share", justify="right")
    table.add_column("captions", justify="right")
    between = f" ({figures['low']:.1%} to {figures['high']:.1%})"
    table.add_row("with their own motion", f"{figures['share']:.1%}{between}", str(figures["captions"]))
    for name, words in (
        ("share_then", '  events joined by "then" and the like'),
        ("share_before_after", '  "before" exchanged with "after"'),
        ("share_words", "  by word vectors only, without segments"),
        ("other_motions", "with motions of other captions"),
    ):
        if name in figures:
            count = figures.get(name.replace("share", "captions")) if name.startswith("share") else None
            table.add_row(words, f"{figures[name]:.1%}", "" if count is None else str(count))
    return table


def phase_table(results: Iterable[Mapping[str, Any]], title: str | None = None) -> Table:
    """Results of finished tasks, as a run record holds them: criteria with their verdicts and the time of training."""
    table = Table(title=title, title_justify="left")
    table.add_column("phase", no_wrap=True)
    table.add_column("acceptance, on held-out data")
    table.add_column("", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for result in results:
        rows = [(escape(c["text"]), "[green]ok[/]" if c["met"] else "[red]no[/]") for c in result["criteria"]]
        rows = rows or [("not measured", "")]
        for number, (text, mark) in enumerate(rows):
            name, seconds = (result["title"], f"{result['training']['seconds']:.0f} s") if number == 0 else ("", "")
            table.add_row(name, text, mark, seconds, end_section=number == len(rows) - 1)
    return table


def words_table(
    captions: Sequence[str],
    words: Sequence[Sequence[tuple[str, float]]],
    shared: Sequence[Collection[str]],
    title: str,
) -> Table:
    """
    Show captions beside the top words of their motions, shared words highlighted.

    Args:
        captions: N captions.
        words: N lists of (word, weight) of the motion.
        shared: N sets of words to highlight.
        title: heading of the table.
    """
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("caption", ratio=1)
    table.add_column("top words of the motion (shared ones highlighted)", ratio=1)
    for caption, top, mine in zip(captions, words, shared, strict=True):
        text = ", ".join(f"[bold green]{escape(word)}[/]" if word in mine else escape(word) for word, _ in top)
        table.add_row(escape(caption), text)
    return table


def explanation_tables(explanation: Explanation, k: int) -> list[Table]:
    """
    Show the words of a motion; with a caption, also the shared words and the contribution of each to the score.

    Args:
        explanation: see `lexmotion.evaluation.explain`.
        k: maximum number of words per table.
    """
    shared = {evidence.word for evidence in explanation.shared}
    words = Table(title="Words of the motion", title_justify="left")
    for name, justify in (("word", "left"), ("weight", "right"), ("body part", "left"), ("seconds", "right")):
        words.add_column(name, justify=justify)  # type: ignore[arg-type]
    for item in explanation.words[:k]:
        name = f"[bold green]{escape(item.word)}[/]" if item.word in shared else escape(item.word)
        words.add_row(name, f"{item.weight:.2f}", item.part, f"{item.start:.1f} - {item.end:.1f}")
    if explanation.text is None:
        return [words]
    title = f'Why it matches "{escape(explanation.text)}": cosine of the words {explanation.score:.3f}'
    caption = None
    if explanation.model_score is not None:
        caption = f"The model ranks by {explanation.model_score:.3f}, which adds words of segments or dense vectors."
    why = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("shared word", "adds", "in motion", "in text", "body part", "seconds"):
        why.add_column(name, justify="left" if name in ("shared word", "body part") else "right")
    for item in explanation.shared[:k]:
        numbers = f"{item.contribution:.3f}", f"{item.weight:.2f}", f"{item.text_weight:.2f}"
        why.add_row(escape(item.word), *numbers, item.part, f"{item.start:.1f} - {item.end:.1f}")
    rest = explanation.rest + sum(item.contribution for item in explanation.shared[k:])
    if round(rest, 3):
        why.add_row("[dim]all others[/]", f"{rest:.3f}", "", "", "", "")
    return [words, why]


def inspection_tables(inspection: Inspection) -> list[Table | Text]:
    """Show the format of a motion file, its measures and problems, and whether it is usable."""
    parts: list[Table | Text] = [Text(inspection.path, style="bold")]
    if inspection.facts:
        facts = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("", "is", "known", "because"):
            facts.add_column(name, overflow="fold")
        for name, fact in inspection.facts.items():
            value = f"{fact['value']:g}" if isinstance(fact["value"], float) else str(fact["value"])
            facts.add_row(name, escape(value), _confidence(fact["confidence"]), escape(fact["reason"]))
        parts.append(facts)
    if inspection.measures:
        measures = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        for name, text in MEASURES.items():
            measures.add_row(name.replace("_", " "), text.format(inspection.measures[name]))
        parts += [measures, Text("")]
    for problem in inspection.problems:
        style = {"error": "bold red", "warning": "yellow"}.get(problem.severity, "dim")
        remedy = problem.remedy and f"; {problem.remedy}"
        parts.append(Text.assemble((f"{problem.severity}: ", style), problem.message, (remedy, "dim")))
    parts.append(Text("usable", style="green") if inspection.usable else Text("not usable", style="bold red"))
    return parts


def _confidence(word: str) -> str:
    style = {"low": "yellow", "assumed": "yellow", "medium": "default"}.get(word, "green")
    return f"[{style}]{word}[/]"


def benchmark_table(results: Sequence[Result], title: str) -> Constrain:
    """
    Show the cases of a benchmark, at most 100 columns wide: rates, peak memory and ratios of both sides, agreement and
    facts.
    """
    from .benchmarks.harness import SIDES  # imports torch, which the other tables do without

    parts: list[Text | Table] = [Text(title, style="bold"), Text("")]
    for number, result in enumerate(results):
        # One table per case with equal columns, so that the lines under a case span the full width.
        table = Table(box=None, expand=True, show_header=number == 0, padding=(0, 1, 0, 0))
        table.add_column("", ratio=1)
        table.add_column("", width=5)
        table.add_column("per second", justify="right", width=26)
        table.add_column("peak memory", justify="right", width=12)
        for side in SIDES:
            rate, peak = f"{_number(result.rate(side))} {escape(result.unit)}", result.peak_bytes.get(side)
            memory = "-" if peak is None else f"{peak / 2**20:,.1f} MiB"
            table.add_row(f"[bold]{escape(result.case)}[/]" if side == SIDES[0] else "", side, rate, memory)
        ours, plain = (result.peak_bytes.get(side) for side in SIDES)
        table.add_row(
            "",
            "ratio",
            f"[bold]{result.ratio:.2f} x[/] ({result.lowest:.2f} - {result.highest:.2f})",
            f"[bold]{plain / ours:.2f} x[/]" if ours and plain else "-",
        )
        lines = [result.agreement]
        for name, value in result.facts.items():
            lines.append(f"{name}: {_number(value) if isinstance(value, float) else value}")
        parts += [table, *(Text(f"  {line}", style="dim") for line in lines), Text("")]
    parts.append(Text("ratio: baseline over ours, median of the pairs (lowest - highest)", style="dim"))
    return Constrain(Group(*parts), 100)


def _number(value: float) -> str:
    """Format with four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
