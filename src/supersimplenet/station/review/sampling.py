"""Which parts are drawn by chance for a person, so that rates can be estimated without bias."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from supersimplenet.station.storage.recorder import Record
    from supersimplenet.types import Verdict

StratumName = Literal["passed", "passed-near", "unsure", "bad"]
_NEAR = 0.2  # p-value up to which a part that is called good counts as near the threshold
_MORE = 10  # times the share: escapes and false calls are found where parts are near the threshold or beyond it


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How parts are drawn.

    Attributes:
        share: share of the parts called good, far from the threshold; near it and beyond ten times as many are drawn.
        seed: another seed draws other parts. Whoever knows it knows which parts are drawn.
    """

    share: float = 0.01
    seed: int = 0

    def share_of(self, stratum: StratumName) -> float:
        """Return the share of a stratum's parts that is drawn."""
        return self.share if stratum == "passed" else min(1.0, _MORE * self.share)

    def draws(self, key: str, stratum: StratumName) -> bool:
        """Return whether a part is drawn: by a hash, so that nobody has to remember, and nothing it shows matters."""
        digest = hashlib.sha256(f"{self.seed}\n{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share_of(stratum) * 2**64


def part_key(record: Record, *, within_ms: int) -> str:
    """Return what the photographs of one part have in common: product, part and the time; or a result's own id.

    Args:
        record: a result.
        within_ms: photographs of a name that are further apart are of another part.
    """
    if record["part"] is None:
        return str(record["id"])
    return f"{record['product']}\n{record['part']}\n{record['taken_at'] // within_ms}"


def stratum_of(verdict: Verdict, p_value: float | None) -> StratumName:
    """Return the stratum of a part by its verdict and p-value; without calibration nothing is known to be near."""
    if verdict != "good":
        return verdict
    return "passed-near" if p_value is not None and p_value <= _NEAR else "passed"
