"""Read images for the workers of a Ray cluster. Needs no torch, which would cost 1 s and 0.5 GB in each process."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.preprocessing.preprocessor import Preprocessor

Batch = dict[str, np.ndarray[Any, Any]]


class Reader:
    """A process of the cluster that prepares images for the network.

    Args:
        sent: a list with a reference to the `Preprocessor`.
    """

    def __init__(self, sent: Sequence[Any]) -> None:
        import ray

        self._preprocessor: Preprocessor = ray.get(sent[0])

    def __call__(self, batch: Batch) -> Batch:
        """Return the prepared images, or the error for images that cannot be read."""
        prepared: list[bytes] = []
        names, errors = [], []
        for content in batch["file"]:
            file: ImageFile = pickle.loads(content)
            names.append(str(file))
            try:
                prepared.append(pickle.dumps(self._preprocessor.prepare(file)))
                errors.append("")
            except ImageError as error:
                prepared.append(b"")
                errors.append(str(error))
        return {
            "index": batch["index"],
            "name": np.array(names),
            "prepared": column(prepared),
            "error": np.array(errors),
        }


def column(values: Iterable[bytes]) -> np.ndarray[Any, Any]:
    """Return an array of bytes objects of any length, in which zero bytes at the end are kept."""
    items = list(values)
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made
