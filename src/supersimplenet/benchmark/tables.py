"""Write the summary as text, Markdown and CSV. Text and Markdown have per cent with one decimal, CSV has fractions."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table as RichTable

from supersimplenet.benchmark.journal import METRICS, Line
from supersimplenet.benchmark.protocol import deviations
from supersimplenet.benchmark.published import Published, published_datasets
from supersimplenet.benchmark.runs import FOLDS
from supersimplenet.benchmark.summary import MEAN, Figure, has_all_folds, written

Rows = tuple[list[str], list[list[str]]]  # header, rows
_MINUS = "\N{MINUS SIGN}"  # as wide as a plus sign
_PAPERS = {"jims": "JIMS 2025", "icpr": "ICPR 2024"}
_MASKS = {
    "split file": "those of the dataset's own split files",
    "seeded subset": "a subset drawn by the seed",
}
_READING = {
    "AP-det": "AP-det and I-AUROC rank images by the classification head's score",
    "seg-AP-det": ", seg- by the map's maximum",
    "fused-AP-det": ", fused- by both together",
    "subspace-AP-det": ", subspace- by the distance from good images",
    "joint-AP-det": ", joint- by all together",
    "AP-loc": "; AP-loc, P-AUROC and AUPRO are of pixels",
}
_NAMES = ("supervision", "metric", "category")  # headers of columns with text; all others hold numbers


def results_csv(figures: Sequence[Figure], dataset: str) -> str:
    """Return CSV text with a row for each figure; values are fractions, missing values are empty."""
    text = io.StringIO()
    rows = [_csv_row(figure, dataset) for figure in figures]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def results_markdown(lines: Sequence[Line], figures: Sequence[Figure], *, failures: int, picture: str | None) -> str:
    """Return the tables as Markdown: the whole dataset, each category, the runs and their settings.

    Args:
        lines: the lines of the runs.
        figures: the figures from `summarise`.
        failures: number of runs that failed and have no line.
        picture: file name of the plot in the same folder; None if there is no plot.
    """
    whole, by_category = _split(figures)
    parts = [f"# Accuracy on {title(lines)}", *describe(lines, figures)]
    if failures:
        parts.append(f"**Runs that failed and are missing here: {failures}; failures.jsonl says why.**")
    average = f"{_average(lines)}Per cent; mean ± sample standard deviation over seeds."
    parts += ["## Results", average, _markdown(_across([(f.supervision, f) for f in whole], "supervision", _here))]
    if picture is not None:
        parts.append(f"![AP against the number of masks]({picture})")
    if any(figure.published for figure in figures):
        parts += ["## Beside the published figures", "n: seeds.", _markdown(_beside(whole, anomalib=True))]
    if by_category:
        brackets = "In brackets the difference from the published figure, where there is one."
        parts += ["## By category", brackets, *_category_tables(by_category)]
    parts += ["## Runs", "Seconds are means of one run.", _markdown(_run_rows(lines, figures))]
    return "\n\n".join(parts) + "\n"


def results_text(figures: Sequence[Figure]) -> RichTable:
    """Return the table of the whole dataset without anomalib's figures, to fit a terminal of 80 columns."""
    header, rows = _beside(_split(figures)[0], anomalib=False)
    table = RichTable(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name in _NAMES else "right", no_wrap=True)
    for row in rows:
        if row[0] and table.row_count:
            table.add_row()
        table.add_row(*row)
    return table


def describe(lines: Sequence[Line], figures: Sequence[Figure]) -> list[str]:
    """Return a description of the runs' settings and of the figures, as a list of paragraphs."""
    settings = lines[0]["settings"]
    model = settings["model"]
    sizes = [f"{height}x{width}" for height, width in sorted({tuple(line["image_size"]) for line in lines})]
    budget = f" ({settings['time_budget']} a run)" if settings["time_budget"] else ""
    what = (
        f"{model['backbone']}, {' and '.join(sizes)} px, variant {model['variant']}, "
        f"{_span([line['epochs'] for line in lines])} epochs{budget}; {'; '.join(_versions(lines))}."
    )
    reading = "".join(text for name, text in _READING.items() if any(figure.metric == name for figure in figures))
    beside = "Nothing is published for these."
    if not has_all_folds(lines):
        beside = (
            f"Published figures are means over {len(FOLDS)} folds, which were not all run: none stands beside these."
        )
    if any(figure.published for figure in figures):
        beside = f"Published: {_PAPERS[model['variant']]}, wide_resnet50_2.tv_in1k, 300 epochs, five runs."
    paragraphs = [what, f"{reading}. {beside}"]
    if differences := deviations(lines):
        paragraphs.append(f"Differs from the publication: {'; '.join(differences)}.")
    elif lines[0]["dataset"] in published_datasets():
        paragraphs.append("Run by the publication's protocol, as far as it is known.")
    for masks_from, text in _MASKS.items():
        names = dict.fromkeys(figure.supervision for figure in figures if figure.masks_from == masks_from)
        if names:
            paragraphs.append(f"Masks of {', '.join(names)}: {text}.")
    return paragraphs


def title(lines: Sequence[Line]) -> str:
    """Return the name of the dataset, with its category if there is only one."""
    categories = {line["category"] for line in lines}
    dataset: str = lines[0]["dataset"]
    only: str = categories.pop() if len(categories) == 1 else dataset
    return only if only == dataset or only.startswith(f"{dataset}/") else f"{dataset}/{only}"


def _beside(figures: Sequence[Figure], *, anomalib: bool) -> Rows:
    """Return a row for each figure, with the published figure; the regime's name is in its first row only."""
    has_published = any(figure.published for figure in figures)
    has_anomalib = anomalib and any(figure.anomalib for figure in figures)
    header = ["supervision", "metric", "here", "n"]
    header += ["published", "difference"] if has_published else []
    header += ["anomalib", "difference"] if has_anomalib else []
    rows: list[list[str]] = []
    last = ""
    for figure in figures:
        row = ["" if figure.supervision == last else figure.supervision, figure.metric, _here(figure), str(figure.n)]
        last = figure.supervision
        for shown, other in ((has_published, figure.published), (has_anomalib, figure.anomalib)):
            row += [_published(other), _signed(figure.difference(other))] if shown else []
        rows.append(row)
    return header, rows


def _category_tables(figures: Sequence[Figure]) -> list[str]:
    """Return a table for each regime: a row for each category, a column for each metric."""
    parts = []
    for supervision in dict.fromkeys(figure.supervision for figure in figures):
        mine = [(figure.category, figure) for figure in figures if figure.supervision == supervision]
        parts += [f"### {supervision}", _markdown(_across(mine, "category", _here_with_difference))]
    return parts


def _across(figures: Sequence[tuple[str, Figure]], down: str, cell: Callable[[Figure], str]) -> Rows:
    """Return a table with a row for each name and a column for each metric."""
    found = {(name, figure.metric): cell(figure) for name, figure in figures}
    metrics = [metric for metric in METRICS if any(metric == known for _, known in found)]
    names = dict.fromkeys(name for name, _ in found)
    return [down, *metrics], [[name, *(found.get((name, metric), "") for metric in metrics)] for name in names]


def _run_rows(lines: Sequence[Line], figures: Sequence[Figure]) -> Rows:
    header = [
        "supervision",
        "runs",
        "good",
        "bad with mask",
        "bad without",
        "epochs",
        "steps",
        "training, s",
        "test, s",
    ]
    rows = []
    for supervision in dict.fromkeys(figure.supervision for figure in figures):
        mine = [line for line in lines if written(line["regime"], line["masks"]) == supervision]
        whole = [line["train_seconds"] for line in mine if not line["resumed"]]
        images = [[line["training_images"][kind] for line in mine] for kind in mine[0]["training_images"]]
        counts = [*images, [line["epochs"] for line in mine], [line["steps"] for line in mine]]
        training = f"{statistics.fmean(whole):,.0f}" if whole else "resumed"
        test = f"{statistics.fmean(line['test_seconds'] for line in mine):,.0f}"
        rows.append([supervision, str(len(mine)), *map(_span, counts), training, test])
    return header, rows


def _csv_row(figure: Figure, dataset: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": dataset,
        "regime": figure.regime,
        "masks": figure.masks,
        "masks_from": figure.masks_from,
        "category": figure.category,
        "metric": figure.metric,
        "n": figure.n,
        "mean": _number(figure.mean),
        "std": _number(figure.std),
    }
    for name, other in (("published", figure.published), ("anomalib", figure.anomalib)):
        row[f"{name}_source"] = None if other is None else other.source
        row[f"{name}_mean"] = None if other is None else other.mean
        row[f"{name}_std"] = None if other is None else other.std
        row[f"{name}_difference"] = _number(figure.difference(other))
    return row


def _split(figures: Sequence[Figure]) -> tuple[list[Figure], list[Figure]]:
    """Return the figures of the whole dataset, and those of its categories if there are several."""
    if not any(figure.category == MEAN for figure in figures):
        return list(figures), []
    return [f for f in figures if f.category == MEAN], [f for f in figures if f.category != MEAN]


def _average(lines: Sequence[Line]) -> str:
    categories, folds = ({line[name] for line in lines} for name in ("category", "fold"))
    several = [
        f"{len(found)} {name}" for name, found in (("categories", categories), ("folds", folds)) if len(found) > 1
    ]
    return f"Mean over {' and '.join(several)}. " if several else ""


def _versions(lines: Sequence[Line]) -> list[str]:
    """Return the software versions; several if runs were added after an update, which may not be comparable."""
    found = {
        ", ".join(f"{name} {line['versions'][name]}" for name in ("supersimplenet", "torch", "timm")) for line in lines
    }
    return sorted(found)


def _here(figure: Figure) -> str:
    if figure.mean is None:
        return "-"
    return f"{100 * figure.mean:.1f}" + ("" if figure.std is None else f" ± {100 * figure.std:.1f}")


def _here_with_difference(figure: Figure) -> str:
    difference = _signed(figure.difference(figure.published))
    return f"{_here(figure)} ({difference})" if difference else _here(figure)


def _published(figure: Published | None) -> str:
    if figure is None:
        return ""
    return f"{100 * figure.mean:.1f}" + ("" if figure.std is None else f" ± {100 * figure.std:.1f}")


def _signed(difference: float | None) -> str:
    if difference is None:
        return ""
    text = f"{100 * difference:+.1f}".replace("-", _MINUS)
    return "0.0" if text[1:] == "0.0" else text


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _markdown(table: Rows) -> str:
    """Return a Markdown table, readable as text: columns as wide as their longest cell, numbers aligned right."""
    header, rows = table
    widths = [max(3, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if name in _NAMES else cell.rjust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if name in _NAMES else "-" * (width - 1) + ":" for name, width in zip(header, widths, strict=True)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])
