"""A zoo of small image files, made here by other programs or byte by byte, each with its true values or its refusal.

`zoo` returns every file; `mutated` damages one, for campaigns that look for crashes.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image

HEIGHT, WIDTH = 13, 11
Reader = Callable[[bytes], np.ndarray]


@dataclass(frozen=True)
class Animal:
    """A file and what must become of it.

    Attributes:
        content: the file.
        truth: (H, W) or (H, W, C) values before orientation and conversion, over the full range of their type; two or
            four channels are grey or RGB with alpha. None where only another decoder knows them, or for a refusal.
        reader: an independent decoder, which must give ``truth`` too.
        refused: what the refusal says.
        orientation: that the file states.
        tolerance: by how much decoders may differ, in levels of 255.
    """

    content: bytes
    truth: np.ndarray | None = None
    reader: Reader | None = None
    refused: str | None = None
    orientation: int = 1
    tolerance: int = 0


@lru_cache(maxsize=1)
def zoo() -> dict[str, Animal]:
    """Return every file by its name."""
    makers = (tiffs, odd_tiffs, refused_tiffs, pngs, bmps, jpegs, gifs_and_webps, jpegs_2000, netpbms)
    found = list(itertools.chain.from_iterable(maker() for maker in makers))
    assert len({name for name, _ in found}) == len(found), "two animals of one name"
    return dict(found)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file: flip bits, overwrite, cut, drop, double or insert bytes, a few times; headers more often."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        size = max(1, len(damaged))
        at = int(rng.integers(min(size, 64) if rng.random() < 0.5 else size))
        length = int(rng.integers(1, 17))
        match int(rng.integers(7)):
            case 0:
                damaged[at : at + 1] = bytes([damaged[at] ^ (1 << int(rng.integers(8)))]) if damaged else b""
            case 1:
                damaged[at : at + length] = rng.bytes(length)
            case 2:
                del damaged[at:]
            case 3:
                del damaged[at : at + length]
            case 4:
                damaged[at:at] = damaged[at : at + length]
            case 5:
                damaged[at:at] = rng.bytes(length)
            case _:
                damaged[at : at + 4] = struct.pack(
                    ["<I", ">I"][int(rng.integers(2))], [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, size][int(rng.integers(5))]
                )
    return bytes(damaged)


def values(*shape: int, kind: type = np.uint8, below: int | None = None, seed: int = 0) -> np.ndarray:
    """Return random values; the shape begins with the usual height and width."""
    top = np.iinfo(kind).max + 1 if below is None else below
    return np.random.default_rng(seed).integers(0, top, (HEIGHT, WIDTH, *shape)).astype(kind)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def with_opencv(content: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    if pixels.ndim == 2:
        return pixels
    return pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def with_tifffile(content: bytes, page: int = 0) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        return file.pages[page].asarray()


# --- TIFF --------------------------------------------------------------------------------------------------------


def tifffile_bytes(*pages: tuple[np.ndarray, dict[str, object]], **options: object) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for pixels, tags in pages:
            writer.write(pixels, metadata=None, **tags)
    return buffer.getvalue()


def one_tiff(pixels: np.ndarray, *, byteorder: str = "<", bigtiff: bool = False, **tags: object) -> bytes:
    return tifffile_bytes((pixels, tags), byteorder=byteorder, bigtiff=bigtiff)


def tiffs() -> Iterator[tuple[str, Animal]]:
    kinds: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "grey8": (values(), {"photometric": "minisblack"}),
        "grey16": (values(kind=np.uint16), {"photometric": "minisblack"}),
        "rgb8": (values(3), {"photometric": "rgb"}),
        "rgb16": (values(3, kind=np.uint16), {"photometric": "rgb"}),
        "rgba8": (values(4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "rgba16": (values(4, kind=np.uint16), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    }
    codecs: list[dict[str, object]] = [
        {},
        {"compression": "lzw"},
        {"compression": "deflate"},
        {"compression": "packbits"},
        {"compression": "lzw", "predictor": 2},
        {"compression": "deflate", "predictor": 2},
    ]
    for (kind, (pixels, tags)), codec, order in itertools.product(kinds.items(), codecs, "<>"):
        name = "-".join(["tiff", kind, *(str(v) for v in codec.values()), {"<": "little", ">": "big"}[order]])
        content = one_tiff(pixels, byteorder=order, rowsperstrip=5, **tags, **codec)
        yield name, Animal(content, pixels, with_tifffile)
    for kind, (pixels, tags) in kinds.items():
        for codec in ({}, {"compression": "deflate"}):
            content = one_tiff(pixels, tile=(16, 16), **tags, **codec)
            yield f"tiff-{kind}-tiles-{len(codec)}", Animal(content, pixels, with_tifffile)
        yield f"tiff-{kind}-big-tiff", Animal(one_tiff(pixels, bigtiff=True, **tags), pixels, with_tifffile)
    for kind, codec, turn in itertools.product(("grey8", "grey16", "rgb8"), ({}, {"compression": "lzw"}), range(10)):
        pixels, tags = kinds[kind]
        content = one_tiff(pixels, extratags=[(274, 3, 1, turn, True)], **tags, **codec)
        yield f"tiff-{kind}-{len(codec)}-turned-{turn}", Animal(content, pixels, with_tifffile, orientation=turn)


def odd_tiffs() -> Iterator[tuple[str, Animal]]:
    for kind, order in itertools.product((np.uint8, np.uint16), "<>"):
        pixels = values(kind=kind)
        inverted = np.iinfo(kind).max - pixels
        for codec in ({}, {"compression": "deflate"}):
            content = one_tiff(pixels, byteorder=order, photometric="miniswhite", **codec)
            name = f"tiff-white-is-zero-{np.dtype(kind).name}-{ {'<': 'little', '>': 'big'}[order] }-{len(codec)}"
            yield name, Animal(content, inverted, lambda c: np.iinfo(with_tifffile(c).dtype).max - with_tifffile(c))
    straight, premultiplied = values(4), values(4)
    for kind in (np.uint8, np.uint16):
        premultiplied = values(4, kind=kind)
        premultiplied[..., :3] = np.minimum(premultiplied[..., :3], premultiplied[..., 3:])
        content = one_tiff(premultiplied, photometric="rgb", extrasamples=["assocalpha"])
        # Premultiplied colours are those over black already.
        yield f"tiff-premultiplied-{np.dtype(kind).name}", Animal(content, premultiplied[..., :3])
        content = one_tiff(premultiplied, photometric="rgb", extrasamples=["unspecified"])
        yield f"tiff-extra-sample-{np.dtype(kind).name}", Animal(content, premultiplied[..., :3])
    for extra, truth in (("unassalpha", straight[..., :2]), ("unspecified", straight[..., 0])):
        content = one_tiff(straight[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=[extra])
        yield f"tiff-grey-{extra}", Animal(content, truth)
    colours = values(3)
    for codec in ({}, {"compression": "deflate"}):
        planes = np.moveaxis(colours, 2, 0)
        content = one_tiff(planes, photometric="rgb", planarconfig="separate", **codec)
        yield f"tiff-planes-{len(codec)}", Animal(content, colours, lambda c: np.moveaxis(with_tifffile(c), 0, 2))
    palette = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    index = values()
    content = one_tiff(index, photometric="palette", colormap=palette * 257)
    yield "tiff-palette8", Animal(content, palette.T.astype(np.uint8)[index])
    for bits in (1, 2, 4):
        few = values(below=2**bits)
        full = (few * (255 // (2**bits - 1))).astype(np.uint8)
        for colour, fill in itertools.product((0, 1), (1, 2)):
            packed = b"".join(imagecodecs.packints_encode(row, bits) for row in few)
            if fill == 2:
                packed = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed)
            content = plain_tiff(packed, bits=(bits,), photometric=colour, tags={266: fill})
            yield f"tiff-{bits}-bits-colour-{colour}-fill-{fill}", Animal(content, full if colour else 255 - full)
    twelve = values(kind=np.uint16, below=4096)[:, :10]
    packed = b"".join(imagecodecs.packints_encode(row, 12) for row in twelve)
    truth = np.round(twelve * (65535 / 4095)).astype(np.uint16)
    yield "tiff-12-bits", Animal(plain_tiff(packed, bits=(12,), width=10), truth)
    ink = values(4)
    yield "tiff-cmyk", Animal(one_tiff(ink, photometric="separated"), reader=None, truth=_as_pillow_converts(ink))
    without_lengths = plain_tiff(values().tobytes()).replace(
        struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 280, 4, 1)
    )
    yield "tiff-without-lengths", Animal(without_lengths, values(), None)
    # Two pages: a small one before the photograph, and other orders.
    small, large = values()[:4, :4], values(seed=2)
    plain = {"photometric": "minisblack"}
    yield (
        "tiff-thumbnail-first",
        Animal(
            tifffile_bytes((small, {**plain, "subfiletype": 1}), (large, plain)), large, partial(with_tifffile, page=1)
        ),
    )
    yield "tiff-thumbnail-last", Animal(tifffile_bytes((large, plain), (small, plain)), large, with_tifffile)
    yield "tiff-equal-pages", Animal(tifffile_bytes((large, plain), (255 - large, plain)), large, with_tifffile)
    yield (
        "tiff-unknown-thumbnail",
        Animal(
            tifffile_bytes((small.astype(np.float32), plain), (large, plain), byteorder=">"),
            large,
            partial(with_tifffile, page=1),
        ),
    )
    yield (
        "tiff-large-mask-page",
        Animal(
            tifffile_bytes((large, plain), (np.zeros((40, 40), bool), {**plain, "subfiletype": 4})),
            large,
            with_tifffile,
        ),
    )
    yield "tiff-wide-tags", Animal(plain_tiff(large.tobytes(), order=">", wide=True), large, with_tifffile)
    smooth = smooth_values(3)
    for colour in ("ycbcr", "rgb"):
        content = one_tiff(smooth, photometric=colour, compression="jpeg", compressionargs={"level": 95})
        # Two builds of libjpeg-turbo in two libraries convert colours alike to a level.
        yield f"tiff-jpeg-{colour}", Animal(content, None, with_tifffile, tolerance=1)
    content = one_tiff(smooth[..., 0], photometric="minisblack", compression="jpeg")
    yield "tiff-jpeg-grey", Animal(content, None, with_tifffile)


def _as_pillow_converts(ink: np.ndarray) -> np.ndarray:
    """Return CMYK in RGB without a colour profile: (255 - ink) x (255 - black) / 255, rounded as Pillow does."""
    light = 255 - ink[..., 3:].astype(int)
    product = ink[..., :3].astype(int) * light + 128
    return np.clip(light - ((product >> 8) + product >> 8), 0, 255).astype(np.uint8)


def plain_tiff(
    data: bytes,
    *,
    bits: tuple[int, ...] = (8,),
    width: int = WIDTH,
    photometric: int = 1,
    compression: int = 1,
    tags: dict[int, int] | None = None,
    order: str = "<",
    wide: bool = False,
    says_bytes: int | None = None,
) -> bytes:
    """Return an uncompressed TIFF of one strip, made by hand, since no library writes these."""
    entries = {256: width, 257: HEIGHT, 258: bits[0], 259: compression, 262: photometric, 273: 8, 277: len(bits)}
    entries |= {278: HEIGHT, 279: len(data) if says_bytes is None else says_bytes, 274: 1} | (tags or {})
    kind, form = (4, "I") if wide else (3, "H")
    body = b""
    for tag in sorted(entries):
        long = tag in (273, 279)
        value = struct.pack(order + ("I" if long else form), entries[tag]).ljust(4, b"\0")
        body += struct.pack(order + "HHI", tag, 4 if long else kind, 1) + value
    data += bytes(len(data) % 2)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return start + data + struct.pack(order + "H", len(entries)) + body + bytes(4)


def refused_tiffs() -> Iterator[tuple[str, Animal]]:
    grey, colours = values(), values(3)
    range_unknown = "pixels, whose range is unknown; scale them and save as 8 or 16 bit"
    plain = {"photometric": "minisblack"}
    cases = {
        "float": (one_tiff(grey.astype(np.float32), **plain), f"floating-point {range_unknown}"),
        "double": (one_tiff(grey.astype(np.float64), **plain), f"floating-point {range_unknown}"),
        "half-float": (one_tiff(grey.astype(np.float16), **plain), f"floating-point {range_unknown}"),
        "signed8": (one_tiff(grey.astype(np.int8), **plain), f"signed or 32-bit integer {range_unknown}"),
        "signed16": (one_tiff(grey.astype(np.int16), **plain), f"signed or 32-bit integer {range_unknown}"),
        "32-bits": (one_tiff(grey.astype(np.uint32), **plain), f"32-bit integer {range_unknown}"),
        "complex": (one_tiff(grey.astype(np.complex64), **plain), f"complex {range_unknown}"),
        "24-bits": (plain_tiff(bytes(3 * HEIGHT * WIDTH), bits=(24,)), "TIFF with 24 bits a sample"),
        "10-bits": (plain_tiff(bytes(2 * HEIGHT * WIDTH), bits=(10,)), "TIFF with 10 bits a sample"),
        "lab": (one_tiff(colours, photometric="cielab"), "TIFF with CIELab colours"),
        "cfa": (one_tiff(grey, photometric="cfa"), "TIFF with colour filter array colours"),
        "unknown-colours": (plain_tiff(grey.tobytes(), photometric=77), r"TIFF with unknown \(77\) colours"),
        "five-samples": (
            one_tiff(values(5), photometric="rgb", extrasamples=["unassalpha", "unspecified"]),
            r"extra samples \(2, 0\)",
        ),
        "two-samples": (plain_tiff(bytes(2 * HEIGHT * WIDTH), bits=(8, 8)), "2 samples a pixel of black-is-zero"),
        "grey-16-alpha": (
            one_tiff(values(2, kind=np.uint16), planarconfig="contig", extrasamples=["unassalpha"], **plain),
            "16 bits a sample of black-is-zero colours and extra samples",
        ),
        "cmyk-16": (one_tiff(values(4, kind=np.uint16), photometric="separated"), "16 bits a sample of CMYK"),
        "planes-16": (
            one_tiff(values(kind=np.uint16)[None].repeat(3, 0), photometric="rgb", planarconfig="separate"),
            r"TIFF with planes \(planar configuration 2\) of 16 bits",
        ),
        "fax": (saved(Image.fromarray(grey > 127), "TIFF", compression="group4"), "TIFF with compression 4; save"),
        "old-jpeg": (plain_tiff(grey.tobytes(), compression=6), "TIFF with compression 6; save"),
        "float-predictor": (
            plain_tiff(grey.tobytes(), compression=8, tags={317: 3}),
            "Deflate compression and predictor 3 of 8 bits",
        ),
        "fill-order-16": (
            plain_tiff(bytes(2 * HEIGHT * WIDTH), bits=(16,), tags={266: 2}),
            "TIFF with fill order 2 of 16 bits",
        ),
        "short-strip": (plain_tiff(grey.tobytes(), says_bytes=9), r"strip or tile 0 has 9 of 143 bytes"),
        "missing-strip": (plain_tiff(grey.tobytes(), tags={278: 5}), "1 offsets and 1 lengths of its 3 strips"),
        "strip-beyond-the-end": (plain_tiff(grey.tobytes(), tags={273: 60000}), "truncated after"),
        "no-pages": (b"II*\0" + bytes(12), "TIFF without a page"),
        "circle": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0\0\0", "TIFF pages that go in a circle"),
        "no-width": (plain_tiff(grey.tobytes(), tags={256: 0}), "13 x 0 px .* no pixel"),
    }
    few = grey[:5].tobytes()
    codecs = {
        "deflate": (8, zlib.compress),
        "lzw": (5, imagecodecs.lzw_encode),
        "packbits": (32773, imagecodecs.packbits_encode),
    }
    for name, (number, encode) in codecs.items():
        cases[f"too-few-rows-{name}"] = (plain_tiff(encode(few), compression=number), "damaged|truncated")
    lossy = bytearray(one_tiff(smooth_values(3, size=64), photometric="ycbcr", compression="jpeg"))
    middle = lossy.index(b"\xff\xda") + 300
    lossy[middle : middle + 300] = bytes(300)
    cases["damaged-jpeg"] = (bytes(lossy), "damaged")
    for name, (content, refused) in cases.items():
        yield f"tiff-refused-{name}", Animal(content, refused=refused)


# --- PNG ---------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: list[bytes], bits: int, colour_type: int, *chunks: tuple[bytes, bytes], width: int = WIDTH) -> bytes:
    """Return a PNG made by hand, without filters."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def pngs() -> Iterator[tuple[str, Animal]]:
    for kind in (np.uint8, np.uint16):
        for channels in (1, 2, 3, 4):
            pixels = values(*([channels] if channels > 1 else []), kind=kind)
            content = imagecodecs.png_encode(pixels)
            yield f"png-{channels}-{np.dtype(kind).name}", Animal(content, pixels, imagecodecs.png_decode)
    for bits in (1, 2, 4):
        few = values(below=2**bits)
        rows = [imagecodecs.packints_encode(row, bits) for row in few]
        full = (few * (255 // (2**bits - 1))).astype(np.uint8)
        yield f"png-grey-{bits}-bits", Animal(png(rows, bits, 0), full, with_opencv)
        key = int(few[0, 0])
        clear = np.where(few == key, 0, 255).astype(np.uint8)
        content = png(rows, bits, 0, (b"tRNS", struct.pack(">H", key)))
        yield f"png-grey-{bits}-bits-key", Animal(content, np.stack([full, clear], axis=2))
    palette = np.random.default_rng(3).integers(0, 256, (16, 3)).astype(np.uint8)
    for bits in (1, 2, 4, 8):
        few = values(below=min(16, 2**bits))
        rows = [imagecodecs.packints_encode(row, bits) if bits < 8 else row.tobytes() for row in few]
        colours = palette[: 2**bits]
        content = png(rows, bits, 3, (b"PLTE", colours.tobytes()))
        yield f"png-palette-{bits}-bits", Animal(content, colours[few], with_opencv)
        alpha = np.array([0, 128, 255, 7] * 4, np.uint8)[: 2**bits]
        content = png(rows, bits, 3, (b"PLTE", colours.tobytes()), (b"tRNS", alpha.tobytes()))
        truth = np.dstack([colours[few], alpha[few]])
        yield f"png-palette-{bits}-bits-alpha", Animal(content, truth, with_opencv)
    for kind, bits in ((np.uint8, 8), (np.uint16, 16)):
        full = np.iinfo(kind).max
        for channels, colour_type in ((1, 0), (3, 2)):
            pixels = values(channels, kind=kind)
            rows = [row.astype(f">u{bits // 8}").tobytes() for row in pixels]
            key = pixels[2, 3]
            content = png(rows, bits, colour_type, (b"tRNS", key.astype(">u2").tobytes()))
            clear = np.where((pixels == key).all(axis=2), 0, full).astype(kind)
            truth = np.dstack([pixels.repeat(3 // channels, axis=2), clear])
            yield f"png-{channels}-{bits}-bits-key", Animal(content, truth)
    for channels in (1, 3):
        pixels = values(*([3] if channels == 3 else []))
        content = cv2.imencode(".png", pixels[..., ::-1] if channels == 3 else pixels)[1].tobytes()
        yield f"png-opencv-{channels}", Animal(content, pixels, with_opencv)
    for turn in (0, 2, 3, 5, 6, 7, 8, 9):
        pixels = values(3)
        yield f"png-turned-{turn}", Animal(saved(pixels, "PNG", exif=exif(turn)), pixels, with_opencv, orientation=turn)
    frames = [Image.fromarray(values(3, seed=seed)) for seed in (4, 5)]
    yield "png-animated", Animal(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), values(3, seed=4))
    content = saved(values(3), "PNG")
    yield "png-cut-after-the-pixels", Animal(content[:-12], refused="truncated after")
    yield (
        "png-wrong-sum",
        Animal(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:], refused="check sum of the PNG chunk 'IDAT'"),
    )
    too_few = png([bytes(WIDTH)] * 3, 8, 0)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0))
    yield "png-too-few-rows", Animal(too_few[:8] + header + too_few[33:], refused="truncated after")
    interlaced = png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 1))
    yield "png-too-few-passes", Animal(too_few[:8] + interlaced + too_few[33:], refused="truncated after")
    for name, size in (("long", (1, 200_000_000)), ("large", (60_000, 50_000)), ("none", (0, 9))):
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, 0, 0, 0, 0))
        yield (
            f"png-{name}",
            Animal(
                too_few[:8] + header + too_few[33:],
                refused=r"above the limit of .* raise SUPERSIMPLENET_MAX|no pixel|damaged",
            ),
        )


# --- BMP ---------------------------------------------------------------------------------------------------------


def bmp(
    rows: list[bytes],
    bits: int,
    *,
    header_bytes: int = 40,
    compression: int = 0,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    top_down: bool = False,
) -> bytes:
    """Return a BMP made by hand; rows come from the top."""
    ordered = rows if top_down else rows[::-1]
    data = b"".join(row + bytes(-len(row) % 4) for row in ordered)
    height = -len(rows) if top_down else len(rows)
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, WIDTH, height, 1, bits)
    else:
        colours = len(palette) // 4
        header = struct.pack(
            "<IiiHHIIiiII", header_bytes, WIDTH, height, 1, bits, compression, len(data), 2835, 2835, colours, 0
        )
        fields = b"".join(struct.pack("<I", mask) for mask in masks)
        header += fields if header_bytes == 40 else fields.ljust(header_bytes - 40, b"\0")
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def bmps() -> Iterator[tuple[str, Animal]]:
    pixels, four = values(3), values(4)
    rows = [row[:, ::-1].tobytes() for row in pixels]
    for size in (12, 40, 108, 124):
        reader = with_opencv if size > 12 else None  # OpenCV reads the smallest header as grey
        yield f"bmp-24-bits-header-{size}", Animal(bmp(rows, 24, header_bytes=size), pixels, reader)
    yield "bmp-24-bits-top-down", Animal(bmp(rows, 24, top_down=True), pixels, with_opencv)
    bgra = [row[:, [2, 1, 0, 3]].tobytes() for row in four]
    yield "bmp-32-bits", Animal(bmp(bgra, 32), four[..., :3])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    for size in (108, 124):
        content = bmp(bgra, 32, header_bytes=size, compression=3, masks=masks)
        yield f"bmp-alpha-header-{size}", Animal(content, four)
        clear = [row[:, [2, 1, 0, 3]].tobytes() for row in four * np.array([1, 1, 1, 0], np.uint8)]
        content = bmp(clear, 32, header_bytes=size, compression=3, masks=masks)
        yield f"bmp-alpha-all-zero-header-{size}", Animal(content, four[..., :3])
    for name, masks, parts in (("555", (0x7C00, 0x3E0, 0x1F), (5, 5, 5)), ("565", (0xF800, 0x7E0, 0x1F), (5, 6, 5))):
        few = np.stack([values(below=2**bits, seed=i) for i, bits in enumerate(parts)], axis=2).astype(np.uint16)
        packed = few[..., 0] << (parts[1] + parts[2]) | few[..., 1] << parts[2] | few[..., 2]
        truth = (few * 255 // (2 ** np.array(parts) - 1)).astype(np.uint8)
        content = bmp([row.astype("<u2").tobytes() for row in packed], 16, compression=3, masks=masks)
        # Readers extend 5 bits to 8 by shifting or by dividing.
        yield f"bmp-{name}", Animal(content, truth, with_opencv, tolerance=7)
    palette = np.random.default_rng(6).integers(0, 256, (256, 4)).astype(np.uint8)
    for bits in (1, 4, 8):
        few = values(below=2**bits)
        packed = [imagecodecs.packints_encode(row, bits) if bits < 8 else row.tobytes() for row in few]
        content = bmp(packed, bits, palette=palette[: 2**bits].tobytes())
        yield f"bmp-palette-{bits}-bits", Animal(content, palette[few][..., 2::-1], with_opencv)
    few = values()
    runs = [b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in few.tolist()]
    data = b"".join(runs[::-1]) + b"\0\1"
    content = bmp([data], 8, compression=1, palette=palette.tobytes())
    content = content[:22] + struct.pack("<i", HEIGHT) + content[26:]
    yield "bmp-run-lengths", Animal(content, palette[few][..., 2::-1], with_opencv)
    yield "bmp-cut", Animal(bmp(rows, 24)[:-9], refused="truncated after")
    yield "bmp-cut-runs", Animal(content[:-60], refused="truncated after|damaged")


# --- JPEG --------------------------------------------------------------------------------------------------------


def smooth_values(channels: int = 1, *, size: int = 24, seed: int = 7) -> np.ndarray:
    """Return values that compress well: (size, size - 3) or with channels."""
    small = np.random.default_rng(seed).integers(0, 256, (size // 6, size // 6, channels), dtype=np.uint8)
    return cv2.resize(small, (size - 3, size), interpolation=cv2.INTER_CUBIC)


def jpegs() -> Iterator[tuple[str, Animal]]:
    grey, colours = smooth_values(), smooth_values(3)
    for progressive, restart in itertools.product((False, True), (0, 1)):
        options = {"progressive": progressive, "restart_marker_rows": restart}
        yield (
            f"jpeg-grey-{progressive}-{restart}",
            Animal(saved(grey, "JPEG", **options), None, imagecodecs.jpeg8_decode),
        )
        for sampling in (0, 1, 2):
            content = saved(colours, "JPEG", subsampling=sampling, **options)
            # Two builds of libjpeg-turbo convert colours alike to a level.
            yield (
                f"jpeg-colour-{sampling}-{progressive}-{restart}",
                Animal(content, None, imagecodecs.jpeg8_decode, tolerance=1),
            )
    yield "jpeg-rgb", Animal(saved(colours, "JPEG", keep_rgb=True), None, imagecodecs.jpeg8_decode)
    for turn in range(10):
        content = saved(grey, "JPEG", exif=exif(turn))
        yield f"jpeg-turned-{turn}", Animal(content, None, imagecodecs.jpeg8_decode, orientation=turn)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    content = saved(grey, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    yield (
        "jpeg-turned-by-xmp",
        Animal(content[:2] + segment + content[2:], None, imagecodecs.jpeg8_decode, orientation=6),
    )
    yield "jpeg-lossless", Animal(imagecodecs.ljpeg_encode(grey), grey)
    yield (
        "jpeg-lossless-colour",
        Animal(imagecodecs.jpeg_encode(colours, lossless=True), None, imagecodecs.jpeg_decode, tolerance=1),
    )
    yield "jpeg-opencv", Animal(cv2.imencode(".jpg", colours)[1].tobytes(), None, imagecodecs.jpeg8_decode, tolerance=1)
    yield (
        "jpeg-of-two",
        Animal(
            saved(Image.fromarray(colours), "MPO", save_all=True, append_images=[Image.fromarray(255 - colours)]),
            None,
            imagecodecs.jpeg8_decode,
            tolerance=1,
        ),
    )
    yield "jpeg-with-bytes-after-it", Animal(content + bytes(99), None, imagecodecs.jpeg8_decode)
    ink = Image.frombytes("CMYK", (21, 24), smooth_values(4).tobytes())
    content = saved(ink, "JPEG")
    truth = _as_pillow_converts(255 - imagecodecs.jpeg8_decode(content, colorspace="CMYK", outcolorspace="CMYK"))
    yield "jpeg-cmyk", Animal(content, truth)
    large = saved(smooth_values(3, size=96), "JPEG")
    start = large.index(b"\xff\xda") + 14
    cut = start + (len(large) - start) // 2
    cases = {
        "cut": (large[:cut], "truncated after"),
        "cut-and-closed": (large[:cut] + b"\xff\xd9", r"damaged \(Corrupt JPEG data: premature end of data segment\)"),
        "bytes-lost": (large[:cut] + large[cut + 200 :], r"damaged \(Corrupt JPEG data"),
        "bytes-zero": (large[:cut] + bytes(400) + large[cut + 400 :], r"damaged \(Corrupt JPEG data"),
        "header-only": (large[: start - 14], "truncated after"),
        "12-bits": (imagecodecs.jpeg_encode(smooth_values().astype(np.uint16) * 16, bitspersample=12), "12 bits"),
        "arithmetic": (_with_byte(large, large.index(b"\xff\xc0") + 1, 0xC9), "JPEG that is hierarchical or has arith"),
        "many-scans": (many_scans(), "JPEG of .* or more scans of .* raise SUPERSIMPLENET_MAX_SCAN_PIXELS"),
        "two-channels": (_with_byte(large, large.index(b"\xff\xc0") + 9, 2), "JPEG with 2 channels"),
    }
    for name, (content, refused) in cases.items():
        yield f"jpeg-refused-{name}", Animal(content, refused=refused)


def _with_byte(content: bytes, at: int, value: int) -> bytes:
    return content[:at] + bytes([value]) + content[at + 1 :]


def many_scans() -> bytes:
    """A progressive JPEG that repeats its last scan; each would be decoded over all of its pixels."""
    content = saved(np.zeros((2048, 2048), np.uint8), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + b"\xff\xd9"


# --- GIF, WebP, JPEG 2000, netpbm --------------------------------------------------------------------------------


def gifs_and_webps() -> Iterator[tuple[str, Animal]]:
    index = values(below=7)
    palette = np.random.default_rng(8).integers(0, 256, (7, 3)).astype(np.uint8)
    picture = Image.fromarray(index).convert("P")
    picture.putpalette(palette.tobytes())
    yield "gif", Animal(saved(picture, "GIF"), palette[index], imagecodecs.gif_decode)
    clear = np.where(index == 3, 0, 255).astype(np.uint8)
    yield "gif-transparent", Animal(saved(picture, "GIF", transparency=3), np.dstack([palette[index], clear]))
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH), level, np.uint8)) for level in (50, 200)]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        yield f"{kind.lower()}-animated", Animal(content, np.full((HEIGHT, WIDTH), 50, np.uint8))
    short = bytearray(saved(picture.crop((0, 0, WIDTH, 3)), "GIF"))
    short[8] = short[short.index(b"," + bytes(4)) + 7] = HEIGHT
    yield "gif-too-few-rows", Animal(bytes(short), refused="truncated after|damaged")
    content = saved(Image.fromarray(values()), "GIF")
    yield "gif-cut", Animal(content[: len(content) * 2 // 3], refused="truncated after|damaged")
    for channels in (3, 4):
        pixels = values(channels)
        content = imagecodecs.webp_encode(pixels, lossless=True, level=0)
        truth = imagecodecs.webp_decode(content)
        yield f"webp-lossless-{channels}", Animal(content, truth, imagecodecs.webp_decode)
    smooth = smooth_values(3)
    content = imagecodecs.webp_encode(smooth, level=80)
    yield "webp-lossy", Animal(content, None, imagecodecs.webp_decode)
    yield "webp-cut", Animal(content[:-40], refused="truncated after|damaged")
    for turn in (1, 3, 6, 9):
        content = saved(values(3), "WEBP", lossless=True, exif=exif(turn))
        yield f"webp-turned-{turn}", Animal(content, values(3), imagecodecs.webp_decode, orientation=turn)
    huge = (
        b"RIFF" + struct.pack("<I", 26) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x7f\0" * 2 + bytes(4)
    )
    yield "webp-of-34-bytes", Animal(huge[:34], refused="32,768 x 32,768 px .* raise SUPERSIMPLENET_MAX_PIXELS")


def jpegs_2000() -> Iterator[tuple[str, Animal]]:
    for codec in ("jp2", "j2k"):
        for name, pixels in (("grey", values()), ("rgb", values(3)), ("rgba", values(4))):
            content = imagecodecs.jpeg2k_encode(pixels, codecformat=codec, reversible=True, level=0)
            yield f"{codec}-{name}", Animal(content, pixels, imagecodecs.jpeg2k_decode)
        pixels = values(kind=np.uint16)
        content = imagecodecs.jpeg2k_encode(pixels, codecformat=codec, reversible=True, level=0)
        yield f"{codec}-grey16", Animal(content, pixels, imagecodecs.jpeg2k_decode)
    for bits in (1, 4, 10, 12):
        few = values(kind=np.uint16 if bits > 8 else np.uint8, below=2**bits)
        content = imagecodecs.jpeg2k_encode(few, codecformat="jp2", reversible=True, level=0, bitspersample=bits)
        full, highest = np.iinfo(few.dtype).max, 2**bits - 1
        truth = ((2 * few.astype(np.uint64) * full + highest) // (2 * highest)).astype(few.dtype)
        yield f"jp2-{bits}-bits", Animal(content, truth)
    content = imagecodecs.jpeg2k_encode(values(kind=np.int16), codecformat="jp2", reversible=True, level=0)
    yield "jp2-signed", Animal(content, refused="JPEG 2000 with signed")
    content = imagecodecs.jpeg2k_encode(smooth_values(3, size=96), codecformat="jp2", reversible=True, level=0)
    yield "jp2-cut", Animal(content[: len(content) // 2], refused="truncated after|damaged")


def netpbms() -> Iterator[tuple[str, Animal]]:
    def header(kind: int, highest: int | None) -> bytes:
        return b"P%d\n# made by hand\n%d %d\n" % (kind, WIDTH, HEIGHT) + (b"%d\n" % highest if highest else b"")

    for highest in (1, 100, 255, 1023, 65535):
        kind, full = (np.uint8, 255) if highest < 256 else (np.uint16, 65535)
        for channels, plain, raw in ((1, 2, 5), (3, 3, 6)):
            stored = values(channels, kind=np.uint16, below=highest + 1)
            truth = ((2 * stored.astype(np.uint64) * full + highest) // (2 * highest)).astype(kind)
            content = header(raw, highest) + stored.astype(np.uint8 if highest < 256 else ">u2").tobytes()
            reader = with_opencv if highest in (255, 65535) else None
            yield f"netpbm-{raw}-{highest}", Animal(content, truth.squeeze(), reader)
            words = b"".join(b"%d\n" % value for value in stored.ravel().tolist())
            yield f"netpbm-{plain}-{highest}", Animal(header(plain, highest) + words, truth.squeeze())
    bits = values(below=2)
    rows = b"".join(np.packbits(row).tobytes() for row in bits)
    yield "netpbm-4", Animal(header(4, None) + rows, 255 - bits * 255, with_opencv)
    digits = b"".join(b"%d" % bit for bit in bits.ravel().tolist())
    yield "netpbm-1", Animal(header(1, None) + digits, 255 - bits * 255)
    raw = header(6, 255) + values(3).tobytes()
    yield "netpbm-cut", Animal(raw[:-1], refused="truncated after")
    yield "netpbm-cut-words", Animal(header(2, 255) + b"1 2 3\n", refused="truncated after")
    yield "netpbm-cut-bits", Animal(header(1, None) + b"0101", refused="truncated after")
    yield "netpbm-no-words", Animal(header(2, 255) + b"1 2 x\n" * 200, refused="damaged")
    yield "netpbm-too-bright", Animal(header(5, 9) + values().tobytes(), refused="above the largest, 9")
    yield "netpbm-no-height", Animal(b"P5\n12\n", refused="a header without width, height and maximum")
