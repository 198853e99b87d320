"""Archives and tables of images: damaged ones are named, links are followed, and no small file becomes a large one."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
from pathlib import Path

import hostile_archives as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from supersimplenet.errors import DataError, ImageError
from supersimplenet.prediction.archives import NO_IMAGE, NOT_FOLLOWED
from supersimplenet.prediction.inputs import find_inputs
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.listing import HIDDEN, IRREGULAR, NO_TARGET, counting


def png(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


FILES = {f"line/{number}.png": png(number) for number in range(4)} | {"line/notes.txt": b"noted"}


def contents(path: Path) -> dict[str, bytes]:
    return {str(image).removeprefix(f"{path}/"): image.read() for image in find_inputs([str(path)])}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def make(path: Path, members: list[tuple[str, bytes, str, bytes]], mode: str = "w") -> Path:
    """An archive of members given as (name, type, target of a link, content)."""
    with tarfile.open(path, mode) as archive:
        for name, kind, target, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def failure_of(path: Path) -> str | None:
    """The message of the error with which an archive or a table ends; any other error is raised."""
    try:
        contents(path)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["plain.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_whole_archives_give_every_image(tmp_path, name, format_):
    tar = hostile.tar_of(FILES | {"line/" + "long/" * 20 + "long" * 10 + ".png": png(9)}, format_=format_)
    tar = hostile.COMPRESSIONS.get(name.rpartition(".")[2], bytes)(tar)
    found = contents(written(tmp_path / name, tar))
    assert [*found.values()] == [*[FILES[f"line/{number}.png"] for number in range(4)], png(9)]


@pytest.mark.parametrize("name", ["plain.tar", "a.tar.gz"])
@pytest.mark.parametrize("damage", hostile.TAR_LOSSES, ids=lambda damage: damage.__name__)
def test_a_damaged_archive_is_an_error_that_names_it(tmp_path, damage, name):
    whole = hostile.tar_of(FILES)
    for seed in range(40):
        tar = damage(whole, random.Random(seed))
        assert tar != whole
        path = written(tmp_path / name, gzip.compress(tar, 1) if name.endswith("gz") else tar)
        with pytest.raises(DataError, match=rf"^{path}: not a readable tar archive \(.*\); pack it again"):
            list(find_inputs([str(path)]))


@pytest.mark.parametrize("kind", hostile.COMPRESSIONS)
def test_compressed_data_that_is_cut_or_wrong_is_an_error(tmp_path, kind):
    whole = hostile.COMPRESSIONS[kind](hostile.tar_of(FILES))
    draw = random.Random(0)
    for _ in range(20):
        path = written(tmp_path / f"a.tar.{kind}", whole[: draw.randrange(len(whole) - 12)])
        with pytest.raises(DataError, match=r"a\.tar\..*: not a readable tar archive"):
            contents(path)
    if kind == "gz":  # its check sum stands at the end, and is looked at
        path = written(tmp_path / "a.tar.gz", whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
        with pytest.raises(DataError, match="CRC check failed"):
            contents(path)


def test_any_damage_gives_images_or_an_error_that_names_the_archive(tmp_path):
    """Whatever is done to an archive or a table: no other exception, and not much memory."""
    tar, table = hostile.tar_of(FILES), io.BytesIO()
    pq.write_table(pa.table({"path": [*FILES], "image": [*FILES.values()]}), table, row_group_size=2)
    cases = [("a.tar", tar), ("a.tar", gzip.compress(tar, 1)), ("a.parquet", table.getvalue())]
    refused = 0
    tracemalloc.start()
    for seed in range(400):
        draw = random.Random(seed)
        name, content = cases[seed % 3]
        damages = hostile.ANY_DAMAGE + ((hostile.with_checked_headers,) if content is tar else ())
        path = written(tmp_path / name, draw.choice(damages)(content, draw))
        message = failure_of(path)
        assert message is None or message.startswith((str(path), "line/")), message
        assert message is None or "\n" not in message
        refused += message is not None
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 200 < refused < 400
    assert peak_bytes < 64 << 20


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_links_give_the_image_that_they_lead_to(tmp_path, suffix):
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    path = make(
        tmp_path / f"links{suffix}",
        [
            ("day/early.png", soft, "../store/1.png", b""),  # before its target
            ("store/1.png", tarfile.REGTYPE, "", png(1)),
            ("store/blob", tarfile.REGTYPE, "", png(2)),
            ("./day/hard.png", hard, "store/1.png", b""),
            ("day/chain.png", soft, "current", b""),
            ("day/current", soft, "../store/blob", b""),
            ("day/gone.png", soft, "/etc/hostname.png", b""),
            ("day/loop.png", soft, "loop.png", b""),
            ("day/last.png", tarfile.REGTYPE, "", png(3)),
        ],
        "w:gz" if suffix.endswith("gz") else "w",
    )
    with counting() as left_out:
        found = contents(path)
    assert found == {
        "store/1.png": png(1),
        "day/last.png": png(3),
        "day/early.png": png(1),
        "./day/hard.png": png(1),
        "day/chain.png": png(2),
    }
    assert [*found][:2] == ["store/1.png", "day/last.png"]
    assert left_out.counts() == {NOT_FOLLOWED: 1, NO_TARGET: 2}


def test_a_link_to_one_of_two_members_is_refused(tmp_path):
    members = [("1.png", tarfile.REGTYPE, "", png(1)), ("2.png", tarfile.SYMTYPE, "1.png", b"")]
    path = make(tmp_path / "twice.tar", [*members, ("1.png", tarfile.REGTYPE, "", png(3))])
    with pytest.raises(DataError, match=r"twice\.tar: holds 1\.png twice, and a link to it"):
        contents(path)


def test_what_an_archive_holds_besides_is_counted(tmp_path):
    regular = tarfile.REGTYPE
    members = [("._1.png", regular, "", b"x"), ("2.heic", regular, "", b"x"), ("3.png", tarfile.FIFOTYPE, "", b"")]
    path = make(tmp_path / "a.tar", [*members, ("folder.png", tarfile.DIRTYPE, "", b"")])
    with counting() as left_out:
        assert contents(path) == {}
    assert left_out.counts() == {".heic": 1, HIDDEN: 1, IRREGULAR: 1, NO_IMAGE: 1}
    assert str(path / "._1.png") in left_out.describe()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_member_that_is_too_large_is_an_error_of_this_image(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("SUPERSIMPLENET_MAX_BYTES", "1000")
    files = {"1.png": png(1), "2.png": bytes(5_000_000), "3.png": png(3)}
    tar = hostile.tar_of(files)
    path = written(tmp_path / f"a{suffix}", gzip.compress(tar) if suffix.endswith("gz") else tar)
    first, second, third = find_inputs([str(path)])
    assert (first.read(), third.read()) == (png(1), png(3))
    with pytest.raises(ImageError, match=r"2\.png: 5,000,000 bytes are above the limit of 1,000;"):
        read_image(second)


def test_a_sparse_member_is_an_error_of_this_image(tmp_path):
    """The header of GNU tar's sparse files: 100 GB, of which one block is stored."""
    header = bytearray(tarfile.TarInfo("2.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[124:136] = b"%011o\0" % 512
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"\x80" + (100 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    before, after = hostile.tar_of({"1.png": png(1)})[:-1024], hostile.tar_of({"3.png": png(3)})
    for name, pack in (("a.tar", bytes), ("a.tar.gz", gzip.compress)):
        first, second, third = find_inputs([str(written(tmp_path / name, pack(before + header + bytes(512) + after)))])
        assert (first.read(), third.read()) == (png(1), png(3))
        with pytest.raises(ImageError, match=r"2\.png: a sparse file; pack it without --sparse"):
            read_image(second)


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    """Headers that say that they are long, and members that are: zeros that compress a thousandfold."""
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 100 << 20
    bomb = long_name.tobuf(tarfile.GNU_FORMAT) + b"a" * (100 << 20) + hostile.tar_of(FILES)
    path = written(tmp_path / "a.tar.gz", gzip.compress(bomb, 1))
    del bomb
    tracemalloc.start()
    with pytest.raises(DataError, match="the header of a member has more than 1,048,576 bytes"):
        contents(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 << 20


def test_an_archive_that_becomes_shorter_while_it_is_read_gives_no_half_image(tmp_path):
    path = written(tmp_path / "a.tar", hostile.tar_of(FILES))
    images = list(find_inputs([str(path)]))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match=r"a\.tar/line/3\.png: the archive ends within it"):
        images[-1].read()


def test_a_table_whose_rows_are_one_large_value_is_read_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERSIMPLENET_MAX_BYTES", str(1 << 20))
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([bytes(1 << 20), bytes(3 << 20)]).take([1, *[0] * 200])}), table)
    assert table.stat().st_size < 1 << 22
    first, *others = find_inputs([str(table)])
    with pytest.raises(ImageError, match=r"a\.parquet/0: 3,145,728 bytes are above the limit of 1,048,576;"):
        read_image(first)
    for image in find_inputs([str(table)]):
        assert pa.total_allocated_bytes() < 32 << 20, image
    assert [len(image.read()) for image in others[:3]] == [1 << 20] * 3
    del first, others
    pq.write_table(pa.table({"image": [b"x" * (5 << 20)]}), table, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"a\.parquet: 1 rows with 5,\d+,\d+ bytes when unpacked; at most 1,048,576"):
        list(find_inputs([str(table)]))


def test_damaged_pages_of_a_table_name_it(tmp_path):
    content = io.BytesIO()
    table = pa.table({"image": [png(seed) for seed in range(50)]})
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    whole = content.getvalue()
    for first, last in ((4, 24), (2000, 2010)):  # the header of a page, and a picture
        path = written(tmp_path / "a.parquet", whole[:first] + bytes(last - first) + whole[last:])
        with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
            list(find_inputs([str(path)]))
