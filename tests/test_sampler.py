"""The batches of an epoch: the same for any number of workers and processes, and for a resumed run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from supersimplenet.errors import ConfigError
from supersimplenet.training.feature_cache import CachedFeatures, FlipIndex, RecomputedFeatures
from supersimplenet.training.module import batch_loader
from supersimplenet.training.plan import Plan
from supersimplenet.training.sampler import EpochBatches, draw_probability
from supersimplenet.utils.seeding import derive_seed

GOOD = [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(10)]
BAD = [[40 + 4 * i, 41 + 4 * i, 42 + 4 * i, 43 + 4 * i] for i in range(4)]


def epochs(batches: EpochBatches, numbers: range) -> list[list[list[int]]]:
    drawn = []
    for number in numbers:
        batches.set_epoch(number)
        drawn.append(list(batches))
    return drawn


def rows_of(epoch: list[list[int]]) -> list[int]:
    return [row for batch in epoch for row in batch]


def test_without_bad_images_each_good_one_comes_once_in_an_order_of_its_own():
    batches = EpochBatches([[i] for i in range(20)], [], batch_size=6, seed=3)
    first, second = epochs(batches, range(2))
    assert [len(batch) for batch in first] == [5, 5, 5, 5]
    assert sorted(rows_of(first)) == sorted(rows_of(second)) == list(range(20))
    assert first != second
    assert epochs(batches, range(1)) == [first]


def test_as_many_good_as_flipped_bad_images_the_least_used_first():
    batches = EpochBatches(GOOD, BAD, batch_size=6, seed=0)
    assert (batches.images, len(batches)) == (32, 6)
    used = Counter(dict.fromkeys(range(10), 0))
    views = Counter()
    for epoch in epochs(batches, range(50)):
        rows = rows_of(epoch)
        assert sorted(row for row in rows if row >= 40) == list(range(40, 56))
        good = [row for row in rows if row < 40]
        assert len(good) == 16
        used.update(row // 4 for row in good)
        assert max(used.values()) - min(used.values()) <= 1  # nobody is drawn twice while another waits
        views.update(row % 4 for row in good)
    assert sum(used.values()) == 800
    # Each view of a good image with probability 1/4: 800 draws, standard deviation 12.
    assert all(abs(count - 200) < 60 for count in views.values())


@pytest.mark.parametrize(
    ("good", "bad", "published", "steps"),
    [(200, 5, 2, 7), (160, 5, 2, 5), (1000, 2, 1, 4), (330, 133, 34, 34), (16, 2, 1, 1), (65, 1, 1, 3)],
)
def test_steps_are_at_least_those_of_the_good_images_up_to_four_times_the_published_number(good, bad, published, steps):
    views = [[good + 4 * i + view for view in range(4)] for i in range(bad)]
    rows = [[i] for i in range(good)]
    once = EpochBatches(rows, views, batch_size=32, seed=0)
    assert (len(once), once.images) == (published, 8 * bad)
    batches = EpochBatches(rows, views, batch_size=32, seed=0, most_repeats=4)
    assert len(batches) == steps
    used: Counter[int] = Counter(dict.fromkeys(range(good + 4 * bad), 0))
    for epoch in epochs(batches, range(7)):
        assert all(len(batch) <= 32 for batch in epoch)
        drawn = rows_of(epoch)
        assert sum(row >= good for row in drawn) == len(drawn) / 2
        used.update(drawn)
        for share in ([used[row] for row in range(good)], [used[row] for row in range(good, good + 4 * bad)]):
            assert max(share) - min(share) <= 1
    if steps == published:
        plain = EpochBatches(rows, views, batch_size=32, seed=0)
        assert epochs(plain, range(3)) == epochs(batches, range(3))


def test_repeated_bad_images_are_the_same_on_several_processes_and_after_a_resumption():
    options = {"good": [[i] for i in range(50)], "bad": [[50, 51, 52]], "batch_size": 8, "seed": 4, "most_repeats": 4}
    whole = epochs(EpochBatches(**options), range(4))
    assert epochs(EpochBatches(**options), range(2, 4)) == whole[2:]
    shares = [epochs(EpochBatches(**options, rank=p, world_size=2), range(4)) for p in range(2)]
    for number, epoch in enumerate(whole):
        for step, batch in enumerate(epoch):
            assert sorted(shares[0][number][step] + shares[1][number][step]) == sorted(batch)


def test_a_run_says_its_steps_its_time_and_that_it_is_too_short():
    plan = Plan(epochs=300, total_steps=2100, noise_std=1.0, feature_scale=1.0, seconds_per_step=0.5)
    assert list(plan.lines(7)) == ["2,100 steps in 300 epochs of 7 steps, about 18 min"]
    length, warning = Plan(epochs=1, total_steps=5, noise_std=1.0, feature_scale=1.0).lines(7)
    assert length == "5 steps in 1 epoch of 7 steps"
    assert warning.startswith("only 5 steps: expect little of this model before some 200; give it more epochs")


def test_good_images_of_one_view_have_no_flips():
    batches = EpochBatches([[i] for i in range(5)], [[5, 6, 7, 8]], batch_size=4, seed=0)
    rows = rows_of(epochs(batches, range(1))[0])
    assert sorted(rows)[-4:] == [5, 6, 7, 8]
    assert set(rows) <= set(range(9))


def test_processes_share_each_batch_out():
    whole = epochs(EpochBatches(GOOD, BAD, batch_size=6, seed=1), range(3))
    shares = [epochs(EpochBatches(GOOD, BAD, batch_size=6, seed=1, rank=p, world_size=2), range(3)) for p in range(2)]
    for number, epoch in enumerate(whole):
        for step, batch in enumerate(epoch):
            first, second = shares[0][number][step], shares[1][number][step]
            assert sorted(first + second) == sorted(batch)
            assert abs(len(first) - len(second)) <= 1


def test_a_step_that_leaves_a_process_without_images_is_refused():
    with pytest.raises(ConfigError, match=r"recipe\.batch_size: 4; a step would have 2 images for 3 processes"):
        EpochBatches([[0], [1], [2], [3], [4]], [], batch_size=4, seed=0, world_size=3)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than the machine has cores
@pytest.mark.parametrize("num_workers", [0, 2, 4])
def test_any_number_of_workers_draws_the_same_and_reads_the_same(num_workers):
    views = FlipIndex.of([4] * 14)
    pixels = torch.randint(256, (14, 6, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = RecomputedFeatures(None, pixels, views)
    batches = EpochBatches(GOOD, BAD, batch_size=6, seed=2)
    loader = batch_loader(source, batches, num_workers=num_workers)
    for number in (0, 1, 7):
        batches.set_epoch(number)
        loaded = list(loader)
        assert [row.tolist() for row, _ in loaded] == epochs(batches, range(number, number + 1))[0]
        for row, read in loaded:
            for one, image in zip(row.tolist(), read, strict=True):
                axes = [(), (0,), (1,), (0, 1)][one % 4]
                assert torch.equal(image, pixels[one // 4].flip(axes))


# What each process of a gloo group draws with so many workers, from an epoch on, as a training process would.
DRAW = """
import json, sys
import torch, torch.distributed as dist
from supersimplenet.training.features import CachedFeatures, FlipIndex
from supersimplenet.training.module import batch_loader
from supersimplenet.training.sampler import EpochBatches

rank, world, store, workers, first = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
good = [[4 * i + v for v in range(4)] for i in range(10)]
bad = [[40 + 4 * i + v for v in range(4)] for i in range(4)]
batches = EpochBatches(
    good, bad, batch_size=6, seed=5, rank=dist.get_rank(), world_size=dist.get_world_size()
)
source = CachedFeatures(torch.zeros(56, 1), [torch.Size((1, 1, 1))], "memory", FlipIndex.of([4] * 14))
drawn = []
for epoch in range(first, 3):
    batches.set_epoch(epoch)
    for row, _ in batch_loader(source, batches, num_workers=workers):
        gathered = [None] * world
        dist.all_gather_object(gathered, row.tolist())
        drawn.append(sorted(sum(gathered, [])))
if rank == 0:
    print(json.dumps(drawn))
dist.destroy_process_group()
"""


def draw(tmp_path: Path, world: int, workers: int, first: int = 0) -> list[list[int]]:
    store = tmp_path / f"store-{world}-{workers}-{first}"
    arguments = [str(world), str(store), str(workers), str(first)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", DRAW, str(rank), *arguments], stdout=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return json.loads(printed[0])


@pytest.mark.slow
def test_one_and_two_processes_with_and_without_workers_draw_the_same_and_so_does_a_resumed_run(tmp_path):
    alone = draw(tmp_path, 1, 0)
    assert len(alone) == 18
    assert draw(tmp_path, 2, 0) == draw(tmp_path, 2, 2) == alone
    assert draw(tmp_path, 2, 2, first=1) == alone[6:]


def test_rows_of_a_feature_source_are_an_images_views():
    views = FlipIndex.of([1, 4, 1])
    assert views.rows() == [[0], [1, 2, 3, 4], [5]]
    source = CachedFeatures(torch.arange(12.0).view(6, 2), [torch.Size((1, 1, 2))], "memory", views)
    assert source.features(torch.tensor([4, 0]))[0].flatten().tolist() == [8, 9, 0, 1]
    assert source.flip_index.axes(torch.tensor([0, 2, 4])) == [(), (0,), (0, 1)]


# --- the authors' sampling --------------------------------------------------------------------------------------------


def test_the_authors_probability_of_a_draw_by_hand():
    """Five images drawn 0, 1, 2, 2, 4 times: 1 - f is 1, 3/4, 1/2, 1/2, 0, its median 1/2, the exponent 4 ln 5."""
    base = np.array([1.5, 1.25, 1.0, 1.0, 0.5])
    by_hand = base**6.437751649736401
    assert draw_probability(np.array([0, 1, 2, 2, 4])) == pytest.approx(by_hand / by_hand.sum())
    assert draw_probability(np.zeros(4, dtype=np.int64)).tolist() == [0.25] * 4
    assert draw_probability(np.array([3, 0, 0])).tolist() == [0.0, 0.5, 0.5]  # f = 1 below a median of 1: never again


@pytest.mark.parametrize(("good", "bad"), [(10, 4), (40, 4)])
def test_published_sampling_is_the_authors_plain_loop(good, bad):
    """The draws of the plain loop over epochs, with replacement only where 4 x bad images outnumber the good ones."""
    rows, views = [[i] for i in range(good)], [[good + 4 * i + view for view in range(4)] for i in range(bad)]
    batches = EpochBatches(rows, views, batch_size=6, seed=5, sampling="published")
    times = np.zeros(good, dtype=np.int64)
    for number, epoch in enumerate(epochs(batches, range(6))):
        assert [len(batch) for batch in epoch] == [6, 6, 6, 6, 6, 2]  # 32 images; the last batch is short
        drawn = rows_of(epoch)
        assert sorted(row for row in drawn if row >= good) == list(range(good, good + 4 * bad))
        frequency = times / times.max() if number else np.zeros(good)
        probability = 1 - frequency
        probability = (probability - np.median(probability) + 1) ** (np.log(good) * 4)
        generator = np.random.default_rng(derive_seed(5, "draw", number))
        wanted = generator.choice(good, 4 * bad, replace=4 * bad > good, p=probability / probability.sum())
        assert sorted(row for row in drawn if row < good) == sorted(wanted.tolist())
        times += np.bincount(wanted, minlength=good)
    if good > 4 * bad:
        assert times.max() - times.min() <= 1  # so strong a preference for the rare ones, as even sampling has
    again = EpochBatches(rows, views, batch_size=6, seed=5, sampling="published")
    assert epochs(again, range(4, 6)) == epochs(batches, range(4, 6))  # a resumed run draws the same


def test_published_sampling_of_good_images_alone_has_a_short_last_batch():
    batches = EpochBatches([[i] for i in range(20)], [], batch_size=6, seed=3, sampling="published")
    (first,) = epochs(batches, range(1))
    assert [len(batch) for batch in first] == [6, 6, 6, 2]
    assert sorted(rows_of(first)) == list(range(20))
    with pytest.raises(ConfigError, match="a step would have 2 images for 3 processes"):
        EpochBatches([[i] for i in range(20)], [], batch_size=6, seed=3, sampling="published", world_size=3)
