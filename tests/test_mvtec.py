"""MVTec AD's layout, and what may be added to it."""

from dataclasses import replace

import pytest
from layouts import touch

from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.table import Table
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.listing import counting
from supersimplenet.types import BAD, GOOD, Sample


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
        rf"^{root}: no such folder; supersimplenet data download MVTecAD, or unpack https://www\.mvtec\.com/\S+ "
        rf"so that {root}/bottle/train/good exists$"
    )
    with pytest.raises(DataError, match=message):
        MVTecAD(root=root, category="bottle").samples()


def test_mvtec_ad_category_missing_lists_those_there_are(mvtec):
    message = rf"^{mvtec}/bottl/train/good: no such folder; categories found: bottle, cable; supersimplenet"
    with pytest.raises(DataError, match=message):
        MVTecAD(root=mvtec, category="bottl").samples()


def test_mvtec_ad_mask_missing(mvtec):
    (mvtec / "bottle/ground_truth/broken/001.png").unlink()
    message = rf"^{mvtec}/bottle/test/broken/001\.png: no mask; wanted .*/ground_truth/broken/001_mask\.png; "
    with pytest.raises(DataError, match=message):
        MVTecAD(root=mvtec, category="bottle").samples()


def test_mvtec_ad_without_test_images(mvtec):
    with pytest.raises(DataError, match=r"cable/test: no folder of test images in it; supersimplenet data download"):
        MVTecAD(root=mvtec, category="cable").samples()


def test_mvtec_ad_without_training_images(mvtec):
    (mvtec / "cable/train/good/000.png").unlink()
    with pytest.raises(DataError, match=r"cable/train/good: no image in it"):
        MVTecAD(root=mvtec, category="cable").samples()


# --- bad training images, second masks ---------------------------------------------------------------------------


def test_mvtec_ad_bad_training_images_with_masks_and_without(mvtec):
    folder = touch(
        mvtec / "bottle",
        "train/broken/010.jpg",
        "train/broken/011.jpg",
        "train/broken/012.JPG",
        "train/dent/000.png",
        "ground_truth/broken/010_mask.png",
        "ground_truth/train/broken/011.png",
    )
    truth = folder / "ground_truth"
    bad = [s for s in MVTecAD(root=mvtec, category="bottle").samples() if s.split == "train" and s.label == BAD]
    unknown = {"split": "train", "label": BAD, "mask": None, "pixel_labels_known": False}
    assert bad == [
        Sample(image=folder / "train/broken/010.jpg", label=BAD, split="train", defect="broken",
               mask=truth / "broken/010_mask.png"),
        Sample(image=folder / "train/broken/011.jpg", label=BAD, split="train", defect="broken",
               mask=truth / "train/broken/011.png"),
        Sample(image=folder / "train/broken/012.JPG", defect="broken", **unknown),
        Sample(image=folder / "train/dent/000.png", defect="dent", **unknown),
    ]  # fmt: skip


def test_mvtec_ad_masks_by_split_come_first(mvtec):
    touch(mvtec / "bottle", "ground_truth/test/broken/000.png", "train/broken/000.png")
    masks = {s.image: s.mask for s in MVTecAD(root=mvtec, category="bottle").samples() if s.defect == "broken"}
    truth = mvtec / "bottle" / "ground_truth"
    assert masks[mvtec / "bottle/test/broken/000.png"] == truth / "test/broken/000.png"
    assert masks[mvtec / "bottle/train/broken/000.png"] == truth / "broken/000_mask.png"


def test_mvtec_ad_one_mask_for_a_training_and_a_test_image(mvtec):
    touch(mvtec / "bottle", "train/broken/000.png")
    message = (
        r"ground_truth/broken/000_mask\.png: not clear whether it is the mask of .*/train/broken/000\.png or of "
        r".*/test/broken/000\.png; put masks into ground_truth/train/broken and ground_truth/test/broken"
    )
    with pytest.raises(DataError, match=message):
        MVTecAD(root=mvtec, category="bottle").samples()


def test_mvtec_ad_second_masks(mvtec):
    touch(
        mvtec / "bottle/ignore",
        "train/good/001.png",
        "test/good/000.png",
        "test/broken/001.png",
        "test/broken/nobody.png",
    )
    samples = MVTecAD(root=mvtec, category="bottle").samples()
    below = mvtec / "bottle"
    found = {s.image.relative_to(below).as_posix(): s.ignore.relative_to(below).as_posix() for s in samples if s.ignore}
    assert found == {
        f"{name}.png": f"ignore/{name}.png" for name in ("train/good/001", "test/good/000", "test/broken/001")
    }


def test_magnetic_tile_by_its_folders_is_what_its_table_says(shared_dir):
    by_folder = MVTecAD(root=shared_dir, category="magnetic_tile").samples()
    by_table = Table(path=shared_dir / "magnetic_tile" / "samples.csv").samples()
    assert len(by_folder) == 758
    assert by_folder == [replace(sample, group=None) for sample in by_table]


def test_pictures_beside_the_folders_of_types_are_counted(tmp_path):
    root = touch(tmp_path, "c/train/good/1.png", "c/train/2.png", "c/test/good/3.png", "c/test/notes.txt")
    with counting() as left_out:
        assert len(MVTecAD(root=root, category="c").samples()) == 2
    assert left_out.describe() == f"left out: 1 picture beside the folders of types ({root}/c/train/2.png)"
