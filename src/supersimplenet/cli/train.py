"""`supersimplenet train`: train a model."""

from __future__ import annotations

import argparse
import json
import shlex
from itertools import count
from pathlib import Path

from jsonargparse import Namespace

from supersimplenet.cli.common import (
    DATA_HELP,
    NO_DATASET,
    ON_ERROR_HELP,
    PATH_HELP,
    Command,
    OptionParser,
    found_dataset,
    in_full,
    print_better_guarantee,
)
from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.defect_sizes import (
    SEEN_PX,
    NetworkInput,
    describe_smallest,
    fitting_input,
    sizes_of,
    smallest_defect,
)
from supersimplenet.datasets.masks import MaskReader
from supersimplenet.datasets.registry import SOURCES
from supersimplenet.datasets.supervision import SupervisionName, check_masks
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import CONFIG_FILE, IMAGES_FILE, WEIGHTS_FILE
from supersimplenet.inference.record import is_finished, read_record
from supersimplenet.model.config import COMPACT, ModelConfig, Recipe
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.utils.console import console
from supersimplenet.utils.files import is_file

_MODEL_NAME = "SuperSimpleNet"
# Of a first model: as measured on the magnetic tiles (docs/results.md), where the time allows as many steps.
_BATCH_SIZE, _STEPS, _TIME = 8, 800, "15m"
_SHORT = {"--logger": "--trainer.logger"}
_BASIC = (
    *("path", "--help", "--data", "--supervision", "--masks", "--output", "--time-budget", "--resume", "--config"),
    *("--model.backbone", "--model.image_size", "--view.fit", "--view.roi", "--recipe.batch_size", "--on-error"),
)


def command() -> Command:
    """Return the command ``train``."""
    return Command(
        "train",
        "train with whatever labels a dataset has",
        _train_parser(),
        _train,
        {
            "path": "file or folder",
            "view.roi": "file",
            "view.reference": "file",
            "model.backbone_weights": "file",
            "warm_start": "model folder",
        },
        {"output": "folder"},
        _with_first_settings,
    )


def _train_parser() -> OptionParser:
    parser = OptionParser(
        description="Train with whatever labels a dataset has, and leave a model folder.", basic=_BASIC, short=_SHORT
    )
    parser.add_argument(
        "path",
        type=Path | None,
        nargs="?",
        help=f"{PATH_HELP}, with settings for a first model",
    )
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
        type=str | list[str] | None,
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
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the interrupted run in --output, exactly, with its options; devices, workers, cache, on-error "
        "and the place of the data may be given anew",
    )
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    parser.add_argument(
        "--warm-start",
        type=Path | None,
        help="model folder whose heads the training starts from; what that model held out stays held out",
    )
    return parser


def _train(options: Namespace) -> int:
    settings = _train_parser().instantiate(options)
    if settings.time_budget is not None:
        parse_duration(settings.time_budget, "time-budget")
    check_masks(settings.masks)
    settings.trainer.require_score(settings.recipe.image_score)
    settings.trainer.require_loggers()
    if settings.data is None:
        raise ConfigError(NO_DATASET)
    from supersimplenet.training.train import train
    from supersimplenet.utils.console import results

    output = settings.output or Path("runs") / settings.data.name
    detector = train(
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
        warm_start=settings.warm_start,
    )
    named = shlex.quote(str(output))
    results().print(
        f"trained: {output}",
        f"test it: supersimplenet report --model {named}",
        f"use it: supersimplenet predict --model {named} PHOTOS",
        sep="\n",
    )
    training, calibration = detector.record["training"], detector.calibration
    each_is_a_part = calibration is not None and calibration.images == calibration.parts
    good_parts = training["good_images"] + training["held_out_images"] if each_is_a_part else 0
    print_better_guarantee(calibration, output, good_parts)
    return 0


def _with_first_settings(arguments: list[str], options: Namespace) -> list[str]:
    """Return the arguments of ``train PATH`` with the dataset and the settings of a first model before them.

    The backbone is that of the package, so that the same command gives the same model on any day, and the training one
    of minutes. What is typed wins.
    """
    found = found_dataset(options)
    typed = {argument.partition("=")[0] for argument in arguments}
    settings = [f"--model.backbone={COMPACT}", f"--recipe.batch_size={_BATCH_SIZE}"]
    if not typed & {"--trainer.max_epochs", "--trainer.max_steps", "--time-budget"}:
        settings += [f"--trainer.max_steps={_STEPS}", f"--time-budget={_TIME}"]
    settings.append(f"--output={_free_output(options.path.resolve().stem or 'parts')}")
    if not typed & {"--model.image_size", "--model.backbone", "--view.fit"}:
        settings += _size_for_defects(found.source)
    chosen = [setting for setting in settings if setting.partition("=")[0] not in typed]
    console().print(f"settings of a first model, unless typed: {' '.join(chosen)}")
    return in_full("train", options, [*found.arguments, *settings], arguments)


def _size_for_defects(source: DataSource) -> list[str]:
    """Return the option of an input size at which the smallest defects to train on are seen; nothing for none."""
    samples = [sample for sample in source.samples() if sample.split == "train" and sample.mask is not None]
    smallest = smallest_defect(sizes_of(samples, MaskReader()), NetworkInput())
    if smallest is None or smallest.at(NetworkInput()) >= SEEN_PX:
        return []
    larger = fitting_input(smallest)
    if larger.size_px == NetworkInput().size_px or smallest.at(larger) < SEEN_PX:
        return []  # no size shows them: the training says what does
    console().print(describe_smallest(smallest, NetworkInput()))
    return [f"--model.image_size=[{larger.size_px[0]},{larger.size_px[1]}]"]


def _free_output(name: str) -> Path:
    """Return runs/NAME, or, where that holds a finished model, runs/NAME-2 and so on."""
    for number in count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not (folder / CONFIG_FILE).is_file() or not is_finished(folder, read_record(folder)):
            break  # an unfinished run is not replaced: the training refuses, and says how to continue it
    return folder


def with_earlier_options(arguments: list[str]) -> list[str]:
    """Return the arguments with the options of an earlier run before them; what is typed wins.

    With ``--resume`` these are the options of the interrupted run in ``--output``, and with ``--config
    runs/X/config.yaml`` those of the run in that folder, which is repeated into another one.

    Args:
        arguments: the arguments after the command's name.

    Raises:
        ConfigError: the folder is not named, or the run stopped before it wrote its options and no dataset is named.
        ModelFolderError: the run's config.yaml cannot be read.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    known.add_argument("--resume", action="store_true")
    for name in ("--output", "--config", "--data"):
        known.add_argument(name)
    try:
        options, others = known.parse_known_args(arguments)
    except argparse.ArgumentError:
        return arguments  # a wrong call, which the parser of the command refuses in its own words
    if not options.resume:
        if options.config is None or not _is_record(Path(options.config)):
            return arguments
        typed = [f"--{name}={value}" for name in ("output", "data") if (value := getattr(options, name)) is not None]
        return [*_recorded_options(Path(options.config).parent, repeat=True), *typed, *others]
    if options.output is None:
        if options.config is None:
            raise ConfigError("output: not given; --resume needs the folder of the interrupted run")
        return arguments  # the file of options names it, and is the whole command
    folder = Path(options.output)
    if not (folder / CONFIG_FILE).is_file():
        if options.data is None and options.config is None:
            raise ConfigError(f"{folder}: nothing to resume yet; run the train command again, without --resume")
        return arguments  # the run stopped before it wrote its options: the same command starts anew
    return [*_recorded_options(folder), *arguments]


def _is_record(file: Path) -> bool:
    """Return whether a file is the config.yaml of a model folder, and not one of options that a person wrote."""
    beside = (IMAGES_FILE, WEIGHTS_FILE)  # version 0.1 wrote no images.csv
    return file.name == CONFIG_FILE and is_file(file) and any((file.parent / name).is_file() for name in beside)


def _recorded_options(folder: Path, *, repeat: bool = False) -> list[str]:
    """Return the options of the run in a model folder as arguments; to repeat it, with the steps that its time held."""
    record = read_record(folder)
    if repeat and record.get("time_budget") is not None and "training" in record:
        plan = record["training"]["plan"]
        length = {"max_epochs": plan["epochs"], "max_steps": plan["total_steps"]}
        record |= {"time_budget": None, "trainer": record["trainer"] | length}
    names = ["data", "supervision", "masks", "model", "view", "recipe", "trainer", "cache"]
    names += ["seed", "time_budget", "on_error"]
    if record.get("data", {}).get("class_path") not in SOURCES:
        names.remove("data")  # a class of the user's own: it is to be named again
    values = {name: record[name] for name in names if name in record}
    if record.get("warm_start") is not None:
        values["warm_start"] = record["warm_start"]["path"]
    return [
        f"--{name.replace('_', '-')}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]


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
