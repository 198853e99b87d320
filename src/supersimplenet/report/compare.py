"""Two models that looked at the same images: what differs, and whether one may take the other's place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supersimplenet.calibration import UNCALIBRATED
from supersimplenet.data.sources.base import few
from supersimplenet.deploy.folder import to_plain
from supersimplenet.errors import ConfigError, MetricError
from supersimplenet.evaluation.evaluate import PREFIXES
from supersimplenet.evaluation.intervals import STATISTICS, Interval, mcnemar, paired_differences
from supersimplenet.evaluation.results import Evaluation, Outcome
from supersimplenet.records import BAD, GOOD, Sample, ScoreName, Verdict
from supersimplenet.report.numbers import PartRates, numbers_of
from supersimplenet.report.words import counted

_SEED = 0  # of the resamples: the same figures each time


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two models.

    Attributes:
        name: of it.
        image_score: which score decides.
        promise: what its threshold promises, or that it promises nothing.
        false_alarms: of good parts.
        escapes: of bad parts.
        unsure: images that a person is asked about.
    """

    name: str
    image_score: ScoreName
    promise: str
    false_alarms: PartRates
    escapes: PartRates
    unsure: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """An image that both models call differently; ``place`` is the one among the outcomes of the first."""

    place: int
    image: Path
    label: int
    defect: str
    first: Verdict
    second: Verdict


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of the score that decides, of both models.

    Attributes:
        name: of the metric.
        first: None where it is not defined.
        second: likewise.
        interval: of first minus second; None where it was not estimated.
    """

    name: str
    first: float | None
    second: float | None
    interval: Interval | None

    @property
    def says(self) -> str:
        """What follows, in words."""
        if self.first is None or self.second is None or self.interval is None:
            return "not defined on these images"
        if self.interval.low > 0:
            return "the first is better"
        if self.interval.high < 0:
            return "the second is better"
        if self.interval.degenerate:
            return "no difference on these images, which says nothing about others"
        return "leaves open which is better"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations of the same images.

    Attributes:
        sides: both models, the first one first.
        changes: images with another verdict, in the order of the outcomes.
        only_first_right: parts that only the first gets right: no false alarm, no escape. Unsure is neither.
        only_second_right: likewise.
        p_value: that both are right equally often (McNemar's exact test).
        differences: of I-AUROC, AP-det and I-F1-max.
    """

    sides: tuple[Side, Side]
    changes: tuple[Change, ...]
    only_first_right: int
    only_second_right: int
    p_value: float
    differences: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Whether a candidate may take the place of the model in use.

    Attributes:
        passed: whether it may.
        reasons: why not, each naming the images; where it may, what was checked.
        good: how many good images both looked at.
        bad: likewise.
        new_escapes: bad images that the current model catches, or asks a person about, and the candidate calls good.
        new_false_alarms: good images that the current model does not call bad and the candidate does.
        new_unsure: images that only the candidate asks a person about: no mistakes, but work.
        max_new_escapes: how many of these are allowed.
        max_new_false_alarms: likewise.
        unreadable: images that could not be read.
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

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def compare(first: Evaluation, second: Evaluation, *, names: tuple[str, str]) -> Comparison:
    """What differs between two evaluations of the same images.

    Args:
        first: of one model.
        second: of the other.
        names: what they are called, in that order.

    Raises:
        MetricError: they are of different images; the message names the first.
    """
    pairs = _paired(first, second)
    labels = [outcome.sample.label for outcome, _ in pairs]
    groups = [outcome.sample.group for outcome, _ in pairs]
    right = [_right_parts(outcomes) for outcomes in zip(*pairs, strict=True)]
    only = [len(right[0] - right[1]), len(right[1] - right[0])]
    mine, others = (np.array([pair[side].score_logit for pair in pairs]) for side in (0, 1))
    try:
        intervals = paired_differences(mine, others, labels, groups, generator=np.random.default_rng(_SEED))
    except MetricError:  # one class only, or nearly
        intervals = {}
    return Comparison(
        sides=(_side(first, names[0]), _side(second, names[1])),
        changes=tuple(
            Change(
                place=place,
                image=one.sample.image,
                label=one.sample.label,
                defect=one.sample.defect,
                first=one.verdict,
                second=other.verdict,
            )
            for place, (one, other) in enumerate(pairs)
            if one.verdict != other.verdict
        ),
        only_first_right=only[0],
        only_second_right=only[1],
        p_value=mcnemar(*only),
        differences=tuple(
            Difference(
                name=name,
                first=_deciding(first, name),
                second=_deciding(second, name),
                interval=intervals.get(name),
            )
            for name in STATISTICS
        ),
    )


def gate(
    candidate: Evaluation,
    current: Evaluation,
    *,
    max_new_escapes: int = 0,
    max_new_false_alarms: int = 0,
    trained_on: Sequence[Path] = (),
) -> GateResult:
    """Whether a candidate may take the place of the model in use: no new mistakes on the images both looked at.

    It may not either where it is not calibrated (its threshold promises nothing), where it was trained on some of the
    images, where an image could not be read, or where the images are all good or all bad.

    Args:
        candidate: the evaluation of the model that is to be used.
        current: of the one in use, on the same images.
        max_new_escapes: how many bad images that the current one catches the candidate may call good.
        max_new_false_alarms: how many good images that the current one does not call bad the candidate may.
        trained_on: images of the golden set that the candidate was trained on, which it may know by heart.

    Raises:
        MetricError: the evaluations are of different images; the message names the first.
        ConfigError: a limit below 0.
    """
    for name, limit in (("max_new_escapes", max_new_escapes), ("max_new_false_alarms", max_new_false_alarms)):
        if limit < 0:
            raise ConfigError(f"{name}: {limit}; wanted 0 or more")
    unreadable = {Path(str(failure.path)): failure.reason for failure in [*current.failures, *candidate.failures]}
    pairs = _paired(candidate, current, without=unreadable)
    good = [pair for pair in pairs if pair[0].sample.label == GOOD]
    bad = [pair for pair in pairs if pair[0].sample.label == BAD]
    escapes = [new.sample.image for new, old in bad if new.verdict == "good" and old.verdict != "good"]
    alarms = [new.sample.image for new, old in good if new.verdict == "bad" and old.verdict != "bad"]
    unsure = [new.sample.image for new, old in pairs if new.verdict == "unsure" and old.verdict != "unsure"]
    reasons = _doubts(candidate, trained_on, unreadable, good=len(good), bad=len(bad))
    for mistake, images, limit in (
        ("new escape", escapes, max_new_escapes),
        ("new false alarm", alarms, max_new_false_alarms),
    ):
        if len(images) > limit:
            reasons.append(f"{counted(len(images), mistake)}, {limit} allowed: {', '.join(map(str, images))}")
    passed = not reasons
    if passed:
        reasons.append(
            f"checked {counted(len(good), 'good image')} and {counted(len(bad), 'bad image')}: "
            f"{counted(len(escapes), 'new escape')} ({max_new_escapes} allowed), "
            f"{counted(len(alarms), 'new false alarm')} ({max_new_false_alarms} allowed), "
            f"{counted(len(unsure), 'image')} only the candidate is unsure about, every image readable, the candidate "
            "calibrated"
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
    )


def _doubts(
    candidate: Evaluation, trained_on: Sequence[Path], unreadable: Mapping[Path, str], *, good: int, bad: int
) -> list[str]:
    """Why a comparison says too little to let the candidate pass, whatever it shows."""
    reasons = []
    if candidate.calibration is None:
        reasons.append(f"the candidate is {UNCALIBRATED}")
    if trained_on:
        reasons.append(
            f"the candidate was trained on {counted(len(trained_on), 'image')} of the golden set, so it proves nothing "
            f"there: {few(list(trained_on))}"
        )
    if unreadable:
        reasons.append(
            f"{counted(len(unreadable), 'image')} of the golden set could not be read, so nothing is known of "
            f"them: {few(list(unreadable))}; the first: {next(iter(unreadable.values()))}"
        )
    for kind, images, mistake in (("good", good, "false alarm"), ("bad", bad, "escape")):
        if not images:
            reasons.append(f"the golden set has no {kind} image, so nothing is known of {mistake}s; add some")
    return reasons


def _paired(first: Evaluation, second: Evaluation, *, without: Collection[Path] = ()) -> list[tuple[Outcome, Outcome]]:
    """Both outcomes of each image, in the order of the first.

    Raises:
        MetricError: an image, label or group that only one of them has.
    """
    mine, others = (_by_image(evaluation, without) for evaluation in (first, second))
    for image, outcome in [*mine.items(), *others.items()]:
        found = [_facts(of_one[image].sample) if image in of_one else "not there" for of_one in (mine, others)]
        if found[0] != found[1]:
            raise MetricError(
                f"{outcome.sample.image}: {found[0]} in the first evaluation, {found[1]} in the second; "
                "compare models on the same images"
            )
    return [(outcome, others[image]) for image, outcome in mine.items()]


def _by_image(evaluation: Evaluation, without: Collection[Path]) -> dict[Path, Outcome]:
    return {outcome.sample.image: outcome for outcome in evaluation.outcomes if outcome.sample.image not in without}


def _facts(sample: Sample) -> str:
    return ("bad" if sample.label == BAD else "good") + ("" if sample.group is None else f", part {sample.group}")


def _right_parts(outcomes: Sequence[Outcome]) -> set[tuple[int, object]]:
    """Parts with no image on the wrong side, by label and name, or place where they have none."""
    verdicts: dict[tuple[int, object], set[Verdict]] = defaultdict(set)
    for key, outcome in _named_parts(outcomes):
        verdicts[key].add(outcome.verdict)
    return {key for key, found in verdicts.items() if ("good" if key[0] == BAD else "bad") not in found}


def _named_parts(outcomes: Sequence[Outcome]) -> Iterator[tuple[tuple[int, object], Outcome]]:
    for place, outcome in enumerate(outcomes):
        group = outcome.sample.group
        yield (outcome.sample.label, place if group is None else group), outcome


def _side(evaluation: Evaluation, name: str) -> Side:
    numbers = numbers_of(evaluation)
    calibration = evaluation.calibration
    return Side(
        name=name,
        image_score=evaluation.image_score,
        promise=UNCALIBRATED if calibration is None else calibration.promise(),
        false_alarms=numbers.false_alarms,
        escapes=numbers.escapes,
        unsure=sum(outcome.verdict == "unsure" for outcome in evaluation.outcomes),
    )


def _deciding(evaluation: Evaluation, name: str) -> float | None:
    return evaluation.metrics[f"{PREFIXES[evaluation.image_score]}{name}"].value
