"""What a target of the campaign is, and what may become of one input: a result, or one line that names the file."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hostile
import hostile_archives
import numpy as np
import zoo

from supersimplenet.errors import SuperSimpleNetError
from supersimplenet.utils.formatting import printable

Files = dict[str, bytes]
LONGEST_MESSAGE = 3000
_TEXTS = {".txt", ".csv", ".parquet", ".yaml", ".json", ".jsonl", ".pckl"}


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        make: makes an input from a seed: the content of each file, by its name below the input's folder.
        read: reads the files of a folder as the package does.
        spare: fewer of it are tried, since each takes long.
    """

    make: Callable[[random.Random], Files]
    read: Callable[[Case], None]
    spare: bool = False


@dataclass
class Case:
    """One input: the folder that holds it, and what was refused.

    Attributes:
        here: the folder.
        refused: the messages of the package's errors.
        accepted: number of calls that returned.
    """

    here: Path
    refused: list[str] = field(default_factory=list)
    accepted: int = 0

    def attempt(self, call: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """Return what a call returns; None where the package refuses, in one line that names one of the files."""
        try:
            found = call(*given, **options)
        except SuperSimpleNetError as error:
            self._check(str(error))
            self.refused.append(str(error))
            return None
        self.accepted += 1
        return found

    def _check(self, message: str) -> None:
        assert len(message.splitlines()) == 1, f"not one line: {message!r}"
        assert len(message) <= LONGEST_MESSAGE, f"{len(message):,} characters: {message[:300]!r}"
        assert "does not fit into memory" not in message, f"above the limits, and yet allocated: {message!r}"
        assert self._names_a_file(message), f"names no file: {message!r}"
        assert printable(message) == message or self._has_odd_name(message), f"not printable: {message!r}"

    def _names_a_file(self, message: str) -> bool:
        """Whether the message names a file of the input, or begins with a name that stands in one of them."""
        paths = list(self.here.rglob("*"))
        if any(path.name in message for path in (self.here, *paths)):
            return True
        first = message.partition(":")[0].strip("'")
        contents = [path.read_bytes() for path in paths if path.suffix in _TEXTS]
        texts = [content.decode(encoding, "replace") for content in contents for encoding in ("utf-8", "utf-16")]
        return any(first in printable(text) for text in texts)

    def _has_odd_name(self, message: str) -> bool:
        """The command line escapes what is not printable in the name of a file, and Python's users get it as it is."""
        return any(printable(path.name) != path.name and path.name in message for path in self.here.rglob("*"))


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Damage a file in one of all the ways that the tests know."""
    way = draw.randrange(3)
    if not content:
        return draw.randbytes(draw.randrange(9))
    if way == 0:
        return zoo.mutated(content, np.random.default_rng(draw.getrandbits(64)))
    if way == 1:
        return hostile.mutated_bytes(content, draw)
    return draw.choice(hostile_archives.ANY_DAMAGE)(content, draw)


def perhaps(content: bytes, draw: random.Random, share: float = 0.5) -> bytes:
    """Damage a file, or leave it as it is."""
    return damaged(content, draw) if draw.random() < share else content
