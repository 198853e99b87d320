"""Listing of folders: what is an image, what is passed over and counted, and folders that cannot be read."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from layouts import touch
from PIL import Image

from supersimplenet.cli.main import main
from supersimplenet.datasets.folder import Folder
from supersimplenet.errors import DataError, ImageError
from supersimplenet.preprocessing import listing
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.listing import (
    HIDDEN,
    HIDDEN_FOLDER,
    IMAGE_SUFFIXES,
    IRREGULAR,
    LISTED_ALREADY,
    NO_TARGET,
    UNREAD_SUFFIXES,
    UNREADABLE,
    counting,
    list_folder,
    list_images,
)
from supersimplenet.runtime.__main__ import main as runtime_main

EXPORT = Path(__file__).parent / "fixtures" / "version_0_1" / "plain.onnx"


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def photograph(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def unreadable(monkeypatch: pytest.MonkeyPatch, folder: Path, error: OSError) -> None:
    """Make a folder unreadable, also for root, whom permissions do not stop."""
    scandir = os.scandir

    def failing(path):
        if os.fspath(path) == str(folder):
            raise error
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", failing)


def test_linked_folders_are_followed_and_a_loop_ends(tmp_path):
    touch(tmp_path, "line/a.png", "line/deep/er/b.png", "elsewhere/c.png", "elsewhere/more/d.png")
    (tmp_path / "line" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "line" / "deep" / "up").symlink_to(tmp_path / "line")
    (tmp_path / "line" / "deep" / "er" / "self").symlink_to(".")
    (tmp_path / "elsewhere" / "back").symlink_to("../line/deep")
    with counting() as left_out:
        assert names(tmp_path / "line") == ["a.png", "deep/er/b.png", "other/c.png", "other/more/d.png"]
    assert left_out.counts() == {LISTED_ALREADY: 3}


def test_an_image_has_its_own_name_where_a_link_leads_to_its_folder_too(tmp_path):
    touch(tmp_path, "day10/1.png", "day9/1.png")
    (tmp_path / "a").symlink_to("day10")
    (tmp_path / "z").symlink_to("day9")
    with counting() as left_out:
        assert names(tmp_path) == ["day9/1.png", "day10/1.png"]
    assert "2 links to a folder that is listed already (" in left_out.describe()
    (tmp_path / "top").symlink_to(tmp_path)  # a linked folder may be named itself
    assert names(tmp_path / "top") == ["day9/1.png", "day10/1.png"]


def test_what_is_passed_over_is_counted_and_named(tmp_path):
    touch(tmp_path, "a.png", ".b.png", "._c.JPG", ".DS_Store", "notes.txt", "d.HEIC", "e.heic", "f.avif", ".git/g.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "drive").symlink_to("/nowhere/drive")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        with counting() as left_out:
            assert names(tmp_path) == ["a.png"]
            assert names(tmp_path) == ["a.png"]  # a second look counts nothing twice
    assert left_out.counts() == {".avif": 1, ".heic": 2, HIDDEN: 2, HIDDEN_FOLDER: 1, IRREGULAR: 2, NO_TARGET: 3}
    text = left_out.describe()
    assert text.startswith("left out: 1 hidden folder (")
    assert "2 hidden pictures (" in text
    assert f"1 hidden folder ({tmp_path}/.git)" in text
    assert "2 special files (" in text
    assert "3 links to nothing (" in text
    assert text.endswith("1 .avif, 2 .heic (not read: convert them to PNG)")
    assert left_out.unsaid() == text
    assert left_out.unsaid() == ""


def test_a_folder_with_nothing_but_other_pictures_says_so(tmp_path):
    touch(tmp_path, "a.heic", "b.heic", ".c.png")
    with pytest.raises(DataError, match=r"no image in it; wanted files that end in .*; left out: 1 hidden picture .*2"):
        list_images(tmp_path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_folder_that_cannot_be_read_stops_or_is_counted(tmp_path, monkeypatch, error):
    touch(tmp_path, "a.png", "locked/b.png", "open/c.png")
    unreadable(monkeypatch, tmp_path / "locked", error)
    message = rf"locked: the folder cannot be read \({error.strerror}\)"
    with pytest.raises(ImageError, match=message):
        list_images(tmp_path)
    with counting("stop"), pytest.raises(ImageError, match=message):
        list_images(tmp_path)
    with counting("skip") as left_out:
        assert names(tmp_path) == ["a.png", "open/c.png"]
    assert left_out.counts() == {UNREADABLE: 1}
    assert left_out.describe() == f"left out: 1 folder that cannot be read ({tmp_path}/locked)"


def test_an_error_in_the_middle_of_a_listing_and_of_an_entry_stops_too(tmp_path, monkeypatch):
    touch(tmp_path, "sub/a.png", "sub/b.png")
    kind_of = listing._kind_of

    def failing(entry):
        if entry.name == "b.png":
            raise OSError(5, "Input/output error")
        return kind_of(entry)

    monkeypatch.setattr(listing, "_kind_of", failing)
    with pytest.raises(ImageError, match=r"sub: the folder cannot be read \(Input/output error\)"):
        list_images(tmp_path)


def test_a_folder_is_not_entered_whatever_its_name(tmp_path):
    touch(tmp_path, "a.png", "results/b.png")
    (tmp_path / "link").symlink_to("results")
    assert list_folder(tmp_path, on_error="stop", leave_out=tmp_path / "." / "results").files == [tmp_path / "a.png"]
    assert len(list_folder(tmp_path, on_error="stop", leave_out=tmp_path / "gone").files) == 2


def test_no_suffix_is_both_and_new_ones_are_read(tmp_path):
    assert not IMAGE_SUFFIXES & UNREAD_SUFFIXES
    expected = read_image(photograph(tmp_path / "a.bmp"))
    (tmp_path / "a.bmp").rename(tmp_path / "a.dib")
    assert np.array_equal(read_image(list_images(tmp_path)[0]), expected)


def test_inner_contexts_share_their_counts_with_the_command(tmp_path):
    touch(tmp_path, "good/a.png", "good/b.heic", "bad/c.png", "bad/d.heic")
    with counting() as outer:
        with counting("skip") as inner:
            Folder(good=tmp_path / "good", test_fraction=0).samples()
        list_images(tmp_path / "bad")
    assert outer.counts() == inner.counts() == {".heic": 2}


def test_commands_say_once_what_they_left_out(tmp_path, capsys):
    for number in range(3):
        photograph(tmp_path / "good" / f"{number}.png", number)
    touch(tmp_path, "good/3.heic")
    text = "left out: 1 .heic (not read: convert them to PNG)"
    command = ["data", "check", "--data", "Folder", "--data.good", str(tmp_path / "good")]
    main([*command, "--output", str(tmp_path / "check")])
    assert capsys.readouterr().err.count(text) == 1
    assert json.loads((tmp_path / "check" / "check.json").read_text())["left_out"] == {".heic": 1}


def test_the_runtime_program_says_what_it_left_out(tmp_path, capsys):
    photograph(tmp_path / "1.png")
    touch(tmp_path, "2.heic")
    assert runtime_main([str(EXPORT), str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert printed.err == "left out: 1 .heic (not read: convert them to PNG)\n"


def test_a_folder_that_cannot_be_read_ends_predict_or_is_left_out(tmp_path, monkeypatch, capsys):
    photograph(tmp_path / "line" / "1.png")
    photograph(tmp_path / "line" / "locked" / "2.png")
    unreadable(monkeypatch, tmp_path / "line" / "locked", PermissionError(13, "Permission denied"))
    command = ["predict", "--model", str(EXPORT), str(tmp_path / "line"), "--output", str(tmp_path / "out")]
    assert main(command) == 1
    message = (
        f"{tmp_path}/line/locked: the folder cannot be read (Permission denied); check its permissions; --on-error"
    )
    assert message in capsys.readouterr().err
    assert main([*command, "--on-error", "skip"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count(f"left out: 1 folder that cannot be read ({tmp_path}/line/locked)") == 1
    assert "1 image:" in printed.out
