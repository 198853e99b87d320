"""Folders of one's own: splits, defect types, masks and parts."""

from pathlib import Path

import numpy as np
import pytest
from layouts import touch
from PIL import Image

from supersimplenet.cli.data import check_data
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.registry import describe_source, source_from
from supersimplenet.datasets.table import Table
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.types import BAD, GOOD, Sample


@pytest.fixture
def parts(tmp_path):
    names = [f"good/{i:03}.png" for i in range(200)]
    return touch(tmp_path, *names, "bad/scratch/1.png", "bad/scratch/2.png", "bad/dent/deep/1.png", "bad/3.png")


def train_names(samples: list[Sample]) -> set[str]:
    return {s.image.name for s in samples if s.split == "train"}


@pytest.mark.parametrize("good", ["slabs/train/good", "slabs/Good", "slabs/images", "slabs"])
def test_folder_is_named_by_the_nearest_folder_that_is_no_common_one(tmp_path, good):
    (tmp_path / good).mkdir(parents=True)
    assert Folder(good=tmp_path / good).name == "Folder/slabs"


def test_folder_holds_out_a_share_and_adding_images_moves_few(parts):
    """A model's record of the splits moves none; see test_parts.py."""
    before = Folder(good=parts / "good").samples()
    assert sum(sample.split == "test" for sample in before) == 40
    touch(parts, "good/000a.png")
    after = {sample.image: sample.split for sample in Folder(good=parts / "good").samples()}
    assert sum(after[sample.image] != sample.split for sample in before) <= 1
    touch(parts, *[f"good/new/{i}.png" for i in range(299)])
    after = {sample.image: sample.split for sample in Folder(good=parts / "good").samples()}
    assert sum(split == "test" for split in after.values()) == 100


def test_folder_by_rule_1_holds_out_a_share_on_average_and_adding_images_moves_none(parts):
    before = Folder(good=parts / "good", split_rule=1).samples()
    held_out = sum(sample.split == "test" for sample in before)
    assert 20 <= held_out <= 60  # 200 draws at 0.2: 40, and 3.5 standard deviations of 5.7 either way
    touch(parts, *[f"good/new/{i}.png" for i in range(300)], "good/000a.png")
    after = {sample.image: sample.split for sample in Folder(good=parts / "good", split_rule=1).samples()}
    assert all(after[sample.image] == sample.split for sample in before)


def test_folder_split_depends_on_seed_and_name_alone(parts, tmp_path_factory):
    names = train_names(Folder(good=parts / "good", seed=1).samples())
    assert names != train_names(Folder(good=parts / "good", seed=2).samples())
    elsewhere = touch(tmp_path_factory.mktemp("moved"), *[f"x/{i:03}.png" for i in range(200)])
    assert names == train_names(Folder(good=elsewhere / "x", seed=1).samples())


def test_folder_split_is_the_same_for_ever(tmp_path):
    # Fixed: a change here would mix training and test images of every dataset in use.
    # By rule 1, of {0..7}.png those for which `printf "0\000$i.png" | sha256sum` starts with 0 to 7:
    # below one half.
    touch(tmp_path, *[f"x/{i}.png" for i in range(8)])
    samples = Folder(good=tmp_path / "x", test_fraction=0.5, split_rule=1).samples()
    assert [s.image.name for s in samples if s.split == "test"] == ["4.png", "5.png", "6.png"]
    # By rule 2, those four that have the lowest sums.
    samples = Folder(good=tmp_path / "x", test_fraction=0.5).samples()
    assert [s.image.name for s in samples if s.split == "test"] == ["3.png", "4.png", "5.png", "6.png"]


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
    with pytest.raises(DataError, match=r"^5 masks without an image: .*gt/10\.png, .*11\.png, .*12\.png and 2"):
        masks_of(parts, "gt/3.png", *[f"gt/{i}.png" for i in range(10, 15)])
    with pytest.raises(DataError, match=r"^6 masks without an image"):
        Folder(good=parts / "good", masks=parts / "gt").samples()


@pytest.mark.parametrize("suffix", ["", "_mask", "_GT", "_gt", "_label", "_seg"])
def test_folder_masks_with_the_usual_suffixes_are_found(parts, suffix):
    assert masks_of(parts, f"gt/scratch/2{suffix}.png") == {"bad/scratch/2.png": f"gt/scratch/2{suffix}.png"}


def test_folder_a_suffix_of_one_s_own(parts):
    touch(parts, "gt/scratch/2_defect.png", "gt/3.png")
    with pytest.raises(DataError, match=r"1 mask without an image: .*2_defect\.png; .*\(mask_suffix names another\)"):
        Folder(good=parts / "good", bad=parts / "bad", masks=parts / "gt").samples()
    source = Folder(good=parts / "good", bad=parts / "bad", masks=parts / "gt", mask_suffix="_defect")
    found = {s.image.relative_to(parts).as_posix(): s.mask.name for s in source.samples() if s.mask}
    assert found == {"bad/3.png": "3.png", "bad/scratch/2.png": "2_defect.png"}
    assert source_from(describe_source(source)).samples() == source.samples()


def test_folder_masks_of_good_images_are_empty_and_orphans_are_one_finding(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("good/1.png", "good/2.png", "good/3.png", "bad/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "gt").mkdir()
    for number, level in ((1, 0), (2, 0), (4, 255), (7, 255)):
        Image.new("L", (32, 32), level).save(tmp_path / "gt" / f"{number}_GT.png")
    source = Folder(good=tmp_path / "good", bad=tmp_path / "bad", masks=tmp_path / "gt", test_fraction=0)
    with pytest.raises(DataError, match=r"1 mask without an image: .*7_GT\.png"):
        source.samples()
    report = check_data(source, output=tmp_path / "out")
    orphans = next(finding for finding in report.findings if finding.code == "mask-orphan")
    assert (orphans.level, orphans.images) == ("error", (tmp_path / "gt" / "7_GT.png",))
    assert (tmp_path / "out" / "mask-orphan.png").is_file()
    assert "7_GT.png" in capsys.readouterr().out
    assert "mask-of-good" not in {finding.code for finding in report.findings}
    (tmp_path / "gt" / "7_GT.png").unlink()
    assert [sample.mask for sample in source.samples()] == [None] * 3 + [tmp_path / "gt" / "4_GT.png"]
    Image.new("L", (32, 32), 255).save(tmp_path / "gt" / "2_GT.png")
    with pytest.raises(DataError, match=r"2_GT\.png: marks a defect in .*2\.png, which is good; move the image to bad"):
        source.samples()
    assert "mask-of-good" in {finding.code for finding in check_data(source).findings}


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
    with pytest.raises(DataError, match="gone: no such file or folder"):
        Folder(good=tmp_path / "gone").samples()


# --- bad training images, second masks, parts --------------------------------------------------------------------


def test_folder_bad_images_for_training_with_their_masks(parts):
    touch(parts, "more/scratch/9.jpg", "more/7.jpg", "gt/scratch/9_mask.png", "gt/scratch/2.png")
    source = Folder(good=parts / "good", bad=parts / "bad", train_bad=parts / "more", masks=parts / "gt")
    bad = {s.image.relative_to(parts).as_posix(): s for s in source.samples() if s.label == BAD}
    assert {name for name, s in bad.items() if s.split == "train"} == {"more/scratch/9.jpg", "more/7.jpg"}
    assert len(bad) == 6
    found = {name: (s.defect, s.mask.name) for name, s in bad.items() if s.pixel_labels_known}
    assert found == {"more/scratch/9.jpg": ("scratch", "9_mask.png"), "bad/scratch/2.png": ("scratch", "2.png")}
    assert bad["more/7.jpg"].mask is None


def test_folder_a_share_of_the_bad_images_for_training(parts):
    touch(parts, *[f"bad/dent/{i}.png" for i in range(100, 300)])

    def trained(fraction: float, seed: int = 0) -> set[str]:
        samples = Folder(good=parts / "good", bad=parts / "bad", bad_train_fraction=fraction, seed=seed).samples()
        return {s.image.relative_to(parts / "bad").as_posix() for s in samples if s.label == BAD and s.split == "train"}

    few, more = trained(0.25), trained(0.5)
    assert 30 <= len(few) <= 72  # 204 draws at 0.25: 51, and 3.4 standard deviations of 6.2 either way
    assert few < more  # a larger share keeps what the smaller one chose
    assert few != trained(0.25, seed=1)
    assert (len(trained(0)), len(trained(1))) == (0, 204)
    touch(parts, *[f"bad/new/{i}.png" for i in range(50)])
    assert {name for name in trained(0.25) if not name.startswith("new/")} == few
    with pytest.raises(ConfigError, match=r"bad_train_fraction: 1\.1; wanted 0 to 1"):
        trained(1.1)


def test_folder_the_share_of_bad_images_changes_no_good_one(parts):
    def good(fraction: float) -> dict[Path, str]:
        source = Folder(good=parts / "good", bad=parts / "bad", bad_train_fraction=fraction)
        return {s.image: s.split for s in source.samples() if s.label == GOOD}

    assert good(0) == good(0.5) == good(1)


def test_folder_bad_images_alone_cannot_be_trained_on(tmp_path):
    touch(tmp_path, "good/1.png", "bad/1.png")
    with pytest.raises(DataError, match="none of 1 good images is left for training"):
        Folder(good=tmp_path / "good", train_bad=tmp_path / "bad", test_fraction=0.999999).samples()


def test_folder_second_masks_of_good_and_bad_images(parts):
    touch(parts, "skip/000.png", "skip/scratch/1_mask.png", "skip/3.png")
    samples = Folder(good=parts / "good", bad=parts / "bad", ignore=parts / "skip").samples()
    found = {s.image.relative_to(parts).as_posix(): s.ignore.relative_to(parts).as_posix() for s in samples if s.ignore}
    assert found == {
        "good/000.png": "skip/000.png",
        "bad/scratch/1.png": "skip/scratch/1_mask.png",
        "bad/3.png": "skip/3.png",
    }
    assert all(s.mask is None for s in samples)
    touch(parts, "skip/nobody.png")
    with pytest.raises(DataError, match=r"^1 mask without an image: .*nobody\.png; wanted the image's stem"):
        Folder(good=parts / "good", bad=parts / "bad", ignore=parts / "skip").samples()


@pytest.fixture
def photographed(tmp_path):
    """Ninety parts photographed three times each; of every tenth part, one photograph is bad."""
    for part in range(90):
        for view in "abc":
            folder = "bad" if part % 10 == 0 and view == "c" else "good"
            touch(tmp_path, f"{folder}/part{part:02}_{view}.png")
    return tmp_path


@pytest.mark.parametrize("fraction", [0, 0.5, 1])
def test_folder_all_photographs_of_a_part_land_in_one_split(photographed, fraction):
    source = Folder(
        good=photographed / "good",
        bad=photographed / "bad",
        test_fraction=0.3,
        bad_train_fraction=fraction,
        group_pattern=r"(part\d+)_",
    )
    samples = source.samples()
    assert len(samples) == 270
    assert all(s.group == s.image.name[:6] for s in samples)
    splits = {group: {s.split for s in samples if s.group == group} for group in {s.group for s in samples}}
    assert len(splits) == 90
    assert all(len(both) == 1 for both in splits.values())
    damaged = {s.group for s in samples if s.label == BAD}
    assert len(damaged) == 9
    trained = sum(splits[group] == {"train"} for group in damaged)
    assert trained == 9 * fraction if fraction in (0, 1) else 0 < trained < 9
    held_out = sum(splits[group] == {"test"} for group in splits if group not in damaged)
    assert 9 <= held_out <= 40  # 81 draws at 0.3: 24, and 3.7 standard deviations of 4.1 either way


def test_folder_a_part_that_was_put_into_both_splits(photographed):
    touch(photographed, "more/part00_d.png")
    with pytest.raises(DataError, match=r"^part part00: stands in train and in test, by its images in bad, train_bad;"):
        Folder(
            good=photographed / "good",
            bad=photographed / "bad",
            train_bad=photographed / "more",
            group_pattern=r"(part\d+)_",
        ).samples()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("part(", r"group_pattern: 'part\(' is no regular expression \("),
        ("part", "group_pattern: 'part' has 0 groups; wanted one"),
        ("(p)(a)", r"group_pattern: '\(p\)\(a\)' has 2 groups; wanted one"),
    ],
)
def test_folder_patterns_that_cannot_be(pattern, message):
    with pytest.raises(ConfigError, match=message):
        Folder(good="x", group_pattern=pattern)


def test_folder_a_name_without_part(parts):
    with pytest.raises(DataError, match=r"good/000\.png: group_pattern '\(part\\d\+\)' finds no part in its name"):
        Folder(good=parts / "good", group_pattern=r"(part\d+)").samples()


# --- real data ---------------------------------------------------------------------------------------------------


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
