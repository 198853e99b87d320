"""Training-time anomalies against a Perlin field computed pixel by pixel, and against what their draws must obey."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from supersimplenet.model.anomalies import Anomalies, draw_anomalies, perlin_fields

EVERYWHERE = -0.999  # all but never reached: -1 needs four gradients that point away from the middle of their cell


def replay_draws(seed: int, grid: tuple[int, int]) -> tuple[tuple[int, int], Tensor]:
    """Cells and gradient angles of the one field that `perlin_fields` makes with this seed."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.randint(6, (1, 2), generator=generator)[0].tolist()
    cells = (min(2 ** exponents[0], grid[0]), min(2 ** exponents[1], grid[1]))
    return cells, 2 * math.pi * torch.rand(cells[0] + 1, cells[1] + 1, generator=generator)


def perlin_value(y: float, x: float, angle: Tensor) -> float:
    """Perlin noise at a place given in cells, from the 1985 paper with the fade curve of 2002."""

    def fade(t: float) -> float:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    top, left = math.floor(y), math.floor(x)
    value = 0.0
    for corner_y, corner_x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        gradient = float(angle[corner_y, corner_x])
        ramp = math.cos(gradient) * (y - corner_y) + math.sin(gradient) * (x - corner_x)
        value += ramp * fade(1 - abs(y - corner_y)) * fade(1 - abs(x - corner_x))
    return math.sqrt(2) * value


def seed_of_cells(cells: tuple[int, int], grid: tuple[int, int]) -> int:
    """A seed whose field has these cells."""
    return next(seed for seed in range(1000) if replay_draws(seed, grid)[0] == cells)


@pytest.mark.parametrize("cells", [(1, 1), (4, 2), (2, 16), (8, 8)])
def test_a_field_equals_perlin_noise_pixel_by_pixel(cells):
    grid = (16, 32)
    seed = seed_of_cells(cells, grid)
    _, angle = replay_draws(seed, grid)
    expected = [
        [perlin_value(row * cells[0] / grid[0], column * cells[1] / grid[1], angle) for column in range(grid[1])]
        for row in range(grid[0])
    ]
    field = perlin_fields(1, *grid, generator=torch.Generator().manual_seed(seed))[0]
    # float32 against Python's float64: a dozen roundings of numbers of size 1, each of 6e-8.
    torch.testing.assert_close(field, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cells", [(1, 1), (4, 8), (32, 32)])
def test_a_field_is_zero_at_the_lattice_points_and_not_between(cells):
    grid = (64, 64)
    field = perlin_fields(1, *grid, generator=torch.Generator().manual_seed(seed_of_cells(cells, grid)))[0]
    lattice = field[:: grid[0] // cells[0], :: grid[1] // cells[1]]
    assert lattice.shape == cells
    assert torch.equal(lattice, torch.zeros(cells))
    assert field.abs().max() > 0.3


def test_fields_stay_within_one():
    """Definition: corner weights times corner distances sum to at most sqrt(1/2), in the middle of a cell."""
    fields = perlin_fields(300, 32, 32, generator=torch.Generator().manual_seed(0))
    assert fields.abs().max() <= 1 + 1e-6  # float32 rounding
    assert fields.max() > 0.8  # 300 fields, hundreds of cells each: some come near the bound
    assert fields.min() < -0.8


def test_one_generator_state_gives_the_same_fields():
    first = perlin_fields(3, 16, 24, generator=torch.Generator().manual_seed(5))
    again = perlin_fields(3, 16, 24, generator=torch.Generator().manual_seed(5))
    other = perlin_fields(3, 16, 24, generator=torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("size", [(24, 40), (33, 64), (6, 10), (1, 3)])
def test_other_sizes_are_the_covering_power_of_two_resized(size):
    """Bilinear without aligned corners: output i lies at (i + 1/2) * in / out - 1/2, held inside the grid."""
    grid = tuple(1 << math.ceil(math.log2(length)) for length in size)
    whole = perlin_fields(4, *grid, generator=torch.Generator().manual_seed(2)).double()
    field = perlin_fields(4, *size, generator=torch.Generator().manual_seed(2))

    def taps(length: int, total: int) -> tuple[Tensor, Tensor, Tensor]:
        place = ((torch.arange(length, dtype=torch.float64) + 0.5) * total / length - 0.5).clamp(min=0)
        low = place.floor().long()
        return low, (low + 1).clamp(max=total - 1), place - low

    above, below, down = taps(size[0], grid[0])
    left, right, along = taps(size[1], grid[1])
    rows = whole[:, above] * (1 - down)[:, None] + whole[:, below] * down[:, None]
    expected = rows[:, :, left] * (1 - along) + rows[:, :, right] * along
    # torch places its samples in float32: off by up to 4e-6 pixels near 64, and a field changes by about 1 a pixel.
    torch.testing.assert_close(field, expected.float(), rtol=0, atol=1e-5)


def draw(defective: Tensor, *, threshold: float = 0.2, channels: int = 4, seed: int = 0) -> Anomalies:
    return draw_anomalies(
        defective,
        channels=channels,
        perlin_threshold=threshold,
        noise_std=0.015,
        generator=torch.Generator().manual_seed(seed),
    )


def none_defective(batch: int, height: int, width: int) -> Tensor:
    return torch.zeros(batch, height, width, dtype=torch.bool)


def test_noise_is_where_the_mask_is():
    anomalies = draw(none_defective(8, 16, 16))
    assert anomalies.mask.shape == (16, 16, 16)
    assert anomalies.mask.any()
    assert anomalies.position.tolist() == [i for i, masked in enumerate(anomalies.mask.flatten().tolist()) if masked]
    count = int(anomalies.mask.sum())
    assert len(anomalies.position) == count
    assert (anomalies.noise[:count] != 0).all()
    assert (anomalies.noise[count:] == 0).all()


def test_the_mask_is_where_the_field_exceeds_the_threshold():
    seed, batch = 11, 6
    generator = torch.Generator().manual_seed(seed)
    field = perlin_fields(2 * batch, 16, 16, generator=generator)
    anomalies = draw(none_defective(batch, 16, 16), threshold=0.3, seed=seed)
    kept = anomalies.mask.flatten(1).any(1)
    assert 0 < kept.sum() < 2 * batch
    assert torch.equal(anomalies.mask, (field > 0.3) & kept[:, None, None])


@pytest.mark.parametrize("threshold", [EVERYWHERE, 0.2])
def test_defective_pixels_receive_no_noise_in_either_copy(threshold):
    defective = torch.rand(10, 12, 20, generator=torch.Generator().manual_seed(1)) < 0.3
    anomalies = draw(defective, threshold=threshold)
    free = draw(none_defective(10, 12, 20), threshold=threshold)
    # Nothing else of the masks changes: the defective pixels are taken out of what would have been drawn.
    assert torch.equal(anomalies.mask[:10], free.mask[:10] & ~defective)
    assert torch.equal(anomalies.mask[10:], free.mask[10:] & ~defective)


def test_an_image_that_is_defective_all_over_receives_none():
    defective = none_defective(6, 8, 8)
    defective[2] = True
    anomalies = draw(defective, threshold=EVERYWHERE)
    assert not anomalies.mask[2].any()
    assert not anomalies.mask[8].any()


def test_half_of_the_masks_are_emptied():
    """With a threshold below the field, a mask is empty only because its coin says so, and then it is full."""
    images = 2000
    masks = draw(none_defective(images // 2, 4, 4), threshold=EVERYWHERE, channels=1).mask.flatten(1)
    assert torch.equal(masks.any(1), masks.all(1))
    # Binomial: standard deviation sqrt(2000) / 2 = 22.4; five of them are passed once in 1.7 million seeds.
    assert abs(int(masks.any(1).sum()) - images / 2) < 5 * math.sqrt(images) / 2


def test_noise_has_the_asked_mean_and_standard_deviation():
    noise = draw(none_defective(16, 32, 32), threshold=EVERYWHERE, channels=16).noise
    count = noise.numel()
    assert count > 100_000
    # A sample's standard deviation has a relative error of 1 / sqrt(2 n), its mean one of std / sqrt(n): five of each.
    assert abs(float(noise.std()) / 0.015 - 1) < 5 / math.sqrt(2 * count)
    assert abs(float(noise.mean())) < 5 * 0.015 / math.sqrt(count)
    # Channels are drawn independently: a sample correlation has standard deviation 1 / sqrt(rows).
    correlation = torch.corrcoef(noise.T) - torch.eye(16)
    assert correlation.abs().max() < 5 / math.sqrt(len(noise))


def test_a_dense_noise_tensor_gives_the_same_anomalies():
    drawn = draw(none_defective(3, 6, 10), channels=5, seed=4)
    assert drawn.mask.any()
    dense = torch.full((6, 5, 6, 10), math.nan)  # outside the mask its values do not matter
    noise = drawn.noise[: len(drawn.position)]
    for position, vector in zip(drawn.position.tolist(), noise, strict=True):
        image, row, column = position // 60, position // 10 % 6, position % 10
        assert drawn.mask[image, row, column]
        dense[image, :, row, column] = vector
    again = Anomalies.from_dense(drawn.mask, dense)
    assert torch.equal(again.position, drawn.position)
    assert torch.equal(again.noise, noise)
    assert torch.equal(again.mask, drawn.mask)


def test_the_rows_of_the_noise_come_in_few_sizes():
    """At most a sixteenth more than there are positions, or 63: a kernel prepared for one step serves others."""
    sizes = set()
    for seed in range(60):
        drawn = draw(none_defective(8, 32, 32), channels=1, seed=seed)
        rows, count = len(drawn.noise), len(drawn.position)
        assert count <= rows <= max(count * 17 / 16, count + 63)
        sizes.add(rows)
    assert len(sizes) < 30


def test_a_higher_threshold_gives_a_part_of_the_anomalies():
    sizes = []
    larger = torch.ones(20, 16, 16, dtype=torch.bool)
    for threshold in (-0.2, 0.0, 0.2, 0.4, 0.6):
        mask = draw(none_defective(10, 16, 16), threshold=threshold, seed=9).mask
        assert not (mask & ~larger).any()
        sizes.append(int(mask.sum()))
        larger = mask
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] > 0


def test_one_seed_draws_the_same_anomalies():
    first, again, other = (draw(none_defective(4, 16, 16), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.position, again.position)
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.mask, other.mask)


def test_a_mask_may_be_empty_for_the_whole_batch():
    anomalies = draw(none_defective(2, 6, 10), threshold=0.999)
    assert anomalies.position.shape == (0,)
    assert anomalies.noise.shape == (0, 4)
    assert not anomalies.mask.any()


def test_with_a_generator_for_each_image_its_draws_do_not_depend_on_its_company():
    defective = torch.zeros(3, 16, 12, dtype=torch.bool)
    defective[:, :4] = True

    def draw(places: list[int]) -> dict[int, list[torch.Tensor]]:
        """Noise of each image's two copies, dense, by its place."""
        anomalies = draw_anomalies(
            defective[: len(places)],
            channels=5,
            perlin_threshold=-2.0,
            noise_std=0.3,
            generator=[torch.Generator().manual_seed(place) for place in places],
        )
        dense = torch.zeros(2 * len(places) * 16 * 12, 5)
        dense[anomalies.position] = anomalies.noise[: len(anomalies.position)]
        copies = dense.view(2, len(places), 16, 12, 5)
        assert not copies[:, :, :4].any()
        return {place: [copies[0, i], copies[1, i]] for i, place in enumerate(places)}

    together = draw([1, 4, 9])
    assert sum(int(copy.any()) for copies in together.values() for copy in copies) >= 2  # half of them are empty
    for places in ([4], [9, 1]):
        for place, copies in draw(places).items():
            assert all(torch.equal(a, b) for a, b in zip(copies, together[place], strict=True))
