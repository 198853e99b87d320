"""The run-length code in which Label Studio keeps what a brush has painted.

Label Studio packs the RGBA bytes of the painted picture with the function rle-pack of thi.ng/umbrella: 32 bits with the
number of values, 5 bits with the bits of a value less one, four times 4 bits with the bits of a run's length less one,
then runs. A run is a bit (1: one value repeated, 0: as many values), 2 bits that choose one of the four lengths, the
run's length less one, and the value or values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import DataError

_HEADER = 32 + 5 + 4 * 4
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)  # those that Label Studio writes
_CHANNELS = 4


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Return the code of a mask (H, W): 255 in all four channels where it is marked, else 0."""
    values = np.repeat(mask.ravel(), _CHANNELS).astype(np.uint8) * np.uint8(255)
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, values.size)
    bits = [_as_bits(values.size, 32), _as_bits(_VALUE_BITS - 1, 5), *(_as_bits(each - 1, 4) for each in _LENGTH_BITS)]
    start = 0
    most = 1 << _LENGTH_BITS[-1]
    for end in ends.tolist():
        value = _as_bits(int(values[start]), _VALUE_BITS)
        while start < end:
            length = min(end - start, most)
            chosen = next(place for place, size in enumerate(_LENGTH_BITS) if length <= 1 << size)
            bits += ["1", _as_bits(chosen, 2), _as_bits(length - 1, _LENGTH_BITS[chosen]), value]
            start += length
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0"))
    return [int(byte) for byte in packed]


def decode_brush(code: Sequence[int], size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of a code: where the opacity is not 0.

    Args:
        code: the bytes.
        size_px: (height, width) of the picture.

    Raises:
        DataError: it is no such code, or of a picture of another size.
    """
    height, width = size_px
    wanted = height * width * _CHANNELS
    try:
        bits = np.unpackbits(np.array(code, dtype=np.uint8))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError("rle: wanted a list of whole numbers from 0 to 255") from error
    if bits.size < _HEADER:
        raise DataError(f"rle: {len(code)} bytes; too short for a brush of Label Studio")
    number, value_bits = _number(bits[:32]), _number(bits[32:37]) + 1
    if number != wanted:
        raise DataError(f"rle: of {number // _CHANNELS} pixels, the picture has {height} x {width}")
    sizes = [_number(bits[37 + 4 * place : 41 + 4 * place]) + 1 for place in range(4)]
    values = np.zeros(number, dtype=np.int64)
    at, done = _HEADER, 0
    while done < number:
        if at + 3 > bits.size:
            raise DataError(f"rle: it ends after {done} of {number} values; export it again")
        repeats, size = bits[at], sizes[_number(bits[at + 1 : at + 3])]
        length = _number(bits[at + 3 : at + 3 + size]) + 1
        at += 3 + size
        held = 1 if repeats else length
        read = bits[at : at + held * value_bits]
        if read.size < held * value_bits or done + length > number:
            raise DataError(f"rle: it ends after {done} of {number} values; export it again")
        values[done : done + length] = read.reshape(held, value_bits) @ (1 << np.arange(value_bits)[::-1])
        at += held * value_bits
        done += length
    return np.asarray(values.reshape(height, width, _CHANNELS)[:, :, 3] > 0)


def _as_bits(value: int, size: int) -> str:
    return format(value, f"0{size}b")


def _number(bits: NDArray[np.uint8]) -> int:
    return int("".join(map(str, bits.tolist())), 2) if bits.size else 0
