"""MVTec AD, and anything laid out like it."""

from __future__ import annotations

from pathlib import Path

from supersimplenet.data.images import list_images, natural_key
from supersimplenet.data.source import DataSource, sort_samples
from supersimplenet.errors import DataError
from supersimplenet.records import BAD, GOOD, Sample

_MVTEC_AD_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"


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
        return sort_samples(samples)

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
