"""`supersimplenet registry`: models of a station, from training to use and back."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt
from rich.table import Table
from rich.text import Text

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.cli.station_folder import BY, add_place, station_database
from supersimplenet.errors import ConfigError
from supersimplenet.training.config import MLFLOW_ADDRESS, parse_duration
from supersimplenet.utils.console import console, progress_bar, results
from supersimplenet.utils.formatting import counted

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from supersimplenet.station.registry.promotions import Promotion
    from supersimplenet.station.registry.records import Registered

_MARGIN = 0.2  # `promotions.MARGIN`, whose module needs the extra serve


def commands() -> list[Command]:
    """Return the commands below ``registry``."""
    return [
        Command("list", "list models, where they come from, which one is in use", _list_parser(), _list),
        Command(
            "add",
            "bring a model folder into the registry",
            _add_parser(),
            _add,
            {"model": "model folder"},
            {"folder": "folder"},
        ),
        Command("train", "train a candidate from a dataset, and compare it", _train_parser(), _train),
        Command("resume", "go on with a training that was interrupted", _resume_parser(), _resume),
        Command("compare", "compare a candidate again, by the answers since", _compare_parser(), _compare),
        Command("shadow", "let a candidate predict beside the model in use, without a say", _shadow_parser(), _shadow),
        Command("diff", "compare two models: data, options, results", _diff_parser(), _diff),
        Command("mirror", "copy the registry to an MLflow server", _mirror_parser(), _mirror),
        Command("promote", "use a model from now on", _promote_parser(), _promote),
        Command("rollback", "use the model again that was in use before", _rollback_parser(), _rollback),
    ]


def _list_parser() -> OptionParser:
    parser = OptionParser(description="List the models of a station's registry.")
    parser.add_argument("--product", type=str | None, help="only those of this product")
    add_place(parser)
    return parser


def _add_parser() -> OptionParser:
    parser = OptionParser(
        description="Copy a finished model folder into the registry, as a candidate. The first model of a product may "
        "come in this way; those that are trained later are compared with the one in use."
    )
    parser.add_argument("model", type=Path, help="the model folder")
    parser.add_argument("--product", type=str, required=True, help="the product")
    add_place(parser)
    return parser


def _train_parser() -> OptionParser:
    parser = OptionParser(
        description="Train a model from a version of a dataset, set its threshold by the parts that calibrate, and "
        "compare it with the model in use on the golden parts. Exit status 1 where it falls behind: it is refused."
    )
    parser.add_argument("--product", type=str, required=True, help="the product")
    parser.add_argument("--dataset", type=str, required=True, help="the dataset")
    parser.add_argument("--data-version", type=PositiveInt | None, help="its version; by default the newest")
    parser.add_argument("--time-budget", type=str, default="15m", help="as of `train`")
    parser.add_argument(
        "--options", type=str, nargs="*", default=[], help="further options of `train`, each as name=value"
    )
    _add_threads(parser)
    add_place(parser)
    return parser


def _resume_parser() -> OptionParser:
    parser = OptionParser(
        description="Do the steps of a training that was interrupted or failed, from the first missing one."
    )
    parser.add_argument("number", type=PositiveInt, help="number of the model")
    _add_threads(parser)
    add_place(parser)
    return parser


def _add_threads(parser: OptionParser) -> None:
    parser.add_argument(
        "--threads", type=PositiveInt | None, help="threads of the training, so that the rest of the machine inspects"
    )


def _compare_parser() -> OptionParser:
    parser = OptionParser(
        description="Compare a candidate with the model in use: on golden parts, and on reviewed parts of the last "
        "weeks that no training has seen. Exit status 1 where it falls behind: it is refused."
    )
    parser.add_argument("number", type=PositiveInt, help="number of the model")
    parser.add_argument("--weeks", type=PositiveFloat, default=4.0, help="how far back reviewed parts count")
    _add_threads(parser)
    add_place(parser)
    return parser


def _shadow_parser() -> OptionParser:
    parser = OptionParser(
        description="Predict with a candidate what the station inspected, and what it inspects from now on, and tell "
        "where it differs. It has no say; the pages ask people about the parts on which the two contradict each other."
    )
    parser.add_argument("number", type=PositiveInt, help="number of the model")
    parser.add_argument("--past", type=str, default="24h", help="how far back, such as 24h")
    parser.add_argument("--next", type=str | None, help="how long from now on, such as 8h; by default not at all")
    add_place(parser)
    return parser


def _diff_parser() -> OptionParser:
    parser = OptionParser(description="Show what two models were trained with, and what was found about each.")
    parser.add_argument("one", type=PositiveInt, help="number of a model")
    parser.add_argument("other", type=PositiveInt, help="number of another")
    add_place(parser)
    return parser


def _mirror_parser() -> OptionParser:
    parser = OptionParser(
        description="Copy the registry to an MLflow server: each finished model a version of its product's model, with "
        "its lineage and state; the one in use has the alias in-use. What is there already is brought up to date."
    )
    parser.add_argument(
        "--server", type=str | None, help=f"its address; by default that of the environment variable {MLFLOW_ADDRESS}"
    )
    add_place(parser)
    return parser


def _promote_parser() -> OptionParser:
    parser = OptionParser(
        description="Use a model from now on. A station that runs takes it within seconds, without losing a picture."
    )
    parser.add_argument("number", type=PositiveInt, help="number of the model")
    parser.add_argument("--why", type=str, default="", help="the reason, for the trail")
    parser.add_argument(
        "--margin",
        type=float,
        default=_MARGIN,
        help="share of parts on which it may make a new mistake; a comparison by too few parts to show this, with 95 % "
        "confidence, refuses",
    )
    parser.add_argument(
        "--force", action="store_true", help="also one that was refused or not compared; the trail says so"
    )
    add_place(parser)
    return parser


def _rollback_parser() -> OptionParser:
    parser = OptionParser(description="Use the model again that was in use before; once more, the one before that.")
    parser.add_argument("--product", type=str, required=True, help="the product")
    parser.add_argument("--why", type=str, default="", help="the reason, for the trail")
    add_place(parser)
    return parser


def _list(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.registry.promotions import models_in_use
        from supersimplenet.station.registry.records import all_models

        with engine.connect() as connection:
            models = all_models(connection, options.product)
            used = {each.model for each in models_in_use(connection).values()}
    if not models:
        results().print("no models")
        return 0
    table = Table("model", "product", "state", "made", "data", "compared with", box=None, pad_edge=False)
    for model in models:
        made = datetime.fromtimestamp(model.at / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
        state = "in use" if model.number in used else model.state
        data = "brought in" if model.dataset is None else f"{model.dataset} {model.version}"
        table.add_row(str(model.number), Text(model.product), state, made, Text(data), _compared(model))
    results().print(table)
    return 0


def _add(options: Namespace) -> int:
    with station_database(options, create=True) as engine:
        from supersimplenet.station.registry.bringing_in import bring_in

        model = bring_in(engine, options.folder, options.model, product=options.product, who=BY)
    results().print(f"model {model.number} of {model.product}: {model.state}")
    return 0


def _train(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.registry.training import begin_training

        model = begin_training(
            engine,
            product=options.product,
            dataset=options.dataset,
            number=options.data_version,
            time_budget=options.time_budget,
            options=[f"--{option.removeprefix('--')}" for option in options.options],
            who=BY,
        )
        results().print(f"model {model.number} of {model.product}: version {model.version} of {model.dataset}")
        return _go_on(engine, options, model.number)


def _resume(options: Namespace) -> int:
    with station_database(options) as engine:
        return _go_on(engine, options, options.number)


def _compare(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.registry.comparison import compare_again

        say = console().print
        model = compare_again(
            engine, options.folder, options.number, weeks=options.weeks, threads=options.threads, say=say
        )
    return _say_found(model, options)


def _shadow(options: Namespace) -> int:
    now = round(time.time() * 1000)
    since = now - _ms(options.past, "past")
    until = now if options.next is None else now + _ms(options.next, "next")
    with station_database(options) as engine:
        from supersimplenet.station.registry.shadow import run_shadow

        with progress_bar() as bar:
            task = bar.add_task(f"model {options.number} predicts", total=None, detail="")
            found = run_shadow(
                engine,
                options.folder,
                options.number,
                since=since,
                until=until,
                progress=lambda pictures: bar.advance(task, pictures),
            )
    results().print(f"model {options.number}: {found.describe()}")
    return 0


def _ms(text: str, option: str) -> int:
    return round(parse_duration(text, option) * 1000)


def _go_on(engine: Engine, options: Namespace, number: int) -> int:
    from supersimplenet.station.registry.training import train

    return _say_found(train(engine, options.folder, number, threads=options.threads, say=console().print), options)


def _say_found(model: Registered, options: Namespace) -> int:
    number = model.number
    if model.state == "refused":
        results().print(f"model {number}: refused, {_compared(model)}", style="bold red")
        for reason in model.found["reasons"]:
            results().print(f"- {reason}")
        return 1
    results().print(f"model {number}: candidate, {_compared(model) or 'the first of its product'}")
    if "evidence" in model.found:
        from supersimplenet.metrics.evidence import Evidence

        evidence = Evidence(**model.found["evidence"])
        results().print(evidence.describe())
        if evidence.lacks(_MARGIN):
            results().print("answer about more parts and compare again, or promote with the --margin that is shown")
    results().print(f"use it: supersimplenet registry promote {number} --folder {options.folder}")
    return 0


def _diff(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.library.versions import changes
        from supersimplenet.station.registry.records import one_model

        with engine.connect() as connection:
            one, other = (one_model(connection, number) for number in (options.one, options.other))
            same = one.dataset is not None and one.dataset == other.dataset
            pictures = changes(connection, one.dataset or "", one.version or 0, other.version or 0) if same else None
    table = Table("", str(one.number), str(other.number), box=None, pad_edge=False)
    for name in ("product", "state", "parent", "dataset", "version", "options"):
        table.add_row(name, *(_shown(getattr(each, name)) for each in (one, other)))
    for name in sorted({*one.found, *other.found}):
        table.add_row(name.replace("_", " "), *(_shown(each.found.get(name)) for each in (one, other)))
    results().print(table)
    if pictures is not None:
        results().print(f"data: {counted(len(pictures), 'picture')} differ")
    return 0


def _mirror(options: Namespace) -> int:
    address = options.server or os.environ.get(MLFLOW_ADDRESS)
    if address is None:
        raise ConfigError(f"--server: not given, and {MLFLOW_ADDRESS} is not set; name an MLflow server")
    with station_database(options) as engine:
        from supersimplenet.station.registry.mirror import mirror

        found = mirror(engine, options.folder, address, say=console().print)
    results().print(f"{counted(len(found), 'model')} on the server")
    return 0


def _promote(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.registry.promotions import promote
        from supersimplenet.station.storage.database import writing

        with writing(engine) as connection:
            done = promote(
                connection,
                options.folder,
                options.number,
                who=BY,
                why=options.why,
                margin=options.margin,
                force=options.force,
            )
    _say_used(done)
    return 0


def _rollback(options: Namespace) -> int:
    with station_database(options) as engine:
        from supersimplenet.station.registry.promotions import roll_back
        from supersimplenet.station.storage.database import writing

        with writing(engine) as connection:
            done = roll_back(connection, options.folder, options.product, who=BY, why=options.why)
    _say_used(done)
    return 0


def _say_used(done: Promotion) -> None:
    results().print(f"model {done.model} of {done.product}: in use; a station that runs takes it within seconds")


def _compared(model: Registered) -> str:
    """Return in words what the comparison of a model with its parent found; empty where there was none."""
    found = model.found
    if found.get("compared") is None:
        return ""
    golden = f"{found['golden_good']} good and {found['golden_bad']} bad golden pictures"
    reviewed = f"{found['reviewed_good']} and {found['reviewed_bad']} reviewed ones"
    numbers = f"{found['new_escapes']} new escapes, {found['new_false_alarms']} new false alarms"
    return f"model {found['compared']}: {numbers} on {golden}, {reviewed}"


def _shown(value: object) -> Text:
    if value is None:
        return Text("-")
    return Text(", ".join(map(str, value)) if isinstance(value, list) else str(value))
