"""`supersimplenet data split`: split a dataset anew, by type and part, into a table."""

from __future__ import annotations

import shlex
from collections import Counter
from functools import partial
from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval
from rich.table import Table
from rich.text import Text

from supersimplenet.cli.common import DATA_HELP, NO_DATASET, PATH_HELP, Command, OptionParser, dataset_in_full
from supersimplenet.datasets.base import DataSource
from supersimplenet.errors import ConfigError
from supersimplenet.types import GroupsName, Sample
from supersimplenet.utils.console import progress_bar, results
from supersimplenet.utils.formatting import printable
from supersimplenet.utils.locks import writing_file


def command() -> Command:
    """Return the command ``data split``."""
    return Command(
        "split",
        "split a dataset anew, by type and part, into a table",
        _parser(),
        _split,
        {"path": "file or folder"},
        {"output": "file"},
        partial(dataset_in_full, "data split"),
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Pool both splits of a dataset and split it anew, stratified by type, each part in one split."
    )
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help=PATH_HELP)
    parser.add_argument("--data", type=DataSource, help=DATA_HELP)
    parser.add_argument("--output", type=Path, required=True, help="the table to write, such as split.csv")
    parser.add_argument(
        "--test-fraction", type=OpenUnitInterval, default=0.3, help="share of each type for the test split"
    )
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="another one gives another split")
    parser.add_argument(
        "--groups",
        type=GroupsName,
        default="known",
        help="what stays together: images of a named part; found: also images that seem to show one part; or none",
    )
    return parser


def _split(options: Namespace) -> int:
    source = _parser().instantiate(options).data
    if source is None:
        raise ConfigError(NO_DATASET)
    split_data(
        source,
        options.output,
        test_fraction=options.test_fraction,
        seed=options.seed,
        groups=options.groups,
    )
    return 0


def split_data(
    source: DataSource,
    output: Path,
    *,
    test_fraction: float = 0.3,
    seed: int = 0,
    groups: GroupsName = "known",
) -> list[Sample]:
    """Split a dataset anew, write the table, and print the numbers of images in each split.

    Args:
        source: the dataset; good and bad images of both splits are pooled.
        output: the table to write.
        test_fraction: share of each type for the test split.
        seed: seed of the split.
        groups: groups that must stay together; see `group_samples`.

    Raises:
        SuperSimpleNetError: the subclass names the cause.
    """
    from supersimplenet.datasets.bit_depth import decide_reading
    from supersimplenet.datasets.checks.inspection import digests_of, inspect_samples
    from supersimplenet.datasets.parts import describe_copies, digest_possible_copies
    from supersimplenet.datasets.splits import group_samples, split_samples, write_table

    say = results().print
    samples = source.samples()
    inspections = None
    images = [sample.image for sample in samples]
    with progress_bar() as bar:
        task = bar.add_task("reading", total=len(samples), detail="")

        def done(count: int) -> None:
            bar.advance(task, count)

        if groups == "found":
            inspections = inspect_samples(samples, reading=decide_reading(source, images), progress=done)
            digests = digests_of(samples, inspections)
        else:
            digests = digest_possible_copies(images, bit_depth=source.bit_depth, page=source.page, progress=done)
    grouped = group_samples(samples, groups, inspections, digests=digests)
    split = split_samples(grouped, test_fraction=test_fraction, seed=seed)
    with writing_file(output):
        write_table(split, output)
    _print_split(split, test_fraction)
    copies = describe_copies(samples, digests)
    if copies is not None:
        say(copies)
    sizes = Counter(sample.group for sample in split if sample.group is not None)
    several = [size for size in sizes.values() if size > 1]
    say(f"{len(several):,} groups of several images ({sum(several):,} images), each in one split")
    if groups == "known" and all(sample.group is None for sample in samples):
        say("no groups are named; --groups found searches for photographs of one part and keeps them together")
    if groups == "found":
        say("photographs that are turned or cropped differently are not found: name the parts where you can")
    say(f"table: {output}", f"train: supersimplenet train {shlex.quote(str(output))}", sep="\n")
    return split


def _print_split(samples: list[Sample], test_fraction: float) -> None:
    table = Table("type", "train", "test", "test share", "off by", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    counts = Counter((sample.defect, sample.split) for sample in samples)
    labels = {sample.defect: sample.label for sample in samples}
    for defect in sorted(labels, key=lambda defect: (labels[defect], defect)):
        train, test = counts[defect, "train"], counts[defect, "test"]
        share = test / (train + test)
        off = test - test_fraction * (train + test)
        table.add_row(Text(printable(defect)), f"{train:,}", f"{test:,}", f"{share:.1%}", f"{off:+.1f} images")
    results().print(table)
