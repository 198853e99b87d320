"""What `data check` and `data split` do: a few calls, and words for the person who waits. No torch is needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from supersimplenet.data.checks.check import CheckReport, check, remove_report, write_report
from supersimplenet.data.checks.findings import Finding
from supersimplenet.data.checks.inspection import look_at
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.splits import group_samples, split_samples, write_table
from supersimplenet.records import BAD, Sample
from supersimplenet.settings import GroupsName
from supersimplenet.terminal import progress_bar

_SHOWN = 3  # pieces of evidence of a finding on the screen; check.json has all
_ERRORS_OF_FILES = (
    "image-unreadable",
    "mask-unreadable",
    "mask-size",
    "ignore-unusable",
)  # their details name the file
_COLOURS = {"error": "bold red", "warning": "yellow", "note": "blue"}


def check_data(
    source: DataSource, *, output: Path | None = None, size_px: tuple[int, int] | None = None
) -> CheckReport:
    """Check a data set and print what was found.

    Args:
        source: the data set.
        output: folder for check.json and the pictures; made where missing.
        size_px: (height, width) that the network will see.

    Raises:
        DataError: the data set is missing or contradicts itself.
    """
    samples = source.samples()
    with progress_bar() as bar:
        tasks = {
            "reading": bar.add_task("reading", total=len(samples), detail=""),
            "comparing": bar.add_task("comparing", total=len(samples), detail=""),
        }
        report = check(samples, size_px=size_px, progress=lambda stage, images: bar.advance(tasks[stage], images))
        bar.update(
            tasks["comparing"], total=bar.tasks[tasks["comparing"]].completed
        )  # unreadable ones are not compared
    _print_report(report, source.name)
    if output is not None:
        from supersimplenet.data.checks.pictures import draw_findings  # matplotlib takes a moment

        output.mkdir(parents=True, exist_ok=True)
        remove_report(output)
        print(f"report:   {write_report(report, output, data=source.name)}")
        pictures = draw_findings(report, samples, output)
        if pictures:
            print(f"pictures: {', '.join(path.name for path in pictures)}")
    return report


def split_data(
    source: DataSource,
    output: Path,
    *,
    test_fraction: float = 0.3,
    seed: int = 0,
    groups: GroupsName = "known",
) -> list[Sample]:
    """Split a data set anew, write the table and print what went where.

    Args:
        source: the data set; good and bad images of both splits are pooled.
        output: the table to write.
        test_fraction: share of each type for the test split.
        seed: another one gives another split.
        groups: what is kept whole; see `group_samples`.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    samples = source.samples()
    looks = None
    if groups == "found":
        with progress_bar() as bar:
            task = bar.add_task("reading", total=len(samples), detail="")
            looks = look_at(samples, progress=lambda images: bar.advance(task, images))
    grouped = group_samples(samples, groups, looks)
    split = split_samples(grouped, test_fraction=test_fraction, seed=seed)
    write_table(split, output)
    _print_split(split, test_fraction)
    sizes = Counter(sample.group for sample in split if sample.group is not None)
    several = [size for size in sizes.values() if size > 1]
    print(f"{len(several):,} groups of several images ({sum(several):,} images), each in one split")
    if groups == "known" and not sizes:
        print("no groups are named; --groups found looks for photographs of one part and keeps them together")
    if groups == "found":
        print("photographs that are turned or cropped differently are not found: name the parts where you can")
    print(f"table: {output}\ntrain: supersimplenet train --data Table --data.path {output}")
    return split


def _print_report(report: CheckReport, name: str) -> None:
    out = Console(highlight=False, markup=False, soft_wrap=True)
    images = sum(count.images for count in report.counts)
    groups = f", {report.in_groups:,} of them in {report.groups:,} groups" if report.groups else ""
    out.print(f"{name}: {images:,} images{groups}")
    table = RichTable("split", "type", "images", "with mask", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for count in report.counts:
        masks = f"{count.with_mask:,}" if count.label == BAD else "-"
        table.add_row(count.split, Text(count.defect), f"{count.images:,}", masks)
    out.print(table)
    out.print(report.supervision)
    for finding in report.findings:
        out.print()
        out.print(Text.assemble((finding.level, _COLOURS[finding.level]), f" {finding.code}: {finding.message}"))
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


def _print_split(samples: list[Sample], test_fraction: float) -> None:
    table = RichTable("type", "train", "test", "test share", "off by", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    counts = Counter((sample.defect, sample.split) for sample in samples)
    labels = {sample.defect: sample.label for sample in samples}
    for defect in sorted(labels, key=lambda defect: (labels[defect], defect)):
        train, test = counts[defect, "train"], counts[defect, "test"]
        share = test / (train + test)
        off = test - test_fraction * (train + test)
        table.add_row(Text(defect), f"{train:,}", f"{test:,}", f"{share:.1%}", f"{off:+.1f} images")
    Console(highlight=False).print(table)
