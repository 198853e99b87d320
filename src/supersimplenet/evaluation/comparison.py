"""Compare two models that were evaluated on the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from supersimplenet.errors import MetricError
from supersimplenet.evaluation.rates import PartRates, numbers_of
from supersimplenet.evaluation.results import PREFIXES, Evaluation, Outcome
from supersimplenet.metrics.bootstrap import STATISTICS, Interval, mcnemar, paired_differences
from supersimplenet.postprocessing.calibration import UNCALIBRATED
from supersimplenet.types import BAD, Sample, ScoreName, Verdict

_SEED = 0  # seed of the bootstrap samples, so that the figures are the same each time


@dataclass(frozen=True, kw_only=True)
class Side:
    """The results of one of the two models.

    Attributes:
        name: name of the model.
        image_score: the score that the verdicts come from.
        guarantee: in words, what the model's threshold guarantees, or that it guarantees nothing.
        false_alarms: rate of false alarms among good parts.
        escapes: rate of escapes among bad parts.
        unsure: number of images with the verdict ``unsure``, which a person must inspect.
    """

    name: str
    image_score: ScoreName
    guarantee: str
    false_alarms: PartRates
    escapes: PartRates
    unsure: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """An image with two different verdicts; ``place`` is its position among the outcomes of the first model."""

    place: int
    image: Path
    label: int
    defect: str
    first: Verdict
    second: Verdict


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of both models, each by the score that its verdicts come from.

    Attributes:
        name: name of the metric.
        first: value of the first model; None where it is not defined.
        second: value of the second model; None where it is not defined.
        interval: confidence interval of first minus second; None where it was not estimated.
    """

    name: str
    first: float | None
    second: float | None
    interval: Interval | None

    @property
    def says(self) -> str:
        """The conclusion in words: which model is better, where the interval shows it."""
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
        sides: results of both models, the first model first.
        changes: images with different verdicts, in the order of the outcomes.
        only_first_right: number of parts that only the first model gets right, which means no false alarm and no
            escape. The verdict ``unsure`` is neither.
        only_second_right: number of parts that only the second model gets right.
        p_value: of the hypothesis that both models are right equally often (McNemar's exact test).
        differences: differences in I-AUROC, AP-det and I-F1-max.
    """

    sides: tuple[Side, Side]
    changes: tuple[Change, ...]
    only_first_right: int
    only_second_right: int
    p_value: float
    differences: tuple[Difference, ...]


def compare(first: Evaluation, second: Evaluation, *, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Compare two evaluations of the same images.

    Args:
        first: evaluation of the first model.
        second: evaluation of the second model.
        names: names of the models, in that order.

    Raises:
        MetricError: the evaluations are of different images; the message names the first such image.
    """
    pairs = paired(first, second)
    labels = [outcome.sample.label for outcome, _ in pairs]
    groups = [outcome.part for outcome, _ in pairs]
    right = [_right_parts(outcomes) for outcomes in zip(*pairs, strict=True)]
    only = [len(right[0] - right[1]), len(right[1] - right[0])]
    mine, others = (np.array([pair[side].score_logit for pair in pairs]) for side in (0, 1))
    try:
        intervals = paired_differences(mine, others, labels, groups, generator=np.random.default_rng(_SEED))
    except MetricError:  # all images good or all bad, or too few of one kind
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


def paired(first: Evaluation, second: Evaluation, *, without: Collection[Path] = ()) -> list[tuple[Outcome, Outcome]]:
    """Return both outcomes of each image, in the order of the first evaluation.

    Args:
        first: evaluation of the first model.
        second: evaluation of the second model.
        without: images to leave out.

    Raises:
        MetricError: an image is in one evaluation only, or has another label or group in the other.
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
    """Return the parts without a wrong verdict, by label and group name; by position where the part has no name."""
    verdicts: dict[tuple[int, object], set[Verdict]] = defaultdict(set)
    for key, outcome in _named_parts(outcomes):
        verdicts[key].add(outcome.verdict)
    return {key for key, found in verdicts.items() if ("good" if key[0] == BAD else "bad") not in found}


def _named_parts(outcomes: Sequence[Outcome]) -> Iterator[tuple[tuple[int, object], Outcome]]:
    for place, outcome in enumerate(outcomes):
        group = outcome.part
        yield (outcome.sample.label, place if group is None else group), outcome


def _side(evaluation: Evaluation, name: str) -> Side:
    numbers = numbers_of(evaluation)
    calibration = evaluation.calibration
    return Side(
        name=name,
        image_score=evaluation.image_score,
        guarantee=UNCALIBRATED if calibration is None else calibration.guarantee(),
        false_alarms=numbers.false_alarms,
        escapes=numbers.escapes,
        unsure=sum(outcome.verdict == "unsure" for outcome in evaluation.outcomes),
    )


def _deciding(evaluation: Evaluation, name: str) -> float | None:
    return evaluation.metrics[f"{PREFIXES[evaluation.image_score]}{name}"].value
