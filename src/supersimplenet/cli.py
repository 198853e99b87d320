"""The command line: options only. Each command hands plain values to one function of the package."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from supersimplenet import __version__
from supersimplenet.data.datasets import DataSource
from supersimplenet.data.loading import OnError
from supersimplenet.data.synthetic import SyntheticConfig
from supersimplenet.errors import ConfigError, SuperSimpleNetError
from supersimplenet.model.recipes import ModelConfig, Recipe
from supersimplenet.settings import EngineName, Precision, SpeedConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig

_ON_ERROR_HELP = "what an unreadable image does: stop the command, or be left out, counted and listed"
_DATA_HELP = (
    "the data set: MVTecAD, Folder or Table, with its own options behind the dot, such as --data.category bottle; "
    "--data.help MVTecAD explains them"
)
_MODEL_NAME = "SuperSimpleNet"
_SPIN_COUNT = "1000"


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
        parsed = parser.parse_args(_without_model_name(arguments))
        command = parsed.subcommand
        options = parsed[command]
        if command in ("data", "benchmark"):
            command, options = f"{command} {options.subcommand}", options[options.subcommand]
        return commands[command](options)
    except SuperSimpleNetError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the system's words name the file
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _build_parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], int]]]:
    parser = ArgumentParser(prog="supersimplenet", description="Find defects on surfaces in photographs.")
    parser.add_argument("--version", action="version", version=f"supersimplenet {__version__}")
    commands = parser.add_subcommands()
    commands.add_subcommand("train", _train_parser(), help="train on the good images of a data set")
    commands.add_subcommand("test", _test_parser(), help="evaluate a model on a data set's test images")
    commands.add_subcommand("predict", _predict_parser(), help="look at images, write a table of scores and verdicts")
    commands.add_subcommand("import", _import_parser(), help="turn other implementations' weights into a model folder")
    commands.add_subcommand("demo", _demo_parser(), help="synthetic data, training, evaluation, pictures: offline")
    data = ArgumentParser(description="Make data sets.")
    commands.add_subcommand("data", data, help="make data sets")
    data_commands = data.add_subcommands()
    data_commands.add_subcommand("synthesize", _synthesize_parser(), help="write a synthetic data set, MVTec layout")
    benchmark = ArgumentParser(description="Measure this machine.")
    commands.add_subcommand("benchmark", benchmark, help="measure this machine")
    benchmark_commands = benchmark.add_subcommands()
    benchmark_commands.add_subcommand("speed", _speed_parser(), help="time each stage from the file to the verdict")
    return parser, {
        "train": _train,
        "test": _test,
        "predict": _predict,
        "import": _import,
        "demo": _demo,
        "data synthesize": _synthesize,
        "benchmark speed": _speed,
    }


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Train on the good images of a data set and leave a model folder.")
    parser.add_argument("--config", action="config", help="YAML file that holds any of these options")
    parser.add_argument("--data", type=DataSource, help=_DATA_HELP)
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--recipe", type=Recipe, default=Recipe())
    parser.add_argument("--trainer", type=TrainerConfig, default=TrainerConfig())
    parser.add_argument("--cache", type=CacheConfig, default=CacheConfig())
    parser.add_argument("--output", type=Path, help="the model folder; by default runs/<data set's name>")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, order, masks and noise")
    parser.add_argument(
        "--time-budget",
        type=str | None,
        help="such as 15m: train as many epochs as fit, at most trainer.max_epochs",
    )
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in --output, exactly")
    parser.add_argument("--on-error", type=OnError, default="stop", help=_ON_ERROR_HELP)
    return parser


def _train(options: Namespace) -> int:
    from supersimplenet.training.run import train

    settings = _train_parser().instantiate(options)
    if options.resume:
        _take_over(settings, options)
    if settings.data is None:
        raise ConfigError("data: not given; name a data set, such as --data Folder --data.good parts/good")
    output = settings.output or Path("runs") / settings.data.name
    train(
        settings.data,
        output=output,
        model=settings.model,
        recipe=settings.recipe,
        trainer=settings.trainer,
        cache=settings.cache,
        seed=settings.seed,
        time_budget=settings.time_budget,
        resume=settings.resume,
        on_error=settings.on_error,
    )
    print(f"trained: {output}\ntest it: supersimplenet test --model {output}")
    return 0


def _take_over(settings: Namespace, options: Namespace) -> None:
    """With --resume, each group of options that was left at its defaults comes from the interrupted run.

    A group of which something was typed is compared with the interrupted run as a whole, by `train`.
    """
    from supersimplenet.data.registry import source_from
    from supersimplenet.deploy.folder import CONFIG_FILE, from_plain, read_record

    if options.output is None:
        raise ConfigError("output: not given; --resume needs the folder of the interrupted run")
    if not (options.output / CONFIG_FILE).is_file():
        if options.data is not None:
            return  # stopped before anything was decided: the same command begins anew
        raise ConfigError(f"{options.output}: nothing to resume yet; run the train command again, without --resume")
    record = read_record(options.output)
    defaults = _train_parser().get_defaults()
    groups = (("model", ModelConfig), ("recipe", Recipe), ("trainer", TrainerConfig), ("cache", CacheConfig))
    for name, kind in groups:
        if options[name] == defaults[name]:
            settings[name] = from_plain(kind, record[name], where=f"{options.output}: {name}")
    for name in ("seed", "time_budget", "on_error"):
        if options[name] == defaults[name]:
            settings[name] = record[name]
    if settings.data is None:
        settings.data = source_from(record["data"])


def _test_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Evaluate a model on a data set's test images; writes metrics.json.")
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("--data", type=DataSource, help=f"{_DATA_HELP}; by default the one it was trained on")
    parser.add_argument("--output", type=Path, help="where to write; by default the model folder")
    _add_engine(parser)
    parser.add_argument("--on-error", type=OnError, default="stop", help=_ON_ERROR_HELP)
    return parser


def _add_engine(parser: ArgumentParser) -> None:
    """What computes, where and how."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--engine",
        type=EngineName,
        default="torch",
        help="what computes; openvino is the faster on a processor (pip install 'supersimplenet[openvino]')",
    )
    parser.add_argument(
        "--precision",
        type=Precision,
        default="float32",
        help="bfloat16 is faster where the processor or GPU computes in it; scores change in the third digit",
    )


def _test(options: Namespace) -> int:
    from supersimplenet.apps import evaluate_model

    data = _test_parser().instantiate(options).data
    evaluate_model(
        options.model,
        data=data,
        output=options.output,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        on_error=options.on_error,
    )
    return 0


def _predict_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Look at images; writes predictions.csv and predictions.jsonl.")
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("paths", nargs="+", help="image files, folders (searched at any depth) or glob patterns")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--overlays", action="store_true", help="also write each image with its heat map")
    parser.add_argument(
        "--batch-size", type=int | None, help="images that go through the network together; by default what suits it"
    )
    _add_engine(parser)
    parser.add_argument("--on-error", type=OnError, default="stop", help=_ON_ERROR_HELP)
    return parser


def _predict(options: Namespace) -> int:
    from supersimplenet.apps import predict_files

    predict_files(
        options.model,
        options.paths,
        options.output,
        overlays=options.overlays,
        batch_size=options.batch_size,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        on_error=options.on_error,
    )
    return 0


def _import_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Turn weights of another implementation into a model folder.")
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


def _speed_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Time each stage from the file to the verdict, alone and many at once.")
    parser.add_argument("--output", type=Path, help="also write the report as JSON")
    parser.add_class_arguments(SpeedConfig)
    return parser


def _speed(options: Namespace) -> int:
    from supersimplenet.benchmark import benchmark_speed, print_report

    values = _speed_parser().instantiate(options).as_dict()
    output = values.pop("output")
    report = benchmark_speed(SpeedConfig(**values))
    print_report(report)
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(output)
    return 0


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Make synthetic data, train on its good images, evaluate, draw the findings.")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of data, model and pictures")
    return parser


def _demo(options: Namespace) -> int:
    from supersimplenet.demo import demo

    demo(options.output)
    return 0


def _without_model_name(arguments: list[str]) -> list[str]:
    """Drop ``--model SuperSimpleNet`` of the published train command: this package has that one model.

    Raises:
        ConfigError: another model is named. A file of model options is passed on.
    """
    if arguments[:1] != ["train"]:
        return arguments
    kept: list[str] = []
    for position, argument in enumerate(arguments):
        is_value = position > 0 and arguments[position - 1] == "--model"
        name = argument if is_value else argument.removeprefix("--model=") if argument.startswith("--model=") else None
        if name is not None and name != _MODEL_NAME and not Path(name).is_file() and not name.startswith("{"):
            raise ConfigError(
                f"this program trains {_MODEL_NAME}; found --model {name}. Its options have a dot: --model.backbone"
            )
        if name == _MODEL_NAME:
            if is_value:
                kept.pop()
        else:
            kept.append(argument)
    return kept
