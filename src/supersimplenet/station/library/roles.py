"""What a part is used for: training, calibration or the golden set. It is drawn once and never changes."""

from __future__ import annotations

import hashlib
import random
from typing import Literal

from sqlalchemy import Connection, func, insert, select

from supersimplenet.station.storage.schema import ROLES

Role = Literal["train", "calibration", "golden"]
_BLOCK: tuple[Role, ...] = ("train",) * 7 + ("calibration",) * 2 + ("golden",)
_BLOCK_BESIDE_GOLDEN: tuple[Role, ...] = ("train",) * 8 + ("calibration",) * 2


def role_of(connection: Connection, group: str) -> Role | None:
    """Return the role of a part; None where it has none yet."""
    found: Role | None = connection.execute(select(ROLES.c.role).where(ROLES.c.group == group)).scalar_one_or_none()
    return found


def draw_role(connection: Connection, group: str, stratum: str, *, has_golden: bool = False) -> Role:
    """Draw the role of a part that has none, and keep it.

    Of ten parts of a stratum that come one after another, seven train, two calibrate and one is golden, in an order
    drawn by chance: permuted blocks, as clinical trials assign patients. So the shares are exact in every block,
    which ten draws one by one are not, and no part's role follows from what it shows.

    Args:
        connection: of a transaction by `writing`.
        group: the part.
        stratum: what is to be found in every role: good parts, or those of a kind of defect, of one dataset.
        has_golden: whether the golden set was given apart; of ten parts eight train then, and two calibrate.

    Source: Friedman et al., Fundamentals of Clinical Trials, 5th edition, 2015, chapter 6 (blocked randomization).
    """
    block = _BLOCK_BESIDE_GOLDEN if has_golden else _BLOCK
    stratum = f"{stratum}, golden apart" if has_golden else stratum
    last = connection.execute(select(func.max(ROLES.c.place)).where(ROLES.c.stratum == stratum)).scalar_one()
    place = 0 if last is None else last + 1
    order = list(block)
    seed = hashlib.sha256(f"{stratum}\n{place // len(block)}".encode()).digest()
    random.Random(seed).shuffle(order)
    role = order[place % len(block)]
    connection.execute(insert(ROLES).values(group=group, role=role, stratum=stratum, place=place))
    return role


def set_role(connection: Connection, group: str, role: Role, stratum: str) -> Role:
    """Give a part that has none a role that is not drawn, and keep it."""
    connection.execute(insert(ROLES).values(group=group, role=role, stratum=stratum, place=None))
    return role
