"""Read annotations of defects as annotation tools export them: COCO, LabelMe, YOLO and VOC."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.parsers import expat

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.decoding import image_size
from supersimplenet.utils.documents import parse_yaml
from supersimplenet.utils.files import read_regular
from supersimplenet.utils.formatting import few
from supersimplenet.utils.text_files import read_text

AnnotationFormat = Literal["coco", "labelme", "yolo", "voc"]
Points = tuple[tuple[float, float], ...]
_MOST_BYTES = 1 << 29  # of a COCO file, which holds a whole dataset
_MOST_BYTES_OF_ONE = 1 << 26  # of the annotations of one image
_CIRCLE = 64  # corners of the polygon that stands for a circle


@dataclass(frozen=True, kw_only=True)
class Region:
    """One annotated region of an image.

    Attributes:
        label: its class.
        polygons: corners (x, y) in px of the image; empty where only a box is known, or a run-length code.
        runs: lengths of runs of background and region in turn, column by column; see `draw_mask`.
    """

    label: str
    polygons: tuple[Points, ...] = ()
    runs: tuple[int, ...] | None = None

    @property
    def is_outline(self) -> bool:
        """Whether it is known which pixels belong to the region: a box only tells that a defect is in it."""
        return bool(self.polygons) or self.runs is not None


@dataclass(kw_only=True)
class Annotations:
    """The annotations of a folder of images.

    Attributes:
        regions: the regions of each image that the annotations list; none where it is good.
        unknown: names of images that the annotations speak of and that are not there, or files of no image.
    """

    regions: dict[Path, list[Region]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def read_annotations(path: Path, form: AnnotationFormat, images: Sequence[Path], folder: Path) -> Annotations:
    """Read the annotations of images.

    Args:
        path: the JSON file of COCO, or the folder of the files of each image.
        form: the format.
        images: the images.
        folder: the folder of the images, from which the names in the annotations start.

    Raises:
        DataError: a file cannot be read, is not of the format, or describes what is no region of its image.
        ImageError: the size of an image cannot be read.
    """
    found = Annotations()
    finder = _Finder(images, folder)
    if form == "coco":
        _read_coco(path, finder, found)
        return found
    suffix = {"labelme": ".json", "yolo": ".txt", "voc": ".xml"}[form]
    if not path.is_dir():
        raise DataError(f"{path}: no folder; wanted the folder of the {suffix} files, one for each image")
    files = sorted(file for file in path.rglob(f"*{suffix}") if file.name not in ("classes.txt", "obj.names"))
    if not files:
        raise DataError(f"{path}: no file in it that ends in {suffix}; check --annotations and --format")
    names = _yolo_names(path) if form == "yolo" else {}
    found.regions = {image: [] for image in images}
    for file in files:
        image = finder.by_stem(file.relative_to(path).with_suffix("").as_posix())
        if image is None:
            found.unknown.append(str(file))
            continue
        with _structure_of(file):
            if form == "labelme":
                found.regions[image] += list(_labelme(_json(file, _MOST_BYTES_OF_ONE), image))
            elif form == "yolo":
                found.regions[image] += list(_yolo(_text(file), names, image))
            else:
                found.regions[image] += list(_voc(file))
    return found


@contextmanager
def _structure_of(file: Path) -> Iterator[None]:
    """Turn what a wrong structure raises into an error that names the file."""
    try:
        yield
    except KeyError as error:
        raise DataError(f"{file}: no entry {error}; check --format, or export it again") from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(f"{file}: {error}; check --format, or export it again") from error


class _Finder:
    """Finds an image by the name that annotations give it."""

    def __init__(self, images: Sequence[Path], folder: Path) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            name = (image.relative_to(folder) if folder.is_dir() else Path(image.name)).as_posix()
            stem = name.removesuffix(image.suffix)
            for key in {name, image.name}:
                self._by_name[key].append(image)
            for key in {stem, image.stem}:
                self._by_stem[key].append(image)

    def by_name(self, name: str) -> Path | None:
        """Return the image with a path below the folder, or with a unique file name; None where there is none."""
        name = name.replace("\\", "/").removeprefix("./")
        return self._one(self._by_name, (name, name.rpartition("/")[2]))

    def by_stem(self, stem: str) -> Path | None:
        """Return the image as `by_name`, by a name without its suffix."""
        return self._one(self._by_stem, (stem, stem.rpartition("/")[2]))

    def _one(self, images: Mapping[str, list[Path]], keys: Sequence[str]) -> Path | None:
        for key in keys:
            found = images.get(key, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError(
                    f"{key}: {len(found)} images have this name, {few(found)}; give them names of their own"
                )
        return None


def _read_coco(path: Path, finder: _Finder, found: Annotations) -> None:
    content = _json(path, _MOST_BYTES)
    with _structure_of(path):
        label_of = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        image_of: dict[Any, Path | None] = {}
        for entry in content["images"]:
            name = str(entry["file_name"])
            image = image_of[entry["id"]] = finder.by_name(name)
            if image is None:
                found.unknown.append(name)
                continue
            found.regions[image] = []
            if "width" in entry and "height" in entry:
                _check_size(image, int(entry["height"]), int(entry["width"]))
        for entry in content["annotations"]:
            if entry["image_id"] not in image_of:
                raise ValueError(f"an annotation is of image {entry['image_id']}, which is not among the images")
            if entry["category_id"] not in label_of:
                raise ValueError(
                    f"an annotation is of category {entry['category_id']}, which is not among the categories"
                )
            image = image_of[entry["image_id"]]
            if image is not None:
                label = label_of[entry["category_id"]]
                found.regions[image].append(_coco_region(label, entry.get("segmentation"), image))


def _coco_region(label: str, outline: Any, image: Path) -> Region:
    if isinstance(outline, dict):
        height, width = outline["size"]
        _check_size(image, int(height), int(width))
        counts = outline["counts"]
        runs = _unpacked(counts) if isinstance(counts, str) else tuple(int(count) for count in counts)
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError(f"{image.name}: a run-length code of {sum(runs):,} pixels for {height * width:,}")
        return Region(label=label, runs=runs)
    corners = [list(zip(flat[::2], flat[1::2], strict=True)) for flat in outline or []]
    return Region(label=label, polygons=tuple(_checked(points, image) for points in corners))


def _unpacked(text: str) -> tuple[int, ...]:
    """Return the run lengths of COCO's compressed code: five bits a character, from the third on differences."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("a run-length code with a wrong character")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return tuple(runs)


def _labelme(content: Any, image: Path) -> Iterator[Region]:
    if content.get("imageHeight") and content.get("imageWidth"):
        _check_size(image, int(content["imageHeight"]), int(content["imageWidth"]))
    for shape in content["shapes"]:
        label, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "polygon":
            yield Region(label=label, polygons=(_checked(points, image),))
        elif kind == "circle":
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            turns = [2 * math.pi * corner / _CIRCLE for corner in range(_CIRCLE)]
            circle = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
            yield Region(label=label, polygons=(_checked(circle, image),))
        elif kind in ("rectangle", "point", "line", "linestrip"):
            yield Region(label=label)
        else:
            raise ValueError(
                f"a shape of type '{kind}'; known are polygon, circle, rectangle, point, line and linestrip"
            )


def _yolo(text: str, names: Mapping[int, str], image: Path) -> Iterator[Region]:
    height, width = image_size(image)
    for number, line in enumerate(text.splitlines(), start=1):
        first, *numbers = line.split() or [""]
        if not first:
            continue
        if not first.isdigit() or (len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2)):
            raise ValueError(f"line {number} is no class with a box or at least three corners")
        label = names.get(int(first), first)
        shares = [float(share) for share in numbers]
        if len(shares) == 4:
            yield Region(label=label)
        else:
            corners = [(x * width, y * height) for x, y in zip(shares[::2], shares[1::2], strict=True)]
            yield Region(label=label, polygons=(_checked(corners, image),))


def _yolo_names(folder: Path) -> dict[int, str]:
    """Return the names of the classes from classes.txt or data.yaml, in or above the folder; none without them."""
    for place in (folder, folder.parent, folder.parent.parent):
        listed, described = place / "classes.txt", place / "data.yaml"
        if listed.is_file():
            return dict(enumerate(line.strip() for line in _text(listed).splitlines() if line.strip()))
        if described.is_file():
            with _structure_of(described):
                names = parse_yaml(_text(described), numbers_as_names=True)["names"]
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
    return {}


def _voc(file: Path) -> Iterator[Region]:
    """Yield the boxes of an XML file; nothing else in it is used, and a document type with entities is refused."""
    names: list[str] = []
    path: list[str] = []
    text: list[str] = []

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which annotations never need")

    def begin(name: str, _: object) -> None:
        path.append(name)
        text.clear()

    def end(name: str) -> None:
        if path == ["annotation", "object", "name"]:
            names.append("".join(text).strip())
        path.pop()

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text.append
    try:
        parser.Parse(_content(file, _MOST_BYTES_OF_ONE), True)
    except expat.ExpatError as error:
        raise ValueError(f"no valid XML ({error})") from error
    for name in names:
        yield Region(label=name)


def _checked(points: Sequence[tuple[Any, Any]], image: Path) -> Points:
    """Return the corners of a polygon as numbers; raise ValueError where they are none of this image."""
    corners = tuple((float(x), float(y)) for x, y in points)
    if len(corners) < 3:
        raise ValueError(f"{image.name}: a polygon of {len(corners)} corners")
    height, width = image_size(image)
    for x, y in corners:
        if not (-width <= x <= 2 * width and -height <= y <= 2 * height):  # also where it is not a number
            raise ValueError(f"{image.name}: a corner at {x:g}, {y:g} of an image of {width} x {height} px")
    return corners


def _check_size(image: Path, height: int, width: int) -> None:
    size = image_size(image)
    if size != (height, width):
        raise ValueError(f"{image.name}: annotated at {width} x {height} px, the image is {size[1]} x {size[0]}")


def _json(file: Path, most_bytes: int) -> Any:
    try:
        return json.loads(_content(file, most_bytes))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: no valid JSON; check --format, or export it again") from error


def _text(file: Path) -> str:
    return read_text(file, max_bytes=_MOST_BYTES_OF_ONE)


def _content(file: Path, most_bytes: int) -> bytes:
    try:
        return read_regular(file, max_bytes=most_bytes)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
