"""Data source for SensumSODF: two kinds of capsules, with published folds and lists of usable masks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.datasets.split_files import by_number, listed_images, read_pickle
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.preprocessing.listing import list_images
from supersimplenet.types import BAD, GOOD, Sample, Split
from supersimplenet.utils.formatting import counted, few

SensumCategory = Literal["capsule", "softgel"]
_PAGE = "https://www.sensum.eu/sensumsodf-dataset/"
_SIZES_PX = {"capsule": (320, 192), "softgel": (144, 144)}
_FOLDS = range(3)
_MASKS = range(0, 101, 10)


class SensumSODF(DataSource):
    """One product of SensumSODF, in one of the three published folds.

    Reads ``ROOT/CATEGORY/negative/data/NNN.png`` and ``positive/data/NNN.png`` with the masks
    ``positive/annotation/NNN.png``. The authors' lists below ``ROOT/sensum_splits/CATEGORY/FOLD`` give the split of
    each image: ``train/neg.pckl``, ``train/pos_<masks>.pckl``, ``test/neg.pckl`` and ``test/pos.pckl``. Each is a list
    of (number, has mask) pairs, as in the authors' public code.

    Args:
        category: The product, capsule or softgel.
        root: The folder that holds both products and sensum_splits.
        fold: The fold of the three-fold cross-validation: 0, 1 or 2.
        masks: Percentage of the bad training images whose masks are used: 0, 10, 20 and so on to 100. The pixel labels
            of the other bad images are unknown.
    """

    def __init__(
        self, *, category: SensumCategory, root: Path = Path("datasets/SensumSODF"), fold: int = 0, masks: int = 100
    ) -> None:
        if category not in _SIZES_PX:
            raise ConfigError(f"category: '{category}'; wanted {' or '.join(get_args(SensumCategory))}")
        if fold not in _FOLDS:
            raise ConfigError(f"fold: {fold}; wanted {', '.join(map(str, _FOLDS))}")
        if masks not in _MASKS:
            raise ConfigError(f"masks: {masks}; wanted {', '.join(map(str, _MASKS))}, of a hundred")
        self.category = category
        self.root = Path(root)
        self.fold = fold
        self.masks = masks
        self.image_size = _SIZES_PX[category]
        self.name = f"SensumSODF/{category}/fold_{fold}/masks_{masks}"

    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted.

        Raises:
            DataError: a folder, a list, or a listed image or mask is missing, or an image is in both splits.
        """
        good, bad = self._numbered("negative/data"), self._numbered("positive/data")
        masks = self._numbered("positive/annotation")
        lists = self.root / "sensum_splits" / self.category / str(self.fold)
        samples = []
        for images, names in ((good, ("neg", "neg")), (bad, (f"pos_{self.masks}", "pos"))):
            train, test = lists / "train" / f"{names[0]}.pckl", lists / "test" / f"{names[1]}.pckl"
            training, testing = self._listed(train, images), self._listed(test, images)
            both = sorted(training.keys() & testing.keys())
            if both:
                raise DataError(
                    f"{test}: {counted(len(both), 'image')} also listed in {train}: {few(both)}; fetch the lists again"
                )
            if images is good:
                samples += [Sample(image=good[number], label=GOOD, split="train") for number in training]
                samples += [Sample(image=good[number], label=GOOD, split="test") for number in testing]
            else:
                samples += [self._bad(n, bad[n], masks, "train", mask_counts=c) for n, c in training.items()]
                # Each bad test image has a mask, even if its list states otherwise.
                samples += [self._bad(n, bad[n], masks, "test", mask_counts=True) for n in testing]
        return sort_samples(samples)

    def _numbered(self, subfolder: str) -> dict[int, Path]:
        folder = self.root / self.category / subfolder
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; {self._advice()}")
        return by_number(list_images(folder))

    def _listed(self, path: Path, images: dict[int, Path]) -> dict[int, bool]:
        if not path.is_file():
            raise DataError(f"{path}: no such file; {self._advice()}")
        listed = listed_images(read_pickle(path), str(path))
        missing = sorted(listed.keys() - images.keys())
        if missing:
            raise DataError(
                f"{path}: {counted(len(missing), 'image')} listed in it, not there: {few(missing)}; {self._advice()}"
            )
        return listed

    def _bad(self, number: int, image: Path, masks: dict[int, Path], split: Split, *, mask_counts: bool) -> Sample:
        if not mask_counts:
            return Sample(image=image, label=BAD, split=split, defect="bad", pixel_labels_known=False)
        if number not in masks:
            raise DataError(f"{image}: no mask of its name in positive/annotation; {self._advice()}")
        return Sample(image=image, label=BAD, split=split, defect="bad", mask=masks[number])

    def _advice(self) -> str:
        return (
            f"ask for SensumSODF at {_PAGE}, put it at {self.root}, and the folder sensum_splits, which the authors of "
            "SuperSimpleNet link to beside their code, into it"
        )
