"""The folder of an index: the state given by its manifest, and the lock of its writer."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lexmotion.common.files import full_disk_named

from .checks import PLAIN_NAME, damaged
from .segments import (
    ENGINE_ROWS,
    FORMAT,
    MANIFEST,
    PROCESSOR,
    SEGMENTS,
    Segment,
    State,
    describe_file,
    listed_files,
    open_state,
    read_manifest,
    sync_folder,
    write_manifest,
)

LOCK, WRITER, WRITTEN = "writer.lock", "writer.pid", "writer.files"
_OWN_FILE = re.compile(
    rf"{SEGMENTS}/[0-9a-f]+\.(safetensors|jsonl)|{PROCESSOR}[0-9a-f]+(/{PLAIN_NAME.pattern})?|"
    rf"{ENGINE_ROWS}[0-9a-f]+\.db"
)


class IndexBusyError(OSError):
    """Raised if another process is writing the index."""


def check_free(folder: Path, overwrite: bool = False) -> None:
    """
    Check that an index can be built in a folder: it does not exist, is empty or was left by a killed build; with
    `overwrite`, it may contain an index. Raises ValueError otherwise.
    """
    manifest = folder / MANIFEST
    if manifest.is_file() and not manifest.is_symlink():
        with open(manifest, "rb") as file:
            if FORMAT.encode() not in file.read(200):
                raise ValueError(f"{manifest} is not of an index; pass another folder")
        if not overwrite:
            raise ValueError(
                f"{folder} contains an index; open it with from_pretrained, pass another folder, or overwrite"
            )
        return
    own = {LOCK, WRITER, WRITTEN, f"{MANIFEST}.tmp", *_noted_files(folder)}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        inner = sorted(path.iterdir()) if path.name == SEGMENTS and path.is_dir() and not path.is_symlink() else [path]
        for found in inner:
            if found.relative_to(folder).as_posix() not in own:
                raise ValueError(f"{folder} is neither empty nor an index: it contains {found}; pass another folder")


def _noted_files(folder: Path) -> list[str]:
    """Return the files that `IndexFolder.note` listed; names that an index does not give are left out."""
    try:
        names = (folder / WRITTEN).read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [name for name in names if _OWN_FILE.fullmatch(name)]


class IndexFolder:
    """
    State of an index, in the folder `path` or (None) in memory; `writable` is False for a downloaded index.

    Attributes:
        guard: lock of the state among threads.
        replaced: manifest of an index that was in the folder, whose files and rows are to be removed.
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
                    self.sweep()
            yield

    @contextlib.contextmanager
    def making(self, overwrite: bool = False) -> Iterator[None]:
        """
        Return the context of creating an index in the folder, as its only writer. Raises ValueError as `check_free`,
        IndexBusyError if another process is writing it.
        """
        with self.guard:
            if self.path is not None:
                check_free(self.path, overwrite=True)
                (self.path / SEGMENTS).mkdir(parents=True, exist_ok=True)
                sync_folder(self.path.parent)
                self._acquire(self.path)
            with self._released_on_error():
                if self.path is not None:
                    check_free(self.path, overwrite)
                    with contextlib.suppress(FileNotFoundError, ValueError):  # no index, or a damaged one
                        self.replaced = read_manifest(self.path)
                yield

    def _acquire(self, path: Path) -> bool:
        """Lock the folder for writing. Returns False if this object holds the lock already."""
        assert self._lock is not None
        if self._lock.is_locked:
            return False
        for name in (LOCK, WRITER, WRITTEN, SEGMENTS, f"{MANIFEST}.tmp"):
            if (path / name).is_symlink():  # would be written through
                raise damaged(path / name, "a link")
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
        named = {secrets.token_hex(8): segment for segment in segments}
        self.note(f"{SEGMENTS}/{name}.{kind}" for name in named for kind in ("safetensors", "jsonl"))
        try:
            with full_disk_named(self.path):
                stored = [segment.save(self.path / SEGMENTS, name) for name, segment in named.items()]
                sync_folder(self.path / SEGMENTS)
        except BaseException:
            for path in (path for name in named for path in (self.path / SEGMENTS).glob(f"{name}.*")):
                path.unlink(missing_ok=True)
            raise
        return stored

    def store_processor(self, processor: Any) -> None:
        """Write the processor, if given, to a new folder, which the next `commit` names."""
        if self.path is None or processor is None:
            return
        name = PROCESSOR + secrets.token_hex(4)
        self.note([name])
        with full_disk_named(self.path):
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
        named = {segment.name for segment in alive}
        dropped = [
            f"{SEGMENTS}/{file}" for segment in before.segments if segment.name not in named for file in segment.files
        ]
        if dropped:
            self.note(dropped)
        with full_disk_named(self.path):
            self.state = write_manifest(self.path, state)
        for name in dropped:
            with contextlib.suppress(OSError):  # Windows keeps open files; they are swept later
                (self.path / name).unlink()

    def note(self, names: Iterable[str]) -> None:
        """List files that are about to be written or removed, so that `sweep` removes what a killed process leaves."""
        if self.path is not None:
            with full_disk_named(self.path), open(self.path / WRITTEN, "a", encoding="ascii") as file:
                file.writelines(f"{name}\n" for name in names)

    def sweep(self) -> None:
        """
        Remove the noted files, and those of a replaced manifest, that the state does not name: no other file, and none
        behind a link. What the system keeps open is removed next time.
        """
        if self.path is None:
            return
        segments = [{"files": segment.files} for segment in self.state.segments]
        named = {*listed_files({**vars(self.state), "segments": segments})}
        listed = [] if self.replaced is None else listed_files(self.replaced)
        self.replaced, left = None, []
        for name in dict.fromkeys([*listed, *_noted_files(self.path)]):
            path = self.path / name
            if name in named or path.parent.is_symlink():
                continue
            try:
                if not path.is_dir() or path.is_symlink():
                    path.unlink(missing_ok=True)
                elif name in listed and name.startswith(PROCESSOR):
                    with contextlib.suppress(OSError):  # a file of someone else in it stays
                        path.rmdir()
                else:
                    shutil.rmtree(path)
            except OSError:
                left.append(name)
        (self.path / WRITTEN).unlink(missing_ok=True)
        if left:
            self.note(left)
        (self.path / f"{MANIFEST}.tmp").unlink(missing_ok=True)
