"""What every data source has: a place on the command line, a description, one order, a hash."""

import json
from pathlib import Path

import jsonargparse
import pytest
from layouts import touch

from supersimplenet.datasets.base import DataSource, training_list_hash
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.ksdd2 import KSDD2
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.registry import SOURCES, describe_source, source_from
from supersimplenet.datasets.sensum import SensumSODF
from supersimplenet.datasets.table import Table
from supersimplenet.datasets.visa import VisA
from supersimplenet.errors import DataError
from supersimplenet.types import BAD, GOOD, Sample


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "MVTecAD", "--data.root", "X", "--data.category", "bottle"],
         {"root": Path("X"), "category": "bottle", "name": "MVTecAD/bottle"}),
        (["--data", "Folder", "--data.good", "a b", "--data.bad", "[c,d]", "--data.seed", "3"],
         {"good": [Path("a b")], "bad": [Path("c"), Path("d")], "masks": [], "seed": 3}),
        (["--data", "Folder", "--data.good+", "a", "--data.good+", "b"], {"good": [Path("a"), Path("b")]}),
        (["--data", "Table", "--data.path", "x/s.csv"], {"path": Path("x/s.csv"), "root": Path("x")}),
        (["--data", "Folder", "--data.good", "a", "--data.train_bad", "b", "--data.bad_train_fraction", "0.5",
          "--data.ignore", "c", "--data.group_pattern", "(p.)_"],
         {"train_bad": [Path("b")], "bad_train_fraction": 0.5, "ignore": [Path("c")], "group_pattern": "(p.)_"}),
        (["--data", "VisA", "--data.root", "X", "--data.category", "candle"],
         {"root": Path("X"), "name": "VisA/candle", "image_size": (256, 256), "perlin_threshold": 0.6}),
        (["--data", "KSDD2", "--data.root", "X"],
         {"root": Path("X"), "masks": None, "name": "KSDD2/masks_all", "image_size": (640, 232)}),
        (["--data", "KSDD2", "--data.masks", "53"], {"masks": 53, "name": "KSDD2/masks_53", "perlin_threshold": None}),
        (["--data", "SensumSODF", "--data.category", "softgel", "--data.fold", "2", "--data.masks", "30"],
         {"fold": 2, "masks": 30, "name": "SensumSODF/softgel/fold_2/masks_30", "image_size": (144, 144)}),
    ],
)  # fmt: skip
def test_sources_from_the_command_line(arguments, expected):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataSource)
    parsed = parser.parse_args(arguments)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the latter before 4.49
    source = instantiate(parsed).data
    assert {name: getattr(source, name) for name in expected} == expected


@pytest.mark.parametrize(
    "source",
    [
        MVTecAD(category="bottle"),
        VisA(category="candle", root=Path("X")),
        KSDD2(masks=16),
        SensumSODF(category="capsule", fold=1, masks=40),
        Folder(good=Path("a"), train_bad=[Path("b")], bad_train_fraction=0.5, ignore=Path("c"), group_pattern="(p.)_"),
        Table(path=Path("x/s.csv")),
    ],
    ids=lambda source: type(source).__name__,
)
def test_a_source_comes_back_from_its_description(source):
    description = json.loads(json.dumps(describe_source(source)))
    again = source_from(description)
    assert type(again) is type(source)
    assert describe_source(again) == description
    assert (again.name, again.image_size) == (source.name, source.image_size)
    assert SOURCES[description["class_path"]] is type(source)


def test_every_parameter_is_described_on_the_command_line(capsys):
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--data", type=DataSource)
    for source, words in [
        ("MVTecAD", ["Name of the category's folder, such as bottle.", "The folder that holds the categories."]),
        ("Folder", ["Folder or folders of good images.", "Share of the images in good", "Seed of the random choice"]),
        ("Table", ["File of the table.", "Folder that relative paths in the table start from."]),
        ("VisA", ["Name of the category's folder, such as candle.", "or visa_pytorch."]),
        ("KSDD2", ["The folder that holds train and test.", "Number of bad training images whose masks are used"]),
        (
            "SensumSODF",
            ["The product, capsule or softgel.", "The fold of the three-fold", "Percentage of the bad training images"],
        ),
    ]:
        with pytest.raises(SystemExit):
            parser.parse_args([f"--data.help={source}"])
        shown = " ".join(capsys.readouterr().out.split())
        assert all(word in shown for word in words)


def hashed(root: Path, **changes: object) -> str:
    """Hash of two training images and a test image below root, with one of its facts changed."""
    facts = {
        "a": b"A",
        "b": b"B",
        "test": b"T",
        "name": "a.png",
        "label": GOOD,
        "mask": None,
        "known": True,
        "ignore": None,
        "any": False,
    }
    facts |= changes
    touch(root, "d/x")
    (root / facts["name"]).write_bytes(facts["a"])
    (root / "d/b.png").write_bytes(facts["b"])
    (root / "d/t.png").write_bytes(facts["test"])
    mask = None
    if facts["mask"] is not None:
        mask = root / "m.png"
        mask.write_bytes(facts["mask"])
    ignore = None
    if facts["ignore"] is not None:
        ignore = root / "i.png"
        ignore.write_bytes(facts["ignore"])
    samples = [
        Sample(image=root / "d/b.png", label=GOOD, split="train"),
        Sample(image=root / facts["name"], label=facts["label"], split="train", mask=mask,
               pixel_labels_known=facts["known"], ignore=ignore, mask_any_value=facts["any"]),
        Sample(image=root / "d/t.png", label=GOOD, split="test"),
    ]  # fmt: skip
    assert training_list_hash(samples) == training_list_hash(samples[::-1])
    return training_list_hash(samples)


def test_hash_is_that_of_the_training_images_wherever_they_lie(tmp_path):
    first = hashed(tmp_path / "here")
    assert first == hashed(tmp_path / "there")
    assert first == hashed(tmp_path / "there", test=b"another test image")
    # as documented, worked out with sha256sum: the lines "a.png 0 1 <A> -" and "d/b.png 0 1 <B> -", NUL between fields
    assert first == "7cb1bf0e1315b82e2eb866471ba032ebfb1c3a74a63a84e19e15fb2490fa8f6e"
    changes = [{"a": b"C"}, {"name": "c.png"}, {"label": BAD}, {"mask": b"M"}, {"known": False}]
    changes += [{"ignore": b"M"}, {"ignore": b"N"}, {"mask": b"M", "any": True}]
    assert len({first, *(hashed(tmp_path / str(i), **change) for i, change in enumerate(changes))}) == 9


def test_hash_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no training sample to hash"):
        training_list_hash([Sample(image=tmp_path / "a.png", label=GOOD, split="test")])
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(No such file or directory\)"):
        training_list_hash([Sample(image=tmp_path / "a.png", label=GOOD, split="train")])
