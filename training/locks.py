"""Lock of a training's output folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from filelock import FileLock, Timeout

from lexmotion.common.files import remove_leftovers

LOCK = ".lock"


class FolderBusyError(OSError):
    """Raised if another process trains in the folder."""


@contextmanager
def sole_training(folder: str | os.PathLike, cpu: bool = False) -> Iterator[None]:
    """
    Hold the lock of an output folder, which is created if it is missing, and clean it of unfinished files.

    The system releases the lock when the process ends, even if it is killed. Of several processes of one training, the
    main process holds it.

    Args:
        folder: output folder of a run or of one of its tasks.
        cpu: whether the training runs on the CPU.

    Raises:
        FolderBusyError: if another training holds it.
    """
    folder = Path(folder)
    if not PartialState(cpu=cpu).is_main_process:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderBusyError(
            f"{folder}: another process trains in this folder; wait until it ends, or pass another output_dir"
        ) from error
    with lock:
        remove_leftovers(folder)
        yield
