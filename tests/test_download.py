"""Published datasets, fetched from a server of the test's own and unpacked. No other network is asked."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from supersimplenet.cli.main import main
from supersimplenet.datasets.download import fetch as fetching
from supersimplenet.datasets.download.archives import ARCHIVES, Archive, Counts
from supersimplenet.datasets.download.download import download
from supersimplenet.datasets.download.unpack import unpack
from supersimplenet.errors import ConfigError, DataError, OutputError

PIECE = 1 << 16
COUNTS = {"bottle": Counts(3, 0, 1, 2), "cable": Counts(2, 0, 1, 1)}


class Server:
    """A file behind HTTP, and a record of who asked for what.

    Attributes:
        ranges: whether it knows ranges.
        cuts: after how many bytes to hang up, one for each request; whole answers when there are none left.
        status: another status than 200, for all.
        requests: (Range header, bytes sent) of each.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.ranges, self.cuts, self.status, self.requests = content, True, [], None, []
        handler = functools.partial(_Handler, self)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/data.tar"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, served: Server, *arguments) -> None:
        self.served = served
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        served, asked = self.served, self.headers.get("Range")
        if served.status is not None:
            served.requests.append((asked, 0))
            self.send_error(served.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and served.ranges else 0
        body = served.content[start:]
        self.send_response(206 if start else 200)
        if start:
            total = len(served.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[: served.cuts.pop(0)] if served.cuts else body
        served.requests.append((asked, len(sent)))
        self.wfile.write(sent)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(fetching, "_WAIT_S", 0.0)


@pytest.fixture(scope="module")
def content() -> bytes:
    return _tar(_mvtec_files())


@pytest.fixture
def server(content):
    with Server(content) as server:
        yield server


def _published(content: bytes, url: str = "http://127.0.0.1:9/data.tar", **changes) -> dict[str, Archive]:
    """The real entry of MVTec AD with the test's archive and counts."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    known = {"url": url, "file": "data.tar", "size": len(content), "checksum": checksum, "counts": COUNTS}
    return {"MVTecAD": replace(ARCHIVES["MVTecAD"], **(known | changes))}


def _known(name: str, archive: Path) -> Archive:
    """The real entry of a dataset with the size and checksum of the test's archive."""
    content = archive.read_bytes()
    return replace(ARCHIVES[name], size=len(content), checksum=f"md5:{hashlib.md5(content).hexdigest()}")


def _mvtec_files() -> dict[str, bytes]:
    files = {"readme.txt": b"noise: " + os.urandom(1_000_000)}  # so that a cut can fall into the middle
    for category, counts in COUNTS.items():
        files |= {f"{category}/train/good/{i:03}.png": _png(i) for i in range(counts.train_good)}
        files |= {f"{category}/test/good/{i:03}.png": _png(i) for i in range(counts.test_good)}
        for i in range(counts.test_bad):
            files[f"{category}/test/broken/{i:03}.png"] = _png(i)
            files[f"{category}/ground_truth/broken/{i:03}_mask.png"] = _png(255)
    return files


def _png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), grey).save(file, "PNG")
    return file.getvalue()


def _tar(files: dict[str, bytes], *others: tarfile.TarInfo, mode: str = "w") -> bytes:
    """Files first, then others without content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o444  # as MVTec's are
            tar.addfile(info, io.BytesIO(data))
        for info in others:
            tar.addfile(info)
    return file.getvalue()


def _entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _zip(files: dict[str, bytes], modes: dict[str, int] | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would correct it
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_whole_download(server, tmp_path):
    folder = tmp_path / "datasets" / "MVTecAD"
    found = download("MVTecAD", folder, registry=_published(server.content, server.url))
    assert found.counts == COUNTS
    assert found.total == Counts(5, 0, 2, 3)
    assert found.unpacked == ["bottle", "cable"]
    assert _tree(folder.parent)[0] == "MVTecAD"
    assert [path.name for path in folder.parent.iterdir()] == ["MVTecAD"]  # no archive, no part, no scratch folder
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == _mvtec_files() | {"readme.txt": files["readme.txt"]}
    assert server.requests == [(None, len(server.content))]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    registry = _published(server.content, server.url)
    folder = tmp_path / "MVTecAD"
    download("MVTecAD", folder, categories=["cable"], registry=registry, keep_archive=True)
    assert sorted(path.name for path in folder.iterdir()) == ["cable", "readme.txt"]
    before = (folder / "cable" / "train" / "good" / "000.png").stat()

    found = download("MVTecAD", folder, categories=["cable"], registry=registry)
    assert (found.counts, found.unpacked) == ({"cable": COUNTS["cable"]}, [])
    assert len(server.requests) == 1

    found = download("MVTecAD", folder, registry=registry)  # from the archive that was kept
    assert (found.counts, found.unpacked) == (COUNTS, ["bottle"])
    assert len(server.requests) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["bottle", "cable", "readme.txt"]
    assert (folder / "cable" / "train" / "good" / "000.png").stat() == before
    assert [path.name for path in tmp_path.iterdir()] == ["MVTecAD"]


def test_a_cut_connection_goes_on_from_there_in_the_same_call(server, tmp_path):
    size = len(server.content)
    server.cuts = [2 * PIECE, 3 * PIECE + 100]  # the 100 are lost: pieces are written whole
    download("MVTecAD", tmp_path / "MVTecAD", registry=_published(server.content, server.url))
    assert server.requests == [
        (None, 2 * PIECE),
        (f"bytes={2 * PIECE}-", 3 * PIECE + 100),
        (f"bytes={5 * PIECE}-", size - 5 * PIECE),
    ]


def test_an_interrupted_download_goes_on_in_the_next_call(server, tmp_path):
    size, registry = len(server.content), _published(server.content, server.url)
    server.cuts = [4 * PIECE, 0, 0, 0]
    with pytest.raises(DataError, match=rf"{4 * PIECE:,} of {size:,} bytes are here .*run the command again"):
        download("MVTecAD", tmp_path / "MVTecAD", registry=registry)
    assert [path.name for path in tmp_path.iterdir()] == ["data.tar.part"]
    assert (tmp_path / "data.tar.part").read_bytes() == server.content[: 4 * PIECE]
    server.requests.clear()
    download("MVTecAD", tmp_path / "MVTecAD", registry=registry)
    assert server.requests == [(f"bytes={4 * PIECE}-", size - 4 * PIECE)]
    assert [path.name for path in tmp_path.iterdir()] == ["MVTecAD"]


def test_without_ranges_it_starts_anew(server, tmp_path):
    server.ranges = False
    server.cuts = [2 * PIECE]
    found = download("MVTecAD", tmp_path / "MVTecAD", registry=_published(server.content, server.url))
    assert found.counts == COUNTS
    assert server.requests == [(None, 2 * PIECE), (f"bytes={2 * PIECE}-", len(server.content))]


def test_without_ranges_and_always_cut_it_gives_up(server, tmp_path):
    server.ranges = False
    server.cuts = [2 * PIECE, 3 * PIECE, 3 * PIECE, PIECE, 3 * PIECE, 3 * PIECE]
    with pytest.raises(DataError, match=f"{3 * PIECE:,} of"):
        download("MVTecAD", tmp_path / "MVTecAD", registry=_published(server.content, server.url))
    assert len(server.requests) == 5  # two that brought something new, three that did not


def test_a_wrong_checksum_names_both_and_removes_the_file(server, tmp_path):
    registry = _published(server.content, server.url, checksum=f"sha256:{'0' * 64}")
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=f"{'0' * 64} but got {found}.*--archive FILE"):
        download("MVTecAD", tmp_path / "MVTecAD", registry=registry)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_part_is_found_by_its_checksum(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="hash"):
        download("MVTecAD", tmp_path / "MVTecAD", registry=_published(server.content, server.url))
    assert server.requests == [("bytes=1000-", len(server.content) - 1000)]
    assert list(tmp_path.iterdir()) == []


def test_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    registry = _published(server.content, server.url, size=len(server.content) + 1)
    with pytest.raises(
        DataError, match=rf"{len(server.content):,} bytes are offered; wanted {len(server.content) + 1:,}"
    ):
        download("MVTecAD", tmp_path / "MVTecAD", registry=registry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_a_refusal_says_what_to_do(server, tmp_path, status, requests):
    server.status = status
    with pytest.raises(DataError, match=rf"{status} .*in a browser and pass it with --archive FILE"):
        download("MVTecAD", tmp_path / "MVTecAD", registry=_published(server.content, server.url))
    assert len(server.requests) == requests


def test_no_network_says_what_to_do(content, tmp_path):
    with pytest.raises(DataError, match=r"0 of .*mvtec-ad in a browser and pass it with --archive FILE") as caught:
        download("MVTecAD", tmp_path / "MVTecAD", registry=_published(content))  # nobody listens at port 9
    assert "http://127.0.0.1:9/data.tar" in str(caught.value)


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.xz", "w:xz"), ("tar.gz", "w:gz"), ("zip", "")])
def test_a_given_archive_is_used_and_kept(tmp_path, suffix, mode):
    files = _mvtec_files()
    content = _zip(files) if suffix == "zip" else _tar(files, mode=mode)
    archive = tmp_path / f"mine.{suffix}"
    archive.write_bytes(content)
    folder = tmp_path / "data"
    assert download("MVTecAD", folder, archive=archive, registry=_published(content)).counts == COUNTS
    assert archive.read_bytes() == content
    assert (folder / "bottle" / "train" / "good" / "002.png").read_bytes() == files["bottle/train/good/002.png"]
    assert (folder / "readme.txt").read_bytes() == files["readme.txt"]


def test_a_given_archive_is_checked_and_not_removed(content, tmp_path):
    archive = tmp_path / "mine.tar"
    archive.write_bytes(content[:-1])
    wanted, found = (hashlib.sha256(c).hexdigest() for c in (content, content[:-1]))
    with pytest.raises(DataError, match=f"sha256 is {found}; wanted {wanted}"):
        download("MVTecAD", tmp_path / "MVTecAD", archive=archive, registry=_published(content))
    assert archive.exists()
    with pytest.raises(DataError, match="no such file"):
        download("MVTecAD", tmp_path / "MVTecAD", archive=tmp_path / "other.tar", registry=_published(content))


MALICIOUS_TARS = {
    "parent": ("../outside.txt", _tar({"a.txt": b"a", "../outside.txt": b"b"})),
    "hidden parent": ("bottle/../../outside.txt", _tar({"bottle/../../outside.txt": b"b"})),
    "absolute": ("/tmp/supersimplenet-outside.txt", _tar({"/tmp/supersimplenet-outside.txt": b"b"})),
    "backslash": ("..\\outside.txt", _tar({"..\\outside.txt": b"b"})),
    "drive": ("C:outside.txt", _tar({"C:outside.txt": b"b"})),
    "symbolic link": ("bottle/link", _tar({"a.txt": b"a"}, _entry("bottle/link", tarfile.SYMTYPE, "../.."))),
    "hard link": ("bottle/link", _tar({"a.txt": b"a"}, _entry("bottle/link", tarfile.LNKTYPE, "../../secret"))),
    "device": ("null", _tar({"a.txt": b"a"}, _entry("null", tarfile.CHRTYPE))),
    "pipe": ("pipe", _tar({"a.txt": b"a"}, _entry("pipe", tarfile.FIFOTYPE))),
    "not wanted": ("cable/link", _tar({}, _entry("cable/link", tarfile.SYMTYPE, "/"))),
}
MALICIOUS_ZIPS = {
    "parent": ("../outside.txt", _zip({"a.txt": b"a", "../outside.txt": b"b"})),
    "absolute": ("/tmp/supersimplenet-outside.txt", _zip({"/tmp/supersimplenet-outside.txt": b"b"})),
    "backslash": ("..\\outside.txt", _zip({"..\\outside.txt": b"b"})),
    "symbolic link": ("link", _zip({"a.txt": b"a", "link": b"/etc"}, {"link": stat.S_IFLNK | 0o777})),
    "device": ("null", _zip({"null": b""}, {"null": stat.S_IFCHR | 0o666})),
}


@pytest.mark.parametrize(
    ("suffix", "name", "content"),
    [("tar", *case) for case in MALICIOUS_TARS.values()] + [("zip", *case) for case in MALICIOUS_ZIPS.values()],
    ids=[f"tar {key}" for key in MALICIOUS_TARS] + [f"zip {key}" for key in MALICIOUS_ZIPS],
)
def test_a_malicious_archive_is_refused_by_name(tmp_path, suffix, name, content):
    archive = tmp_path / f"bad.{suffix}"
    archive.write_bytes(content)
    (tmp_path / "secret").write_text("secret")
    inner = tmp_path / "inner"
    inner.mkdir()
    registry = _published(content, file=archive.name)
    with pytest.raises(DataError, match=re.escape(f"'{name}'")):
        download("MVTecAD", inner / "MVTecAD", archive=archive, categories=["bottle"], registry=registry)
    assert _tree(tmp_path) == sorted([archive.name, "inner", "secret"])
    assert not Path("/tmp/supersimplenet-outside.txt").exists()


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_a_bomb_is_refused_before_it_is_written(tmp_path, suffix):
    files = {"small.txt": b"a", "zeros.bin": bytes(3_000_000)}
    content = _zip(files) if suffix == "zip" else _tar(files, mode="w:xz")
    assert len(content) < 10_000
    archive = tmp_path / f"bomb.{suffix}"
    archive.write_bytes(content)
    registry = _published(content, unpacked_at_most=2_000_000)
    with pytest.raises(DataError, match=r"more than 2,000,000 bytes, refused at 'zeros\.bin'"):
        download("MVTecAD", tmp_path / "MVTecAD", archive=archive, registry=registry)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_a_million_empty_files_are_a_bomb_too(tmp_path):
    content = _tar({f"{i}": b"" for i in range(1000)}, mode="w:xz")
    archive = tmp_path / "bomb.tar.xz"
    archive.write_bytes(content)
    with pytest.raises(DataError, match="more than 409,600 bytes, refused at '100'"):
        download(
            "MVTecAD", tmp_path / "MVTecAD", archive=archive, registry=_published(content, unpacked_at_most=409_600)
        )


@pytest.mark.parametrize("content", [b"<html>sign in</html>", _tar({"a/b.txt": bytes(100_000)})[:50_000]])
def test_what_is_no_archive_says_so(tmp_path, content):
    for name in ("mine.tar", "mine.zip"):
        archive = tmp_path / name
        archive.write_bytes(content)
        with pytest.raises(DataError, match="not a readable archive"):
            download("MVTecAD", tmp_path / "MVTecAD", archive=archive, registry=_published(content))
        archive.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_stands_there_twice_is_refused(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for data in (b"first", b"second"):
            info = tarfile.TarInfo("bottle/a.txt")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    archive = tmp_path / "mine.tar"
    archive.write_bytes(file.getvalue())
    with pytest.raises(DataError, match=r"'bottle/a\.txt' stands in it twice"):
        download("MVTecAD", tmp_path / "MVTecAD", archive=archive, registry=_published(file.getvalue()))


def test_an_interrupted_unpacking_leaves_nothing(content, tmp_path):
    archive, folder, written = tmp_path / "mine.tar", tmp_path / "unpacked", []
    archive.write_bytes(content)

    def interrupt(path: PurePosixPath) -> bool:
        if path.name == "002.png":
            written.extend(_tree(folder))
            signal.raise_signal(signal.SIGINT)  # what Ctrl-C does
        return True

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            unpack(archive, folder, at_most_bytes=10**9, wanted=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "bottle/train/good/001.png" in written
    assert list(tmp_path.iterdir()) == [archive]


def test_what_a_killed_run_left_is_cleared(content, tmp_path):
    archive = tmp_path / "mine.tar"
    archive.write_bytes(content)
    half = tmp_path / ".MVTecAD.unpacking" / "bottle"
    half.mkdir(parents=True)
    (half / "half.png").write_bytes(b"half")
    download("MVTecAD", tmp_path / "MVTecAD", archive=archive, registry=_published(content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MVTecAD", "mine.tar"]
    assert not (tmp_path / "MVTecAD" / "bottle" / "half.png").exists()


def test_an_incomplete_folder_is_named_and_nothing_is_fetched(server, tmp_path):
    registry, folder = _published(server.content, server.url), tmp_path / "MVTecAD"
    download("MVTecAD", folder, registry=registry)
    server.requests.clear()
    (folder / "bottle" / "train" / "good" / "001.png").unlink()
    with pytest.raises(
        DataError, match=r"MVTecAD/bottle: found train 2 good, 0 bad; .*wanted train 3 good.*move it away"
    ):
        download("MVTecAD", folder, registry=registry)
    shutil.rmtree(folder / "bottle" / "test")
    with pytest.raises(DataError, match=r"MVTecAD/bottle: not a whole MVTecAD"):
        download("MVTecAD", folder, registry=registry)
    assert server.requests == []


def test_wrong_counts_are_reported_and_the_archive_stays(server, tmp_path):
    counts = COUNTS | {"cable": Counts(9, 0, 1, 1)}
    registry = _published(server.content, server.url, counts=counts)
    with pytest.raises(
        DataError, match=r"MVTecAD/cable: found train 2 good, .*wanted train 9 good, .*please report it"
    ):
        download("MVTecAD", tmp_path / "MVTecAD", registry=registry)
    assert (tmp_path / "data.tar").read_bytes() == server.content


def test_a_full_disk_is_foreseen(content, tmp_path):
    registry, folder = _published(content, size=10**15), tmp_path / "MVTecAD"
    with pytest.raises(OutputError, match="wanted about 2,100,000,000,000,000: 1,000,000,000,000,000 to fetch"):
        download("MVTecAD", folder, registry=registry)
    with pytest.raises(OutputError, match="wanted about 660,000,000,000,000: 0 to fetch"):  # 6 of 10 images
        download("MVTecAD", folder, archive=tmp_path / "a", categories=["bottle"], registry=registry)


def test_names_and_categories_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="MVTec: no such dataset; wanted one of MVTecAD, VisA, KSDD2, SensumSODF"):
        download("MVTec", tmp_path)
    with pytest.raises(ConfigError, match="has none named botle; wanted some of bottle, cable"):
        download("MVTecAD", tmp_path, categories=["botle"])
    with pytest.raises(ConfigError, match="KSDD2 has none named bottle; it has no categories"):
        download("KSDD2", tmp_path, categories=["bottle"])


def test_ksdd2_and_its_split_files(tmp_path):
    files = {f"split_weakly_{masks}.pyb": b"of numbers" for masks in (0, 16, 53, 126, 246)}
    for split, bad in (("train", {10001, 10002}), ("test", {20001})):
        for number in range(10000, 10004) if split == "train" else range(20000, 20003):
            files[f"{split}/{number}.png"] = _png(9)
            files[f"{split}/{number}_GT.png"] = _png(255 if number in bad else 0)
    files |= {"train/10301 (copy).png": _png(9), "train/10301_GT (copy).png": _png(0)}  # as the real archive has them
    archive = tmp_path / "mine.zip"
    archive.write_bytes(_zip(files))
    registry = {"KSDD2": replace(_known("KSDD2", archive), counts={"": Counts(2, 2, 2, 1)})}
    found = download("KSDD2", tmp_path / "KSDD2", archive=archive, registry=registry)
    assert (found.total, found.unpacked) == (Counts(2, 2, 2, 1), [""])
    assert [path.name for path in sorted(found.folder.glob("*.pyb"))] == sorted(n for n in files if n.endswith("pyb"))
    assert download("KSDD2", tmp_path / "KSDD2", registry=registry).unpacked == []
    shutil.rmtree(found.folder / "test")
    with pytest.raises(DataError, match=r"KSDD2: not a whole KSDD2 .*move it away"):
        download("KSDD2", tmp_path / "KSDD2", registry=registry)


def test_a_category_of_visa_brings_the_table_of_splits(tmp_path):
    rows, files = ["object,split,label,image,mask"], {}
    for category in ("candle", "pcb1"):
        images = f"{category}/Data/Images"
        for name, split in (("0000", "train"), ("0001", "train"), ("0002", "test")):
            files[f"{images}/Normal/{name}.JPG"] = _png(9)
            rows.append(f"{category},{split},normal,{images}/Normal/{name}.JPG,")
        mask = f"{category}/Data/Masks/Anomaly/000.png"
        files |= {f"{images}/Anomaly/000.JPG": _png(9), mask: _png(1)}
        rows.append(f"{category},test,anomaly,{images}/Anomaly/000.JPG,{mask}")
    files["split_csv/1cls.csv"] = "\n".join(rows).encode()
    archive = tmp_path / "mine.tar"
    archive.write_bytes(_tar(files))
    counts = {category: Counts(2, 0, 1, 1) for category in ("candle", "pcb1")}
    registry = {"VisA": replace(_known("VisA", archive), counts=counts)}
    found = download("VisA", tmp_path / "VisA", archive=archive, categories=["pcb1"], registry=registry)
    assert found.counts == {"pcb1": Counts(2, 0, 1, 1)}
    assert sorted(path.name for path in found.folder.iterdir()) == ["pcb1", "split_csv"]
    assert download("VisA", tmp_path / "VisA", archive=archive, registry=registry).unpacked == ["candle"]
    assert sorted(path.name for path in found.folder.iterdir()) == ["candle", "pcb1", "split_csv"]


def test_what_is_known_of_the_publishers_adds_up():
    """Totals as the papers state them: MVTec AD, table 1; VisA, section 3; KolektorSDD2's page."""
    totals = {name: [sum(c) for c in zip(*entry.counts.values(), strict=True)] for name, entry in ARCHIVES.items()}
    assert totals == {"MVTecAD": [3629, 0, 467, 1258], "VisA": [8659, 0, 962, 1200], "KSDD2": [2085, 246, 894, 110]}
    assert {name: len(entry.counts) for name, entry in ARCHIVES.items()} == {"MVTecAD": 15, "VisA": 12, "KSDD2": 1}
    for entry in ARCHIVES.values():
        algorithm, _, digits = entry.checksum.partition(":")
        assert re.fullmatch(r"[0-9a-f]+", digits)
        assert len(digits) == 2 * hashlib.new(algorithm).digest_size
        assert entry.url.startswith("https://")
        assert entry.size < entry.unpacked_at_most < 2 * entry.size


def test_the_command_says_where_to_ask_for_what_is_on_request(tmp_path, capsys):
    assert main(["data", "download", "SensumSODF", "--output", str(tmp_path / "sodf")]) == 1
    message = capsys.readouterr().err
    assert "https://www.sensum.eu/sensumsodf-dataset/" in message
    assert f"{tmp_path}/sodf/sensum_splits/capsule/0/train/neg.pckl" in message


def test_the_command_checks_a_given_archive(tmp_path, capsys):
    archive = tmp_path / "KolektorSDD2.zip"
    archive.write_bytes(b"something else")
    assert main(["data", "download", "KSDD2", "--output", str(tmp_path / "KSDD2"), "--archive", str(archive)]) == 1
    said = capsys.readouterr()
    assert "CC BY-NC-SA 4.0" in said.out
    assert f"md5 is {hashlib.md5(b'something else').hexdigest()}; wanted {ARCHIVES['KSDD2'].checksum[4:]}" in said.err


def test_the_command_prints_what_it_found_and_what_to_do_next(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "MVTecAD", _published(server.content, server.url)["MVTecAD"])
    monkeypatch.chdir(tmp_path)
    assert main(["data", "download", "MVTecAD"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "datasets/MVTecAD: unpacked; bottle and 1 more: train 5 good, 0 bad; test 2 good, 3 bad; as published",
        "train: supersimplenet train --data MVTecAD --data.category bottle",
    ]
    assert main(["data", "download", "MVTecAD", "--output", "datasets/MVTecAD", "--categories", "cable"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "datasets/MVTecAD: already there; cable: train 2 good, 0 bad; test 1 good, 1 bad; as published",
        "train: supersimplenet train --data MVTecAD --data.category cable",
    ]


def test_help_loads_neither_torch_nor_the_network():
    script = (
        "import sys\nfrom supersimplenet.cli.main import main\n"
        "try:\n    main(['data', 'download', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'pooch', 'requests') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--keep-archive" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"
