"""Predict named images with a model and write the results into a folder, for `supersimplenet predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.prediction.inputs import Inputs, find_inputs
from supersimplenet.prediction.job import PredictionSummary, predict_to_folder
from supersimplenet.prediction.tables import DEFAULT_FORMATS, Format, Row
from supersimplenet.prediction.watch import Arrivals, stopped_by_signals
from supersimplenet.preprocessing.listing import counting
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import OverlayStyle
from supersimplenet.utils.console import console, progress_bar

if TYPE_CHECKING:
    from supersimplenet.prediction.ray_cluster import Cluster


def predict_files(
    model: str | Path,
    inputs: Sequence[str],
    output: str | Path,
    *,
    list_file: Path | None = None,
    watch: Path | None = None,
    watch_for_s: float | None = None,
    formats: Sequence[Format] = DEFAULT_FORMATS,
    overlays: bool = False,
    overlay_style: OverlayStyle = "heat",
    group_pattern: str | None = None,
    false_discovery_rate: float | None = None,
    list_all: bool = False,
    batch_size: int | None = None,
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
    trust: bool = False,
    each: Callable[[Row], None] = lambda row: None,
) -> PredictionSummary:
    """Predict images into a folder; see `predict_to_folder`.

    Args:
        model: the model folder, or an exported file.
        inputs: see `find_inputs`.
        output: folder for the results.
        list_file: see `find_inputs`.
        watch: a folder to watch instead of ``inputs``: its images are predicted as they arrive, until a signal stops
            the process. What cannot be read then gets a row with its error, whatever ``on_error`` is.
        watch_for_s: seconds after which watching ends; None for no limit.
        formats: file formats of the results.
        overlays: see `predict_to_folder`.
        overlay_style: see `predict_to_folder`.
        group_pattern: see `predict_to_folder`; by default that of the model's training, ``none`` for none.
        false_discovery_rate: see `predict_to_folder`.
        list_all: also list the regions of the map in images that are good; see `Predictor.list_all`.
        batch_size: see `predict_to_folder`.
        compute: the device, engine and precision to use, and the cluster if there is one.
        on_error: see `predict_to_folder`.
        trust: also open an exported torch program, which may run any code of its author.
        each: called with each row as it comes.

    Raises:
        ConfigError: both inputs and a folder to watch are given, or a duration without a folder to watch.
        SuperSimpleNetError: the subclass names the cause.
    """
    model, output = Path(model), Path(output)
    if watch is None and watch_for_s is not None:
        raise ConfigError("watch-for: says how long a folder is watched, and none is named; give --watch")
    if watch is not None and (inputs or list_file is not None):
        raise ConfigError("watch: a folder is watched, or inputs are named, not both; run the command twice")
    if overlays and find_spec("matplotlib") is None:
        raise ConfigError("overlays: drawn by matplotlib, which is not installed; pip install matplotlib")
    if compute.engine == "ray" and (overlays or watch is not None):
        raise ConfigError(
            "engine: ray brings back no maps, and needs all names at once; leave --overlays and --watch to one machine"
        )
    with counting(on_error) as left_out:
        found = None if watch is not None else find_inputs(inputs, list_file=list_file, leave_out=output)
        if text := left_out.unsaid():
            console().print(text)
        detector = open_model(model, compute, trust=trust)
        detector.list_all = list_all
        if group_pattern is None and detector.group_pattern is not None:
            group_pattern = detector.group_pattern
            console().print(f"parts are told apart as in the training: --group-pattern '{group_pattern}'")
        with nullcontext() if watch is None else stopped_by_signals() as stop, progress_bar() as bar:
            images: Arrivals | Inputs
            if watch is not None:
                images = Arrivals(watch, until_s=watch_for_s, stop=stop, leave_out=output, report=bar.console.print)
            else:
                assert found is not None
                images = found
            task = bar.add_task("predicting", total=None if found is None else found.total, detail="")
            summary = predict_to_folder(
                detector,
                images,
                output,
                model_folder=model,
                formats=formats,
                overlays=overlays,
                overlay_style=overlay_style,
                group_pattern=group_pattern,
                false_discovery_rate=false_discovery_rate,
                batch_size=batch_size,
                on_error=on_error if watch is None else "skip",
                progress=lambda images: bar.advance(task, images),
                each=each,
            )
        return replace(summary, left_out=left_out.counts())


def open_model(model: Path, compute: ComputeConfig = HERE, *, trust: bool = False) -> Predictor | Cluster:
    """Return a predictor for a model folder or an exported file, on this machine or on many.

    An exported file needs no torch, and torch is not imported for it.

    Args:
        model: the model folder, or an exported file.
        compute: the device, engine and precision to use, and the cluster if there is one.
        trust: also open an exported torch program, which may run any code of its author.

    Raises:
        ConfigError: ``model`` is an exported file, but ``compute`` has an option that was fixed at the export.
        SuperSimpleNetError: the subclass names the cause.
    """
    if compute.engine == "ray":
        from supersimplenet.prediction.ray_cluster import Cluster

        return Cluster(model, compute, trust=trust)
    if not model.is_file():
        from supersimplenet.inference.detector import load_detector

        return load_detector(model, compute)
    if compute not in (HERE, replace(HERE, device="cpu")):
        raise ConfigError(
            f"device, engine and precision: {model.name} is an exported file, which has decided them; leave them out, "
            "or name the model folder"
        )
    from supersimplenet.runtime import Inspector

    return Inspector.load(model, trust=trust)
