"""`supersimplenet data`: make, fetch, check and split data sets."""

from __future__ import annotations

import shlex
from pathlib import Path

from jsonargparse import Namespace

from supersimplenet.cli.options import DATA_HELP, Command, OptionParser
from supersimplenet.data.download.publishers import ARCHIVES, ON_REQUEST
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.synthetic import SyntheticConfig
from supersimplenet.settings import GroupsName


def data_commands() -> list[Command]:
    """The commands below ``data``."""
    return [
        Command("synthesize", "write a synthetic data set, MVTec layout", _synthesize_parser(), _synthesize),
        Command("download", "fetch a published data set from its publisher, check it", _download_parser(), _download),
        Command("check", "look for what is wrong with a data set before training", _check_parser(), _check),
        Command("split", "split a data set anew, by type and part, into a table", _split_parser(), _split),
    ]


def _synthesize_parser() -> OptionParser:
    parser = OptionParser(description="Write a synthetic data set of surfaces with defects, in MVTec layout.")
    parser.add_argument("--output", type=Path, required=True, help="the data set's root; one folder a surface is made")
    parser.add_class_arguments(SyntheticConfig)
    return parser


def _synthesize(options: Namespace) -> int:
    from supersimplenet.data.synthetic import synthesize

    values = options.as_dict()
    output = values.pop("output")
    for folder in synthesize(output, SyntheticConfig(**values)):
        print(folder)
    return 0


def _download_parser() -> OptionParser:
    parser = OptionParser(
        description="Fetch a published data set from its publisher, going on where an earlier attempt was cut off; "
        "compare its checksum, unpack it, count its images. What is there already is not fetched again."
    )
    names = [*ARCHIVES, ON_REQUEST]
    parser.add_argument(
        "name",
        choices=names,
        help=f"the data set; KSDD2 comes with its split files; {ON_REQUEST} is on request: says whom to ask",
    )
    parser.add_argument("--output", type=Path, help="the data set's root; by default datasets/NAME")
    parser.add_argument("--categories", type=str, help="only these, such as bottle,cable; by default all")
    parser.add_argument("--archive", type=Path, help="the publisher's archive, where you have it already; it is kept")
    parser.add_argument("--keep-archive", action="store_true", help="leave the fetched archive beside the root")
    return parser


def _download(options: Namespace) -> int:
    from supersimplenet.data.download.download import download

    name = options.name
    usual = Path("datasets") / name
    output = options.output or usual
    if name in ARCHIVES:
        print(f"{name}: {ARCHIVES[name].licence}; {ARCHIVES[name].page}", flush=True)
    found = download(
        name,
        output,
        archive=options.archive,
        categories=options.categories.split(",") if options.categories else None,
        keep_archive=options.keep_archive,
    )
    category, *others = found.counts
    those = f"{category} and {len(others)} more: " if others else f"{category}: " if category else ""
    print(f"{output}: {'unpacked' if found.unpacked else 'already there'}; {those}{found.total}; as published")
    choice = f" --data.category {category}" if category else ""
    root = "" if output == usual else f" --data.root {shlex.quote(str(output))}"
    print(f"train: supersimplenet train --data {name}{choice}{root}")
    return 0


def _check_parser() -> OptionParser:
    parser = OptionParser(description="Look for what is wrong with a data set; exit status 1 where there are errors.")
    parser.add_argument("--data", type=DataSource, required=True, help=DATA_HELP)
    parser.add_argument("--output", type=Path, help="folder for check.json and pictures of what was found")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="height and width that the network will see: also look for defects too small and shapes unlike it",
    )
    return parser


def _check(options: Namespace) -> int:
    from supersimplenet.apps.data import check_data

    size_px = None if options.size is None else (options.size[0], options.size[1])
    report = check_data(_check_parser().instantiate(options).data, output=options.output, size_px=size_px)
    return 1 if report.of_level("error") else 0


def _split_parser() -> OptionParser:
    parser = OptionParser(
        description="Pool both splits of a data set and split it anew, stratified by type, each part in one split."
    )
    parser.add_argument("--data", type=DataSource, required=True, help=DATA_HELP)
    parser.add_argument("--output", type=Path, required=True, help="the table to write, such as split.csv")
    parser.add_argument("--test-fraction", type=float, default=0.3, help="share of each type for the test split")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another split")
    parser.add_argument(
        "--groups",
        type=GroupsName,
        default="known",
        help="what stays together: images of a named part; found: also images that seem to show one part; or none",
    )
    return parser


def _split(options: Namespace) -> int:
    from supersimplenet.apps.data import split_data

    split_data(
        _split_parser().instantiate(options).data,
        options.output,
        test_fraction=options.test_fraction,
        seed=options.seed,
        groups=options.groups,
    )
    return 0
