"""Targets of the campaign that users bring: pictures, archives, tables of images, lists, labels, downloads."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import hostile
import hostile_archives
import numpy as np
import zoo
from fuzz_case import Case, Files, Target, damaged, perhaps
from PIL import Image

SIZE = (40, 60)  # height and width of the pictures that have annotations
_ROOT = re.compile(rb"""(^|\n)[\s"]*[/\\.]+[\s"]*([\r\n]|$)""")
_NAMES = ("0.png", "1.png", "sub/2.png", "3.tif")


@lru_cache(maxsize=64)
def picture(seed: int = 0, size: tuple[int, int] = (9, 11)) -> bytes:
    return zoo.saved(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8), "PNG")


# --- pictures -----------------------------------------------------------------------------------------------------


def make_picture(draw: random.Random) -> Files:
    name, animal = draw.choice(list(zoo.zoo().items()))
    way = draw.random()
    if way < 0.1:
        return {"refused.png" if animal.refused else "part.png": animal.content}
    if way < 0.3:
        return {"cut.png": animal.content[: draw.randrange(1, len(animal.content))], "whole.png": animal.content}
    if way < 0.32:
        return {"refused.tif": zoo.plain_tiff(zoo.values().tobytes(), says_bytes=draw.randrange(zoo.values().size))}
    if way < 0.4:
        return {"part.tif": _tagged_tiff(draw)}
    if way < 0.45:
        return {f"page-{draw.randrange(3)}.tif": perhaps(zoo.zoo()["tiff-equal-pages"].content, draw)}
    if way < 0.5:
        return {"part.webp": _webp(draw)}
    content = damaged(animal.content, draw)
    if name.startswith("png") and draw.random() < 0.6:
        content = _with_check_sums(content)
    return {"part.png": content}


def _tagged_tiff(draw: random.Random) -> bytes:
    """A TIFF whose tags are drawn: nearly every combination is one that no program writes."""
    known = [254, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 347]
    values = [0, 1, 2, 3, 5, 6, 7, 8, 9, 16, 32, 143, 32773, 65535]
    tags = {tag: draw.choice(values) for tag in draw.sample(known, draw.choice((0, 1, 1, 2, 3)))}
    colour, bits = draw.choice((0, 1, 1, 2, 3, 5, 6)), draw.choice((1, 4, 8, 8, 12, 16))
    data = draw.randbytes(zoo.HEIGHT * zoo.WIDTH * 4)
    return zoo.plain_tiff(
        data, bits=(bits,), photometric=colour, tags=tags, order=draw.choice("<>"), wide=draw.random() < 0.2
    )


def _webp(draw: random.Random) -> bytes:
    """A WebP whose first chunk states a size, and not much more."""
    sides = [draw.choice((1, 900, 16383, 16383)) for _ in range(2)]
    kind = draw.choice((b"VP8X", b"VP8L", b"VP8 ", b"ALPH"))
    data = {
        b"VP8X": bytes(4) + b"".join((side - 1).to_bytes(3, "little") for side in sides),
        b"VP8L": b"\x2f" + ((sides[0] - 1) | (sides[1] - 1) << 14).to_bytes(4, "little") + bytes(9),
        b"VP8 ": b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", *sides),
    }.get(kind, bytes(10))
    content = b"WEBP" + kind + struct.pack("<I", len(data)) + data + draw.choice((b"", draw.randbytes(30)))
    return (b"RIFF" + struct.pack("<I", len(content)) + content)[: draw.choice((29, 500))]


def _with_check_sums(content: bytes) -> bytes:
    """A PNG whose check sums are right again, so that the damage reaches the decoder."""
    mended, at = bytearray(content), 8
    while at + 12 <= len(mended):
        end = at + 8 + struct.unpack_from(">I", mended, at)[0]
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def read_picture(case: Case) -> None:
    from supersimplenet.preprocessing.decoding import EncodedImage, image_size
    from supersimplenet.preprocessing.images import read_any, read_image, read_mask, read_pillow, read_with_facts
    from supersimplenet.preprocessing.reading import ReadConfig

    read = {}
    for path in sorted(case.here.iterdir()):
        page = re.match(r"page-(\d)", path.name)
        reading = ReadConfig(page=int(page[1]) if page else None)
        options = {"reading": reading}
        size = case.attempt(image_size, path, page=reading.page)
        pixels = read[path.stem] = case.attempt(read_image, path, **options)
        if pixels is None:
            assert not read_or_none(case, path.read_bytes(), path, **options), "the bytes are read, the file is not"
            continue
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*size, 3)
        encoded = EncodedImage(path.name, path.read_bytes)
        np.testing.assert_array_equal(read_image(encoded, **options), pixels)
        case.attempt(read_image, path, reading=ReadConfig(bit_depth=12))
        assert case.attempt(read_mask, path, image_size_px=size) is not None or page
        if page:
            continue
        small, own, facts = read_with_facts(path, size_px=(5, 7))
        assert (small.shape, own, facts.size_px) == ((5, 7, 3), size, size)
        assert case.attempt(read_mask, path, image_size_px=(1, 1), any_value=True) is None or size == (1, 1)
        np.testing.assert_array_equal(read_any(encoded)[0], pixels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, before the package is asked
                image = Image.open(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # Pillow itself does not open it
        with image:
            np.testing.assert_array_equal(read_pillow(image), pixels)
    assert read.get("refused") is None, "what is not known to be read rightly was read"
    if "cut" in read and read["cut"] is not None:
        assert not (case.here / "cut.png").read_bytes().startswith(b"\x89PNG"), "a PNG without its end was read"
        np.testing.assert_array_equal(read["cut"], read["whole"], err_msg="a cut file gives other pixels")


def read_or_none(case: Case, content: bytes, path: Path, **options: Any) -> bool:
    from supersimplenet.preprocessing.decoding import EncodedImage
    from supersimplenet.preprocessing.images import read_image

    return case.attempt(read_image, EncodedImage(path.name, lambda: content), **options) is not None


# --- archives and tables of images --------------------------------------------------------------------------------


def make_archive(draw: random.Random) -> Files:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if draw.random() < 0.25:
        images: list[Any] = [picture(seed) for seed in range(draw.choice((0, 1, 5)))]
        odd = draw.choice(([None], ["text"], [7], [b""], [{"bytes": picture(), "path": "a.png"}], [b"x" * 5000]))
        images = images if draw.random() < 0.6 else odd * draw.choice((1, 3))
        columns: dict[str, Any] = {draw.choice(("image", "image", "image", "picture")): images}
        if draw.random() < 0.5:
            columns["path"] = [f"line/{number}.png" for number in range(len(images))]
        content = io.BytesIO()
        compression = draw.choice(("none", "zstd"))
        pq.write_table(pa.table(columns), content, row_group_size=2, write_page_checksum=True, compression=compression)
        return {"a.parquet": perhaps(content.getvalue(), draw)}
    plain = hostile_archives.tar_of(
        {f"line/{number}.png": picture(number) for number in range(3)},
        format_=draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
    )
    tar = _odd_tar(draw) if draw.random() < 0.3 else plain
    kind, pack = draw.choice([("", bytes), *((f".{kind}", pack) for kind, pack in _packers().items())])
    way = draw.random()
    if way < 0.35:
        return {f"lossy.tar{kind}": pack(draw.choice(hostile_archives.TAR_LOSSES)(plain, draw))}
    if way < 0.6:
        return {f"any.tar{kind}": pack(hostile_archives.with_checked_headers(tar, draw))}
    if way < 0.8:
        return {f"any.tar{kind}": pack(damaged(tar, draw))}
    return {f"any.tar{kind}": perhaps(pack(tar), draw)}


def _packers() -> dict[str, Any]:
    import gzip

    return {**hostile_archives.COMPRESSIONS, "gz": lambda content: gzip.compress(content, 1, mtime=0)}


def _odd_tar(draw: random.Random) -> bytes:
    """Links to and fro, links out of the archive, pipes, hidden files, long names, files of no picture."""
    kinds = (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    names = ("a.png", "b.png", "day/a.png", "blob", "._a.png", "x.heic", "é" * 60 + ".png", "../a.png", "n\nl.png")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=draw.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as file:
        for _ in range(draw.randint(1, 6)):
            member = tarfile.TarInfo(draw.choice(names))
            member.type, member.linkname = draw.choice(kinds), draw.choice((*names, "/etc/hostname.png", "blob"))
            data = draw.choice((picture(), b"", b"x" * 5000, b"no picture")) if member.isreg() else b""
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    tar = content.getvalue()
    if draw.random() < 0.2:  # GNU tar's form of a file with holes
        header = bytearray(tarfile.TarInfo("hole.png").tobuf(tarfile.GNU_FORMAT))
        header[156:157], header[124:136] = tarfile.GNUTYPE_SPARSE, b"%011o\0" % 512
        header[386:410], header[483:495] = b"%011o\0%011o\0" % (0, 512), b"%011o\0" % draw.choice((512, 5 << 20))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        tar = bytes(header) + bytes(512) + tar
    return tar


def read_archive(case: Case) -> None:
    from supersimplenet.prediction.inputs import find_inputs
    from supersimplenet.preprocessing.images import read_image
    from supersimplenet.preprocessing.listing import counting

    (path,) = case.here.iterdir()
    whole = {picture(seed) for seed in range(5)}

    def images() -> int:
        number = 0
        with counting() as left_out:
            for image in find_inputs([str(path)]):
                number += 1
                content = image.read() if number % 2 else None
                if content in whole:
                    case.attempt(read_image, image)
        left_out.describe()
        return number

    found = case.attempt(lambda: [images()])
    assert found is None or not path.name.startswith("lossy"), f"images were lost: {found} are left"


def make_list(draw: random.Random) -> Files:
    lines = ["0.png", "1.png", "sub\\2.png", '"0.png"', " 1.png ", "sub", "gone.png", "a.tar", "é.png", "x.parquet"]
    text = draw.choice(("\n", "\r\n")).join(draw.sample(lines, draw.randint(1, 6)))
    content = perhaps(text.encode(draw.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252"))), draw)
    if draw.random() < 0.1:
        content = b"0.png\n" + b"x" * (1 << 17) + content
    if draw.random() < 0.1:
        content = b"file://here/gone.png\nmemory://a*.png\nnothing://0.png\n" + content
    files = {name: picture() for name in ("0.png", "1.png", "sub/2.png", "é.png")}
    return files | {"a.tar": hostile_archives.tar_of({"b.png": picture()}), "list.txt": content}


def read_list(case: Case) -> None:
    import fsspec

    from supersimplenet.prediction.inputs import find_inputs
    from supersimplenet.preprocessing.decoding import EncodedImage
    from supersimplenet.preprocessing.images import read_image
    from supersimplenet.utils.text_files import arriving_lines, read_text, separator_of

    path = case.here / "list.txt"
    if _ROOT.search(path.read_bytes().replace(b"\0", b"")):
        return  # the whole disk would be searched, as asked for
    case.attempt(lambda: list(find_inputs(["*.png", "sub"], list_file=path)))
    content = path.read_bytes()
    blocks = [content[at : at + 7] for at in range(0, min(len(content), 700), 7)]
    case.attempt(lambda: list(arriving_lines(blocks, name="list.txt")))
    text = case.attempt(read_text, path)
    if text is not None:
        separator_of(text)
    store, here = fsspec.filesystem("memory"), case.here.as_uri()
    store.pipe("/parts/0.png", content)
    store.pipe("/parts/a.tar", (case.here / "a.tar").read_bytes())
    for urls in (
        [here],
        [f"{here}/*.png"],
        [f"{here}/gone.png"],
        [f"{here}/a.tar"],
        ["memory://parts"],
        [here, "0.png"],
    ):
        for image in case.attempt(lambda urls=urls: list(find_inputs(urls))) or ():
            if isinstance(image, EncodedImage):
                case.attempt(read_image, image)


# --- labels -------------------------------------------------------------------------------------------------------


def make_table(draw: random.Random) -> Files:
    import pyarrow as pa
    import pyarrow.parquet as pq

    head = ["image", "split", "label", "defect", "mask", "group", "pixel_labels_known", "ignore", "mask_any_value"]
    rows = [
        ["0.png", "train", "0", "", "", "a", "", "", ""],
        ["1.png", "TRAIN", "good", "good", "", "a", "true", "sub/2.png", "no"],
        ["sub\\2.png", "test", "Bad", "scratch", "0.png", "'=b", "yes", "", "1"],
        ["3.tif", "test", "1", "'-dent", "", "", "FALSE", "", ""],
    ]
    odd = (
        "",
        "x",
        "gone.png",
        "2",
        "maybe",
        "test",
        "good",
        "0.png",
        "é",
        "a\nb",
        "'",
        "true",
        "\\udc80",
        "x" * 40_000,
    )
    for _ in range(draw.choice((0, 0, 1, 2))):
        draw.choice(rows)[draw.randrange(len(head))] = draw.choice(odd)
    if draw.random() < 0.1:
        head[draw.randrange(len(head))] = draw.choice(("image", "imgae", "", "a\nb"))
    kept = draw.randint(1, len(head)) if draw.random() < 0.2 else len(head)
    table = [row[:kept] for row in [head, *draw.sample(rows, draw.randint(0, len(rows)))]]
    files = dict.fromkeys(_NAMES, b"")
    if draw.random() < 0.3:
        columns = {name: [row[at] for row in table[1:]] for at, name in enumerate(table[0])}
        if draw.random() < 0.2:
            columns[draw.choice(head)] = draw.choice(([1], [None], [2.5], [b"\xff"], [True], [[1]])) * (len(table) - 1)
        content = io.BytesIO()
        pq.write_table(pa.table(columns), content)
        return files | {"parts.parquet": perhaps(content.getvalue(), draw)}
    text = hostile_archives.encoded_table(table, draw)
    return files | {"parts.csv": perhaps((b"sep=;\n" if draw.random() < 0.1 else b"") + text, draw)}


def read_table(case: Case) -> None:
    from supersimplenet.datasets.table import Table

    (path,) = case.here.glob("parts.*")
    samples = case.attempt(Table(path=path).samples)
    for sample in samples or ():
        assert sample.image.is_file()
        assert sample.mask is None or sample.mask.is_file()


def make_annotations(draw: random.Random) -> Files:
    """Annotations of each tool, changed in their values or their bytes; the folder's name is the format."""
    black = zoo.saved(np.zeros((*SIZE, 3), np.uint8), "PNG")
    files = {f"images/{name}": black for name in ("0.png", "1.png", "sub/1.png", "2.png")}
    polygon = [[12, 8], [31, 8], [31, 19], [12.5, 19]]
    form = draw.choice(("coco", "labelme", "yolo", "voc"))
    if form == "coco":
        flat = [value for corner in polygon for value in corner]
        runs = {"size": [40, 60], "counts": draw.choice(("PPYo1", "0" * 9, [500, 1900], [0, 2400]))}
        outlines = [[flat], [], None, runs, [flat, flat[:4]]]
        content: Any = {
            "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(4)],
            "categories": [{"id": 7, "name": "scratch"}],
            "annotations": [
                {"image_id": draw.choice((0, 2, 3)), "category_id": 7, "segmentation": draw.choice(outlines)}
                for _ in range(2)
            ],
        }
    elif form == "labelme":
        kinds = draw.choice((("polygon", polygon), ("circle", polygon[:2]), ("rectangle", polygon[:2]), ("star", [])))
        shapes = [{"label": "scratch", "shape_type": kinds[0], "points": kinds[1]}]
        content = {"shapes": shapes, "imageHeight": 40, "imageWidth": 60}
    if form in ("coco", "labelme"):
        text = json.dumps(content).encode()
        text = hostile.mutated_document(text, draw, "json") if draw.random() < 0.7 else text
        return files | {f"{form}/{draw.choice(('0', '0', '1', 'gone'))}.json": text}
    if form == "voc":
        text = b"<annotation><object><name>scratch</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
        if draw.random() < 0.2:
            text = b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 99 + b'">]>' + text
        return files | {f"voc/{draw.choice(('0', 'sub/1'))}.xml": perhaps(text, draw)}
    box, outline = b"1 0.5 0.5 0.1 0.1\n", b"0 0.2 0.2 0.5 0.2 0.5 0.5\n"
    names = hostile.mutated_document(b"names: {0: dent, 1: scratch}\n", draw, "yaml")
    more = draw.choice(({}, {"data.yaml": names}, {"yolo/classes.txt": perhaps(b"dent\nscratch\n", draw)}))
    return files | {"yolo/0.txt": perhaps(draw.choice((box, outline, outline + b"\n" + box)), draw)} | more


def read_annotations(case: Case) -> None:
    from supersimplenet.datasets.annotations import read_annotations

    images = sorted((case.here / "images").rglob("*.png"))
    (folder,) = (path for path in case.here.iterdir() if path.is_dir() and path.name != "images")
    path = next(folder.iterdir()) if folder.name == "coco" else folder
    found = case.attempt(read_annotations, path, folder.name, images, case.here / "images")
    for region in (region for regions in (found.regions.values() if found else ()) for region in regions):
        assert isinstance(region.is_outline, bool)
        assert all(np.isfinite(polygon).all() for polygon in region.polygons)


def make_split_file(draw: random.Random) -> Files:
    entries: Any = [(number, draw.choice((True, False, 0, 1))) for number in range(draw.choice((0, 3, 40)))]
    entries = [(f"{number:04d}", known) for number, known in entries] if draw.random() < 0.3 else entries
    odd = (None, 1.5, {"a": 1}, [1], [(1, 2)], "text", [(1, True), (1, False)], print, [("x", True)], (1 << 80, True))
    content = pickle.dumps(entries if draw.random() < 0.7 else draw.choice(odd), protocol=draw.randrange(5))
    name = draw.choice(("012", "013", "x", "²", "1" * 30))
    return {"split.pckl": perhaps(content, draw, 0.6), f"{name}.png": b"", "12.png": b""}


def read_split_file(case: Case) -> None:
    from supersimplenet.datasets.split_files import by_number, listed_images, read_pickle

    path = case.here / "split.pckl"
    entries = case.attempt(lambda: [read_pickle(path)])
    if entries is not None:
        case.attempt(listed_images, entries[0], str(path))
    case.attempt(by_number, sorted(case.here.glob("*.png")))


# --- archives of whole datasets, which are written to the disk -----------------------------------------------------


def make_download(draw: random.Random) -> Files:
    if draw.random() < 0.5:
        return {f"set.tar{kind}": perhaps(pack(_odd_tar(draw)), draw) for kind, pack in [draw.choice(_ALL_PACKED)]}
    names = ("a/0.png", "a/1.png", "../../out.png", "/abs.png", "a\\b.png", "c:x", "a/", "a/0.png/x", "a/0.png")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name in draw.sample(names, draw.randint(1, 4)):
            info = zipfile.ZipInfo(name)
            info.external_attr = draw.choice((0, 0, 0o100644, 0o120777, 0o010644, 0o040755)) << 16
            archive.writestr(info, draw.choice((b"", picture(), bytes(200_000), b"../../out")))
    return {"set.zip": perhaps(content.getvalue(), draw)}


_ALL_PACKED = [("", bytes), *((f".{kind}", pack) for kind, pack in _packers().items())]


def read_download(case: Case) -> None:
    from supersimplenet.datasets.download.unpack import unpack

    (path,) = case.here.iterdir()
    folder = case.here / "unpacked"
    case.attempt(lambda: [unpack(path, folder, at_most_bytes=100_000, wanted=lambda place: place.name != "1.png")])
    assert folder.is_dir() == (not case.refused), "a folder that is half unpacked is left"
    for file in folder.rglob("*"):
        assert not file.is_symlink()


TARGETS = {
    "pictures": Target(make_picture, read_picture),
    "archives": Target(make_archive, read_archive),
    "lists": Target(make_list, read_list),
    "tables": Target(make_table, read_table),
    "annotations": Target(make_annotations, read_annotations),
    "splits": Target(make_split_file, read_split_file),
    "downloads": Target(make_download, read_download),
}
