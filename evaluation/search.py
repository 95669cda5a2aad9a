"""Search in a corpus: its index, and hits as a table and as a page."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape as quoted
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from scipy import sparse
from tqdm.auto import tqdm

from lexmotion.index import EMBEDDED
from lexmotion.index.lexmotion_index import Hit, LexMotionIndex, check_build
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.reading import (
    FORMATS,
    NAMED,
    Motion,
    check_file,
    motions_in,
    options_of_corpus,
    split_key,
)
from lexmotion.shipped import DEFAULT, portable
from lexmotion.views_lexmotion import views_of

from .loading import load_model, load_processor, read_motion_for

logger = logging.getLogger(__name__)

SHOWN_WORDS = 8
MOTION_FORMATS = tuple(ending for ending in FORMATS if ending != ".asf")  # the skeleton of .amc files
FILES_AT_ONCE = 256  # in memory


@dataclass
class CorpusItems:
    """
    Motions to index.

    Args:
        ids, embeds: ids of N motions and their vectors, (N, V) CSR.
        metadata: `split` and `captions` of each motion.
        views: number of views per motion that were encoded.
    """

    ids: list[str]
    embeds: sparse.csr_matrix
    metadata: list[dict[str, Any]] = field(default_factory=list)
    views: int = 1


def encoded_items(folder: str | Path, splits: Sequence[str] | None = None) -> CorpusItems:
    """Read the motions that `lexmotion encode` wrote, of all splits by default."""
    from .encoding.shards import EncodeReport, load_encoded  # here, since a search does without what it imports

    parts, report = [], EncodeReport.load(folder)
    splits = [splits] if isinstance(splits, str) else splits
    for split in splits or dict.fromkeys(shard["split"] for shard in report.shards):
        corpus = load_encoded(folder, [split])
        captions: dict[str, list[str]] = {id: [] for id in corpus.motion_ids}
        for id, caption in zip(corpus.text_ids, corpus.captions, strict=True):
            captions.setdefault(id, []).append(caption)
        metadata = [{"split": split, "captions": captions[id]} for id in corpus.motion_ids]
        parts.append(CorpusItems(corpus.motion_ids, corpus.motion_embeds, metadata))
    items = _joined(parts, report.views)
    if not items.ids:
        raise ValueError(f"{folder} has no vectors of motions; run `lexmotion encode --what motion,text`")
    return items


def dataset_items(
    model: Any,
    processor: Any,
    dataset: str | Path,
    splits: Sequence[str] | None = None,
    progress: bool = False,
    views: int = 1,
) -> CorpusItems:
    """Encode the motions of a prepared corpus."""
    from lexmotion.processing.corpora.prepare import load_prepared

    parts = []
    for split, rows in load_prepared(dataset, splits=splits).items():
        metadata = [{"split": split, "captions": list(captions)} for captions in rows["captions"]]
        embeds = model.encode_motion(rows, processor=processor, progress=progress, views=views)
        parts.append(CorpusItems(list(rows["id"]), embeds, metadata))
    return _joined(parts, views)


def motion_paths(sources: Sequence[str | Path]) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """
    Find motion files, by the ids that they have in an index.

    Args:
        sources: files, whose id is their name, and folders, whose files have their path in the folder as id.

    Returns:
        Id -> path, and id -> captions in the tables `captions.csv` or `captions.jsonl` of the folders.

    Raises:
        FileNotFoundError: if a source does not exist, or a folder contains no motion file.
        ValueError: if two files have the same id, or a table is malformed.
    """
    from lexmotion.processing.corpora.motion_files import CAPTION_FILES, MAPPING_FILES, captions_in

    paths: dict[str, Path] = {}
    captions: dict[str, list[str]] = {}
    for source in map(Path, sources):
        if not source.is_dir():
            check_file(source)
            found = {source.name: source}
        else:
            captions |= captions_in(source)
            files = sorted(path for path in source.rglob("*") if path.suffix.lower() in MOTION_FORMATS)
            tables = {*CAPTION_FILES, *MAPPING_FILES}
            files = [path for path in files if path.is_file() and path.name not in tables]
            found = {path.relative_to(source).as_posix(): path for path in files}
            if not found:
                raise FileNotFoundError(f"{source}: no motion files; expected {', '.join(MOTION_FORMATS)}")
        for name in sorted(found.keys() & paths.keys()):
            raise ValueError(f"two motion files are called {name!r}; pass a folder that contains both")
        paths |= found
    return paths, captions


def _listed(
    sources: Sequence[str | Path], reading: ReadingOptions, skeleton: str
) -> list[tuple[str, Path, list[str], ReadingOptions]]:
    """Return id, path, captions and options of each motion in files and folders, see [`file_items`]."""
    from lexmotion.processing.corpora.motion_files import mapping_in

    folders = [Path(source) for source in sources if Path(source).is_dir()]
    mapping = next((found for folder in folders if (found := mapping_in(folder)) is not None), None)
    named = reading if reading.mapping is not None else replace(reading, mapping=mapping)
    unnamed = replace(reading, mapping=None) if folders else reading  # arrays have no joint names
    paths, captions = motion_paths(sources)
    listed = []
    for options, has_names in ((named, True), (unnamed, False)):
        files = {name: path for name, path in paths.items() if (path.suffix.lower() in NAMED) == has_names}
        parts = [
            (name + part.name.removeprefix(path.name), part, captions.get(name, []))
            for name, path in files.items()
            for part in motions_in(path, options)
        ]
        decided = options_of_corpus([part for _, part, _ in parts], options, skeleton)
        for (name, part, texts), chosen in zip(parts, decided, strict=True):
            listed.append((name, part, captions.get(name, texts), chosen))
    return listed


def file_items(
    model: Any,
    processor: Any,
    sources: Sequence[str | Path],
    reading: ReadingOptions | None = None,
    progress: bool = False,
    views: int = 1,
) -> CorpusItems:
    """
    Read motion files, alone or in folders, and encode them; a warning names those that cannot be read.

    Args:
        sources: see [`motion_paths`]; unit and up axis are inferred from all files together, and a `mapping.json` in a
            folder is used as by `lexmotion prepare --layout files`.
        reading: how to read the files; None uses what they contain.
        views: number of views per motion, see `encode_motion`.

    Raises:
        ValueError: if no file can be read; the message has the reason for the first.
    """
    from .viewer.motion_sources import file_metadata

    extractor = processor.feature_extractor
    listed = _listed(sources, reading or ReadingOptions(), extractor.skeleton)
    ids, metadata, parts, refused = [], [], [], []
    bar = tqdm(total=len(listed), desc="motion files", disable=not progress, leave=False)
    for start in range(0, len(listed), FILES_AT_ONCE):
        motions, rates = [], []
        for name, path, captions, options in listed[start : start + FILES_AT_ONCE]:
            bar.update()
            try:
                motion, rate = read_motion_for(processor, path, options)
                extractor(motion.model_input, fps=rate)  # too short a motion is an error here
            except (ValueError, OSError, ImportError) as error:
                reason = str(error)
                refused.append(reason if str(path) in reason else reason.replace(path.name, str(path), 1))
                logger.warning("left out: %s", refused[-1])
                continue
            for problem in motion.problems:
                if problem.severity == "warning":
                    logger.warning("%s: %s", path, problem)
            motions.append(motion.model_input)
            rates.append(rate)
            ids.append(name)
            metadata.append(file_metadata(path, options) | ({"captions": captions} if captions else {}))
        if motions:
            parts.append(model.encode_motion(motions, fps=rates, processor=processor, views=views))
    bar.close()
    if not parts:
        raise ValueError(f"no motion file can be read; the first: {refused[0]}")
    return CorpusItems(ids, sparse.vstack(parts, format="csr"), metadata, views)


def build_index(
    folder: str | Path,
    *,
    motions: Sequence[str | Path] | str | Path | None = None,
    vectors: str | Path | None = None,
    dataset: str | Path | None = None,
    index: str | Path | None = None,
    model: str | None = None,
    splits: Sequence[str] | None = None,
    engine: str = EMBEDDED,
    uri: str | None = None,
    overwrite: bool = False,
    device: str | None = None,
    views: int | None = None,
    reading: ReadingOptions | None = None,
) -> LexMotionIndex:
    """
    Build an index of motions, with their captions as metadata, from exactly one of four sources.

    Args:
        folder: folder of the index.
        motions: motion files and folders of them, see [`motion_paths`], which are encoded now.
        vectors: output of `lexmotion encode`.
        dataset: prepared corpus, which is encoded now.
        index: another index of any engine, which is copied.
        model: model that encodes queries, and the motions: folder, Hub name or name of a model of the package; None
            uses that of the vectors or of the other index, else the package's `small`.
        splits: of the vectors or the dataset; all if None.
        engine, uri, overwrite: see `LexMotionIndex.build`. Both engine and address are tried before anything is
            encoded.
        device: device to encode on; None uses a GPU if available.
        views: number of views per motion to encode motions or a dataset with, as in `encode_motion`; None: 1. The
            index records it, as it does that of the vectors or of the other index.
        reading: how to read motion files; None uses what they contain.

    Returns:
        The index, open for writing: close it, or use it in a `with` statement.

    Raises:
        ValueError: if not exactly one source is given, no motion can be read, or `LexMotionIndex.build` raises it.
        FileNotFoundError: if a folder does not have the expected content.

    Example:
        >>> with build_index("motions.index", motions="folder_of_bvh") as index:  # doctest: +SKIP
        ...     hits = index.search("a person kicks with the left leg")
    """
    if isinstance(motions, str | os.PathLike):
        motions = [motions]
    if sum(bool(source) for source in (motions, vectors, dataset, index)) != 1:
        raise ValueError("motions to index: pass motion files, or one of vectors=..., dataset=... and index=...")
    if (index or motions) and splits is not None:
        what = "index: all motions of an index are copied" if index else "motions: files have no splits"
        raise ValueError(f"{what}; leave out splits=...")
    if motions:
        motion_paths(motions)
    if dataset is not None and not Path(dataset).is_dir():
        raise FileNotFoundError(f"no dataset {str(dataset)!r}; pass a folder written by `lexmotion prepare`")
    if views is not None and not (dataset or motions):
        raise ValueError(f"views: got {views}, but these motions are encoded already; leave it out")
    views_of(views or 1)
    check_build(engine, uri, folder, overwrite)
    if index is not None:
        with LexMotionIndex.from_pretrained(index) as old:
            info, processor = old.info(), old.processor
            model, items = model or info["model"], CorpusItems(*old.items(), views=info["views"])
    elif vectors is not None:
        from .encoding.shards import EncodeReport

        model = model or EncodeReport.load(vectors).model
        items, processor = encoded_items(vectors, splits), load_processor(model)
    else:
        model = model or DEFAULT
        loaded, processor = load_model(str(model), device)
        if motions:
            items = file_items(loaded, processor, motions, reading, progress=True, views=views or 1)
        else:
            items = dataset_items(loaded, processor, str(dataset), splits, progress=True, views=views or 1)
    if model is not None:
        model = os.path.abspath(model) if Path(model).is_dir() else model
        model = portable(model)
    options: dict[str, Any] = {"folder": folder, "overwrite": overwrite, "engine": engine, "uri": uri}
    options["views"] = items.views
    ids = items.ids or None
    return LexMotionIndex.build(items.embeds, items.metadata, ids, processor=processor, model=model, **options)


def open_index(
    name: str | Path, model: str | None = None, device: str | None = None, uri: str | None = None
) -> LexMotionIndex:
    """
    Open an index together with its model.

    Args:
        name: folder or Hub name.
        model: replaces the model that the index names.
        device: see `load_model`.
        uri: replaces the engine's address that the index names.
    """
    # A single query takes less time than starting numba.
    index = LexMotionIndex.from_pretrained(name, accelerate=False, uri=uri)
    named = model or index.info()["model"]
    if named is None:
        return index
    index.close()
    loaded, processor = load_model(named, device)
    return LexMotionIndex.from_pretrained(
        name, model=loaded, processor=processor if model else None, verify=False, accelerate=False, uri=uri
    )


def add_vectors(
    index: LexMotionIndex, folder: str | Path, splits: Sequence[str] | None = None, replace: bool = False
) -> list[Any]:
    """
    Add the motions that `lexmotion encode` wrote to an index, and return the ids.

    Args:
        folder, splits: see `encoded_items`.
        replace: see `LexMotionIndex.add`.

    Raises:
        ValueError: if they were encoded with another number of views than the items of the index.
    """
    items, views = encoded_items(folder, splits), index.info()["views"]
    if items.views != views:
        raise ValueError(
            f"vectors: {folder} was encoded with {items.views} views per motion, the index with {views}; "
            f"run `lexmotion encode --views {views}` to another folder"
        )
    return index.add(items.embeds, items.metadata, items.ids, replace=replace)


def add_files(
    index: LexMotionIndex,
    files: Sequence[Path],
    motions: Sequence[tuple[Motion, float]],
    replace: bool,
    readings: Sequence[ReadingOptions],
) -> list[Any]:
    """
    Add motion files to an index, encoded by its model, and return the ids.

    Args:
        files: motion files; ids are those of `lexmotion prepare --layout files`, the names (`kick.bvh`,
            `results.npy#3`), unless the index already has the name without its ending (`kick`).
        motions: per file the output of `read_motion_for`.
        replace: see `LexMotionIndex.add`.
        readings: per file how it was read, which is kept as metadata.
    """
    from .viewer.motion_sources import file_metadata

    embeds = index.encode(motion=[motion.model_input for motion, _ in motions], fps=[rate for _, rate in motions])
    metadata = [file_metadata(path, reading) for path, reading in zip(files, readings, strict=True)]
    return index.add(embeds, metadata, [motion_id(path, index) for path in files], replace=replace)


def motion_id(path: Path, index: LexMotionIndex) -> str:
    """Return the id of a motion file in an index, see [`add_files`]."""
    file, key = split_key(path)
    short = file.stem if key is None else f"{file.stem}#{key}"
    has_short = index.id_kind is str and short in index and path.name not in index
    return short if has_short else path.name


@dataclass
class Answer:
    """
    Result of a search.

    Args:
        title: the query as text.
        conditions: `k`, `must`, `must_not` and `boost`, see `LexMotionIndex.search`.
        vector: the query, (1, V) CSR; None if the words of the conditions were the query.
        words: words of the query with their weights, heaviest first.
        hits: best first.
        notes: remarks on the query, such as its unknown words.
    """

    title: str
    conditions: dict[str, Any]
    vector: sparse.csr_matrix | None
    words: list[tuple[str, float]]
    hits: list[Hit]
    notes: list[str] = field(default_factory=list)

    def described(self) -> str:
        """Describe the conditions: `10 best, must have kick, must not have right, left x 2`."""
        parts = [f"{self.conditions['k']} best"]
        parts += [f"must have {word}" for word in self.conditions["must"]]
        parts += [f"must not have {word}" for word in self.conditions["must_not"]]
        return ", ".join([*parts, *(f"{word} x {factor:g}" for word, factor in self.conditions["boost"].items())])

    def to_dict(self) -> dict[str, Any]:
        """Return title, conditions, notes and hits, JSON-safe."""
        return {
            "query": self.title,
            **self.conditions,
            "notes": self.notes,
            "hits": [hit.to_dict() for hit in self.hits],
        }


def ask(
    index: LexMotionIndex,
    text: str | None = None,
    motion: np.ndarray | None = None,
    fps: float | None = None,
    title: str | None = None,
    *,
    k: int = 10,
    must: Sequence[str] = (),
    must_not: Sequence[str] = (),
    boost: Mapping[str, float] | None = None,
) -> Answer:
    """
    Search an index by a text, by a motion, or by words alone.

    Args:
        text: description of the motion.
        motion, fps: an example instead, see `LexMotionIndex.encode`.
        title: title of the search; None uses the text, or the words.
        k, must, must_not, boost: see `LexMotionIndex.search`.
    """
    conditions = {"k": k, "must": list(must), "must_not": list(must_not), "boost": dict(boost or {})}
    if text is None and motion is None:
        hits = index.search(k=k, must=must, must_not=must_not, boost=boost)
        return Answer(title or " ".join(dict.fromkeys([*must, *(boost or {})])), conditions, None, [], hits)
    vector = index.encode(text=text, motion=motion, fps=fps)
    hits = index.search(vector, k, must=must, must_not=must_not, boost=boost)[0]
    notes = [] if text is None else index.notes(text)
    return Answer(title or text or "motion", conditions, vector, index.words_of(vector), hits, notes)


def _joined(parts: Sequence[CorpusItems], views: int) -> CorpusItems:
    return CorpusItems(
        [id for part in parts for id in part.ids],
        sparse.vstack([part.embeds for part in parts], format="csr"),
        [item for part in parts for item in part.metadata],
        views,
    )


def hits_table(hits: Sequence[Hit], title: str) -> Table:
    """Show hits with scores, the words that matched with their contributions, and a caption."""
    table = Table(title=escape(title), title_justify="left")
    for name, justify in (("", "right"), ("id", "left"), ("score", "right"), ("words", "left"), ("caption", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for number, hit in enumerate(hits, 1):
        words = ", ".join(f"[green]{escape(word)}[/] {share:.2f}" for word, share in hit.words[:SHOWN_WORDS])
        table.add_row(str(number), escape(str(hit.id)), f"{hit.score:.3f}", words, escape(summary_of(hit.metadata)))
    return table


def captions_of(metadata: Mapping[str, Any]) -> list[str]:
    """Return the captions of an item, from a list or a single text in its metadata."""
    found = metadata.get("captions") or metadata.get("caption") or ()
    return [found] if isinstance(found, str) else [str(caption) for caption in found]


def summary_of(metadata: dict[str, Any]) -> str:
    """Describe an item in one line: its first caption, else its file, else all metadata."""
    for first in (captions_of(metadata)[:1], [metadata.get("file")]):
        if any(first):
            return str(first[0])
    return ", ".join(f"{name} {value}" for name, value in metadata.items())


def search_page(
    title: str,
    conditions: str,
    query_words: Sequence[tuple[str, float]],
    hits: Sequence[Hit],
    views: Sequence[dict[str, Any] | None] = (),
    skeleton: dict[str, Any] | None = None,
) -> str:
    """
    Return hits as a self-contained HTML page.

    Args:
        title: the query as text.
        conditions: the other conditions, in words.
        query_words: (word, weight) of the query, heaviest first.
        hits: best first.
        views: per hit its motion and words from `explained_view`, or None; with them hits move, and a click on a word
            shows where it was read.
        skeleton: their skeleton, see `skeleton_view`.
    """
    from .viewer.views import page

    articles = []
    for number, hit in enumerate(hits):
        captions = captions_of(hit.metadata) or [summary_of(hit.metadata)]
        lines = "".join(f"<li>{quoted(caption)}</li>" for caption in captions if caption)
        articles.append(
            f'<article class="card" data-hit="{number}"><h2><span class="score">{hit.score:.3f}</span>{number + 1}. '
            f'{quoted(str(hit.id))}</h2><ul class="captions">{lines}</ul><div class="bars">{_bars(hit.words)}</div>'
            "</article>"
        )
    return page(
        "report",
        title,
        {"views": list(views), "skeleton": skeleton},
        conditions=quoted(conditions),
        query=_bars(query_words),
        hits="\n".join(articles) or '<article class="card">No motion was found.</article>',
    )


def _bars(words: Sequence[tuple[str, float]]) -> str:
    widest = max((share for _, share in words), default=1.0)
    return "".join(
        f'<div class="word"><b>{quoted(word)}</b><i style="width:{100 * share / widest:.1f}%"></i>'
        f"<span>{share:.3f}</span></div>\n"
        for word, share in words[: 2 * SHOWN_WORDS]
    )
