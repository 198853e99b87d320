"""The forms of what the routes of datasets, models of the registry and rules of training take and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from supersimplenet.station.api.shapes import Body, IsoTime, Sha256
from supersimplenet.station.registry.jobs import StepName
from supersimplenet.station.registry.promotions import MARGIN

DATASET_PATTERN = r"^\w[\w .-]{0,99}$"
DatasetName = Annotated[str, Field(pattern=DATASET_PATTERN, examples=["lids"])]
ProductName = Annotated[str, Field(min_length=1, max_length=200, examples=["lids"])]
Share = Annotated[float, Field(gt=0, lt=1)]
Why = Annotated[str, Field(max_length=1000, description="the reason, for the trail")]
TimeBudget = Annotated[
    str, Field(max_length=20, pattern=r"^[\d.smh ]+$", description="of the training", examples=["15m"])
]
# Of `train`: no files are named by these, and nothing outside the model's folder is read or written.
OptionName = Literal[
    "model.backbone",
    "model.image_size",
    "recipe.batch_size",
    "trainer.max_epochs",
    "trainer.num_workers",
    "supervision",
    "seed",
]
OptionValue = Annotated[str, Field(pattern=r"^[\w ,.\[\]-]{1,100}$")]
ShownState = Literal["training", "interrupted", "comparing", "candidate", "refused", "failed", "in use"]


class EvidenceShape(BaseModel):
    """What a comparison shows about other parts, with 95 % confidence."""

    model_config = ConfigDict(extra="ignore")

    found: int = Field(description="bad parts that the other model finds")
    newly_missed: int = Field(description="those of them that this model misses")
    missed_bound: float = Field(description="share of such parts that it misses, at most")
    passed: int = Field(description="good parts that pass by the other model")
    newly_rejected: int = Field(description="those of them that this model calls bad")
    rejected_bound: float = Field(description="share of such parts that it calls bad, at most")


class ComparedShape(BaseModel):
    """What the comparison with another model found, on golden and on reviewed parts."""

    model_config = ConfigDict(extra="ignore")

    compared: int = Field(description="number of the model that it was compared with")
    golden_good: int = Field(description="good golden pictures")
    golden_bad: int
    new_escapes: int = Field(description="bad ones that the other model finds and this one does not")
    new_false_alarms: int = Field(description="good ones that this model calls bad and the other does not")
    new_unsure: int
    reviewed_good: int = Field(0, description="good ones among the reviewed pictures that no training has seen")
    reviewed_bad: int = 0
    evidence: EvidenceShape | None = None


class TrainingShape(BaseModel):
    """How far a training is."""

    step: StepName
    line: str | None = Field(description="last line of progress of the training, in English")
    done: int | None = Field(description="steps of the training, by that line")
    total: int | None


class ShadowShape(BaseModel):
    """What a model said about pictures that the station inspected with another one."""

    since: IsoTime = Field(description="of the first picture")
    until: IsoTime = Field(description="of the last one")
    pictures: int = Field(description="that both predicted")
    failed: int = Field(description="that this model could not predict")
    not_kept: int = Field(description="of that time, not on the disk any more")
    newly_bad: int
    newly_good: int
    differing: float = Field(description="share of pictures with another verdict")
    differing_bounds: tuple[float, float] = Field(description="its interval, with 95 % confidence")
    candidate_right: int = Field(description="pictures of another verdict of which people say that this model is right")
    station_right: int = Field(description="likewise, the station")


class ShadowBody(Body):
    """Which pictures a model predicts without a say."""

    hours: Annotated[int, Field(ge=1, le=24 * 366)] = Field(24, description="those of the last hours")


class RegisteredShape(BaseModel):
    """A model of the registry."""

    number: int = Field(examples=[3])
    product: str
    state: ShownState = Field(
        description="training: a process is at it; interrupted: none is, and it can go on; comparing: it is compared "
        "again; candidate: it may be promoted; refused: it fell behind the model in use; failed: its training ended "
        "with an error; in use"
    )
    at: IsoTime = Field(description="when it was begun; ISO 8601, UTC")
    who: str = Field(description="who began it; rule for the station's own rule")
    parent: int | None = Field(description="the model that was in use then")
    dataset: str | None = Field(description="null for a model that was brought in")
    version: int | None
    digest: Sha256 | None = Field(description="of that version of the dataset")
    options: list[str] = Field(description="of the training")
    compared: ComparedShape | None = Field(description="null where there was nothing to compare with, or not yet")
    shadow: ShadowShape | None = Field(description="what it said beside the model in use; null for not yet")
    reasons: list[str] = Field(description="why it was refused or failed")
    guarantee: str | None = Field(description="of its calibration, in a sentence")
    training: TrainingShape | None = Field(description="how far its training is; null for a finished model")


class OneRegisteredShape(RegisteredShape):
    """A model of the registry, with all that its guarantee rests on."""

    calibration: dict[str, Any] | None = Field(description="as in /v1/models")


class InUseShape(BaseModel):
    """Which model of a product is in use."""

    product: str
    model: int | None = Field(description="number in the registry; null: none was ever promoted")
    at: IsoTime | None = Field(description="since when")
    who: str | None = Field(description="who promoted it, or went back to it")
    why: str | None
    is_rollback: bool
    is_loaded: bool = Field(description="whether the station inspects with it: false for seconds, or where it cannot")
    back_to: int | None = Field(description="the model that a rollback would use; null for none")


class RegistryShape(BaseModel):
    """Models of the registry, the newest first, and which ones are in use."""

    models: list[RegisteredShape]
    in_use: list[InUseShape]
    threads: int = Field(description="threads of a training; the other cores inspect")


class TrainBody(Body):
    """A training to begin."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"product": "lids", "dataset": "lids", "version": None, "time_budget": "15m", "gather": True}]
        },
    )

    product: ProductName
    dataset: DatasetName
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(None, description="null for the newest")
    time_budget: TimeBudget = "15m"
    gather: bool = Field(False, description="whether the answers about the product come into the dataset first")
    options: dict[OptionName, OptionValue] = Field(default_factory=dict, description="further options of train")


class PromoteBody(Body):
    """Why a model is used from now on."""

    why: Why = ""
    margin: Share = Field(
        MARGIN, description="share of parts on which it may make a new mistake; what shows less is refused"
    )
    force: bool = Field(False, description="also one that was refused or not compared; the trail says so")


class WhyBody(Body):
    """Why something is done."""

    why: Why = ""


class PromotionShape(BaseModel):
    """A change of the model in use."""

    number: int
    product: str
    model: int
    is_rollback: bool
    at: IsoTime
    who: str
    why: str


class RuleBody(Body):
    """When the station trains a product by itself; without both, never."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"dataset": "lids", "answers": 50, "daily_at": "02:30", "time_budget": "15m"}]},
    )

    dataset: DatasetName
    answers: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="after so many parts with new answers on which people agree"
    )
    daily_at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = Field(
        None, description="each day at this time of the station's clock, where there is something new"
    )
    time_budget: TimeBudget = "15m"
    promote_margin: Share | None = Field(
        None,
        description="puts to use what it trained, where a new mistake is shown to be on at most this share of parts; "
        "null: a person decides",
    )
    promote_differing: Share | None = Field(
        None, description="and another verdict on at most this share of the pictures of the last 24 hours"
    )


class RuleShape(BaseModel):
    """When the station trains a product by itself."""

    product: str
    dataset: str | None
    answers: int | None
    daily_at: str | None
    time_budget: str | None
    promote_margin: float | None = Field(description="null: a person decides what is put to use")
    promote_differing: float | None
    set_by: str | None = Field(description="null: there is no rule")
    set_at: IsoTime | None
    problem: str | None = Field(description="why it could not train, or did not put to use what it trained")
    new_answers: int = Field(description="parts with answers since the last training on which people agree")


class RoleCountsShape(BaseModel):
    """Numbers of pictures by label."""

    good: int
    bad: int


class VersionShape(BaseModel):
    """A version of a dataset."""

    number: int
    at: IsoTime
    who: str
    why: str
    added: int
    changed: int
    removed: int
    digest: Sha256 = Field(description="equal digests hold the same")
    counts: dict[Literal["train", "calibration", "golden"], RoleCountsShape]


class DatasetShape(BaseModel):
    """A dataset and its versions, the newest first."""

    name: str
    versions: list[VersionShape]


class KnownShape(BaseModel):
    """What a version says about a picture."""

    label: Literal["good", "bad"]
    defect: str | None
    mask: Sha256 | None


class ChangeShape(BaseModel):
    """A picture that two versions hold or describe otherwise; null where one does not hold it."""

    picture: Sha256
    before: KnownShape | None
    after: KnownShape | None


class DifferenceShape(BaseModel):
    """What differs between two versions of a dataset."""

    added: int
    changed: int
    removed: int
    changes: list[ChangeShape] = Field(description="the first of them, at most 1000")


class GatherBody(Body):
    """The product whose answers become a version."""

    product: ProductName


class GatheredShape(BaseModel):
    """What came of the answers about a product's parts."""

    dataset: str
    version: int | None = Field(description="null where nothing would differ: no version was made")
    taken: int = Field(description="pictures that it holds by these answers")
    unusable: int
    disputed: int
    not_kept: int = Field(description="pictures that are not on the disk any more")
    left_out: int = Field(description="pictures of two parts, or that cannot be read")
