"""Run the accuracy benchmark: train and test the missing runs, and summarise all results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supersimplenet.benchmark import plot, tables
from supersimplenet.benchmark.config import STOPS_WITHIN_S, AccuracyConfig
from supersimplenet.benchmark.journal import FAILURES_FILE, RUNS_FILE, Line, check_settings, read_lines
from supersimplenet.benchmark.launcher import RunFailedError, carry_out, comparable
from supersimplenet.benchmark.protocol import default_protocol, protocol_settings
from supersimplenet.benchmark.runs import DataFamily, Run, plan_runs
from supersimplenet.benchmark.summary import Figure, summarise
from supersimplenet.datasets.registry import source_from
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.model.layers import resolve_layers
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.utils.console import console, progress_bar, results
from supersimplenet.utils.files import write_text
from supersimplenet.utils.journals import append_line
from supersimplenet.utils.locks import writing_into
from supersimplenet.utils.serialization import to_plain

CSV_FILE, MARKDOWN_FILE, PLOT_FILE = "results.csv", "results.md", "ap_against_masks.png"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Results of an accuracy benchmark.

    Attributes:
        lines: the line of every finished run in the folder.
        figures: the means of these runs, with the published figures.
        failed: keys of the runs that failed.
    """

    lines: list[Line]
    figures: list[Figure]
    failed: list[str]


def benchmark_accuracy(
    data: DataFamily,
    output: str | Path,
    config: AccuracyConfig | None = None,
    *,
    model: ModelConfig | None = None,
    view: ViewConfig | None = None,
    recipe: Recipe | None = None,
    trainer: TrainerConfig | None = None,
    cache: CacheConfig | None = None,
) -> Study:
    """Train and test every run that is not finished in the folder yet; write the tables and the plot.

    Args:
        data: the dataset.
        output: the benchmark's folder, see `supersimplenet.benchmark.journal`.
        config: the runs, and the devices or number of processes for them.
        model: see `supersimplenet.train`.
        view: see `supersimplenet.train`; by default, like recipe and trainer, that of ``config.protocol``.
        recipe: see `supersimplenet.train`.
        trainer: see `supersimplenet.train`.
        cache: see `supersimplenet.train`.

    Raises:
        ConfigError: the runs in the folder have other settings, or an option is not valid.
        DataError: there is no category, or the dataset of the first missing run cannot be read.
        OutputError: another process writes into the folder.
    """
    folder, config = Path(output), config or AccuracyConfig()
    protocol = config.protocol or default_protocol(data.kind.__name__)
    usual = protocol_settings(protocol)
    settings: dict[str, Any] = {
        "model": to_plain(resolve_layers(model or ModelConfig())),
        "view": to_plain(view or usual.view),
        "recipe": to_plain(recipe or usual.recipe),
        "trainer": to_plain(trainer or usual.trainer),
        "cache": to_plain(cache or CacheConfig()),
        "time_budget": config.time_budget,
        "aupro": "anomalib" if protocol == "published" else "exact",
    }
    if config.time_budget is not None:
        parse_duration(config.time_budget)
    runs = plan_runs(data, config)
    # Longer than the runs of an earlier benchmark take to end, once it is stopped.
    with writing_into(folder, wait_s=STOPS_WITHIN_S + 10) as lock:
        lines = read_lines(folder / RUNS_FILE)
        check_settings(folder / RUNS_FILE, lines, comparable(runs[0], settings))
        known = {line["key"] for line in lines}
        missing = [run for run in runs if run.key not in known]
        if missing:
            source_from(missing[0].data).samples()  # so that a wrong root gives one error, and not one in each run
        console().print(f"runs: {len(runs)}, done before: {len(runs) - len(missing)}")
        failed = _run(missing, folder, config, settings, lines, lock) if missing else []
        figures = write_results(folder, lines, failures=len(failed)) if lines else []
    if figures:
        results().print(tables.results_text(figures))
        for sentence in tables.describe(lines, figures):
            results().print(sentence)
    return Study(lines=lines, figures=figures, failed=failed)


def write_results(folder: Path, lines: Sequence[Line], *, failures: int = 0) -> list[Figure]:
    """Write results.csv, results.md and the plot for at least one run; return the figures."""
    figures = summarise(lines)
    drawn = plot.draw(lines, figures, folder / PLOT_FILE, title=f"{tables.title(lines)}: what masks bring")
    text = tables.results_markdown(lines, figures, failures=failures, picture=PLOT_FILE if drawn else None)
    write_text(folder / MARKDOWN_FILE, text)
    write_text(folder / CSV_FILE, tables.results_csv(figures, lines[0]["dataset"]))
    return figures


def _run(
    runs: Sequence[Run], folder: Path, config: AccuracyConfig, settings: dict[str, Any], lines: list[Line], lock: int
) -> list[str]:
    """Train and test runs, add each to the lines and to the results; return the keys of the failed runs."""
    failed: list[str] = []
    at_work: list[str] = []
    with progress_bar() as bar:
        task = bar.add_task("runs", total=len(runs), detail="")

        def begun(run: Run) -> None:
            at_work.append(run.key)
            bar.update(task, detail=", ".join(at_work))

        def ended(run: Run, text: str) -> None:
            at_work.remove(run.key)
            bar.update(task, advance=1, detail=", ".join(at_work))
            bar.console.print(f"{run.key}: {text}")

        def done(run: Run, line: Line) -> None:
            append_line(folder / RUNS_FILE, line)
            lines.append(line)
            write_results(folder, lines, failures=len(failed))
            shown = [f"{name} {value:.4f}" for name, value in line["metrics"].items() if value is not None]
            ended(run, f"{', '.join(shown)}; {line['train_seconds']:.0f} s training, {line['test_seconds']:.0f} s test")

        def not_done(run: Run, error: RunFailedError) -> None:
            append_line(folder / FAILURES_FILE, {"key": run.key, "error": str(error)})
            failed.append(run.key)
            ended(run, f"failed: {error}")

        carry_out(runs, folder, config, settings, lock=lock, begun=begun, done=done, failed=not_done)
    return failed
