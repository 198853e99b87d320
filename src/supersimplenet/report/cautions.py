"""Find reasons to doubt the figures of a report, and write them in plain words, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from supersimplenet.datasets.checks.findings import Finding
from supersimplenet.datasets.defect_sizes import SEEN_PX, DefectSize, NetworkInput, describe_smallest
from supersimplenet.datasets.held_out import HELD_OUT
from supersimplenet.errors import MetricError
from supersimplenet.evaluation.rates import Numbers
from supersimplenet.evaluation.results import PREFIXES, Evaluation
from supersimplenet.inference.record import too_few_steps, total_steps
from supersimplenet.metrics.bootstrap import paired_differences
from supersimplenet.metrics.thresholds import Costs, guaranteed_rate, parts_needed, rate_upper_bound
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.report.text import SCORES, at_most
from supersimplenet.types import ScoreName
from supersimplenet.utils.formatting import counted, few, per_cent
from supersimplenet.utils.serialization import from_plain

CONTRADICTION = "The test contradicts the guarantee"
_USUAL_GUARANTEE = 0.05  # rate of false alarms that `train` wants to guarantee with its held-out images
_SIGNIFICANT = 0.05
_TELLING = 0.1  # if a test without any mistake allows a rate above this, it proves little
_MUCH_BETTER = 0.02  # I-AUROC
_SHOWN = 3  # images that a finding names
_SEED = 0
_LEAKS = {
    "group-in-both-splits",
    "duplicate-across-splits",
    "near-duplicate-across-splits",
    "same-image-good-and-bad",
}


@dataclass(frozen=True, kw_only=True)
class Caution:
    """One reason to doubt the figures.

    Attributes:
        level: ``grave`` if figures or guarantees on the page may be wrong, ``doubt`` if they may mislead.
        text: the reason, in a sentence or two.
        examples: examples, such as images; may be empty.
    """

    level: Literal["grave", "doubt"]
    text: str
    examples: tuple[str, ...] = ()


def find_cautions(
    evaluation: Evaluation,
    numbers: Numbers,
    *,
    record: Mapping[str, Any],
    findings: Sequence[Finding],
    costs: Costs | None,
) -> list[Caution]:
    """Return all cautions about an evaluation of a model with this config.yaml, the gravest first."""
    found = [
        *_of_training(record),
        *_of_calibration(evaluation),
        *_of_guarantee(evaluation, numbers),
        *_of_known_images(evaluation),
        *_of_failures(evaluation),
        *_of_lost_regions(evaluation),
        *_of_repeated_parts(evaluation, findings),
        *_of_findings(findings),
        *_of_few_parts(evaluation, numbers),
        *_of_scores(evaluation),
    ]
    if costs is not None and numbers.costs is None:
        found.append(Caution(level="doubt", text="No costs are shown: they need good and bad test images."))
    return sorted(found, key=lambda caution: caution.level != "grave")


def _of_training(record: Mapping[str, Any]) -> Iterator[Caution]:
    if text := too_few_steps(total_steps(record)):
        yield Caution(level="grave", text=f"Trained for {text}.")
    if smallest := record.get("training", {}).get("smallest_defect"):
        size = from_plain(DefectSize, smallest, where="config.yaml", name="training.smallest_defect")
        view = record.get("view", {})
        seen_by = NetworkInput(tuple(record["model"]["image_size"]), view.get("fit", "stretch"), view.get("scale", 1.0))
        if size.at(seen_by) < SEEN_PX:
            yield Caution(level="doubt", text=f"In the training, {describe_smallest(size, seen_by)}.")


def _of_calibration(evaluation: Evaluation) -> Iterator[Caution]:
    calibration = evaluation.calibration
    if calibration is None:  # the page shows this at its top
        return
    parts, confidence = calibration.parts, calibration.confidence
    if calibration.chosen_by == "costs":
        yield Caution(
            level="doubt",
            text="Costs chose the threshold by the calibration's own parts, so its bound on false alarms is wide "
            f"({at_most(calibration.max_false_alarms)}); where a limit must be signed, calibrate with "
            "--max-false-alarms.",
        )
    elif calibration.max_false_alarms > _USUAL_GUARANTEE and guaranteed_rate(parts, confidence) > _USUAL_GUARANTEE:
        yield Caution(
            level="doubt",
            text=f"Few calibration parts: {parts} can guarantee no less than "
            f"{at_most(guaranteed_rate(parts, confidence))} false alarms. "
            f"{parts_needed(_USUAL_GUARANTEE, confidence)} good parts guarantee 5 %, "
            f"{parts_needed(0.01, confidence)} guarantee 1 %: supersimplenet calibrate --good DIR.",
        )


def _of_guarantee(evaluation: Evaluation, numbers: Numbers) -> Iterator[Caution]:
    calibration = evaluation.calibration
    if calibration is None or not calibration.holds:
        return
    guarantees = [
        ("good", "false alarms", numbers.false_alarms, calibration.max_false_alarms),
        ("bad", "escapes", numbers.escapes, calibration.max_escapes),
    ]
    for kind, mistakes, rates, guaranteed in guarantees:
        if guaranteed is None or not rates.parts:
            continue
        chance = float(stats.binomtest(rates.wrong, rates.parts, guaranteed, alternative="greater").pvalue)
        if chance < _SIGNIFICANT:
            yield Caution(
                level="grave",
                text=f"{CONTRADICTION}: {mistakes} in {rates.wrong} of {rates.parts} {kind} parts "
                f"({per_cent(rates.rate)}), though at most {at_most(guaranteed)} are guaranteed. Were it true, so "
                f"many would come up in {_rare(chance)} of tests. The parts may differ from those calibrated with: "
                "compare light, supplier and date, and calibrate again with parts like those of the line.",
            )


def _of_known_images(evaluation: Evaluation) -> Iterator[Caution]:
    trained_on = evaluation.trained_on
    if trained_on:
        yield Caution(
            level="grave",
            text=f"The model was trained on {counted(len(trained_on), 'test image')}, perhaps under another name, so "
            "the figures flatter it. Test with parts that it has not seen.",
            examples=_few([image.name for image in trained_on]),
        )


def _of_failures(evaluation: Evaluation) -> Iterator[Caution]:
    failures = evaluation.failures
    if failures:
        yield Caution(
            level="grave",
            text=f"{counted(len(failures), 'test image')} could not be read and counted nowhere; the line would have "
            "to do something with them.",
            examples=_few([f"{failure.path.name}: {_reason(failure.reason, failure.path)}" for failure in failures]),
        )


def _of_lost_regions(evaluation: Evaluation) -> Iterator[Caution]:
    lost = evaluation.lost_words()
    if lost is not None:
        yield Caution(
            level="doubt",
            text=f"{lost}.",
            examples=_few([f"{outcome.sample.image.name}: left out" for outcome in evaluation.vanishing]),
        )


def _of_repeated_parts(evaluation: Evaluation, findings: Sequence[Finding]) -> Iterator[Caution]:
    """Yield a caution if held-out images calibrate, and training images seem to show a part more than once."""
    if evaluation.calibration is None or evaluation.calibration.basis != HELD_OUT:
        return
    tested = {outcome.sample.image for outcome in evaluation.outcomes}
    repeated = [
        evidence.images
        for finding in findings
        if finding.code == "near-duplicate-groups"
        for evidence in finding.evidence
        if tested.isdisjoint(evidence.images)
    ]
    if repeated:
        yield Caution(
            level="grave",
            text=f"The guarantee counts each photograph as a part, and training images seem to show "
            f"{counted(len(repeated), 'part')} more than once. Images held out of these calibrate, so do not sign it: "
            "split anew by part (supersimplenet data split PATH --groups found --output split.csv) and train anew.",
            examples=_few([few([image.name for image in images]) for images in repeated]),
        )


def _of_findings(findings: Sequence[Finding]) -> Iterator[Caution]:
    for finding in findings:
        if finding.level == "note" or finding.code == "image-unreadable":  # unreadable images are among the failures
            continue
        examples = [
            f"{', '.join(image.name for image in evidence.images[:_SHOWN])}"
            f"{' …' if len(evidence.images) > _SHOWN else ''}{': ' + evidence.detail if evidence.detail else ''}"
            for evidence in finding.evidence
        ]
        yield Caution(
            level="grave" if finding.code in _LEAKS else "doubt",
            text=f"The data: {finding.message}.",
            examples=_few(examples),
        )


def _of_few_parts(evaluation: Evaluation, numbers: Numbers) -> Iterator[Caution]:
    for kind, mistake, parts in (
        ("bad", "escape", numbers.bad_parts.size),
        ("good", "false alarm", numbers.good_parts.size),
    ):
        if parts == 0:
            yield Caution(level="grave", text=f"No {kind} test image: the test says nothing of {mistake}s.")
            continue
        at_best = rate_upper_bound(0, parts, numbers.confidence)
        if at_best > _TELLING:
            yield Caution(
                level="doubt",
                text=f"Only {counted(parts, f'{kind} part')} in the test: even without a single {mistake}, up to "
                f"{at_most(at_best)} remain possible ({numbers.confidence * 100:g} % confidence).",
            )


def _of_scores(evaluation: Evaluation) -> Iterator[Caution]:
    """Yield a caution if another score separates good and bad images much better than the deciding score."""
    deciding = evaluation.image_score
    own = evaluation.metrics[f"{PREFIXES[deciding]}I-AUROC"].value
    if own is None:
        return
    better: list[tuple[float, ScoreName]] = []
    for score in SCORES:
        if f"{PREFIXES[score]}I-AUROC" not in evaluation.metrics:
            continue  # the model has no such score
        value = evaluation.metrics[f"{PREFIXES[score]}I-AUROC"].value
        if score != deciding and value is not None and value > own + _MUCH_BETTER:
            better.append((value, score))
    for value, score in sorted(better, reverse=True)[:1]:
        theirs, ours = (
            np.array([outcome.score_of(name) for outcome in evaluation.outcomes]) for name in (score, deciding)
        )
        labels = [outcome.sample.label for outcome in evaluation.outcomes]
        groups = [outcome.part for outcome in evaluation.outcomes]
        try:
            found = paired_differences(theirs, ours, labels, groups, generator=np.random.default_rng(_SEED))["I-AUROC"]
        except MetricError:  # too few parts for an interval
            return
        if found.low > 0:
            yield Caution(
                level="doubt",
                text=f"Another score tells good from bad better than the one that decides: the {SCORES[score]} has "
                f"I-AUROC {value:.3f}, the {SCORES[deciding]} {own:.3f} (difference {found.low:.3f} to "
                f"{found.high:.3f}). Picking the score by this very test would flatter it; try it on other parts "
                "(supersimplenet calibrate --image-score).",
            )


def _few(texts: Sequence[str]) -> tuple[str, ...]:
    more = len(texts) - _SHOWN
    return (*texts[:_SHOWN], *([f"and {more:,} more"] if more > 0 else []))


def _reason(reason: str, path: ImageFile) -> str:
    return reason.removeprefix(f"{path}: ")


def _rare(chance: float) -> str:
    return f"at most {per_cent(chance)}" if chance >= 0.001 else "fewer than 0.1 %"
