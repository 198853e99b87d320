"""`supersimplenet demo`: all steps once, offline, in a few minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.cli.serve import DEFAULT_PRODUCT, require_serve, run_station
from supersimplenet.cli.test import print_evaluation
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.errors import OutputError
from supersimplenet.inference.config import CALIBRATION_FILE
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.training.config import TrainerConfig
from supersimplenet.types import Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.locks import is_unused, writing_into

if TYPE_CHECKING:
    from supersimplenet.evaluation.results import Evaluation

_SURFACE = "brushed_metal"
_SIZE_PX = (128, 128)
_GOOD_IMAGES = 120  # of which 24 calibrate: with half of them one odd part would decide the threshold
_EPOCHS = 20


def command() -> Command:
    """Return the command ``demo``."""
    return Command(
        "demo", "synthetic data, training, evaluation, pictures: offline", _parser(), _run, writes={"output": "folder"}
    )


def demo(output: Path) -> Evaluation:
    """Draw a synthetic dataset, train on its good images, evaluate, and draw the findings.

    Args:
        output: a new folder for data, model and pictures.

    Raises:
        OutputError: the folder is not empty.
    """
    with writing_into(output):
        return _demo(output)


def _demo(output: Path) -> Evaluation:
    from supersimplenet.datasets.synthetic import synthesize
    from supersimplenet.report.findings import CONTACT_SHEET, evaluate_model
    from supersimplenet.training.train import train

    if not is_unused(output):
        raise OutputError(f"{output}: is not empty; remove it or choose another --output")
    started = time.monotonic()
    say = console().print
    say(f"1. synthetic photographs of {_SURFACE.replace('_', ' ')}, good and defective")
    synthesize(output / "data", SyntheticConfig(surfaces=(_SURFACE,), size_px=_SIZE_PX, train_good=_GOOD_IMAGES))
    data = MVTecAD(root=output / "data", category=_SURFACE)
    model = ModelConfig(backbone="compact", image_size=_SIZE_PX)
    say("2. a first detector from the good ones, without training")
    first = train(data, output=output / "first", model=model, trainer=TrainerConfig(max_epochs=0))
    for sample in _one_of_each_type(data.samples()):
        say(f"   a part with a {sample.defect}" if sample.label else "   a good part", end=": ")
        say(first.predict(sample.image).verdict, highlight=False)
    say(f"   first verdicts after {time.monotonic() - started:.0f} s", highlight=False)
    say("3. training on the good ones")
    train(
        data,
        output=output / "model",
        model=model,
        recipe=Recipe(batch_size=8),
        trainer=TrainerConfig(max_epochs=_EPOCHS),
    )
    say("4. predicting parts that it has never seen")
    evaluation = evaluate_model(output / "model")
    print_evaluation(evaluation, output / "model")
    say(f"done in {time.monotonic() - started:.0f} s; look at {output / 'model' / CONTACT_SHEET}", highlight=False)
    return evaluation


def _one_of_each_type(samples: Sequence[Sample]) -> list[Sample]:
    """Return a test image of a good part, and one of each type of defect."""
    found = {sample.defect: sample for sample in samples if sample.split == "test"}
    return sorted(found.values(), key=lambda sample: sample.label)


def _parser() -> OptionParser:
    parser = OptionParser(description="Make synthetic data, train on its good images, evaluate, draw the findings.")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of data, model and pictures")
    parser.add_argument(
        "--station",
        action="store_true",
        help="then run a station with the model, and a simulated line; a demo that is there already is used",
    )
    parser.add_argument("--port", type=NonNegativeInt, default=8700, help="of the station; 0 for any that is free")
    return parser


def _run(options: Namespace) -> int:
    if options.station:
        require_serve("demo --station")
    if not (options.station and (options.output / "model" / CALIBRATION_FILE).is_file()):
        demo(options.output)
    if options.station:
        _run_station(options.output, port=int(options.port))
    return 0


def _run_station(output: Path, *, port: int) -> None:
    """Run a station beside a line that is simulated: a good part every second, and a defective one now and then."""
    from supersimplenet.station.config import StationConfig
    from supersimplenet.station.setup import setup_of

    test = output / "data" / _SURFACE / "test"
    defects = [folder for folder in sorted(test.iterdir()) if folder.is_dir() and folder.name != "good"]
    sources = [{"name": "line", "kind": "replay", "folder": test / "good", "seconds": 1.0}]
    sources += [
        {
            "name": folder.name.replace(" ", "_"),
            "kind": "replay",
            "folder": folder,
            "seconds": 10.0 * len(defects) + place,
        }
        for place, folder in enumerate(defects)
    ]
    config = StationConfig(folder=output / "station", port=port)
    run_station({DEFAULT_PRODUCT: output / "model"}, config, setup_of({"sources": sources}))
