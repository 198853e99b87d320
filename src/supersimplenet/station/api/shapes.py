"""The forms of what the service takes and answers, for its OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from supersimplenet.station.problems import ErrorDetail
from supersimplenet.station.review.opinions import AnswerName, AskedName, OpinionName
from supersimplenet.station.storage.results import iso_time

VerdictName = Literal["good", "unsure", "bad"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
IsoTime = Annotated[  # made of milliseconds since 1970, the form in which times are stored
    str, BeforeValidator(iso_time), Field(description="ISO 8601, UTC", examples=["2026-11-30T06:00:00.125Z"])
]


class Body(BaseModel):
    """A body that is sent: a misspelt field is refused."""

    model_config = ConfigDict(extra="forbid")


class DefectShape(BaseModel):
    """A region of the anomaly map, in pixels of the picture; see `supersimplenet.types.Defect`."""

    left: int
    top: int
    width: int
    height: int
    area_px: float
    peak_logit: float
    centroid_x: float
    centroid_y: float
    below_threshold: bool
    outline_logit: float
    outline_left: int
    outline_top: int
    outline_width: int
    outline_height: int
    outline_area_px: float
    zone: str | None = Field(default=None, description="the zone in which it counts; null elsewhere, and without zones")


class PictureShape(BaseModel):
    """The picture of a result."""

    sha256: Sha256 = Field(description="of the file's bytes")
    kind: str = Field(description="suffix of its kind", examples=["png"])
    bytes: int
    width: int | None = Field(description="px, upright; null where it cannot be read")
    height: int | None
    kept: bool = Field(description="whether the station has it")


class ReviewShape(BaseModel):
    """What people say a part is."""

    verdict: OpinionName = Field(
        description="what most say; unusable: the picture shows no part as it should; disputed: as many say another"
    )
    by: str = Field(description="who answered last")
    at: str
    defect: str | None = Field(description="kind of the defect, where someone named it")
    mask: Sha256 | None = Field(description="of the mask's file, where someone drew the defect")


class PartShape(BaseModel):
    """One verdict for a part, that of its worst photograph; null where one could not be read and none is bad."""

    part: str | None
    verdict: VerdictName | None
    score: float | None
    p_value: float | None
    score_logit: float | None
    photographs: int
    failed: int


class ResultShape(BaseModel):
    """The result for a picture."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0193791c6b5d8f0f4c5bd0c1a2b3c4d5",
                    "taken_at": "2026-11-30T06:00:00.125Z",
                    "product": "tiles",
                    "source": "http",
                    "name": "017.png",
                    "part": None,
                    "verdict": "bad",
                    "score": 0.93,
                    "score_logit": 4.1,
                    "unsure_from": None,
                    "p_value": 0.04,
                    "calibrated": True,
                    "defects": [],
                    "scores": {"head_logit": 3.9, "map_max_logit": 4.4, "fused_logit": 4.1, "subspace_logit": 1.2},
                    "error": None,
                    "part_result": None,
                    "model": "0" * 64,
                    "picture": {
                        "sha256": "0" * 64,
                        "kind": "png",
                        "bytes": 40213,
                        "width": 256,
                        "height": 256,
                        "kept": True,
                    },
                    "review": None,
                    "stored": "database",
                }
            ]
        }
    )

    id: str = Field(description="rises with time", pattern=r"^[0-9a-f]{32}$")
    taken_at: str = Field(description="ISO 8601, UTC: when the station took the picture")
    product: str
    source: str = Field(description="what sent the picture, such as http")
    name: str = Field(description="the picture's name as sent")
    part: str | None = Field(description="the part that the picture shows")
    verdict: VerdictName | None = Field(description="null where the picture could not be inspected")
    score: float | None = Field(description="0 to 1, 0.5 at the threshold; null where the model is not calibrated")
    score_logit: float | None = Field(description="the deciding score, in logits")
    unsure_from: float | None = Field(description="the score from which a part is unsure; null without a grey zone")
    p_value: float | None = Field(description="how often a good part scores at least this high")
    calibrated: bool = Field(description="whether a threshold with a guarantee decided")
    defects: list[DefectShape] | None = Field(description="null where the model is not calibrated")
    scores: dict[str, float | None] = Field(description="what the deciding score is made of, in logits")
    error: ErrorDetail | None = Field(description="why there is no verdict: unreadable, or engine")
    part_result: PartShape | None = Field(description="of all photographs of the part until now; null without its name")
    model: Sha256 = Field(description="id of the model: a hash of all that decides")
    picture: PictureShape
    review: ReviewShape | None
    stored: Literal["database", "journal", "memory", "nowhere"] | None = Field(
        description="where the result is: journal and memory follow into the database; null with store=false"
    )


class InspectedShape(ResultShape):
    """A result as it is answered to the one who sent the picture."""

    heat: str | None = Field(None, description="with store=false: the anomaly map as a data URL")


class AnswerShape(BaseModel):
    """The answer to an inspection."""

    results: list[InspectedShape] = Field(description="in the order of the pictures")
    parts: list[PartShape] = Field(description="of each part in this request, from all photographs of it until now")


class ImageShape(Body):
    """A picture in JSON."""

    name: str | None = Field(None, max_length=300)
    part: str | None = Field(None, max_length=200)
    key: str | None = Field(None, max_length=200)
    content: str = Field(description="the file's bytes, base64")


class ImagesShape(Body):
    """Pictures in JSON."""

    images: list[ImageShape] = Field(min_length=1)


class ListShape(BaseModel):
    """Results, in order."""

    results: list[ResultShape]
    next: str | None = Field(description="pass it as after for the following ones; null at the end")


class CountsShape(BaseModel):
    """Numbers of results by verdict, and of reviews that contradict it."""

    good: int
    unsure: int
    bad: int
    failed: int = Field(description="pictures that could not be inspected")
    false_calls: int
    missed: int


class PartAnswer(PartShape):
    """A part and the results of all photographs of it."""

    results: list[ResultShape]


class ReviewBody(Body):
    """What the part is, as a person sees it; null takes the person's answer back."""

    verdict: AnswerName | None
    defect: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="kind of the defect of a bad part"
    )
    asked: AskedName | None = Field(None, description="the reason for which the review queue had asked")


class AnswerOfPerson(BaseModel):
    """What a person said about a result."""

    who: str
    at: IsoTime
    verdict: AnswerName | None = Field(description="null: the person took the earlier answer back")
    defect: str | None
    mask: Sha256 | None
    asked: AskedName | None = Field(description="why the review queue had asked")


class AnswersShape(BaseModel):
    """All answers about a result, in their order."""

    answers: list[AnswerOfPerson]


class AskedShape(BaseModel):
    """A part that the review queue asks about."""

    result: ResultShape
    reason: AskedName = Field(
        description="why: disputed (people do not agree), random (drawn by chance, to estimate rates), unsure (the "
        "verdict), clicked (a missed defect of which neither kind nor place is known), disagreement (of the scores), "
        "shadow (a candidate contradicts the verdict), novel (far from all good parts, though called good), expected "
        "(the verdict is most likely to be wrong)"
    )
    wrong: float | None = Field(description="probability that the verdict is wrong; null with too few answers")


class QueueShape(BaseModel):
    """What to ask next, the most useful first."""

    asked: list[AskedShape]
    expected_corrections: float | None = Field(
        description="number of these verdicts that are expected to be wrong; null with too few answers"
    )
    defects: list[str] = Field(description="kinds of defects that were named so far")


class RateShape(BaseModel):
    """An estimated share of parts, with a 95 % interval."""

    rate: float
    low: float
    high: float
    parts: int = Field(description="all parts of which it is a share")
    drawn: int = Field(description="those that were drawn by chance and have an answer")
    events: int = Field(description="those of the drawn ones that are counted")


class RatesShape(BaseModel):
    """How often the verdict is wrong, from parts that were drawn by chance for a person."""

    escapes: RateShape | None = Field(description="share of the parts called good that are bad")
    false_calls: RateShape | None = Field(description="share of the parts called unsure or bad that are good")
    asked: int = Field(description="parts that were drawn")
    answered: int = Field(description="those that have an answer")
    known_escapes: int = Field(description="parts called good that a person found to be bad, drawn or not")
    known_false_calls: int = Field(description="parts called unsure or bad that a person found to be good")
    failed: int = Field(description="parts without a verdict, which are in no rate")


class ModelShape(BaseModel):
    """A model."""

    id: Sha256
    product: str
    path: str
    facts: dict[str, Any] = Field(description="hashes of the files, engine, versions, thresholds and calibration")


class ModelBody(Body):
    """The model to use for a product from now on."""

    name: str = Field(description="a model folder or exported file below --models", examples=["tiles-2"])


class ThresholdShape(BaseModel):
    """The threshold of a product, and what holds for it."""

    product: str
    model: Sha256 = Field(description="id of the model with this threshold")
    calibrated: bool = Field(description="whether a guarantee holds")
    threshold_logit: float = Field(description="from this score on an image is bad")
    accept_logit: float | None = Field(description="from this score on an image is unsure; null without a grey zone")
    calibrated_threshold_logit: float = Field(description="what the calibration had set")
    max_false_alarms: float | None = Field(description="share of good parts called bad that is not exceeded")
    confidence: float | None = Field(description="of the guarantee")
    guarantee: str | None = Field(description="in a sentence, to be signed")
    calibration: dict[str, Any] | None = Field(description="all that the guarantee rests on, as in /v1/models")
    part_logits: list[float] = Field(description="the calibration's good parts, ascending")
    set_by: str | None = Field(description="who set another one than the calibration's")
    set_at: str | None = Field(description="when; ISO 8601, UTC")


class ThresholdBody(BaseModel):
    """The threshold from now on; null for that of the calibration."""

    model_config = ConfigDict(extra="forbid")

    threshold_logit: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None


class ScoresShape(BaseModel):
    """Scores of the newest results, the newest first."""

    scores_logit: list[float]
    reviews: list[OpinionName | None]


class SpeedShape(BaseModel):
    """How fast the station inspects."""

    per_minute: int = Field(description="pictures in the last minute")
    p50_s: float | None = Field(description="time from taking a picture to its result, of the last 1000: median")
    p95_s: float | None
    p99_s: float | None


class SignShape(BaseModel):
    """Something that is not as it should be."""

    code: str
    text: str = Field(description="what it is and what to do, in English")
    values: dict[str, str | int] = Field(description="what the text names, for texts in other languages")
    reason_code: str = Field(description="short name of the reason; empty for none, and for words of a library")
    reason_values: dict[str, str] = Field(description="what the reason names, for texts in other languages")


class SourceShape(BaseModel):
    """A source of pictures, beside requests."""

    name: str
    kind: str
    state: Literal["running", "away", "ended"]
    reason: str = Field(description="why it is not running")
    taken: int = Field(description="pictures since the start")
    missed: int = Field(description="pictures not taken, as the queue was full or the camera away")


class SinkShape(BaseModel):
    """A sink, which gets results."""

    name: str
    kind: str
    away: bool
    reason: str = Field(description="why it is away")
    reason_code: str = Field(description="short name of the reason; empty for none, and for words of a library")
    reason_values: dict[str, str] = Field(description="what the reason names, for texts in other languages")
    refused: int = Field(description="results that it refused, since the start")
    late: int = Field(description="results that came too late for it to act on, since the start")
    waiting: int = Field(description="results that it has not got yet")


class StatusShape(BaseModel):
    """The state of the station."""

    version: str
    products: list[str]
    in_work: int
    queue: int
    free_mib: int
    shift_hours: float
    speed: SpeedShape
    sources: list[SourceShape]
    sinks: list[SinkShape]
    signs: list[SignShape]


class FeatureShape(BaseModel):
    """What the test of one value says."""

    name: Literal["score", "map", "subspace", "brightness", "sharpness", "colour", "alignment"]
    capital: float = Field(description="of a bettor against no change, which began with 1 in this year")
    before: float | None = Field(description="about the median of the values before the last 100")
    recent: float | None = Field(description="median of the last 100")
    above: float = Field(description="share of the last 100 above the middle of those before them")


class DriftShape(BaseModel):
    """Whether the pictures of a product are still like those before them."""

    product: str
    drifted_at: str | None = Field(description="when they were said not to be; ISO 8601, UTC")
    since: str = Field(description="since when they are compared; ISO 8601, UTC")
    parts: int = Field(description="good parts that were compared")
    capital: float = Field(description="mean of the values' capitals; from 1000 on pictures have changed")
    features: list[FeatureShape]
    changed: list[str] = Field(description="names of the values that changed, most of all first")
