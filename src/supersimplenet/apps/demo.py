"""Everything once, offline, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path

from supersimplenet.apps.evaluate import CONTACT_SHEET, evaluate_model
from supersimplenet.data.sources.mvtec import MVTecAD
from supersimplenet.data.synthetic import SyntheticConfig, synthesize
from supersimplenet.errors import OutputError
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.model.recipes import ModelConfig, Recipe
from supersimplenet.terminal import console
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.run import train

_SURFACE = "brushed_metal"
_SIZE_PX = (128, 128)
_EPOCHS = 40


def demo(output: Path) -> Evaluation:
    """Synthetic data, training on good parts, evaluation, pictures.

    Args:
        output: a new folder for data, model and pictures.

    Raises:
        OutputError: the folder holds something already.
    """
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output}: is not empty; remove it or choose another --output")
    started = time.monotonic()
    say = console().print
    say(f"1. synthetic photographs of {_SURFACE.replace('_', ' ')}, good and defective")
    synthesize(output / "data", SyntheticConfig(surfaces=(_SURFACE,), size_px=_SIZE_PX))
    say("2. training on the good ones")
    data = MVTecAD(root=output / "data", category=_SURFACE)
    train(
        data,
        output=output / "model",
        model=ModelConfig(backbone="compact", image_size=_SIZE_PX),
        recipe=Recipe(batch_size=8),
        trainer=TrainerConfig(max_epochs=_EPOCHS),
    )
    say("3. looking at parts it has never seen")
    evaluation = evaluate_model(output / "model")
    say(f"done in {time.monotonic() - started:.0f} s; look at {output / 'model' / CONTACT_SHEET}", highlight=False)
    return evaluation
