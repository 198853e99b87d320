"""What a long command says while it runs."""

from __future__ import annotations

import io

import pytest

from supersimplenet.training.loop import TrainingProgress
from supersimplenet.training.plan import Plan
from supersimplenet.utils import console


def progress(seconds_per_step: float | None, deadline: float | None = None) -> TrainingProgress:
    plan = Plan(epochs=10, total_steps=1000, noise_std=1.0, feature_scale=1.0, seconds_per_step=seconds_per_step)
    told = TrainingProgress(plan, deadline)
    told.started = 100.0
    return told


def test_a_slower_machine_corrects_the_estimate_once_a_quarter():
    told = progress(0.5, deadline=100.0 + 600)
    assert told.correction(40, 100.0 + 24, 960) is None  # 0.6 s a step
    assert told.correction(5, 100.0 + 30, 995) is None  # too few steps to tell
    assert told.correction(12, 100.0 + 15, 988) is None  # too early
    assert told.correction(100, 100.0 + 100, 900) == (
        "a step takes 1 s, longer than was measured: about 15 min left; the time budget ends 7 min before"
    )
    assert told.correction(200, 100.0 + 240, 800) is None  # 1.2 s: less than a quarter more than was said
    assert told.correction(300, 100.0 + 390, 700).startswith("a step takes 1.3 s")


def test_within_the_budget_only_the_time_is_said():
    assert progress(0.5, deadline=100.0 + 3600).correction(100, 100.0 + 100, 60) == (
        "a step takes 1 s, longer than was measured: about 60 s left"
    )
    assert progress(None).correction(100, 100.0 + 1000, 60) is None  # a short run, for which no time was said


def test_without_a_terminal_a_line_tells_how_far_it_is(monkeypatch):
    clock = [0.0]
    text = io.StringIO()
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(console, "console", lambda: console._Literal(file=text, soft_wrap=True))
    with console.progress_bar() as bar:
        task = bar.add_task("reading", total=2000, detail="loss 0.5")
        for seconds in (10.0, 29.9, 30.0, 45.0, 59.0, 61.0):
            clock[0] = seconds
            bar.advance(task, 100)
        said = [line for line in text.getvalue().splitlines() if line.startswith("reading: ")]
    assert [line.partition(",")[0] for line in said] == ["reading: 300 of 2", "reading: 600 of 2"]
    assert all(line.endswith(", loss 0.5") for line in said)
    assert all("about" in line for line in said)


@pytest.mark.parametrize("total", [None, 5])
def test_a_line_needs_no_total(total):
    bar = console.progress_bar()
    bar.add_task("watching", total=total, completed=3, detail="")
    assert console._line_of(bar.tasks[0]) == ("watching: 3" if total is None else "watching: 3 of 5")


def test_a_notebook_gets_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with console.progress_bar() as bar:
        bar.advance(bar.add_task("reading", total=1, detail=""))
    console.console().print("said")
    console.results().print("found")
    written = capsys.readouterr()
    assert written.err.splitlines()[-1] == "said"
    assert written.out == "found\n"
