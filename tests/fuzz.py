"""The campaign: inputs made from seeds are read as the package reads them, and what goes wrong is kept.

    python tests/fuzz.py --minutes 30 --processes 2 --seed 0       (`make fuzz`)
    python tests/fuzz.py --inputs 500 --only pictures,archives     so many of each of these targets
    python tests/fuzz.py --inputs 3000 --coverage                  lines of the readers that are reached
    python tests/fuzz.py --replay FILE.zip                         one input again, with its traceback

An input ends in a result or in an error of the package: one line that names the file. Anything else is a failure:
another exception, a warning, more than `SECONDS` of processor time, `HANG_S` without an end, a crash, more than
`MEMORY_BYTES`, a file written outside the input's folder, a program started, a connection opened. Each failure is
written to ``--output`` as a zip of the input's files, with its traceback beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
SECONDS, HANG_S, MEMORY_BYTES = 5.0, 60.0, 1 << 30
LARGEST_PEAK_BYTES = 256 << 20  # by which one input may raise the process's memory
LARGEST_INPUT_BYTES = 8 << 20
SLICE_S, SPARE_SLICE_S = 2.0, 1.0
KEPT_OF_A_KIND = 3  # failures with the same last line
LIMITS = {"PIXELS": 1_000_000, "SIDE": 100_000, "BYTES": 1 << 22, "SCAN_PIXELS": 10_000_000}


@dataclass
class Tally:
    """Counts of one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.inputs += 1
        self.accepted += outcome.accepted > 0
        self.refused += outcome.refused > 0
        self.seconds += outcome.seconds
        self.slowest = max(self.slowest, outcome.seconds)


@dataclass(frozen=True)
class Outcome:
    """What became of one input; ``failure`` is a line, ``trace`` what goes beside the input."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    failure: str = ""
    trace: str = ""


def targets() -> dict[str, Any]:
    import fuzz_inputs
    import fuzz_models

    return {**fuzz_inputs.TARGETS, **fuzz_models.TARGETS}


def files_of(name: str, seed: int, number: int) -> dict[str, bytes]:
    """Return the files of an input: the same on every machine with the same libraries."""
    made = targets()[name].make(random.Random(f"{seed}/{name}/{number}"))
    return {path: content[:LARGEST_INPUT_BYTES] for path, content in made.items()}


# --- one input ----------------------------------------------------------------------------------------------------


class _Watch:
    """An audit hook: files that are written outside a folder, programs, connections."""

    _WRITES = (
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.truncate",
        "os.link",
        "os.symlink",
        "shutil.rmtree",
    )
    _NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.bind")

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in self._NEVER:
            self.seen.append(f"{event} {given[:2]!r}")
        elif event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._check(event, given[0])
        elif event in self._WRITES:
            self._check(event, given[1] if event in ("os.rename", "os.link", "os.symlink") else given[0])

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  as it stands, links not followed
            if not place.startswith((*self.allowed, "/dev/", "/proc/")):
                self.seen.append(f"{event} {place!r}")


_WATCH: list[_Watch] = []


@contextmanager
def _watched(folder: Path) -> Iterator[_Watch]:
    if not _WATCH:
        _WATCH.append(_Watch())  # a hook stays for the life of the process
    watch = _WATCH[0]
    watch.seen, watch.allowed = [], (str(folder),)
    try:
        yield watch
    finally:
        watch.allowed = None


def run_case(target: Any, files: dict[str, bytes], scratch: Path, *, seconds: float = SECONDS) -> Outcome:
    """Write the files of an input into a fresh folder, read them, and say what became of them."""
    from fuzz_case import Case

    here = scratch / "input"
    for name, content in files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    case, failure, trace = Case(here), "", ""
    before, peak = time.process_time(), _peak_bytes()
    os.chdir(here)
    with warnings.catch_warnings(record=True) as warned, _watched(here) as watch:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # of pickletools, which Python does not show
        try:
            target.read(case)
        except BaseException as error:  # whatever it is, it is what is looked for
            if isinstance(error, KeyboardInterrupt):
                raise
            trace = traceback.format_exc()
            failure = f"{type(error).__name__}: {error}".partition("\n")[0][:300] + _place(error)
    os.chdir(scratch)
    took = time.process_time() - before
    found = [failure] if failure else []
    found += [
        f"warning: {entry.category.__name__}: {entry.message}"[:300]
        for entry in warned
        if "Detected pickle protocol" not in str(entry.message)  # torch's own word on a file that another program wrote
    ]
    found += [f"forbidden: {event}" for event in watch.seen]
    if took > seconds:
        found.append(f"{took:.0f} s of processor time")
    if (more := _peak_bytes() - peak) > LARGEST_PEAK_BYTES:
        found.append(f"{more >> 20:,} MB of memory")
    shutil.rmtree(here)
    return Outcome(case.accepted, len(case.refused), took, found[0] if found else "", "\n".join((trace, *found)))


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "supersimplenet" in frame.filename]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _peak_bytes() -> int:
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def set_limits() -> None:
    """Let pictures be small, so that an input takes little time; the checks are the same for every limit."""
    for name, value in LIMITS.items():
        os.environ[f"SUPERSIMPLENET_MAX_{name}"] = str(value)


# --- corpus -------------------------------------------------------------------------------------------------------


def packed(name: str, files: dict[str, bytes]) -> bytes:
    """Return an input as a zip; its comment is the target."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
        archive.comment = name.encode()
    return buffer.getvalue()


def unpacked(path: Path) -> tuple[str, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        return archive.comment.decode(), {info.filename: archive.read(info) for info in archive.infolist()}


# --- workers ------------------------------------------------------------------------------------------------------


def _work(pipe: Connection, job: dict[str, Any]) -> None:
    """Read inputs until the time or the number is over; tell of each before it is read and after it."""
    sys.dont_write_bytecode = True
    for descriptor in (1, 2):  # progress, and what native libraries print
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    set_limits()
    known = targets()
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        warm_up(job["names"], scratch)
        numbers = dict(job["numbers"])
        while any(numbers[name] < job["inputs"] for name in job["names"]) and time.time() < job["until"]:
            for name in job["names"]:
                ends = time.monotonic() + (SPARE_SLICE_S if known[name].spare else SLICE_S)
                while time.monotonic() < ends and time.time() < job["until"] and numbers[name] < job["inputs"]:
                    number = numbers[name]
                    pipe.send((name, number, None))
                    _bound_memory()
                    outcome = run_case(known[name], files_of(name, job["seed"], number), scratch)
                    numbers[name] = number + job["step"]
                    pipe.send((name, number, outcome))
    finally:
        os.chdir("/")
        shutil.rmtree(scratch, ignore_errors=True)
        pipe.close()


def _bound_memory() -> None:
    """Let this process have no more than `MEMORY_BYTES` beyond the address space that it has now."""
    try:
        import resource
    except ImportError:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, hard))


class Campaign:
    """Workers, what they found, and where it is kept."""

    def __init__(self, options: argparse.Namespace, names: list[str]) -> None:
        self.options, self.names = options, names
        self.tallies = {name: Tally() for name in names}
        self.until = time.time() + options.minutes * 60 if options.minutes else float("inf")
        self.failed = 0
        self._last: dict[int, tuple[str, int, float]] = {}  # of each worker: the input that it reads, and since when
        self._numbers = [dict.fromkeys(names, place) for place in range(options.processes)]

    def run(self) -> None:
        pipes = {self._start(place): place for place in range(self.options.processes)}
        while pipes:
            for pipe in wait(list(pipes), timeout=1.0):
                assert isinstance(pipe, Connection)
                place = pipes[pipe]
                try:
                    self._heard(place, *pipe.recv())
                except EOFError:
                    del pipes[pipe]
                    if self._ended(place):
                        pipes[self._start(place)] = place
            for place, (name, number, since) in list(self._last.items()):
                if time.monotonic() - since > HANG_S:
                    self._last[place] = (name, number, float("inf"))
                    self._workers[place].kill()
            if self.options.stop and self.failed:
                for worker in self._workers.values():
                    worker.kill()
                return

    _workers: dict[int, Any] = {}  # noqa: RUF012

    def _start(self, place: int) -> Connection:
        mine, theirs = multiprocessing.Pipe(duplex=False)
        job = {
            "names": self.names,
            "seed": self.options.seed,
            "numbers": self._numbers[place],
            "step": self.options.processes,
            "inputs": self.options.inputs or sys.maxsize,
            "until": self.until,
        }
        self._workers[place] = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, job))
        self._workers[place].start()
        theirs.close()
        return mine

    def _heard(self, place: int, name: str, number: int, outcome: Outcome | None) -> None:
        self._numbers[place][name] = number + self.options.processes
        if outcome is None:
            self._last[place] = (name, number, time.monotonic())
            return
        self._last.pop(place, None)
        self.tallies[name].add(outcome)
        if outcome.failure:
            self._keep(name, number, outcome.failure, outcome.trace)

    def _ended(self, place: int) -> bool:
        """Whether the worker died over an input, and another one should go on."""
        worker = self._workers[place]
        worker.join()
        if place not in self._last:
            if worker.exitcode:
                raise SystemExit(f"a worker ended with status {worker.exitcode} before its first input")
            return False
        name, number, since = self._last.pop(place)
        reason = f"no end within {HANG_S:g} s" if since == float("inf") else f"crash, exit status {worker.exitcode}"
        self.tallies[name].inputs += 1
        self._keep(name, number, reason, reason)
        return time.time() < self.until

    def _keep(self, name: str, number: int, failure: str, trace: str) -> None:
        self.failed += 1
        failures = self.tallies[name].failures
        failures[failure] += 1
        if failures[failure] > KEPT_OF_A_KIND:
            return
        output = self.options.output
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"{name}-{self.options.seed}-{number}.zip"
        path.write_bytes(packed(name, files_of(name, self.options.seed, number)))
        path.with_suffix(".txt").write_text(f"{failure}\n\n{trace}\n", errors="backslashreplace")
        print(f"FAILURE {path}: {failure}".encode(errors="backslashreplace").decode(), flush=True)

    def table(self) -> str:
        lines = [
            f"{'target':<12} {'inputs':>9} {'results':>9} {'refused':>9} {'a second':>9} {'slowest':>9} {'failures':>9}"
        ]
        rows = [*self.tallies.items(), ("all", self._sum())]
        for name, tally in rows:
            rate = tally.inputs / tally.seconds if tally.seconds else 0
            lines.append(
                f"{name:<12} {tally.inputs:>9,} {tally.accepted:>9,} {tally.refused:>9,} {rate:>9.0f} "
                f"{tally.slowest:>7.2f} s {sum(tally.failures.values()):>9,}"
            )
        return "\n".join(lines)

    def _sum(self) -> Tally:
        total = Tally()
        for tally in self.tallies.values():
            for name in ("inputs", "accepted", "refused", "seconds"):
                setattr(total, name, getattr(total, name) + getattr(tally, name))
            total.slowest = max(total.slowest, tally.slowest)
            total.failures += tally.failures
        return total


def warm_up(names: list[str], scratch: Path) -> None:
    """Load every library: some open files of their own, or start programs, when they are imported."""
    import fuzz_models

    for name in names:
        for number in range(4):
            run_case(targets()[name], files_of(name, 0, -1 - number), scratch)
    for name, content in fuzz_models.exported().items() if "exports" in names else ():
        run_case(targets()["exports"], {name: content}, scratch)


def replay(path: Path, scratch: Path) -> Outcome:
    """Read an input that was kept; `warm_up` comes first."""
    name, files = unpacked(path)
    return run_case(targets()[name], files, scratch)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="how long; by default until --inputs")
    parser.add_argument("--inputs", type=int, help="so many inputs of each target")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets, with commas between them")
    parser.add_argument("--output", type=Path, default=Path("fuzz-failures"), help="folder for failures")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("--coverage", action="store_true", help="measure the readers' lines, in this process")
    parser.add_argument("--corpus", type=Path, help="with --coverage: keep inputs that reach new lines in this folder")
    parser.add_argument("--replay", type=Path, nargs="+", help="inputs that were kept")
    options = parser.parse_args()
    set_limits()
    if options.replay:
        with tempfile.TemporaryDirectory() as scratch:
            warm_up(sorted({unpacked(path)[0] for path in options.replay}), Path(scratch))
            outcomes = [replay(path.absolute(), Path(scratch)) for path in options.replay]
        for path, outcome in zip(options.replay, outcomes, strict=True):
            print(f"{path}: {outcome.failure or 'as it should be'}\n{outcome.trace}".rstrip())
        return int(any(outcome.failure for outcome in outcomes))
    if options.coverage:
        import fuzz_coverage

        return fuzz_coverage.measure(options)
    names = options.only.split(",") if options.only else list(targets())
    if not options.minutes and not options.inputs:
        parser.error("give --minutes or --inputs")
    started = time.time()
    campaign = Campaign(options, names)
    campaign.run()
    print(campaign.table())
    kinds = {name: dict(tally.failures) for name, tally in campaign.tallies.items() if tally.failures}
    print(f"{time.time() - started:.0f} s, {options.processes} processes, seed {options.seed}")
    print(json.dumps(kinds, indent=1))
    return int(campaign.failed > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    raise SystemExit(main())
