"""The page of measured figures (`docs/results.md`), written from results alone: nothing on it is typed by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lexmotion.common.files import write_text

from ..tasks.baseline import SYSTEMS
from . import paper
from .rows import DAGGERS, GROUPS, REFERENCE
from .scoring import PROTOCOLS, WORDS_WANTED
from .tables import (
    PAPER_LABEL,
    Results,
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

PROTOCOL = "all-duplicates"  # of every statement: the paper's rule
COVERAGE_WANTED, UNIVERSAL_WANTED, ORDER_WANTED = 0.4, 0.01, 0.65
ABLATIONS = {
    "phases": "What each phase is worth",
    "head": "Head, sparsity and vocabulary",
    "improvements": "What each improvement is worth",
    "plain": "What the phases are worth without the improvements",
}


def write_report(results: Results, path: Path, command: str) -> None:
    """
    Write the page.

    Args:
        results: as `Comparison.collect` gives them. command: that made them.

    Raises:
        ValueError: there is no result.
    """
    if not any(results.values()):
        raise ValueError("there is no result to report; train a row first")
    summary = summarise(results)
    facts = [result for of_row in results.values() for result in of_row]
    layout = facts[0]["dataset"]["layout"]
    parts = ["# Results", introduction(), conditions(facts), command_part(facts, command)]
    statements = verdicts(results)
    if statements:
        parts.append("## What they show\n\n" + "\n".join(f"* {statement}" for statement in statements))
    strict, duplicates = PROTOCOLS
    same = all(row["retrieval"][strict] == row["retrieval"][duplicates] for row in summary["rows"].values())
    for title, blocks in tables_of(summary, layout):
        if same and title.endswith(duplicates):
            continue
        lines = [line for block in blocks for line in block]
        note = f"\n\n`{duplicates}` gives the same figures: no two captions of the gallery are equal." if same else ""
        parts.append(f"## {title}\n\n{markdown_table(retrieval_header(), lines)}{note}")
    if summary["ratios"]:
        parts.append(ratio_page(summary))
    parts += [ablation(results, group, title) for group, title in ABLATIONS.items()]
    parts += [words(results), costs(results)]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def introduction() -> str:
    return (
        "Written by `lexmotion compare` from the results it measured. All rows share data, text weights, training "
        f"loop and evaluation. Rows marked “{PAPER_LABEL}” are as printed by {paper.SOURCE}, on other data and "
        "under mixed protocols: they say how far the paper's systems are apart, and cannot be compared with a row of "
        "ours."
    )


def conditions(results: Sequence[Mapping[str, Any]]) -> str:
    """Data, protocol, machine, budget and seeds, as the results say."""
    first = results[0]
    data, split = first["dataset"], first["split"]
    lines = [
        f"* **Data**: {data['source']} in the layout {data['layout']}. "
        + "; ".join(
            f"{name}: {counts['motions']:,} motions, {counts['captions']:,} captions ({counts['file']})"
            for name, counts in data["splits"].items()
        )
        + f". Prepared as {data['options']['representation']}, at most {data['options']['max_frames']} frames at "
        f"{data['options']['fps']:g} a second; {data['active_words']:,} active words."
    ]
    shared = data["shared"]
    overlaps = [
        f"{pair} share {counts['base_ids']} motions and {counts['source_clips']} source recordings"
        for pair, counts in shared.items()
    ]
    clean = f"No motion and no source recording of {split} occurs in training"
    named = any({split, "train"} == set(pair.split(" and ")) for pair in shared)
    lines[0] += f" {'; '.join(overlaps).capitalize()}." if overlaps else ""
    lines[0] += "" if named else f" {clean}."
    gallery = first["retrieval"][PROTOCOL]
    lines.append(
        f"* **Protocol**: {gallery['gallery_size']} motions of {split}, the first caption of each, both directions. "
        "`all-strict`: the paired item alone is right, ties averaged; `all-duplicates`: every item with the identical "
        "caption is. Rsum is the sum of the ten recalls. Checkpoints are chosen by Rsum on the evaluation split named "
        "in the recipe, never on the split shown."
    )
    budget = first["budget_minutes"]
    clocks = sorted({result["plan"]["clock"] for result in results if result["plan"] is not None})
    if budget is not None and clocks:
        lines.append(
            f"* **Budget**: {budget:g} minutes of training a row and seed by the {' and '.join(clocks)} clock, "
            "evaluations included: steps were timed once a row, then counted. The last table has the "
            "wall-clock minutes."
        )
    elif any(result["trainings"] for result in results):
        lines.append("* **Budget**: the recipe's steps; minutes taken are in the last table.")
    machines = {describe_machine(result) for result in results}
    versions = {
        ", ".join(f"{name} {result['versions'].get(name)}" for name in ("torch", "transformers")) for result in results
    }
    commits = sorted({str(result["commit"])[:12] for result in results})
    lines.append(f"* **Machine**: {'; '.join(sorted(machines))}. {'; '.join(sorted(versions))}.")
    seeds = sorted({result["seed"] for result in results if result["trainings"]} or {first["seed"]})
    means = (
        "mean and standard deviation over seeds"
        if len(seeds) > 1
        else "one seed: a few points of difference mean nothing"
    )
    lines.append(f"* **Seeds**: {', '.join(map(str, seeds))}; {means}. Code: commit {', '.join(commits)}.")
    return "\n".join(lines)


def describe_machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    devices = {training["device"] for training in result["trainings"].values()}
    if machine.get("gpu") and any(device.startswith("cuda") for device in devices):
        return str(machine["gpu"])
    return f"{machine['threads']} of {machine['cores']} cores of {machine['processor']}"


def command_part(results: Sequence[Mapping[str, Any]], command: str) -> str:
    """The preparation, from its report, and the comparison."""
    options = results[0]["dataset"]["options"]
    words = ["lexmotion prepare", options["source"], "--layout", options["layout"], "--output-dir DIR"]
    for name in (
        "text_model",
        "representation",
        "max_frames",
        "vocabulary_filter",
        "min_document_frequency",
        "mirror",
    ):
        words.append(f"--{name.replace('_', '-')} {options[name]}")
    words += [f"--split {split}={file}" for split, file in options["splits"].items()]
    words += [f"--extra-captions {file}" for file in options["extra_captions"]]
    words += [f"--exclude-ids {file}" for file in options["exclude_ids"]]
    return f"```bash\n{' '.join(map(str, words))}\n{command}\n```"


# ---- statements


def verdicts(results: Results) -> list[str]:
    """What was wanted and whether it was reached, each from the figures."""
    found = []
    for other, name in (("motion_patches", "dense MotionPatches"), ("tmr", "dense TMR")):
        found += _ratio_verdict(results, other, name)
    if {REFERENCE, "ridge"} <= set(results):
        own, floor = (over_seeds(results[name])["retrieval"][PROTOCOL]["Rsum"] for name in (REFERENCE, "ridge"))
        word = "above" if own["mean"] > floor["mean"] else "**not above**"
        found.append(f"LexMotion's Rsum, {number(own)}, is {word} the ridge floor's {number(floor)}.")
    for system in DAGGERS:
        name = SYSTEMS[system].label
        difference = gain(results, f"{system}-lexicon", system, rsum(PROTOCOL))
        if difference is not None:
            word = (
                "below, as the paper finds" if difference["mean"] < 0 else "**not below**, against the paper's finding"
            )
            found.append(
                f"†{name} differs from its dense row by {number(difference, signed=True)} Rsum: {word}"
                f"{_doubt(difference)}."
            )
        random_words = gain(results, f"{system}-untied", f"{system}-lexicon", rsum(PROTOCOL))
        if random_words is not None:
            found.append(
                f"†{name} with random words in place of the text encoder's: {number(random_words, signed=True)} Rsum"
                f"{_doubt(random_words)}."
            )
    for row, alone, which in ((REFERENCE, "iv", ""), ("plain-lexmotion", "plain-iv", " without any improvement")):
        difference = gain(results, row, alone, rsum(PROTOCOL))
        if difference is not None:
            word = "beats" if difference["mean"] > 0 else "**does not beat**"
            found.append(
                f"The full pipeline{which} {word} phase iv alone{which}: {number(difference, signed=True)} Rsum"
                f"{_doubt(difference)}."
            )
    if REFERENCE in results:
        found += _word_verdicts(results[REFERENCE])
    return found


def _ratio_verdict(results: Results, other: str, name: str) -> list[str]:
    if not {REFERENCE, other} <= set(results):
        return []
    own, rival = (spread(rsum(PROTOCOL)(result) for result in results[row]) for row in (REFERENCE, other))
    value, wanted = own["mean"] / rival["mean"], paper.ratio(REFERENCE, other)
    sentence = (
        f"LexMotion's Rsum, {number(own)}, is {value:.2f} times that of {name}, {number(rival)}; the paper's own "
        f"figures, on other data, are {wanted:.2f} times apart: "
    )
    if value >= wanted:
        return [sentence + "reached."]
    return [sentence + f"**missed**, {wanted * rival['mean'] - own['mean']:.1f} Rsum short."]


def _doubt(difference: Mapping[str, Any]) -> str:
    """What a difference is worth against its own spread."""
    if difference["std"] is None:
        return " (one seed)"
    error = difference["std"] / difference["n"] ** 0.5
    return "" if abs(difference["mean"]) > 2 * error else " (within two standard errors of none)"


def _word_verdicts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    row = over_seeds(results)
    lexical = row["lexical"]
    if not lexical:
        return []
    found = []
    for side, things in (("motion", "motions"), ("text", "captions")):
        least, most = WORDS_WANTED[side]
        share = lexical[f"{side}_in_range"]["mean"]
        kept = "all" if share == 1.0 else f"**{share:.1%}**"
        found.append(
            f"{kept} of LexMotion's {things} light {least} to {most} words (mean "
            f"{lexical[f'{side}_active_words']['mean']:.0f}, from {lexical[f'{side}_least_words']['mean']:.0f} to "
            f"{lexical[f'{side}_most_words']['mean']:.0f})."
        )
    coverage, prior = lexical["caption_coverage_top20"], lexical["caption_prior_top20"]
    word = "reached" if coverage["mean"] >= COVERAGE_WANTED else "**missed**"
    found.append(
        f"{number(coverage, scale=100)} % of a caption's content words are in its motion's top 20; naming the most "
        f"frequent words for every motion gives {number(prior, scale=100)} %. At least {COVERAGE_WANTED:.0%} is "
        f"wanted: {word}."
    )
    universal = {side: lexical[f"{side}_universal_share"]["mean"] for side in ("text", "motion")}
    word = "reached" if max(universal.values()) < UNIVERSAL_WANTED else "**missed**"
    found.append(
        f"{universal['text']:.1%} of the words that captions use and {universal['motion']:.1%} of those that motions "
        f"use are lit by over half of the items; under {UNIVERSAL_WANTED:.0%} is wanted: {word}."
    )
    if row["order"]:
        share, habit = row["order"]["share"], row["order"].get("other_motions")
        word = "reached" if share["mean"] >= ORDER_WANTED else "**missed**"
        found.append(
            f"The true caption beats its event-swapped version for {number(share, scale=100)} % of the "
            f"{row['order']['captions']['mean']:.0f} captions with several events ({number(habit, scale=100)} % with "
            f"the motions of others); {ORDER_WANTED:.0%} is wanted: {word}."
        )
    return found


# ---- tables of this page


def ablation(results: Results, group: str, title_of_part: str) -> str:
    """Each row of a group less LexMotion as the recipe has it, over the seeds both have."""
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
            "less LexMotion": number(difference, signed=True),
            "Rsum, words alone": number(alone.get(PROTOCOL)),
            "caption words in the top 20, %": number(lexical.get("caption_coverage_top20"), scale=100),
            "words of a motion": number(lexical.get("motion_active_words"), 0),
            "words of a caption": number(lexical.get("text_active_words"), 0),
            "order test, %": number(order.get("share"), scale=100),
        }.items():
            columns.setdefault(title, []).append(text)
    shown = {title: column for title, column in columns.items() if any(column)}
    lines = list(zip(*shown.values(), strict=True))
    reading = "A negative difference: the row is worse than LexMotion as the recipe has it, by so much."
    return f"## {title_of_part}\n\nProtocol `{PROTOCOL}`. {reading}\n\n{markdown_table(list(shown), lines)}"


WORD_FIGURES = {
    "active_words": ("active words, mean", 0, 1.0),
    "least_words": ("fewest", 0, 1.0),
    "most_words": ("most", 0, 1.0),
    "distinct_words": ("distinct words in use", 0, 1.0),
    "universal_share": ("of these lit by over half of the items, %", 1, 100.0),
}


def words(results: Results) -> str:
    """What the words of the lexical rows say."""
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
        ("caption_prior_top20", "the same of the corpus prior, %"),
        ("coverage_top20", "content words of all captions in the top 20, %"),
        ("overlap_top20", "shared words of caption and motion among 20, %"),
    ):
        lines.append([title, *(number(row["lexical"].get(name), scale=100.0) for row in rows.values())])
    lines.append(["antonym AUC", *(number(row["lexical"].get("antonym_auc"), 2) for row in rows.values())])
    return f"## Words\n\n{markdown_table(header, lines)}"


def costs(results: Results) -> str:
    """Steps, minutes and sizes, and where the kept checkpoints lie: an early best says that the row overfits."""
    lines = []
    for of_row in results.values():
        if not of_row[0]["trainings"]:
            continue
        row = over_seeds(of_row)
        last = list(of_row[0]["trainings"])[-1]
        bests = [result["trainings"][last]["best"] for result in of_row]
        reached = [
            best["step"] / result["trainings"][last]["steps"]
            for best, result in zip(bests, of_row, strict=True)
            if best is not None
        ]
        chosen = [best["rsum"] for best in bests if best is not None and "rsum" in best]
        lines.append(
            [
                row["label"],
                " + ".join(str(steps) for steps in row["steps"].values()),
                number(row["minutes"]),
                f"{row['parameters'] / 1e6:.1f}",
                number(spread(reached), 0, scale=100) if reached else "",
                number(spread(chosen)) if chosen else "",
            ]
        )
    if not lines:
        return ""
    header = [
        "",
        "steps",
        "minutes",
        "million parameters",
        "best checkpoint at, % of the last training",
        "its Rsum, evaluation split",
    ]
    note = "Training curves of every row are in `curves/` of the output folder."
    return f"## What the rows cost\n\n{markdown_table(header, lines)}\n\n{note}"
