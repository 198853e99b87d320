"""Seeded damage to archives and tables, for tests and for fuzzing: each function takes bytes and a random.Random."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable, Mapping

BLOCK = 512
Mutation = Callable[[bytes, random.Random], bytes]


def tar_of(files: Mapping[str, bytes], *, format_: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these files, which ends with two blocks of zeros and no more."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format_) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        end = archive.offset
    return content.getvalue()[:end] + bytes(2 * BLOCK)


def headers_of(tar: bytes) -> list[int]:
    """Where the headers of an archive's members begin."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        return [member.offset for member in archive]


def flipped_header_bit(tar: bytes, draw: random.Random) -> bytes:
    """One bit of a member's header is wrong."""
    # The last 12 bytes of a header are padding, but the sum covers them too. In the field of the sum, a digit's upper
    # bits and what follows the digits may change without a change of the number, so the field is left alone.
    place = draw.choice([place for place in range(BLOCK) if not 148 <= place < 156])
    return _flipped(tar, draw.choice(headers_of(tar)) + place, draw)


def cut_at_a_member(tar: bytes, draw: random.Random) -> bytes:
    """The archive ends where a member but the first begins, or after the last one: every member in it is whole."""
    return tar[: draw.choice([*headers_of(tar)[1:], len(tar) - 2 * BLOCK])]


def cut_anywhere(tar: bytes, draw: random.Random) -> bytes:
    """The archive ends somewhere."""
    return tar[: draw.randrange(len(tar))]


def zeroed_header(tar: bytes, draw: random.Random) -> bytes:
    """A member's header is zeros."""
    place = draw.choice(headers_of(tar))
    return tar[:place] + bytes(BLOCK) + tar[place + BLOCK :]


def without_an_end(tar: bytes, draw: random.Random) -> bytes:
    """None or one of the two blocks of zeros is left at the end."""
    return tar[: len(tar) - BLOCK * draw.choice([1, 2])]


def something_after_the_end(tar: bytes, draw: random.Random) -> bytes:
    """Another archive, or anything else, follows the end."""
    return tar + draw.choice([tar, bytes(10 * BLOCK) + b"x", draw.randbytes(3 * BLOCK)])


TAR_LOSSES: tuple[Mutation, ...] = (
    flipped_header_bit,
    cut_at_a_member,
    cut_anywhere,
    zeroed_header,
    without_an_end,
    something_after_the_end,
)


def flipped_bits(content: bytes, draw: random.Random) -> bytes:
    """A few bits anywhere are wrong."""
    for _ in range(draw.randint(1, 8)):
        content = _flipped(content, draw.randrange(len(content)), draw)
    return content


def moved_bytes(content: bytes, draw: random.Random) -> bytes:
    """A stretch of bytes is removed, doubled, or overwritten with another one."""
    first, length = draw.randrange(len(content)), draw.randint(1, 2 * BLOCK)
    part, rest = content[first : first + length], content[first + length :]
    other = draw.randrange(len(content))
    middle = draw.choice([b"", part + part, content[other : other + length], bytes(length)])
    return content[:first] + middle + rest


def hostile_numbers(content: bytes, draw: random.Random) -> bytes:
    """A stretch of bytes becomes a number at the edge of its range, as text or as binary."""
    edges = [b"\xff" * 8, b"\x80" + bytes(7), b"-0000001", b"77777777777", b"\x7f" + b"\xff" * 7, b"999999999999"]
    edge = draw.choice(edges)
    place = draw.randrange(len(content))
    return content[:place] + edge + content[place + len(edge) :]


def cut(content: bytes, draw: random.Random) -> bytes:
    """The file ends somewhere."""
    return content[: draw.randrange(len(content))]


ANY_DAMAGE: tuple[Mutation, ...] = (flipped_bits, moved_bytes, hostile_numbers, cut)


def with_checked_headers(tar: bytes, draw: random.Random) -> bytes:
    """A field of a header is hostile, and the sum is right: only the field itself can show it."""
    place = draw.choice(headers_of(tar))
    header = bytearray(tar[place : place + BLOCK])
    field = draw.choice([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)])
    hostile = draw.choice(
        [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"-1\0", b"\0", b"../../x.png\0", b"xgLKSVDMN120"]
    )
    at, length = field
    header[at : at + length] = (hostile + bytes(length))[:length]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:place] + bytes(header) + tar[place + BLOCK :]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def encoded_table(rows: list[list[str]], draw: random.Random) -> bytes:
    """A table as some program on some system writes it: separator, line ends, encoding, quotes."""
    content = io.StringIO()
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    end = draw.choice(["\n", "\r\n"])
    csv.writer(content, delimiter=draw.choice(",;\t"), lineterminator=end, quoting=quoting).writerows(rows)
    return content.getvalue().encode(draw.choice(["utf-8", "utf-8-sig", "utf-16"]))


def _flipped(content: bytes, place: int, draw: random.Random) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
