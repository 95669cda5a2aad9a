"""What other processes do to an index in the tests: started by a fork server, so that libraries are loaded once."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection

import numpy as np

from lexmotion.index.lexmotion_index import LexMotionIndex

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lexmotion.index.lexmotion_index", "lexmotion.index.tables", "pymilvus", "psycopg"])


def add_until_killed(folder: str, start: int, pipe: Connection) -> None:
    """Items `start`, `start` + 1, ..., each acknowledged."""
    index = LexMotionIndex.from_pretrained(folder)
    number = start
    while True:
        vector = np.full((1, index.vocab_size), 0.01)
        vector[0, number % index.vocab_size] = 1
        index.add(vector, [{"n": number}], ids=[number])
        pipe.send(number)
        number += 1


def count(folder: str, pipe: Connection) -> None:
    """How many items there are, or the error."""
    try:
        pipe.send(len(LexMotionIndex.from_pretrained(folder)))
    except OSError as error:
        pipe.send(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def started(target, *words) -> Iterator[tuple[Connection, int]]:
    """A process and the end of its pipe; it gets SIGKILL in the end."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=target, args=(*words, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
