"""The page of measured figures (`docs/results.md`), generated entirely from results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lexmotion.common.files import write_text

from ..tasks.baseline import SYSTEMS
from . import paper
from .rows import GROUPS, LEXICAL_BASELINES, REFERENCE
from .scoring import PROTOCOLS, WORDS_WANTED
from .tables import (
    PAPER_LABEL,
    Results,
    all_captions_page,
    gain,
    markdown_table,
    number,
    over_seeds,
    ratio_page,
    retrieval_header,
    rsum,
    spread,
    summarise,
    tables_of,
)

PROTOCOL = "all-duplicates"  # protocol of every statement, as in the paper
COVERAGE_WANTED, UNIVERSAL_WANTED, ORDER_WANTED = 0.4, 0.01, 0.65
ABLATIONS = {
    "phases": "Effect of each phase",
    "head": "Head, sparsity and vocabulary",
    "improvements": "Effect of each improvement",
    "plain": "Effect of the phases without the improvements",
}


def write_report(results: Results, path: Path, command: str) -> None:
    """
    Write the page.

    Args:
        results: results as returned by `Comparison.collect`.
        command: command line that produced them.

    Raises:
        ValueError: if there is no result.
    """
    if not any(results.values()):
        raise ValueError(f"{path}: 0 results to report; train a row first, see `lexmotion compare --rows`")
    facts = [result for of_row in results.values() for result in of_row]
    layout = facts[0]["dataset"]["layout"]
    summary = summarise(results, layout)
    parts = ["# Results", introduction(), conditions(facts), command_part(facts, command)]
    statements = verdicts(results, layout)
    if statements:
        parts.append("## What they show\n\n" + "\n".join(f"* {statement}" for statement in statements))
    strict, duplicates = PROTOCOLS
    same = all(row["retrieval"][strict] == row["retrieval"][duplicates] for row in summary["rows"].values())
    for title, blocks in tables_of(summary, layout):
        if same and title.endswith(duplicates):
            continue
        lines = [line for block in blocks for line in block]
        note = f"\n\n`{duplicates}` gives the same figures, as all captions of the gallery differ." if same else ""
        parts.append(f"## {title}\n\n{markdown_table(retrieval_header(), lines)}{note}")
    if summary["ratios"]:
        parts.append(ratio_page(summary))
    if summary["all_captions"]:
        parts.append(all_captions_page(summary))
    parts += [ablation(results, group, title) for group, title in ABLATIONS.items()]
    parts += [words(results), costs(results)]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def introduction() -> str:
    return (
        "`lexmotion compare` writes this page from its measured results. All rows share data, text weights, training "
        f"loop and evaluation. Rows marked “{PAPER_LABEL}” are as printed by {paper.SOURCE}. They were measured on "
        "other data under mixed protocols, so they show the differences between the paper's systems but are not "
        "comparable with our rows."
    )


def conditions(results: Sequence[Mapping[str, Any]]) -> str:
    """Describe data, protocol, machine, budget and seeds, as recorded in the results."""
    first = results[0]
    data, split = first["dataset"], first["split"]
    captions = data["options"].get("captions")
    source = f"{data['source']} in the layout {data['layout']}" + (
        f" with the captions of {captions}" if captions else ""
    )
    splits = (
        f"{name}: {counts['motions']:,} motions, {counts['captions']:,} captions ({counts['file']})"
        for name, counts in data["splits"].items()
    )
    lines = [
        f"* **Data**: {source}. {'; '.join(splits)}. Prepared as "
        f"{data['options']['representation']}, at most {data['options']['max_frames']} frames at "
        f"{data['options']['fps']:g} fps; {data['active_words']:,} active words."
    ]
    shared = data["shared"]
    overlaps = [
        f"{pair} share {counts['base_ids']} motions and {counts['source_clips']} source recordings"
        for pair, counts in shared.items()
    ]
    named = any({split, "train"} == set(pair.split(" and ")) for pair in shared)
    lines[0] += f" {'; '.join(overlaps).capitalize()}." if overlaps else ""
    lines[0] += "" if named else f" No motion and no source recording of {split} occurs in training."
    gallery = first["retrieval"][PROTOCOL]
    if first.get("test_dataset"):
        lines.append(scored_on(first["test_dataset"], split))
    lines.append(
        f"* **Protocol**: {gallery['gallery_size']} motions of {split}, the first caption of each, both directions. "
        "`all-strict`: only the paired item is correct, ties are averaged; `all-duplicates`: every item with an "
        "identical caption is correct. Rsum is the sum of the ten recalls. Checkpoints are selected by Rsum on the "
        "evaluation split of the recipe, never on the split shown."
    )
    budget = first["budget_minutes"]
    clocks = sorted({result["plan"]["clock"] for result in results if result["plan"] is not None})
    if budget is not None and clocks:
        lines.append(
            f"* **Budget**: {budget:g} minutes of training per row and seed by the {' and '.join(clocks)} clock, "
            "including evaluations. Each row's steps were timed once to set their number. The last table has the "
            "wall-clock minutes."
        )
    elif any(result["trainings"] for result in results):
        lines.append("* **Budget**: the recipe's steps; the last table has the minutes.")
    machines = {describe_machine(result) for result in results}
    packages = ("torch", "transformers")
    versions = {", ".join(f"{name} {result['versions'].get(name)}" for name in packages) for result in results}
    commits = sorted({str(result["commit"])[:12] for result in results})
    lines.append(f"* **Machine**: {'; '.join(sorted(machines))}. {'; '.join(sorted(versions))}.")
    seeds = sorted({result["seed"] for result in results if result["trainings"]} or {first["seed"]})
    single = "one seed, so differences of a few points mean nothing"
    means = "mean and standard deviation over seeds" if len(seeds) > 1 else single
    lines.append(f"* **Seeds**: {', '.join(map(str, seeds))}; {means}. Code: commit {', '.join(commits)}.")
    return "\n".join(lines)


def scored_on(data: Mapping[str, Any], split: str) -> str:
    """Describe the corpus of `--test-dataset`."""
    counts, captions = data["splits"][split], data["options"].get("captions")
    origin = f"the captions of {captions}" if captions else "its own captions"
    return (
        f"* **Scored on**: {split} of another prepared corpus, {data['source']} in the layout {data['layout']} with "
        f"{origin}: {counts['motions']:,} motions, {counts['captions']:,} captions ({counts['file']})."
    )


def describe_machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    devices = {training["device"] for training in result["trainings"].values()}
    if machine.get("gpu") and any(device.startswith("cuda") for device in devices):
        return str(machine["gpu"])
    return f"{machine['threads']} of {machine['cores']} cores of {machine['processor']}"


def command_part(results: Sequence[Mapping[str, Any]], command: str) -> str:
    """Return the commands of the preparation, from its report, and of the comparison."""
    options = results[0]["dataset"]["options"]
    words = ["lexmotion prepare", options["source"], "--layout", options["layout"], "--output-dir DIR"]
    shown = ("text_model", "representation", "max_frames", "vocabulary_filter", "min_document_frequency", "mirror")
    words += [f"--{name.replace('_', '-')} {options[name]}" for name in shown]
    words += [f"--whole-words {options['whole_words']}"] if options.get("whole_words") else []
    for split, files in options["splits"].items():
        words += [f"--split {split}={file}" for file in ([files] if isinstance(files, str) else files)]
    words += [f"--captions {options['captions']}"] if options.get("captions") else []
    for name in ("leave_out", "overlay", "extra_captions", "extra_motion", "exclude_ids"):
        words += [f"--{name.replace('_', '-')} {file}" for file in options.get(name, ())]
    return f"```bash\n{' '.join(map(str, words))}\n{command}\n```"


# ---- statements


def verdicts(results: Results, layout: str = "humanml3d") -> list[str]:
    """State for each goal whether the figures reach it; the goals are the paper's ratios for this layout."""
    found = []
    for other, name in (("motion_patches", "dense MotionPatches"), ("tmr", "dense TMR")):
        found += _ratio_verdict(results, other, name, layout)
    if {REFERENCE, "ridge"} <= set(results):
        own, floor = (over_seeds(results[name])["retrieval"][PROTOCOL]["Rsum"] for name in (REFERENCE, "ridge"))
        word = "above" if own["mean"] > floor["mean"] else "**not above**"
        found.append(f"The Rsum of LexMotion, {number(own)}, is {word} that of the ridge floor, {number(floor)}.")
    for system in LEXICAL_BASELINES:
        name = SYSTEMS[system].label
        difference = gain(results, f"{system}-lexicon", system, rsum(PROTOCOL))
        if difference is not None:
            word = "below, as in the paper" if difference["mean"] < 0 else "**not below**, unlike in the paper"
            shown = f"{number(difference, signed=True)} Rsum: {word}{_doubt(difference)}."
            found.append(f"†{name} differs from its dense row by {shown}")
        random_words = gain(results, f"{system}-untied", f"{system}-lexicon", rsum(PROTOCOL))
        if random_words is not None:
            shown = f"{number(random_words, signed=True)} Rsum{_doubt(random_words)}."
            found.append(f"Random words instead of the text encoder's change †{name} by {shown}")
    for row, alone, which in ((REFERENCE, "iv", ""), ("plain-lexmotion", "plain-iv", " without any improvement")):
        difference = gain(results, row, alone, rsum(PROTOCOL))
        if difference is not None:
            word = "beats" if difference["mean"] > 0 else "**does not beat**"
            shown = f"{number(difference, signed=True)} Rsum{_doubt(difference)}."
            found.append(f"The full pipeline{which} {word} phase iv alone{which}: {shown}")
    if REFERENCE in results:
        found += _word_verdicts(results[REFERENCE])
    return found


def _ratio_verdict(results: Results, other: str, name: str, layout: str) -> list[str]:
    if not {REFERENCE, other} <= set(results):
        return []
    own, rival = (spread(rsum(PROTOCOL)(result) for result in results[row]) for row in (REFERENCE, other))
    value, wanted = own["mean"] / rival["mean"], paper.ratio(REFERENCE, other, layout)
    sentence = (
        f"The Rsum of LexMotion, {number(own)}, is {value:.2f} times that of {name}, {number(rival)}; the paper's "
        f"ratio, on other data, is {wanted:.2f}: "
    )
    if value >= wanted:
        return [sentence + "reached."]
    return [sentence + f"**missed**, {wanted * rival['mean'] - own['mean']:.1f} Rsum short."]


def _doubt(difference: Mapping[str, Any]) -> str:
    """Return a note if a difference is not significant."""
    if difference["std"] is None:
        return " (one seed)"
    error = difference["std"] / difference["n"] ** 0.5
    return "" if abs(difference["mean"]) > 2 * error else " (within two standard errors of zero)"


def _word_verdicts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    row = over_seeds(results)
    lexical = row["lexical"]
    if not lexical:
        return []
    found = []
    for side, things in (("motion", "motions"), ("text", "captions")):
        least, most = WORDS_WANTED[side]
        share = lexical[f"{side}_in_range"]["mean"]
        kept = f"All {things}" if share == 1.0 else f"**{share:.1%}** of the {things}"
        mean, fewest, largest = (lexical[f"{side}_{name}_words"]["mean"] for name in ("active", "least", "most"))
        found.append(
            f"{kept} have {least} to {most} active words in LexMotion (mean {mean:.0f}, range {fewest:.0f} to "
            f"{largest:.0f})."
        )
    coverage, prior = lexical["caption_coverage_top20"], lexical["caption_prior_top20"]
    word = "reached" if coverage["mean"] >= COVERAGE_WANTED else "**missed**"
    found.append(
        f"The top 20 words of a motion cover {number(coverage, scale=100)} % of its caption's content words, and the "
        f"most frequent words overall cover {number(prior, scale=100)} %. Goal of at least {COVERAGE_WANTED:.0%}: "
        f"{word}."
    )
    universal = {side: lexical[f"{side}_universal_share"]["mean"] for side in ("text", "motion")}
    word = "reached" if max(universal.values()) < UNIVERSAL_WANTED else "**missed**"
    found.append(
        f"{universal['text']:.1%} of the words used by captions and {universal['motion']:.1%} of those used by "
        f"motions are active in over half of the items. Goal of under {UNIVERSAL_WANTED:.0%}: {word}."
    )
    if row["order"]:
        share, habit = row["order"]["share"], row["order"].get("other_motions")
        word = "reached" if share["mean"] >= ORDER_WANTED else "**missed**"
        found.append(
            f"The true caption beats its event-swapped version for {number(share, scale=100)} % of the "
            f"{row['order']['captions']['mean']:.0f} captions with several events ({number(habit, scale=100)} % with "
            f"motions of other captions). Goal of {ORDER_WANTED:.0%}: {word}."
        )
    return found


# ---- tables of this page


def ablation(results: Results, group: str, title_of_part: str) -> str:
    """Return a table of each row of a group minus LexMotion as in the recipe, over their common seeds."""
    names = [name for name in GROUPS[group] if name in results and name != REFERENCE]
    if not names or REFERENCE not in results:
        return ""
    columns: dict[str, list[str]] = {}
    for name in (REFERENCE, *names):
        row = over_seeds(results[name])
        lexical, order, alone = row["lexical"] or {}, row["order"] or {}, row["words_rsum"] or {}
        difference = None if name == REFERENCE else gain(results, name, REFERENCE, rsum(PROTOCOL))
        for title, text in {
            "": row["label"],
            "seeds": str(len(row["seeds"])),
            "Rsum": number(row["retrieval"][PROTOCOL]["Rsum"]),
            "minus LexMotion": number(difference, signed=True),
            "Rsum, words only": number(alone.get(PROTOCOL)),
            "caption words in the top 20, %": number(lexical.get("caption_coverage_top20"), scale=100),
            "words per motion": number(lexical.get("motion_active_words"), 0),
            "words per caption": number(lexical.get("text_active_words"), 0),
            "order test, %": number(order.get("share"), scale=100),
        }.items():
            columns.setdefault(title, []).append(text)
    shown = {title: column for title, column in columns.items() if any(column)}
    lines = list(zip(*shown.values(), strict=True))
    note = f"Protocol `{PROTOCOL}`. Rows with a negative difference are worse than LexMotion as in the recipe."
    return f"## {title_of_part}\n\n{note}\n\n{markdown_table(list(shown), lines)}"


WORD_FIGURES = {
    "active_words": ("active words, mean", 0, 1.0),
    "least_words": ("fewest", 0, 1.0),
    "most_words": ("most", 0, 1.0),
    "distinct_words": ("distinct words in use", 0, 1.0),
    "universal_share": ("of these, active in over half of the items, %", 1, 100.0),
}


def words(results: Results) -> str:
    """Return a table of the word figures of the lexical rows."""
    rows = {name: over_seeds(of_row) for name, of_row in results.items() if name in GROUPS["systems"]}
    rows = {name: row for name, row in rows.items() if row["lexical"]}
    if not rows:
        return ""
    header = ["", *(row["label"] for row in rows.values())]
    lines = []
    for side, things in (("motion", "motions"), ("text", "captions")):
        for name, (title, digits, scale) in WORD_FIGURES.items():
            figures = [number(row["lexical"].get(f"{side}_{name}"), digits, scale=scale) for row in rows.values()]
            lines.append([f"{things}: {title}", *figures])
    for name, title in (
        ("caption_coverage_top20", "content words of the caption in the motion's top 20, %"),
        ("caption_prior_top20", "the same for the corpus prior, %"),
        ("coverage_top20", "content words of all captions in the top 20, %"),
        ("overlap_top20", "shared words of caption and motion among 20, %"),
    ):
        lines.append([title, *(number(row["lexical"].get(name), scale=100.0) for row in rows.values())])
    lines.append(["antonym AUC", *(number(row["lexical"].get("antonym_auc"), 2) for row in rows.values())])
    return f"## Words\n\n{markdown_table(header, lines)}"


def costs(results: Results) -> str:
    """Return a table of steps, minutes, sizes and kept checkpoints; an early best checkpoint indicates overfitting."""
    lines = []
    for of_row in results.values():
        if not of_row[0]["trainings"]:
            continue
        row = over_seeds(of_row)
        last = list(of_row[0]["trainings"])[-1]
        bests = [result["trainings"][last]["best"] for result in of_row]
        steps = [result["trainings"][last]["steps"] for result in of_row]
        reached = [best["step"] / of for best, of in zip(bests, steps, strict=True) if best is not None]
        chosen = [best["rsum"] for best in bests if best is not None and "rsum" in best]
        cost = [" + ".join(map(str, row["steps"].values())), number(row["minutes"]), f"{row['parameters'] / 1e6:.1f}"]
        place = number(spread(reached), 0, scale=100) if reached else ""
        lines.append([row["label"], *cost, place, number(spread(chosen)) if chosen else ""])
    if not lines:
        return ""
    best = ("best checkpoint at, % of the last training", "its Rsum, evaluation split")
    header = ["", "steps", "minutes", "million parameters", *best]
    note = "The training curves of all rows are in `curves/` of the output folder."
    return f"## Cost of the rows\n\n{markdown_table(header, lines)}\n\n{note}"
