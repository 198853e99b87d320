"""Decide with a golden set of images whether a new model may replace the model in use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supersimplenet.datasets.table import Table
from supersimplenet.errors import ConfigError
from supersimplenet.evaluation.comparison import paired
from supersimplenet.evaluation.evaluate import evaluate_samples
from supersimplenet.evaluation.known_images import both_labels
from supersimplenet.evaluation.results import Evaluation, Outcome
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.inference.detector import load_detector
from supersimplenet.metrics.bootstrap import mcnemar
from supersimplenet.metrics.evidence import CONFIDENCE, Evidence
from supersimplenet.metrics.thresholds import rate_upper_bound
from supersimplenet.postprocessing.calibration import UNCALIBRATED
from supersimplenet.types import BAD, GOOD, Verdict
from supersimplenet.utils.files import write_text
from supersimplenet.utils.formatting import counted, few
from supersimplenet.utils.locks import WAIT_TO_WRITE_S, writing_into
from supersimplenet.utils.serialization import to_plain

GATE_FILE = "gate.json"
_WORST: tuple[Verdict, ...] = ("good", "unsure", "bad")


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """The decision whether a candidate may replace the model in use, with the reasons.

    Attributes:
        passed: True if the candidate may replace the model in use.
        reasons: if not passed, each reason with the images concerned; if passed, what was checked.
        good: number of good images that both models predicted.
        bad: number of bad images that both models predicted.
        new_escapes: bad images that the candidate calls good and the current model calls bad or unsure.
        new_false_alarms: good images that the candidate calls bad and the current model calls good or unsure.
        new_unsure: images that only the candidate calls unsure. They are no mistakes, but a person must inspect them.
        max_new_escapes: allowed number of new escapes.
        max_new_false_alarms: allowed number of new false alarms.
        unreadable: images that could not be read.
        copies: images with equal pixels, group by group; of each group the first counts.
        evidence: what the parts show about others like them.
        margin: share of such parts on which the candidate may at most make a new mistake; None for no such limit.
    """

    passed: bool
    reasons: list[str]
    good: int
    bad: int
    new_escapes: list[Path]
    new_false_alarms: list[Path]
    new_unsure: list[Path]
    max_new_escapes: int
    max_new_false_alarms: int
    unreadable: list[Path]
    evidence: Evidence
    copies: list[list[Path]] = field(default_factory=list)
    margin: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def gate_models(
    candidate: Path,
    current: Path,
    golden: Path,
    *,
    output: Path | None = None,
    max_new_escapes: int = 0,
    max_new_false_alarms: int = 0,
    margin: float | None = None,
    compute: ComputeConfig = HERE,
) -> tuple[GateResult, tuple[Evaluation, Evaluation]]:
    """Decide with the test images of a golden set whether a candidate may replace the model in use.

    Args:
        candidate: folder of the new model.
        current: folder of the model in use.
        golden: a table of images; see `Table`.
        output: folder for gate.json; None for no file.
        max_new_escapes: allowed number of new escapes; see `GateResult`.
        max_new_false_alarms: allowed number of new false alarms; see `GateResult`.
        margin: see `GateResult`; without, what the parts show is only said.
        compute: the device, engine and precision to use.

    Returns:
        The decision, and the evaluations of the candidate and of the current model.

    Raises:
        SuperSimpleNetError: the subclass names the cause.
    """
    samples = Table(path=golden).samples()
    evaluations = [
        evaluate_samples(load_detector(path, compute), samples, on_error="skip") for path in (candidate, current)
    ]
    result = gate(
        *evaluations, max_new_escapes=max_new_escapes, max_new_false_alarms=max_new_false_alarms, margin=margin
    )
    if output is not None:
        with writing_into(output, wait_s=WAIT_TO_WRITE_S):
            write_text(output / GATE_FILE, json.dumps(result.as_dict(), indent=2) + "\n")
    return result, (evaluations[0], evaluations[1])


def gate(
    candidate: Evaluation,
    current: Evaluation,
    *,
    max_new_escapes: int = 0,
    max_new_false_alarms: int = 0,
    margin: float | None = None,
    trained_on: Sequence[Path] = (),
) -> GateResult:
    """Decide whether a candidate may replace the model in use: only if it makes no new mistakes beyond the limits.

    The candidate also fails if it is not calibrated (its threshold guarantees nothing), if it was trained on some of
    the images, if an image could not be read, if an image is labelled good and its copy bad, or if the images are all
    good or all bad. Copies of one image count once.

    Args:
        candidate: evaluation of the new model.
        current: evaluation of the model in use, on the same images.
        max_new_escapes: allowed number of new escapes; see `GateResult`.
        max_new_false_alarms: allowed number of new false alarms; see `GateResult`.
        margin: see `GateResult`; without, what the parts show is only said.
        trained_on: images that the candidate was trained on, besides those of its evaluation.

    Raises:
        MetricError: the evaluations are of different images; the message names the first such image.
        ConfigError: a limit is below 0, or the margin is no share.
    """
    for name, limit in (("max_new_escapes", max_new_escapes), ("max_new_false_alarms", max_new_false_alarms)):
        if limit < 0:
            raise ConfigError(f"{name}: {limit}; wanted 0 or more")
    unreadable = {Path(str(failure.path)): failure.reason for failure in [*current.failures, *candidate.failures]}
    copies = {image for group in candidate.copies for image in group[1:]}
    pairs = paired(candidate, current, without=unreadable.keys() | copies)
    good = [pair for pair in pairs if pair[0].sample.label == GOOD]
    bad = [pair for pair in pairs if pair[0].sample.label == BAD]
    escapes = [new.sample.image for new, old in bad if new.verdict == "good" and old.verdict != "good"]
    alarms = [new.sample.image for new, old in good if new.verdict == "bad" and old.verdict != "bad"]
    unsure = [new.sample.image for new, old in pairs if new.verdict == "unsure" and old.verdict != "unsure"]
    reasons = _doubts(candidate, [*candidate.trained_on, *trained_on], unreadable, good=len(good), bad=len(bad))
    for mistake, images, limit in (
        ("new escape", escapes, max_new_escapes),
        ("new false alarm", alarms, max_new_false_alarms),
    ):
        if len(images) > limit:
            reasons.append(f"{counted(len(images), mistake)}, {limit} allowed: {', '.join(map(str, images))}")
    evidence = evidence_of(pairs)
    reasons += [] if margin is None else evidence.lacks(margin)
    passed = not reasons
    left = f"; {counted(len(copies), 'copy', 'copies')} of other images counted nowhere" if copies else ""
    if passed:
        reasons.append(
            f"checked {counted(len(good), 'good image')} and {counted(len(bad), 'bad image')}: "
            f"{counted(len(escapes), 'new escape')} ({max_new_escapes} allowed), "
            f"{counted(len(alarms), 'new false alarm')} ({max_new_false_alarms} allowed), "
            f"{counted(len(unsure), 'image')} only the candidate is unsure about, every image readable, the candidate "
            f"calibrated{left}"
        )
    return GateResult(
        passed=passed,
        reasons=reasons,
        good=len(good),
        bad=len(bad),
        new_escapes=escapes,
        new_false_alarms=alarms,
        new_unsure=unsure,
        max_new_escapes=max_new_escapes,
        max_new_false_alarms=max_new_false_alarms,
        unreadable=list(unreadable),
        copies=[list(group) for group in candidate.copies],
        evidence=evidence,
        margin=margin,
    )


def evidence_of(pairs: Sequence[tuple[Outcome, Outcome]]) -> Evidence:
    """Return what is shown by the outcomes of each image, of the candidate and of the current model."""
    verdicts: dict[tuple[int, object], tuple[set[Verdict], set[Verdict]]] = {}
    for place, outcomes in enumerate(pairs):
        part = outcomes[0].part
        both = verdicts.setdefault((outcomes[0].sample.label, place if part is None else part), (set(), set()))
        for seen, outcome in zip(both, outcomes, strict=True):
            seen.add(outcome.verdict)
    parts = [
        (label, max(news, key=_WORST.index), max(olds, key=_WORST.index))
        for (label, _), (news, olds) in verdicts.items()
    ]
    found = [new == "good" for label, new, old in parts if label == BAD and old != "good"]
    passed = [new == "bad" for label, new, old in parts if label == GOOD and old != "bad"]
    wrong = {BAD: "good", GOOD: "bad"}
    right = [(new != wrong[label], old != wrong[label]) for label, new, old in parts]
    only = [right.count((True, False)), right.count((False, True))]
    return Evidence(
        found=len(found),
        newly_missed=sum(found),
        missed_bound=rate_upper_bound(sum(found), len(found), CONFIDENCE),
        passed=len(passed),
        newly_rejected=sum(passed),
        rejected_bound=rate_upper_bound(sum(passed), len(passed), CONFIDENCE),
        only_candidate_right=only[0],
        only_current_right=only[1],
        p_value=mcnemar(*only),
    )


def _doubts(
    candidate: Evaluation, trained_on: list[Path], unreadable: Mapping[Path, str], *, good: int, bad: int
) -> list[str]:
    """Return the reasons why the golden set cannot show that the candidate is good enough, whatever its results."""
    reasons = []
    if candidate.calibration is None:
        reasons.append(f"the candidate is {UNCALIBRATED}")
    elif not candidate.calibration.holds:
        reasons.append(f"the candidate's guarantee is {candidate.calibration.guarantee()}")
    if trained_on:
        reasons.append(
            f"the candidate was trained on {counted(len(trained_on), 'image')} of the golden set, so it proves nothing "
            f"there: {few(trained_on)}"
        )
    reasons += [
        f"the golden set labels one image both good and bad, pixel for pixel the same: {few(group)}; remove the wrong "
        "one"
        for group in both_labels(candidate)
    ]
    if unreadable:
        reasons.append(
            f"{counted(len(unreadable), 'image')} of the golden set could not be read, so nothing is known of "
            f"them: {few(list(unreadable))}; the first: {next(iter(unreadable.values()))}"
        )
    for kind, images, mistake in (("good", good, "false alarm"), ("bad", bad, "escape")):
        if not images:
            reasons.append(f"the golden set has no {kind} image, so nothing is known of {mistake}s; add some")
    return reasons
