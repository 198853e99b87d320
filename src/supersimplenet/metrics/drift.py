"""Has something changed? A conformal test martingale on the values of parts, one after another.

Each value is compared with *all* values before it. As long as the values are exchangeable (any order of them is as
likely as any other), the p-values are independent and uniform, whatever the values' distribution is (Vovk, Gammerman
and Shafer, *Algorithmic Learning in a Random World*, 2nd ed. 2022, chapter 8). A bettor who stakes on large or small
p-values then cannot get rich: the chance that its capital ever reaches ``c`` times what it began with is at most
``1/c`` (Ville). The bets are those of the Simple Jumper (Vovk et al., *Retrain or not retrain: conformal test
martingales for change-point detection*, COPA 2021).

A comparison with a fixed set would not do: the parts of a set of 12 are the same ones each time, so the p-values are
not independent, and most streams alarm sooner or later without a change.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_BITS = 18  # of a value's key: sign, exponent, and 9 bits of the fraction, so steps of 0.1 to 0.2 per cent
_STAKES = (-1.9, -1.0, 0.0, 1.0, 1.9)  # slopes of the bets; 2 would risk everything
_JUMP = 0.01  # share of each bet that is spread over all bets after each value
_AT_ONCE = 0.5  # share of the capital that bets from the beginning; the rest follows over the year
_RECENT = 100  # p-values that are kept, to say what changed


class History:
    """The values until now, as counts of keys: memory does not grow, and ranks of equal keys are drawn by lot.

    A key is a fixed function of a value alone, so that keys are exchangeable where values are.
    """

    def __init__(self) -> None:
        self._sums = array("q", bytes(8 * ((1 << _BITS) + 1)))  # a Fenwick tree
        self._counts: dict[int, int] = {}
        self.number = 0

    def add(self, value: float) -> tuple[int, int]:
        """Add a value; return how many are larger than it, and how many are equal, itself among them."""
        key = _key(value)
        self._add(key, 1)
        equal = self._counts[key]
        return self.number - self._up_to(key), equal

    def plain(self) -> dict[str, int]:
        """Return the counts in plain values."""
        return {str(key): count for key, count in self._counts.items()}

    @classmethod
    def of_plain(cls, plain: Mapping[str, int]) -> History:
        """Return the history of plain values."""
        history = cls()
        for key, count in plain.items():
            history._add(int(key), count)
        return history

    def middle(self, *, without: Iterable[float] = ()) -> float:
        """Return about the median of all values, but for some that are among them; NaN where there is none left."""
        counts = Counter(self._counts)
        counts.subtract(map(_key, without))
        half, seen = counts.total() / 2, 0
        for key in sorted(key for key, count in counts.items() if count > 0):
            seen += counts[key]
            if seen >= half:
                return _value(key)
        return math.nan

    def _add(self, key: int, count: int) -> None:
        self._counts[key] = self._counts.get(key, 0) + count
        self.number += count
        place = key + 1
        while place <= 1 << _BITS:
            self._sums[place] += count
            place += place & -place

    def _up_to(self, key: int) -> int:
        place, total = key + 1, 0
        while place:
            total += self._sums[place]
            place &= place - 1
        return total


class DriftTest:
    """Tests whether a stream of values goes on as it was.

    Under exchangeability `capital` is a martingale that begins with 1 in each year: the chance that it reaches ``c``
    within a year is at most ``1/c``.

    Args:
        seed: of the lots between equal values.
        known: values that are known beforehand, such as those of the calibration: compared with, not bet on.
    """

    def __init__(self, *, seed: int, known: Iterable[float] = ()) -> None:
        self._lots = np.random.default_rng(seed)
        self.history = History()
        for value in known:
            self.history.add(value)
        self._bets: list[float]
        self._rest: float
        self._elapsed: float
        self._begin_year()
        self._p_values: deque[float] = deque(maxlen=_RECENT)
        self._values: deque[float] = deque(maxlen=_RECENT)

    @property
    def capital(self) -> float:
        """What the bettor has of a capital of 1."""
        return self._rest + math.fsum(self._bets)

    @property
    def is_used(self) -> bool:
        """Whether it has bet on any value yet."""
        return bool(self._p_values)

    @property
    def recent_above(self) -> float:
        """Share of the last 100 values that lie above the middle of those before them; 0.5 where nothing changed."""
        return sum(p < 0.5 for p in self._p_values) / len(self._p_values) if self._p_values else 0.5

    @property
    def middle_before(self) -> float:
        """About the median of the values before the last 100; NaN where there is none."""
        return self.history.middle(without=self._values)

    @property
    def recent_middle(self) -> float:
        """Median of the last 100 values; NaN where there is none."""
        return float(np.median(self._values)) if self._values else math.nan

    def add(self, value: float, *, year_share: float = 0.0) -> float:
        """Bet on a value, and return its p-value.

        Args:
            value: finite.
            year_share: share of a year since the value before. So much of the capital begins to bet now, so that the
                bets on a late change are not lost before it comes. It must not depend on the value.
        """
        larger, equal = self.history.add(value)
        p = (larger + self._lots.random() * equal) / self.history.number
        self.bet(p, year_share=year_share)
        self._p_values.append(p)
        self._values.append(value)
        return p

    def bet(self, p: float, *, year_share: float = 0.0) -> None:
        """Bet on a p-value; see `add`."""
        self._elapsed += year_share
        if self._elapsed > 1:
            self._begin_year()
        fresh = min(self._rest, (1 - _AT_ONCE) * year_share)
        self._rest -= fresh
        spread = (_JUMP * math.fsum(self._bets) + fresh) / len(_STAKES)
        self._bets = [
            ((1 - _JUMP) * bet + spread) * (1 + stake * (p - 0.5))
            for bet, stake in zip(self._bets, _STAKES, strict=True)
        ]

    def plain(self) -> dict[str, Any]:
        """Return all of it in plain values of JSON."""
        return {
            "counts": self.history.plain(),
            "bets": self._bets,
            "rest": self._rest,
            "elapsed": self._elapsed,
            "p_values": list(self._p_values),
            "values": list(self._values),
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any], *, seed: int) -> DriftTest:
        """Return the test of plain values."""
        test = cls(seed=seed)
        test.history = History.of_plain(plain["counts"])
        test._bets, test._rest, test._elapsed = list(plain["bets"]), plain["rest"], plain["elapsed"]
        test._p_values.extend(plain["p_values"])
        test._values.extend(plain["values"])
        return test

    def _begin_year(self) -> None:
        self._bets = [_AT_ONCE / len(_STAKES)] * len(_STAKES)
        self._rest, self._elapsed = 1 - _AT_ONCE, 0.0


def _key(value: float) -> int:
    """Return a value's key: it rises with the value."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value + 0.0))  # -0.0 is 0.0
    ordered = bits ^ (0xFFFFFFFF if bits >> 31 else 0x80000000)
    return int(ordered >> (32 - _BITS))


def _value(key: int) -> float:
    """Return the middle of the values that have a key."""
    ordered = (key << (32 - _BITS)) | 1 << (31 - _BITS)
    bits = ordered ^ (0x80000000 if ordered >> 31 else 0xFFFFFFFF)
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])
