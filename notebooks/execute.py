"""Execute notebooks, each in an empty folder, and store the outputs: make notebooks."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
_LONGEST_S = 600  # of a cell


def execute(notebook: Path) -> NotebookNode:
    """Return a notebook with the outputs of a fresh kernel, run in an empty folder.

    What cells write to standard error is left out: progress, with times that differ
    from run to run. So are all metadata but the language and the kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IPYTHONDIR"] = str(
            Path(folder) / "ipython"
        )  # no settings and no history of the user
        work = Path(folder) / "work"
        work.mkdir()
        client = NotebookClient(
            content,
            timeout=_LONGEST_S,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": str(work)}},
        )
        client.execute()
    content.metadata = NotebookNode(
        kernelspec={
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        language_info={"name": "python"},
    )
    for cell in content.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if output.get("name") != "stderr"
            ]
    return content


def main() -> None:
    """Execute all notebooks, or those that are named; write each or replace it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "notebooks", nargs="*", type=Path, default=NOTEBOOKS, help="default: all"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the executed notebooks; by default each is replaced",
    )
    options = parser.parse_args()
    for notebook in options.notebooks:
        content = execute(notebook)
        nbformat.write(
            content,
            notebook if options.output is None else options.output / notebook.name,
        )


if __name__ == "__main__":
    main()
