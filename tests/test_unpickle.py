"""Split files are pickles: plain values come back, anything else is refused by name, and nothing is run."""

import os
import pickle
import struct
import sys
from collections import Counter
from pathlib import Path

import pytest

from supersimplenet.datasets.split_files import by_number, listed_images, read_pickle
from supersimplenet.errors import DataError

PLAIN = [[(10000, True), (10001, False), ("0012", True)], [[-3, 0, 255, 256, 70000, 2**40, 2**200], (), [], (1,)]]


class Runs:
    """Pickled, it asks for a function to be called with arguments."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Stated:
    """Pickled, it is made by its class and then given a state."""

    def __init__(self) -> None:
        self.state = 1


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "split.pyb"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(tmp_path, protocol):
    assert read_pickle(written(tmp_path, pickle.dumps(PLAIN, protocol))) == PLAIN


def test_a_list_that_stands_twice_is_one(tmp_path):
    shared = [(1, True)]
    train, test = read_pickle(written(tmp_path, pickle.dumps([shared, shared])))
    assert train == shared
    assert train is test


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, rf"{os.name}\.system"),
        (eval, r"(__builtin__|builtins)\.eval"),
        (exec, r"(__builtin__|builtins)\.exec"),
    ],
)
def test_a_function_is_refused_by_name_and_not_run(tmp_path, protocol, function, name):
    target = tmp_path / "ran"
    code = f"mkdir {target}" if function is os.system else f"__import__('os').mkdir({str(target)!r})"
    evil = pickle.dumps([[(1, True)], Runs(function, code)], protocol)
    with pytest.raises(
        DataError, match=rf"split\.pyb: asks for {name}; a split file holds lists, .* nothing in it was"
    ):
        read_pickle(written(tmp_path, evil))
    assert not target.exists()
    pickle.loads(evil)  # it would have
    assert target.exists()


def test_a_function_whose_name_stands_elsewhere(tmp_path):
    # STACK_GLOBAL takes module and name from the stack; here they come there from values that were kept before.
    code = b"\x80\x04\x8c\x08builtins\x94\x8c\x04eval\x94h\x00h\x01\x93\x8c\x011\x85R."
    assert pickle.loads(code) == 1
    with pytest.raises(DataError, match=r"asks for builtins\.eval;"):
        read_pickle(written(tmp_path, code))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (pickle.dumps(Stated()), r"test_unpickle\.Stated"),
        (pickle.dumps(Stated(), 0), r"copy_?reg\._reconstructor"),
        (b"(S'ls'\nios\nsystem\n.", "STRING at byte 1"),
        (b"(ios\nsystem\n.", r"os\.system"),
        (b"cos\nsystem\n.", r"os\.system"),
        (b"Pwhatever\n.", "PERSID at byte 0"),
        (b"\x82\x01.", "EXT1 at byte 0"),
        (pickle.dumps({"train": []}), "EMPTY_DICT at byte"),
        (pickle.dumps([1.5]), "BINFLOAT at byte"),
        (pickle.dumps(None), "NONE at byte"),
        (pickle.dumps(b"x"), "SHORT_BINBYTES at byte"),
        (pickle.dumps({1, 2}), "EMPTY_SET at byte"),
        (b"]r" + struct.pack("<I", 2**32 - 1) + b".", "place 4294967295 in a table at byte 1"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "not a whole pickle"),
    ],
)
def test_what_is_not_plain_is_refused(tmp_path, data, what):
    with pytest.raises(DataError, match=rf"split\.pyb: (asks for )?{what}"):
        read_pickle(written(tmp_path, data))


def test_numpy_numbers_are_refused_by_name(tmp_path):
    np = pytest.importorskip("numpy")
    with pytest.raises(DataError, match=r"asks for numpy\.\S*scalar;"):
        read_pickle(written(tmp_path, pickle.dumps([(np.int64(3), True)])))


def test_truncated_anywhere_it_is_not_a_whole_pickle(tmp_path):
    whole = pickle.dumps(PLAIN)
    for length in range(len(whole)):
        with pytest.raises(DataError, match=rf"not a whole pickle \(.*, {length:,} bytes\); fetch it again"):
            read_pickle(written(tmp_path, whole[:length]))


def test_damaged_anywhere_it_is_refused_or_plain(tmp_path):
    whole = pickle.dumps(PLAIN[0])
    outcomes = Counter()
    for position in range(len(whole)):
        for value in b"\x00(R]cq\x93\xff":
            path = written(tmp_path, whole[:position] + bytes([value]) + whole[position + 1 :])
            outcomes[_outcome(path)] += 1
    assert set(outcomes) == {"plain", "refused"}
    assert outcomes["refused"] > outcomes["plain"] > 0


def _outcome(path: Path) -> str:
    try:
        value = read_pickle(path)
    except DataError:
        return "refused"
    return "plain" if isinstance(value, (list, tuple, int, str)) else repr(value)


def test_too_large_or_missing_or_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"bytes; at most 1,048,576 are read\); fetch it"):
        read_pickle(written(tmp_path, b"]" * (1 << 20) + b"."))
    with pytest.raises(DataError, match=r"gone\.pyb: cannot be read \(No such file or directory\)"):
        read_pickle(tmp_path / "gone.pyb")
    with pytest.raises(DataError, match=r"cannot be read \(a folder"):
        read_pickle(tmp_path)


def test_nested_as_deep_as_it_goes(tmp_path):
    depth = 200_000
    value = read_pickle(written(tmp_path, b"]" * depth + b"a" * (depth - 1) + b"."))
    with pytest.raises(DataError, match=r"x, entry 0: found \[\[.*\.\.\..*\]\]; wanted a pair"):
        listed_images(value, "x")


def test_no_module_is_imported(tmp_path):
    assert "this" not in sys.modules
    with pytest.raises(DataError, match=r"asks for this\.s;"):
        read_pickle(written(tmp_path, b"cthis\ns\n."))
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("entries", "listed"),
    [
        ([(12, True), (3, False)], {12: True, 3: False}),
        (([12, 1], [3, 0]), {12: True, 3: False}),
        ([("0012", True), ("003", False), ("20000", True)], {12: True, 3: False, 20000: True}),
        ([], {}),
    ],
)
def test_listed_images(entries, listed):
    assert listed_images(entries, "x") == listed
    assert all(isinstance(counts, bool) for counts in listed_images(entries, "x").values())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (7, r"x: found 7; wanted a list of \(number, has mask\) pairs"),
        ([7], r"x, entry 0: found 7; wanted a pair \(number, has mask\), such as \(12, True\)"),
        ([(1, True), "0002"], "x, entry 1: found '0002'; wanted a pair"),
        ([(1, True, 3)], r"entry 0: found \(1, True, 3\)"),
        ([("part1", True)], r"entry 0: found \('part1', True\)"),
        ([("²", True)], "entry 0"),
        ([("9" * 5000, True)], r"entry 0: found \('9+\.\.\.9+', True\)"),
        ([(True, True)], r"entry 0: found \(True, True\)"),
        ([(1, 2)], r"entry 0: found \(1, 2\)"),
        ([(1, "yes")], r"entry 0: found \(1, 'yes'\)"),
        ([(12, True), ("0012", True)], "entry 1: image 12 stands in it twice"),
    ],
)
def test_lists_that_cannot_be(entries, message):
    with pytest.raises(DataError, match=message):
        listed_images(entries, "x")


def test_by_number():
    images = [Path("a/0012.png"), Path("a/3.png")]
    assert by_number(images) == {12: images[0], 3: images[1]}
    with pytest.raises(DataError, match=r"a/12\.png: has the number of a/0012\.png; remove one"):
        by_number([*images, Path("a/12.png")])
    with pytest.raises(DataError, match=r"a/notes\.png: its name is no number"):
        by_number([Path("a/notes.png")])
