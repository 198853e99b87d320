"""One seed decides everything: each use of randomness derives its own from it, by name."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed for one use of randomness, a pure function of the run's seed and the use's name.

    What is derived anew for each step or epoch needs no state to be saved: a resumed run draws the same.

    Args:
        seed: the run's seed.
        names: what the randomness is for, such as ``("noise", step)``.

    Returns:
        An integer in [0, 2^63).
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
