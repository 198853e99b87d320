"""The images of each step: a pure function of the seed and the epoch, so that no state needs to be saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from supersimplenet.errors import ConfigError
from supersimplenet.model.config import Sampling
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

    With ``published`` sampling, as in the authors' code: beside bad images the good ones are drawn at random, by
    `draw_probability`, with replacement only where there are fewer of them than are drawn; the last batch of an epoch
    has the images that are left over.

    Args:
        good: rows of each good image's views; one of these rows, drawn at random, stands for the image.
        bad: rows of each bad image's views.
        batch_size: number of images in a step, over all processes; no batch is larger.
        seed: the run's seed.
        sampling: ``even`` or ``published``, as above.
        most_repeats: how many times the steps of bad images that come once each an epoch may have; 1 for as published.
        rank: rank of this process, which takes its share of each batch.
        world_size: number of processes, at most ``batch_size``.

    Source: JIMS section 4.2 (sampling), and the authors' code. Differs: draw counts are not stored; they follow from
    the epoch. Sampling that is ``even``, and repeats of few bad images, are this package's own.
    """

    def __init__(
        self,
        good: Sequence[Sequence[int]],
        bad: Sequence[Sequence[int]],
        *,
        batch_size: int,
        seed: int,
        sampling: Sampling = "even",
        most_repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.good = good
        self.bad = [row for rows in bad for row in rows]
        self.batch_size = batch_size
        self.seed = seed
        self.sampling: Sampling = sampling
        self._draws: list[NDArray[np.int64]] = []  # the good images of each epoch so far, for published sampling
        self.bad_drawn = _bad_drawn(len(good), len(self.bad), batch_size, most_repeats)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        smallest = self.images // len(self)
        if sampling == "published":
            smallest = self.images % batch_size or batch_size
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
        if self.bad and self.sampling == "published":
            drawn = self._drawn_by_chance()
        else:
            drawn = self._drawn("round", len(self.good), self.images - self.bad_drawn)
        bad = self.bad
        if self.bad:
            times, rest = divmod(self.bad_drawn, len(self.bad))
            bad = self.bad * times + [self.bad[i] for i in self._drawn("bad round", len(self.bad), rest)]
        views = torch.randint(1 << 30, (len(drawn),), generator=generator).tolist()
        rows = [self.good[i][view % len(self.good[i])] for i, view in zip(drawn, views, strict=True)] + bad
        order = torch.randperm(len(rows), generator=generator)
        published = self.sampling == "published"
        for batch in torch.split(order, self.batch_size) if published else torch.tensor_split(order, len(self)):
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

    def _drawn_by_chance(self) -> list[int]:
        """Return this epoch's good images as the authors draw them: each draw makes the next ones less likely."""
        total, count = len(self.good), self.bad_drawn
        while len(self._draws) <= self.epoch:  # an epoch depends on those before it, also in a resumed run
            times = np.bincount(np.concatenate([np.zeros(0, np.int64), *self._draws]), minlength=total)
            generator = np.random.default_rng(derive_seed(self.seed, "draw", len(self._draws)))
            probability = draw_probability(times)
            self._draws.append(generator.choice(total, count, replace=count > total, p=probability))
        drawn: list[int] = self._draws[self.epoch].tolist()
        return drawn


def draw_probability(times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the probability of each of N good images from the number of times it has been drawn so far.

    Args:
        times: (N,) number of earlier draws.

    Returns:
        (N,), the sum is 1: ``(1 - f - median(1 - f) + 1) ** (4 ln N)``, normalised, with f the draws over their largest
        number; all equal before the first draw.

    Source: the authors' code (inverse frequency sampling). Differs: none.
    """
    if not times.any():
        return np.full(times.size, 1 / times.size)
    rarity = 1 - times / times.max()
    weight = (rarity - np.median(rarity) + 1) ** (4 * np.log(times.size))
    probability: NDArray[np.float64] = weight / weight.sum()
    return probability


def _bad_drawn(good: int, bad: int, batch_size: int, most_repeats: int) -> int:
    """Return the number of bad rows in an epoch: each once, or more where the good images alone give more steps."""
    if bad == 0 or most_repeats == 1:
        return bad
    most_steps = most_repeats * -(-2 * bad // batch_size)
    return max(bad, min(-(-good // 2), most_steps * batch_size // 2))
