"""`supersimplenet data`: make, fetch, check and split data sets."""

from __future__ import annotations

import shlex
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from supersimplenet.cli.options import Command
from supersimplenet.data.publishers import ARCHIVES, ON_REQUEST
from supersimplenet.data.synthetic import SyntheticConfig


def data_commands() -> list[Command]:
    """The commands below ``data``."""
    return [
        Command("synthesize", "write a synthetic data set, MVTec layout", _synthesize_parser(), _synthesize),
        Command("download", "fetch a published data set from its publisher, check it", _download_parser(), _download),
    ]


def _synthesize_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Write a synthetic data set of surfaces with defects, in MVTec layout.")
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


def _download_parser() -> ArgumentParser:
    parser = ArgumentParser(
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
    from supersimplenet.data.download import download

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
