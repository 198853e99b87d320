"""KolektorSDD2: labels told from masks, and the five published lists of masks that count."""

import pickle

import pytest
from layouts import touch, write_mask

from supersimplenet.datasets.ksdd2 import KSDD2
from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.types import BAD, GOOD, Sample

COUNTS = (0, 16, 53, 126, 246)
TRAIN_BAD, TRAIN_GOOD = range(10000, 10246), range(10246, 10266)  # the published number of bad ones
TEST_BAD, TEST_GOOD = range(20000, 20003), range(20003, 20010)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The layout with all 246 bad training images, and the five split files as published."""
    root = tmp_path_factory.mktemp("KSDD2")
    for split, bad, good in (("train", TRAIN_BAD, TRAIN_GOOD), ("test", TEST_BAD, TEST_GOOD)):
        for number in (*bad, *good):
            touch(root, f"{split}/{number}.png")
            write_mask(root / split / f"{number}_GT.png", marked=0 if number in good else 255)
    test = [(number, True) for number in (*TEST_GOOD, *TEST_BAD)]
    for count in COUNTS:
        chosen = set(TRAIN_BAD[::-1][:count])
        # of the file without masks, the good images too are marked as without
        train = [(number, number in chosen or (number in TRAIN_GOOD and count > 0)) for number in TRAIN_GOOD]
        train += [(number, number in chosen) for number in TRAIN_BAD]
        (root / f"split_weakly_{count}.pyb").write_bytes(pickle.dumps([train, test]))
    return root


@pytest.fixture
def small(tmp_path):
    """Two good and two bad training images, one of each for testing, names of four digits, no split file."""
    for name, marked in {"train/0001": 0, "train/0002": 255, "train/0003": 1, "train/0010": 0}.items():
        write_mask(touch(tmp_path, f"{name}.png") / f"{name}_GT.png", marked=marked)
    for name, marked in {"test/0004": 0, "test/0005": 200}.items():
        write_mask(touch(tmp_path, f"{name}.png") / f"{name}_GT.png", marked=marked)
    return tmp_path


def write_split(root, train, test=((4, True), (5, True)), count=16):
    (root / f"split_weakly_{count}.pyb").write_bytes(pickle.dumps([train, list(test)], pickle.HIGHEST_PROTOCOL))


@pytest.mark.parametrize("count", COUNTS)
def test_published_split_files(published, count):
    samples = KSDD2(root=published, masks=count).samples()
    train = [s for s in samples if s.split == "train"]
    test = [s for s in samples if s.split == "test"]
    assert [int(s.image.stem) for s in train] == [*TRAIN_BAD, *TRAIN_GOOD]
    assert {int(s.image.stem) for s in train if s.label == BAD} == set(TRAIN_BAD)
    with_mask = [s for s in train if s.mask is not None]
    assert {int(s.image.stem) for s in with_mask} == set(TRAIN_BAD[::-1][:count])
    assert all(s.mask == s.image.with_name(f"{s.image.stem}_GT.png") and s.mask_any_value for s in with_mask)
    assert all(s.pixel_labels_known == (s.label == GOOD or s.mask is not None) for s in samples)
    assert all(s.mask is None for s in samples if s.label == GOOD)
    assert {int(s.image.stem) for s in test if s.label == BAD and s.mask is not None} == set(TEST_BAD)
    assert len(test) == 10


def test_every_mask_counts_without_a_split_file(small):
    train, test = small / "train", small / "test"
    marks = {"label": BAD, "defect": "bad", "mask_any_value": True}
    assert KSDD2(root=small).samples() == [
        Sample(image=train / "0001.png", label=GOOD, split="train"),
        Sample(image=train / "0002.png", split="train", mask=train / "0002_GT.png", **marks),
        Sample(image=train / "0003.png", split="train", mask=train / "0003_GT.png", **marks),
        Sample(image=train / "0010.png", label=GOOD, split="train"),
        Sample(image=test / "0004.png", label=GOOD, split="test"),
        Sample(image=test / "0005.png", split="test", mask=test / "0005_GT.png", **marks),
    ]


def test_bad_is_what_its_mask_then_marks(small):
    write_mask(small / "train" / "0010_GT.png", marked=3)  # faint: no defect by the common reading of masks
    assert not read_mask(small / "train" / "0010_GT.png", image_size_px=None).any()
    sample = {s.image.name: s for s in KSDD2(root=small).samples()}["0010.png"]
    assert sample.label == BAD
    assert read_mask(sample.mask, image_size_px=None, any_value=sample.mask_any_value).sum() == 1


def test_names_of_four_digits_are_their_numbers(small):
    write_split(small, [(1, True), ("0002", False), (3, True), (10, True)])
    samples = KSDD2(root=small, masks=16).samples()
    assert {s.image.stem: s.pixel_labels_known for s in samples if s.label == BAD} == {
        "0002": False, "0003": True, "0005": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([(1, True), (2, True), (3, True), (10, True), (77, True)], None,
         "1 train image listed in it, not there: 77; fetch KolektorSDD2 from .* or leave out masks"),
        ([(1, True), (3, True), (10, True)], None, "1 train image there, not listed in it: 2; fetch"),
        ([(1, True), (2, True), (3, True), (10, True)], [(4, True)],
         "1 test image there, not listed in it: 5; fetch"),
        ([1, 2, 3, 10], None, r"train, entry 0: found 1; wanted a pair \(number, has mask\)"),
    ],
)  # fmt: skip
def test_split_files_of_other_images(small, train, test, message):
    write_split(small, train, **({} if test is None else {"test": test}))
    with pytest.raises(DataError, match=rf"^{small}/split_weakly_16\.pyb[:,] {message}"):
        KSDD2(root=small, masks=16).samples()


def test_split_files_that_cannot_be(small):
    with pytest.raises(DataError, match=r"split_weakly_0\.pyb: no such file; it comes with KolektorSDD2, or leave out"):
        KSDD2(root=small, masks=0).samples()
    (small / "split_weakly_0.pyb").write_bytes(pickle.dumps([[(1, True)]]))
    with pytest.raises(DataError, match=r"split_weakly_0\.pyb: wanted two lists, of training and of test images"):
        KSDD2(root=small, masks=0).samples()
    (small / "split_weakly_0.pyb").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"split_weakly_0\.pyb: asks for os\.system"):
        KSDD2(root=small, masks=0).samples()


@pytest.mark.parametrize("masks", [1, 245, -1])
def test_numbers_of_masks_that_were_not_published(masks):
    with pytest.raises(ConfigError, match=rf"^masks: {masks}; wanted 0, 16, 53, 126, 246, or none for all masks"):
        KSDD2(masks=masks)


def test_missing_files(small, tmp_path_factory):
    (small / "test" / "0004_GT.png").unlink()
    with pytest.raises(DataError, match=r"test/0004\.png: no mask; wanted .*/test/0004_GT\.png; fetch KolektorSDD2"):
        KSDD2(root=small).samples()
    touch(small, "test/0004_GT.png")
    with pytest.raises(ImageError, match=r"0004_GT\.png: empty \(0 bytes\)"):
        KSDD2(root=small).samples()
    elsewhere = tmp_path_factory.mktemp("none")
    with pytest.raises(DataError, match=rf"^{elsewhere}/train: no such folder; fetch KolektorSDD2 from https://"):
        KSDD2(root=elsewhere).samples()
