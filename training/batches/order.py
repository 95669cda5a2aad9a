"""
Which rows make a batch, and the random numbers it is made with, as functions of the step.

Every random choice is drawn for the whole global batch from a generator seeded by (seed, task, step), and each
process takes its rows. So a batch does not depend on what was trained before it, nor on how many processes share it:
that is what makes resuming exact and two processes equal to one.
"""

import copy
import hashlib

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable; equal parts, equal seed, on every machine."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BatchRandom:
    """
    Uniform numbers for one global batch, of which this process sees its rows.

    Args:
        seed: of the generator.
        size: rows of the global batch.
        rank, world: this process takes rows rank, rank + world, ...
        rows: (size,) int64, the global batch itself, where an item is made from others too.
    """

    def __init__(self, seed: int, size: int, rank: int = 0, world: int = 1, rows: torch.Tensor | None = None):
        self.generator = torch.Generator().manual_seed(seed)
        self.size, self.rank, self.world, self.rows = size, rank, world, rows
        self.chosen: torch.Tensor | None = None

    def own(self, whole: torch.Tensor) -> torch.Tensor:
        """The rows of this process of a tensor of the global batch."""
        rows = whole[self.rank :: self.world]
        return rows if self.chosen is None else rows[self.chosen]

    def only(self, chosen: torch.Tensor) -> "BatchRandom":
        """
        The same for some rows of this process, (rows,) bool.

        It has a generator of its own: how much is drawn from it, if anything, changes nothing here.
        """
        part = copy.copy(self)
        part.generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        part.chosen = chosen if self.chosen is None else self.chosen.nonzero().squeeze(1)[chosen]
        return part

    def uniform(self, *shape: int, whole: bool = False) -> torch.Tensor:
        """(rows of this process, *shape) float32 in [0, 1); `whole`: all rows, the same on every process."""
        draws = torch.rand(self.size, *shape, generator=self.generator)
        return draws if whole else self.own(draws)

    def normal(self, *shape: int) -> torch.Tensor:
        """(rows of this process, *shape) float32, standard normal."""
        return self.own(torch.randn(self.size, *shape, generator=self.generator))

    def partners(self) -> torch.Tensor:
        """(rows of this process,) int64 place in the global batch of another item; no two have the same partner."""
        shift = 1 + int(torch.rand((), generator=self.generator) * (self.size - 1))
        return self.own((torch.arange(self.size) + shift) % self.size)


class BatchOrder:
    """
    Which rows make the n-th global batch: a new permutation each epoch, the incomplete last batch dropped.

    With `bucket_batches` the permutation is cut into pools of so many batches; a pool's rows are sorted by length and
    cut into batches, which come in random order. Rows of like length need little padding, and what a pool holds, as
    well as the order among rows of equal length, still is the permutation's.

    Args:
        lengths: (R,) how long each row of the split is, in whatever padding costs.
        batch_size: rows of a global batch; at most R are used.
        world: processes; the batch is rounded down to a multiple of it.
        bucket_batches: batches of a pool; below 2 rows are not sorted.

    Raises:
        ValueError: fewer rows than processes.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        bucket_batches: int = 0,
    ):
        num_rows = len(lengths)
        self.batch_size = min(batch_size, num_rows) // world * world
        if self.batch_size == 0:
            raise ValueError(
                f"a global batch of {min(batch_size, num_rows)} rows cannot be split over {world} processes; raise "
                "batch_size or start fewer"
            )
        self.lengths, self.seed, self.rank, self.world = lengths, seed, rank, world
        self.bucket_batches = bucket_batches
        self.batches_per_epoch = num_rows // self.batch_size
        self._epoch, self._batches = -1, torch.empty(0, 0, dtype=torch.int64)

    def batch(self, number: int) -> torch.Tensor:
        """Rows of global batch `number` (0-based): (batch_size,) int64."""
        epoch, position = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._epoch_batches(epoch)
        return self._batches[position]

    def rows(self, number: int) -> torch.Tensor:
        """Those of this process: (batch_size / world,) int64."""
        return self.batch(number)[self.rank :: self.world]

    def _epoch_batches(self, epoch: int) -> torch.Tensor:
        """(batches, rows) of an epoch."""
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
