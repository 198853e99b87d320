"""Data source for KolektorSDD2: scratches, spots and dents on one surface, with published lists of usable masks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.datasets.split_files import by_number, listed_images, read_pickle
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.preprocessing.listing import list_images
from supersimplenet.types import BAD, GOOD, Sample, Split
from supersimplenet.utils.formatting import counted, few

KSDD2Masks = Literal[0, 16, 53, 126, 246]
_PAGE = "https://www.vicos.si/resources/kolektorsdd2/"


class KSDD2(DataSource):
    """KolektorSDD2 in its published form.

    Reads ``ROOT/train/NAME.png`` and ``ROOT/test/NAME.png``, each with its mask ``NAME_GT.png``. An image is bad if its
    mask marks any pixel; every value except 0 marks a defect.

    Args:
        root: The folder that holds train and test.
        masks: Number of bad training images whose masks are used: 0, 16, 53, 126 or 246. The dataset's file
            ROOT/split_weakly_<masks>.pyb lists them; the pixel labels of the other bad images are unknown. By default
            all masks are used, and no such file is needed.
    """

    image_size = (640, 232)

    def __init__(self, *, root: Path = Path("datasets/KSDD2"), masks: KSDD2Masks | None = None) -> None:
        choices = get_args(KSDD2Masks)
        if masks is not None and masks not in choices:
            raise ConfigError(f"masks: {masks}; wanted {', '.join(map(str, choices))}, or none for all masks")
        self.root = Path(root)
        self.masks = masks
        self.name = f"KSDD2/masks_{'all' if masks is None else masks}"

    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted. Every mask is read.

        Raises:
            DataError: a folder, a mask or the split file is missing, or the split file lists other images.
        """
        counting = None if self.masks is None else self._counting_masks()
        samples = []
        for split in ("train", "test"):
            images = self._images(split)
            counts = dict.fromkeys(images, True) if counting is None else self._matched(images, counting, split)
            # The published split files list good images, too, as without a mask; but their pixel labels are known.
            samples += [self._sample(image, split, mask_counts=counts[image] or split == "test") for image in images]
        return sort_samples(samples)

    def _images(self, split: Split) -> list[Path]:
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; {self._advice()}")
        # Images have numbers as names: NAME_GT is a mask, and the published archive holds a stray "10301 (copy)".
        return [path for path in list_images(folder) if path.stem.isdigit()]

    def _sample(self, image: Path, split: Split, *, mask_counts: bool) -> Sample:
        mask = image.with_name(f"{image.stem}_GT.png")
        if not mask.is_file():
            raise DataError(f"{image}: no mask; wanted {mask}; {self._advice()}")
        if not read_mask(mask, image_size_px=None, any_value=True).any():
            return Sample(image=image, label=GOOD, split=split)
        if not mask_counts:
            return Sample(image=image, label=BAD, split=split, defect="bad", pixel_labels_known=False)
        return Sample(image=image, label=BAD, split=split, defect="bad", mask=mask, mask_any_value=True)

    def _counting_masks(self) -> dict[Split, dict[int, bool]]:
        path = self._split_file()
        if not path.is_file():
            raise DataError(f"{path}: no such file; it comes with KolektorSDD2, or leave out masks to use all of them")
        lists = read_pickle(path)
        if not isinstance(lists, list | tuple) or len(lists) != 2:
            raise DataError(f"{path}: wanted two lists, of training and of test images; {self._advice()}")
        return {"train": listed_images(lists[0], f"{path}, train"), "test": listed_images(lists[1], f"{path}, test")}

    def _matched(self, images: list[Path], counting: dict[Split, dict[int, bool]], split: Split) -> dict[Path, bool]:
        """Return whether each image's mask is used; refuse a split file that does not list exactly these images."""
        numbered = by_number(images)
        missing = sorted(counting[split].keys() - numbered.keys())
        unlisted = sorted(numbered.keys() - counting[split].keys())
        for numbers, what in ((missing, "listed in it, not there"), (unlisted, "there, not listed in it")):
            if numbers:
                raise DataError(
                    f"{self._split_file()}: {counted(len(numbers), split + ' image')} {what}: {few(numbers)}; "
                    f"{self._advice()}, or leave out masks to use all of them"
                )
        return {image: counting[split][number] for number, image in numbered.items()}

    def _split_file(self) -> Path:
        return self.root / f"split_weakly_{self.masks}.pyb"

    def _advice(self) -> str:
        return f"fetch KolektorSDD2 from {_PAGE} and unpack it so that {self.root / 'train' / '10000.png'} exists"
