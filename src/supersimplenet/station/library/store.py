"""Files of the library: pictures and masks by the hash of their content. Retention does not touch them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.utils.files import whole_file

FOLDER = "library"


class LibraryStore:
    """Pictures and masks in a folder. No name that was sent is part of a path: hashes alone are.

    Args:
        folder: the station's folder; the files are in its subfolder ``library``.
    """

    def __init__(self, folder: Path) -> None:
        self._pictures, self._masks = folder / FOLDER / "pictures", folder / FOLDER / "masks"

    def picture(self, sha256: str, kind: str) -> Path:
        """Return the path of a picture by the SHA-256 of its content and the suffix of its kind."""
        return self._pictures / sha256[-2:] / f"{sha256}.{kind}"

    def mask(self, sha256: str) -> Path:
        """Return the path of a mask by the SHA-256 of its file."""
        return self._masks / sha256[-2:] / f"{sha256}.png"

    def add_picture(self, content: bytes, sha256: str, kind: str) -> None:
        """Keep a picture; it is on the disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        _keep(self.picture(sha256, kind), content)

    def add_mask(self, mask: NDArray[np.bool_]) -> str:
        """Keep a mask (H, W); return the SHA-256 of its file. It is on the disk when this returns.

        Raises:
            OSError: it cannot be written.
        """
        content = mask_png(mask)
        sha256 = hashlib.sha256(content).hexdigest()
        _keep(self.mask(sha256), content)
        return sha256


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W) as a PNG of one channel: 255 where a pixel is defective, else 0."""
    encoded = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(encoded, "PNG")
    return encoded.getvalue()


def read_sent_mask(content: bytes, *, image_size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of a file that was sent; see `read_mask` for which pixels are defective.

    Args:
        content: the file.
        image_size_px: (height, width) of the upright picture.

    Raises:
        ImageError: it is no mask of that picture, or marks nothing.
    """
    mask = read_mask(EncodedImage("mask", lambda: content), image_size_px=image_size_px)
    if not mask.any():
        raise ImageError("mask: marks nothing; send none for a bad part whose defect is not drawn")
    return mask


def _keep(path: Path, content: bytes) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
