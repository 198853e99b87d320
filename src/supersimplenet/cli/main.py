"""Run the program: choose the command, run it, and print its errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from supersimplenet import __version__
from supersimplenet.cli import (
    benchmark,
    calibrate,
    data,
    demo,
    export,
    gate,
    import_weights,
    predict,
    report,
    test,
    train,
)
from supersimplenet.cli.common import Command, OptionParser, with_known_spelling
from supersimplenet.errors import ImageError, SuperSimpleNetError
from supersimplenet.preprocessing.listing import counting
from supersimplenet.utils.console import console
from supersimplenet.utils.system import let_waiting_threads_sleep

_GROUPS = {
    "data": "make, fetch, check and split datasets",
    "benchmark": "measure this machine, and models on published datasets",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the arguments after the program's name; by default those of this process.

    Returns:
        The exit status: 0 for success, 1 for an error (with a message on standard error) or a failed gate or check,
        130 after Ctrl-C.
    """
    let_waiting_threads_sleep()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _build_parser()
    try:
        arguments = _spelled(train.without_model_name(arguments), commands)
        parsed = parser.parse_args(benchmark.with_protocol_first(arguments))
        name = parsed.subcommand
        options = parsed[name]
        if name in _GROUPS:
            name, options = f"{name} {options.subcommand}", options[options.subcommand]
        with counting(options.get("on_error", "stop")) as left_out:
            try:
                return commands[name].run(options)
            finally:
                if text := left_out.unsaid():
                    console().print(text)
    except ImageError as error:
        advice = "; --on-error skip leaves out what cannot be read, and says so" if "on_error" in options else ""
        print(f"{type(error).__name__}: {error}{advice}", file=sys.stderr)
        return 1
    except SuperSimpleNetError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # such as a full disk or a read-only folder: the system's message names the file
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def command_groups() -> dict[str, list[Command]]:
    """Return all commands by the word that comes before them, which is empty for most commands."""
    return {
        "": [
            train.command(),
            test.command(),
            calibrate.command(),
            report.command(),
            gate.command(),
            predict.command(),
            export.command(),
            import_weights.command(),
            demo.command(),
        ],
        "data": data.commands(),
        "benchmark": benchmark.commands(),
    }


def _build_parser() -> tuple[OptionParser, dict[str, Command]]:
    parser = OptionParser(prog="supersimplenet", description="Find defects on surfaces in photographs.")
    parser.add_argument("--version", action="version", version=f"supersimplenet {__version__}")
    top = parser.add_subcommands()
    found: dict[str, Command] = {}
    for group, commands in command_groups().items():
        subcommands = top
        if group:
            group_parser = OptionParser(description=f"{_GROUPS[group][0].upper()}{_GROUPS[group][1:]}.")
            top.add_subcommand(group, group_parser, help=_GROUPS[group])
            subcommands = group_parser.add_subcommands()
        for command in commands:
            subcommands.add_subcommand(command.name, command.parser, help=command.help)
            found[f"{group} {command.name}".strip()] = command
    return parser, found


def _spelled(arguments: list[str], commands: dict[str, Command]) -> list[str]:
    """Return the arguments with the options in the command's spelling."""
    for words in (2, 1):
        command = commands.get(" ".join(arguments[:words]))
        if command is not None:
            return arguments[:words] + with_known_spelling(arguments[words:], command.parser)
    return arguments
