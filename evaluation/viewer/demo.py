"""The demo without its page: questions about an index, and answers as plain data for a browser.

`lexmotion demo` and the Space (`hub_cards/space/app.py`) serve these answers over HTTP; everything here works, and is
tested, without a browser and without gradio.
"""

import difflib
import functools
import hashlib
import logging
import os
import re
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from lexmotion import shipped
from lexmotion.common.files import write_text
from lexmotion.common.names import is_hub_name
from lexmotion.encoding_lexmotion import check_processor
from lexmotion.index.lexmotion_index import Hit, LexMotionIndex
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.reading import FORMATS, Motion

from ..explain import explain
from ..figures.drawing import facing_front, on_the_floor
from ..loading import load_model, read_motion_for, save_model
from ..search import Answer, captions_of, dataset_items, file_items, search_page
from .motion_sources import FILE, READ, STORED, Clip, DatasetMotions, FileMotions, MotionSource, StoredMotions
from .views import explained_view, page, preview, skeleton_view

logger = logging.getLogger(__name__)

MODEL, INDEX = "model", "motions.index"  # folders of a Space, beside its motions
SUGGESTED_WORDS = 4000
EXAMPLES, EXAMPLE_LENGTHS = 3, (14, 44)  # letters
HITS = 12
UPLOADS, UPLOADS_BYTES = 32, 256 << 20  # uploaded motions kept in memory; the oldest is dropped first
UPLOAD_BYTES = 64 << 20
TOO_LARGE = f"{{name}} is larger than {UPLOAD_BYTES >> 20} MB; upload a shorter motion"
UPLOAD_SECONDS = 120.0
EXPLAINED_WORDS, QUERY_WORDS = 256, 40
KINDS = ("item", "upload")  # of motions that can be viewed
FACTORS = (0.0, 100.0)  # lowest and highest boost


class MalformedError(ValueError):
    """A question of a form that the page never sends."""


@dataclass(frozen=True)
class Question:
    """
    A query with its conditions.

    Args:
        text: description of the motion.
        example: instead of a text, ("item", id) or ("upload", key) to find similar motions.
        must, must_not: words that every hit has, and that no hit has.
        boost: (word, factor) pairs.
    """

    text: str = ""
    example: tuple[str, Any] | None = None
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    boost: tuple[tuple[str, float], ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Question":
        """
        Read JSON in which `example` is {"kind", "id"} and `boost` {word: factor}; MalformedError if a field is of
        another type.
        """
        if not isinstance(content, Mapping):
            raise MalformedError(f"question: expected a JSON object, got {type(content).__name__}")
        text, example = content.get("text") or "", content.get("example")
        lists = {name: content.get(name) or [] for name in ("must", "must_not")}
        boost = content.get("boost") or {}
        if not isinstance(text, str) or len(text) > 1000:
            raise MalformedError("text: expected a sentence of at most 1,000 letters")
        for name, words in lists.items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise MalformedError(f"{name}: expected a list of words, got {words!r}")
        numbers = isinstance(boost, dict) and all(isinstance(factor, int | float) for factor in boost.values())
        if not numbers or not all(FACTORS[0] <= factor <= FACTORS[1] for factor in boost.values()):
            raise MalformedError(f"boost: expected factors from {FACTORS[0]:g} to {FACTORS[1]:g}, got {boost!r}")
        if example is not None:
            if not isinstance(example, dict) or example.get("kind") not in KINDS:
                raise MalformedError(f"example: expected kind {' or '.join(KINDS)}, got {example!r}")
            if not isinstance(example.get("id"), str | int):
                raise MalformedError(f"id of the example: expected a text or a number, got {example.get('id')!r}")
            example = (example["kind"], example["id"])
        return cls(text.strip(), example, tuple(lists["must"]), tuple(lists["must_not"]), tuple(boost.items()))


@dataclass(frozen=True)
class Upload:
    """An uploaded motion: its positions and frame rate, the model's input, and its vector (1, V)."""

    clip: Clip
    model_input: np.ndarray
    vector: sparse.csr_matrix

    @property
    def nbytes(self) -> int:
        """Size in memory, without the vector's few words."""
        return self.clip[0].nbytes + self.model_input.nbytes


class Demo:
    """
    Search with one model and index.

    Args:
        index: an index with a model and its processor.
        sources: where positions of its items are looked up, in this order.
        title: title of the page.

    Raises:
        ValueError: if the index has no items, no model, a processor without lexicon, or another model's vectors.
    """

    def __init__(self, index: LexMotionIndex, sources: Sequence[MotionSource] = (), title: str = "LexMotion"):
        if not len(index):
            raise ValueError("the index is empty; add motions with `lexmotion index add`")
        if index.model is None:
            raise ValueError("the index names no model; pass one: `lexmotion demo MODEL --index INDEX`")
        if getattr(index.processor, "lexicon", None) is None:
            raise ValueError("the index has no processor with a lexicon; build it with processor=...")
        check_processor(index.model.config, index.processor)
        words = index.model.config.motion_config.vocab_size
        if index.vocab_size != words:
            raise ValueError(f"the index has {index.vocab_size} words, its model {words}; pass the index's own model")
        self.index, self.model, self.processor, self.title = index, index.model.eval(), index.processor, title
        self.extractor = self.processor.feature_extractor
        self.files = FileMotions(self.extractor.skeleton, self.extractor.fps)
        self.sources = [self.files, *sources]  # the file an item was made from comes before a source with the same id
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._computing = threading.Lock()  # one query at a time: two would only share the cores
        self._reading = threading.Lock()  # one file at a time, to limit memory
        self._keeping = threading.Lock()  # of the uploads
        self._text_vector = functools.lru_cache(maxsize=512)(self._encode_text)
        self._preview = functools.lru_cache(maxsize=2048)(self._make_preview)
        self._explanation = functools.lru_cache(maxsize=128)(self._explain)

    @functools.cached_property
    def items(self) -> sparse.csr_matrix:
        """Rows of the index, in the order of `rows`."""
        return self.index.to_csr()

    @functools.cached_property
    def rows(self) -> dict[Any, int]:
        """Row of each item, by id."""
        return {id: row for row, id in enumerate(self.index.ids)}

    @functools.cached_property
    def words(self) -> list[str]:
        """Words of the lexicon that items have, most frequent first."""
        lexicon = self.processor.lexicon
        counts = np.bincount(self.items.indices, minlength=self.index.vocab_size)
        ids = np.flatnonzero((counts > 0) & lexicon.displayed)
        return lexicon.words(ids[np.argsort(-counts[ids], kind="stable")].tolist())

    @property
    def skeleton(self) -> dict[str, Any]:
        """Layout of the body, see `skeleton_view`."""
        return skeleton_view(self.extractor.skeleton, len(self.model.config.motion_config.parts))

    # ---------------------------------------------------------------------------------------------------- the page

    def info(self) -> dict[str, Any]:
        """Return what the page needs before any question: words to choose from, examples, the skeleton."""
        return {
            "title": self.title,
            "items": len(self.rows),
            "words": self.words[:SUGGESTED_WORDS],
            "wordCount": len(self.words),
            "examples": self.examples(),
            "skeleton": self.skeleton,
            "formats": list(FORMATS),
        }

    def examples(self, count: int = EXAMPLES) -> list[str]:
        """Return short captions of items far apart, or words of the index if items have no captions."""
        found: dict[str, None] = {}
        ids = list(self.rows)
        for place in np.linspace(0, len(ids) - 1, min(8 * count, len(ids))).round().astype(int):
            for text in captions_of(self.index.metadata(ids[place])):
                if EXAMPLE_LENGTHS[0] <= len(text) <= EXAMPLE_LENGTHS[1]:
                    found.setdefault(text.strip().rstrip("."))
        texts = list(found) or self.words[:count]
        return [texts[place] for place in np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)]

    def page(self) -> str:
        """Return the page as one file; it requests `api/...` from the same address."""
        return page("demo", f"{self.title} · search motion by words", self.info())

    # --------------------------------------------------------------------------------------------------- questions

    def word(self, text: str) -> dict[str, Any]:
        """Check a search word: return `word`, and if the index does not have it, also `error` and `near` words."""
        text = text.strip().lower()
        try:
            self.index.word_ids(text)
        except ValueError as error:
            near = difflib.get_close_matches(text, self.words, n=3, cutoff=0.6)
            return {"word": text, "error": str(error), "near": near}
        return {"word": text}

    def search(self, question: Question, k: int = HITS) -> dict[str, Any]:
        """
        Find the best k items.

        Returns:
            `hits` with `id`, `score`, `title`, `captions`, `words` (word, share of the score) and a `preview`, without
            other metadata, which can contain paths; `query` (its words and weights); `milliseconds` spent in the
            index; `notes` on the text, such as its unknown words.

        Raises:
            ValueError: if the question is empty, or a word or the example is unknown.
        """
        vector = self.vector(question)
        conditions: dict[str, Any] = {"must": question.must, "must_not": question.must_not}
        started = time.perf_counter()
        found = self.index.search(vector, min(max(k, 1), 100), **conditions)[0]
        took = 1000 * (time.perf_counter() - started)
        hits = [
            {
                "id": hit.id,
                "score": round(hit.score, 4),
                "title": next(iter(captions_of(hit.metadata)), str(hit.id)),
                "captions": captions_of(hit.metadata),
                "words": [[word, round(share, 4)] for word, share in hit.words[:8]],
                "preview": self._preview(hit.id),
            }
            for hit in found
        ]
        words = [[word, round(weight, 4)] for word, weight in self.index.words_of(vector, QUERY_WORDS)]
        notes = self.index.notes(question.text) if question.text and question.example is None else []
        return {"hits": hits, "query": words, "milliseconds": round(took, 1), "notes": notes}

    def vector(self, question: Question, query: sparse.csr_matrix | None = None) -> sparse.csr_matrix:
        """
        Return the words and weights to search for, (1, V), boosts included; ValueError as in `search`.

        Args:
            query: vector before boosts, in place of that of the question's text or example.
        """
        wanted = [*question.must, *(word for word, _ in question.boost)]
        for word in (*wanted, *question.must_not):
            self.index.word_ids(word)
        if query is not None:
            vector = query
        elif question.example is not None:
            vector = self._example_vector(*question.example)
        elif question.text:
            vector = self._text_vector(question.text)
        elif wanted:
            ids = sorted({id for word in wanted for id in self.index.word_ids(word)})
            entries = (np.ones(len(ids), np.float32), (np.zeros(len(ids), np.int64), ids))
            vector = sparse.csr_matrix(entries, shape=(1, self.index.vocab_size))
        else:
            raise ValueError("empty question: describe the motion, add a word it must have, or upload a motion")
        if question.boost:
            factors = np.ones(self.index.vocab_size, np.float32)
            for word, factor in question.boost:
                factors[self.index.word_ids(word)] = factor
            vector = sparse.csr_matrix(vector.multiply(factors))
            vector.eliminate_zeros()
        return vector

    def _example_vector(self, kind: str, id: Any) -> sparse.csr_matrix:
        if kind == "upload":
            return self.upload_of(id).vector
        if id not in self.rows:
            raise ValueError(f"no motion {id!r} in this index; use the id of a hit")
        return self.items[self.rows[id]]

    def _encode_text(self, text: str) -> sparse.csr_matrix:
        with self._computing:
            return self.index.encode(text=text)

    # ----------------------------------------------------------------------------------------------------- motions

    def clip(self, id: Any) -> Clip | None:
        """
        Return positions and frame rate of an item, None if no source has it; ValueError if the index has no such item.
        """
        if id not in self.index:
            raise ValueError(f"no motion {id!r} in this index; use the id of a hit")
        metadata = self.index.metadata(id)
        return next((clip for source in self.sources if (clip := source.get(id, metadata)) is not None), None)

    def _make_preview(self, id: Any) -> dict[str, Any] | None:
        clip = self.clip(id)
        return None if clip is None else preview(facing_front(clip[0], self.extractor.skeleton), clip[1])

    def view(self, kind: str, id: Any, question: Question | None = None) -> dict[str, Any]:
        """
        Return a motion with its words, and why it answers a question.

        Args:
            kind, id: ("item", id) or ("upload", key).
            question: if None, only the motion's words.

        Returns:
            See `explained_view`; `score` is the cosine, None without a question.

        Raises:
            MalformedError: if the kind or the type of the id is another one.
            ValueError: if the motion is unknown or its positions are not available.
        """
        if kind not in KINDS:
            raise MalformedError(f"kind: expected {' or '.join(KINDS)}, got {kind!r}")
        if not isinstance(id, str | int):
            raise MalformedError(f"id of the motion: expected a text or a number, got {id!r}")
        query = None if question is None else self.vector(question)
        content = self.explained(kind, id, query)
        if content is None:
            raise ValueError(f"no positions of motion {id!r}; start the demo with --dataset")
        return content | {"kind": kind, "id": id}

    def explained(
        self, kind: str, id: Any, query: sparse.csr_matrix | None = None, hit: Hit | None = None
    ) -> dict[str, Any] | None:
        """
        Return a motion beside a query (1, V), see `view`; None if its positions are not available.

        Args:
            hit: result of a search with this query, if the motion is one; without it, the motion is compared again.
        """
        clip = self.upload_of(id).clip if kind == "upload" else self.clip(id)
        if clip is None:
            return None
        asked: list[tuple[str, float]] = []
        contributions: dict[str, float] = {}
        score = None
        if hit is not None:
            contributions, score = dict(hit.words), hit.score
        elif query is not None:
            own = self._example_vector(kind, id)
            product = query.multiply(own) / max(sparse.linalg.norm(query) * sparse.linalg.norm(own), 1e-9)
            contributions, score = dict(self.index.words_of(product)), float(product.sum())
        if query is not None:
            asked = self.index.words_of(query, QUERY_WORDS)
        explanation = self._explanation(kind, id)
        content = explained_view(
            facing_front(clip[0], self.extractor.skeleton), clip[1], explanation, asked, contributions
        )
        return content | {"score": None if score is None else round(score, 4)}

    def _explain(self, kind: str, id: Any) -> Any:
        if kind == "upload":
            upload = self.upload_of(id)
            motion, fps = upload.model_input, upload.clip[1]
        elif (read := self.files.read(self.index.metadata(id))) is not None:
            motion, fps = read[0].model_input, read[1]
        else:
            motion, fps = self.clip(id)  # type: ignore[misc]
        with self._computing:
            return explain(self.model, motion, processor=self.processor, fps=fps, k=EXPLAINED_WORDS)

    # ----------------------------------------------------------------------------------------------------- uploads

    def upload(self, name: str, content: bytes | bytearray, fps: float | None = None) -> dict[str, Any]:
        """
        Read an uploaded motion file; it is kept only in memory.

        Args:
            name: file name, whose ending determines the format.
            content: bytes of the file.
            fps: frames per second; if None, that of the file, else the model's.

        Returns:
            `key` (the motion's name in questions), `name`, `seconds`, `notes` (warnings of the reader).

        Raises:
            ValueError: if the file cannot be read as a motion of the model's skeleton; the message is one line.
        """
        name = re.sub(r"[^\w .()+-]", "_", re.split(r"[\\/]", name)[-1])[-100:].lstrip(".") or "motion"
        if len(content) > UPLOAD_BYTES:
            raise ValueError(TOO_LARGE.format(name=name))
        with self._reading:
            motion, rate = self._read(name, content, fps)
        frames = max(int(UPLOAD_SECONDS * rate), 1)
        # Copies: a view would keep all of a long motion in memory.
        positions, model_input = motion.positions[:frames].copy(), motion.model_input[:frames].copy()
        with self._computing:
            vector = self.index.encode(motion=model_input, fps=rate)
        notes = [str(problem) for problem in motion.problems if problem.severity == "warning"]
        taken = self.extractor.max_frames / self.extractor.fps
        if len(positions) / rate > taken + 1 / self.extractor.fps:
            notes.append(f"The model reads only the first {taken:.1f} seconds.")
        if len(motion.positions) > frames:
            notes.append(f"Only the first {UPLOAD_SECONDS:g} seconds are shown.")
        identity = hashlib.sha256(content)
        identity.update(f"{name}\0{fps}".encode())
        key = identity.hexdigest()[:24]
        with self._keeping:
            self._uploads[key] = Upload((positions, rate), model_input, vector)
            self._uploads.move_to_end(key)
            kept = sum(upload.nbytes for upload in self._uploads.values())
            while len(self._uploads) > UPLOADS or (kept > UPLOADS_BYTES and len(self._uploads) > 1):
                kept -= self._uploads.popitem(last=False)[1].nbytes
        return {"key": key, "name": name, "seconds": round(len(positions) / rate, 2), "notes": notes}

    def _read(self, name: str, content: bytes | bytearray, fps: float | None) -> tuple[Motion, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                if zipfile.is_zipfile(path):
                    with zipfile.ZipFile(path) as archive:
                        if sum(member.file_size for member in archive.infolist()) > UPLOAD_BYTES:
                            raise ValueError(TOO_LARGE.format(name=f"{name}, unpacked,"))
                return read_motion_for(self.processor, path, ReadingOptions(fps=fps))
            except (ValueError, OSError, ImportError, MemoryError, zipfile.BadZipFile) as error:
                raise ValueError(" ".join(str(error).replace(str(path), name).split())) from error

    def upload_of(self, key: Any) -> Upload:
        """Return an uploaded motion; ValueError if it is no longer kept."""
        with self._keeping:
            if key not in self._uploads:
                raise ValueError("this upload is no longer in memory; upload the file again")
            return self._uploads[key]

    # ------------------------------------------------------------------------------------------------------- saving

    def clips(self, progress: bool = False) -> Iterator[tuple[Any, Clip]]:
        """Yield (id, positions and frame rate) of all items whose motion is available."""
        for id in tqdm(self.rows, desc="motions", disable=not progress, leave=False):
            clip = self.clip(id)
            if clip is not None:
                yield id, (on_the_floor(clip[0], self.extractor.skeleton), clip[1])

    def save_pretrained(self, folder: str | os.PathLike, progress: bool = False) -> int:
        """
        Write model, index and motions to a folder that `open_demo` opens anywhere. Returns the number of motions.
        """
        folder = Path(folder)
        save_model(self.model, self.processor, folder / MODEL)
        # Paths mean nothing on another machine, and file names can be private.
        metadata = [
            {name: value for name, value in self.index.metadata(id).items() if name not in (FILE, READ)}
            for id in self.rows
        ]
        LexMotionIndex.build(
            self.items, metadata, list(self.rows), folder=folder / INDEX, processor=self.processor, overwrite=True
        ).close()
        return StoredMotions.save(folder / STORED, self.clips(progress))


def open_demo(
    source: str | os.PathLike | None = None,
    index: str | os.PathLike | None = None,
    dataset: str | os.PathLike | None = None,
    splits: Sequence[str] | None = None,
    device: str | None = None,
    progress: bool = False,
) -> Demo:
    """
    Open a demo of the available model, index and corpus.

    Args:
        source: output of `lexmotion quickstart` (searches its test motions), a model (folder or Hub name), or a folder
            written by `Demo.save_pretrained`; or a model of the package, which searches the sample motions if neither
            an index nor a dataset is given. If None, the model is the one that the index names, else the package's.
        index: folder or Hub name; if None, motions of the dataset are encoded now.
        dataset: prepared corpus, for positions, and for the index if none is given.
        splits: of the dataset; if None, test if an index is built, else all.
        device: device to compute on; None uses a GPU if available.

    Raises:
        FileNotFoundError: if `source` is not such a folder.
        ValueError: if neither an index nor a dataset is given.
    """
    sources: list[MotionSource] = []
    name: str | None = None if source is None else os.fspath(source)
    if name is None and index is None and dataset is None:
        name = shipped.DEFAULT
    of_package = name is not None and not Path(name).is_dir() and name in (shipped.DEFAULT, *shipped.names())
    if name is not None and Path(name).is_dir():
        folder = Path(name)
        if (folder / STORED).is_file():
            index, sources = index or folder / INDEX, [StoredMotions(folder / STORED)]
        if dataset is None and (folder / "prepared").is_dir():
            dataset = folder / "prepared"
        name = str(folder / MODEL if (folder / MODEL / "config.json").is_file() else folder)
    if index is not None and not sources:
        sources = stored_beside(index)
    if index is None and dataset is None and not of_package:
        if name is not None and not Path(name).is_dir() and not is_hub_name(name):
            raise FileNotFoundError(f"no folder {name!r}; pass the output folder of `lexmotion quickstart`")
        raise ValueError("no motions; pass index='DIR', dataset='DIR' or the output folder of `lexmotion quickstart`")
    if index is None and splits is None:
        splits = ["test"]
    model, processor = load_model(name, device) if name is not None else (None, None)
    if dataset is not None:
        sources.append(DatasetMotions(dataset, splits))
    if index is not None:
        opened = LexMotionIndex.from_pretrained(index, model=model, accelerate=False)
        if model is None:
            if (named := opened.info()["model"]) is None:
                raise ValueError(f"index {index} names no model; pass one: `lexmotion demo MODEL --index {index}`")
            model, _ = load_model(named, device)
            opened = LexMotionIndex.from_pretrained(index, model=model, verify=False, accelerate=False)
        return Demo(opened, sources)
    if model is None:
        raise ValueError("dataset: needs a model to encode its motions; run `lexmotion demo MODEL --dataset DIR`")
    if dataset is None:
        items = file_items(model, processor, [shipped.SAMPLES], progress=progress)
    else:
        items = dataset_items(model, processor, str(dataset), splits, progress)
    made = LexMotionIndex.build(
        items.embeds, items.metadata, items.ids, processor=processor, model=model, accelerate=False
    )
    return Demo(made, sources)


def stored_beside(index: str | os.PathLike) -> list[MotionSource]:
    """Return the motions stored beside an index's folder, if any."""
    file = Path(index).parent / STORED
    return [StoredMotions(file)] if Path(index).is_dir() and file.is_file() else []


def write_search_page(
    path: str | os.PathLike, index: LexMotionIndex, name: str, answer: Answer, dataset: str | os.PathLike | None = None
) -> None:
    """
    Write an answer as a self-contained page, with moving hits if the index has a model to explain them.

    Args:
        name: folder or Hub name of the index.
        dataset: prepared corpus that contains the hits.
    """
    moving: dict[str, Any] = {}
    if answer.hits and index.model is not None and getattr(index.processor, "lexicon", None) is not None:
        shown = Demo(index, [*stored_beside(name), *([DatasetMotions(dataset)] if dataset is not None else [])])
        must, must_not, boost = (answer.conditions[key] for key in ("must", "must_not", "boost"))
        steering = Question(must=tuple(must), must_not=tuple(must_not), boost=tuple(boost.items()))
        vector = shown.vector(steering, answer.vector)
        views = [
            shown.explained("item", hit.id, vector, hit)
            for hit in tqdm(answer.hits, desc="motions explained", disable=None, leave=False)
        ]
        moving = {"views": views, "skeleton": shown.skeleton} if any(views) else {}
    conditions = "; ".join([answer.described(), f"{len(index)} motions in {name}", *answer.notes])
    write_text(path, search_page(answer.title, conditions, answer.words, answer.hits, **moving))
