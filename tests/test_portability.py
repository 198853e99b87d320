"""Other systems, as far as Linux can tell: what they lack is missing here, or a stand-in takes its place.

These tests pretend. No part of this suite has run on Windows or macOS: a module is refused, a name removed,
`sys.platform` changed, an open file as protected as on Windows. `make platforms` checks the types as on those systems.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from supersimplenet.cli.main import main
from supersimplenet.datasets.download.unpack import unpack
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.utils import system
from supersimplenet.utils.files import remove_unused
from supersimplenet.utils.journals import append_line, mend_journal
from supersimplenet.utils.names import is_device_name, short_stem

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "supersimplenet"
VERSION_0_1 = ROOT / "tests" / "fixtures" / "version_0_1"
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Modules of the standard library that some systems, or some builds of Python, lack.
UNIX = {
    "_posixsubprocess",
    "curses",
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
}
UNIX |= {"ctypes", "dbm", "sqlite3", "tty"}
WINDOWS = {"msvcrt", "winreg", "winsound", "_winapi", "nt"}
# What `os` and `signal` have on Linux, and not on Windows.
OF_OS = {
    *("chown", "chroot", "ctermid", "fchdir", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid"),
    *("getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getresgid", "getresuid", "getsid", "getuid"),
    *("killpg", "lchown", "lockf", "mkfifo", "mknod", "nice", "openpty", "pathconf", "pipe2", "posix_fadvise"),
    *("posix_fallocate", "posix_spawn", "pread", "pwrite", "readv", "register_at_fork", "sched_getaffinity"),
    *(
        "sched_setaffinity",
        "sched_yield",
        "sendfile",
        "setgid",
        "setpgid",
        "setpriority",
        "setsid",
        "setuid",
        "statvfs",
    ),
    *("sync", "sysconf", "uname", "wait", "wait3", "wait4", "waitid", "writev"),
    *("O_CLOEXEC", "O_DIRECTORY", "O_DIRECT", "O_DSYNC", "O_NOATIME", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK"),
    *("O_PATH", "O_SYNC", "O_TMPFILE", "WNOHANG", "WEXITSTATUS", "WIFSIGNALED"),
}
OF_SIGNAL = {
    *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1"),
    *(
        "SIGUSR2",
        "SIGWINCH",
        "alarm",
        "pause",
        "pthread_kill",
        "pthread_sigmask",
        "setitimer",
        "sigwait",
        "siginterrupt",
    ),
}
GUARDED = {"utils/locks.py": {"fcntl", "msvcrt", "register_at_fork"}, "utils/system.py": {"ctypes", "resource"}}
GUARDED["utils/system.py"] |= {"sched_getaffinity", "killpg", "SIGKILL"}


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def nodes(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def system_names(file: Path) -> Iterator[str]:
    """Yield what a file uses that only some systems have."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from {alias.name.partition(".")[0] for alias in node.names} & (UNIX | WINDOWS)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from {node.module.partition(".")[0]} & (UNIX | WINDOWS)
            if node.module in ("os", "signal"):
                yield from {alias.name for alias in node.names} & (OF_OS | OF_SIGNAL)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from {node.attr} & {"os": OF_OS, "signal": OF_SIGNAL}.get(node.value.id, set())


def test_what_only_some_systems_have_is_used_in_two_places():
    found = {name_of(file): set(system_names(file)) for file in SOURCES}
    assert {name: used for name, used in found.items() if used} == GUARDED


def test_every_text_file_is_opened_with_its_encoding():
    """By default it is that of the system: UTF-8 on Linux, and on Windows another one."""
    missing = []
    for file in SOURCES:
        for node in nodes(file):
            if not isinstance(node, ast.Call) or "encoding" in {keyword.arg for keyword in node.keywords}:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            is_method = isinstance(node.func, ast.Attribute)
            modes = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            is_mode = any(mode and set(mode) <= set("rwax+t") for mode in modes)
            says_text = any(keyword.arg in ("text", "universal_newlines") for keyword in node.keywords)
            if (
                (called in ("open", "fdopen") and is_mode)
                or (called in ("read_text", "write_text") and is_method)
                or (called in ("run", "Popen", "check_output") and says_text)
                or (called in ("NamedTemporaryFile", "TemporaryFile") and is_mode)
            ):
                missing.append(f"{name_of(file)}:{node.lineno}: {called}")
    assert missing == []


# A Python as on another system: modules refused, names of `os` and `signal` removed, before the package is imported.
LACKING = """
import importlib, os, runpy, signal, sys
refused, removed, module, *sys.argv[1:] = sys.argv[1:]
refused = set(refused.split(","))

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] in refused]:
    del sys.modules[name]
sys.meta_path.insert(0, Lacking())
for name in removed.split(","):
    for owner in (os, signal):
        if hasattr(owner, name):
            delattr(owner, name)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
# `wait`, `sysconf` and the like stay: the standard library itself takes them for given where os.name is posix.
GONE = (
    "sched_getaffinity",
    "register_at_fork",
    "O_NONBLOCK",
    "O_CLOEXEC",
    "O_NOFOLLOW",
    "O_DIRECTORY",
    "mkfifo",
    "fork",
    "forkpty",
)
GONE = (*GONE, "getuid", "geteuid", "getloadavg", "statvfs", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM")
REFUSED = {"fcntl", "grp", "pwd", "readline", "resource", "syslog", "termios", "tty", "pty", "curses"}


def lacking(module: str, *arguments: str, refused: set[str] = REFUSED) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LACKING, ",".join(refused), ",".join(GONE), module, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"]])
def test_the_help_needs_no_module_that_only_linux_has(arguments):
    done = lacking("supersimplenet", *arguments, refused=REFUSED | {"ctypes"})
    assert done.returncode == 0, done.stderr
    assert "usage: supersimplenet" in done.stdout


@pytest.mark.parametrize(("engine", "refused"), [("onnx", REFUSED | {"ctypes"}), ("openvino", REFUSED)])
def test_the_runtime_needs_no_module_that_only_linux_has(engine, refused):
    """OpenVINO's own package needs ctypes; with ONNX Runtime the runtime does without it."""
    file, images = str(VERSION_0_1 / f"plain.{engine}"), str(VERSION_0_1 / "images")
    done = lacking("supersimplenet.runtime", file, images, refused=refused)
    assert done.returncode == 0, done.stderr
    expected = VERSION_0_1 / "rows" / f"plain.{engine}" / "predictions.jsonl"
    rows, wanted = ([json.loads(line) for line in text.splitlines()] for text in (done.stdout, expected.read_text()))
    assert [row["score_logit"] for row in rows] == pytest.approx([row["score_logit"] for row in wanted], abs=1e-4)


def test_predict_without_locks_says_so_and_goes_on(tmp_path):
    model, images = str(VERSION_0_1 / "plain.onnx"), str(VERSION_0_1 / "images")
    done = lacking("supersimplenet", "predict", "--model", model, images, "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (
        "cannot be locked here (this Python has no module fcntl): make sure that nothing else writes here"
        in done.stderr
    )
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 4


def test_there_is_no_peak_memory_without_resource(monkeypatch):
    assert system.peak_memory_mib() > 10
    monkeypatch.setitem(sys.modules, "resource", None)  # an import then raises ImportError
    assert system.peak_memory_mib() is None
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "win32")
    assert system.peak_memory_mib() is None


def test_freed_blocks_are_left_alone_where_glibc_cannot_be_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert system.keep_freed_blocks() is False
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert system.keep_freed_blocks() is False


def test_cores_and_name_of_the_cpu_are_known_without_linux(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert system.available_cores() == os.cpu_count()
    monkeypatch.setattr(system.Path, "is_file", lambda path: False)  # as without /proc
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert system.cpu_name() == "arm64"


def test_on_windows_the_handlers_of_sigterm_run(monkeypatch):
    """os.kill would end the process there without them; so it is not called."""
    seen = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *given: pytest.fail("os.kill"))
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        system._terminate()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


# As Windows has it: msvcrt locks a byte of a file, and refuses with PermissionError where another process holds it.
WINDOWS_LOCK = """
import fcntl, os, sys, types
from pathlib import Path
import supersimplenet.utils.console

def locking(descriptor, mode, count):
    at = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, at)
    except OSError as error:
        raise PermissionError(13, "Permission denied") from error

sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
sys.platform = "win32"
from supersimplenet.utils.locks import writing_into
with writing_into(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_windows_is_exclusive_and_leaves_no_file(tmp_path):
    command = [sys.executable, "-c", WINDOWS_LOCK, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline().strip() == b"locked"
        second = subprocess.run(command, input="", capture_output=True, encoding="utf-8", check=False)
        assert "another process is writing here (pid" in second.stderr.splitlines()[-1]
        first.stdin.close()
        assert first.wait() == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which files are open")
def test_a_journal_is_mended_without_a_rename_onto_an_open_file(tmp_path, monkeypatch):
    """Windows refuses such a rename; here a stand-in does."""
    journal, replace = tmp_path / "runs.jsonl", os.replace
    for number in range(3):
        append_line(journal, {"key": f"run{number}"})
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1].replace(b"run1", b"run9") + lines[2])

    def as_windows(source, target, **options):
        if any(link.resolve() == Path(target).resolve() for link in Path("/proc/self/fd").iterdir()):
            raise PermissionError(errno.EACCES, "the file is open")
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", as_windows)
    with journal.open("rb"), pytest.raises(PermissionError):  # the stand-in stands in
        (tmp_path / "none").replace(journal)
    assert mend_journal(journal, first="key") == (3 - 1, 1, 1)
    assert journal.read_bytes() == lines[0] + lines[2]


def test_a_mapped_file_may_stay_on_windows_alone(tmp_path, monkeypatch):
    (tmp_path / "features.cache").write_bytes(b"1")
    remove_unused(tmp_path / "features.cache")
    assert not (tmp_path / "features.cache").exists()
    remove_unused(tmp_path / "features.cache")  # there is none

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "the file is mapped", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionError):
        remove_unused(tmp_path / "features.cache")
    monkeypatch.setattr(sys, "platform", "win32")
    remove_unused(tmp_path / "features.cache")


def test_names_of_files_are_names_on_windows_too(monkeypatch):
    name = 'parts/a:b<1>|"x"?*.png'
    assert short_stem(name) == 'a:b<1>|"x"?*'
    monkeypatch.setattr(sys, "platform", "win32")
    assert short_stem(name) == "a_b_1___x___"
    assert short_stem("ä 017.png") == "ä 017"


@pytest.mark.parametrize("name", ["nul", "CON.png", "Aux .txt", "com1", "LPT9.tar.gz", "conin$"])
def test_an_archive_with_a_name_of_a_device_is_refused(name, tmp_path):
    assert is_device_name(name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"good/{name}", b"1")
    with pytest.raises(DataError, match="names a device on Windows"):
        unpack(tmp_path / "a.zip", tmp_path / "out", at_most_bytes=10_000, wanted=lambda path: True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["null", "console.png", "com.png", "com10", "a.con", "auxiliary"])
def test_other_names_are_no_devices(name):
    assert not is_device_name(name)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_the_help_is_printed_in_any_encoding(encoding, monkeypatch):
    """As where standard output is redirected on Windows; characters that it lacks are escaped."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for module, option in (("supersimplenet", "train"), ("supersimplenet.runtime", None)):
        command = [sys.executable, "-m", module, *([option] if option else []), "--help"]
        done = subprocess.run(command, capture_output=True, encoding=encoding, env=environment, check=False)
        assert done.returncode == 0, done.stderr


def test_a_preprocessor_that_aligns_can_be_pickled():
    """A process that reads ahead gets it so, where processes are spawned."""
    reference = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    view = ViewConfig(align="translation", reference="reference.png", max_residual=0.5)
    preprocessor = Preprocessor(view, size_px=(64, 64), strides=(4,), reference=reference)
    copy = pickle.loads(pickle.dumps(preprocessor))
    assert copy.aligner.align(reference, "same")[1] == preprocessor.aligner.align(reference, "same")[1]


@pytest.mark.slow
def test_training_reads_ahead_in_processes_that_are_spawned(tmp_path):
    """The way that Windows and macOS start processes, which Linux has, too: what a worker needs is pickled."""
    drawn = ["--surfaces", "[cast_grain]", "--size_px", "[64,64]", "--train_good", "4", "--test_good", "1"]
    assert main(["data", "synthesize", "--output", str(tmp_path / "data"), *drawn, "--test_per_defect", "1"]) == 0
    code = (
        "import multiprocessing, sys\n"
        "from supersimplenet.cli.main import main\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "spawned.py").write_text(code, encoding="utf-8")
    options = ["--data", "MVTecAD", "--data.root", str(tmp_path / "data"), "--data.category", "cast_grain"]
    options += ["--model.backbone", "compact", "--model.image_size", "[64,64]", "--trainer.accelerator", "cpu"]
    options += ["--trainer.max_steps", "1", "--trainer.escapes_share", "0", "--trainer.num_workers", "1"]
    options += ["--cache.memory_gib", "0", "--cache.disk_gib", "0", "--output", str(tmp_path / "model")]
    command = [sys.executable, str(tmp_path / "spawned.py"), "train", *options]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "model.safetensors").is_file()
