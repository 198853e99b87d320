"""SensumSODF: two products, three folds, eleven shares of masks."""

import pickle

import pytest
from layouts import touch

from supersimplenet.datasets.sensum import SensumSODF
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.types import BAD, GOOD, Sample

GOOD_COUNT, BAD_COUNT = 12, 30
SHARES = range(0, 101, 10)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Both products with their images numbered from 0; image n is tested in fold n modulo 3."""
    root = tmp_path_factory.mktemp("SensumSODF")
    for category in ("capsule", "softgel"):
        touch(root, *[f"{category}/negative/data/{n:03}.png" for n in range(GOOD_COUNT)])
        for kind in ("data", "annotation"):
            touch(root, *[f"{category}/positive/{kind}/{n:03}.png" for n in range(BAD_COUNT)])
        for fold in range(3):
            lists = root / "sensum_splits" / category / str(fold)
            for split, tested in (("train", False), ("test", True)):
                write(lists / split / "neg.pckl", [(n, True) for n in range(GOOD_COUNT) if (n % 3 == fold) == tested])
            bad = [n for n in range(BAD_COUNT) if n % 3 != fold]
            for share in SHARES:
                write(lists / "train" / f"pos_{share}.pckl", [(n, i < share / 5) for i, n in enumerate(bad)])
            write(lists / "test" / "pos.pckl", [(n, False) for n in range(fold, BAD_COUNT, 3)])
    return root


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(entries))


@pytest.mark.parametrize(("category", "size_px"), [("capsule", (320, 192)), ("softgel", (144, 144))])
@pytest.mark.parametrize("fold", range(3))
@pytest.mark.parametrize("masks", SHARES)
def test_every_published_list(root, category, size_px, fold, masks):
    source = SensumSODF(category=category, root=root, fold=fold, masks=masks)
    assert source.image_size == size_px
    samples = source.samples()
    by_kind = {(split, label): [s for s in samples if (s.split, s.label) == (split, label)]
               for split in ("train", "test") for label in (GOOD, BAD)}  # fmt: skip
    numbers = {kind: [int(s.image.stem) for s in found] for kind, found in by_kind.items()}
    assert numbers["test", GOOD] == list(range(fold, GOOD_COUNT, 3))
    assert numbers["test", BAD] == list(range(fold, BAD_COUNT, 3))
    assert sorted(numbers["train", GOOD] + numbers["test", GOOD]) == list(range(GOOD_COUNT))
    assert sorted(numbers["train", BAD] + numbers["test", BAD]) == list(range(BAD_COUNT))
    annotation = root / category / "positive" / "annotation"
    assert all(s.mask == annotation / s.image.name and s.pixel_labels_known for s in by_kind["test", BAD])
    known = [s for s in by_kind["train", BAD] if s.pixel_labels_known]
    assert len(known) == masks * 20 // 100
    assert numbers["train", BAD][: len(known)] == [int(s.image.stem) for s in known]
    assert all((s.mask == annotation / s.image.name) if s in known else s.mask is None for s in by_kind["train", BAD])
    assert all(s.pixel_labels_known and s.mask is None and s.defect == "good" for s in samples if s.label == GOOD)


@pytest.fixture
def small(tmp_path):
    """One product with names of four digits, and lists that hold them as text."""
    touch(tmp_path, "softgel/negative/data/0000.png", "softgel/negative/data/0001.png")
    touch(tmp_path, "softgel/positive/data/0000.png", "softgel/positive/data/0001.png")
    touch(tmp_path, "softgel/positive/annotation/0001.png")
    lists = tmp_path / "sensum_splits" / "softgel" / "0"
    write(lists / "train" / "neg.pckl", [("0000", True)])
    write(lists / "train" / "pos_50.pckl", (("0000", False),))
    write(lists / "test" / "neg.pckl", [("0001", True)])
    write(lists / "test" / "pos.pckl", [("0001", True)])
    return tmp_path


def test_names_of_four_digits(small):
    folder = small / "softgel"
    assert SensumSODF(category="softgel", root=small, masks=50).samples() == [
        Sample(image=folder / "negative/data/0000.png", label=GOOD, split="train"),
        Sample(image=folder / "positive/data/0000.png", label=BAD, split="train", defect="bad",
               pixel_labels_known=False),
        Sample(image=folder / "negative/data/0001.png", label=GOOD, split="test"),
        Sample(image=folder / "positive/data/0001.png", label=BAD, split="test", defect="bad",
               mask=folder / "positive/annotation/0001.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("train/neg.pckl", [0], r"train/neg\.pckl, entry 0: found 0; wanted a pair \(number, has mask\)"),
        ("train/neg.pckl", [(0, True), (7, True)],
         r"train/neg\.pckl: 1 image listed in it, not there: 7; ask for SensumSODF at https://"),
        ("test/neg.pckl", [(0, True)], r"test/neg\.pckl: 1 image also listed in .*/train/neg\.pckl: 0"),
        ("train/pos_50.pckl", [(0, True)], r"positive/data/0000\.png: no mask of its name in positive/annotation"),
        ("test/pos.pckl", None, r"test/pos\.pckl: no such file; ask for SensumSODF"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be(small, file, entries, message):
    path = small / "sensum_splits" / "softgel" / "0" / file
    if entries is None:
        path.unlink()
    else:
        write(path, entries)
    with pytest.raises(DataError, match=message):
        SensumSODF(category="softgel", root=small, masks=50).samples()


def test_a_list_that_would_run_a_program(small):
    (small / "sensum_splits/softgel/0/train/neg.pckl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"train/neg\.pckl: asks for os\.system; .* nothing in it was run"):
        SensumSODF(category="softgel", root=small, masks=50).samples()


def test_missing_product(small):
    with pytest.raises(
        DataError, match=rf"^{small}/capsule/negative/data: no such folder; ask for SensumSODF at https"
    ):
        SensumSODF(category="capsule", root=small).samples()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "tablet"}, "category: 'tablet'; wanted capsule or softgel"),
        ({"category": "capsule", "fold": 3}, "fold: 3; wanted 0, 1, 2"),
        ({"category": "capsule", "masks": 15}, "masks: 15; wanted 0, 10, 20, .*, 100, of a hundred"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        SensumSODF(**arguments)
