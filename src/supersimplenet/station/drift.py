"""Whether the pictures of a product are still like those before them, and what changed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.metrics.drift import DriftTest
from supersimplenet.station.models import LoadedModel
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.recorder import Record
from supersimplenet.station.storage.schema import DRIFT
from supersimplenet.utils.formatting import first_line

ALARM = 1000.0  # times the capital of 1: a chance of at most 1 in 1000 a year for a product that does not change
_SAVES_EVERY_S = 300.0
_YEAR_MS = 365.25 * 86_400_000
_PART_MS = 86_400_000  # for which the first photograph of a part stands for it
_FEATURES: dict[str, Callable[[Record], Any]] = {
    "score": lambda record: record["score_logit"],
    "map": lambda record: record["row"].get("map_max_logit"),
    "subspace": lambda record: record["row"].get("subspace_logit"),
    "brightness": lambda record: record["row"].get("brightness"),
    "sharpness": lambda record: record["row"].get("sharpness"),
    "colour": lambda record: record["row"].get("colour"),
    "alignment": lambda record: record["row"].get("align_residual"),
}
_OF_MODEL = ("score", "map", "subspace")  # values of another model are others


def picture_facts(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return what is measured of a picture, as the model sees it.

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        ``brightness``, the mean, 0 to 255; ``sharpness``, the mean difference of neighbours in relation to the spread
        of all pixels; ``colour``, the logarithm of red in relation to blue.
    """
    means = pixels.mean(axis=(0, 1), dtype=np.float32)
    grey = pixels[..., 1].astype(np.float32)  # most of what the eye calls bright
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return {
        "brightness": float(means.mean()),
        "sharpness": float(steps / (grey.std() + 1.0)),
        "colour": float(np.log((means[0] + 1.0) / (means[2] + 1.0))),
    }


@dataclass(frozen=True, kw_only=True)
class FeatureState:
    """What a test of one value says.

    Attributes:
        name: such as ``brightness``.
        capital: of the bettor, which began with 1 in this year.
        before: about the median of the values before the last 100; None where there is none.
        recent: the median of the last 100.
        above: share of the last 100 values above the middle of those before them.
    """

    name: str
    capital: float
    before: float | None
    recent: float | None
    above: float


@dataclass(frozen=True, kw_only=True)
class DriftState:
    """Whether the pictures of a product are still like those before them.

    Attributes:
        product: the product.
        drifted_at: when that was first said to be otherwise, in milliseconds since 1970; None where it was not.
        since: since when pictures are compared.
        parts: number of good parts that were compared.
        capital: mean of the bettors' capitals; an alarm from 1000 on.
        features: what each value says.
    """

    product: str
    drifted_at: int | None
    since: int
    parts: int
    capital: float
    features: list[FeatureState]

    @property
    def changed(self) -> list[FeatureState]:
        """The values that made the alarm, that of the largest share first."""
        needed = ALARM / 10
        found = [each for each in self.features if each.capital >= needed]
        return sorted(found, key=lambda each: -each.capital)


class Drift:
    """Tests the good parts of each product, one after another; its state is in the database.

    Until that is loaded nothing is tested: what a start without the database inspects is left out.

    Args:
        engine: the database.
        models: the models in use.
        say: called with a line at an alarm, and about a trouble.
    """

    def __init__(self, engine: Engine, models: Iterable[LoadedModel], *, say: Callable[[str], None]) -> None:
        self._engine, self._say = engine, say
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._models = models
        self._tests: dict[str, _ProductTest] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
        self._thread.start()

    def load(self) -> None:
        """Go on from what is in the database.

        Raises:
            SQLAlchemyError: it is away.
        """
        with self._engine.connect() as connection:
            stored = {row.product: row.state for row in connection.execute(select(DRIFT))}
        with self._lock:
            for model in self._models:
                if model.product not in self._tests:
                    self._tests[model.product] = _ProductTest.of(model, stored.get(model.product))

    @property
    def states(self) -> list[DriftState]:
        """The state of each product; none before it is loaded."""
        with self._lock:
            return [test.state for test in self._tests.values()]

    def add(self, records: Sequence[Record]) -> None:
        """Test new results. Only parts called good count: how often others come is not a matter of drift."""
        with self._lock:
            for record in records:
                test = self._tests.get(record["product"])
                if test is None or record["verdict"] != "good" or record["model"] != test.model:
                    continue
                if test.add(record):
                    self._say(f"{record['product']}: pictures are not like those before them any more; see page Health")
                self._changed.add(record["product"])

    def use(self, model: LoadedModel) -> None:
        """Begin anew with what another model computes; what is measured of pictures goes on."""
        with self._lock:
            earlier = self._tests.get(model.product)
            if earlier is None:
                return
            self._tests[model.product] = _ProductTest.of(model, earlier.plain())
            self._changed.add(model.product)

    def accept(self, model: LoadedModel) -> DriftState:
        """Take pictures as they are now for the normal: all comparisons begin anew; return the state before.

        Raises:
            SQLAlchemyError: the state was not loaded yet, and the database is away.
        """
        self.load()
        with self._lock:
            before = self._tests[model.product].state
            self._tests[model.product] = _ProductTest.of(model, None, is_known=False)
            self._changed.add(model.product)
        self.save()
        return before

    def save(self) -> None:
        """Write what changed into the database."""
        with self._lock:
            rows: list[dict[str, Any]] = [
                {"product": product, "state": self._tests[product].plain(), "saved_at": now_ms()}
                for product in sorted(self._changed)
            ]
            self._changed.clear()
        if not rows:
            return
        try:
            with writing(self._engine) as connection:
                connection.execute(delete(DRIFT).where(DRIFT.c.product.in_([row["product"] for row in rows])))
                connection.execute(insert(DRIFT), rows)
        except SQLAlchemyError as error:
            with self._lock:
                self._changed.update(row["product"] for row in rows)
            self._say(f"the state of drift cannot be saved now ({first_line(error)})")

    def close(self) -> None:
        """Save, and stop."""
        self._ended.set()
        self._thread.join(timeout=10)
        self.save()

    def _run(self) -> None:
        while not self._ended.wait(_SAVES_EVERY_S):
            self.save()


class _ProductTest:
    """The tests of a product's values, whose mean capital is a martingale, too."""

    def __init__(self, product: str, model: str, tests: dict[str, DriftTest], *, since: int) -> None:
        self.product, self.model, self._tests, self._since = product, model, tests, since
        self._parts = 0
        self._drifted_at: int | None = None
        self._last_at: int | None = None
        self._seen: dict[str, int] = {}

    @classmethod
    def of(cls, model: LoadedModel, plain: Mapping[str, Any] | None, *, is_known: bool = True) -> _ProductTest:
        """Return the tests of a model's product, as they were saved; anew what another model computed."""
        calibration = model.predictor.calibration
        known: tuple[float, ...] = ()
        if is_known and calibration is not None and calibration.images == len(calibration.part_logits):
            known = calibration.part_logits  # one photograph a part, as is tested here
        tests = {
            name: DriftTest(seed=now_ms() + place, known=known if name == "score" else ())
            for place, name in enumerate(_FEATURES)
        }
        found = cls(model.product, model.id, tests, since=now_ms())
        if plain is None:
            return found
        is_same = plain["model"] == model.id
        for name, state in plain["tests"].items():
            if name in tests and (is_same or name not in _OF_MODEL):
                tests[name] = DriftTest.of_plain(state, seed=now_ms())
        found._since, found._parts, found._last_at = plain["since"], plain["parts"], plain["last_at"]
        found._drifted_at = plain["drifted_at"]
        return found

    def plain(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "since": self._since,
            "parts": self._parts,
            "last_at": self._last_at,
            "drifted_at": self._drifted_at,
            "tests": {name: test.plain() for name, test in self._tests.items()},
        }

    def add(self, record: Record) -> bool:
        """Test a part; return whether it gives the alarm."""
        if not self._is_first(record):
            return False
        at = record["taken_at"]
        year_share = 0.0 if self._last_at is None else max(0.0, (at - self._last_at) / _YEAR_MS)
        self._last_at = at
        self._parts += 1
        for name, value in _values(record):
            self._tests[name].add(value, year_share=min(1.0, year_share))
        if self._drifted_at is None and self._capital >= ALARM:
            self._drifted_at = at
            return True
        return False

    @property
    def state(self) -> DriftState:
        features = [
            FeatureState(
                name=name,
                capital=test.capital,
                before=_finite(test.middle_before),
                recent=_finite(test.recent_middle),
                above=test.recent_above,
            )
            for name, test in self._tests.items()
            if test.is_used
        ]
        return DriftState(
            product=self.product,
            drifted_at=self._drifted_at,
            since=self._since,
            parts=self._parts,
            capital=self._capital,
            features=features,
        )

    @property
    def _capital(self) -> float:
        return math.fsum(test.capital for test in self._tests.values()) / len(self._tests)

    def _is_first(self, record: Record) -> bool:
        """Return whether this is the first photograph of its part: others of it are no independent witnesses."""
        part, at = record["part"], record["taken_at"]
        if part is None:
            return True
        is_new: bool = at - self._seen.pop(part, -_PART_MS) >= _PART_MS
        self._seen[part] = at
        if len(self._seen) > 1000:
            del self._seen[next(iter(self._seen))]
        return is_new


def _values(record: Record) -> Iterator[tuple[str, float]]:
    for name, value_of in _FEATURES.items():
        value = value_of(record)
        if value is not None and math.isfinite(value):
            yield name, value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
