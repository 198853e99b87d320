"""The accuracy benchmark: its runs, its journal, its figures beside the published ones, its tables and plot."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.benchmark import launcher
from supersimplenet.benchmark.config import AccuracyConfig
from supersimplenet.benchmark.journal import METRICS, check_settings, read_lines
from supersimplenet.benchmark.plot import draw, prepare_panel
from supersimplenet.benchmark.published import published_categories, published_figures, published_masks
from supersimplenet.benchmark.runs import DataFamily, plan_runs
from supersimplenet.benchmark.summary import summarise
from supersimplenet.benchmark.tables import results_csv, results_markdown
from supersimplenet.cli.main import main
from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.ksdd2 import KSDD2
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.sensum import SensumSODF
from supersimplenet.datasets.table import Table
from supersimplenet.datasets.visa import VisA
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.utils.journals import append_line

SMALL = ["--model.backbone", "compact", "--model.image_size", "[64,64]", "--trainer.accelerator", "cpu"]
SMALL += ["--trainer.holdout_fraction", "0.2"]  # two of six good images
SETTINGS = {"data": {"class_path": "x"}, "model": {"backbone": "compact", "variant": "jims"}, "time_budget": None}
VERSIONS = {"supersimplenet": "0.1.0", "torch": "2.6.0", "timm": "1.0.9"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two surfaces, and below them a folder that is none."""
    root = tmp_path_factory.mktemp("surfaces")
    counts = {"train_good": 6, "test_good": 2, "test_per_defect": 1}
    synthesize(root, SyntheticConfig(surfaces=("brushed_metal", "cast_grain"), size_px=(64, 64), **counts))
    (root / "notes").mkdir()
    return root


def line(
    seed: int = 0,
    *,
    regime: str = "unsupervised",
    masks: str | None = None,
    dataset: str = "KSDD2",
    category: str | None = None,
    fold: int | None = None,
    images: tuple[int, int, int] = (100, 0, 0),
    **metrics: float | None,
) -> dict:
    """A line of runs.jsonl, with AP_det for AP-det."""
    named = {name.replace("_", "-"): value for name, value in metrics.items()}
    return {
        "key": f"{category}-{fold}-{regime}-{masks}-{seed}",
        "dataset": dataset,
        "category": category or dataset,
        "fold": fold,
        "regime": regime,
        "masks": masks,
        "masks_from": None if masks is None else "split file",
        "seed": seed,
        "metrics": named,
        "training_images": dict(zip(("good", "bad_with_mask", "bad_without_mask"), images, strict=True)),
        "image_size": [640, 232],
        "epochs": 300,
        "steps": 1200,
        "train_seconds": 60.0,
        "resumed": False,
        "test_seconds": 5.0,
        "settings": SETTINGS,
        "versions": VERSIONS,
    }


def ksdd2_lines() -> list[dict]:
    """Four regimes, two seeds."""
    regimes = (
        ("unsupervised", None, (2085, 0, 0), 0.50, 0.40),
        ("weak", None, (2085, 0, 246), 0.96, 0.50),
        ("mixed", "16", (2085, 16, 230), 0.97, 0.60),
        ("full", None, (2085, 246, 0), 0.98, 0.80),
    )
    return [
        line(seed, regime=regime, masks=masks, images=images, AP_det=det + 0.01 * seed, AP_loc=loc + 0.02 * seed)
        for seed in (0, 1)
        for regime, masks, images, det, loc in regimes
    ]


def only(figures, **wanted):
    (found,) = [f for f in figures if all(getattr(f, name) == value for name, value in wanted.items())]
    return found


# Runs


def test_ksdd2_and_sensum_take_their_own_split_files_where_there_is_one():
    regimes = ("weak", "mixed:16", "mixed:20", "mixed:0.25", "full")
    runs = plan_runs(DataFamily(kind=KSDD2, arguments={}), AccuracyConfig(regimes=regimes))
    assert [run.data["init_args"]["masks"] for run in runs] == [None, 16, None, None, None]
    assert [run.masks_from for run in runs] == [None, "split file", "seeded subset", "seeded subset", None]
    assert [run.options.get("masks") for run in runs] == [None, None, "20", "0.25", None]
    assert [run.options["supervision"] for run in runs] == ["weak", "mixed", "mixed", "mixed", "full"]
    assert {run.category for run in runs} == {"KSDD2"}
    family = DataFamily(kind=SensumSODF, arguments={"root": Path("sensum")})
    runs = plan_runs(family, AccuracyConfig(categories=("softgel",), regimes=("mixed:0.2", "mixed:0.25")))
    assert [(run.fold, run.data["init_args"]["fold"], run.data["init_args"]["masks"]) for run in runs] == [
        (0, 0, 20),
        (0, 0, 100),
        (1, 1, 20),
        (1, 1, 100),
        (2, 2, 20),
        (2, 2, 100),
    ]
    assert runs[0].key == "softgel_fold0_mixed-0.2_seed0"
    assert runs[0].shared_data == {"class_path": "SensumSODF", "root": str(Path("sensum").resolve())}


def test_all_categories_are_those_that_the_root_holds(root, capsys):
    runs = plan_runs(DataFamily(kind=MVTecAD, arguments={"root": root}), AccuracyConfig(seeds=(0, 1)))
    assert [(run.category, run.seed) for run in runs] == [
        ("brushed_metal", 0),
        ("cast_grain", 0),
        ("brushed_metal", 1),
        ("cast_grain", 1),
    ]
    assert "not a category: notes" in capsys.readouterr().err
    assert len({run.key for run in runs}) == 4


def test_categories_may_lie_further_down_where_their_source_looks(root, tmp_path):
    (tmp_path / "VisA_pytorch").mkdir()
    (tmp_path / "VisA_pytorch" / "1cls").symlink_to(root)
    runs = plan_runs(DataFamily(kind=VisA, arguments={"root": tmp_path}), AccuracyConfig())
    assert [run.category for run in runs] == ["brushed_metal", "cast_grain"]


def test_a_published_category_that_cannot_be_read_is_not_passed_over(tmp_path):
    (tmp_path / "bottle" / "train" / "good").mkdir(parents=True)
    with pytest.raises(DataError, match="bottle"):
        plan_runs(DataFamily(kind=MVTecAD, arguments={"root": tmp_path}), AccuracyConfig())


def test_sources_without_categories_have_one_and_take_no_choice(tmp_path):
    family = DataFamily(kind=Table, arguments={"path": tmp_path / "parts.csv"})
    (run,) = plan_runs(family, AccuracyConfig())
    assert (run.category, run.fold, run.key) == ("Table/parts", None, "Table-parts_unsupervised_seed0")
    with pytest.raises(ConfigError, match="categories: a; Table has none: leave this option out"):
        plan_runs(family, AccuracyConfig(categories=("a",)))
    with pytest.raises(ConfigError, match="folds: 0, 1; Table has none"):
        plan_runs(family, AccuracyConfig(folds=(0, 1)))

    class Own(DataSource):
        name = "own"

        def samples(self):
            return []

    with pytest.raises(ConfigError, match="data: Own cannot be rebuilt by name"):
        DataFamily(kind=Own, arguments={})
    with pytest.raises(DataError, match="no category of MVTecAD in it"):
        plan_runs(DataFamily(kind=MVTecAD, arguments={"root": tmp_path}), AccuracyConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regimes": ("mixed:0",)}, "regimes: 'mixed:0'; write unsupervised, weak, full, mixed"),
        ({"regimes": ("mixed:1.5",)}, "regimes: 'mixed:1.5'"),
        ({"regimes": ("mixed:0.250",)}, "regimes: 'mixed:0.250'"),
        ({"regimes": ("weak", "weak")}, "regimes: weak, weak; give one or more, each once"),
        ({"seeds": ()}, "seeds: none; give one or more, each once"),
        ({"folds": (1, 1)}, "folds: 1, 1; give one or more, each once"),
        ({"jobs": 0}, "jobs: 0; it must be at least 1"),
        ({"jobs": 2, "devices": ("0", "1")}, "jobs: 2 with devices 0, 1; a device has one run at a time"),
    ],
)
def test_choices_that_cannot_be(options, message):
    with pytest.raises(ConfigError) as stop:
        AccuracyConfig(**options)
    assert message in str(stop.value)


def test_where_runs_compute(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    environments = launcher._environments
    assert environments(AccuracyConfig()) == [{}]
    assert environments(AccuracyConfig(devices=("0", "3"))) == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "3"},
    ]
    assert environments(AccuracyConfig(jobs=3)) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environments(AccuracyConfig(jobs=3)) == [{"OMP_NUM_THREADS": "1"}] * 3


# The journal


def test_a_line_cut_off_while_written_is_replaced_by_the_next(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert read_lines(path) == []
    append_line(path, {"key": "a", "name": "é"})
    with path.open("ab") as file:
        file.write(b'{"key": "b", "na')
    assert [line["key"] for line in read_lines(path)] == ["a"]
    append_line(path, {"key": "c"})
    assert read_lines(path) == [{"key": "a", "name": "é"}, {"key": "c"}]
    path.write_bytes(b'{"key": "a"}\n{"other": 1}\n')
    with pytest.raises(DataError, match=r"runs.jsonl, line 2: not a run .*; remove that line and call again"):
        read_lines(path)


def test_settings_that_differ_are_named():
    lines = [line(0, AP_det=0.9)]
    check_settings(Path("runs.jsonl"), lines, SETTINGS)
    other = {**SETTINGS, "model": {"backbone": "resnet18", "variant": "jims"}, "time_budget": "10m"}
    with pytest.raises(ConfigError) as stop:
        check_settings(Path("runs.jsonl"), lines, other)
    assert str(stop.value) == (
        "runs.jsonl: holds runs with other settings: model.backbone compact there, resnet18 here; "
        "time_budget None there, 10m here; name another --output, or give the settings of those runs"
    )


# Figures


def test_mean_and_deviation_by_hand():
    """Per seed the mean over folds, then over categories; over seeds the sample deviation.

    capsule: seed 0 (0.8 + 0.9 + 0.85) / 3 = 0.85, seed 1 0.95; mean 0.90, deviation 0.1 / sqrt(2).
    softgel: 0.65 and 0.77; mean 0.71, deviation 0.12 / sqrt(2). Both: 0.75 and 0.86; 0.805, 0.11 / sqrt(2).
    """
    values = {
        ("capsule", 0): (0.8, 0.9, 0.85),
        ("capsule", 1): (0.9, 1.0, 0.95),
        ("softgel", 0): (0.6, 0.7, 0.65),
        ("softgel", 1): (0.74, 0.8, 0.77),
    }
    lines = [
        line(seed, dataset="SensumSODF", category=category, fold=fold, regime="full", AP_det=of_folds[fold])
        for (category, seed), of_folds in values.items()
        for fold in (0, 1, 2)
    ]
    figures = summarise(lines)
    assert [(f.category, f.n) for f in figures] == [("mean", 2), ("capsule", 2), ("softgel", 2)]
    assert [f.mean for f in figures] == pytest.approx([0.805, 0.90, 0.71])
    assert [f.std for f in figures] == pytest.approx([x / math.sqrt(2) for x in (0.11, 0.1, 0.12)])
    assert figures[0].published.mean == 0.9495
    assert figures[0].difference(figures[0].published) == pytest.approx(0.805 - 0.9495)

    missing = lines[:-1]  # seed 1 of softgel lacks a fold: it counts for capsule alone
    figures = summarise(missing)
    assert [(f.category, f.n) for f in figures] == [("mean", 1), ("capsule", 2), ("softgel", 1)]
    assert figures[0].mean == pytest.approx(0.75)
    assert figures[0].std is None

    alone = summarise([one for one in lines if one["category"] == "capsule"])
    assert [f.category for f in alone] == ["capsule"]  # no mean over one
    assert alone[0].published.mean == 0.93085


@pytest.mark.parametrize("folds", [(0,), (0, 2), (0, 1)])
def test_a_fold_that_was_not_run_leaves_the_published_column_empty(folds):
    def figures_of(chosen):
        options = {"dataset": "SensumSODF", "regime": "full", "images": (90, 40, 0), "AP_det": 0.9, "AP_loc": 0.7}
        lines = [line(0, category=name, fold=fold, **options) for name in ("capsule", "softgel") for fold in chosen]
        return lines, summarise(lines)

    lines, figures = figures_of(folds)
    assert [figure.published for figure in figures] == [None] * 6
    text = results_markdown(lines, figures, failures=0, picture=None)
    assert "Published figures are means over 3 folds, which were not all run" in text
    assert "Beside the published figures" not in text
    rows = list(csv.DictReader(results_csv(figures, "SensumSODF").splitlines()))
    assert {row["published_mean"] + row["published_difference"] for row in rows} == {""}
    assert prepare_panel(lines, figures, "AP-det").published.masks == []
    lines, figures = figures_of((0, 1, 2))
    assert [figure.published.mean for figure in figures[:2]] == [0.9495, 0.72198]
    assert prepare_panel(lines, figures, "AP-det").published.masks != []


def test_an_undefined_metric_is_left_out_of_its_mean():
    figures = summarise([line(0, AP_det=0.5, AUPRO=None), line(1, AP_det=0.7, AUPRO=0.9), line(2, AP_det=0.9)])
    assert (only(figures, metric="AP-det").n, only(figures, metric="AP-det").mean) == (3, pytest.approx(0.7))
    assert (only(figures, metric="AUPRO").n, only(figures, metric="AUPRO").mean) == (1, 0.9)
    (never,) = summarise([line(0, AUPRO=None)])
    assert (never.n, never.mean, never.std, never.difference(never.published)) == (0, None, None, None)


def test_the_published_row_of_a_figure_by_hand():
    """jims,KSDD2,mixed,126,mean,AP-loc,0.76528,0.00624"""
    (figure,) = summarise([line(0, regime="mixed", masks="126", AP_loc=0.7)])
    assert (figure.published.source, figure.published.mean, figure.published.std) == ("jims", 0.76528, 0.00624)
    assert figure.difference(figure.published) == pytest.approx(0.7 - 0.76528)
    assert figure.anomalib is None
    (unpublished,) = summarise([line(0, regime="mixed", masks="100", AP_loc=0.7)])
    assert unpublished.published is None


def test_every_published_row_is_found(shared_dir):
    shipped = Path(launcher.__file__).parent / "published_results.csv"
    assert shipped.read_bytes() == (shared_dir / "published_results.csv").read_bytes()
    with shipped.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 743
    for row in rows:
        masks = row["masks"] or None
        if row["dataset"] == "SensumSODF" and masks == "1":
            masks = "1.0"
        found = published_figures(
            dataset=row["dataset"],
            regime=row["regime"],
            masks=masks,
            category=None if row["category"] == "mean" else row["category"],
            metric=row["metric"],
        )[row["source"]]
        assert (found.mean, found.std) == (float(row["mean"]), float(row["std"]) if row["std"] else None)
        assert row["metric"] in METRICS


def test_published_shares_and_numbers_are_not_mixed_up():
    """SensumSODF's share 1 is all masks, `mixed:1` is one; 0 masks are weak, all of them full, in both datasets."""
    place = {"category": None, "metric": "AP-loc"}
    assert published_figures(dataset="SensumSODF", regime="mixed", masks="1", **place) == {}
    for dataset, every in (("SensumSODF", "1.0"), ("KSDD2", "246")):
        of = {"dataset": dataset, **place}
        assert (
            published_figures(regime="mixed", masks="0", **of)["jims"]
            == published_figures(regime="weak", masks=None, **of)["jims"]
        )
        assert (
            published_figures(regime="mixed", masks=every, **of)["jims"]
            == published_figures(regime="full", masks=None, **of)["jims"]
        )
    shares = published_masks(dataset="SensumSODF", metric="AP-loc", source="jims")
    assert [masks for masks, _ in shares] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert len(published_categories("MVTecAD")) == 15
    assert published_categories("KSDD2") == set()


def test_a_mean_over_some_categories_is_not_put_beside_the_mean_over_all():
    categories = sorted(published_categories("MVTecAD"))
    lines = [line(0, dataset="MVTecAD", category=category, AUPRO=0.9) for category in categories]
    whole = only(summarise(lines), category="mean")
    assert (whole.published.mean, whole.anomalib.mean) == (0.91187, 0.916)
    part = summarise(lines[:-1])
    assert only(part, category="mean").published is None
    assert only(part, category="bottle").published is not None


# Tables and plot


def test_csv_and_markdown_say_the_same():
    lines = ksdd2_lines()
    figures = summarise(lines)
    rows = list(csv.DictReader(results_csv(figures, "KSDD2").splitlines()))
    assert len(rows) == 4 * 2
    (row,) = [r for r in rows if r["masks"] == "16" and r["metric"] == "AP-loc"]
    assert row == {
        "dataset": "KSDD2",
        "regime": "mixed",
        "masks": "16",
        "masks_from": "split file",
        "category": "KSDD2",
        "metric": "AP-loc",
        "n": "2",
        "mean": "0.610000",
        "std": "0.014142",
        "published_source": "jims",
        "published_mean": "0.59071",
        "published_std": "0.01496",
        "published_difference": "0.019290",
        "anomalib_source": "",
        "anomalib_mean": "",
        "anomalib_std": "",
        "anomalib_difference": "",
    }
    text = results_markdown(lines, figures, failures=1, picture="plot.png")
    assert text.startswith("# Accuracy on KSDD2\n\ncompact, 640x232 px, variant jims, 300 epochs; supersimplenet 0.1.0")
    assert "| mixed:16     | 97.5 ± 0.7 | 61.0 ± 1.4 |" in text
    assert "| mixed:16     | AP-det | 97.5 ± 0.7 |   2 | 97.3 ± 0.4 |       +0.2 |" in text
    assert "|              | AP-loc | 61.0 ± 1.4 |   2 | 59.1 ± 1.5 |       +1.9 |" in text
    assert "Masks of mixed:16: those of the dataset's own split files." in text
    assert "Runs that failed and are missing here: 1" in text
    assert "![AP against the number of masks](plot.png)" in text
    assert (
        "| mixed:16     |    2 | 2,085 |            16 |         230 |    300 | 1,200 |          60 |       5 |" in text
    )
    assert "By category" not in text


def test_markdown_has_a_table_of_categories_for_each_regime():
    lines = [
        line(0, dataset="SensumSODF", category=category, regime=regime, AP_det=0.9)
        for category in ("capsule", "softgel")
        for regime in ("weak", "full")
    ]
    text = results_markdown(lines, summarise(lines), failures=0, picture=None)
    assert "Mean over 2 categories. Per cent" in text
    assert text.index("### weak") < text.index("| capsule  | 90.0 (\N{MINUS SIGN}0.9) |") < text.index("### full")
    assert "failed" not in text
    assert "![" not in text


def test_the_plot_has_a_point_for_each_number_of_masks(tmp_path):
    lines = ksdd2_lines()
    figures = summarise(lines)
    panel = prepare_panel(lines, figures, "AP-loc")
    assert panel.here.masks == [0, 16, 246]
    assert panel.here.mean == pytest.approx([51, 61, 81])
    assert panel.here.std == pytest.approx([2 / math.sqrt(2)] * 3)
    assert panel.unsupervised == pytest.approx(41)
    assert panel.published.masks == [0, 16, 53, 126, 246]
    assert panel.published.mean[1] == pytest.approx(59.071)
    assert draw(lines, figures, tmp_path / "plot.png", title="KSDD2")
    with Image.open(tmp_path / "plot.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[0] > pixels.shape[1] > 800  # upright, as a phone is held
    assert (pixels < 50).mean() > 0.01

    unsupervised = lines[:1]
    assert not draw(unsupervised, summarise(unsupervised), tmp_path / "none.png", title="")
    assert not (tmp_path / "none.png").exists()


def test_masks_are_shares_where_parts_have_unequal_numbers():
    lines = [
        line(0, dataset="MVTecAD", category=category, regime="mixed", masks="0.5", images=images, AP_loc=0.5)
        for category, images in (("a", (9, 10, 10)), ("b", (9, 30, 30)))
    ]
    assert prepare_panel(lines, summarise(lines), "AP-loc").here.masks == [0.5]


# The program


def program(root: Path, output: Path, *options: str) -> list[str]:
    of_data = ["--data", "MVTecAD", "--data.root", str(root), "--output", str(output)]
    return ["benchmark", "accuracy", *of_data, *SMALL, *options]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as only POSIX has it")
def test_a_killed_benchmark_goes_on_where_it_was_and_a_broken_category_stops_nothing(root, tmp_path, capsys):
    """Killed in the first run's training, which is then continued; cast_grain's training images are broken."""
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "brushed_metal").symlink_to(root / "brushed_metal")
    synthesize(data, SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=2, test_good=1))
    for image in (data / "cast_grain" / "train" / "good").iterdir():
        image.write_bytes(b"no image")
    arguments = program(data, output, "--trainer.max_epochs", "40")
    killed = subprocess.Popen([sys.executable, "-m", "supersimplenet", *arguments], stderr=subprocess.DEVNULL)
    checkpoint = output / "runs" / "brushed_metal_unsupervised_seed0" / "model" / "checkpoints" / "last.ckpt"
    give_up = time.monotonic() + 120
    while not checkpoint.is_file() and killed.poll() is None and time.monotonic() < give_up:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (output / "runs.jsonl").exists()

    assert main(arguments) == 1  # waits for the run that was left to stop; a category failed
    assert "cast_grain_unsupervised_seed0: failed: training: exit status 1: ImageError" in capsys.readouterr().err
    (done,) = read_lines(output / "runs.jsonl")
    assert (done["key"], done["resumed"]) == ("brushed_metal_unsupervised_seed0", True)
    assert (done["epochs"], done["steps"], done["training_images"]["good"]) == (40, 40, 4)
    assert set(done["metrics"]) == set(METRICS)
    (failure,) = read_lines(output / "failures.jsonl")
    assert failure["key"] == "cast_grain_unsupervised_seed0"
    assert [folder.name for folder in (output / "runs").iterdir()] == ["cast_grain_unsupervised_seed0"]
    page = (output / "results.md").read_text()
    assert "Runs that failed and are missing here: 1" in page
    # The published protocol, but for what was typed.
    typed = ["model.backbone compact instead of wide_resnet50_2.tv_in1k", "trainer.max_epochs 40 instead of 300"]
    typed += ["trainer.holdout_fraction 0.2 instead of 0", "model.image_size 64x64 instead of the dataset's own"]
    assert f"Differs from the publication: {'; '.join(typed)}.\n" in page
    assert (done["settings"]["view"]["resize"], done["settings"]["aupro"]) == ("bilinear", "anomalib")
    assert (done["settings"]["recipe"]["noise_std"], done["settings"]["recipe"]["sampling"]) == (0.015, "published")

    before = (output / "runs.jsonl").read_bytes()
    assert main([*arguments, "--categories", "brushed_metal"]) == 0  # nothing left to do
    assert "runs: 1, done before: 1" in capsys.readouterr().err
    assert (output / "runs.jsonl").read_bytes() == before
    assert main([*arguments, "--recipe.batch_size", "3"]) == 2
    assert "holds runs with other settings: recipe.batch_size 32 there, 3 here" in capsys.readouterr().err


@pytest.mark.slow
def test_supervised_runs_at_once_from_a_table(root, tmp_path, capsys):
    """Two runs at a time: mixed with one mask of two, and full; from the command line to the plot."""
    surface = root / "brushed_metal"
    rows = [f"{image},train,good," for image in sorted((surface / "train" / "good").iterdir())]
    rows += [f"{image},test,good," for image in sorted((surface / "test" / "good").iterdir())]
    bad = sorted(path for path in (surface / "test").glob("*/*.png") if path.parent.name != "good")
    for number, image in enumerate(bad):
        mask = surface / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        rows.append(f"{image},{'train' if number < 2 else 'test'},bad,{mask}")
    table, output = tmp_path / "parts.csv", tmp_path / "out"
    table.write_text("\n".join(["image,split,label,mask", *rows]) + "\n")
    of_runs = ["--regimes", "mixed:1,full", "--jobs", "2", "--keep-models", "--trainer.max_epochs", "1"]
    of_runs += ["--protocol", "published", "--recipe.batch_size", "5"]
    data = ["--data", "Table", "--data.path", str(table)]
    assert main(["benchmark", "accuracy", *data, "--output", str(output), *SMALL, *of_runs]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"{output / 'results.md'}\n{output / 'results.csv'}\n")
    assert "AP-loc" in printed
    mixed, full = sorted(read_lines(output / "runs.jsonl"), key=lambda line: line["regime"], reverse=True)
    assert mixed["training_images"] == {"good": 4, "bad_with_mask": 1, "bad_without_mask": 1}
    assert full["training_images"] == {"good": 4, "bad_with_mask": 2, "bad_without_mask": 0}
    model = output / "runs" / mixed["key"] / "model"
    assert json.loads((model / "metrics.json").read_text())["AP-loc"] == mixed["metrics"]["AP-loc"]
    record = yaml.safe_load((model / "config.yaml").read_text())
    assert (record["supervision"], record["masks"], record["seed"]) == ("mixed", "1", 0)
    page = (output / "results.md").read_text()
    assert "Masks of mixed:1: a subset drawn by the seed." in page
    assert "Differs from the publication" not in page  # nothing is published on a table of one's own
    assert (record["view"]["resize"], record["recipe"]["sampling"]) == ("bilinear", "published")
    assert record["training"]["label_recipe"]["flips"] == "published"
    assert record["training"]["label_recipe"]["small_regions"] == "drop"
    assert record["training"]["plan"]["noise_std"] == 0.015
    assert (
        record["training"]["plan"]["total_steps"] == 4
    )  # 8 flipped bad images and as many good ones, 5 a step: 5, 5, 5, 1
    assert "AUPRO-anomalib" in json.loads((model / "metrics.json").read_text())
    assert (output / "ap_against_masks.png").stat().st_size > 10_000
    with (output / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(METRICS)


def test_numbers_and_sources_are_checked_before_anything_runs(root, tmp_path, capsys):
    assert main(program(root, tmp_path / "out", "--seeds", "0,one")) == 2
    assert "seeds: '0,one'; write whole numbers with commas between them" in capsys.readouterr().err
    assert main(program(root, tmp_path / "out", "--time-budget", "soon")) == 2
    assert "time-budget: 'soon'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(program(root / "none", tmp_path / "out", "--categories", "bottle")) == 2
    assert f"{root / 'none'}: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()
