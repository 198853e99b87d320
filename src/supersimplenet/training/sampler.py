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
    together with an equal number of good images, those drawn least often first: they are taken from shuffled rounds
    through all of them, which continue from epoch to epoch. Where an epoch would have fewer steps than the good images
    alone, the bad rows are repeated until it has as many, or ``most_repeats`` times its steps: all of them as often as
    possible, the rest in shuffled rounds too. Rounds and orders depend only on the seed and on their number. So the
    same images are drawn with any number of worker processes, on several devices, and in a resumed run.

    The batches of an epoch differ in size by at most one, so that no step is based on a few left-over images.

    Args:
        good: rows of each good image's views; one of these rows, drawn at random, stands for the image.
        bad: rows of each bad image's views.
        batch_size: number of images in a step, over all processes; no batch is larger.
        seed: the run's seed.
        most_repeats: how many times the steps of bad images that come once each an epoch may have; 1 for as published.
        rank: rank of this process, which takes its share of each batch.
        world_size: number of processes, at most ``batch_size``.

    Source: JIMS section 4.2 (sampling). Differs: draw counts are not stored; they follow from the epoch. Few bad images
    are repeated.
    """

    def __init__(
        self,
        good: Sequence[Sequence[int]],
        bad: Sequence[Sequence[int]],
        *,
        batch_size: int,
        seed: int,
        most_repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.good = good
        self.bad = [row for rows in bad for row in rows]
        self.batch_size = batch_size
        self.seed = seed
        self.bad_drawn = _bad_drawn(len(good), len(self.bad), batch_size, most_repeats)
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
        return 2 * self.bad_drawn if self.bad else len(self.good)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        drawn = self._drawn("round", len(self.good), self.images - self.bad_drawn)
        bad = self.bad
        if self.bad:
            times, rest = divmod(self.bad_drawn, len(self.bad))
            bad = self.bad * times + [self.bad[i] for i in self._drawn("bad round", len(self.bad), rest)]
        views = torch.randint(1 << 30, (len(drawn),), generator=generator).tolist()
        rows = [self.good[i][view % len(self.good[i])] for i, view in zip(drawn, views, strict=True)] + bad
        order = torch.randperm(len(rows), generator=generator)
        for batch in torch.tensor_split(order, len(self)):
            yield [rows[place] for place in batch[self.rank :: self.world_size].tolist()]

    def _drawn(self, name: str, total: int, count: int) -> list[int]:
        """Return this epoch's section, ``count`` long, of an endless sequence of shuffled rounds through ``total``."""
        first = self.epoch * count
        drawn: list[int] = []
        for number in range(first // total, -(-(first + count) // total)):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, name, number))
            drawn += torch.randperm(total, generator=generator).tolist()
        skipped = first % total
        return drawn[skipped : skipped + count]


def _bad_drawn(good: int, bad: int, batch_size: int, most_repeats: int) -> int:
    """Return the number of bad rows in an epoch: each once, or more where the good images alone give more steps."""
    most_steps = most_repeats * -(-2 * bad // batch_size)
    return max(bad, min(-(-good // 2), most_steps * batch_size // 2)) if bad else 0
