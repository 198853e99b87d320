"""Images at web addresses, from a real server: time-outs, limits, redirects, listings; failures name the address."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hostile_archives as hostile
import pytest
from test_archives import png

from supersimplenet.errors import DataError, ImageError
from supersimplenet.prediction import web
from supersimplenet.prediction.inputs import find_inputs
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.listing import HIDDEN, counting
from supersimplenet.preprocessing.loading import map_in_threads
from supersimplenet.preprocessing.preprocessor import Preprocessor

INDEX = b"""<html><a href="../">up</a><a href="10.png">10</a><a href="2.png">2</a><a href="a.heic">a</a>
<a href=".b.png">b</a><a href="notes.txt">n</a><a href="more/">m</a></html>"""


class _Handler(BaseHTTPRequestHandler):
    """What a server may do, by the address."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/dripping.png":
            self._answer(b"", length=1000)
            while not self.server.released.wait(0.1):
                self.wfile.write(b"x")
        elif path in ("/stalled.png", "/stalled.tar"):
            self._answer(b"", length=1000)
            self.server.released.wait(20)
        elif path in ("/endless.png", "/endless/"):
            self._answer(b"", kind="text/html" if path.endswith("/") else "image/png", length=None)
            while not self.server.released.is_set():
                self.wfile.write(bytes(1 << 16))
        elif path == "/moved.png" or f"{path}/" in self.server.pages:
            self.send_response(302)
            self.send_header("Location", "/1.png" if path == "/moved.png" else f"{path}/")
            self.end_headers()
        elif path == "/short.png":
            self._answer(png(1)[:50], length=1000)
        elif path in self.server.pages:
            self._answer(self.server.pages[path], kind="text/html" if path.endswith("/") else "image/png")
        else:
            self.send_error(404)

    def _answer(self, content: bytes, *, kind: str = "image/png", length: int | None = -1) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(len(content) if length < 0 else length))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:  # a client that ends the connection is what is tested
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(web, "SILENCE_S", 0.5)
    monkeypatch.setattr(web, "TOTAL_S", 1.0)
    monkeypatch.setenv("SUPERSIMPLENET_MAX_BYTES", str(1 << 20))
    running = _Server(("127.0.0.1", 0), _Handler)
    running.released = threading.Event()
    running.pages = {
        "/1.png": png(1), "/line/": INDEX, "/line/2.png": png(2), "/line/10.png": png(10), "/line/a.heic": b"",
        "/line/more/": b'<a href="3.png">3</a>', "/line/more/3.png": png(3), "/empty/": b"<html></html>",
        "/shard.tar": hostile.tar_of({"4.png": png(4)}), "/cut.tar": hostile.tar_of({"4.png": png(4)})[:-1024],
    }  # fmt: skip
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def site(server: _Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_images_archives_redirects_and_arguments(site):
    found = [image.read() for image in find_inputs([f"{site}/1.png?size=[1]*", f"{site}/moved.png"])]
    assert found == [png(1), png(1)]
    (image,) = find_inputs([f"{site}/shard.tar"])
    assert (str(image), image.read()) == (f"{site}/shard.tar/4.png", png(4))
    with pytest.raises(DataError, match=rf"^{site}/cut\.tar: not a readable tar archive \(it ends without"):
        list(find_inputs([f"{site}/cut.tar"]))


def test_an_index_gives_its_images_at_any_depth_and_the_rest_is_counted(site):
    with counting() as left_out:
        found = list(find_inputs([f"{site}/line/"]))
    assert [str(image) for image in found] == [f"{site}/line/{name}" for name in ("2.png", "10.png", "more/3.png")]
    assert [image.read() for image in found] == [png(2), png(10), png(3)]
    assert left_out.counts() == {".heic": 1, HIDDEN: 1}
    with pytest.raises(DataError, match=rf"{site}/(empty|gone)/: no such file or folder"):
        find_inputs([f"{site}/gone/"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("stalled.png", "the server did not answer, or sent nothing for too long"),
        ("dripping.png", "the server did not answer, or sent nothing for too long"),
        ("endless.png", "more than 1,048,576 bytes"),
        ("gone.png", "no such file"),
        ("short.png", r".*"),
    ],
)
def test_a_failure_is_that_of_one_image_and_names_it(site, name, reason):
    started = time.monotonic()
    (image,) = find_inputs([f"{site}/{name}"])
    with pytest.raises(ImageError, match=rf"^{site}/{name}: cannot be read \({reason}\); check where it lies") as error:
        read_image(image)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 10


def test_the_others_are_read_where_one_fails(site, tmp_path):
    listed = tmp_path / "list.txt"
    names = ["1.png", "stalled.png", "gone.png", "moved.png"]
    listed.write_text("".join(f"{site}/{name}\n" for name in names))
    batches = list(
        map_in_threads(
            lambda batch: batch,
            find_inputs([], list_file=listed),
            threads=2,
            preprocessor=Preprocessor.stretch((8, 8)),
            batch_size=1,
            on_error="skip",
        )
    )
    assert [len(batch.failures) for batch in batches] == [0, 1, 1, 0]
    assert batches[1].failures[0].reason.startswith(f"{site}/stalled.png: cannot be read")


def test_an_archive_whose_server_stalls_is_an_error_that_names_it(site):
    with pytest.raises(DataError, match=rf"^{site}/stalled\.tar: cannot be (read|opened) \(the server did not answer"):
        list(find_inputs([f"{site}/stalled.tar"]))


@pytest.mark.parametrize("place", ["endless/", "nobody"])
def test_a_listing_that_does_not_end_and_a_server_that_is_not_there(site, place):
    url = f"{site}/endless/" if place == "endless/" else "http://127.0.0.1:9/line/"
    with pytest.raises(DataError, match=rf"^{url}: (cannot be reached|no such file)") as error:
        find_inputs([url])
    assert "\n" not in str(error.value)


def test_images_of_the_web_can_be_sent_to_another_process(site):
    (image,) = pickle.loads(pickle.dumps(list(find_inputs([f"{site}/1.png"]))))
    assert image.read() == png(1)


def test_a_local_url_is_a_local_file(tmp_path):
    (tmp_path / "1.png").write_bytes(png(1))
    (image,) = find_inputs([f"file://{tmp_path}/1.png"])
    assert image.read() == png(1)
    (gone,) = find_inputs([f"file://{tmp_path}/2.png"])
    with pytest.raises(ImageError, match=r"2\.png: cannot be read \(No such file or directory\)"):
        read_image(gone)


def test_a_pipe_is_no_image_whatever_names_it(tmp_path):
    for name in ("1.png", "a.tar", "a.parquet"):
        os.mkfifo(tmp_path / name)
    (image,) = find_inputs([f"file://{tmp_path}/1.png"])
    with pytest.raises(ImageError, match="a named pipe, not a regular file"):
        read_image(image)
    for start in ("", "file://"):
        for name in ("a.tar", "a.parquet"):
            with pytest.raises(DataError, match=rf"{name}: cannot be opened \(a named pipe, not a regular file\)"):
                list(find_inputs([f"{start}{tmp_path / name}"]))
    with pytest.raises(DataError, match=rf"{Path(tmp_path).name}: no image in it"):
        find_inputs([str(tmp_path)])
