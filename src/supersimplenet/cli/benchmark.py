"""`supersimplenet benchmark`: measure the speed of this machine, and the accuracy on whole datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from supersimplenet.benchmark.config import AccuracyConfig, Protocol, SpeedConfig
from supersimplenet.cli.common import Command, OptionParser, compute_config
from supersimplenet.datasets.base import DataSource
from supersimplenet.errors import ConfigError
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.utils.console import console, results
from supersimplenet.utils.files import write_text
from supersimplenet.utils.locks import writing_file


def commands() -> list[Command]:
    """Return the commands below ``benchmark``."""
    return [
        Command(
            "speed",
            "time each stage from the file to the verdict",
            _speed_parser(),
            _speed,
            {"model": "model folder"},
            {"output": "file"},
        ),
        Command(
            "accuracy",
            "train and test on a whole dataset, beside published figures",
            _accuracy_parser(),
            _accuracy,
            {"view.roi": "file", "view.reference": "file", "model.backbone_weights": "file"},
            {"output": "folder"},
        ),
    ]


def _speed_parser() -> OptionParser:
    parser = OptionParser(description="Time each stage from the file to the verdict, alone and many at once.")
    parser.add_argument("--output", type=Path, help="also write the report as JSON")
    parser.add_class_arguments(SpeedConfig)
    return parser


def _speed(options: Namespace) -> int:
    values = _speed_parser().instantiate(options).as_dict()
    output = values.pop("output")
    config = SpeedConfig(**values)
    compute_config(options)
    from supersimplenet.benchmark.speed import benchmark_speed

    report = benchmark_speed(config)
    _print_speed(report)
    if output is not None:
        with writing_file(output):
            write_text(output, json.dumps(report, indent=2) + "\n")
        results().print(str(output))
    return 0


def _accuracy_parser() -> OptionParser:
    parser = OptionParser(
        description="Train and test each category, fold, regime of supervision and seed; write mean and standard "
        "deviation beside the published figures. The same command again goes on where it was, or adds to it."
    )
    # Each run sets category, fold and masks of the data source.
    parser.add_subclass_arguments(DataSource, "data", skip={"category", "fold", "masks"}, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of runs.jsonl, results.md and results.csv")
    parser.add_argument(
        "--categories",
        type=str,
        default="all",
        help="of a dataset that has any, such as bottle,cable; all: each that its root holds",
    )
    parser.add_argument("--folds", type=str | None, help="of a dataset that has any, such as 0,1; by default all")
    parser.add_argument(
        "--regimes",
        type=str,
        default="unsupervised",
        help="such as unsupervised,weak,mixed:16,mixed:0.25,full: mixed with a number of masks or a share of them",
    )
    parser.add_argument("--seeds", type=str, default="0", help="each run once with each, such as 0,1,2")
    parser.add_argument(
        "--protocol",
        type=Protocol | None,
        help="where you give no option: that of the papers (published: no hold-out; their flips, resize, sampling and "
        "noise), or this program's (ours); by default published on a dataset with published results",
    )
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--view", type=ViewConfig, default=ViewConfig())
    parser.add_argument("--recipe", type=Recipe, default=Recipe())
    parser.add_argument("--trainer", type=TrainerConfig, default=TrainerConfig())
    parser.add_argument("--cache", type=CacheConfig, default=CacheConfig())
    parser.add_argument("--time-budget", type=str | None, help="of each training, such as 10m")
    parser.add_argument("--devices", type=str | None, help="GPUs, such as 0,1: each has a run at a time")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time on a CPU, which share its threads")
    parser.add_argument("--keep-models", action="store_true", help="leave every model in FOLDER/runs")
    return parser


def _accuracy(options: Namespace) -> int:
    data = options.pop("data")
    module, _, name = data.class_path.rpartition(".")
    settings = _accuracy_parser().instantiate(options)
    if settings.protocol is None:
        raise ConfigError("protocol: not given, and --data does not name the dataset; say published or ours")
    config = AccuracyConfig(
        categories=_words(settings.categories),
        folds=_numbers("folds", settings.folds),
        regimes=_words(settings.regimes),
        seeds=_numbers("seeds", settings.seeds),
        protocol=settings.protocol,
        time_budget=settings.time_budget,
        devices=_words(settings.devices),
        jobs=settings.jobs,
        keep_models=settings.keep_models,
    )
    if config.time_budget is not None:
        parse_duration(config.time_budget, "time-budget")
    from supersimplenet.benchmark.accuracy import CSV_FILE, MARKDOWN_FILE, benchmark_accuracy
    from supersimplenet.benchmark.runs import DataFamily

    study = benchmark_accuracy(
        DataFamily(kind=getattr(import_module(module), name), arguments=data.init_args.as_dict()),
        settings.output,
        config,
        model=settings.model,
        view=settings.view,
        recipe=settings.recipe,
        trainer=settings.trainer,
        cache=settings.cache,
    )
    if study.lines:
        results().print(str(settings.output / MARKDOWN_FILE), str(settings.output / CSV_FILE), sep="\n")
    return 1 if study.failed else 0


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _numbers(name: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError as error:
        raise ConfigError(f"{name}: '{text}'; write whole numbers with commas between them, such as 0,1,2") from error


def _print_speed(report: Mapping[str, Any]) -> None:
    """Print the report as a table on standard error."""
    from rich.table import Table

    from supersimplenet.benchmark.speed import COLUMNS

    config, (height, width) = report["config"], report["config"]["image_size"]
    console().print(
        f"{config['model'] or config['backbone']}, {height}x{width} px, batch {config['batch_size']}, "
        f"{config['engine']} {config['precision']}, {report['machine']['device']}, "
        f"threads: {report['machine']['threads']}; milliseconds an image, median of {config['rounds']} rounds",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("", "median", "10th percentile", "90th percentile", "share", box=None, pad_edge=False)
    total = sum(row["median_ms"] for row in report["stages"].values())
    for name, row in report["stages"].items():
        table.add_row(name, *(f"{row[k]:.2f}" for k in COLUMNS), f"{row['median_ms'] / total:.0%}")
    for part in ("calls", "training"):
        for name, row in report.get(part, {}).items():
            ratio = f"x{row['times_the_first']:.2f}" if "times_the_first" in row else ""
            table.add_row(name, *(f"{row[k]:.2f}" for k in COLUMNS), ratio)
    console().print(table)
    line = report["line"]
    console().print(
        f"images a second, many at once: {line['from_memory']:.1f} from memory, {line['from_files']:.1f} from files",
        highlight=False,
        soft_wrap=True,
    )
    if report["peak_memory_mib"] is not None:
        console().print(f"peak memory: {report['peak_memory_mib']:.0f} MiB", highlight=False)
