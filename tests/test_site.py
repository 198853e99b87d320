"""The documentation site: it builds without a warning, has every option of every command, and fetches nothing."""

from __future__ import annotations

import fcntl
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

sys.path.insert(0, str(ROOT / "docs" / "_ext"))
if os.environ.get("CI") != "true":  # in CI its absence is a failure, not a quiet skip
    pytest.importorskip("sphinx", reason="the extra [docs] is not installed")

from commands import (
    RUNTIME,
    all_commands,
    default_of,
    kind_of,
    options_of,
    page_of,
    parser_of,
    usage_of,
)
from links import broken_links

from supersimplenet.datasets.registry import SOURCES


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, by the command of `make docs`; the processes of a test run share one."""
    shared = os.environ.get("PYTEST_XDIST_WORKER")
    place = tmp_path_factory.getbasetemp().parent if shared else tmp_path_factory.mktemp("docs")
    with (place / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "site" / "built").exists():
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E"]
            built = subprocess.run(
                [*command, "-d", str(place / "doctrees"), str(ROOT / "docs"), str(place / "site")],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            )
            assert (built.returncode, built.stderr) == (0, "")
            (place / "site" / "built").touch()
    return place / "site"


def text_of(page: Path) -> str:
    """Return the words of a built page's content."""
    content = re.search(r"<article[^>]*>(.*)</article>", page.read_text(encoding="utf-8"), re.S)
    assert content is not None
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", content[1])).split())


@pytest.mark.slow
def test_every_option_of_every_command_has_its_help_type_and_default(site):
    for name in [*all_commands(), RUNTIME]:
        parser, page = parser_of(name), site / "reference" / "commands" / f"{page_of(name)}.html"
        source, words = page.read_text(encoding="utf-8"), text_of(page)
        assert usage_of(name, parser) in words
        count = 0
        for _, actions in options_of(parser):
            for action in actions:
                for option in action.option_strings:
                    if not option.endswith("+"):
                        spelled = (
                            rf'<code class="option docutils literal notranslate"><span class="pre">{option}</span>'
                        )
                        assert re.search(rf"{spelled}", source), f"{name}: {option}"
                        count += 1
                entry = f"{action.option_strings[-1].rstrip('+') if action.option_strings else ''} "
                plain = [word.replace("`", "") for word in (kind_of(action), default_of(action))]
                assert all(word in words for word in [entry, *plain]), f"{name}: {action.dest}: {plain}"
                first = (action.help or "").replace("`", "").split("docs/")[0].split("%(")[0].strip()[1:40]
                assert first in words or "CONFIG" in str(action.metavar), f"{name}: {action.dest}: {first}"
        assert count >= 2, name


def test_the_kinds_and_defaults_of_options_by_hand():
    train = {action.dest: action for action in parser_of("train")._actions}
    assert kind_of(train["supervision"]) == "`auto` or `unsupervised` or `weak` or `mixed` or `full`"
    assert (kind_of(train["seed"]), default_of(train["seed"])) == ("whole number", "0")
    assert kind_of(train["recipe.noise_std"]) == "number, or `auto`"
    assert (kind_of(train["recipe.lr_milestones"]), default_of(train["recipe.lr_milestones"])) == (
        "list of: number",
        "[0.8,0.9]",
    )
    assert (kind_of(train["model.image_size"]), default_of(train["model.image_size"])) == ("2 of: whole number", "")
    assert (kind_of(train["resume"]), default_of(train["resume"])) == ("", "")
    assert default_of(train["model.align_corners"]) == "true"
    predict = parser_of("predict")
    assert usage_of("train", parser_of("train")) == "supersimplenet train [PATH] [options]"
    assert usage_of("predict", predict) == ("supersimplenet predict [PATHS ...] [options]")


@pytest.mark.slow
def test_every_option_of_every_dataset_is_there(site):
    words = text_of(site / "reference" / "commands" / "datasets.html")
    help_of = {name: (kind.__doc__ or "") for name, kind in SOURCES.items()}
    for name, text in help_of.items():
        for option in re.findall(r"^        (\w+): ", text.partition("Args:")[2], re.M):
            assert f"--data.{option}" in words, f"{name}: {option}"


@pytest.mark.slow
def test_the_public_names_are_in_the_reference(site):
    import supersimplenet

    pages = [page.read_text(encoding="utf-8") for page in (site / "reference" / "python").glob("*.html")]
    for name in supersimplenet.__all__:
        assert any(f'id="supersimplenet.{name}"' in page or f"errors.{name}" in page for page in pages), name


@pytest.mark.parametrize("name", ["own_parts", "network"])
@pytest.mark.slow
def test_a_notebook_is_a_page_with_its_outputs(site, name):
    notebook = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    page = site / "notebooks" / f"{name}.html"
    pictures = re.findall(r'"image/jpeg": "([^"\\]+)', notebook)
    assert len(pictures) >= 5
    shown = page.read_text(encoding="utf-8")
    assert all(f"data:image/jpeg;base64,{picture}" in shown for picture in pictures)
    printed = {"own_parts": "at most 5 % of good parts are called bad", "network": "largest difference of the score"}
    assert printed[name] in text_of(page)
    assert ".ipynb" not in text_of(page)  # a link to the other one leads to its page


def test_the_link_check_finds_what_it_must(tmp_path):
    (tmp_path / "a.css").write_text("@import 'https://fonts.test/a.css'; b { background: url(gone.png) }")
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="https://example.org/">fine, only a link</a>')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"></a><a href="b.html#there"></a><a href="c.html"></a><a href="#nowhere"></a>'
        '<script src="https://cdn.test/x.js"></script><link href="//fonts.test/f" rel="stylesheet"><img src="d.png">'
    )
    found = [line.rpartition(": ")[0] for line in broken_links(tmp_path)]
    assert found == [
        "a.html: b.html#there",
        "a.html: c.html",
        "a.html: #nowhere",
        "a.html: https://cdn.test/x.js",
        "a.html: //fonts.test/f",
        "a.html: d.png",
        "a.css: https://fonts.test/a.css",
        "a.css: gone.png",
    ]


def test_a_broken_link_of_a_page_fails_the_build(tmp_path):
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'docs' / '_ext')!r})\nextensions = ['myst_parser', 'links']\n"
        "source_suffix = {'.md': 'markdown'}\n"
    )
    (tmp_path / "index.md").write_text('# Start\n\n<a href="gone.html">there</a>\n')
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(tmp_path), str(tmp_path / "out")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 2
    assert "index.html: gone.html: no such file" in built.stderr


def test_pages_that_may_be_missing_are_named_in_the_navigation_once():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert [index.count(name) for name in ("install", "release")] == [1, 1]


PAGES = ["index", "start", "outputs", "performance", "anomalib", "understand/network", "reference/commands/train"]
PAGES += ["notebooks/own_parts", "notebooks/network"]


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone_and_what_is_says_that_it_scrolls(site, browser):
    fetched: list[str] = []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("request", lambda request: fetched.append(request.url))
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    assert [url for url in fetched if not url.startswith(("file:", "data:"))] == []
    page.goto((site / "performance.html").as_uri())
    page.wait_for_selector("div.table-wrapper.scrolls")
    boxes = page.locator("div.table-wrapper.scrolls")
    assert boxes.count() > 3
    sign = "getComputedStyle(box, '::before').content"
    assert "scroll for more columns" in boxes.first.evaluate(f"box => {sign}")
    boxes.first.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
    page.wait_for_function(
        f"{sign.replace('box', 'document.querySelector(`div.table-wrapper.scrolls`)')}.includes('back')"
    )
    page.close()


@pytest.mark.slow
def test_the_search_works_from_a_disk(site, browser):
    page = browser.new_page()
    page.goto((site / "search.html").as_uri() + "?q=overkill")
    page.wait_for_selector("#search-results li a", timeout=30_000)
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Thresholds" in text for text in found)
    page.close()
