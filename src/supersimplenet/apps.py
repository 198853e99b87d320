"""What the commands do: a few calls on the rooms below, and words for the person who waits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table as RichTable

from supersimplenet.arrivals import Arrivals, stopped_by_signals
from supersimplenet.calibration import UNCALIBRATED
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.sources.registry import describe_source, source_from
from supersimplenet.detector import Detector
from supersimplenet.drawing import choose_outcomes, draw_contact_sheet
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.evaluation.evaluate import PREFIXES, Part, evaluate, look_again, sum_up, write_metrics
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.inputs import Inputs, find_inputs
from supersimplenet.looking import Looks
from supersimplenet.outputs import DEFAULT_FORMATS, Format, table_file
from supersimplenet.predict import PredictionSummary, predict_to_folder
from supersimplenet.records import BAD, GOOD, Sample, probability
from supersimplenet.settings import Resolution
from supersimplenet.terminal import progress_bar, results

if TYPE_CHECKING:
    from supersimplenet.cluster import Cluster

CONTACT_SHEET = "findings.png"
_SCORES = {"head": "classification head's score", "map": "map's maximum", "fused": "fused score"}


def evaluate_model(
    model: Path,
    *,
    data: DataSource | None = None,
    output: Path | None = None,
    resolution: Resolution = "model",
    device: str = "auto",
    engine: str = "torch",
    precision: str = "float32",
    address: str | None = None,
    workers: int | None = None,
    on_error: OnError = "stop",
) -> Evaluation:
    """Evaluate a model folder; writes metrics.json and a contact sheet of the best and worst findings.

    Args:
        model: the model folder.
        data: whose test images; by default the data set it was trained on.
        output: where to write; by default the model folder.
        resolution: of the pixel metrics; see `evaluate`.
        device: see `Detector`.
        engine: likewise, or ``ray``.
        precision: likewise.
        address: see `supersimplenet.cluster.ClusterConfig`.
        workers: likewise.
        on_error: what an unreadable image does.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    on_cluster = _cluster(model, engine, device=device, precision=precision, address=address, workers=workers)
    if on_cluster is None:
        detector = Detector.load(model, device=device, engine=engine, precision=precision)
    else:
        detector = Detector.load(model, device="cpu")
    source = data or trained_on(detector, model)
    samples = source.samples()
    if on_cluster is None:
        evaluation = evaluate_samples(detector, samples, resolution=resolution, on_error=on_error)
    else:
        evaluation = _evaluate_on(on_cluster, detector, samples, resolution=resolution, on_error=on_error)
    folder = output or model
    folder.mkdir(parents=True, exist_ok=True)
    metrics = write_metrics(evaluation, folder, data=describe_source(source))
    sheet = folder / CONTACT_SHEET
    best, worst = choose_outcomes(evaluation.outcomes)
    shown = list(look_again(detector, [*best, *worst]))
    title = f"{source.name}: {len(evaluation.outcomes)} test images"
    draw_contact_sheet(shown[: len(best)], shown[len(best) :], title).save(sheet)
    _print_metrics(evaluation)
    _print_verdicts(evaluation)
    print_promise(detector)
    if evaluation.failures:
        results().print(f"{len(evaluation.failures)} images could not be read; {metrics.name} lists them")
    results().print(f"metrics:  {metrics}\nfindings: {sheet}")
    return evaluation


def evaluate_samples(
    detector: Detector, samples: Sequence[Sample], *, resolution: Resolution = "model", on_error: OnError = "stop"
) -> Evaluation:
    """`evaluate` with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("testing", total=sum(sample.split == "test" for sample in samples), detail="")
        return evaluate(
            detector,
            samples,
            resolution=resolution,
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )


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
    device: str = "auto",
    engine: str = "torch",
    precision: str = "float32",
    address: str | None = None,
    workers: int | None = None,
    on_error: OnError = "stop",
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
        device: see `Detector`.
        engine: likewise, or ``ray``.
        precision: likewise.
        address: see `supersimplenet.cluster.ClusterConfig`.
        workers: likewise.
        on_error: what an unreadable image does.

    Raises:
        ConfigError: inputs and a folder to watch, or a duration and none.
        SuperSimpleNetError: of the kind that names the cause.
    """
    if watch is None and watch_for_s is not None:
        raise ConfigError("watch-for: says how long a folder is watched, and none is named; give --watch")
    if watch is not None and (inputs or list_file is not None):
        raise ConfigError("watch: a folder is watched, or inputs are named, not both; run the command twice")
    if engine == "ray" and (overlays or watch is not None):
        raise ConfigError(
            "engine: ray brings back no maps, and needs all names at once; leave --overlays and --watch to one machine"
        )
    found = None if watch is not None else find_inputs(inputs, list_file=list_file, leave_out=output)
    replaces = watch is None and (output / table_file(formats)).is_file()
    detector: Looks | None = _cluster(
        model, engine, device=device, precision=precision, address=address, workers=workers
    )
    detector = detector or _looks(model, device=device, engine=engine, precision=precision)
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


def _looks(model: Path, *, device: str, engine: str, precision: str) -> Looks:
    """What looks with a model folder or an exported file.

    Raises:
        ConfigError: an exported file and an option that it has decided already.
    """
    if not model.is_file():
        return Detector.load(model, device=device, engine=engine, precision=precision)
    if (device, engine, precision) not in {("auto", "torch", "float32"), ("cpu", "torch", "float32")}:
        raise ConfigError(
            f"device, engine and precision: {model.name} is an exported file, which has decided them; leave them out, "
            "or name the model folder"
        )
    from supersimplenet.runtime import Inspector

    return Inspector.load(model)


def _cluster(
    model: Path, engine: str, *, device: str, precision: str, address: str | None, workers: int | None
) -> Cluster | None:
    """Many machines, where they were asked for.

    Raises:
        ConfigError: what belongs to them without them.
    """
    if engine != "ray":
        if address is not None or workers is not None:
            raise ConfigError("address and workers: belong to a cluster; give --engine ray, or leave them out")
        return None
    from supersimplenet.cluster import Cluster, ClusterConfig

    return Cluster(model, ClusterConfig(address=address, workers=workers, device=device, precision=precision))


def _evaluate_on(
    cluster: Cluster, detector: Detector, samples: Sequence[Sample], *, resolution: Resolution, on_error: OnError
) -> Evaluation:
    """`evaluate` on many machines, whose tallies of pixels add up."""
    tested = [sample for sample in samples if sample.split == "test"]
    with progress_bar() as bar:
        task = bar.add_task("testing", total=len(tested), detail="")
        whole: Part | None = None
        for part in cluster.test_parts(tested, resolution=resolution, on_error=on_error):
            bar.advance(task, len(part.outcomes) + len(part.failures))
            if whole is None:
                whole = part
            else:
                whole.add(part)
    if whole is None:
        raise DataError("the data set has no test image; name a data set with a test split")
    return sum_up(whole, detector, resolution=resolution)


def trained_on(detector: Detector, model: Path) -> DataSource:
    """The data set that a model was trained on.

    Raises:
        ConfigError: it is not known.
    """
    if "data" not in detector.record:
        raise ConfigError(f"data: {model} was not trained here, so its data set is not known; name one with --data")
    return source_from(detector.record["data"])


def print_promise(detector: Looks) -> None:
    """What the threshold promises, or that it promises nothing."""
    calibration = detector.calibration
    if calibration is None:
        results().print(UNCALIBRATED, style="bold red")
    else:
        results().print(f"calibrated: {calibration.promise()}")


def _print_metrics(evaluation: Evaluation) -> None:
    table = RichTable("metric", "value", "95 % interval", "", box=None, pad_edge=False)
    decides = PREFIXES[evaluation.image_score]
    deciding = [f"{decides}{name}" for name in ("I-AUROC", "AP-det", "I-F1-max")]
    for name, metric in evaluation.metrics.items():
        if metric.value is None:
            table.add_row(name, f"undefined: {metric.reason}")
            continue
        interval = "" if metric.interval is None else f"{metric.interval.low:.3f} to {metric.interval.high:.3f}"
        if metric.interval is not None and metric.interval.degenerate:
            interval = "no resample differs: says nothing"
        if metric.error_bound:
            interval = f"exact to {metric.error_bound:.1e}"
        table.add_row(name, f"{metric.value:.4f}", interval, "of the score that decides" if name in deciding else "")
    results().print(table)


def _print_verdicts(evaluation: Evaluation) -> None:
    good, bad = evaluation.counts(GOOD), evaluation.counts(BAD)
    pixels = [outcome.sample.label for outcome in evaluation.outcomes if outcome.has_pixel_labels]
    unsure = f", {bad['unsure']} unsure" if bad["unsure"] else ""
    also_unsure = f", {good['unsure']} unsure" if good["unsure"] else ""
    size = "each mask's own size" if evaluation.resolution == "native" else evaluation.shown_size("x")
    results().print(
        f"at threshold {probability(evaluation.threshold_logit):.3f} of the {_SCORES[evaluation.image_score]}: "
        f"{bad['good']} of {sum(bad.values())} bad images missed{unsure}, "
        f"{good['bad']} of {sum(good.values())} good images rejected{also_unsure}; pixel metrics at {size} from "
        f"{pixels.count(BAD)} bad and {pixels.count(GOOD)} good images"
    )
