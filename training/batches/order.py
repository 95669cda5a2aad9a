"""
The rows and random numbers of a batch, as functions of the step.

Every random choice is drawn for the global batch from a generator seeded by (seed, task, step), and each process takes
its rows. A batch is thus independent of earlier training and of the number of processes, so that resuming is exact and
two processes give the results of one.
"""

import copy
import hashlib

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]  # arguments of a model, by name


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed from printable parts, equal for equal parts on every machine."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BatchRandom:
    """
    Random numbers for the rows of this process, drawn for the global batch.

    Args:
        seed: seed of the generator.
        size: rows of the global batch.
        rank, world: this process takes rows rank, rank + world, ...
        rows: (size,) int64, the global batch itself, if items are mixed with others.
    """

    def __init__(self, seed: int, size: int, rank: int = 0, world: int = 1, rows: Tensor | None = None):
        self.generator = torch.Generator().manual_seed(seed)
        self.size, self.rank, self.world, self.rows = size, rank, world, rows
        self.chosen: Tensor | None = None

    def own(self, whole: Tensor) -> Tensor:
        """Return this process's rows of a tensor of the global batch."""
        rows = whole[self.rank :: self.world]
        return rows if self.chosen is None else rows[self.chosen]

    def only(self, chosen: Tensor) -> "BatchRandom":
        """Return the same for some rows, (rows,) bool, of this process, with a separate generator."""
        part = copy.copy(self)
        part.generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        part.chosen = chosen if self.chosen is None else self.chosen.nonzero().squeeze(1)[chosen]
        return part

    def uniform(self, *shape: int, whole: bool = False) -> Tensor:
        """Draw (rows of this process, *shape) float32 in [0, 1); `whole`: all rows, equal on every process."""
        draws = torch.rand(self.size, *shape, generator=self.generator)
        return draws if whole else self.own(draws)

    def normal(self, *shape: int) -> Tensor:
        """Draw (rows of this process, *shape) float32, standard normal."""
        return self.own(torch.randn(self.size, *shape, generator=self.generator))

    def partners(self) -> Tensor:
        """Draw (rows of this process,) int64 positions of distinct partners in the global batch."""
        shift = 1 + int(torch.rand((), generator=self.generator) * (self.size - 1))
        return self.own((torch.arange(self.size) + shift) % self.size)


class BatchOrder:
    """
    The rows of the n-th global batch: a new permutation per epoch, without the incomplete last batch.

    With `bucket_batches`, the permutation is cut into pools of that many batches. Each pool's rows are sorted by
    length, which saves padding, and cut into batches, which are shuffled.

    Args:
        lengths: (R,) length of each row of the split, in the unit that padding costs.
        batch_size: rows of a global batch, limited to R and rounded down to a multiple of `world`.
        rank, world: index of this process and number of processes.
        bucket_batches: batches per pool; rows are not sorted if below 2.

    Raises:
        ValueError: if a batch has fewer rows than there are processes.
    """

    def __init__(
        self, lengths: Tensor, batch_size: int, seed: int, rank: int = 0, world: int = 1, bucket_batches: int = 0
    ):
        num_rows = len(lengths)
        self.batch_size = min(batch_size, num_rows) // world * world
        if self.batch_size == 0:
            size = min(batch_size, num_rows)
            raise ValueError(f"batch_size: {size} rows for {world} processes; raise it or start fewer processes")
        self.lengths, self.seed, self.rank, self.world = lengths, seed, rank, world
        self.bucket_batches = bucket_batches
        self.batches_per_epoch = num_rows // self.batch_size
        self._epoch, self._batches = -1, torch.empty(0, 0, dtype=torch.int64)

    def batch(self, number: int) -> Tensor:
        """Return the rows of global batch `number` (0-based): (batch_size,) int64."""
        epoch, position = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._epoch_batches(epoch)
        return self._batches[position]

    def rows(self, number: int) -> Tensor:
        """Return the rows of this process: (batch_size / world,) int64."""
        return self.batch(number)[self.rank :: self.world]

    def _epoch_batches(self, epoch: int) -> Tensor:
        """Return the rows of an epoch's batches (batches, batch_size)."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        rows = torch.randperm(len(self.lengths), generator=generator)[: self.batches_per_epoch * self.batch_size]
        batches = rows.view(self.batches_per_epoch, self.batch_size)
        if self.bucket_batches < 2:
            return batches
        pool = torch.arange(self.batches_per_epoch) // self.bucket_batches
        order = np.lexsort((self.lengths[rows].numpy(), pool.repeat_interleave(self.batch_size).numpy()))
        batches = rows[torch.from_numpy(order)].view_as(batches)
        shuffled = (pool + torch.rand(len(pool), generator=generator, dtype=torch.float64)).argsort()
        return batches[shuffled]
