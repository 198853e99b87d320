"""``supersimplenet`` and ``python -m supersimplenet``: run the command line, or print which package it lacks."""

import os
import sys

from supersimplenet.utils.system import STOP_WITH_STDIN, stop_with_stdin

_EXTRA_OF = {
    **dict.fromkeys(("jsonargparse", "rich"), "cli"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    "onnxruntime": "onnx",
    "openvino": "openvino",
    **dict.fromkeys(("alembic", "argon2", "fastapi", "pydantic", "sqlalchemy", "starlette", "uvicorn"), "serve"),
}  # any other module comes with "train"


def main() -> int:
    """Run the command line; where a package is not installed, print which extra brings it."""
    if within_s := os.environ.pop(STOP_WITH_STDIN, None):  # removed: child processes end with this one anyway
        stop_with_stdin(float(within_s))
    try:
        from supersimplenet.cli.main import main as run

        return run()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "supersimplenet"):
            raise
        extra = _EXTRA_OF.get(module, "train")
        print(
            f"supersimplenet: {module} is not installed, and this command needs it; "
            f"pip install 'supersimplenet[{extra}]'",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
