"""
`lexmotion report figures`: the paper's figures of a trained model on a prepared split, as files and as one page.

    figure1.png, figure4_1.png, ...      and the same as .pdf
    figures.json                         every drawn number
    latency.json                         times of searches, measured once per set of vectors, so that the same input
                                         always yields the same other files
    index.html                           all pictures with their captions, in one file
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm
from transformers import AutoConfig

from lexmotion import LexMotionModel, LexMotionTextModel
from lexmotion.baselines.retriever import RetrieverModel
from lexmotion.common.files import read_json, write_text
from lexmotion.common.pretrained import loading_from
from lexmotion.encoding_lexmotion import usable_threads
from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared
from lexmotion.processing.corpora.text_models import resolve_text_model
from lexmotion.processing.skeletons import part_names

from ..encoding.vectors import EncodedSplit, encode_batches, encode_dataset, has_parts, similarity, split_motions
from ..explain import explain
from ..loading import load_model, name_of, ready_model
from ..metrics.lexical import MASS_CLASSES
from . import clips, kept_words, representations, token_colors, word_importance
from .drawing import facing_front, save_figure
from .page import Picture, Section, figures_page
from .words_over_time import timeline_of

DPI = 300
KINDS = (".png", ".pdf")
UNTOUCHED, AFTER, FINISHED = "untouched text model", "after LexMLM", "after all phases"
TIMELINE_WORDS = 14


@dataclass
class FiguresReport:
    """
    Files and numbers of a report.

    Args:
        page: the HTML page.
        files: files of all pictures.
        figures: every drawn number, as in `figures.json`.
    """

    page: Path
    files: list[Path]
    figures: dict[str, Any]


@dataclass(frozen=True)
class FigureOptions:
    """
    Options of the report.

    Args:
        split: split of the corpus.
        before: untouched text model (folder, Hub name or minilm); if None, the one that the model was built from, if
            its folder still exists.
        lexmlm: folder of phase i; if None, `lexmlm` beside a model folder, if it exists.
        dense_model: folder or Hub name of a trained dense baseline to compare with.
        count: number of motions to show.
        seed: seed of the candidate motions and of the timed queries.
        latency_items: motions in the index that searches are timed in; 0 skips timing.
        batch_size: motions or captions encoded at a time.
    """

    split: str = "test"
    before: str | None = None
    lexmlm: str | None = None
    dense_model: str | None = None
    count: int = 4
    seed: int = 0
    latency_items: int = 100_000
    batch_size: int = 64


def report_figures(
    model: Any,
    dataset: str | Path,
    output_dir: str | Path,
    options: FigureOptions | None = None,
    processor: Any = None,
    progress: bool = False,
) -> FiguresReport:
    """
    Draw the figures of a model, as `lexmotion report figures` does.

    Args:
        model: folder or Hub name of a trained model, or a loaded `LexMotionModel`.
        dataset: folder written by `lexmotion prepare`.
        output_dir: folder of the pictures; files of the same names are replaced.
        options: what to draw; None uses the defaults.
        processor: the model's; None loads the one saved beside it.

    Raises:
        ValueError: if the model is not a `LexMotionModel`, the split is missing or too small, a text model has other
            words, or `dense_model` is not dense.
    """
    options = options or FigureOptions()
    split, model_name = options.split, name_of(model)
    model, processor = ready_model(model, processor)
    if not isinstance(model, LexMotionModel):
        raise ValueError(
            f"model: expected a LexMotionModel, got {type(model).__name__}; pass a baseline with dense_model=..."
        )
    rows = load_prepared(dataset, splits=[split])[split]
    if not 1 <= options.count <= len(rows):
        raise ValueError(f"count: got {options.count}, but {split} has {len(rows)} motions; pass 1 to {len(rows)}")
    towers = _text_towers(model, options, model_name)
    dense = None if options.dense_model is None else _dense_model(options.dense_model)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    prepared = PrepareReport.load(dataset)
    work = _Work(model, processor, rows, folder, options, progress)
    with usable_threads(), tqdm(total=6, desc="figures", disable=not progress) as bar:
        bar.set_postfix_str("encoding")
        encoded = encode_dataset(model, processor, rows, options.batch_size, progress)
        dense_vectors = None if dense is None else encode_dataset(*dense, rows, options.batch_size, progress)
        bar.update()
        sections, figures = [], {}
        for name, draw in (
            ("representations", lambda: work.representations(encoded, dense_vectors, _name(dense))),
            ("tokens", work.tokens),
            ("importance", lambda: work.importance(towers)),
            ("kept_words", lambda: work.kept_words(encoded, dense_vectors, _name(dense))),
            ("words_over_time", work.over_time),
        ):
            bar.set_postfix_str(name.replace("_", " "))
            section, figures[name] = draw()
            sections.append(section)
            bar.update()
    conditions = {
        "data set": f"{prepared.source} ({prepared.layout} layout), fingerprint {prepared.fingerprint[:12]}",
        "split": f"{split}: {len(rows)} motions, {sum(map(len, encoded.all_captions))} captions",
        "model": model_name or type(model).__name__,
        "shown motions": work.rule,
        "queries": "the first caption of each motion",
    }
    numbers = {"conditions": conditions, "clips": work.ids, **figures}
    write_text(folder / "figures.json", json.dumps(numbers, indent=2, sort_keys=True) + "\n")
    page = folder / "index.html"
    write_text(page, figures_page("Figures of a LexMotion model", conditions, sections))
    files = [file for section in sections for picture in section.pictures for file in picture.files]
    return FiguresReport(page, files, numbers)


class _Work:
    """State shared by the figures of one report."""

    def __init__(self, model: Any, processor: Any, rows: Any, folder: Path, options: FigureOptions, progress: bool):
        self.model, self.processor, self.rows, self.folder = model, processor, rows, folder
        self.options, self.progress = options, progress
        self.lexicon, self.extractor = processor.lexicon, processor.feature_extractor
        self.words = [self.lexicon.word(id) for id in range(self.lexicon.vocab_size)]
        self.window_seconds = model.config.motion_config.patch_frames / self.extractor.fps
        self.captions = [list(texts) for texts in rows["captions"]]
        self.choose()

    def choose(self) -> None:
        """Choose the motions to show and prepare their bodies."""
        candidates = clips.drawn_candidates(len(self.rows), self.options.seed)
        self.rule = clips.RULE.format(candidates=len(candidates), seed=self.options.seed)
        steps = range(0, len(self.captions), 256)
        bags = sparse.vstack(
            [sparse.csr_array(self.lexicon.bow_weights(self.captions[start : start + 256])) for start in steps]
        )
        self.chosen = clips.representative(bags, min(self.options.count, len(candidates)), candidates).tolist()
        self.ids = [str(self.rows[row]["id"]) for row in self.chosen]
        self.motions, self.rates = split_motions(self.rows, self.chosen)
        # Frames beyond the model's input are not drawn.
        lengths = [int(self.extractor.max_frames * rate / self.extractor.fps) for rate in self.rates]
        self.bodies = [
            facing_front(motion[:length], self.extractor.skeleton)
            for motion, length in zip(self.motions, lengths, strict=True)
        ]

    def save(self, figure: Any, name: str, caption: str) -> Picture:
        """Write a picture as files of every kind."""
        return Picture([save_figure(figure, self.folder / f"{name}{kind}", DPI) for kind in KINDS], caption)

    def places(self) -> Iterator[tuple[int, int, str]]:
        """Yield number, row and first caption of every motion shown."""
        for number, row in enumerate(self.chosen):
            yield number, row, self.captions[row][0]

    # ------------------------------------------------------------------------------------------------------ figures

    def representations(
        self, encoded: EncodedSplit, dense: EncodedSplit | None, dense_name: str
    ) -> tuple[Section, dict[str, Any]]:
        """Draw figures 1 and 4."""
        own = similarity(encoded)
        section = Section(
            "Figures 1 and 4: a motion and its caption in words",
            "Word weights of held-out motions and their captions. Blue words are in both vectors. The middle column "
            "shows the contribution of each shared word to the cosine: the product of its two weights, divided by the "
            "lengths of the vectors; the products sum to the cosine.",
        )
        panels, numbers = [], []
        for number, row, caption in self.places():
            text, motion = encoded.text_embeds[[row]], encoded.motion_embeds[[row]]
            both = None if dense is None else np.stack([dense.motion_embeds[row], dense.text_embeds[row]])
            panels.append(representations.intensities(caption, text, motion, self.words, both))
            pair = representations.lexical_pair(text, motion, self.words)
            rank = int((encoded_row := own[row]).argsort(kind="stable")[::-1].tolist().index(row)) + 1
            scores = {"score": float(encoded_row[row]), "rank": rank}
            numbers.append({"id": self.ids[number], "caption": caption, **scores, **asdict(pair)})
            body, rate, skeleton = self.bodies[number], self.rates[number], self.extractor.skeleton
            figure = representations.pair_figure(body, caption, pair, rate, skeleton)
            ranked = f"The caption finds its motion at rank {rank} of {len(self.rows)}"
            if has_parts(self.model):
                ranked += f" by the model's own score of {encoded_row[row]:.2f}, which also compares segments of time"
            text = (
                f"Figure 4, motion {self.ids[number]}: the 20 heaviest words of motion and caption, and the shared "
                f"words by their contribution to the cosine. {ranked}."
            )
            section.pictures.append(self.save(figure, f"figure4_{number + 1}", text))
        first = representations.intensity_figure(panels[:3], dense_name)
        shown = "" if dense is None else f" Above each: the same pair in {dense_name}, whose dimensions have no names."
        caption = (
            "Figure 1 (a): motion and caption as rows of colour over the heaviest words of either side, each row "
            f"relative to its heaviest word; bold blue words are shared.{shown}"
        )
        section.pictures.insert(0, self.save(first, "figure1", caption))
        return section, {"pairs": numbers}

    def tokens(self) -> tuple[Section, dict[str, Any]]:
        """Draw figure 3."""
        model, kept = self.model, {}
        moments = token_colors.TokenMoments(model.config.motion_config.hidden_size)

        def add(places: np.ndarray) -> tuple[()]:
            motions, fps = split_motions(self.rows, places)
            values = self.extractor(motions, fps=fps, return_tensors="pt").to(model.device)
            tower = model.get_motion_features(**values)
            states, seen = tower.last_hidden_state.float().cpu().numpy(), tower.token_attention_mask.cpu().numpy()
            windows, parts = tower.grid
            window, part = np.divmod(np.arange(windows * parts), parts)
            for place, own, valid in zip(places.tolist(), states, seen, strict=True):
                moments.add(own[valid], window[valid], part[valid])
                if place in self.chosen:
                    length = int(valid.reshape(windows, parts).any(axis=1).sum())
                    kept[place] = own.reshape(windows, parts, -1)[:length]
            return ()

        encode_batches(model, add, np.zeros(len(self.rows)), self.options.batch_size, "tokens", self.progress)
        pca = moments.fit()
        names = part_names(len(model.config.motion_config.parts))
        explained = f"{100 * pca.explained.sum():.0f} %"
        section = Section(
            "Figure 3: tokens of the motion encoder, over time and body",
            f"Principal components of the encoder's tokens (before the lexical head), fitted on all {pca.tokens:,} "
            f"tokens of the split; the first three explain {explained} of the variance. Of this, "
            f"{100 * pca.between_parts:.0f} % lies between body parts and {100 * pca.between_windows:.0f} % between "
            "time windows counted from the start, the same for every motion; the rest is specific to the motion.",
        )
        for number, row, caption in self.places():
            body, rate, skeleton = self.bodies[number], self.rates[number], self.extractor.skeleton
            figure = token_colors.token_figure(
                body, kept[row], pca, self.window_seconds, names, caption, rate, skeleton
            )
            text = (
                f"Figure 3, motion {self.ids[number]}: each cell is a token, one body part over "
                f"{self.window_seconds:.1f} s. Above: components 1-3 as red, green, blue, from {token_colors.SPREAD} "
                "standard deviations below the split's mean to as many above. Below: the first component alone, for "
                "readers who cannot distinguish these colours."
            )
            section.pictures.append(self.save(figure, f"figure3_{number + 1}", text))
        numbers = {"tokens": pca.tokens, "explained": pca.explained.tolist()}
        return section, numbers | {"between_parts": pca.between_parts, "between_windows": pca.between_windows}

    def importance(self, towers: dict[str, Any]) -> tuple[Section, dict[str, Any]]:
        """Draw figure 5."""
        texts = [text for one in self.captions for text in one]
        models = {}
        for name, tower in towers.items():
            models[name] = _importance(tower, self.processor, texts, self.options.batch_size, name, self.progress)
        missing = "" if UNTOUCHED in models else " The untouched text model was not found: pass it with --before."
        missing += "" if AFTER in models else " The model of phase i was not found: pass it with --lexmlm."
        section = Section(
            "Figure 5: which words are important, before and after LexMLM",
            f"The importance p of every word (softmax of the pooled word scores), summed over all {len(texts)} "
            "captions of the split. Stop words are function words and subjects; an expansion word is a content word "
            f"that the caption does not have.{missing}",
        )
        common = "Importance p summed over all captions of the split"
        for name, draw, text in (
            (
                "figure5_words",
                word_importance.words_figure,
                "Figure 5: the 120 most important words in order of importance; larger means more important. "
                f"{common}; the colour of a word shows the class that most of its importance belongs to.",
            ),
            (
                "figure5_ranked",
                word_importance.ranked_figure,
                f"Figure 5 as numbers: the 30 most important words, and all importance by class. {common}.",
            ),
        ):
            section.pictures.append(self.save(draw(models, self.lexicon), name, text))
        shares = [["importance on", *(word_importance.CLASS_NAMES[kind] for kind in MASS_CLASSES)]]
        for name, one in models.items():
            shares.append([name, *(f"{100 * one.classes[kind]:.1f} %" for kind in MASS_CLASSES)])
        section.tables.append(shares)
        numbers = {
            name: {
                "classes": one.classes,
                "captions": one.captions,
                "words": [
                    {"word": self.words[id], "mass": one.mass[id], "in_caption": one.present[id]}
                    for id in word_importance.ranked(one, 200).tolist()
                ],
            }
            for name, one in models.items()
        }
        return section, numbers

    def kept_words(
        self, encoded: EncodedSplit, dense: EncodedSplit | None, dense_name: str
    ) -> tuple[Section, dict[str, Any]]:
        """Draw figure 10."""
        text, motion = encoded.text_embeds, encoded.motion_embeds
        items, seed = self.options.latency_items, self.options.seed
        times: dict[str, float] = {}
        if items:
            timing = functools.partial(kept_words.lexical_milliseconds, text, motion, items=items, seed=seed)
            jobs: dict[str, Callable[[], float]] = {str(k): functools.partial(timing, k=k) for k in kept_words.KEPT}
            times = self.timed(kept_words.vectors_key(text, motion, items, seed, list(jobs)), jobs)
        rows = kept_words.sweep(text, motion, encoded.ids, encoded.captions, milliseconds=times)
        beside = None
        if dense is not None:
            took = {}
            if items:
                pair = dense.text_embeds, dense.motion_embeds
                job = {"dense": lambda: kept_words.dense_milliseconds(*pair, items, seed=seed)}
                took = self.timed(kept_words.vectors_key(*pair, items, seed), job)
            beside = kept_words.dense_search(
                dense_name, dense.text_embeds, dense.motion_embeds, dense.ids, dense.captions, took.get("dense")
            )
        own = None
        if has_parts(self.model):
            own = kept_words.recalls(similarity(encoded), encoded.ids, encoded.captions)
        gallery = len(encoded.ids)
        section = Section(
            "Figure 10: how many words are worth keeping",
            "Vectors of captions and motions are cut to their k heaviest words and searched by the cosine of words "
            f"(protocol {kept_words.PROTOCOL}, {gallery} queries in {gallery} motions; bands: 95 % of a binomial).",
        )
        caption = (
            f"Figure 10: accuracy and cost against the number of words kept; {kept_words.PROTOCOL}. Postings take "
            f"{kept_words.POSTING_BYTES} bytes each (row and weight)."
        )
        if own is not None:
            caption += " Stars: the model's own score, with segments, of full vectors."
        if times:
            caption += (
                f" Times: median of 50 top-{kept_words.HITS} queries run one by one on one machine, in an index of "
                f"{items:,} motions, which repeats the split with every weight changed by about 10 % (only a large "
                "index runs compiled loops); dense vectors are searched by their product with all motions in NumPy."
            )
        picture = kept_words.kept_figure(rows, gallery, beside, own, items)
        section.pictures.append(self.save(picture, "figure10", caption))
        section.tables.append(_kept_table(rows, beside, own))
        return section, kept_words.to_json(rows, beside, own)

    def timed(self, key: str, jobs: dict[str, Callable[[], float]]) -> dict[str, float]:
        """Return the times of these jobs: those of an earlier run with the same vectors, else measure them now."""
        path = self.folder / "latency.json"
        known = read_json(path) if path.is_file() else {}
        if key not in known:
            bar = tqdm(jobs.items(), desc="latency", disable=not self.progress, leave=False)
            known[key] = {name: job() for name, job in bar}
            write_text(path, json.dumps(known, indent=2, sort_keys=True) + "\n")
        return known[key]

    def over_time(self) -> tuple[Section, dict[str, Any]]:
        """Draw when and where each word was read, and its contribution to the pair's score."""
        section = Section(
            "Words over time",
            "The words that motion and caption share, by their contribution to the cosine, then the motion's heaviest "
            "other words. Colour is the word's score per time window, in the body part named in the cell; the bold "
            "cell is the token that determines the word's weight (the highest score).",
        )
        numbers = []
        for number, _, caption in self.places():
            found = explain(self.model, self.motions[number], caption, self.processor, self.rates[number])
            scores = {"cosine": found.score, "model_score": found.model_score}
            shared = [asdict(word) for word in found.shared]
            numbers.append({"id": self.ids[number], "caption": caption, **scores, "shared": shared})
            if not found.words:
                continue
            body, rate, skeleton = self.bodies[number], self.rates[number], self.extractor.skeleton
            figure = timeline_of(found, body, TIMELINE_WORDS, rate, skeleton)
            score = f"cosine {found.score:.2f}"
            if found.model_score is not None:
                score += f", own score {found.model_score:.2f}"
            caption = f"Motion {self.ids[number]}: its words over time ({score}); blue words are shared."
            section.pictures.append(self.save(figure, f"timeline_{number + 1}", caption))
        return section, {"pairs": numbers}


def _kept_table(
    rows: Sequence[kept_words.Kept], dense: kept_words.Dense | None, own: dict[str, float] | None
) -> list[list[str]]:
    names = ("t2m/R1", "t2m/R10", "m2t/R1", "m2t/R10", "Rsum")
    header = ["words kept", "T2M R@1", "R@10", "M2T R@1", "R@10", "Rsum", "words, motion", "words, caption"]
    table = [[*header, "bytes per motion", "postings per query", "ms per query"]]

    def cell(value: float | None, form: str = ".1f") -> str:
        return "" if value is None else format(value, form)

    for row in rows:
        accuracy = [cell(row.retrieval[name]) for name in names]
        size = [cell(row.motion_words), cell(row.text_words), cell(row.bytes_a_motion, ".0f")]
        label = "all" if row.k is None else str(row.k)
        table.append([label, *accuracy, *size, cell(row.postings, ",.0f"), cell(row.milliseconds, ".2f")])
    if own is not None:
        table.append(["all, model's own score", *(cell(own[name]) for name in names), *[""] * 5])
    if dense is not None:
        row_cells = [f"{dense.name}, {dense.size} numbers", *(cell(dense.retrieval[name]) for name in names), "", ""]
        table.append([*row_cells, cell(dense.bytes_a_motion, ".0f"), "", cell(dense.milliseconds, ".2f")])
    return table


# ------------------------------------------------------------------------------------------------------------- models


def _text_towers(model: LexMotionModel, options: FigureOptions, model_name: str) -> dict[str, LexMotionTextModel]:
    """Return the text models to compare, the earliest first; those not requested and not found are skipped."""
    before, lexmlm = options.before, options.lexmlm
    if before is None:
        remembered = getattr(model.config.text_config.encoder_config, "_name_or_path", "") or ""
        before = remembered if (Path(remembered) / "config.json").is_file() else None
    if lexmlm is None and model_name and (Path(model_name).parent / "lexmlm" / "model" / "config.json").is_file():
        lexmlm = str(Path(model_name).parent / "lexmlm")
    towers = {}
    for name, source in ((UNTOUCHED, before), (AFTER, lexmlm)):
        if source is not None:
            towers[name] = _text_tower(source, model.text_model)
    return towers | {FINISHED: model.text_model}


def _text_tower(name: str, like: LexMotionTextModel) -> LexMotionTextModel:
    """
    Load a text tower with the same words as another.

    Args:
        name: folder or Hub name of a published text model, a phase's folder, or minilm.

    Raises:
        ValueError: if its vocabulary or its active words differ.
    """
    folder = resolve_text_model(name)
    if (Path(folder) / "model" / "config.json").is_file():
        folder = str(Path(folder) / "model")
    active = like.lexical_head.active_ids
    tower: Any
    with loading_from(folder):
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        if kind == "lexmotion":
            tower = LexMotionModel.from_pretrained(folder).text_model
        elif kind == "lexmotion_text":
            tower = LexMotionTextModel.from_pretrained(folder)
        else:
            tower = LexMotionTextModel.from_text_pretrained(folder, active.cpu(), head_kind=like.lexical_head.kind)
    theirs = tower.lexical_head.active_ids.to(active.device)
    if tower.config.vocab_size != like.config.vocab_size or not torch.equal(theirs, active):
        raise ValueError(
            f"{name} has {tower.config.vocab_size} words, {len(theirs)} of them active, the model "
            f"{like.config.vocab_size} and {len(active)}; pass the text model that it was trained from"
        )
    return tower.eval().to(active.device)


def _dense_model(name: str) -> tuple[Any, Any]:
    model, processor = load_model(name, remedy="`lexmotion compare --rows motion_patches` trains one")
    if not isinstance(model, RetrieverModel) or model.config.is_lexical:
        raise ValueError(f"dense model {name}: got a {type(model).__name__} whose vectors are words; pass a baseline")
    return model, processor


def _name(dense: tuple[Any, Any] | None) -> str:
    return "" if dense is None else f"dense {type(dense[0]).__name__.removesuffix('Model')}"


def _importance(
    tower: LexMotionTextModel, processor: Any, texts: Sequence[str], batch_size: int, name: str, progress: bool
) -> word_importance.WordImportance:
    """Sum the importance p = softmax(s) of the words over captions."""
    total = word_importance.ImportanceSum(processor.lexicon)

    def add(places: np.ndarray) -> tuple[()]:
        batch = [texts[place] for place in places]
        tokens = processor(text=batch, return_tensors="pt").to(tower.device)
        scores = tower(tokens["input_ids"], tokens["attention_mask"]).text_scores
        importance = tower.lexical_head.scatter(scores.float().softmax(dim=-1))
        total.add(importance.cpu().numpy(), processor.lexicon.content_ids_of(batch))
        return ()

    encode_batches(tower, add, np.zeros(len(texts)), batch_size, name, progress)
    return total.result()
