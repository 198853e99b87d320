"""The program: its commands, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from supersimplenet import __version__
from supersimplenet.cli.benchmark import benchmark_commands
from supersimplenet.cli.data import data_commands
from supersimplenet.cli.export import export_command
from supersimplenet.cli.options import (
    DATA_HELP,
    ON_ERROR_HELP,
    RESOLUTION_HELP,
    Command,
    OptionParser,
    add_engine,
    compute_config,
)
from supersimplenet.cli.quality import quality_commands
from supersimplenet.cli.train import train_command, without_model_name
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource
from supersimplenet.errors import ImageError, SuperSimpleNetError
from supersimplenet.model.recipes import ModelConfig
from supersimplenet.prediction.outputs import DEFAULT_FORMATS, parse_formats
from supersimplenet.settings import Resolution
from supersimplenet.training.config import parse_duration

_SPIN_COUNT = "1000"
_GROUPS = {
    "data": "make, fetch, check and split data sets",
    "benchmark": "measure this machine, and models on published data sets",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: as typed after the program's name; by default those of this process.

    Returns:
        The exit status: 0 where all went well, 1 where a message on standard error says what did not.
    """
    # Threads of an operation wait for each other by spinning, for milliseconds unless told otherwise; where another
    # process has the core, they then spin through each other's time slices. libgomp reads this when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _build_parser()
    try:
        parsed = parser.parse_args(without_model_name(arguments))
        command = parsed.subcommand
        options = parsed[command]
        if command in _GROUPS:
            command, options = f"{command} {options.subcommand}", options[options.subcommand]
        return commands[command](options)
    except ImageError as error:
        advice = "; --on-error skip leaves out what cannot be read, and says so" if "on_error" in options else ""
        print(f"{type(error).__name__}: {error}{advice}", file=sys.stderr)
        return 1
    except SuperSimpleNetError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the system's words name the file
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def command_groups() -> dict[str, list[Command]]:
    """Every command, by the word that comes before it; most have none."""
    return {
        "": [
            train_command(),
            Command("test", "evaluate a model on a data set's test images", _test_parser(), _test),
            *quality_commands(),
            Command("predict", "look at images, write a table of scores and verdicts", _predict_parser(), _predict),
            export_command(),
            Command("import", "turn other implementations' weights into a model folder", _import_parser(), _import),
            Command("demo", "synthetic data, training, evaluation, pictures: offline", _demo_parser(), _demo),
        ],
        "data": data_commands(),
        "benchmark": benchmark_commands(),
    }


def _build_parser() -> tuple[OptionParser, dict[str, Callable[[Namespace], int]]]:
    parser = OptionParser(prog="supersimplenet", description="Find defects on surfaces in photographs.")
    parser.add_argument("--version", action="version", version=f"supersimplenet {__version__}")
    top = parser.add_subcommands()
    runs: dict[str, Callable[[Namespace], int]] = {}
    for group, commands in command_groups().items():
        subcommands = top
        if group:
            group_parser = OptionParser(description=f"{_GROUPS[group][0].upper()}{_GROUPS[group][1:]}.")
            top.add_subcommand(group, group_parser, help=_GROUPS[group])
            subcommands = group_parser.add_subcommands()
        for command in commands:
            subcommands.add_subcommand(command.name, command.parser, help=command.help)
            runs[f"{group} {command.name}".strip()] = command.run
    return parser, runs


def _test_parser() -> OptionParser:
    parser = OptionParser(description="Evaluate a model on a data set's test images; writes metrics.json.")
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("--data", type=DataSource, help=f"{DATA_HELP}; by default the one it was trained on")
    parser.add_argument("--output", type=Path, help="where to write; by default the model folder")
    parser.add_argument("--resolution", type=Resolution, default="model", help=RESOLUTION_HELP)
    add_engine(parser, cluster=True)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _test(options: Namespace) -> int:
    from supersimplenet.apps.evaluate import evaluate_model

    data = _test_parser().instantiate(options).data
    evaluate_model(
        options.model,
        data=data,
        output=options.output,
        resolution=options.resolution,
        compute=compute_config(options),
        on_error=options.on_error,
    )
    return 0


def _predict_parser() -> OptionParser:
    parser = OptionParser(description="Look at images; writes a table of scores and verdicts.")
    parser.add_argument(
        "--model", type=Path, required=True, help="the model folder, or a file that `supersimplenet export` wrote"
    )
    parser.add_argument(
        "paths",
        nargs="*",
        help="image files, folders (searched at any depth), glob patterns, tar archives and Parquet tables of images, "
        "URLs of these, or - for a list on standard input",
    )
    parser.add_argument(
        "--list", type=Path | None, help="a text file that names an image, or any of these, in each line"
    )
    parser.add_argument(
        "--watch", type=Path | None, help="predict what is in this folder and what is put there later, until stopped"
    )
    parser.add_argument("--watch-for", type=str | None, help="such as 10m: watch no longer than that")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--format", type=str, default=",".join(DEFAULT_FORMATS), help="of the results: csv, jsonl, parquet, with commas"
    )
    parser.add_argument("--overlays", action="store_true", help="also write each image with its heat map")
    parser.add_argument(
        "--false-discovery-rate",
        type=str | None,
        help="such as 5%: count the images that can be told from good parts with at most that share of mistakes, "
        "however many images there are (column q_value)",
    )
    parser.add_argument(
        "--batch-size", type=int | None, help="images that go through the network together; by default what suits it"
    )
    add_engine(parser, cluster=True)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    parser.add_argument(
        "--trust",
        action="store_true",
        help="open an exported torch program, which may run code of whoever made it; ONNX and OpenVINO files hold none",
    )
    return parser


def _predict(options: Namespace) -> int:
    from supersimplenet.apps.predict import predict_files
    from supersimplenet.evaluation.thresholds import parse_share

    rate = options.false_discovery_rate
    predict_files(
        options.model,
        options.paths,
        options.output,
        list_file=options.list,
        watch=options.watch,
        watch_for_s=None if options.watch_for is None else parse_duration(options.watch_for, "watch-for"),
        formats=parse_formats(options.format),
        overlays=options.overlays,
        false_discovery_rate=None if rate is None else parse_share(rate, "false-discovery-rate"),
        batch_size=options.batch_size,
        compute=compute_config(options),
        on_error=options.on_error,
        trust=options.trust,
    )
    return 0


def _import_parser() -> OptionParser:
    parser = OptionParser(description="Turn weights of another implementation into a model folder.")
    parser.add_argument("--source", type=Literal["official", "anomalib"], required=True, help="who wrote the file")
    parser.add_argument("file", type=Path, help="weights.pt of the authors' code, or a checkpoint of anomalib")
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    return parser


def _import(options: Namespace) -> int:
    from supersimplenet.deploy.interop import import_weights

    settings = _import_parser().instantiate(options)
    import_weights(options.file, source=options.source, config=settings.model, output=options.output)
    print(f"imported: {options.output}")
    return 0


def _demo_parser() -> OptionParser:
    parser = OptionParser(description="Make synthetic data, train on its good images, evaluate, draw the findings.")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of data, model and pictures")
    return parser


def _demo(options: Namespace) -> int:
    from supersimplenet.apps.demo import demo

    demo(options.output)
    return 0
