"""Data source for VisA, in the published layout or converted to MVTec AD's layout."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.datasets.mvtec import read_layout
from supersimplenet.errors import DataError
from supersimplenet.types import BAD, GOOD, Sample, Split

_PAGE = "https://github.com/amazon-science/spot-diff"
_TABLE = Path("split_csv", "1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")
_LABELS = {"normal": GOOD, "anomaly": BAD}
_CONVERTED = ("visa_pytorch", "VisA_pytorch/1cls", ".")  # folders that anomalib and the publisher's code write


class VisA(DataSource):
    """One category of VisA, in the published or the converted layout.

    The layout is detected. Published: ``ROOT/CATEGORY/Data/Images`` and ``Masks``, with the split in
    ``ROOT/split_csv/1cls.csv``. Converted: ``ROOT/visa_pytorch/CATEGORY`` (or ``ROOT/CATEGORY``) in MVTec AD's layout.
    Every mask value except 0 marks a defect.

    Args:
        category: Name of the category's folder, such as candle.
        root: The folder that holds the categories, or visa_pytorch.
    """

    image_size = (256, 256)
    perlin_threshold = 0.6

    def __init__(self, *, category: str, root: Path = Path("datasets/VisA")) -> None:
        self.category = category
        self.root = Path(root)
        self.name = f"VisA/{category}"

    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted.

        Raises:
            DataError: neither layout is found, the table is not valid, or a file is missing.
        """
        if (self.root / _TABLE).is_file() and (self.root / self.category / "Data").is_dir():
            return self._shipped()
        for folder in (self.root / place / self.category for place in _CONVERTED):
            if (folder / "train" / "good").is_dir():
                return read_layout(folder, advice=self._advice(), mask_any_value=True)
        raise DataError(self._missing())

    def _shipped(self) -> list[Sample]:
        samples = []
        for number, row in self._rows():
            split, label = row["split"], _LABELS.get(row["label"])
            if split not in ("train", "test") or label is None:
                raise DataError(
                    f"{self.root / _TABLE}, row {number}: split '{split}', label '{row['label']}'; "
                    f"wanted train or test, normal or anomaly"
                )
            image, mask = self._file(row["image"], number), None
            if label == BAD and (row["mask"] or split == "test"):
                mask = self._file(row["mask"], number)
            samples.append(
                Sample(
                    image=image,
                    label=label,
                    split=cast("Split", split),
                    defect="good" if label == GOOD else "bad",
                    mask=mask,
                    mask_any_value=mask is not None,
                    pixel_labels_known=label == GOOD or mask is not None,
                )
            )
        if {sample.split for sample in samples} != {"train", "test"}:
            raise DataError(f"{self.root / _TABLE}: no training or no test image of {self.category}; {self._advice()}")
        return sort_samples(samples)

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the rows of this category with their line numbers, as shown in an editor."""
        path = self.root / _TABLE
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="")
            if not set(_COLUMNS) <= set(table.fieldnames or ()):
                raise DataError(
                    f"{path}: found the columns {', '.join(table.fieldnames or ())}; wanted {', '.join(_COLUMNS)}"
                )
            yield from ((number, row) for number, row in enumerate(table, start=2) if row["object"] == self.category)

    def _file(self, cell: str, row: int) -> Path:
        path = self.root / cell
        if not path.is_file():
            raise DataError(f"{self.root / _TABLE}, row {row}: {path}: no such file; {self._advice()}")
        return path

    def _missing(self) -> str:
        if not self.root.is_dir():
            return f"{self.root}: no such folder; {self._advice()}"
        shipped = {path.parent.name for path in self.root.glob("*/Data")} if (self.root / _TABLE).is_file() else set()
        converted = {p.parent.parent.name for place in _CONVERTED for p in self.root.glob(f"{place}/*/train/good")}
        found = f"; categories found: {', '.join(sorted(shipped | converted))}" if shipped | converted else ""
        return (
            f"{self.root}: {self.category} is there neither as shipped ({self.category}/Data and {_TABLE.as_posix()}) "
            f"nor converted (visa_pytorch/{self.category}/train/good){found}; {self._advice()}"
        )

    def _advice(self) -> str:
        return f"fetch VisA from {_PAGE} and unpack it so that {self.root / _TABLE} exists"
