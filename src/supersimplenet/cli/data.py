"""`supersimplenet data`: create, download, check and split datasets."""

from __future__ import annotations

import shlex
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt
from rich.table import Table
from rich.text import Text

from supersimplenet.cli import split
from supersimplenet.cli.common import DATA_HELP, NO_DATASET, PATH_HELP, Command, OptionParser, dataset_in_full
from supersimplenet.datasets.annotations import AnnotationFormat
from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.download.archives import ARCHIVES, ON_REQUEST
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.errors import ConfigError
from supersimplenet.preprocessing.listing import counting
from supersimplenet.types import BAD
from supersimplenet.utils.console import progress_bar, results
from supersimplenet.utils.formatting import counted, printable
from supersimplenet.utils.locks import writing_into

if TYPE_CHECKING:
    from supersimplenet.datasets.checks.check import CheckReport
    from supersimplenet.datasets.checks.findings import Finding

_SHOWN = 3  # images or groups that are printed for a finding; check.json has all
_ERRORS_OF_FILES = (
    "image-unreadable",
    "mask-unreadable",
    "mask-size",
    "ignore-unusable",
)  # for these, the detail names the file
_COLOURS = {"error": "bold red", "warning": "yellow", "note": "blue"}


def commands() -> list[Command]:
    """Return the commands below ``data``."""
    return [
        Command(
            "synthesize",
            "write a synthetic dataset, MVTec layout",
            _synthesize_parser(),
            _synthesize,
            writes={"output": "folder"},
        ),
        Command(
            "download",
            "fetch a published dataset from its publisher, check it",
            _download_parser(),
            _download,
            {"archive": "file"},
            {"output": "folder"},
        ),
        Command(
            "check",
            "look for what is wrong with a dataset before training",
            _check_parser(),
            _check,
            {"path": "file or folder"},
            {"output": "folder"},
            partial(dataset_in_full, "data check"),
        ),
        Command(
            "convert",
            "turn COCO, LabelMe, YOLO or VOC annotations into a table",
            _convert_parser(),
            _convert,
            {"images": "folder", "annotations": "file or folder"},
            {"output": "folder"},
        ),
        split.command(),
    ]


def _synthesize_parser() -> OptionParser:
    parser = OptionParser(description="Write a synthetic dataset of surfaces with defects, in MVTec layout.")
    parser.add_argument("--output", type=Path, required=True, help="the dataset's root; one folder a surface is made")
    parser.add_class_arguments(SyntheticConfig)
    return parser


def _synthesize(options: Namespace) -> int:
    values = options.as_dict()
    output = values.pop("output")
    config = SyntheticConfig(**values)
    from supersimplenet.datasets.synthetic import synthesize

    for folder in synthesize(output, config):
        results().print(str(folder))
    return 0


def _download_parser() -> OptionParser:
    parser = OptionParser(
        description="Fetch a published dataset from its publisher, going on where an earlier attempt was cut off; "
        "compare its checksum, unpack it, count its images. What is there already is not fetched again."
    )
    names = [*ARCHIVES, ON_REQUEST]
    parser.add_argument(
        "name",
        choices=names,
        help=f"the dataset; KSDD2 comes with its split files; {ON_REQUEST} is on request: says whom to ask",
    )
    parser.add_argument("--output", type=Path, help="the dataset's root; by default datasets/NAME")
    parser.add_argument("--categories", type=str, help="only these, such as bottle,cable; by default all")
    parser.add_argument("--archive", type=Path, help="the publisher's archive, where you have it already; it is kept")
    parser.add_argument("--keep-archive", action="store_true", help="leave the fetched archive beside the root")
    return parser


def _download(options: Namespace) -> int:
    from supersimplenet.datasets.download.download import download

    name, say = options.name, results().print
    usual = Path("datasets") / name
    output = options.output or usual
    if name in ARCHIVES:
        say(f"{name}: {ARCHIVES[name].licence}; {ARCHIVES[name].page}")
    found = download(
        name,
        output,
        archive=options.archive,
        categories=options.categories.split(",") if options.categories else None,
        keep_archive=options.keep_archive,
    )
    category, *others = found.counts
    those = f"{category} and {len(others)} more: " if others else f"{category}: " if category else ""
    say(f"{output}: {'unpacked' if found.unpacked else 'already there'}; {those}{found.total}; as published")
    choice = f" --data.category {category}" if category else ""
    root = "" if output == usual else f" --data.root {shlex.quote(str(output))}"
    say(f"train: supersimplenet train --data {name}{choice}{root}")
    return 0


def _check_parser() -> OptionParser:
    parser = OptionParser(
        description="Inspection for what is wrong with a dataset; exit status 1 where there are errors."
    )
    parser.add_argument("path", type=Path | None, nargs="?", help=PATH_HELP)
    parser.add_argument("--data", type=DataSource, help=DATA_HELP)
    parser.add_argument("--output", type=Path, help="folder for check.json and pictures of what was found")
    parser.add_argument(
        "--size",
        type=PositiveInt,
        nargs=2,
        metavar=("H", "W"),
        help="height and width that the network will see: also look for defects too small and shapes unlike it",
    )
    return parser


def _check(options: Namespace) -> int:
    size_px = None if options.size is None else (options.size[0], options.size[1])
    data = _check_parser().instantiate(options).data
    if data is None:
        raise ConfigError(NO_DATASET)
    report = check_data(data, output=options.output, size_px=size_px)
    return 1 if report.of_level("error") else 0


def _convert_parser() -> OptionParser:
    parser = OptionParser(
        description="Turn annotations into a table and masks; an image is bad if it has an annotation, else good."
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        help="the JSON file of COCO, or the folder of the files of LabelMe, YOLO or VOC, one for each image",
    )
    parser.add_argument("--format", type=AnnotationFormat, required=True, help="of the annotations")
    parser.add_argument("--output", type=Path, required=True, help="folder for samples.csv and masks")
    parser.add_argument("--classes", type=str, help="only these are defects, such as scratch,dent; by default all")
    parser.add_argument(
        "--test-fraction", type=OpenUnitInterval, default=0.3, help="share of each type for the test split"
    )
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="another one gives another split")
    return parser


def _convert(options: Namespace) -> int:
    from supersimplenet.datasets.convert import convert, summary

    with writing_into(options.output):
        converted = convert(
            options.images,
            options.annotations,
            options.format,
            options.output,
            classes=options.classes.split(",") if options.classes else None,
            test_fraction=options.test_fraction,
            seed=options.seed,
        )
    table = converted.table
    train = f"train: supersimplenet train --data Table --data.path {shlex.quote(str(table))}"
    results().print(*summary(converted), f"table: {table}", train, sep="\n")
    return 0


def check_data(
    source: DataSource, *, output: Path | None = None, size_px: tuple[int, int] | None = None
) -> CheckReport:
    """Check a dataset and print the findings.

    Args:
        source: the dataset.
        output: folder for check.json and the pictures; created if it does not exist. None writes no files.
        size_px: (height, width) of the network's input; None where it is not known.

    Raises:
        DataError: the dataset is missing or contradicts itself.
    """
    from supersimplenet.datasets.bit_depth import decide_reading
    from supersimplenet.datasets.checks.check import check, remove_report, write_report

    with counting() as left_out:
        samples, orphans = source.survey()
    reading = decide_reading(source, [sample.image for sample in samples if sample.split == "train"])
    with progress_bar() as bar:
        tasks = {
            "reading": bar.add_task("reading", total=len(samples), detail=""),
            "comparing": bar.add_task("comparing", total=len(samples), detail=""),
        }
        report = check(
            samples,
            orphans=orphans,
            size_px=size_px,
            reading=reading,
            progress=lambda stage, images: bar.advance(tasks[stage], images),
        )
        bar.update(
            tasks["comparing"], total=bar.tasks[tasks["comparing"]].completed
        )  # unreadable images are not compared
    _print_report(report, source.name)
    if output is not None:
        from supersimplenet.visualization.check_sheets import draw_findings  # matplotlib is slow to import

        with writing_into(output):
            remove_report(output)
            pictures = draw_findings(report, samples, output)
            # Last: it says that all is there.
            written = write_report(report, output, data=source.name, left_out=left_out.counts())
            results().print(f"report:   {written}")
        if pictures:
            results().print(f"pictures: {', '.join(path.name for path in pictures)}")
    return report


def _print_report(report: CheckReport, name: str) -> None:
    out = results()
    images = sum(count.images for count in report.counts)
    groups = f", {report.in_groups:,} of them in {counted(report.groups, 'group')}" if report.groups else ""
    out.print(f"{name}: {counted(images, 'image')}{groups}")
    table = Table("split", "type", "images", "with mask", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for count in report.counts:
        masks = f"{count.with_mask:,}" if count.label == BAD else "-"
        table.add_row(count.split, Text(printable(count.defect)), f"{count.images:,}", masks)
    out.print(table)
    out.print(*filter(None, (report.supervision, report.smallest)), sep="\n")
    for finding in report.findings:
        out.print()
        out.print(
            Text.assemble((finding.level, _COLOURS[finding.level]), f" {finding.code}: {printable(finding.message)}")
        )
        for line in _evidence_lines(finding):
            out.print(f"    {line}")
    found: Counter[str] = Counter(finding.level for finding in report.findings)
    out.print()
    out.print(", ".join(f"{found[level]} {level}{'' if found[level] == 1 else 's'}" for level in _COLOURS))


def _evidence_lines(finding: Finding) -> list[str]:
    lines = []
    for evidence in finding.evidence[:_SHOWN]:
        more = f" and {len(evidence.images) - 2} more" if len(evidence.images) > 2 else ""
        named = " = ".join(str(image) for image in evidence.images[:2]) + more
        detail = f"  ({evidence.detail})" if evidence.detail else ""
        lines.append(evidence.detail if finding.code in _ERRORS_OF_FILES else f"{named}{detail}")
    if len(finding.evidence) > _SHOWN:
        lines.append(f"and {len(finding.evidence) - _SHOWN:,} more")
    return lines
