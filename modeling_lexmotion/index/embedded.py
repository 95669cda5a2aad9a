"""
The default engine, which keeps the rows as segments in the index's own folder or in memory.

With a folder, a change is on disk when it returns: its files are written first, then the manifest that names them
replaces the previous one. Small segments are merged in the background. Any number of processes can read the folder
while one writes it; each reads the state that it opened until `refresh`.
"""

import contextlib
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from .engine import Books, IndexEngine, Metadata, Query, Ranked, Rows, WordPieces
from .folder import IndexFolder
from .scoring import Scorer
from .segments import BLOCK, Segment, State, id_keys, make_segment, merge_segments

logger = logging.getLogger(__name__)

MERGE_FACTOR = 8  # segments of similar size that are merged into one


class EmbeddedEngine(IndexEngine):
    """`IndexEngine` over the segments of `folder`; `entry["accelerate"]` is the argument of `Scorer`."""

    def __init__(self, entry: Mapping[str, Any], folder: IndexFolder):
        self._folder, self._uri = folder, entry.get("uri")
        self._scorer = Scorer(entry.get("accelerate"))
        self._pending: State | None = None  # committed when the change ends
        self._merging: threading.Thread | None = None

    def check(self) -> None:
        if self._uri is not None:
            raise ValueError(f"uri: got {self._uri!r} without its engine; pass engine='milvus' or engine='postgres'")

    def entry(self) -> dict[str, Any]:
        return {"engine": "embedded"}

    @contextlib.contextmanager
    def creating(self, width: int, id_kind: str | None) -> Iterator[None]:
        with self.change():
            self._pending = replace(self._folder.state)  # committed even if nothing is added
            yield

    def open(self, width: int) -> None:
        """Do nothing: the manifest, which names the rows, has been read."""

    def books(self) -> Books:
        return _books(self._folder.state)

    # ----------------------------------------------------------------------------------------------------- changes

    @contextlib.contextmanager
    def change(self) -> Iterator[Books]:
        with self._folder.writing():
            if self._pending is not None:  # part of another change
                yield _books(self._pending)
                return
            self._pending = before = self._folder.state
            try:
                yield _books(before)
                if self._pending is not before:
                    self._folder.commit(self._pending)
            finally:
                self._pending = None
        self._merge_in_background()

    def _change(self, **changes: Any) -> None:
        assert self._pending is not None
        self._pending = replace(self._pending, **changes)

    def _pending_segments(self) -> list[Segment]:
        assert self._pending is not None
        return list(self._pending.segments)

    def keep(self, books: Books) -> None:
        self._change(id_kind=books.id_kind, next_number=books.next_number)

    def locate(self, ids: Sequence[Any]) -> dict[Any, tuple[int, int]]:
        """Return the index of the segment and the row of each id found."""
        keys, found = id_keys(ids), {}
        for place, segment in enumerate(self.segments()):
            rows = segment.find(ids, keys)
            for number in np.flatnonzero(rows >= 0).tolist():
                found[ids[number]] = place, int(rows[number])
        return found

    def put(self, ids: Any, vectors: sparse.csr_matrix, metadata: Metadata, replaced: Mapping[Any, Any]) -> None:
        made = make_segment(vectors, ids, metadata)
        self.remove(replaced)
        self._change(segments=(*self._pending_segments(), *self._folder.store([made])))

    def remove(self, located: Mapping[Any, Any]) -> None:
        segments, rows_of = self._pending_segments(), defaultdict(list)
        for place, row in located.values():
            rows_of[place].append(row)
        for place, rows in rows_of.items():
            segments[place] = segments[place].without(np.array(rows, np.int32))
        self._change(segments=tuple(segments))

    # ------------------------------------------------------------------------------------------------------ reading

    def metadata(self, id: Any) -> dict[str, Any] | None:
        segments = self.segments()
        for segment in segments:
            row = int(segment.find([id], id_keys([id]))[0])
            if row >= 0:
                return segment.item_metadata(row)
        return None

    def rank(self, queries: Sequence[Query], k: int, must: WordPieces, must_not: WordPieces) -> list[Ranked]:
        # All queries see one state, even if another thread changes the index.
        return self._scorer.rank(self.segments(), queries, k, must, must_not)

    def rows(self, vectors: bool = True, metadata: bool = True) -> Iterator[Rows]:
        for segment in self.segments():
            kept = np.flatnonzero(segment.kept())
            places = kept.tolist()
            yield Rows(
                [segment.id(row) for row in places],
                segment.to_csr()[kept] if vectors else sparse.csr_matrix((len(kept), 0), dtype=np.float32),
                [segment.item_metadata(row) for row in places] if metadata else [],
            )

    def segments(self) -> tuple[Segment, ...]:
        return self._folder.state.segments

    def used(self) -> np.ndarray:
        """Return (V,) bool: words that an item has or, if it was deleted, had."""
        used = np.zeros(self._folder.state.vocab_size, bool)
        for segment in self.segments():
            used |= segment.counts > 0
        return used

    def info(self) -> dict[str, Any]:
        """Return counts of unmerged deleted items, segments, entries and words in use, and sizes in bytes."""
        segments = self.segments()
        entries = sum(segment.entries for segment in segments)
        return {
            "deleted": sum(len(segment.deleted) for segment in segments),
            "segments": len(segments),
            "entries": entries,
            "words_an_item": entries / max(sum(segment.rows for segment in segments), 1),
            "words_in_use": int(self.used().sum()),
            "postings_bytes": 8 * entries,
            "file_bytes": sum(entry["bytes"] for segment in segments for entry in segment.files.values()),
            "generation": self._folder.state.generation,
        }

    # ------------------------------------------------------------------------------------------------------- upkeep

    def optimize(self) -> None:
        """Merge all segments into one without the deleted items, and wait for it."""
        self.wait()
        with self._folder.writing():
            segments = self.segments()
            if len(segments) > 1 or any(len(segment.deleted) for segment in segments):
                self._merge(segments)

    def wait(self) -> None:
        thread = self._merging
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def refresh(self) -> bool:
        return self._folder.refresh()

    def drop(self) -> None:
        with self.change():
            self._change(segments=())

    def close(self) -> None:
        self.wait()

    def _merge_in_background(self) -> None:
        with self._folder.guard:
            if self._merging is None and _to_merge(self.segments()):
                self._merging = threading.Thread(target=self._merge_all, name="lexmotion-merge")
                self._merging.start()

    def _merge_all(self) -> None:
        try:
            while True:
                with self._folder.guard:
                    group = _to_merge(self.segments())
                    if not group:
                        self._merging = None
                        return
                self._merge(group)
        except Exception:
            place = self._folder.path or "memory"
            logger.exception("%s: merging segments failed; no items are lost, and the next `add` tries again", place)
            self._merging = None

    def _merge(self, group: Sequence[Segment]) -> None:
        merged = merge_segments(group)  # segments are immutable, so adding and deleting can go on meanwhile
        (merged,) = self._folder.store([merged])
        with self._folder.guard:
            state = self._folder.state
            now = {id(segment.documents): segment for segment in state.segments}
            base, late = 0, []
            for segment in group:
                numbers = np.cumsum(segment.kept()) - 1 + base
                current = now.get(id(segment.documents))
                gone = np.arange(segment.rows) if current is None else current.deleted
                late.append(numbers[np.setdiff1d(gone, segment.deleted)])
                base += segment.alive
            merged = merged.without(np.concatenate(late))
            old = {id(segment.documents) for segment in group}
            places = [place for place, segment in enumerate(state.segments) if id(segment.documents) in old]
            segments = [segment for segment in state.segments if id(segment.documents) not in old]
            segments.insert(min(places, default=0), merged)
            self._folder.commit(replace(state, segments=tuple(segments)))


def _books(state: State) -> Books:
    return Books(state.id_kind, state.next_number, sum(segment.alive for segment in state.segments))


def _to_merge(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments to merge next: `MERGE_FACTOR` of similar size, or one with over half of its rows deleted."""
    sizes: dict[int, list[Segment]] = {}
    for segment in segments:
        if 2 * len(segment.deleted) > segment.rows:
            return [segment]
        level = int(math.log(max(segment.entries, BLOCK), MERGE_FACTOR))
        sizes.setdefault(level, []).append(segment)
    return next((alike for _, alike in sorted(sizes.items()) if len(alike) >= MERGE_FACTOR), [])
