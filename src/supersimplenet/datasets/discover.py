"""Find the dataset in a folder of photographs by the names of its subfolders; what is not clear raises an error."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.folder import MASK_ENDINGS, Folder, defect_of, list_files, match_masks
from supersimplenet.datasets.ksdd2 import KSDD2
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.table import Table
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.preprocessing.listing import IMAGE_SUFFIXES, list_folder, natural_key, suffix_of
from supersimplenet.utils.formatting import counted, few, listed

# Names of folders, in lower case, letters and digits alone.
_ROLES = {
    "good": "good goods ok okay normal nominal pass passed defectfree nodefect nodefects nondefective goodparts",
    "bad": "bad ng nok notok notgood defect defects defective anomaly anomalies anomalous abnormal fault faults faulty "
    "fail failed reject rejects rejected badparts",
    "masks": "mask masks groundtruth gt label labels segmentation segmentations",
    "ignore": "ignore ignored",
    "train": "train training",
    "test": "test testing val valid validation",
    "inner": "images image imgs img data photos photographs pictures",  # a folder between, as VisA has it
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names.split()}
_TABLES = (".csv", ".tsv", ".parquet")
_FEWEST_BAD = 8  # bad images from which on half of them are trained on; of fewer the test needs each
_SHARE = 0.5
_DEEPEST = 3  # folders in folders that are looked into for names; a link to a parent is no endless loop


class Discovery(NamedTuple):
    """A dataset that was found.

    Attributes:
        source: its data source.
        arguments: the options of the train command that name it, such as ``--data=Folder``.
        lines: what was understood, for the user.
    """

    source: DataSource
    arguments: list[str]
    lines: list[str]


@dataclass
class _Folders:
    """The subfolders of a folder by what they hold."""

    path: Path
    good: list[Path] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)
    kinds: list[Path] = field(default_factory=list)  # of other names, with images in them
    masks: list[Path] = field(default_factory=list)
    ignore: list[Path] = field(default_factory=list)
    train: _Folders | None = None
    test: _Folders | None = None
    loose: list[Path] = field(default_factory=list)  # images in the folder itself
    joined: bool = False  # whether some of these lie in another folder

    @property
    def defective(self) -> list[Path]:
        """Folders of bad images: the one of that name, or one for each type of defect."""
        return self.bad or self.kinds


def discover(path: Path) -> Discovery:
    """Return the dataset in a folder of photographs, or of a table of images.

    Folders are known by their names, in the field's usual spellings: good, ok, normal; bad, ng, defect, anomaly, or
    one for each type of defect beside the good ones; masks, ground_truth, labels; train and test, each with these in
    it. The layouts of MVTec AD and KolektorSDD2 are known as a whole.

    Args:
        path: the folder, or the file of a table.

    Raises:
        ConfigError: it is not clear what is good and what is bad; the error's commands are those that may be right.
        DataError: a folder cannot be read.
    """
    if not path.is_dir():
        return _of_table(path)
    found = _look(path)
    if found.train is not None and _is_ksdd2(found.train):
        return _described(KSDD2(root=path), {"root": path}, [f"{path}: the layout of KolektorSDD2"])
    if found.train is not None and found.train.good and found.test is None and not found.good:
        _join(found, found.train)  # without a test of its own, chance divides what is there
        found.train = None
    if found.train is not None or found.test is not None:
        return _of_splits(path, found)
    _require_clear(path, found)
    return _of_folders(path, found)


def _of_table(path: Path) -> Discovery:
    if suffix_of(path.name) not in _TABLES:
        raise ConfigError(f"PATH: {path}: a file; wanted a folder of photographs, or a table: {listed(_TABLES)}")
    return _described(Table(path=path), {"path": path}, [f"{path}: a table of images, with their splits and labels"])


def _look(folder: Path, depth: int = 0) -> _Folders:
    found = _Folders(path=folder)
    children = sorted(folder.iterdir(), key=natural_key)
    found.loose = [path for path in children if path.is_file() and _is_image(path)]
    for child in children:
        if not child.is_dir() or child.name.startswith("."):
            continue
        role = _role(child)
        if role in ("train", "test") and depth < _DEEPEST:
            inside, earlier = _look(child, depth + 1), getattr(found, role)
            if earlier is None:
                setattr(found, role, inside)
            else:  # test and val
                _join(earlier, inside)
        elif role == "inner" and depth < _DEEPEST and _has_roles(child):
            _join(found, _look(child, depth + 1))
        elif role in ("good", "bad", "masks", "ignore"):
            if role in ("masks", "ignore"):
                _require_images(child)
            getattr(found, role).append(child)
        elif list_folder(child, on_error="stop").files:
            found.kinds.append(child)
    return found


def _require_images(folder: Path) -> None:
    if not list_folder(folder, on_error="stop").files:
        raise ConfigError(
            f"{folder}: no image in it; wanted masks as images. Annotations of COCO, LabelMe, YOLO and VOC become "
            "masks by supersimplenet data convert"
        )


def _has_roles(folder: Path) -> bool:
    return any(_role(path) not in ("kinds", "inner") for path in folder.iterdir() if path.is_dir())


def _role(folder: Path) -> str:
    return _ROLE_OF.get(re.sub(r"[\W_]", "", folder.name.lower()), "kinds")


def _join(found: _Folders, inner: _Folders) -> None:
    found.joined = True
    for role in ("good", "bad", "kinds", "masks", "ignore", "loose"):
        getattr(found, role).extend(getattr(inner, role))
    found.train, found.test = found.train or inner.train, found.test or inner.test


def _is_image(path: Path) -> bool:
    return suffix_of(path.name) in IMAGE_SUFFIXES and not path.name.startswith(".")


def _is_ksdd2(train: _Folders) -> bool:
    stems = {path.stem for path in train.loose}
    return any(f"{stem}_GT" in stems for stem in stems)


def _require_clear(path: Path, found: _Folders) -> None:
    """Raise where it is not clear which images are good, or what a folder of another name is."""
    if not found.good:
        _raise_without_good(path, found)
    if found.bad and found.kinds:
        known: dict[str, object] = {"good": found.good, "masks": found.masks}
        every = {"bad": [*found.bad, *found.kinds]}
        raise _unclear(path, found.kinds, known | {"bad": found.bad}, known | every)


def _unclear(
    path: Path, kinds: Sequence[Path], without: dict[str, object], with_them: dict[str, object]
) -> ConfigError:
    """Return the error of folders of other names beside bad parts, from the datasets without them and with them."""
    return ConfigError(
        f"{path}: holds good and bad parts, and {_names(kinds)}, whose names say neither",
        commands=(("to leave them out", _command(without)), ("if they are bad parts", _command(with_them))),
    )


def _raise_without_good(path: Path, found: _Folders) -> None:
    datasets = [kind for kind in found.kinds if _look(kind).good or (kind / "train").is_dir()]
    if datasets:
        raise ConfigError(
            f"{path}: holds {counted(len(datasets), 'dataset')}; name one",
            commands=[("", f"supersimplenet train {shlex.quote(str(kind))}") for kind in datasets[:3]],
        )
    if found.loose and not found.kinds and not found.bad:
        raise ConfigError(
            f"{path}: {counted(len(found.loose), 'image')}, and nothing says which are good",
            commands=(
                ("if all are good", _command({"good": [path]})),
                ("else sort them into folders good and bad, then", f"supersimplenet train {shlex.quote(str(path))}"),
            ),
        )
    folders = [*found.kinds, *found.bad]
    if not folders:
        raise ConfigError(f"PATH: {path}: no image in it, nor in its subfolders; name a folder of photographs")
    first, rest = folders[0], folders[1:]
    raise ConfigError(
        f"{path}: holds {_names(folders)}; none is named good, ok or normal, so nothing says which parts are good",
        commands=(
            (f"if {first.name} holds the good ones", _command({"good": [first], "bad": rest, "masks": found.masks})),
            ("or rename that folder to good, then", f"supersimplenet train {shlex.quote(str(path))}"),
        ),
    )


def _of_folders(path: Path, found: _Folders) -> Discovery:
    """Return a dataset without splits: chance divides its images."""
    arguments: dict[str, object] = {"good": found.good, "bad": found.defective, "masks": found.masks}
    arguments["ignore"] = found.ignore
    bad = _images(found.defective)
    train_bad = len(bad) >= _FEWEST_BAD
    if train_bad:
        arguments["bad_train_fraction"] = _SHARE
    split = "chance divides them: a fifth of the good images is for the test"
    if train_bad:
        split += ", and half of the bad ones; the others are trained on"
    elif bad:
        split += f", and all bad ones, which are fewer than {_FEWEST_BAD}"
    lines = [f"{path}: {_counts(found.good, found.defective, found.masks)}{_beside(found)}", split]
    return _of_folder_source(arguments, lines)


def _of_splits(path: Path, found: _Folders) -> Discovery:
    """Return a dataset whose folders say what is for training and what for the test."""
    train, test = found.train or _Folders(path / "train"), found.test or _Folders(path / "test")
    masks = [*found.masks, *train.masks, *test.masks]
    unclear = [kind for part in (train, test) if part.bad for kind in part.kinds]
    if train.good and unclear:
        known: dict[str, object] = {"good": train.good, "test_good": test.good, "masks": masks}
        every = {"train_bad": [*train.bad, *train.kinds], "bad": [*test.bad, *test.kinds]}
        raise _unclear(path, unclear, known | {"train_bad": train.defective, "bad": test.defective}, known | every)
    if not train.good:
        if train.loose and not train.defective:
            choice: dict[str, object] = {"good": [train.path], "test_good": test.good, "bad": test.defective}
            raise ConfigError(
                f"{train.path}: {counted(len(train.loose), 'image')}, and nothing says that all are good",
                commands=(
                    ("if they are", _command({**choice, "masks": found.masks})),
                    (f"or move them to {train.path / 'good'}, then", f"supersimplenet train {shlex.quote(str(path))}"),
                ),
            )
        _raise_without_good(train.path, train)
    mvtec = None if test.joined or test.path.name != "test" else _as_mvtec(path)
    counts = f"training: {_counts(train.good, train.defective)}; test: {_counts(test.good, test.defective)}"
    counts += _beside(found, train, test)
    if mvtec is not None:
        lines = [f"{path}: the layout of MVTec AD, a mask for each bad test image", counts]
        return _described(mvtec, {"category": path.resolve().name, "root": path.resolve().parent}, lines)
    arguments: dict[str, object] = {"good": train.good, "train_bad": train.defective, "test_good": test.good}
    arguments |= {"bad": test.defective, "masks": masks, "ignore": [*found.ignore, *train.ignore, *test.ignore]}
    bad = list_files([*train.defective, *test.defective])
    return _of_folder_source(arguments, [f"{path}: {counts}", _mask_words(bad, masks) if masks else "no masks"])


def _as_mvtec(path: Path) -> MVTecAD | None:
    """Return the folder as a category of MVTec AD, if it is whole as such."""
    source = MVTecAD(category=path.resolve().name, root=path.resolve().parent)
    if not (path / "ground_truth").is_dir() or not (path / "train" / "good").is_dir():
        return None
    try:
        source.samples()
    except DataError:
        return None
    return source


def _of_folder_source(arguments: dict[str, object], lines: list[str]) -> Discovery:
    given = {name: value for name, value in arguments.items() if value}
    for name in ("bad", "train_bad"):
        if beside := _masks_among(_images(given.get(name, []))):
            raise ConfigError(
                f"{beside[0]}: a mask among the images, and {len(beside) - 1} more; move them to a folder of their "
                "own, named masks, beside the images' one"
            )
    return _described(Folder(**given), given, lines)  # type: ignore[arg-type] # each name has its own type


def _described(source: DataSource, given: dict[str, object], lines: list[str]) -> Discovery:
    name = type(source).__name__
    arguments = [f"--data={name}", *(f"--data.{key}={_value(value)}" for key, value in given.items())]
    return Discovery(source, arguments, lines)


def _counts(good: Sequence[Path], bad: Sequence[Path], masks: Sequence[Path] = ()) -> str:
    """Return what is there in words, such as ``24 good (good); 12 bad: pit 7, dent 5 (bad); masks for 9 (masks)``."""
    words = f"{len(_images(good)):,} good ({_names(good)})" if good else "no good image"
    files = list_files(list(bad))
    if files:
        kinds = Counter(defect_of(folder, image) for folder, image in files)
        types = f": {few([f'{kind} {count}' for kind, count in kinds.items()])}" if len(kinds) > 1 else ""
        words += f"; {len(files):,} bad{types} ({_names(bad)})"
    return f"{words}; {_mask_words(files, masks)}" if masks else words


def _mask_words(bad: list[tuple[Path, Path]], masks: Sequence[Path]) -> str:
    matched = len(match_masks(bad, list_files(list(masks)), MASK_ENDINGS))
    return f"masks for {'all' if matched == len(bad) else f'{matched} of these'} ({_names(masks)})"


def _beside(*found: _Folders) -> str:
    """Return how many images lie beside the folders, and so are left out; nothing for none."""
    loose = [image for folders in found for image in folders.loose]
    return f"; left out: {counted(len(loose), 'image')} beside these folders, such as {loose[0]}" if loose else ""


def _images(folders: object) -> list[Path]:
    assert isinstance(folders, list)
    return [image for _, image in list_files(folders)]


def _masks_among(images: Iterable[Path]) -> list[Path]:
    """Return the files that have another one's name with an ending such as _mask."""
    stems = {(image.parent, image.stem) for image in images}
    return [
        image
        for image in images
        if any(
            image.stem.endswith(end) and (image.parent, image.stem.removesuffix(end)) in stems for end in MASK_ENDINGS
        )
    ]


def _names(folders: Sequence[Path]) -> str:
    return few([folder.name for folder in folders])


def _command(given: dict[str, object], source: str = "Folder") -> str:
    """Return the command that names a dataset in full."""
    options = " ".join(f"--data.{name} {shlex.quote(_value(value))}" for name, value in given.items() if value)
    return f"supersimplenet train --data {source} {options}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else json.dumps([str(item) for item in value], ensure_ascii=False)
    return str(value)
