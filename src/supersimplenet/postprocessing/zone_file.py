"""Zones of a part from a file that a person writes, read strictly; see docs/thresholds.md. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supersimplenet.errors import CalibrationError, DataError, ModelFolderError
from supersimplenet.postprocessing.zones import ELSEWHERE, Elsewhere, Zone, Zones, require_drawn_size
from supersimplenet.preprocessing.polygons import parse_polygons
from supersimplenet.utils.documents import MAX_BYTES, UnreadableError, parse_json
from supersimplenet.utils.formatting import few, shown_value
from supersimplenet.utils.serialization import checked, from_plain
from supersimplenet.utils.text_files import read_text

_DEMANDS = ("margin_logit", "min_area_px")


def read_zones(path: Path) -> Zones:
    """Read zones from a JSON file; see docs/thresholds.md.

    Raises:
        DataError: no such file, or it does not hold zones; the message names file, zone and key.
    """
    text = read_text(path, max_bytes=MAX_BYTES)
    try:
        content = parse_json(text)
    except UnreadableError as error:
        raise DataError(f"{path}: not JSON ({error}); wanted zones, as docs/thresholds.md shows them") from error
    try:
        return _parsed(content)
    except (CalibrationError, DataError, ModelFolderError) as error:
        raise DataError(f"{path}: {error}") from error


def _parsed(content: Any) -> Zones:
    _require_keys(content, "the file", ("image_size_px", "zones"), (ELSEWHERE,))
    size_px: tuple[int, int] = checked(
        tuple[int, int], content["image_size_px"], where="the file", name="image_size_px"
    )
    require_drawn_size(size_px)
    given: list[Any] = checked(list[Any], content["zones"], where="the file", name="zones")
    zones = tuple(_zone(values, number, size_px) for number, values in enumerate(given, start=1))
    elsewhere = content.get(ELSEWHERE, {})
    _require_keys(elsewhere, ELSEWHERE, (), _DEMANDS)
    return Zones(image_size_px=size_px, zones=zones, elsewhere=from_plain(Elsewhere, elsewhere, where=ELSEWHERE))


def _zone(values: Any, number: int, size_px: tuple[int, int]) -> Zone:
    named = isinstance(values, Mapping) and isinstance(values.get("name"), str)
    where = f"zone {shown_value(values['name'])}" if named else f"zone {number}"
    _require_keys(values, where, ("name", "polygon"), _DEMANDS)
    polygons = parse_polygons(values["polygon"], size_px, where=f"{where}: polygon")
    others = {name: value for name, value in values.items() if name != "polygon"}
    return from_plain(Zone, {**others, "polygons": polygons}, where=where)


def _require_keys(values: Any, where: str, needed: Sequence[str], optional: Sequence[str]) -> None:
    """Refuse what is no mapping, lacks a key or has another one.

    Raises:
        DataError: it is refused.
    """
    known = [*needed, *optional]
    if not isinstance(values, Mapping):
        raise DataError(f"{where}: {shown_value(values)}; wanted names with values: {', '.join(known)}")
    if unknown := [shown_value(name) for name in values if name not in known]:
        raise DataError(f"{where}: unknown key {few(unknown)}; choose among {', '.join(known)}")
    if missing := [name for name in needed if name not in values]:
        raise DataError(f"{where}: lacks {', '.join(missing)}")
