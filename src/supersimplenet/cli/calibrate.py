"""`supersimplenet calibrate`: set a model's thresholds."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from supersimplenet.cli.common import (
    BAD_SHARE_HELP,
    COSTS_HELP,
    ON_ERROR_HELP,
    Command,
    OptionParser,
    add_engine,
    compute_config,
    parse_costs,
    parse_share,
    print_guarantee,
)
from supersimplenet.errors import ConfigError
from supersimplenet.postprocessing.calibration import BAD_PART, Calibration, verdict
from supersimplenet.postprocessing.parts import compile_group_pattern
from supersimplenet.postprocessing.zone_file import read_zones
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.types import ScoreName, normalised
from supersimplenet.utils.console import results
from supersimplenet.utils.formatting import counted, few, shown_rate

if TYPE_CHECKING:
    from supersimplenet.evaluation.config import ThresholdConfig
    from supersimplenet.evaluation.score_comparison import ScoreComparison
    from supersimplenet.evaluation.set_thresholds import Calibrated
    from supersimplenet.inference.config import ComputeConfig


_NOT_WITH_ZONES = {
    "image-score": "the score of the zones decides",
    "min-area": "each zone has its own least area",
    "cross": "models of folds set the threshold of a score of the whole image",
}


def command() -> Command:
    """Return the command ``calibrate``."""
    return Command(
        "calibrate",
        "set thresholds that hold a guarantee, from good parts",
        _parser(),
        _run,
        {"model": "model folder", "good": "file or folder", "bad": "file or folder", "zones": "file"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Set a model's thresholds from parts that were neither trained on nor part of the test; "
        "docs/thresholds.md explains what is guaranteed."
    )
    parser.add_argument("--model", type=Path, required=True, help="the model folder; calibration.yaml is written there")
    parser.add_argument(
        "--good", type=Path, nargs="+", help="folders of good parts; by default those that the training held out"
    )
    parser.add_argument("--bad", type=Path, nargs="+", help="folders of bad parts, where there are any")
    parser.add_argument(
        "--image-score",
        type=ScoreName | None,
        help="score that decides from now on: {" + ",".join(get_args(ScoreName)) + "}; by default the one that decides "
        "now. A table shows what each would give",
    )
    parser.add_argument(
        "--zones",
        type=Path | None,
        help="JSON file of zones, each with a margin and a least area of a defect: their score decides. By default "
        "those of the calibration before, unless --image-score names another score",
    )
    parser.add_argument(
        "--group-pattern",
        type=str | None,
        help=r"finds the part's name in a file's name, such as '(part\d+)_': photographs of one part count once",
    )
    parser.add_argument(
        "--max-false-alarms",
        type=str | None,
        help="share of good parts that may be called bad; by default 5%, or the least that the parts can guarantee",
    )
    parser.add_argument("--confidence", type=str, default="95%", help="with which each guarantee holds")
    parser.add_argument(
        "--max-escapes",
        type=str | None,
        help="share of bad parts that may be called good; where one threshold cannot hold both guarantees there are "
        "two, and a part between them is unsure: a person looks",
    )
    parser.add_argument("--costs", type=str | None, help=f"choose the cheapest threshold instead: {COSTS_HELP}")
    parser.add_argument("--bad-share", type=str | None, help=BAD_SHARE_HELP)
    parser.add_argument(
        "--min-area",
        type=PositiveInt | None,
        help="smallest defect that is listed, in pixels at the network's input size: 25 by default; with zones each "
        "has its own",
    )
    parser.add_argument(
        "--cross",
        type=PositiveInt | None,
        help="with few parts: number of folds of the training images; the thresholds come from models that are each "
        "trained without one of them, and the held-out parts check them. Takes as many trainings, on cached features",
    )
    parser.add_argument(
        "--cross-steps",
        type=PositiveInt | None,
        help="steps of each model of --cross, by default those of the training",
    )
    add_engine(parser)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _run(options: Namespace) -> int:
    from supersimplenet.evaluation.config import ThresholdConfig

    def share(name: str) -> float | None:
        text = options[name.replace("-", "_")]
        return None if text is None else parse_share(text, name)

    asked = share("max-false-alarms")
    if asked is not None and options.costs is not None:
        raise ConfigError("max-false-alarms and costs: costs choose the threshold themselves; give one of the two")
    bad_share = share("bad-share")
    config = ThresholdConfig(
        max_false_alarms=ThresholdConfig.max_false_alarms if asked is None else asked,
        confidence=parse_share(options.confidence, "confidence"),
        max_escapes=share("max-escapes"),
        costs=None if options.costs is None else parse_costs(options.costs),
        bad_share=bad_share,
        min_area_px=options.min_area,
        lenient=asked is None,
    )
    if options.group_pattern is not None:
        compile_group_pattern(options.group_pattern)
    compute = compute_config(options)
    _check_zones(options)
    _check_cross(options, config, compute)
    from supersimplenet.evaluation.calibrate import calibrate
    from supersimplenet.inference.config import CALIBRATION_FILE, CALIBRATION_PICTURE, METRICS_FILE
    from supersimplenet.visualization.calibration_plot import draw_calibration

    folds = None
    if options.cross is not None:
        from supersimplenet.training.cross import score_folds_of

        folds = score_folds_of(
            options.model,
            options.cross,
            steps=options.cross_steps,
            image_score=options.image_score,
            device=compute.device,
            config=config,
            on_error=options.on_error,
        )
    calibrated = calibrate(
        options.model,
        good=options.good or (),
        bad=options.bad or (),
        group_pattern=options.group_pattern,
        config=config,
        image_score=options.image_score,
        zones=options.zones,
        folds=folds,
        compute=compute,
        on_error=options.on_error,
        draw=draw_calibration,
    )
    _print_calibration(calibrated, bad_share_given=bad_share is not None)
    if calibrated.comparison is not None:
        _print_scores(
            calibrated.comparison, calibrated.calibration.image_score, grey_zone=config.max_escapes is not None
        )
    earlier = calibrated.earlier
    replaced = "" if earlier is None else f" (in place of the one of {earlier.date}: {earlier.parts} good parts)"
    say = results().print
    say(
        f"calibration: {options.model / CALIBRATION_FILE}{replaced}",
        f"picture:     {options.model / CALIBRATION_PICTURE}",
        sep="\n",
    )
    if (options.model / METRICS_FILE).is_file():
        again = f"supersimplenet test --model {shlex.quote(str(options.model))}"
        say(f"{METRICS_FILE} is still that of the earlier thresholds; {again} writes it anew")
    return 0


def _check_zones(options: Namespace) -> None:
    """Refuse options that do not go with --zones, and read the file, before anything slow begins."""
    if options.zones is None:
        return
    for name, value in (
        ("image-score", None if options.image_score == "zones" else options.image_score),
        ("min-area", options.min_area),
        ("cross", options.cross),
    ):
        if value is not None:
            raise ConfigError(f"zones and {name}: {_NOT_WITH_ZONES[name]}; give one of the two")
    read_zones(options.zones)


def _check_cross(options: Namespace, config: ThresholdConfig, compute: ComputeConfig) -> None:
    """Refuse options that do not go with --cross, before anything slow begins."""
    if options.cross is None:
        if options.cross_steps is not None:
            raise ConfigError("cross-steps: belongs to --cross; give both, or leave it out")
        return
    if options.cross < 2:
        raise ConfigError(f"cross: {options.cross}; wanted 2 folds or more")
    if config.costs is not None or config.max_escapes is not None:
        option = "costs" if config.costs is not None else "max-escapes"
        raise ConfigError(
            f"cross and {option}: models of folds set one threshold, by false alarms; give one of the two"
        )
    if compute.engine != "torch" or compute.precision != "float32":
        raise ConfigError("cross and engine: models of folds compute with torch in float32; leave out the other engine")


def _print_calibration(calibrated: Calibrated, *, bad_share_given: bool) -> None:
    calibration = calibrated.calibration
    say = results().print
    say(f"bad from score 0.5 on (logit {calibration.threshold_logit:.4f}, {calibration.image_score} score)")
    if calibration.accept_logit is not None:
        low = calibration.accept_logit
        share = normalised(low, calibration.threshold_logit)
        say(f"unsure from score {share:.3f} on (logit {low:.4f}): a person looks")
    say(*_defect_lines(calibration), sep="\n")
    for kind, scores in (("good", calibrated.good_logits), ("bad", calibrated.bad_logits)):
        if scores.size:
            found = Counter(verdict(score, calibration) for score in scores.tolist())
            counts = ", ".join(f"{found[name]} {name}" for name in ("good", "unsure", "bad") if found[name])
            say(f"of {counted(scores.size, f'{kind} part')} here: {counts}")
    if calibrated.curve is not None:
        cost = calibrated.curve.cost[calibrated.curve.cheapest]
        say(f"expected cost of a part: {cost:.3g}, the least of any threshold")
        say("costs chose the threshold by these very parts, so the bounds below hold for any threshold, and are wide")
    print_guarantee(calibration, warning=calibrated.repeated_parts)
    split = calibrated.split
    if split is not None:
        say(
            f"the {split.parts} parts that check it would alone set logit {split.threshold_logit:.4f}: "
            f"{split.guarantee()}"
        )
        if split.expected_escapes is not None:
            say(f"  there {split.expected_escapes.every} would be called good")
    if calibration.expected_escapes is not None:
        say(*calibration.expected_escapes.lines(), sep="\n")
    if calibrated.curve is not None and not bad_share_given:
        taken = calibrated.bad_logits.size / (calibrated.bad_logits.size + calibrated.good_logits.size)
        say(f"{taken * 100:.3g} % of parts are taken to be bad, as here; --bad-share names production's")
    if calibrated.failures:
        names = few([failure.path for failure in calibrated.failures])
        say(f"{counted(len(calibrated.failures), 'image')} could not be read, so left out: {names}")


def _defect_lines(calibration: Calibration) -> Iterator[str]:
    """Yield what a defect is, in words: everywhere, or in each zone."""
    level, least_px = calibration.pixel_logit, calibration.min_area_px
    if calibration.zones is None:
        yield f"a defect is a region of at least {least_px} px from logit {level:.4f} on"
        return
    for name, zone in calibration.zones.each():
        from_logit = level + zone.margin_logit
        yield f"{name}: a defect is a region of at least {zone.min_area_px} px from logit {from_logit:.4f} on"


def _print_scores(found: ScoreComparison, decides: ScoreName, *, grey_zone: bool) -> None:
    """Print what each score would give, and what a choice by these figures costs."""
    from rich.table import Table

    say = results().print
    heads = ["score", "threshold", "false alarms ≤"]
    if found.bad_parts:
        heads += ["AUROC of parts", "escapes", *(["unsure"] if grey_zone else [])]
    table = Table(*heads, "", box=None, pad_edge=False)
    for row in found.rows:
        cells = [row.score, f"{row.threshold_logit:.4f}", shown_rate(row.max_false_alarms)]
        if row.auroc is not None:
            cells += [f"{row.auroc:.4f}", f"{row.escapes} of {found.bad_parts}"]
            cells += [str(row.unsure)] if grey_zone else []
        table.add_row(*cells, "decides" if row.score == decides else "")
    say("what each score would give if it decided (--image-score):")
    say(table)
    if not found.bad_parts:
        say("no bad part is at hand, so nothing here says which score is better; name some with --bad")
        return
    after, before = f"{found.confidence_after_choice * 100:.4g} %", f"{found.confidence * 100:.4g} %"
    good_parts = counted(found.good_parts, "good part")
    say(f"AUROC and escapes: {counted(found.bad_parts, found.bad_noun)} against {good_parts}")
    if found.why_calibrating is None:
        if found.bad_noun == BAD_PART:
            bound = "a bound on escapes from these bad parts holds"
            of_bad = f"after such a choice, {bound} with {after} confidence, not {before}"
        else:
            of_bad = "the defects are painted, for want of bad parts that were not trained on: a rough guide"
        say(
            "these good parts were trained on, and score too well: the head, and what it is fused into, look better "
            "than in use",
            "no part that calibrates is compared: a choice by this table leaves the guarantee on good parts as it is",
            of_bad,
            sep="\n",
        )
        return
    ask = f"{math.ceil(found.confidence_to_ask * 1e4 - 1e-9) / 100:g} %"
    say(
        f"these good parts are those that calibrate, because {found.why_calibrating}",
        f"after a choice by this table, each guarantee holds with {after} confidence, not {before}; choose the score "
        f"beforehand, or calibrate with --confidence {ask}",
        sep="\n",
    )
