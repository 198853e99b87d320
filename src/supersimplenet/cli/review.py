"""`supersimplenet review`: what people are asked and answer, without a page."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.cli.station_folder import add_place, require_product, station_database
from supersimplenet.utils.console import results
from supersimplenet.utils.formatting import counted


def commands() -> list[Command]:
    """Return the commands below ``review``."""
    return [
        Command(
            "export",
            "write the review queue as tasks of Label Studio",
            _export_parser(),
            _export,
            {},
            {"output": "folder"},
        ),
        Command("import", "add answers that were given in Label Studio", _import_parser(), _import, {"tasks": "file"}),
    ]


def _export_parser() -> OptionParser:
    parser = OptionParser(description="Write what the review queue asks next: pictures, tasks.json and labels.xml.")
    parser.add_argument("--product", type=str, required=True, help="the product")
    parser.add_argument("--who", type=str, required=True, help="the person who is asked")
    parser.add_argument("--limit", type=PositiveInt, default=20, help="most pictures")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    add_place(parser)
    return parser


def _import_parser() -> OptionParser:
    parser = OptionParser(
        description="Add the answers of a file that Label Studio exported as JSON: good, bad or unusable, the kind of "
        "the defect, and what was painted. Pictures are known by the SHA-256 that the export wrote."
    )
    parser.add_argument("tasks", type=Path, help="the file")
    parser.add_argument("--who", type=str, required=True, help="the person who answered")
    add_place(parser)
    return parser


def _export(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.config import StationConfig
        from supersimplenet.station.library.label_studio import write_queue
        from supersimplenet.station.review.queue import review_queue
        from supersimplenet.station.storage.pictures import PictureStore

        require_product(engine, options.product)
        config = StationConfig(folder=options.folder)
        asked = review_queue(
            engine,
            product=options.product,
            who=options.who,
            sampling=config.sampling,
            within_ms=config.part_ms,
            limit=options.limit,
        )
        number = write_queue(asked, PictureStore(options.folder), options.output)
    results().print(f"{options.output}: {counted(number, 'picture')} to answer")
    return 0


def _import(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.library.label_studio import import_answers
        from supersimplenet.station.library.store import LibraryStore

        found = import_answers(engine, LibraryStore(options.folder), options.tasks, who=options.who)
    results().print(f"{counted(found.answers, 'answer')} of {options.who} added")
    for number, what in ((found.unknown, "the station has no result of it"), (found.unlabelled, "without an answer")):
        if number:
            results().print(f"left out: {counted(number, 'task')}: {what}")
    return 0
