"""`supersimplenet train`: train a model."""

from __future__ import annotations

import shlex
from pathlib import Path

from jsonargparse import Namespace

from supersimplenet.cli.common import DATA_HELP, ON_ERROR_HELP, Command, OptionParser
from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.supervision import SupervisionName, check_masks
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.utils.files import is_file
from supersimplenet.utils.serialization import from_plain

_MODEL_NAME = "SuperSimpleNet"


def command() -> Command:
    """Return the command ``train``."""
    return Command(
        "train",
        "train with whatever labels a dataset has",
        _train_parser(),
        _train,
        {"view.roi": "file", "view.reference": "file", "model.backbone_weights": "file"},
        {"output": "folder"},
    )


def _train_parser() -> OptionParser:
    parser = OptionParser(description="Train with whatever labels a dataset has, and leave a model folder.")
    parser.add_argument("--config", action="config", help="YAML file that holds any of these options")
    parser.add_argument("--data", type=DataSource, help=DATA_HELP)
    parser.add_argument(
        "--supervision",
        type=SupervisionName,
        default="auto",
        help="which labels are used: all there are (auto), good images only (unsupervised), bad ones without masks "
        "(weak), with some (mixed), or with a mask for each (full)",
    )
    parser.add_argument(
        "--masks",
        type=str | None,
        help="with mixed: how many masks are kept (12), which share of them (0.25), or a file that lists their images",
    )
    parser.add_argument("--model", type=ModelConfig, default=ModelConfig())
    parser.add_argument("--view", type=ViewConfig, default=ViewConfig())
    parser.add_argument("--recipe", type=Recipe, default=Recipe())
    parser.add_argument("--trainer", type=TrainerConfig, default=TrainerConfig())
    parser.add_argument("--cache", type=CacheConfig, default=CacheConfig())
    parser.add_argument("--output", type=Path, help="the model folder; by default runs/<dataset's name>")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, kept masks, order and noise")
    parser.add_argument(
        "--time-budget",
        type=str | None,
        help="such as 15m: train as many epochs as fit, at most trainer.max_epochs",
    )
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in --output, exactly")
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _train(options: Namespace) -> int:
    settings = _train_parser().instantiate(options)
    if settings.time_budget is not None:
        parse_duration(settings.time_budget, "time-budget")
    check_masks(settings.masks)
    if options.resume:
        _take_over(settings, options)
    if settings.data is None:
        raise ConfigError("data: not given; name a dataset, such as --data Folder --data.good parts/good")
    from supersimplenet.training.train import train
    from supersimplenet.utils.console import results

    output = settings.output or Path("runs") / settings.data.name
    train(
        settings.data,
        output=output,
        supervision=settings.supervision,
        masks=settings.masks,
        model=settings.model,
        view=settings.view,
        recipe=settings.recipe,
        trainer=settings.trainer,
        cache=settings.cache,
        seed=settings.seed,
        time_budget=settings.time_budget,
        resume=settings.resume,
        on_error=settings.on_error,
    )
    results().print(f"trained: {output}", f"test it: supersimplenet test --model {shlex.quote(str(output))}", sep="\n")
    return 0


def _take_over(settings: Namespace, options: Namespace) -> None:
    """Replace options left at their defaults by those of the interrupted run, for --resume.

    This is done for each group of options as a whole. If an option of a group was changed on the command line, `train`
    compares the whole group with that of the interrupted run.
    """
    if options.output is None:
        raise ConfigError("output: not given; --resume needs the folder of the interrupted run")
    if not (options.output / CONFIG_FILE).is_file():
        if options.data is not None:
            return  # the run stopped before it wrote its options: the same command starts anew
        raise ConfigError(f"{options.output}: nothing to resume yet; run the train command again, without --resume")
    from supersimplenet.inference.image_records import trained_on
    from supersimplenet.inference.record import read_record

    record = read_record(options.output)
    defaults = _train_parser().get_defaults()
    groups = (
        ("model", ModelConfig),
        ("view", ViewConfig),
        ("recipe", Recipe),
        ("trainer", TrainerConfig),
        ("cache", CacheConfig),
    )
    for name, kind in groups:
        if options[name] == defaults[name]:
            settings[name] = from_plain(kind, record.get(name), where=str(options.output / CONFIG_FILE), name=name)
    for name in ("supervision", "masks", "seed", "time_budget", "on_error"):
        if options[name] == defaults[name]:
            settings[name] = record.get(name, defaults[name])
    if settings.data is None:
        settings.data = trained_on(record, options.output)


def without_model_name(arguments: list[str]) -> list[str]:
    """Drop ``--model SuperSimpleNet`` of the published train command, because this package has no other model.

    A file of model options after ``--model`` is kept.

    Raises:
        ConfigError: another model is named.
    """
    if arguments[:1] != ["train"]:
        return arguments
    kept: list[str] = []
    for position, argument in enumerate(arguments):
        is_value = position > 0 and arguments[position - 1] == "--model"
        name = argument if is_value else argument.removeprefix("--model=") if argument.startswith("--model=") else None
        if name is not None and name != _MODEL_NAME and not is_file(name) and not name.startswith("{"):
            raise ConfigError(
                f"this program trains {_MODEL_NAME}; found --model {name}. Its options have a dot: --model.backbone"
            )
        if name == _MODEL_NAME:
            if is_value:
                kept.pop()
        else:
            kept.append(argument)
    return kept
