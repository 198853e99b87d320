"""`supersimplenet distill`: train a small backbone to give the features of a large one."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from rich.table import Table

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.distillation.config import DistillConfig
from supersimplenet.preprocessing.listing import list_images
from supersimplenet.training.config import parse_duration
from supersimplenet.utils.console import results

_SHOWN = {"teacher": "teacher", "before": "student, before", "after": "student, after"}


def command() -> Command:
    """Return the command ``distill``."""
    return Command(
        "distill",
        "train a small backbone on your own pictures, from a large one",
        _parser(),
        _run,
        {
            "pictures": "file or folder",
            "distillation.teacher_weights": "file",
            "distillation.student_weights": "file",
            "measure_on": "file",
        },
        {"output": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Train a student backbone to give the features of a teacher, on pictures without labels. The "
        "weights are used with --model.backbone_weights."
    )
    parser.add_argument("pictures", type=Path, nargs="*", help="folders with pictures")
    parser.add_argument("--distillation", type=DistillConfig, default=DistillConfig())
    parser.add_argument("--time-budget", type=str | None, help="end after this time, such as 1h, if steps are left")
    parser.add_argument("--resume", action="store_true", help="go on with the distillation in --output")
    parser.add_argument(
        "--measure-on", type=Path, nargs="+", default=[], help="tables of images, on which the backbones are compared"
    )
    parser.add_argument("--size", type=PositiveInt, default=256, help="height and width of their images, in px")
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights")
    return parser


def _run(options: Namespace) -> int:
    config: DistillConfig = _parser().instantiate(options).distillation
    budget_s = None if options.time_budget is None else parse_duration(options.time_budget)
    pictures = [path for folder in options.pictures for path in list_images(folder, leave_out=options.output)]
    from supersimplenet.datasets.table import Table as ImageTable
    from supersimplenet.distillation.distill import distill

    datasets = {str(path): ImageTable(path=path).samples() for path in options.measure_on}  # wrong ones are said first
    found = distill(pictures, options.output, config, time_budget_s=budget_s, resume=options.resume)
    if datasets:
        from supersimplenet.distillation.report import measure_backbones

        rows = measure_backbones(config, found.weights, datasets, size_px=(options.size, options.size))
        table = Table("dataset", "backbone", "nearest neighbour", "subspace", box=None, pad_edge=False)
        for row in rows:
            figures = (f"{value:.3f}" for value in (row.quality.nearest_neighbour, row.quality.subspace))
            table.add_row(row.dataset, _SHOWN[row.backbone], *figures)
        results().print("image AUROC of two detectors that are fitted to good images, without training:")
        results().print(table)
    results().print(f"weights: {found.weights}")
    return 0
