"""From folders and tables on disk to samples. Nothing is decoded here, and no torch is needed.

Whatever the source, its samples are sorted (training first, then by path in natural order), so that the same files
give the same list on every machine.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from supersimplenet.data.images import list_images, natural_key
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.records import BAD, GOOD, Sample, Split

if TYPE_CHECKING:
    from collections.abc import Iterable

_MVTEC_AD_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
_COLUMNS = ("image", "split", "label", "defect", "mask", "group", "pixel_labels_known")
_LABELS = {"0": GOOD, "good": GOOD, "1": BAD, "bad": BAD}
_PLAIN_NAMES = ("good", "ok", "normal", "train")  # of a folder of good images: its parent names the part
_YES_NO = {"0": False, "false": False, "False": False, "1": True, "true": True, "True": True}


class DataSource(ABC):
    """Where samples come from. A source of one's own needs a name and a list of samples."""

    name: str

    @abstractmethod
    def samples(self) -> list[Sample]:
        """Every sample of both splits, sorted.

        Raises:
            DataError: the data set is missing, incomplete or contradicts itself.
        """


class MVTecAD(DataSource):
    """One category of MVTec AD, or of anything laid out like it.

    Reads ``ROOT/CATEGORY/train/good``, ``test/good``, ``test/<defect type>`` and, for each defective image
    ``NNN.png``, the mask ``ground_truth/<defect type>/NNN_mask.png`` (or ``NNN.png``).

    Args:
        category: The category's folder, such as bottle.
        root: The folder that holds the categories.
    """

    def __init__(self, *, category: str, root: Path = Path("datasets/MVTecAD")) -> None:
        self.category = category
        self.root = Path(root)
        self.name = f"MVTecAD/{category}"

    def samples(self) -> list[Sample]:
        """Every sample of both splits, sorted.

        Raises:
            DataError: root, category, one of its folders, or the mask of a defective image is missing.
        """
        folder = self.root / self.category
        if not (folder / "train" / "good").is_dir():
            raise DataError(self._missing())
        samples = [Sample(image=image, label=GOOD, split="train") for image in list_images(folder / "train" / "good")]
        test = folder / "test"
        types = sorted((p for p in test.glob("[!.]*") if p.is_dir()), key=natural_key)
        if not types:
            raise DataError(f"{test}: no folder of test images in it; {self._advice()}")
        for type_folder in types:
            defect = type_folder.name
            for image in list_images(type_folder):
                if defect == "good":
                    samples.append(Sample(image=image, label=GOOD, split="test"))
                else:
                    mask = self._mask(folder / "ground_truth" / defect, image)
                    samples.append(Sample(image=image, label=BAD, split="test", defect=defect, mask=mask))
        return _sorted(samples)

    def _mask(self, folder: Path, image: Path) -> Path:
        for candidate in (folder / f"{image.stem}_mask.png", folder / f"{image.stem}.png"):
            if candidate.is_file():
                return candidate
        raise DataError(f"{image}: no mask; wanted {folder / image.stem}_mask.png; {self._advice()}")

    def _missing(self) -> str:
        if not self.root.is_dir():
            return f"{self.root}: no such folder; {self._advice()}"
        found = sorted(p.parent.parent.name for p in self.root.glob("*/train/good"))
        categories = f"; categories found: {', '.join(found)}" if found else ""
        return f"{self.root / self.category / 'train' / 'good'}: no such folder{categories}; {self._advice()}"

    def _advice(self) -> str:
        wanted = self.root / "bottle" / "train" / "good"
        return f"fetch MVTec AD from {_MVTEC_AD_PAGE} and unpack it so that {wanted} exists"


class Folder(DataSource):
    """Folders of one's own: good images, and bad ones and masks where there are any.

    Each folder is searched at any depth. Bad images go to the test split. The type of a defect is the name of the
    subfolder of ``bad`` that it lies in, or else the name of that folder itself. A mask belongs to the bad image of
    the same stem, with or without ``_mask`` behind it: first to the one in the same subfolder, else wherever it is.

    Args:
        good: Folder or folders of good images.
        bad: Folder or folders of bad images.
        masks: Folder or folders of pixel masks. A bad image without one keeps unknown pixel labels.
        test_good: Folder or folders of good images for the test split. Without any, a share of the good ones is held
            out.
        test_fraction: Share of the good images held out, at least 0 and below 1. Which ones follows from each one's
            name below its folder and the seed alone, so that adding images moves none from one split to the other.
        seed: Another seed holds out other images.
    """

    def __init__(
        self,
        *,
        good: Sequence[Path] | Path,
        bad: Sequence[Path] | Path = (),
        masks: Sequence[Path] | Path = (),
        test_good: Sequence[Path] | Path = (),
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not 0 <= test_fraction < 1:
            raise ConfigError(f"test_fraction: {test_fraction}; wanted at least 0 and below 1")
        self.good, self.bad, self.masks, self.test_good = (_folders(x) for x in (good, bad, masks, test_good))
        if not self.good:
            raise ConfigError("good: no folder; wanted at least one folder of good images")
        self.test_fraction = test_fraction
        self.seed = seed
        named = self.good[0].resolve()
        self.name = f"Folder/{named.parent.name if named.name.lower() in _PLAIN_NAMES else named.name}"

    def samples(self) -> list[Sample]:
        """Every sample of both splits, sorted.

        Raises:
            DataError: a folder without images, a file that stands in two of them, a mask without its image or with
                several, or no good image left for training.
        """
        good, bad, masks, test_good = map(_listed, (self.good, self.bad, self.masks, self.test_good))
        _check_no_overlap({"good": good, "test_good": test_good, "bad": bad, "masks": masks})
        mask_of = _match_masks(bad, masks)
        samples = [Sample(image=image, label=GOOD, split=self._split(folder, image)) for folder, image in good]
        samples += [Sample(image=image, label=GOOD, split="test") for _, image in test_good]
        for folder, image in bad:
            mask, defect = mask_of.get(image), _defect(folder, image)
            known = mask is not None
            samples.append(
                Sample(image=image, label=BAD, split="test", defect=defect, mask=mask, pixel_labels_known=known)
            )
        samples = _sorted(samples)
        if samples[0].split != "train":
            raise DataError(
                f"{self.good[0]}: none of {len(good):,} good images is left for training; "
                f"lower test_fraction ({self.test_fraction}), or give test_good"
            )
        return samples

    def _split(self, folder: Path, image: Path) -> Split:
        if self.test_good:
            return "train"
        name = image.relative_to(folder).as_posix()
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") < self.test_fraction * 2**64 else "train"


class Table(DataSource):
    """A table of images: CSV, or Parquet where the file's name ends in .parquet.

    Columns ``image``, ``split`` (train, test) and ``label`` (0, 1, good, bad) are required. ``defect``, ``mask``,
    ``group`` (the physical part) and ``pixel_labels_known`` (true, false, 1, 0) may be left out or left empty: the
    pixel labels of a bad image then count as known where it has a mask. All others are refused, so that none is
    overlooked for a slip of spelling.

    Args:
        path: The table's file.
        root: The folder that relative paths in it start from. Default: the table's own folder.
    """

    def __init__(self, *, path: Path, root: Path | None = None) -> None:
        self.path = Path(path)
        self.root = self.path.parent if root is None else Path(root)
        self.name = f"Table/{self.path.stem}"

    def samples(self) -> list[Sample]:
        """Every sample of both splits, sorted.

        Raises:
            DataError: a column, a cell or a file that cannot be, an image listed twice, a group in both splits, or no
                row. Rows are numbered as an editor shows them: in CSV the header is row 1.
        """
        is_parquet = self.path.suffix.lower() == ".parquet"
        rows = _read_rows(self.path, is_parquet=is_parquet)
        samples = []
        row_of: dict[str, int] = {}
        for number, row in enumerate(rows, start=1 if is_parquet else 2):
            try:
                sample = self._sample(row)
            except ValueError as error:
                raise DataError(f"{self.path}, row {number}: {error}") from error
            first = row_of.setdefault(os.path.normpath(sample.image), number)
            if first != number:
                raise DataError(f"{self.path}, row {number}: image {row['image']} is in row {first} too; keep one")
            samples.append(sample)
        self._check_splits(samples)
        return _sorted(samples)

    def _sample(self, row: dict[str, str | None]) -> Sample:
        """Raises ValueError with what is wrong in this row."""
        image, mask = self._file(row, "image"), self._file(row, "mask")
        if image is None:
            raise ValueError("image: empty; wanted a path")
        split, label = row["split"], _LABELS.get(row["label"] or "")
        if split not in ("train", "test"):
            raise ValueError(f"split: '{split or ''}'; wanted train or test")
        if label is None:
            raise ValueError(f"label: '{row['label'] or ''}'; wanted 0, 1, good or bad")
        defect = row["defect"] or ("good" if label == GOOD else "bad")
        if (defect == "good") != (label == GOOD):
            raise ValueError(f"defect: '{defect}' with label {row['label']}; correct one of them")
        if label == GOOD and mask is not None:
            raise ValueError("mask: given for a good image; leave it empty, or label the image bad")
        known = _pixel_labels_known(row["pixel_labels_known"], label, mask)
        labels = Sample(image=image, label=label, split=cast("Split", split), defect=defect, group=row["group"])
        return replace(labels, mask=mask, pixel_labels_known=known)

    def _file(self, row: dict[str, str | None], column: str) -> Path | None:
        if (cell := row[column]) is None:
            return None
        path = self.root / cell
        if not path.is_file():
            raise ValueError(f"{column}: {path}: no such file; correct the path, or root ({self.root})")
        return path

    def _check_splits(self, samples: list[Sample]) -> None:
        if not samples:
            raise DataError(f"{self.path}: no row; wanted a row for each image")
        splits = defaultdict(set)
        for sample in samples:
            splits[sample.group].add(sample.split)
        leaking = sorted(group for group, both in splits.items() if group is not None and len(both) > 1)
        if leaking:
            raise DataError(
                f"{self.path}: {len(leaking)} groups stand in train and in test: {_few(leaking)}; "
                f"put all images of one part into one split"
            )


def training_list_hash(samples: Iterable[Sample]) -> str:
    """Hash of what a model was trained on: equal for the same files, labels and masks, wherever they lie.

    SHA-256 of one line for each training sample: image path below the folder common to all training images, label,
    whether the pixel labels are known, SHA-256 of the image file, SHA-256 of the mask file or ``-``; separated by
    NUL, sorted. Every file is read once.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: no training sample, or a file that is gone.
    """
    training = [sample for sample in samples if sample.split == "train"]
    if not training:
        raise DataError("no training sample to hash; wanted samples with split train")
    root = os.path.commonpath([sample.image.absolute().parent for sample in training])
    lines = []
    for sample in training:
        name = sample.image.absolute().relative_to(root).as_posix()
        mask = "-" if sample.mask is None else _file_hash(sample.mask)
        fields = (name, str(sample.label), str(int(sample.pixel_labels_known)), _file_hash(sample.image), mask)
        lines.append("\0".join(fields) + "\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _sorted(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: (sample.split != "train", natural_key(sample.image)))


def _folders(paths: Sequence[Path] | Path) -> list[Path]:
    if isinstance(paths, (str, os.PathLike)):
        return [Path(paths)]
    return [Path(path) for path in paths]


def _listed(folders: list[Path]) -> list[tuple[Path, Path]]:
    """(folder, image) for each image; of a path to one image, the folder is where it lies."""
    return [(top if top.is_dir() else top.parent, image) for top in folders for image in list_images(top)]


def _defect(folder: Path, image: Path) -> str:
    relative = image.relative_to(folder)
    return relative.parts[0] if len(relative.parts) > 1 else folder.resolve().name


def _check_no_overlap(roles: dict[str, list[tuple[Path, Path]]]) -> None:
    seen: dict[str, str] = {}
    for role, files in roles.items():
        for _, file in files:
            key = os.path.normpath(file.absolute())
            if key in seen:
                raise DataError(f"{file}: found in {seen[key]} and again in {role}; give folders that do not overlap")
            seen[key] = role


def _match_masks(images: list[tuple[Path, Path]], masks: list[tuple[Path, Path]]) -> dict[Path, Path]:
    """Mask of each image that has one: by subfolder and stem first, then by stem among what is left.

    Raises:
        DataError: several masks for an image, several images for a mask, or a mask for no image.
    """
    mask_of: dict[Path, Path] = {}
    for with_subfolder in (True, False):
        taken = set(mask_of.values())
        images_at, masks_at = defaultdict(list), defaultdict(list)
        for folder, image in images:
            if image not in mask_of:
                images_at[_key(folder, image, image.stem, with_subfolder=with_subfolder)].append(image)
        for folder, mask in masks:
            if mask not in taken:
                for stem in {mask.stem, mask.stem.removesuffix("_mask")}:
                    masks_at[_key(folder, mask, stem, with_subfolder=with_subfolder)].append(mask)
        for key in [key for key in images_at if key in masks_at]:
            if len(images_at[key]) > 1 or len(masks_at[key]) > 1 or masks_at[key][0] in taken:
                raise DataError(
                    f"{images_at[key][0]}: not clear which mask belongs to which image; images {_few(images_at[key])}; "
                    f"masks {_few(masks_at[key])}; give masks the subfolders and the stems of their images"
                )
            mask_of[images_at[key][0]] = masks_at[key][0]
            taken.add(masks_at[key][0])
    unused = sorted({mask for _, mask in masks} - set(mask_of.values()), key=natural_key)
    if unused:
        raise DataError(
            f"{len(unused)} of {len(masks)} masks belong to no bad image: {_few(unused)}; "
            f"wanted the image's stem, with or without _mask; remove them, or add their images to bad"
        )
    return mask_of


def _key(folder: Path, file: Path, stem: str, *, with_subfolder: bool) -> tuple[str, str]:
    return (file.relative_to(folder).parent.as_posix() if with_subfolder else "", stem)


def _pixel_labels_known(cell: str | None, label: int, mask: Path | None) -> bool:
    """Raises ValueError where the cell contradicts the rest of its row."""
    if cell is None:
        return label == GOOD or mask is not None
    known = _YES_NO.get(cell)
    if known is None:
        raise ValueError(f"pixel_labels_known: '{cell}'; wanted true, false, 1 or 0")
    if label == GOOD and not known:
        raise ValueError("pixel_labels_known: false for a good image, whose pixels are all normal; leave it empty")
    if label == BAD and known and mask is None:
        raise ValueError("pixel_labels_known: true for a bad image without a mask; give its mask, or false")
    return known


def _read_rows(path: Path, *, is_parquet: bool) -> list[dict[str, str | None]]:
    """Rows with every known column as text, None where empty; so group 009 stays 009 and does not become 9."""
    import pyarrow  # here, because it takes a moment that no other source needs
    from pyarrow import csv, parquet

    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path of the table")
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pyarrow.string()))
    try:
        table = parquet.read_table(path) if is_parquet else csv.read_csv(path, convert_options=as_text)
        names = table.column_names
        table = table.cast(pyarrow.schema([(name, pyarrow.string()) for name in names]))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable {'Parquet' if is_parquet else 'CSV'} table ({error})") from error
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        raise DataError(f"{path}: unknown columns {_few(unknown)}; known are {', '.join(_COLUMNS)}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column stands twice: {', '.join(names)}; keep one of each")
    missing = [name for name in _COLUMNS[:3] if name not in names]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(names)}")
    return [{name: row.get(name) or None for name in _COLUMNS} for row in table.to_pylist()]


def _few(things: Sequence[object]) -> str:
    """The first three, and how many more."""
    more = f" and {len(things) - 3} more" if len(things) > 3 else ""
    return ", ".join(str(thing) for thing in things[:3]) + more
