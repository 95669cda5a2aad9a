"""
Put a trained model into the package: `python -m lexmotion.training.ship runs/small/model`.

The model is compacted, compared with the full one on a split of its corpus, and moved to `shipped/weights/NAME` with
its card. Nothing is changed if it has seen a sample motion, is too large, or retrieves differently.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lexmotion import shipped
from lexmotion.common.text import check_encoding, printable
from lexmotion.evaluation.encoding.captions import read_captions
from lexmotion.evaluation.loading import load_model
from lexmotion.evaluation.model_evaluation import evaluate_split
from lexmotion.export.compact import VOCABULARY, compact
from lexmotion.hub_cards.model_card import ModelCard, corpus_folder, load_evaluation
from lexmotion.processing.corpora.prepare import load_prepared
from lexmotion.processing.recordings.reading import load_motion
from lexmotion.shipped.packed import MOST_BYTES

LARGEST = 30_000_000  # bytes of the folder
MOST_DIFFERENT = 1.0  # percentage points of a recall, and percent of Rsum
PROTOCOL, RECALLS = "all-strict", ("R1", "R5", "R10")
LEAST_COMPARED, MOST_COMPARED = 200, 600  # motions; with fewer, one query would exceed the difference
SAME_RECORDING = {"004539": "salsa", "004744": "kick", "010796": "sit"}  # ids cut from the recordings of samples
TERMS = (
    "Motions of the CMU motion capture database (mocap.cs.cmu.edu, funded by NSF EIA-0196217): free for all uses.",
    'Motions of ACCAD: CC BY 3.0, "ACCAD, The Ohio State University".',
    "Captions, ids and crops of HumanML3D: MIT, copyright (c) 2022 Chuan Guo.",
    "Text weights before training: all-MiniLM-L6-v2, Apache-2.0.",
    "The weights of this model: Apache-2.0, with the attributions above.",
)
CORPUS = "CMU and ACCAD motions with HumanML3D's captions"
CORPUS_LICENSE = "motions free for all uses (CMU) and CC BY 3.0 (ACCAD), captions MIT; see Licences below"
SHOWN_WORDS = 8


def ship(
    model: str | os.PathLike,
    name: str = shipped.DEFAULT,
    dataset: str | os.PathLike | None = None,
    split: str | None = None,
    results: Sequence[str | os.PathLike] = (),
    vocabulary: int = VOCABULARY,
    most_bytes: int = MOST_BYTES,
    output_dir: str | os.PathLike | None = None,
    console: Console | None = None,
) -> Path:
    """
    Put a trained model into the package.

    Args:
        model: folder `model` of a finished run of `lexmotion train`.
        name: its name in the package.
        dataset: prepared corpus; None uses that of the training.
        split: split on which the compact model is compared; None: test or validation if large enough, else train.
        results: result files of `lexmotion evaluate` for the card; the corpus of a shipped model has no held-out
            motions but the samples, so these are usually of the same recipe trained without the evaluated split.
        vocabulary, most_bytes: see `compact`.
        output_dir: folder to write; None: that of the package, which must be a checkout.
        console: console to print to; None: standard output.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if the corpus is not found.
        ValueError: if the training contains a sample, the compact model is too large, or it retrieves differently.
    """
    console = console or Console(highlight=False)
    folder = Path(dataset) if dataset is not None else corpus_folder(model)
    if folder is None:
        raise FileNotFoundError(f"{model}: its training corpus was not found; pass it with --dataset")
    corpus = load_prepared(folder)
    check_samples_are_new(corpus["train"]["id"])
    target = shipped.WEIGHTS / name if output_dir is None else Path(output_dir)
    large = [known for known in ("test", "validation") if known in corpus and len(corpus[known]) >= LEAST_COMPARED]
    split = split or [*large, "train"][0]
    rows = corpus[split].select(range(min(len(corpus[split]), MOST_COMPARED)))
    card = ModelCard.collect(model, name, [load_evaluation(file) for file in results])
    loaded, processor = load_model(model, "cpu")
    motions = [load_motion(sample.path) for sample in shipped.samples()]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
        ready = Path(work, target.name)
        report = compact(loaded, processor, ready, vocabulary, read_captions(folder), motions, most_bytes)
        console.print(report.summary())
        small, small_processor = load_model(ready, "cpu")
        full_figures = evaluate_split(loaded, processor, rows, [PROTOCOL])[0]["retrieval"][PROTOCOL]
        figures = evaluate_split(small, small_processor, rows, [PROTOCOL])[0]["retrieval"][PROTOCOL]
        console.print(f"retrieval among {len(rows)} motions of {split}: {compared(full_figures, figures)}")
        check_retrieval(full_figures, figures)
        words = sample_words(small, small_processor, motions)
        for caption, top in words:
            console.print(f"  {caption}: {', '.join(top)}", markup=False)
        command = f"lexmotion compact OUTPUT/model {name} --vocabulary {vocabulary} --captions DIR"
        facts = {**card.facts, "tokens": report.tokens, "megabytes": round(report.size / 1e6, 1)}
        made = replace(
            card,
            corpus=CORPUS,
            corpus_license=CORPUS_LICENSE,
            license="apache-2.0",
            license_name=None,
            license_link=None,
            terms=list(TERMS),
            steps=[command],
            packaged=True,
            facts=facts,
            words=words,
            picture=None,
        )
        made.save(ready)
        (ready / "words.png").unlink(missing_ok=True)
        size = sum(file.stat().st_size for file in ready.iterdir())
        if size > LARGEST:
            raise ValueError(f"{size / 1e6:.1f} MB, at most {LARGEST / 1e6:.0f}; pass a smaller --megabytes")
        if target.exists():
            os.replace(target, Path(work, "earlier"))
        os.replace(ready, target)
    console.print(f"{size / 1e6:.1f} MB in {target}", markup=False, soft_wrap=True)
    return target


def check_samples_are_new(ids: Sequence[str]) -> None:
    """Raise a ValueError if the ids of a training contain a recording of the sample motions, or its mirror image."""
    seen = {str(id).rpartition("/")[2].removeprefix("M").partition(".")[0] for id in ids}
    recordings = {sample.id: sample.name for sample in shipped.samples()} | SAME_RECORDING
    known = [f"{name} ({id})" for id, name in recordings.items() if id in seen]
    if known:
        names = ", ".join(known)
        raise ValueError(f"the training contains recordings of the samples {names}; prepare the corpus without them")


def compared(full: dict[str, Any], small: dict[str, Any]) -> str:
    """Describe the retrieval of the full and of the compact model."""
    pairs = [f"{way} {recall} {full[key]:.1f} -> {small[key]:.1f}" for way, recall, key in _figures()]
    return f"Rsum {full['Rsum']:.1f} -> {small['Rsum']:.1f} ({', '.join(pairs)})"


def check_retrieval(full: dict[str, Any], small: dict[str, Any]) -> None:
    """Raise a ValueError if recalls differ by over a point, or Rsum by over one percent."""
    apart = max(abs(full[key] - small[key]) for _, _, key in _figures())
    share = 100 * abs(full["Rsum"] - small["Rsum"]) / max(full["Rsum"], 1e-9)
    if apart > MOST_DIFFERENT or share > MOST_DIFFERENT:
        raise ValueError(
            f"retrieval differs by up to {apart:.2f} points, and Rsum by {share:.2f} %, at most {MOST_DIFFERENT:g}; "
            "pass a larger --megabytes or --vocabulary"
        )


def _figures() -> list[tuple[str, str, str]]:
    return [(way, recall, f"{way}/{recall}") for way in ("t2m", "m2t") for recall in RECALLS]


def sample_words(model: Any, processor: Any, motions: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """Return the first caption of each sample with the top words of its motion."""
    vectors = model.encode_motion(motions, processor=processor).toarray()
    tops = processor.top_words(vectors, k=SHOWN_WORDS)
    return [
        (sample.captions[0], [word for word, _ in top]) for sample, top in zip(shipped.samples(), tops, strict=True)
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the command; a user's error ends in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m lexmotion.training.ship",
        description="Put a trained model into the package, compact and with its card.",
        epilog="example: python -m lexmotion.training.ship runs/small/model --results results.json",
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="folder `model` of a finished run of `lexmotion train`")
    parser.add_argument("--name", default=shipped.DEFAULT, help="name in the package (default: %(default)s)")
    parser.add_argument("--dataset", help="prepared corpus; default: that of the training")
    parser.add_argument("--split", help="split to compare on; default: test or validation if large enough, else train")
    parser.add_argument("--results", action="append", default=[], help="result file for the card, repeatable")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="tokens to keep (default: %(default)s)")
    parser.add_argument(
        "--megabytes", type=float, default=MOST_BYTES / 1e6, help="size of the weights (default: %(default)g)"
    )
    parser.add_argument("--output-dir", help="folder to write; default: that of the package")
    try:
        check_encoding(argv or [])
        given = parser.parse_args(argv)
        settings = (given.name, given.dataset, given.split, given.results, given.vocabulary)
        ship(given.model, *settings, round(1e6 * given.megabytes), given.output_dir)
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("LEXMOTION_DEBUG"):
            raise
        raise SystemExit(f"error: {printable(str(error))} (LEXMOTION_DEBUG=1 shows the traceback)") from error


if __name__ == "__main__":
    main()
