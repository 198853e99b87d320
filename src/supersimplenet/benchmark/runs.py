"""Plan the runs of an accuracy benchmark. Needs no torch, so that an invalid option is reported immediately."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from supersimplenet.benchmark.config import AccuracyConfig
from supersimplenet.benchmark.published import published_categories
from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.registry import SOURCES, describe_source
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.preprocessing.listing import natural_key
from supersimplenet.types import Regime
from supersimplenet.utils.console import console

MasksFrom = Literal["split file", "seeded subset"]
CHOSEN_BY_RUN = ("category", "fold", "masks")  # arguments of a data source that each run sets
_ALL = ("all",)
FOLDS = (0, 1, 2)  # of a dataset that has folds
# Masks as written in a regime, with the source's argument that selects the split file with so many masks.
_SPLIT_FILES: dict[str, dict[str, int]] = {
    "KSDD2": {str(count): count for count in (16, 53, 126)},
    "SensumSODF": {f"{percent / 100:g}": percent for percent in range(10, 100, 10)},
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training and one test.

    Attributes:
        dataset: class name of the data source, which is also its name among the published results.
        category: category of the dataset; the source's name if it has no categories.
        fold: fold of the dataset; None if it has no folds.
        regime: regime of supervision.
        masks: masks of the mixed regime as written, a number or a share; None for all masks.
        masks_from: how the masks are chosen; None if all masks are used.
        seed: seed of the training, and of a seeded subset.
        data: the source, as `describe_source` describes it.
    """

    dataset: str
    category: str
    fold: int | None
    regime: Regime
    masks: str | None
    masks_from: MasksFrom | None
    seed: int
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Name of the run and of its folder."""
        fold = "" if self.fold is None else f"_fold{self.fold}"
        masks = "" if self.masks is None else f"-{self.masks}"
        return re.sub(r"[^\w.-]", "-", f"{self.category}{fold}_{self.regime}{masks}_seed{self.seed}")

    @property
    def shared_data(self) -> dict[str, Any]:
        """Description of the source without the arguments that each run sets; the same for all runs of a benchmark."""
        arguments = {name: value for name, value in self.data["init_args"].items() if name not in CHOSEN_BY_RUN}
        return {"class_path": self.data["class_path"], **arguments}

    @property
    def options(self) -> dict[str, Any]:
        """Options of `supersimplenet train` that this run sets."""
        supervised: dict[str, Any] = {"supervision": self.regime}
        if self.masks_from == "seeded subset":
            supervised["masks"] = self.masks
        return {"data": dict(self.data), **supervised, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class DataFamily:
    """A data source without the arguments that each run sets: category, fold, masks.

    Args:
        kind: the source's class, one of the package's own.
        arguments: its other arguments.
    """

    kind: type[DataSource]
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in SOURCES.values():
            raise ConfigError(
                f"data: {self.kind.__name__} cannot be rebuilt by name in the runs' processes; use one of "
                f"{', '.join(SOURCES)}, such as a Table of its samples"
            )

    def has(self, argument: str) -> bool:
        """Return whether the source takes an argument."""
        return argument in inspect.signature(self.kind.__init__).parameters

    def source(self, **chosen: Any) -> DataSource:
        """Return the source of a run, with the arguments that the run sets."""
        return self.kind(**self.arguments, **chosen)

    def root(self) -> Path:
        """Return the folder that holds the categories."""
        default = inspect.signature(self.kind.__init__).parameters["root"].default
        return Path(self.arguments.get("root", default))


def plan_runs(family: DataFamily, config: AccuracyConfig) -> list[Run]:
    """Return the runs: categories x folds x regimes x seeds; all runs of the first seed come first, then the next seed.

    Raises:
        ConfigError: categories or folds are given for a dataset that has none.
        DataError: there is no category, or a category with published results cannot be read.
    """
    dataset = family.kind.__name__
    if not family.has("category") and config.categories != _ALL:
        raise ConfigError(f"categories: {', '.join(config.categories)}; {dataset} has none: leave this option out")
    if not family.has("fold") and config.folds:
        raise ConfigError(f"folds: {', '.join(map(str, config.folds))}; {dataset} has none: leave this option out")
    categories: list[str | None] = [None]
    if family.has("category"):
        categories = list(_find_categories(family) if config.categories == _ALL else config.categories)
    folds = (config.folds or FOLDS) if family.has("fold") else (None,)
    return [
        _run(family, category, fold, regime, seed)
        for seed in config.seeds
        for category in categories
        for fold in folds
        for regime in config.regimes
    ]


def _run(family: DataFamily, category: str | None, fold: int | None, written: str, seed: int) -> Run:
    dataset = family.kind.__name__
    regime, _, masks = written.partition(":")
    chosen: dict[str, Any] = {} if category is None else {"category": category}
    if fold is not None:
        chosen["fold"] = fold
    split = _SPLIT_FILES.get(dataset, {}).get(masks)
    if split is not None:
        chosen["masks"] = split
    source = family.source(**chosen)
    return Run(
        dataset=dataset,
        category=category or (dataset if family.has("masks") else source.name),  # this name does not contain the masks
        fold=fold,
        regime=cast("Regime", regime),
        masks=masks or None,
        masks_from=None if not masks else "seeded subset" if split is None else "split file",
        seed=seed,
        data=describe_source(source),
    )


def _find_categories(family: DataFamily) -> list[str]:
    """Return every folder that the source can read as a category: in the root, else one or two levels deeper."""
    root, published = family.root(), published_categories(family.kind.__name__)
    for level in ("[!.]*", "*/[!.]*", "*/*/[!.]*"):
        names = {path.name for path in root.glob(level) if path.is_dir()}
        problems = {name: _problem(family, name) for name in sorted(names, key=lambda name: natural_key(Path(name)))}
        found = [name for name, problem in problems.items() if problem is None]
        for name, problem in problems.items():
            if problem is not None and name in published:
                raise problem
            if problem is not None and found:
                console().print(f"not a category: {name} ({problem})")
        if found:
            return found
    raise DataError(f"{root}: no category of {family.kind.__name__} in it; correct --data.root, or fetch the data")


def _problem(family: DataFamily, category: str) -> ConfigError | DataError | None:
    """Return the error of reading a folder as a category; None if there is no error."""
    try:
        family.source(category=category).samples()
    except (ConfigError, DataError) as error:
        return error
    return None
