"""`supersimplenet datasets`: datasets with versions, in the folder of a station."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from rich.table import Table
from rich.text import Text

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.cli.station_folder import BY, add_place, require_product, station_database
from supersimplenet.datasets.annotations import AnnotationFormat
from supersimplenet.datasets.discover import discover
from supersimplenet.utils.console import console, progress_bar, results
from supersimplenet.utils.formatting import counted, few

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from supersimplenet.datasets.base import DataSource
    from supersimplenet.station.library.versions import Change, Known, Version

RoleName = Literal["train", "calibration", "golden"]  # `Role` and `ExportFormat`, whose modules need the extra `serve`
FormatName = Literal["table", "mvtec", "coco", "label-studio"]
_MOST_SHOWN = 20  # pictures that differ


def commands() -> list[Command]:
    """Return the commands below ``datasets``."""
    return [
        Command("list", "list datasets and their versions", _list_parser(), _list),
        Command(
            "import",
            "bring a folder, a table or annotations into a dataset",
            _import_parser(),
            _import,
            {"source": "file or folder", "annotations": "file or folder"},
            {"folder": "folder"},
        ),
        Command("gather", "make a version from what people answered", _gather_parser(), _gather),
        Command("diff", "show what differs between two versions", _diff_parser(), _diff),
        Command(
            "export", "write a version for training or other tools", _export_parser(), _export, {}, {"output": "folder"}
        ),
    ]


def _list_parser() -> OptionParser:
    parser = OptionParser(description="List the datasets of a station, or the versions of one.")
    parser.add_argument("--name", type=str | None, help="the dataset whose versions are listed")
    add_place(parser)
    return parser


def _import_parser() -> OptionParser:
    parser = OptionParser(
        description="Bring pictures, labels and masks into a dataset, as a new version. A part gets its role (train, "
        "calibration, golden) when its first picture comes, and keeps it; test images are golden."
    )
    parser.add_argument("name", type=str, help="the dataset; it is begun where there is none")
    parser.add_argument("source", type=Path, help="a folder or table as `train` takes it, or a folder of images")
    parser.add_argument("--annotations", type=Path | None, help="COCO's JSON file, or the folder of annotations")
    parser.add_argument("--form", type=AnnotationFormat, default="coco", help="format of the annotations")
    parser.add_argument("--role", type=RoleName | None, help="the role of all parts; by default drawn")
    add_place(parser)
    return parser


def _gather_parser() -> OptionParser:
    parser = OptionParser(
        description="Make a version from the answers about a product's parts: good and bad ones on which people agree."
    )
    parser.add_argument("name", type=str, help="the dataset; it is begun where there is none")
    parser.add_argument("--product", type=str, required=True, help="the product")
    add_place(parser)
    return parser


def _diff_parser() -> OptionParser:
    parser = OptionParser(description="Show which pictures two versions of a dataset hold or describe otherwise.")
    parser.add_argument("name", type=str, help="the dataset")
    parser.add_argument("before", type=PositiveInt, help="number of one version")
    parser.add_argument("after", type=PositiveInt, help="number of the other")
    add_place(parser)
    return parser


def _export_parser() -> OptionParser:
    parser = OptionParser(
        description="Write the pictures of a version. table: samples.csv for `train --data Table`, and "
        "calibration/good for `calibrate --good`; mvtec: the layout of MVTec AD; coco; label-studio."
    )
    parser.add_argument("name", type=str, help="the dataset")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--form", type=FormatName, default="table", help="the format")
    parser.add_argument("--version-number", type=PositiveInt | None, help="the version; by default the newest")
    add_place(parser)
    return parser


def _list(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.library import versions

        with engine.connect() as connection:
            names = versions.names(connection) if options.name is None else [options.name]
            found = [version for name in names for version in versions.versions(connection, name)]
    if not found:
        results().print("no dataset" if options.name is None else f"{options.name}: no version yet")
        return 0
    table = Table("dataset", "version", "made", "by", "added", "changed", "removed", "why", box=None, pad_edge=False)
    for each in found:
        made = datetime.fromtimestamp(each.at / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
        numbers = (str(each.added), str(each.changed), str(each.removed))
        table.add_row(Text(each.dataset), str(each.number), made, Text(each.who), *numbers, Text(each.why))
    results().print(table)
    return 0


def _import(options: Namespace) -> int:
    with station_database(options, create=True) as engine, _source(options) as source:
        from supersimplenet.station.library.imports import import_samples
        from supersimplenet.station.library.store import LibraryStore

        with progress_bar() as bar:
            task = bar.add_task("importing", total=None, detail="")
            found = import_samples(
                engine,
                LibraryStore(options.folder),
                source,
                dataset=options.name,
                who=BY,
                role=options.role,
                progress=lambda pictures: bar.advance(task, pictures),
            )
        _print_version(options.name, found.version)
        _print_left_out(found.left_out)
        if found.version is not None:
            _print_roles(engine, found.version)
    return 0


@contextmanager
def _source(options: Namespace) -> Iterator[DataSource]:
    """Yield the dataset that is imported; annotations become a table first."""
    if options.annotations is None:
        found = discover(options.source)
        console().print(*found.lines, sep="\n")
        yield found.source
        return
    from supersimplenet.datasets.convert import convert
    from supersimplenet.datasets.table import Table as TableSource

    with tempfile.TemporaryDirectory() as folder:
        converted = convert(options.source, options.annotations, options.form, Path(folder), test_fraction=0.0)
        if converted.left_out:
            console().print(f"{counted(len(converted.left_out), 'image')} that the annotations do not list, left out")
        yield TableSource(path=converted.table)


def _gather(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.library.reviewed import gather
        from supersimplenet.station.library.store import LibraryStore
        from supersimplenet.station.storage.pictures import PictureStore

        require_product(engine, options.product)
        found = gather(
            engine,
            PictureStore(options.folder),
            LibraryStore(options.folder),
            product=options.product,
            dataset=options.name,
            who=BY,
        )
        _print_version(options.name, found.version)
        for number, what in (
            (found.disputed, "people do not agree"),
            (found.unusable, "a person called it unusable"),
            (found.not_kept, "the picture is not kept any more"),
        ):
            if number:
                results().print(f"left out: {counted(number, 'picture')}: {what}")
        _print_left_out(found.left_out)
        if found.version is not None:
            _print_roles(engine, found.version)
    return 0


def _diff(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.library.versions import changes

        with engine.connect() as connection:
            found = changes(connection, options.name, options.before, options.after)
    for change in found[:_MOST_SHOWN]:
        results().print(_as_line(change))
    if len(found) > _MOST_SHOWN:
        results().print(f"and {len(found) - _MOST_SHOWN} more")
    if not found:
        results().print("no difference")
    return 0


def _export(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.library.exports import export
        from supersimplenet.station.library.store import LibraryStore
        from supersimplenet.station.library.versions import entries, version

        with engine.connect() as connection:
            wanted = version(connection, options.name, options.version_number)
            held = entries(connection, wanted)
        found = export(held, LibraryStore(options.folder), options.form, options.output)
    results().print(f"{options.output}: version {wanted.number} of {options.name}, {counted(found.files, 'picture')}")
    for reason, number in found.left_out.items():
        results().print(f"left out: {counted(number, 'picture')}: {reason}")
    return 0


def _print_version(name: str, made: Version | None) -> None:
    if made is None:
        results().print(f"{name}: nothing new, no version was made")
        return
    numbers = f"{made.added} added, {made.changed} changed, {made.removed} removed"
    results().print(f"{name}: version {made.number}, {numbers}")


def _print_roles(engine: Engine, made: Version) -> None:
    from supersimplenet.station.library.versions import entries

    with engine.connect() as connection:
        held = entries(connection, made)
    roles = Counter((entry.role, entry.known.label) for entry in held)
    table = Table("", "good", "bad", box=None, pad_edge=False)
    for role in ("train", "calibration", "golden"):
        table.add_row(role, str(roles[role, "good"]), str(roles[role, "bad"]))
    results().print(table)


def _print_left_out(left_out: Mapping[str, str]) -> None:
    if left_out:
        results().print(f"left out: {counted(len(left_out), 'picture')}: {few(list(left_out))}")
        results().print(f"the first: {next(iter(left_out.values()))}")


def _as_line(change: Change) -> Text:
    before, after = ("not held" if known is None else _in_words(known) for known in (change.before, change.after))
    return Text(f"{change.picture[:12]}: {before} -> {after}")


def _in_words(known: Known) -> str:
    return known.label + (f" ({known.defect})" if known.defect else "") + (", mask" if known.mask else "")
