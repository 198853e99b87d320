"""Data source for MVTec AD and for any dataset in the same layout."""

from __future__ import annotations

from pathlib import Path

from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.listing import (
    IMAGE_SUFFIXES,
    PassedOver,
    list_images,
    natural_key,
    note_passed_over,
    suffix_of,
)
from supersimplenet.preprocessing.reading import BitDepth
from supersimplenet.types import BAD, GOOD, Sample, Split

BESIDE_TYPES = "picture beside the folders of types"
_MVTEC_AD_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"


class MVTecAD(DataSource):
    """One category of MVTec AD, or of a dataset in the same layout.

    Reads ``ROOT/CATEGORY/train/good``, ``test/good``, ``test/<defect type>`` and, for each defective image
    ``NNN.png``, the mask ``ground_truth/<defect type>/NNN_mask.png`` (or ``NNN.png``).

    Other datasets in this layout may also have bad training images, ``train/<defect type>``, with or without masks;
    masks by split, ``ground_truth/<split>/<defect type>``; and, for any image, an ignore mask of the pixels that count
    in no loss and no metric, ``ignore/<split>/<type>/NNN.png``.

    Args:
        category: Name of the category's folder, such as bottle.
        root: The folder that holds the categories.
        bit_depth: Number of bits that count in 16-bit images, such as 12 for values of 0 to 4095, or auto, which takes
            the smallest that holds the values of the training images. By default all 16; a model keeps its own.
        page: Number of the page of TIFF images, from 0. By default the largest; a model keeps its own.
    """

    image_size = (256, 256)

    def __init__(
        self,
        *,
        category: str,
        root: Path = Path("datasets/MVTecAD"),
        bit_depth: BitDepth | None = None,
        page: int | None = None,
    ) -> None:
        self.category = category
        self.root = Path(root)
        self.name = f"MVTecAD/{category}"
        self.set_reading(bit_depth, page)

    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted.

        Raises:
            DataError: root, category, one of its folders, or the mask of a defective test image is missing; or a mask
                fits both a training and a test image.
        """
        folder = self.root / self.category
        if not (folder / "train" / "good").is_dir():
            raise DataError(self._missing())
        return read_layout(folder, advice=self._advice())

    def _missing(self) -> str:
        if not self.root.is_dir():
            return f"{self.root}: no such folder; {self._advice()}"
        found = sorted(p.parent.parent.name for p in self.root.glob("*/train/good"))
        categories = f"; categories found: {', '.join(found)}" if found else ""
        return f"{self.root / self.category / 'train' / 'good'}: no such folder{categories}; {self._advice()}"

    def _advice(self) -> str:
        wanted = self.root / "bottle" / "train" / "good"
        return f"supersimplenet data download MVTecAD, or unpack {_MVTEC_AD_PAGE} so that {wanted} exists"


def read_layout(category: Path, *, advice: str, mask_any_value: bool = False) -> list[Sample]:
    """Return every sample of a category's folder in MVTec AD's layout, sorted.

    Args:
        category: the folder that holds train, test and ground_truth.
        advice: what to do if something is missing, for the error message.
        mask_any_value: see `Sample`.

    Raises:
        DataError: there is no test image, a bad test image has no mask, or a mask fits a training and a test image.
    """
    samples: list[Sample] = []
    image_of: dict[Path, Path] = {}
    for split in ("train", "test"):
        entries = sorted((category / split).glob("[!.]*"), key=natural_key)
        types = [path for path in entries if path.is_dir()]
        if not types:
            raise DataError(f"{category / split}: no folder of {split} images in it; {advice}")
        beside = PassedOver()
        for path in entries:
            if path not in types and suffix_of(path.name) in IMAGE_SUFFIXES:
                beside.add(BESIDE_TYPES, path)
        note_passed_over(f"{category / split}: beside the types", beside)
        for type_folder in types:
            for image in list_images(type_folder):
                sample = _sample(category, image, split, type_folder.name, mask_any_value=mask_any_value)
                if sample.label == BAD and sample.mask is None and split == "test":
                    wanted = category / "ground_truth" / sample.defect / f"{image.stem}_mask.png"
                    raise DataError(f"{image}: no mask; wanted {wanted}; {advice}")
                if sample.mask is not None and image_of.setdefault(sample.mask, image) is not image:
                    raise DataError(
                        f"{sample.mask}: not clear whether it is the mask of {image_of[sample.mask]} or of {image}; "
                        f"put masks into ground_truth/train/{sample.defect} and ground_truth/test/{sample.defect}"
                    )
                samples.append(sample)
    return sort_samples(samples)


def _sample(category: Path, image: Path, split: Split, type_name: str, *, mask_any_value: bool) -> Sample:
    ignore = _first_file(category / "ignore" / split / type_name / f"{image.stem}.png")
    if type_name == "good":
        return Sample(image=image, label=GOOD, split=split, ignore=ignore)
    truth = category / "ground_truth"
    folders = (truth / split / type_name, truth / type_name)
    mask = _first_file(*(folder / f"{image.stem}{end}.png" for folder in folders for end in ("_mask", "")))
    return Sample(
        image=image,
        label=BAD,
        split=split,
        defect=type_name,
        mask=mask,
        mask_any_value=mask is not None and mask_any_value,
        pixel_labels_known=mask is not None,
        ignore=ignore,
    )


def _first_file(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
