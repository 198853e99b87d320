"""VisA as shipped and as converted: the same samples, found out by what is there."""

import pytest
from layouts import touch, write_mask

from supersimplenet.datasets.visa import VisA
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.types import BAD, GOOD, Sample

HEADER = "object,split,label,image,mask\n"


@pytest.fixture
def shipped(tmp_path):
    """Two categories: names of four digits in candle, of three in cashew, photographs that end in .JPG."""
    rows = []
    for category, digits in (("candle", 4), ("cashew", 3)):
        for number in range(3):
            image = f"{category}/Data/Images/Normal/{number:0{digits}}.JPG"
            touch(tmp_path, image)
            rows.append(f"{category},{'test' if number == 2 else 'train'},normal,{image},")
        for number in range(2):
            image, mask = (
                f"{category}/Data/{k}/Anomaly/{number:03}.{e}" for k, e in (("Images", "JPG"), ("Masks", "png"))
            )
            touch(tmp_path, image)
            write_mask(tmp_path / mask, marked=number + 1)
            rows.append(f"{category},test,anomaly,{image},{mask}")
    touch(tmp_path, "split_csv/1cls.csv")
    (tmp_path / "split_csv/1cls.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return tmp_path


def convert(root, folder):
    touch(root / folder / "candle", "train/good/0000.JPG", "train/good/0001.JPG", "test/good/0002.JPG")
    touch(root / folder / "candle", "test/bad/000.JPG", "test/bad/001.JPG")
    for number in range(2):
        write_mask(root / folder / "candle" / "ground_truth" / "bad" / f"00{number}.png", marked=255)
    return root


def kinds(samples):
    return [(s.image.name, s.split, s.label, s.defect, s.mask and s.mask.name, s.mask_any_value) for s in samples]


def test_as_shipped(shipped):
    images, masks = shipped / "candle/Data/Images", shipped / "candle/Data/Masks/Anomaly"
    marks = {"label": BAD, "split": "test", "defect": "bad", "mask_any_value": True}
    source = VisA(root=shipped, category="candle")
    assert source.samples() == [
        Sample(image=images / "Normal/0000.JPG", label=GOOD, split="train"),
        Sample(image=images / "Normal/0001.JPG", label=GOOD, split="train"),
        Sample(image=images / "Anomaly/000.JPG", mask=masks / "000.png", **marks),
        Sample(image=images / "Anomaly/001.JPG", mask=masks / "001.png", **marks),
        Sample(image=images / "Normal/0002.JPG", label=GOOD, split="test"),
    ]
    assert (source.name, source.image_size, source.perlin_threshold) == ("VisA/candle", (256, 256), 0.6)
    assert [s.image.name for s in VisA(root=shipped, category="cashew").samples()] == [
        "000.JPG", "001.JPG", "000.JPG", "001.JPG", "002.JPG",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["visa_pytorch", "VisA_pytorch/1cls", "."])
def test_converted_it_is_the_same(shipped, tmp_path_factory, folder):
    converted = convert(tmp_path_factory.mktemp("converted"), folder)
    assert kinds(VisA(root=converted, category="candle").samples()) == kinds(
        VisA(root=shipped, category="candle").samples()
    )


def test_where_both_are_there_the_one_as_shipped_is_read(shipped):
    convert(shipped, "visa_pytorch")
    assert all("Data" in s.image.parts for s in VisA(root=shipped, category="candle").samples())


def test_every_value_of_a_mask_but_0_counts(shipped):
    bad = [s for s in VisA(root=shipped, category="candle").samples() if s.label == BAD]
    assert [read_mask(s.mask, image_size_px=None, any_value=s.mask_any_value).sum() for s in bad] == [1, 1]
    assert [read_mask(s.mask, image_size_px=None).sum() for s in bad] == [1, 0]  # class number 2 is below half


def test_neither_form_is_there(shipped, tmp_path):
    message = (
        rf"^{shipped}: pcb1 is there neither as shipped \(pcb1/Data and split_csv/1cls\.csv\) nor converted "
        r"\(visa_pytorch/pcb1/train/good\); categories found: candle, cashew; fetch VisA from https://"
    )
    with pytest.raises(DataError, match=message):
        VisA(root=shipped, category="pcb1").samples()
    (shipped / "split_csv/1cls.csv").unlink()
    with pytest.raises(DataError, match=r"candle is there neither as shipped .* nor converted \(\S+\); fetch VisA"):
        VisA(root=shipped, category="candle").samples()
    with pytest.raises(DataError, match=r"gone: no such folder; fetch VisA from https://\S+ and unpack it so that "):
        VisA(root=tmp_path / "gone", category="candle").samples()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("object,split,image\n", r"1cls\.csv: found the columns object, split, image; wanted object, split, label, im"),
        ("", r"1cls\.csv: found the columns ; wanted object, split, label"),
        (HEADER, r"1cls\.csv: no training or no test image of candle; fetch VisA"),
        (HEADER + "candle,train,normal,gone.JPG,\n", r"1cls\.csv, row 2: .*/gone\.JPG: no such file; fetch VisA"),
        (HEADER + "candle,test,anomaly,a.JPG,gone.png\n", r"1cls\.csv, row 2: .*/gone\.png: no such file"),
        (HEADER + "candle,test,anomaly,a.JPG,\n", r"1cls\.csv, row 2: \S+: no such file"),
        (
            HEADER + "cashew,x,y,z,\ncandle,val,normal,a.JPG,\n",
            r"1cls\.csv, row 3: split 'val', label 'normal'; wanted",
        ),
        (HEADER + "candle,train,odd,a.JPG,\n", r"row 2: split 'train', label 'odd'; wanted train or test, normal or"),
    ],
)
def test_tables_that_cannot_be(shipped, text, message):
    touch(shipped, "a.JPG")
    (shipped / "split_csv/1cls.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        VisA(root=shipped, category="candle").samples()


def test_bad_training_images(shipped):
    path = shipped / "split_csv/1cls.csv"
    text = path.read_text().replace("candle,test,anomaly", "candle,train,anomaly")
    path.write_text(text.replace("candle/Data/Masks/Anomaly/001.png", ""))
    samples = VisA(root=shipped, category="candle").samples()
    found = {s.image.name: (s.split, s.mask and s.mask.name, s.pixel_labels_known) for s in samples if s.label == BAD}
    assert found == {"000.JPG": ("train", "000.png", True), "001.JPG": ("train", None, False)}
