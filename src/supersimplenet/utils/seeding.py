"""One seed decides everything: each use of randomness derives its own seed from it, by name."""

from __future__ import annotations

import hashlib
import os


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a seed for one use of randomness: a pure function of the run's seed and the use's name.

    A seed that is derived anew for each step or epoch needs no saved state: a resumed run draws the same numbers.

    Args:
        seed: the run's seed.
        names: the use of the randomness, such as ``("noise", step)``.

    Returns:
        An integer in [0, 2^63).
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "big") >> 1
