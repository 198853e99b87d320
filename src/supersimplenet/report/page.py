"""Write the report: one HTML file that contains everything, opens from disk, needs no network and can be printed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from supersimplenet.datasets.checks.findings import Finding
from supersimplenet.datasets.checks.light import Light
from supersimplenet.errors import ConfigError
from supersimplenet.evaluation.comparison import Comparison
from supersimplenet.evaluation.evaluate import evaluate_again
from supersimplenet.evaluation.rates import Numbers, nearest_to_wrong, numbers_of, plain_images
from supersimplenet.evaluation.results import PREFIXES, Evaluation, shown_size_class
from supersimplenet.metrics.thresholds import Costs
from supersimplenet.report import figures
from supersimplenet.report.cautions import CONTRADICTION, find_cautions
from supersimplenet.report.text import (
    DASH,
    SCORES,
    at_most,
    bare,
    breakable,
    certainty,
    meaning,
    missing,
    score_of,
    view_words,
)
from supersimplenet.report.thumbnails import draw_picture, draw_scale
from supersimplenet.types import BAD, GOOD
from supersimplenet.utils.files import write_text
from supersimplenet.utils.formatting import logit, per_cent, signed, tight
from supersimplenet.utils.serialization import as_json

if TYPE_CHECKING:
    from supersimplenet.inference.detector import Detector

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("counts.js", "controls.js", "cards.js", "gallery.js", "viewer.js", "start.js")
_LARGE_BYTES = 8_000_000  # of large pictures in a page; further images have the small one alone
_LISTED = 200  # most wrong verdicts that are listed for readers without a script


def write_page(
    path: Path,
    *,
    evaluation: Evaluation,
    detector: Detector,
    title: str,
    data_name: str,
    model_name: str,
    findings: Sequence[Finding] = (),
    light: Sequence[Light] = (),
    comparison: Comparison | None = None,
    pictures: int = 400,
    costs: Costs | None = None,
    bad_share: float | None = None,
) -> Path:
    """Write the page of an evaluation.

    Args:
        path: the file to write; it appears whole or not at all.
        evaluation: the evaluation to report.
        detector: the detector that was evaluated; it predicts the images that are shown once more.
        title: title of the page.
        data_name: name of the dataset.
        model_name: name of the model.
        findings: findings of the data check.
        light: brightness and contrast of the good images of both splits, from the data check.
        comparison: comparison with another model, in which ``evaluation`` is the first; None for none.
        pictures: largest number of images that are shown; those nearest to a wrong verdict come first.
        costs: costs of a false alarm and of an escape.
        bad_share: share of bad parts in production; by default their share among the test parts.

    Returns:
        The path.

    Raises:
        ConfigError: ``pictures`` is below 0.
        ImageError: an image that could be read before cannot be read now.
    """
    if pictures < 0:
        raise ConfigError(f"pictures: {pictures}; wanted 0 or more")
    numbers = numbers_of(evaluation, costs=costs, bad_share=bad_share)
    order = nearest_to_wrong(numbers, evaluation.outcomes)
    images = plain_images(evaluation.outcomes)
    shown = order[:pictures]
    cases = evaluate_again(detector, [evaluation.outcomes[place] for place in shown])
    drawn, room = {}, _LARGE_BYTES
    for place, case in zip(shown, cases, strict=True):
        drawn[place] = draw_picture(case, evaluation.calibration, large=room > 0)
        room -= len(drawn[place]["large"] or "")
    plain = {
        **numbers.plain(),
        "calibrated": evaluation.calibration is not None,
        "images": images,
        "types": [result.defect for result in evaluation.types],
        "cost": None if numbers.costs is None or costs is None else _plain_costs(costs, numbers, bad_share),
    }
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "tight": tight,
        "per_cent": per_cent,
        "at_most": at_most,
        "logit": logit,
        "signed": signed,
        "certainty": certainty,
        "meaning": meaning,
        "bare": bare,
        "breakable": breakable,
        "size_class": shown_size_class,
    }
    cautions = find_cautions(evaluation, numbers, record=detector.record, findings=findings, costs=costs)
    text = environment.get_template("report.html").render(
        evaluation=evaluation,
        calibration=evaluation.calibration,
        numbers=numbers,
        title=title,
        data_name=data_name,
        model_name=model_name,
        trained_with=detector.record.get("versions", {}).get("supersimplenet"),
        date=date.today().isoformat(),
        version=version("supersimplenet"),
        score=SCORES[evaluation.image_score],
        view_words=view_words(detector.preprocessor.config),
        verdicts={"good": evaluation.counts(GOOD), "bad": evaluation.counts(BAD)},
        grey_zone=numbers.accept_logit < numbers.threshold_logit,
        grouped=any(outcome.part is not None for outcome in evaluation.outcomes),
        metrics=_metric_groups(evaluation),
        scores=SCORES,
        scale=draw_scale(calibrated=evaluation.calibration is not None),
        labelled={
            kind: sum(o.has_pixel_labels for o in evaluation.outcomes if o.sample.label == label)
            for kind, label in (("good", GOOD), ("bad", BAD))
        },
        columns=_columns(evaluation),
        reasons=_reasons(evaluation),
        dash=DASH,
        cautions=cautions,
        contradicted=any(caution.text.startswith(CONTRADICTION) for caution in cautions),
        light=light,
        figures=_figures(evaluation, numbers),
        wrong=_wrong(evaluation, images, order),
        listed=_LISTED,
        images=images,
        pictures=len(drawn),
        layers_drawn={name for picture in drawn.values() for name in ("truth", "ignored") if picture[name]},
        comparison=comparison,
        costs=costs,
        cost=plain["cost"],
        style=Markup((_ASSETS / "report.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS)),
        plain=_json(plain),
        drawn=_json(drawn),
    )
    write_text(path, text.encode("utf-8", "replace").decode())  # a name in the page may hold bytes that are no text
    return path


def _json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: it has no ``<``, which could end the element."""
    text = as_json(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _plain_costs(costs: Costs, numbers: Numbers, bad_share: float | None) -> dict[str, float]:
    parts = numbers.good_parts.size + numbers.bad_parts.size
    return {
        "falseAlarm": costs.false_alarm,
        "escape": costs.escape,
        "badShare": numbers.bad_parts.size / parts if bad_share is None else bad_share,
    }


def _metric_groups(evaluation: Evaluation) -> dict[str, Any]:
    """Return the metrics' names: of pixels, and of images by metric, then score; the deciding score comes first.

    ``missing`` has the reasons why values or intervals of each table are missing, ``defined`` the tables with a value;
    ``intervals`` says whether any metric has one.
    """
    of_score = {name: score_of(name) for name in evaluation.metrics}
    found = dict.fromkeys(score for score in of_score.values() if score is not None)
    scores = sorted(found, key=lambda score: score != evaluation.image_score)
    rows: dict[str, dict[str, str]] = {}
    for name, score in of_score.items():
        if score is not None:
            rows.setdefault(bare(name), {})[score] = name
    tables = {
        "images": {name: evaluation.metrics[name] for name, score in of_score.items() if score is not None},
        "pixels": {name: evaluation.metrics[name] for name, score in of_score.items() if score is None},
    }
    return {
        "scores": scores,
        "images": rows,
        "pixels": list(tables["pixels"]),
        "missing": {table: missing(metrics) for table, metrics in tables.items()},
        "defined": {name for name, table in tables.items() if any(m.value is not None for m in table.values())},
        "intervals": any(metric.interval is not None for metric in evaluation.metrics.values()),
    }


def _columns(evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the metrics in the tables by type and by size: those that are defined in a row of the table."""
    return {
        table: [
            name
            for name in ("I-AUROC", "AUPRO", "AP-loc")
            if any(name in row.metrics and row.metrics[name].value is not None for row in rows)
        ]
        for table, rows in (("types", evaluation.types), ("sizes", evaluation.sizes))
    }


def _reasons(evaluation: Evaluation) -> list[str]:
    """Return the reasons why values are missing in the tables by type and by size, each reason once."""
    columns = _columns(evaluation)
    reasons = [
        row.metrics[name].reason
        for table, rows in (("types", evaluation.types), ("sizes", evaluation.sizes))
        for row in rows
        for name in columns[table]
        if name in row.metrics and (row.regions or name == "I-AUROC")  # without a mask the page says so
    ]
    return list(dict.fromkeys(reason for reason in reasons if reason is not None))


def _figures(evaluation: Evaluation, numbers: Numbers) -> list[tuple[str, Markup, str]]:
    """Return heading, drawing and caption of each figure that is defined."""
    prefix = PREFIXES[evaluation.image_score]
    values = {
        name: evaluation.metrics[key].value
        for name, key in (("auroc", f"{prefix}I-AUROC"), ("ap", f"{prefix}AP-det"), ("aupro", "AUPRO"))
    }
    area = {name: "" if value is None else f"{value:.3f}" for name, value in values.items()}
    candidates = [
        ("Scores", figures.draw_histogram(numbers), "Each kind is drawn to its own scale."),
        ("What each threshold costs", figures.draw_costs(numbers), "The ring is the cheapest threshold."),
        ("ROC", figures.draw_roc(numbers), f"Area below it: I-AUROC {area['auroc']}."),
        (
            "Precision and recall",
            figures.draw_precision_recall(numbers),
            f"Average precision: AP-det {area['ap']}.",
        ),
        ("Overlap of regions (PRO)", figures.draw_overlap(evaluation.overlap_curve), f"AUPRO {area['aupro']}."),
    ]
    return [(heading, drawing, below) for heading, drawing, below in candidates if drawing is not None]


def _wrong(evaluation: Evaluation, images: Sequence[dict[str, Any]], order: Sequence[int]) -> list[dict[str, Any]]:
    """Return the images with a wrong verdict at the model's thresholds, the worst first."""
    wrong = {(BAD, "good"): "escape", (GOOD, "bad"): "false alarm"}
    found = []
    for place in order:
        outcome = evaluation.outcomes[place]
        mistake = wrong.get((outcome.sample.label, outcome.verdict))
        if mistake is not None:
            found.append({**images[place], "mistake": mistake})
    return found
