"""The folder of an index: what its manifest says, and who may change it."""

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
    """Somebody else writes the index."""


def check_free(folder: Path) -> None:
    """
    Refuse a folder that must not be built in.

    Raises:
        ValueError: the folder holds an index.
    """
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} holds an index: open it with from_pretrained, give another folder, or overwrite")


class IndexFolder:
    """
    The state of an index, in a folder or in memory alone.

    Args:
        path: of the folder; None in memory. state: that is in force. writable: False for what was downloaded.

    Attributes:
        guard: of the state, among threads.
        replaced: entry of the engine of an index that was in the folder, whose rows are to be dropped.
    """

    def __init__(self, path: Path | None, state: State, writable: bool = True):
        self.path, self.state, self.writable = path, state, writable
        self.guard = threading.RLock()
        self.replaced: dict[str, Any] | None = None
        self._lock = None if path is None else FileLock(path / LOCK, thread_local=False)

    def refresh(self) -> bool:
        """Read what another process has changed. Returns whether there was anything."""
        if self.path is None:
            return False
        with self.guard:
            before = self.state.checksum
            self.state = open_state(self.path, known=self.state)
            return self.state.checksum != before

    # ------------------------------------------------------------------------------------------------------ one writer

    @contextlib.contextmanager
    def writing(self, alone: bool = True) -> Iterator[None]:
        """
        Around a change, alone among threads. The first one makes this the only writer of the folder, until `release`.

        Args:
            alone: among processes too; False if the engine sees to that.

        Raises:
            IndexBusyError: somebody else writes the index, or it was downloaded.
        """
        if not self.writable:
            raise IndexBusyError(
                f"{self.path} was downloaded and is not changed: save_pretrained(folder) makes an index of your own"
            )
        with self.guard:
            if alone and self.path is not None and self._acquire(self.path):
                with self._released_on_error():
                    self.refresh()
                    sweep(self.path, self.state)
            yield

    @contextlib.contextmanager
    def making(self, overwrite: bool = False) -> Iterator[None]:
        """
        Around the making of an index in the folder, as its only writer.

        Raises:
            ValueError: the folder holds an index, and `overwrite` is False. IndexBusyError: somebody else writes it.
        """
        with self.guard:
            if self.path is not None:
                (self.path / SEGMENTS).mkdir(parents=True, exist_ok=True)
                sync_folder(self.path.parent)
                self._acquire(self.path)
            with self._released_on_error():
                if self.path is not None and overwrite:
                    with contextlib.suppress(FileNotFoundError, ValueError):  # none, or a damaged one
                        self.replaced = read_manifest(self.path).get("engine")
                elif self.path is not None:
                    check_free(self.path)
                yield

    def _acquire(self, path: Path) -> bool:
        """Become the writer of the folder. Returns False for the one who is it already."""
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
                f"{path} is open for writing elsewhere{writer}: an index has one writer at a time; close that one "
                "first. Reading is always possible"
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
        """Let others write."""
        with self.guard:
            if self._lock is not None and self._lock.is_locked:
                self._lock.release()

    # --------------------------------------------------------------------------------------------------------- content

    def store(self, segments: Iterable[Segment]) -> list[Segment]:
        """The segments from files, which no manifest names yet; in memory, as they are."""
        if self.path is None:
            return list(segments)
        stored = [segment.save(self.path / SEGMENTS) for segment in segments]
        sync_folder(self.path / SEGMENTS)
        return stored

    def store_processor(self, processor: Any) -> None:
        """Write the processor, if there is one, to a folder of its own, which the next `commit` names."""
        if self.path is None or processor is None:
            return
        name = PROCESSOR + secrets.token_hex(4)
        processor.save_pretrained(self.path / name)
        files = {path.name: describe_file(path) for path in sorted((self.path / name).iterdir())}
        sync_folder(self.path / name)
        self.state = replace(self.state, processor=name, processor_files=files)

    def commit(self, state: State) -> None:
        """Put a state in force, without segments of which nothing is left, and remove files it does not need."""
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
                    with contextlib.suppress(OSError):  # open elsewhere on a system that minds; swept later
                        (self.path / SEGMENTS / file).unlink()

    def sweep(self) -> None:
        """Remove files that the state does not name."""
        if self.path is not None:
            sweep(self.path, self.state)
