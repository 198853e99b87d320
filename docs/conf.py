"""Build of the documentation site: `make docs`. It needs no network, and its pages fetch nothing."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

# After the path.
from sphinx.application import Sphinx  # noqa: E402

from supersimplenet.utils.version import __version__  # noqa: E402

project = "SuperSimpleNet"
author = copyright = "The SuperSimpleNet maintainers"  # noqa: A001  (Sphinx chose the name)
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "commands",  # docs/_ext: the pages of the commands, from their parsers
    "notebooks",  # docs/_ext: notebooks as pages, with their stored outputs
    "markup",  # docs/_ext: links where a page is only named; classes of tables
    "links",  # docs/_ext: the check of all links, and that nothing is fetched
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_static"]
default_role = "code"  # of docstrings: `train`

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_all_links_external = False
smartquotes_action = "D"  # dashes alone: `--` of docstrings
highlight_language = "text"  # of indented blocks

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has the types
autodoc_type_aliases = {name: name for name in ("AnyImage", "OnError", "Resolution", "ScoreName", "PathOrPaths")}
toc_object_entries_show_parents = "hide"
add_module_names = False
maximum_signature_line_length = 80
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"SuperSimpleNet {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b5d", "color-brand-content": "#0b6b5d"},
    "dark_css_variables": {"color-brand-primary": "#4cc3ae", "color-brand-content": "#4cc3ae"},
    "footer_icons": [],
}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False

OPTIONAL = {"install", "release"}  # pages that may be missing: the navigation then leaves them out


def setup(app: Sphinx) -> None:
    """Leave out of a page's navigation what is not there."""

    def without_missing(app: Sphinx, page: str, source: list[str]) -> None:
        missing = {name for name in OPTIONAL if not (HERE / f"{name}.md").exists()}
        source[0] = "\n".join(line for line in source[0].split("\n") if line not in missing)

    app.connect("source-read", without_missing)
