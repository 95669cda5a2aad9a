"""
The implementation of `lexmotion quickstart`: the whole pipeline on a synthetic corpus, in minutes.

```
output_dir/
  corpus/          motions and captions, in the layout of HumanML3D or KIT-ML
  prepared/        Parquet splits and the fitted processor
  run/             the four phases and the run record
  model/           the trained model and its processor
  example.npy      one held-out motion
  words.png        held-out motions and their words in the model
  results.json     all printed figures and more
```
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from transformers import AutoModel, AutoProcessor

from lexmotion import shipped
from lexmotion.common.files import read_json, write_json
from lexmotion.evaluation.console import lexical_table, phase_table, retrieval_table, words_table
from lexmotion.evaluation.criteria import Criterion
from lexmotion.evaluation.encoding.vectors import split_motions
from lexmotion.evaluation.figures.drawing import facing_front
from lexmotion.evaluation.figures.examples import read_words, readme_picture, spread
from lexmotion.evaluation.loading import copy_model, load_model
from lexmotion.evaluation.model_evaluation import evaluate_split, ridge_floor_of_split
from lexmotion.processing.corpora.prepare import load_prepared, prepare
from lexmotion.processing.corpora.synthetic import DEFAULT_NUM_MOTIONS, SKELETON, generate_corpus
from lexmotion.processing.recordings.reading import load_motion
from lexmotion.processing.skeletons import SKELETONS

from .pipeline import train

RECIPE = "tiny"
SHOWN_SAMPLES = ("walk", "jump", "kick", "sit", "pick_up")
SHOWN_MOTIONS, SHOWN_WORDS, DRAWN_MOTIONS = 5, 10, 3


def quickstart(
    output_dir: str | os.PathLike,
    seed: int = 0,
    num_motions: int | dict[str, int] | None = None,
    overrides: dict[str, Any] | None = None,
    console: Console | None = None,
    layout: str = "humanml3d",
) -> dict[str, Any]:
    """
    Generate, prepare, train, evaluate, save, reload and print.

    Args:
        output_dir: see the module's docstring; an unfinished quickstart with the same settings is resumed.
        seed: seed of the corpus and of the training.
        num_motions: size of the corpus, see `generate_corpus`; None: the tested size.
        overrides: changes to the recipe `tiny`, see `lexmotion.training.recipe.apply_overrides`.
        console: console to print to; None: standard output.
        layout: layout of the corpus, `humanml3d` or `kit-ml`, with its joints, features and frame rate.

    Returns:
        The content of `results.json`: `settings`, `phases` (acceptance figures, criteria and seconds), `retrieval` and
        `lexical` figures on the test split, `ridge_floor` (the retrieval that ridge regression reaches there),
        `checks`, `examples`, `seconds`, and the run record's versions and commit.

    Raises:
        FileExistsError: if output_dir contains a quickstart with other settings, or other files.
        ValueError: if the layout is unknown.
    """
    if layout not in SKELETONS:
        raise ValueError(f"layout: got {layout!r}; choose one of {', '.join(SKELETONS)}")
    threads = torch.get_num_threads()
    # Models this small do not benefit from a second thread, and on a busy machine waiting for it costs minutes.
    torch.set_num_threads(1)
    try:
        return _quickstart(Path(output_dir), seed, num_motions, overrides, console or Console(), layout)
    finally:
        torch.set_num_threads(threads)


def _quickstart(
    output_dir: Path,
    seed: int,
    num_motions: int | dict[str, int] | None,
    overrides: dict[str, Any] | None,
    console: Console,
    layout: str,
) -> dict[str, Any]:
    settings: dict[str, Any]
    settings = {"seed": seed, "num_motions": num_motions or DEFAULT_NUM_MOTIONS, "overrides": overrides or {}}
    settings |= {} if layout == SKELETON else {"layout": layout}
    claim(output_dir, settings)
    start = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - start:4.0f} s[/]  {text}", highlight=False)

    say("generating motions and captions")
    corpus = generate_corpus(output_dir / "corpus", settings["num_motions"], seed=seed, progress=True, skeleton=layout)
    say("preparing: features, statistics, lexicon")
    prepared = output_dir / "prepared"
    summary = prepare(corpus, prepared, layout=layout, source_name="synthetic", progress=True).summary()
    console.print(f"[dim]{escape(summary)}[/]", highlight=False)
    say(f"training the recipe {RECIPE} through four phases")
    record = train(
        RECIPE,
        prepared,
        output_dir / "run",
        overrides={"seed": seed, **(overrides or {})},
        on_task=lambda name, result: say(f"{name}: {result['training']['seconds']:.0f} s of training"),
    )
    model_folder = output_dir / "model"
    copy_model(output_dir / "run" / "model", model_folder)

    say("reloading through AutoModel and AutoProcessor, evaluating on held-out motions")
    model = AutoModel.from_pretrained(model_folder, trust_remote_code=False).eval()
    processor = AutoProcessor.from_pretrained(model_folder, trust_remote_code=False)
    splits = load_prepared(prepared, splits=["train", "test"])
    report, encoded = evaluate_split(model, processor, splits["test"], seed=seed)
    report["ridge_floor"], _ = ridge_floor_of_split(processor, splits["train"], splits["test"])
    examples = read_words(processor, encoded, spread(len(encoded.ids), SHOWN_MOTIONS), SHOWN_WORDS)
    drawn, _ = split_motions(splits["test"], [encoded.ids.index(example["id"]) for example in examples])
    np.save(output_dir / "example.npy", drawn[0])
    pictures = [
        {
            "positions": facing_front(positions, layout),
            "skeleton": layout,
            "caption": one["caption"],
            "words": one["words"],
            "highlight": one["shared"],
        }
        for positions, one in zip(drawn[:DRAWN_MOTIONS], examples, strict=False)
    ]
    readme_picture(pictures, output_dir / "words.png")
    phases = {
        name: {"seconds": phase["training"]["seconds"], **{part: phase[part] for part in ("acceptance", "criteria")}}
        for name, phase in record["phases"].items()
    }
    checks = promises(record, report)
    results = {
        "settings": settings,
        "phases": phases,
        "split": "test",
        **report,
        "checks": [check.to_dict() for check in checks],
        "examples": examples,
        "seconds": round(time.perf_counter() - start, 1),
        **{name: record[name] for name in ("versions", "commit", "dataset")},
    }
    write_json(output_dir / "results.json", results)

    console.print(phase_table(record["phases"].values(), "Phases"))
    title = f"Retrieval, {len(encoded.ids)} held-out motions"
    console.print(retrieval_table(report["retrieval"], title, report["ridge_floor"]))
    console.print(lexical_table(report["lexical"]))
    captions, words = ([example[name] for example in examples] for name in ("caption", "words"))
    shared = [set(example["shared"]) for example in examples]
    console.print(words_table(captions, words, shared, "Words of held-out motions"))
    for check in checks:
        console.print(f"{'[green]ok[/]' if check.met else '[red]no[/]'}  {escape(check.text)}", highlight=False)
    say(f"done; everything is in {escape(str(output_dir))}, the figures in results.json")
    read_samples(console)
    return results


def read_samples(console: Console) -> None:
    """Print the words that the model of the package reads in its sample motions, or that there are no weights."""
    if shipped.DEFAULT not in shipped.names():
        console.print("This installation has no trained weights, so the sample motions are not read.", style="dim")
        return
    model, processor = load_model(shipped.DEFAULT, "cpu")
    chosen = [sample for sample in shipped.samples() if sample.name in SHOWN_SAMPLES]
    vectors = model.encode_motion([load_motion(sample.path) for sample in chosen], processor=processor)
    words = processor.top_words(vectors.toarray(), k=SHOWN_WORDS)
    lexicon, captions = processor.lexicon, [sample.captions[0] for sample in chosen]
    shared = [{lexicon.word(word) for word in lexicon.ids(caption)} for caption in captions]
    title = f"Words that the model {shipped.DEFAULT!r} of the package reads in recordings it has never seen"
    console.print(words_table(captions, words, shared, title))


def claim(output_dir: Path, settings: dict[str, Any]) -> None:
    """Reserve `output_dir` for a quickstart with these settings, new or resumed."""
    path = output_dir / "settings.json"
    if path.is_file():
        found = read_json(path)
        if found != json.loads(json.dumps(settings)):
            other = f"contains a quickstart with {found}, not {settings}"
            raise FileExistsError(f"{output_dir}: {other}; delete it or pass another output_dir=...")
        return
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"{output_dir}: not empty and not a quickstart folder; pass another output_dir=...")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def promises(record: dict[str, Any], report: dict[str, Any]) -> list[Criterion]:
    """Return the criteria of the quickstart as a whole."""
    criteria = [criterion for result in record["phases"].values() for criterion in result["criteria"]]
    met = sum(criterion["met"] for criterion in criteria)
    strict = report["retrieval"]["all-strict"]
    chance = 100.0 / strict["gallery_size"]
    times = strict["t2m/R1"] / chance
    coverage = report["lexical"]["caption_coverage_top10"]
    recall = f"R@1 {strict['t2m/R1']:.1f} among {strict['gallery_size']} motions"
    words = f"{coverage:.0%} of its caption's content words"
    own, floor = strict["Rsum"], report["ridge_floor"]["all-strict"]["Rsum"]
    verdict = "above" if own > floor else "not above"
    return [
        Criterion(f"{met} of {len(criteria)} acceptance criteria met", met, len(criteria), met == len(criteria)),
        Criterion(f"text-to-motion {recall}: {times:.0f} times chance (goal: 20)", times, 20.0, times >= 20.0),
        Criterion(f"the top 10 words of a motion cover {words} (goal: over half)", coverage, 0.5, coverage > 0.5),
        Criterion(
            f"Rsum {own:.1f} is {verdict} {floor:.1f}, that of ridge regression without a network (ridge floor)",
            own,
            floor,
            own > floor,
        ),
    ]
