"""The images of each step: a pure function of the seed and the epoch, so that no state needs to be saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from supersimplenet.errors import ConfigError
from supersimplenet.utils.seeding import derive_seed


class EpochBatches(Sampler[list[int]]):
    """The batches of an epoch, as rows of the feature source.

    Without bad images, each good image comes once. With bad images, each of their rows (an image's views) comes once,
    together with an equal number of good images, those drawn least often first: good images are taken from shuffled
    rounds through all of them, which continue from epoch to epoch. Rounds and orders depend only on the seed and on
    their number. So the same images are drawn with any number of worker processes, on several devices, and in a resumed
    run.

    The batches of an epoch differ in size by at most one, so that no step is based on a few left-over images.

    Args:
        good: rows of each good image's views; one of these rows, drawn at random, stands for the image.
        bad: rows of each bad image's views.
        batch_size: number of images in a step, over all processes; no batch is larger.
        seed: the run's seed.
        rank: rank of this process, which takes its share of each batch.
        world_size: number of processes, at most ``batch_size``.

    Source: JIMS section 4.2 (sampling). Differs: draw counts are not stored; they follow from the epoch.
    """

    def __init__(
        self,
        good: Sequence[Sequence[int]],
        bad: Sequence[Sequence[int]],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.good = good
        self.bad = [row for rows in bad for row in rows]
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        smallest = self.images // len(self)
        if smallest < world_size:
            raise ConfigError(
                f"recipe.batch_size: {batch_size}; a step would have {smallest} images for {world_size} processes; "
                "take a larger batch or fewer processes"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    @property
    def images(self) -> int:
        """Number of images in an epoch."""
        return 2 * len(self.bad) if self.bad else len(self.good)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        drawn = self._drawn_good()
        views = torch.randint(1 << 30, (len(drawn),), generator=generator).tolist()
        rows = [self.good[i][view % len(self.good[i])] for i, view in zip(drawn, views, strict=True)] + self.bad
        order = torch.randperm(len(rows), generator=generator)
        for batch in torch.tensor_split(order, len(self)):
            yield [rows[place] for place in batch[self.rank :: self.world_size].tolist()]

    def _drawn_good(self) -> list[int]:
        """Return the good images of this epoch: a section of an endless sequence of shuffled rounds."""
        count, total = self.images - len(self.bad), len(self.good)
        first = self.epoch * count
        drawn: list[int] = []
        for number in range(first // total, -(-(first + count) // total)):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "round", number))
            drawn += torch.randperm(total, generator=generator).tolist()
        skipped = first % total
        return drawn[skipped : skipped + count]
