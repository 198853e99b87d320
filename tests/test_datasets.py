"""Data sources on small replicas of each layout, and on the real one at hand."""

from collections import Counter
from pathlib import Path

import jsonargparse
import pyarrow
import pytest
from pyarrow import parquet

from supersimplenet.data.folder import Folder
from supersimplenet.data.mvtec import MVTecAD
from supersimplenet.data.source import DataSource, training_list_hash
from supersimplenet.data.table import Table
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.records import BAD, GOOD, Sample

HEADER = "image,split,label,defect,mask,group,pixel_labels_known\n"


def touch(root: Path, *names: str) -> Path:
    """Empty files: a data source decodes nothing."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def table(root: Path, text: str, name: str = "samples.csv") -> Path:
    path = root / name
    path.write_text(text)
    return path


@pytest.fixture
def mvtec(tmp_path):
    return touch(
        tmp_path,
        "bottle/train/good/000.png",
        "bottle/train/good/001.png",
        "bottle/test/good/000.png",
        "bottle/test/broken/000.png",
        "bottle/test/broken/001.png",
        "bottle/test/crack 10/000.png",
        "bottle/ground_truth/broken/000_mask.png",
        "bottle/ground_truth/broken/001.png",
        "bottle/ground_truth/crack 10/000_mask.png",
        "cable/train/good/000.png",
        "license.txt",
    )


@pytest.fixture
def parts(tmp_path):
    names = [f"good/{i:03}.png" for i in range(200)]
    return touch(tmp_path, *names, "bad/scratch/1.png", "bad/scratch/2.png", "bad/dent/deep/1.png", "bad/3.png")


# --- MVTecAD -----------------------------------------------------------------------------------------------------


def test_mvtec_ad_layout(mvtec):
    folder = mvtec / "bottle"
    truth = folder / "ground_truth"
    source = MVTecAD(root=mvtec, category="bottle")
    assert source.name == "MVTecAD/bottle"
    assert source.samples() == [
        Sample(image=folder / "train/good/000.png", label=GOOD, split="train"),
        Sample(image=folder / "train/good/001.png", label=GOOD, split="train"),
        Sample(image=folder / "test/broken/000.png", label=BAD, split="test", defect="broken",
               mask=truth / "broken/000_mask.png"),
        Sample(image=folder / "test/broken/001.png", label=BAD, split="test", defect="broken",
               mask=truth / "broken/001.png"),
        Sample(image=folder / "test/crack 10/000.png", label=BAD, split="test", defect="crack 10",
               mask=truth / "crack 10/000_mask.png"),
        Sample(image=folder / "test/good/000.png", label=GOOD, split="test"),
    ]  # fmt: skip


def test_mvtec_ad_root_missing(tmp_path):
    root = tmp_path / "datasets"
    message = (
        rf"^{root}: no such folder; fetch MVTec AD from https://www\.mvtec\.com/\S+ and unpack it so that "
        rf"{root}/bottle/train/good exists$"
    )
    with pytest.raises(DataError, match=message):
        MVTecAD(root=root, category="bottle").samples()


def test_mvtec_ad_category_missing_lists_those_there_are(mvtec):
    message = rf"^{mvtec}/bottl/train/good: no such folder; categories found: bottle, cable; fetch MVTec AD"
    with pytest.raises(DataError, match=message):
        MVTecAD(root=mvtec, category="bottl").samples()


def test_mvtec_ad_mask_missing(mvtec):
    (mvtec / "bottle/ground_truth/broken/001.png").unlink()
    message = rf"^{mvtec}/bottle/test/broken/001\.png: no mask; wanted .*/ground_truth/broken/001_mask\.png; fetch"
    with pytest.raises(DataError, match=message):
        MVTecAD(root=mvtec, category="bottle").samples()


def test_mvtec_ad_without_test_images(mvtec):
    with pytest.raises(DataError, match=r"cable/test: no folder of test images in it; fetch"):
        MVTecAD(root=mvtec, category="cable").samples()


def test_mvtec_ad_without_training_images(mvtec):
    (mvtec / "cable/train/good/000.png").unlink()
    with pytest.raises(DataError, match=r"cable/train/good: no image in it"):
        MVTecAD(root=mvtec, category="cable").samples()


# --- Folder ------------------------------------------------------------------------------------------------------


def train_names(samples: list[Sample]) -> set[str]:
    return {s.image.name for s in samples if s.split == "train"}


def test_folder_holds_out_a_share_and_adding_images_moves_none(parts):
    before = Folder(good=parts / "good").samples()
    held_out = sum(sample.split == "test" for sample in before)
    assert 20 <= held_out <= 60  # 200 draws at 0.2: 40, and 3.5 standard deviations of 5.7 either way
    touch(parts, *[f"good/new/{i}.png" for i in range(300)], "good/000a.png")
    after = {sample.image: sample.split for sample in Folder(good=parts / "good").samples()}
    assert all(after[sample.image] == sample.split for sample in before)


def test_folder_split_depends_on_seed_and_name_alone(parts, tmp_path_factory):
    names = train_names(Folder(good=parts / "good", seed=1).samples())
    assert names != train_names(Folder(good=parts / "good", seed=2).samples())
    elsewhere = touch(tmp_path_factory.mktemp("moved"), *[f"x/{i:03}.png" for i in range(200)])
    assert names == train_names(Folder(good=elsewhere / "x", seed=1).samples())


def test_folder_split_is_the_same_for_ever():
    # Fixed: a change here would mix training and test images of every data set in use.
    # Of {0..7}.png those for which `printf "0\000$i.png" | sha256sum` starts with 0 to 7, so lies below one half.
    source = Folder(good="x", test_fraction=0.5)
    names = [f"{i}.png" for i in range(8)]
    held_out = [name for name in names if source._split(Path("x"), Path("x", name)) == "test"]
    assert held_out == ["4.png", "5.png", "6.png"]


def test_folder_test_fraction(parts):
    assert len(train_names(Folder(good=parts / "good", test_fraction=0).samples())) == 200
    with pytest.raises(ConfigError, match=r"test_fraction: 1\.0; wanted at least 0 and below 1"):
        Folder(good=parts / "good", test_fraction=1.0)


def test_folder_with_test_images_of_its_own(parts):
    touch(parts, "spare/1.png")
    samples = Folder(good=parts / "good", test_good=[parts / "spare"]).samples()
    assert len(train_names(samples)) == 200
    assert [s.image for s in samples if s.split == "test"] == [parts / "spare/1.png"]


def test_folder_bad_images_are_for_testing_with_their_type(parts):
    bad = [s for s in Folder(good=parts / "good", bad=parts / "bad").samples() if s.label == BAD]
    assert [(s.image.relative_to(parts / "bad").as_posix(), s.defect) for s in bad] == [
        ("3.png", "bad"),
        ("dent/deep/1.png", "dent"),
        ("scratch/1.png", "scratch"),
        ("scratch/2.png", "scratch"),
    ]
    assert {(s.split, s.mask, s.pixel_labels_known) for s in bad} == {("test", None, False)}


def masks_of(parts: Path, *masks: str) -> dict[str, str]:
    touch(parts, *masks)
    samples = Folder(good=parts / "good", bad=parts / "bad", masks=[parts / "gt"]).samples()
    assert all(s.pixel_labels_known == (s.mask is not None) for s in samples if s.label == BAD)
    relative = {s.image.relative_to(parts): s.mask.relative_to(parts) for s in samples if s.mask}
    return {image.as_posix(): mask.as_posix() for image, mask in relative.items()}


def test_folder_masks_by_subfolder_then_by_stem(parts):
    found = masks_of(parts, "gt/scratch/1.png", "gt/dent/deep/1_mask.bmp", "gt/elsewhere/3_mask.png")
    assert found == {
        "bad/scratch/1.png": "gt/scratch/1.png",
        "bad/dent/deep/1.png": "gt/dent/deep/1_mask.bmp",
        "bad/3.png": "gt/elsewhere/3_mask.png",
    }


def test_folder_a_mask_in_its_own_subfolder_is_not_given_to_another_image(parts):
    assert masks_of(parts, "gt/scratch/1.png") == {"bad/scratch/1.png": "gt/scratch/1.png"}  # not to dent/deep/1.png


@pytest.mark.parametrize(
    "masks",
    [
        ["gt/scratch/1.png", "gt/scratch/1_mask.png"],  # two for one image
        ["gt/1.png"],  # one for scratch/1.png or dent/deep/1.png
        ["gt/a/2.png", "gt/b/2_mask.png"],
    ],
)
def test_folder_masks_that_may_belong_to_several_images(parts, masks):
    with pytest.raises(
        DataError, match=r"not clear which mask belongs to which image; images .*; masks .*; give masks"
    ):
        masks_of(parts, *masks)


def test_folder_a_stem_that_itself_ends_in_mask(parts):
    touch(parts, "bad/2_mask.png")
    assert masks_of(parts, "gt/2_mask.png") == {"bad/2_mask.png": "gt/2_mask.png"}
    touch(parts, "bad/2.png")
    with pytest.raises(DataError, match="not clear which mask belongs to which image"):
        masks_of(parts, "gt/2_mask.png")


def test_folder_masks_without_image(parts):
    with pytest.raises(
        DataError, match=r"^5 of 6 masks belong to no bad image: .*gt/10\.png, .*11\.png, .*12\.png and 2"
    ):
        masks_of(parts, "gt/3.png", *[f"gt/{i}.png" for i in range(10, 15)])
    with pytest.raises(DataError, match=r"^6 of 6 masks belong to no bad image"):
        Folder(good=parts / "good", masks=parts / "gt").samples()


def test_folder_overlaps_are_refused(parts):
    with pytest.raises(DataError, match=rf"^{parts}/good/000\.png: found in good and again in test_good; give folders"):
        Folder(good=parts / "good", test_good=parts / "good").samples()
    with pytest.raises(DataError, match=r"bad/3\.png: found in good and again in bad"):
        Folder(good=parts, bad=parts / "good/../bad").samples()


def test_folder_takes_one_path_or_several(parts):
    one = Folder(good=str(parts / "good"), bad=parts / "bad")
    several = Folder(
        good=[parts / "good"], bad=(parts / "bad" / "scratch", parts / "bad" / "dent", parts / "bad/3.png")
    )
    assert {s.image for s in one.samples()} == {s.image for s in several.samples()}
    assert {s.defect for s in several.samples()} == {"good", "scratch", "deep", "bad"}
    with pytest.raises(ConfigError, match="good: no folder"):
        Folder(good=[])


def test_folder_that_leaves_nothing_for_training(tmp_path):
    touch(tmp_path, "good/1.png")
    with pytest.raises(DataError, match="none of 1 good images is left for training; lower test_fraction"):
        Folder(good=tmp_path / "good", test_fraction=0.999999).samples()
    with pytest.raises(DataError, match="gone: no such folder"):
        Folder(good=tmp_path / "gone").samples()


# --- Table -------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    return touch(tmp_path, "a.png", "b.png", "c.png", "m.png")


def test_table_csv(files):
    text = HEADER + "b.png,test,bad,scratch,m.png,010,\nc.png,test,1,,,,\na.png,train,0,,,009,true\n"
    assert Table(path=table(files, text)).samples() == [
        Sample(image=files / "a.png", label=GOOD, split="train", group="009"),
        Sample(image=files / "b.png", label=BAD, split="test", defect="scratch", mask=files / "m.png", group="010"),
        Sample(image=files / "c.png", label=BAD, split="test", defect="bad", pixel_labels_known=False),
    ]


def test_table_required_columns_suffice_in_any_order(files):
    samples = Table(path=table(files, "label,image,split\ngood,a.png,train\n")).samples()
    assert samples == [Sample(image=files / "a.png", label=GOOD, split="train")]


def test_table_text_stays_text(files):
    text = HEADER + "a.png,train,0,,,009,\nb.png,test,1,007,m.png,1e3,\nc.png,test,1,NA,,null,\n"
    samples = Table(path=table(files, text)).samples()
    assert [(s.defect, s.group) for s in samples] == [("good", "009"), ("007", "1e3"), ("NA", "null")]


def test_table_a_mask_can_be_left_unused(files):
    text = HEADER + "a.png,train,0,,,,\nb.png,test,1,,m.png,,false\n"
    sample = Table(path=table(files, text)).samples()[1]
    assert sample.mask == files / "m.png"
    assert not sample.pixel_labels_known


def test_table_parquet_gives_what_csv_gives(files):
    columns = {
        "image": ["a.png", "b.png"],
        "split": ["train", "test"],
        "label": [0, 1],
        "mask": [None, "m.png"],
        "group": pyarrow.array(["009", "010"]).dictionary_encode(),
        "pixel_labels_known": [None, True],
    }
    parquet.write_table(pyarrow.table(columns), files / "s.parquet")
    text = "image,split,label,mask,group,pixel_labels_known\na.png,train,0,,009,\nb.png,test,1,m.png,010,True\n"
    from_parquet = Table(path=files / "s.parquet").samples()
    assert from_parquet == Table(path=table(files, text)).samples()
    assert from_parquet[0].group == "009"


def test_table_root(files, tmp_path_factory):
    path = table(tmp_path_factory.mktemp("lists"), f"image,split,label\na.png,train,0\n{files / 'b.png'},test,0\n")
    assert [s.image for s in Table(path=path, root=files).samples()] == [files / "a.png", files / "b.png"]
    with pytest.raises(
        DataError, match=rf"row 2: image: {path.parent}/a\.png: no such file; correct the path, or root"
    ):
        Table(path=path).samples()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gone.png,test,0,,,,", r"row 3: image: .*gone\.png: no such file; correct the path, or root \("),
        (",test,0,,,,", "row 3: image: empty; wanted a path"),
        ("b.png,,0,,,,", "row 3: split: ''; wanted train or test"),
        ("b.png, test,0,,,,", "row 3: split: ' test'; wanted train or test"),
        ("b.png,test,,,,,", "row 3: label: ''; wanted 0, 1, good or bad"),
        ("b.png,test,2,,,,", "row 3: label: '2'; wanted 0, 1, good or bad"),
        ("b.png,test,0,scratch,,,", "row 3: defect: 'scratch' with label 0; correct one of them"),
        ("b.png,test,bad,good,,,", "row 3: defect: 'good' with label bad; correct one of them"),
        ("b.png,test,0,,m.png,,", "row 3: mask: given for a good image; leave it empty, or label the image bad"),
        ("b.png,test,1,,gone.png,,", r"row 3: mask: .*gone\.png: no such file"),
        ("b.png,test,1,,m.png,,maybe", "row 3: pixel_labels_known: 'maybe'; wanted true, false, 1 or 0"),
        ("b.png,test,0,,,,0", "row 3: pixel_labels_known: false for a good image"),
        ("b.png,test,1,,,,1", "row 3: pixel_labels_known: true for a bad image without a mask"),
        ("./a.png,train,0,,,,", r"row 3: image \./a\.png is in row 2 too; keep one"),
        ("b.png,test,0,,,009,", "1 groups stand in train and in test: 009; put all images of one part into one split"),
        ("b.png,test", "not a readable CSV table"),
    ],
)
def test_table_rows_that_cannot_be(files, row, message):
    path = table(files, HEADER + "a.png,train,0,,,009,\n" + row + "\n")
    with pytest.raises(DataError, match=rf"^{path}[,:] .*{message}"):
        Table(path=path).samples()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV table"),
        ("image,split\na.png,train\n", "no column label; found image, split"),
        (
            "image,split,label,lable,x\na.png,train,0,0,0\n",
            "unknown columns lable, x; known are image, split, label, def",
        ),
        ("image;split;label\na.png;train;0\n", "unknown columns image;split;label; known are"),
        (
            "image,image,split,label\na.png,b.png,train,0\n",
            "a column stands twice: image, image, split, label; keep one",
        ),
        ("image,split,label\n", "no row; wanted a row for each image"),
    ],
)
def test_tables_that_cannot_be(files, text, message):
    path = table(files, text)
    with pytest.raises(DataError, match=rf"^{path}: {message}"):
        Table(path=path).samples()


def test_table_missing_or_not_parquet(files):
    with pytest.raises(DataError, match=r"gone\.csv: no such file; check the path of the table"):
        Table(path=files / "gone.csv").samples()
    with pytest.raises(DataError, match=r"x\.parquet: not a readable Parquet table"):
        Table(path=table(files, "image,split,label\n", "x.parquet")).samples()


def test_table_parquet_counts_rows_from_one(files):
    parquet.write_table(pyarrow.table({"image": ["a.png"], "split": ["train"], "label": [2]}), files / "s.parquet")
    with pytest.raises(DataError, match=r"s\.parquet, row 1: label: '2'"):
        Table(path=files / "s.parquet").samples()


# --- all sources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "MVTecAD", "--data.root", "X", "--data.category", "bottle"],
         {"root": Path("X"), "category": "bottle", "name": "MVTecAD/bottle"}),
        (["--data", "Folder", "--data.good", "a b", "--data.bad", "[c,d]", "--data.seed", "3"],
         {"good": [Path("a b")], "bad": [Path("c"), Path("d")], "masks": [], "seed": 3}),
        (["--data", "Folder", "--data.good+", "a", "--data.good+", "b"], {"good": [Path("a"), Path("b")]}),
        (["--data", "Table", "--data.path", "x/s.csv"], {"path": Path("x/s.csv"), "root": Path("x")}),
    ],
)  # fmt: skip
def test_sources_from_the_command_line(arguments, expected):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataSource)
    parsed = parser.parse_args(arguments)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the latter before 4.49
    source = instantiate(parsed).data
    assert {name: getattr(source, name) for name in expected} == expected


def test_every_parameter_is_described_on_the_command_line(capsys):
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--data", type=DataSource)
    for source, words in [
        ("MVTecAD", ["The category's folder, such as bottle.", "The folder that holds the categories."]),
        ("Folder", ["Folder or folders of good images.", "Share of the good images", "Another seed holds out"]),
        ("Table", ["The table's file.", "The folder that relative paths in it start from."]),
    ]:
        with pytest.raises(SystemExit):
            parser.parse_args([f"--data.help={source}"])
        shown = " ".join(capsys.readouterr().out.split())
        assert all(word in shown for word in words)


# --- hash --------------------------------------------------------------------------------------------------------


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
               pixel_labels_known=facts["known"], ignore=ignore),
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
    changes += [{"ignore": b"M"}, {"ignore": b"N"}]
    assert len({first, *(hashed(tmp_path / str(i), **change) for i, change in enumerate(changes))}) == 8


def test_hash_of_nothing(tmp_path):
    with pytest.raises(DataError, match="no training sample to hash"):
        training_list_hash([Sample(image=tmp_path / "a.png", label=GOOD, split="test")])
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(No such file or directory\)"):
        training_list_hash([Sample(image=tmp_path / "a.png", label=GOOD, split="train")])


# --- real data ---------------------------------------------------------------------------------------------------


def test_magnetic_tile(shared_dir):
    samples = Table(path=shared_dir / "magnetic_tile" / "samples.csv").samples()
    counts = Counter((sample.split, sample.label) for sample in samples)
    assert counts == {("train", GOOD): 330, ("train", BAD): 133, ("test", GOOD): 192, ("test", BAD): 103}
    groups = {split: {s.group for s in samples if s.split == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"]
    assert "009" in groups["test"]  # and not 9
    assert all(s.pixel_labels_known and (s.mask is not None) == (s.label == BAD) for s in samples)
    assert {s.defect for s in samples} == {"good", "blowhole", "break", "crack", "fray", "uneven"}


def test_magnetic_tile_photographs_can_be_found_by_folder_too(shared_dir):
    folder = shared_dir / "magnetic_tile"
    bad = [folder / "test" / name for name in ("blowhole", "break", "crack", "fray", "uneven")]
    source = Folder(
        good=folder / "train/good", test_good=folder / "test/good", bad=bad, masks=folder / "ground_truth/test"
    )
    samples = source.samples()
    of_table = Table(path=folder / "samples.csv").samples()
    wanted = {s.image: (s.defect, s.mask) for s in of_table if s.split == "test" or s.label == GOOD}
    assert {s.image: (s.defect, s.mask) for s in samples} == wanted


def test_a_leak_between_the_splits_of_real_data_is_found(shared_dir, tmp_path):
    text = (shared_dir / "magnetic_tile" / "samples.csv").read_text().splitlines()
    leaky = [line.replace(",test,", ",train,") if i % 5 == 0 else line for i, line in enumerate(text)]
    path = table(tmp_path, "\n".join(leaky) + "\n")
    with pytest.raises(
        DataError, match=r"groups stand in train and in test: .* and \d+ more; put all images of one part"
    ):
        Table(path=path, root=shared_dir / "magnetic_tile").samples()
