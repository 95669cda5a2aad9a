"""The folder of an index: the state given by its manifest, and the lock of its writer."""

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .segments import (
    MANIFEST,
    PROCESSOR,
    SEGMENTS,
    Segment,
    State,
    describe_file,
    open_state,
    read_manifest,
    sweep,
    sync_folder,
    write_manifest,
)

LOCK, WRITER = "writer.lock", "writer.pid"


class IndexBusyError(OSError):
    """Raised if another process is writing the index."""


def check_free(folder: Path) -> None:
    """Raise ValueError if the folder contains an index."""
    if (folder / MANIFEST).exists():
        raise ValueError(
            f"{folder} contains an index; open it with from_pretrained, pass another folder, or overwrite"
        )


class IndexFolder:
    """
    State of an index, in the folder `path` or (None) in memory; `writable` is False for a downloaded index.

    Attributes:
        guard: lock of the state among threads.
        replaced: engine entry of an index that was in the folder, whose rows are to be dropped.
    """

    def __init__(self, path: Path | None, state: State, writable: bool = True):
        self.path, self.state, self.writable = path, state, writable
        self.guard = threading.RLock()
        self.replaced: dict[str, Any] | None = None
        self._lock = None if path is None else FileLock(path / LOCK, thread_local=False)

    def refresh(self) -> bool:
        """Read the changes of another process. Returns whether there were any."""
        if self.path is None:
            return False
        with self.guard:
            before = self.state.checksum
            self.state = open_state(self.path, known=self.state)
            return self.state.checksum != before

    @contextlib.contextmanager
    def writing(self, alone: bool = True) -> Iterator[None]:
        """
        Return the context of a change, exclusive among threads. The first one makes this object the only writer of the
        folder until `release`; `alone=False` leaves that to the engine.

        Raises:
            IndexBusyError: if another process is writing the index, or it was downloaded.
        """
        if not self.writable:
            raise IndexBusyError(f"{self.path} was downloaded and is read-only; make a copy with save_pretrained")
        with self.guard:
            if alone and self.path is not None and self._acquire(self.path):
                with self._released_on_error():
                    self.refresh()
                    sweep(self.path, self.state)
            yield

    @contextlib.contextmanager
    def making(self, overwrite: bool = False) -> Iterator[None]:
        """
        Return the context of creating an index in the folder, as its only writer. Raises ValueError if the folder
        contains an index and `overwrite` is False, IndexBusyError if another process is writing it.
        """
        with self.guard:
            if self.path is not None:
                (self.path / SEGMENTS).mkdir(parents=True, exist_ok=True)
                sync_folder(self.path.parent)
                self._acquire(self.path)
            with self._released_on_error():
                if self.path is not None and overwrite:
                    with contextlib.suppress(FileNotFoundError, ValueError):  # no index, or a damaged one
                        self.replaced = read_manifest(self.path).get("engine")
                elif self.path is not None:
                    check_free(self.path)
                yield

    def _acquire(self, path: Path) -> bool:
        """Lock the folder for writing. Returns False if this object holds the lock already."""
        assert self._lock is not None
        if self._lock.is_locked:
            return False
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            writer = ""
            with contextlib.suppress(OSError):
                writer = f" (process {(path / WRITER).read_text()})"
            raise IndexBusyError(
                f"{path} is being written elsewhere{writer}; close that writer first (reading is always possible)"
            ) from error
        with self._released_on_error():
            (path / WRITER).write_text(f"{os.getpid()} on {socket.gethostname()}")
        return True

    @contextlib.contextmanager
    def _released_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let other processes write."""
        with self.guard:
            if self._lock is not None and self._lock.is_locked:
                self._lock.release()

    def store(self, segments: Iterable[Segment]) -> list[Segment]:
        """Write segments to files that no manifest names yet and return these; in memory, return them unchanged."""
        if self.path is None:
            return list(segments)
        stored = [segment.save(self.path / SEGMENTS) for segment in segments]
        sync_folder(self.path / SEGMENTS)
        return stored

    def store_processor(self, processor: Any) -> None:
        """Write the processor, if given, to a new folder, which the next `commit` names."""
        if self.path is None or processor is None:
            return
        name = PROCESSOR + secrets.token_hex(4)
        processor.save_pretrained(self.path / name)
        files = {path.name: describe_file(path) for path in sorted((self.path / name).iterdir())}
        sync_folder(self.path / name)
        self.state = replace(self.state, processor=name, processor_files=files)

    def commit(self, state: State) -> None:
        """Make a state current, without segments that have no items left, and remove files that it does not need."""
        before = self.state
        alive = tuple(segment for segment in state.segments if segment.alive)
        state = replace(state, segments=alive, generation=before.generation + 1)
        if self.path is None:
            self.state = state
            return
        self.state = write_manifest(self.path, state)
        named = {segment.name for segment in alive}
        for segment in before.segments:
            if segment.name not in named:
                for file in segment.files:
                    with contextlib.suppress(OSError):  # Windows keeps open files; they are swept later
                        (self.path / SEGMENTS / file).unlink()

    def sweep(self) -> None:
        """Remove files that the state does not name."""
        if self.path is not None:
            sweep(self.path, self.state)
