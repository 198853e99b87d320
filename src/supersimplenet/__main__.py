"""``supersimplenet``, and ``python -m supersimplenet``: the program, or what it lacks."""

import sys

_EXTRA_OF = {"onnx": "export", "onnxscript": "export", "nncf": "export", "onnxruntime": "onnx", "openvino": "openvino"}


def main() -> int:
    """Run the command line; where only the line's part is installed, say what to install instead."""
    try:
        from supersimplenet.cli.main import main as run

        return run()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "supersimplenet"):
            raise
        extra = _EXTRA_OF.get(module, "train")
        print(
            f"supersimplenet: {module} is not installed; pip install 'supersimplenet[{extra}]' (an exported model "
            "needs none of it: python -m supersimplenet.runtime FILE IMAGE...)",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
