"""Locks: two commands never write into one folder, or to one file, at the same time.

The system itself holds the lock (``flock``, on Windows a locked byte of the lock file), so it ends with the process,
also after kill -9 or a power cut. The lock file is hidden and is removed at the end; one that a killed process has left
behind locks nothing.
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from supersimplenet.errors import OutputError

LOCK_FILE = ".lock"
WAIT_TO_WRITE_S = 60.0  # for a command that has computed for long, and then writes for a moment
_TRY_AGAIN_S = 0.25
_BEYOND = 1 << 30  # the byte that is locked on Windows: behind the text, which other processes read
_held: set[int] = set()


class LockedError(OutputError):
    """Another process holds the lock.

    Attributes:
        holder: who that is, in brackets with a space before; empty where it cannot be read.
    """

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


@contextmanager
def writing_into(folder: Path, *, wait_s: float = 0.0, advice: str = ", or name another --output") -> Iterator[int]:
    """Lock a folder, which is made where it is missing, for as long as this process writes into it.

    Folders that were made for it and are empty at the end are removed, so that a command that fails leaves none.

    Args:
        folder: the folder.
        wait_s: seconds to wait for another process that holds the lock.
        advice: end of the error's advice, which begins with "wait for it, stop it".

    Yields:
        The file descriptor of the lock. A process that inherits it (``pass_fds``) keeps the folder locked; one that is
        forked does not.

    Raises:
        LockedError: another process is writing into the folder.
        OutputError: the folder cannot be written.
    """
    with _made(folder), _locked(folder / LOCK_FILE, folder, wait_s, advice) as descriptor:
        yield descriptor


@contextmanager
def writing_file(file: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Lock one file, whose folder is made where it is missing; see `writing_into`."""
    lock = file.with_name(f".{file.name}{LOCK_FILE}")
    with _made(file.parent), _locked(lock, file, wait_s, ", or name another file"):
        yield


def is_unused(folder: Path) -> bool:
    """Return whether there is no such folder, or one that holds nothing but its lock."""
    return not folder.exists() or (folder.is_dir() and all(path.name == LOCK_FILE for path in folder.iterdir()))


def is_held(folder: Path) -> bool:
    """Return whether a process, this one included, is writing into a folder; see `writing_into`."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:  # nobody has ever locked it, or its holder has ended
        return False
    try:
        _lock(descriptor)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the first one that is not empty ends it
            for path in new:
                path.rmdir()


@contextmanager
def _locked(path: Path, named: Path, wait_s: float, advice: str) -> Iterator[int]:
    descriptor = _acquire(path, named, wait_s, advice)
    _held.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)
            _remove(path)


def _acquire(path: Path, named: Path, wait_s: float, advice: str) -> int:
    """Open and lock the file at ``path``, and write into it who holds it; return its descriptor."""
    give_up = time.monotonic() + wait_s
    told = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise _not_writable(named, error) from error
        try:
            if _take(descriptor, named) and not _is_at(descriptor, path):
                os.close(descriptor)  # its holder removed it after it was opened: another file is the lock now
                continue
            os.truncate(descriptor, 0)
            os.write(descriptor, _this_process().encode())
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= give_up:
                holder = _holder(path)
                raise LockedError(
                    f"{named}: another process is writing here{holder}; wait for it, stop it{advice}", holder=holder
                ) from None
            if not told:
                _tell(f"{named}: waiting for another process to end that is writing here{_holder(path)}")
            told = True
            time.sleep(_TRY_AGAIN_S)
            continue
        except OSError as error:
            os.close(descriptor)
            raise _not_writable(named, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _remove(path: Path) -> None:
    """Remove a lock file, unless another process, or one that inherited the lock, holds it."""
    with suppress(OSError):
        if sys.platform == "win32":
            path.unlink()  # fails while another process has it open
            return
        descriptor = os.open(path, os.O_RDWR)
        try:
            _lock(descriptor)
            if _is_at(descriptor, path):
                path.unlink()
        finally:
            os.close(descriptor)


def _take(descriptor: int, named: Path) -> bool:
    """Lock an open file; return False, with a warning, where the file system has no locks.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    try:
        _lock(descriptor)
    except BlockingIOError:
        raise
    except OSError as error:
        _tell(f"{named}: cannot be locked here ({error.strerror}): make sure that nothing else writes here")
        return False
    return True


if sys.platform == "win32":

    def _lock(descriptor: int) -> None:
        import msvcrt

        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
        os.lseek(descriptor, 0, os.SEEK_SET)

else:

    def _lock(descriptor: int) -> None:
        try:
            import fcntl
        except ImportError as error:
            raise OSError(errno.ENOLCK, "this Python has no module fcntl") from error
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _this_process() -> str:
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    words = ["supersimplenet" if program == "__main__.py" else program, *sys.argv[1:2]]
    shown = " ".join([shlex.join(words), *(["…"] if len(sys.argv) > 2 else [])])
    return f"pid {os.getpid()}, `{shown}`, since {datetime.now():%Y-%m-%d %H:%M} on host {socket.gethostname()}"


def _holder(path: Path) -> str:
    """Return who wrote the lock file, in brackets; nothing where this cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.readline(300).strip()
    except OSError:
        return ""
    return f" ({text})" if text.isprintable() and text else ""


def _not_writable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror}); choose another --output, or mend the cause")


def _tell(text: str) -> None:
    from supersimplenet.utils.console import console  # imported here, because it needs rich

    console().print(text)


def _forget() -> None:
    """Close the locks in a forked process, which would keep them after the end of the process that writes."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
