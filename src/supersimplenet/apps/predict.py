"""What `predict` does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from supersimplenet.apps.models import cluster_of, load_detector, print_promise
from supersimplenet.data.loading import OnError
from supersimplenet.errors import ConfigError
from supersimplenet.looking import Looks
from supersimplenet.prediction.arrivals import Arrivals, stopped_by_signals
from supersimplenet.prediction.folder import PredictionSummary, predict_to_folder
from supersimplenet.prediction.inputs import Inputs, find_inputs
from supersimplenet.prediction.outputs import DEFAULT_FORMATS, Format, table_file
from supersimplenet.records import probability
from supersimplenet.settings import HERE, ComputeConfig
from supersimplenet.terminal import progress_bar, results


def predict_files(
    model: Path,
    inputs: Sequence[str],
    output: Path,
    *,
    list_file: Path | None = None,
    watch: Path | None = None,
    watch_for_s: float | None = None,
    formats: Sequence[Format] = DEFAULT_FORMATS,
    overlays: bool = False,
    false_discovery_rate: float | None = None,
    batch_size: int | None = None,
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
    trust: bool = False,
) -> PredictionSummary:
    """Predict images into a folder and say what came of it; see `predict_to_folder`.

    Args:
        model: the model folder, or an exported file.
        inputs: see `find_inputs`.
        output: folder of the results.
        list_file: see `find_inputs`.
        watch: a folder whose images are predicted as they come, until a signal stops it, instead of ``inputs``.
        watch_for_s: seconds after which that ends; None for never.
        formats: of the results.
        overlays: see `predict_to_folder`, as for the others.
        false_discovery_rate: likewise.
        batch_size: likewise.
        compute: where and by what.
        on_error: what an unreadable image does.
        trust: also open a torch program, which may run code of whoever made it.

    Raises:
        ConfigError: inputs and a folder to watch, or a duration and none.
        SuperSimpleNetError: of the kind that names the cause.
    """
    if watch is None and watch_for_s is not None:
        raise ConfigError("watch-for: says how long a folder is watched, and none is named; give --watch")
    if watch is not None and (inputs or list_file is not None):
        raise ConfigError("watch: a folder is watched, or inputs are named, not both; run the command twice")
    if compute.engine == "ray" and (overlays or watch is not None):
        raise ConfigError(
            "engine: ray brings back no maps, and needs all names at once; leave --overlays and --watch to one machine"
        )
    found = None if watch is not None else find_inputs(inputs, list_file=list_file, leave_out=output)
    replaces = watch is None and (output / table_file(formats)).is_file()
    detector: Looks = cluster_of(model, compute, trust=trust) or _looks(model, compute, trust=trust)
    with nullcontext() if watch is None else stopped_by_signals() as stop, progress_bar() as bar:
        images: Arrivals | Inputs
        if watch is not None:
            output.mkdir(parents=True, exist_ok=True)
            images = Arrivals(watch, until_s=watch_for_s, stop=stop, leave_out=output)
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
            false_discovery_rate=false_discovery_rate,
            batch_size=batch_size,
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )
    continued = f", {summary.continued} of them done before" if summary.continued else ""
    failed = f", {summary.failed} could not be read (see the error column)" if summary.failed else ""
    unsure = f", {summary.verdicts['unsure']} unsure" if summary.verdicts["unsure"] else ""
    results().print(
        f"{summary.images} images{continued}: {summary.verdicts['bad']} bad{unsure} at threshold "
        f"{probability(detector.threshold_logit):.3f}{failed}"
    )
    if summary.flagged is not None and false_discovery_rate is not None:
        results().print(
            f"{summary.flagged} are told from good parts at a false-discovery rate of {false_discovery_rate * 100:g} %"
        )
    print_promise(detector)
    results().print(f"results: {summary.table}{' (an earlier run was replaced)' if replaces else ''}")
    return summary


def _looks(model: Path, compute: ComputeConfig, *, trust: bool) -> Looks:
    """What looks with a model folder or an exported file.

    Raises:
        ConfigError: an exported file and an option that it has decided already.
    """
    if not model.is_file():
        return load_detector(model, compute)
    if compute not in (HERE, replace(HERE, device="cpu")):
        raise ConfigError(
            f"device, engine and precision: {model.name} is an exported file, which has decided them; leave them out, "
            "or name the model folder"
        )
    from supersimplenet.runtime import Inspector

    return Inspector.load(model, trust=trust)
