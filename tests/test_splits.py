"""A new split: parts whole, types in proportion, the same whatever the order, and readable as a table."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from supersimplenet.cli.main import main
from supersimplenet.datasets.checks.inspection import Inspection, inspect_samples
from supersimplenet.datasets.splits import group_samples, split_samples, write_table
from supersimplenet.datasets.table import Table
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.types import BAD, GOOD, Sample

TYPES = ("good", "dent", "scratch")


def sample(name: str, defect: str = "good", *, group: str | None = None, root: str = "/data", split="train") -> Sample:
    label = GOOD if defect == "good" else BAD
    known = label == GOOD
    image = Path(root, defect, f"{name}.png")
    return Sample(image=image, label=label, defect=defect, group=group, split=split, pixel_labels_known=known)


@st.composite
def data_sets(draw, *, mixed_groups: bool) -> list[Sample]:
    """Images of three types, some of them in groups, of one type each unless ``mixed_groups``."""
    defects = draw(st.lists(st.sampled_from(TYPES), min_size=8, max_size=60))
    defects += ["good"] * 12  # so that some are left for training
    groups = draw(st.lists(st.none() | st.integers(0, 9), min_size=len(defects), max_size=len(defects)))
    return [
        sample(
            str(i),
            defect,
            group=None if g is None or i >= len(defects) - 12 else f"{g}{'' if mixed_groups else defect}",
        )
        for i, (defect, g) in enumerate(zip(defects, groups, strict=True))
    ]


FRACTIONS = st.floats(0.05, 0.6)


@given(samples=data_sets(mixed_groups=True), fraction=FRACTIONS, seed=st.integers(0, 99))
def test_no_group_stands_in_both_splits_and_no_image_is_lost(samples, fraction, seed):
    result = split_samples(samples, test_fraction=fraction, seed=seed)
    splits = defaultdict(set)
    for s in result:
        splits[s.group].add(s.split)
    assert all(len(both) == 1 for group, both in splits.items() if group is not None)
    assert {replace(s, split="train") for s in result} == set(samples)
    assert len(result) == len(samples)


@given(samples=data_sets(mixed_groups=False), fraction=FRACTIONS, seed=st.integers(0, 99))
def test_each_type_is_within_half_of_its_largest_group_of_the_fraction(samples, fraction, seed):
    result = split_samples(samples, test_fraction=fraction, seed=seed)
    for defect in {s.defect for s in samples}:
        of_type = [s for s in result if s.defect == defect]
        largest = max(Counter(s.group for s in of_type if s.group is not None).values(), default=1)
        test = sum(s.split == "test" for s in of_type)
        assert abs(test - fraction * len(of_type)) <= largest / 2 + 1e-9


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(samples=data_sets(mixed_groups=True), order=st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_place_nor_the_old_split_matters(samples, order):
    def moved(s: Sample) -> Sample:
        return replace(s, image=Path("/elsewhere/deep") / s.image.relative_to("/data"), split="test")

    shuffled = [moved(s) for s in samples]
    order.shuffle(shuffled)
    here = {s.image.relative_to("/data"): s.split for s in split_samples(samples)}
    there = {s.image.relative_to("/elsewhere/deep"): s.split for s in split_samples(shuffled)}
    if len({s.defect for s in samples}) > 1:  # with one type, the common folder is the type's
        assert here == there
    assert split_samples(samples) == split_samples(list(reversed(samples)))


def test_the_seed_decides_which_images_go_where():
    samples = [sample(str(i)) for i in range(40)]
    tests = [{s.image.name for s in split_samples(samples, seed=seed) if s.split == "test"} for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]
    assert [len(names) for names in tests] == [12, 12, 12]


def test_a_group_of_several_types_is_kept_whole():
    samples = [sample(f"{g}-{t}", t, group=f"part{g}") for g in range(20) for t in TYPES]
    result = split_samples(samples, test_fraction=0.25)
    counts = Counter((s.defect, s.split) for s in result)
    assert counts == {(t, s): n for t in TYPES for s, n in (("train", 15), ("test", 5))}


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_fractions_that_leave_a_split_empty_are_refused(fraction):
    with pytest.raises(ConfigError, match="test_fraction"):
        split_samples([sample("1")], test_fraction=fraction)


def test_no_good_image_left_for_training_is_refused():
    samples = [sample(f"{i}", group="all") for i in range(10)]
    with pytest.raises(DataError, match="no good image was left for training; lower test_fraction"):
        split_samples(samples, test_fraction=0.7)
    with pytest.raises(DataError, match="no sample to split"):
        split_samples([])


# --- groups ------------------------------------------------------------------------------------------------------


def picture(seed: int, *, brightness: float = 110, contrast: float = 40) -> np.ndarray:
    """A part with a structure of its own (48, 64)."""
    coarse = np.random.default_rng(seed).standard_normal((12, 16)).astype(np.float32)
    fine = np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC))
    return np.clip(brightness + contrast * fine, 0, 255).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path) -> list[Sample]:
    """Twelve parts; 0 and 1 again, darker; 2 again, as it was; masks for the bad ones."""
    folder = tmp_path / "images"
    folder.mkdir()
    samples = []
    for i in range(12):
        defect = "dent" if i >= 8 else "good"
        samples.append(sample(f"{i}", defect, root=str(folder)))
    pixels = {s.image: picture(int(s.image.stem)) for s in samples}
    for name, seed, darker in (("again 0", 0, True), ("again 1", 1, True), ("again 2", 2, False)):
        samples.append(sample(name, root=str(folder)))
        pixels[samples[-1].image] = picture(seed, brightness=60, contrast=20) if darker else picture(seed)
    for path, levels in pixels.items():
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(levels).save(path)
    for i in (8, 9):
        mask = folder / f"mask{i}.png"
        Image.fromarray(np.full((48, 64), 255, np.uint8)).save(mask)
        samples[i] = replace(samples[i], mask=mask, pixel_labels_known=True)
    return samples


def groups(samples: list[Sample]) -> dict[str, str | None]:
    return {s.image.stem: s.group for s in samples if s.group is not None}


def test_found_groups_join_photographs_of_one_part(photographs):
    found = groups(group_samples(photographs, "found", inspect_samples(photographs)))
    assert found == {
        name: f"found good/{number}.png" for number in ("0", "1", "2") for name in (number, f"again {number}")
    }


def test_found_groups_join_known_ones_and_say_so(photographs):
    named = [
        replace(s, group={"0": "A", "again 0": "B", "3": "A", "4": "B", "5": "C"}.get(s.image.stem))
        for s in photographs
    ]
    found = groups(group_samples(named, "found", inspect_samples(named)))
    assert found["0"] == found["again 0"] == found["3"] == found["4"] == "A+B"
    assert found["5"] == "C"
    assert found["1"] == found["again 1"] == "found good/1.png"
    assert group_samples(named, "known") == named
    assert groups(group_samples(named, "none")) == {}


def test_found_groups_need_images_that_can_be_read(photographs):
    looks = [Inspection(image_error="7.png: empty"), *inspect_samples(photographs[1:])]
    with pytest.raises(DataError, match=r"1 image not readable; the first: 7\.png: empty"):
        group_samples(photographs, "found", looks)


# --- the table ---------------------------------------------------------------------------------------------------


def test_a_table_of_the_images_folder_moves_with_it(photographs, tmp_path):
    photographs[8] = replace(photographs[8], ignore=photographs[8].mask)
    split = split_samples([replace(photographs[0], group='A, "B"'), *photographs[1:]], test_fraction=0.4)
    write_table(split, tmp_path / "images" / "split.csv")
    (tmp_path / "images").rename(tmp_path / "moved")
    path = tmp_path / "moved" / "split.csv"

    def moved(file: Path | None) -> Path | None:
        return file and tmp_path / "moved" / file.relative_to(tmp_path / "images")

    wanted = [replace(s, image=moved(s.image), mask=moved(s.mask), ignore=moved(s.ignore)) for s in split]
    assert Table(path=path).samples() == wanted
    assert {row["image"][0] for row in csv.DictReader(path.read_text().splitlines())} == {"g", "d"}


def test_a_table_elsewhere_can_move_alone(photographs, tmp_path):
    masked = [replace(s, mask_any_value=s.mask is not None) for s in photographs]
    split = split_samples(masked, test_fraction=0.4)
    write_table(split, tmp_path / "tables" / "split.csv")
    (tmp_path / "tables" / "split.csv").rename(tmp_path / "renamed.csv")
    assert Table(path=tmp_path / "renamed.csv").samples() == split


def test_the_command_keeps_photographs_of_one_part_together(photographs, tmp_path, capsys):
    plain = tmp_path / "plain.csv"
    write_table(photographs, plain)
    output = tmp_path / "new" / "split.csv"
    data = ["--data", "Table", "--data.path", str(plain), "--output", str(output)]
    assert main(["data", "split", *data]) == 0
    assert "no groups are named; --groups found searches for photographs" in capsys.readouterr().out
    assert main(["data", "split", *data, "--groups", "found", "--test-fraction", "0.25", "--seed", "4"]) == 0
    printed = capsys.readouterr().out
    assert "3 groups of several images (6 images), each in one split" in printed
    assert f"train: supersimplenet train {output}" in printed
    split = {s.image.stem: s.split for s in Table(path=output).samples()}
    assert all(split[number] == split[f"again {number}"] for number in "012")
    assert Counter(s.split for s in Table(path=output).samples() if s.defect == "dent") == {"train": 3, "test": 1}


def test_real_tiles_are_split_by_tile(shared_dir):
    samples = Table(path=shared_dir / "magnetic_tile" / "samples.csv").samples()
    result = split_samples(samples, test_fraction=0.3, seed=1)
    splits = defaultdict(set)
    for s in result:
        splits[s.group].add(s.split)
    assert all(len(both) == 1 for both in splits.values())
    for defect, total in Counter(s.defect for s in samples).items():
        test = sum(s.split == "test" for s in result if s.defect == defect)
        assert abs(test - 0.3 * total) <= 3, defect  # half of the six exposures of a tile
