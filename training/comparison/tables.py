"""Tables of results (mean and deviation over seeds) as JSON, Markdown and LaTeX, and plots of training curves."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lexmotion.common.files import write_json, write_text
from lexmotion.evaluation.figures.drawing import BLUE, GREY, ORANGE, new_figure, save_figure

from . import paper
from .paired import PARTS, by_clip, interval_text, of_gallery
from .rows import ENCODER_PREFIX, GROUPS, REFERENCE, ROWS
from .scoring import PROTOCOLS

Results = Mapping[str, Sequence[Mapping[str, Any]]]
DIRECTIONS = {"t2m": "text to motion", "m2t": "motion to text"}
MEASURES = {"R1": "R@1", "R2": "R@2", "R3": "R@3", "R5": "R@5", "R10": "R@10", "MedR": "MedR"}
COLUMNS = (*(f"{direction}/{measure}" for direction in DIRECTIONS for measure in MEASURES), "Rsum")
PAPER_LABEL = "paper, other data"
# Special characters of LaTeX, and those of our labels that its fonts lack.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "†": r"$^\dagger$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


# ---- figures over seeds


def spread(values: Iterable[float]) -> dict[str, Any]:
    """
    Return mean and sample standard deviation (over n - 1; None for a single value).

    Example:
        >>> spread([1.0, 2.0, 3.0])
        {'mean': 2.0, 'std': 1.0, 'n': 3}
    """
    found = list(values)
    std = statistics.stdev(found) if len(found) > 1 else None
    return {"mean": statistics.fmean(found), "std": std, "n": len(found)}


def over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize every figure of one row over its seeds."""
    first = results[0]
    row: dict[str, Any] = {"label": first["label"], "seeds": [result["seed"] for result in results]}
    row["retrieval"] = {
        protocol: {name: spread(result["retrieval"][protocol][name] for result in results) for name in COLUMNS}
        for protocol in first["retrieval"]
    }
    for part in ("lexical", "order"):
        row[part] = None
        if all(result[part] for result in results):
            names = [name for name in first[part] if all(name in result[part] for result in results)]
            row[part] = {name: spread(result[part][name] for result in results) for name in names}
    row["words_rsum"] = None  # of the words only, if the score also uses other vectors
    if all(result["retrieval_words"] for result in results):
        row["words_rsum"] = {
            protocol: spread(result["retrieval_words"][protocol]["Rsum"] for result in results)
            for protocol in first["retrieval_words"]
        }
    row["steps"] = {name: training["steps"] for name, training in first["trainings"].items()}
    row["minutes"] = spread(result["seconds"] / 60.0 for result in results)
    row["parameters"] = first["parameters"]
    return row


def ratio(results: Results, row: str, other: str, protocol: str) -> dict[str, Any] | None:
    """Return the ratio of two rows' mean Rsum with its first-order standard deviation, or None if a row is missing."""
    if row not in results or other not in results:
        return None
    one, two = (spread(result["retrieval"][protocol]["Rsum"] for result in results[name]) for name in (row, other))
    value = one["mean"] / two["mean"]
    std = None
    if one["std"] is not None and two["std"] is not None:
        std = value * math.hypot(one["std"] / one["mean"], two["std"] / two["mean"])
    return {"mean": value, "std": std, "n": min(one["n"], two["n"])}


def gain(results: Results, row: str, reference: str, figure: Any) -> dict[str, Any] | None:
    """Return a figure (result -> number) of a row minus that of the reference by seed; None without common seeds."""
    of_seed = {result["seed"]: figure(result) for result in results.get(reference, ())}
    pairs = [(figure(result), of_seed[result["seed"]]) for result in results.get(row, ()) if result["seed"] in of_seed]
    return spread(own - other for own, other in pairs) if pairs else None


def rsum(protocol: str) -> Any:
    """Return a function result -> Rsum."""
    return lambda result: result["retrieval"][protocol]["Rsum"]


def summarise(results: Results, layout: str = "humanml3d") -> dict[str, Any]:
    """
    Return the content of all tables: `rows`, `ratios` (LexMotion, paper), `all_captions`, `galleries` (name -> as
    `all_captions`), and the paper's rows.

    Args:
        layout: layout of the corpus, which decides the table of the paper's ratios, see `paper.table_of`.
    """
    measured = [name for of_row in results.values() for result in of_row for name in result.get("galleries", {})]
    ratios: dict[str, Any] = {}
    for other in ("motion_patches", "tmr"):
        found = {protocol: ratio(results, REFERENCE, other, protocol) for protocol in PROTOCOLS}
        if any(found.values()):
            ratios[f"{REFERENCE} / {other}"] = {**found, PAPER_LABEL: paper.ratio(REFERENCE, other, layout)}
    return {
        "rows": {name: over_seeds(of_row) for name, of_row in results.items()},
        "ratios": ratios,
        "all_captions": by_clip(results),
        "galleries": {name: by_clip(of_gallery(results, name)) for name in dict.fromkeys(measured)},
        PAPER_LABEL: {
            name: {row: paper.figures(values) for row, values in table.items()}
            for name, table in (("table 1", paper.TABLE_1), ("table 2", paper.TABLE_2), ("table 5", paper.TABLE_5))
        },
    }


# ---- text


def number(value: Mapping[str, Any] | float | None, digits: int = 1, signed: bool = False, scale: float = 1.0) -> str:
    """Format as `12.3 ± 0.4`, as `12.3` without a deviation, as an empty string for None."""
    if value is None:
        return ""
    mean, std = (value, None) if isinstance(value, int | float) else (value["mean"], value["std"])
    text = f"{mean * scale:{'+' if signed else ''}.{digits}f}"
    return text if std is None else f"{text} ± {std * scale:.{digits}f}"


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Return a Markdown table; columns after the first `text_columns` are right-aligned."""
    rule = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def escape_latex(text: str) -> str:
    """
    Escape text for LaTeX.

    Example:
        >>> escape_latex("†TMR & 5_%")
        '$^\\\\dagger$TMR \\\\& 5\\\\_\\\\%'
    """
    return "".join(_LATEX.get(character, character) for character in text)


def latex_table(header: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]], caption: str) -> str:
    """Return a booktabs table over both columns, with a rule between blocks of lines of cells."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join(map(escape_latex, cells)) + r" \\"

    top = (r"\begin{table*}", r"\centering", rf"\caption{{{escape_latex(caption)}}}")
    columns = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    body = "\n\\midrule\n".join("\n".join(map(row, block)) for block in blocks if block)
    head = (columns, r"\toprule", row(header), r"\midrule")
    return "\n".join((*top, *head, body, r"\bottomrule", r"\end{tabular}", r"\end{table*}"))


def retrieval_header() -> list[str]:
    titles = [f"{direction} {title}" for direction in DIRECTIONS for title in MEASURES.values()]
    return ["", "seeds", *titles, "Rsum"]


def retrieval_lines(summary: Mapping[str, Any], names: Iterable[str], protocol: str) -> list[list[str]]:
    """Return the table lines of those rows that have results, with the columns of `retrieval_header`."""
    lines = []
    for name in names:
        if name in summary["rows"]:
            row = summary["rows"][name]
            figures = row["retrieval"][protocol]
            lines.append([row["label"], str(len(row["seeds"])), *(number(figures[column]) for column in COLUMNS)])
    return lines


def paper_lines(table: Mapping[str, tuple[float, ...]], names: Iterable[str] | None = None) -> list[list[str]]:
    """Return the paper's rows, labelled as such."""
    lines = []
    for name in table if names is None else names:
        if name in table:
            figures = paper.figures(table[name])
            label = ROWS[name].label if name in ROWS else name
            lines.append([f"{label} ({PAPER_LABEL})", "", *(number(figures[column]) for column in COLUMNS)])
    return lines


def encoder_names(summary: Mapping[str, Any]) -> list[str]:
    return [name for name in summary["rows"] if name.startswith(ENCODER_PREFIX)]


def tables_of(summary: Mapping[str, Any], layout: str) -> list[tuple[str, list[list[list[str]]]]]:
    """
    Return titles and blocks of lines of all retrieval tables, the last block with the paper's rows.

    Args:
        layout: layout of the corpus; `kit-ml` is shown with the paper's Table 2, others with Table 1.
    """
    tables = []
    of_paper = "kit" if layout == "kit-ml" else "systems"  # the group beside which the paper's rows are shown
    titles = {
        "systems": "Systems",
        "kit": "KIT-ML, Table 2 of the paper",
        "phases": "Phases",
        "head": "Head and vocabulary",
        "improvements": "Improvements",
        "plain": "Without the improvements",
        "lexical-baselines": "Lexical vectors in a dense system",
    }
    for protocol in PROTOCOLS:
        for group, names in GROUPS.items():
            lines = retrieval_lines(summary, names, protocol)
            present = [name for name in names if name in summary["rows"]]
            if group == of_paper:
                known: Sequence[str] = [REFERENCE]
            else:
                known = GROUPS[of_paper] if group in ("systems", "kit") else GROUPS["systems"]
            if set(present) - set(known):
                blocks = [lines, paper_lines(paper.table_of(layout), present)] if group == of_paper else [lines]
                tables.append((f"{titles[group]}, {protocol}", blocks))
        encoders = encoder_names(summary)
        if encoders:
            lines = retrieval_lines(summary, ["motion_patches", *encoders], protocol)
            tables.append((f"Text encoders of dense MotionPatches, {protocol}", [lines, paper_lines(paper.TABLE_5)]))
    return tables


def write_tables(results: Results, folder: Path, layout: str, curves: bool = True) -> dict[str, Any]:
    """
    Write `results.json`, `results.md`, `results.tex` and `curves/` from the results of `Comparison.collect`.

    Args:
        layout: layout of the corpus, see `tables_of`.
        curves: also plot the curves, which takes a second per row.

    Returns:
        The summary, as in `results.json`.
    """
    summary = summarise(results, layout)
    write_json(folder / "results.json", summary)
    tables, header = tables_of(summary, layout), retrieval_header()
    pages = [f"## {title}\n\n{markdown_table(header, sum(blocks, []))}" for title, blocks in tables]
    pages += [ratio_page(summary)] if summary["ratios"] else []
    pages += [all_captions_page(summary)] if summary["all_captions"] else []
    write_text(folder / "results.md", "\n\n".join(pages) + "\n")
    note = f"Mean and standard deviation over seeds; rows marked ``{PAPER_LABEL}'' are as printed by {paper.SOURCE}"
    latex = [latex_table(header, blocks, f"{title}. {note}.") for title, blocks in tables]
    write_text(folder / "results.tex", "\n\n".join(["% needs \\usepackage{booktabs}", *latex]) + "\n")
    if curves:
        draw_curves(results, folder / "curves")
    return summary


def overview_table(summary: Mapping[str, Any], protocol: str = PROTOCOLS[0]) -> Table:
    """Return the rows as a table for the terminal."""
    shown = {"t2m/R1": "t→m R@1", "t2m/R10": "R@10", "m2t/R1": "m→t R@1", "m2t/R10": "R@10", "Rsum": "Rsum"}
    table = Table(title=f"Rows, {protocol}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("")
    for title in ("seeds", *shown.values()):
        table.add_column(title, justify="right", no_wrap=True)
    for row in summary["rows"].values():
        figures = row["retrieval"][protocol]
        table.add_row(escape(row["label"]), str(len(row["seeds"])), *(number(figures[name]) for name in shown))
    return table


def ratio_page(summary: Mapping[str, Any]) -> str:
    lines = [
        [name, *(number(values[protocol], 2) for protocol in PROTOCOLS), number(values[PAPER_LABEL], 2)]
        for name, values in summary["ratios"].items()
    ]
    return f"## Ratios of Rsum\n\n{markdown_table(['', *PROTOCOLS, PAPER_LABEL], lines)}"


def all_captions_page(summary: Mapping[str, Any]) -> str:
    """
    Return the tables of Rsum over all captions of each clip, by clip length, with paired intervals: of the compared
    split, and of each further gallery.
    """
    note = (
        "Protocol `all-strict`, averaged over all captions of a clip, so that no choice of caption decides a rank. "
        "Brackets enclose the 95 % interval of the difference (paired bootstrap over clips, scores averaged over "
        "common seeds)."
    )
    parts = ["## All captions", note, _by_clip_table(summary, summary["all_captions"])]
    for name, rows in summary["galleries"].items():
        parts += [f"### Gallery {name}", _by_clip_table(summary, rows)]
    return "\n\n".join(parts)


def _by_clip_table(summary: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    header = ["", "seeds", *(f"Rsum, {title}" for title in PARTS.values())]
    header += [f"LexMotion minus this row, {title}" for title in PARTS.values()]
    lines = []
    for name, row in rows.items():
        figures = [number(spread(row["rsum"][part])) if part in row["rsum"] else "" for part in PARTS]
        behind = row["behind"] or {}
        intervals = [interval_text(behind.get(part)) for part in PARTS]
        lines.append([summary["rows"][name]["label"], str(len(row["seeds"])), *figures, *intervals])
    return markdown_table(header, lines)


# ---- curves


def draw_curves(results: Results, folder: Path) -> list[Path]:
    """Plot the selecting metric and the training loss of each trained row by step, as PNG and SVG."""
    paths = []
    for name, of_row in results.items():
        if of_row[0]["curves"]:
            figure = curve_figure(of_row)
            paths += [save_figure(figure, folder / f"{name}{ending}") for ending in (".png", ".svg")]
    return paths


def curve_figure(results: Sequence[Mapping[str, Any]]) -> Any:
    """Return a figure with a panel per training, a line per seed and a dot at the kept checkpoint."""
    trainings = list(results[0]["curves"])
    figure = new_figure(3.4 * len(trainings), 2.6)
    for axes, training in zip(figure.subplots(1, len(trainings), squeeze=False)[0], trainings, strict=True):
        metric = results[0]["trainings"][training]["metric"]
        other = axes.twinx()
        for result in results:
            points = result["curves"][training]
            steps = [point["step"] for point in points]
            other.plot(steps, [point["loss"] for point in points], color=GREY, linewidth=0.9, linestyle="--")
            axes.plot(steps, [point.get(f"eval_{metric}") for point in points], color=BLUE, linewidth=1.2)
            best = result["trainings"][training]["best"]
            if best is not None:
                axes.plot([best["step"]], [best[metric]], "o", color=ORANGE, markersize=4)
        axes.set(title=training, xlabel="step", ylabel=f"{metric}, evaluation split")
        other.set_ylabel("training loss", color=GREY)
        axes.set_zorder(other.get_zorder() + 1)
        axes.patch.set_visible(False)
    return figure
