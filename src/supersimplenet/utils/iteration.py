"""Steps through many things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_blocks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of that size; the last one may be shorter."""
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block
