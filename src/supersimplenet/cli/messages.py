"""Messages and help of the parser in plain words: one line, without the names of Python types."""

from __future__ import annotations

import inspect
import re
from argparse import SUPPRESS, Action

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from supersimplenet.datasets.registry import SOURCES
from supersimplenet.utils.formatting import nearest

_TYPE = re.compile(r"typing\.Literal\[[^]]*\]|<class '[^']*'>|(?:tuple|list)\[[^]]*\]|(?:Non|P)\w+Int\b")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
    "tuple": "a list, such as '[a,b]'",
    "list": "a list, such as '[a,b]'",
    "dict": "options and values",
    "PositiveInt": "a whole number of at least 1",
    "NonNegativeInt": "a whole number of at least 0",
    "OpenUnitInterval": "a number above 0 and below 1",
    "tuple[int, int]": "two whole numbers, such as '[256,256]'",
    "tuple[float, float]": "two numbers, such as '[3,2]'",
}


class HelpFormatter(DefaultHelpFormatter):
    """Help that shows whether an option is required, or its default; choices stand in the option's own form."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        shown = action.option_strings and action.default not in (None, False, SUPPRESS, [])
        return f"{text} (default: %(default)s)" if shown else text


def in_plain_words(message: str, parser: ArgumentParser) -> str:
    """Return a message of the parser in one line: the option, what was found, what is wanted."""
    text = " ".join(message.split())
    keys = dict.fromkeys(re.findall(r'Parser key "(.*?)"', text))
    key = ".".join(keys)
    typed = (action.option_strings[0] for action in parser._actions if action.dest == key and action.option_strings)
    option = next(typed, f"--{key}") if keys else ""
    for pattern, explain in _RULES:
        if match := re.search(pattern, text):
            return explain(match, option, parser)
    return text


def _required(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{', '.join(_spelled(name, option, parser) for name in match[1].split(', '))}: required"


def _unknown_option(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    group, name = match["group"], match["name"]
    kind = re.search(r"given class_path '(?:[\w.]*\.)?(\w+)'", match.string)
    own = SOURCES.get(kind[1]) if kind else None
    near = nearest(name, inspect.signature(own).parameters) if own else ""
    before = option or (f"--{group}" if group else "")
    return f"{f'{before}.' if before else '--'}{name}: no such option{near}"


def _no_dataset(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{option}: name the dataset first, such as {option} Folder; one of {', '.join(SOURCES)}"


def _other_dataset(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{option or '--data.help'}: '{match[1]}' is none of {', '.join(SOURCES)}"


def _no_options_file(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{option}: '{match[1]}'; wanted a YAML file of these options; alone each has a dot, see --help"


def _not_yaml(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    lines = re.findall(r"line (\d+)", match.string)
    return f"{option or '--config'}: not readable as YAML{f' from line {lines[-1]} on' if lines else ''}"


def _no_config(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"--config: wanted YAML, a line 'option: value' for each option; found '{match[1].strip()[:60]}'"


def _unreadable(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{option}: '{match[1]}'; wanted a file that can be read"


def _no_value_wanted(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{match[1]}: takes no value; found '{match[2]}'"


def _no_such_command(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    names = re.findall(r"'(.*?)'", match[2])
    return f"'{match[1]}': no such command{nearest(match[1], names)}; the commands are {', '.join(names)}"


def _no_command(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    every = list(parser._subcommands_action.choices) if parser._subcommands_action else []
    return f"name a command: {', '.join(every if '...' in match[1] else match[1].split(','))}"


def _wrong_value(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    return f"{option}: '{match[1]}'; {_wanted(match.string)}"


def _wrong_number(match: re.Match[str], option: str, parser: ArgumentParser) -> str:
    found = f"'{match[2] or match[3]}'; " if match[2] or match[3] else ""
    return f"{option}: {found}wanted {_KINDS.get(match[1], match[1])}"


# The first pattern that fits a message, in which all white space is one space, explains it.
_RULES = (
    (r"the following arguments are required: (.*)", _required),
    (r"(?:Group '(?P<group>.*?)' .*|.*)[Oo]ption '(?P<name>.*?)'(?: is not accepted)?$", _unknown_option),
    (r"(?i)not a valid subclass|instantiatable class", _no_dataset),
    (r"(?:Expected a dot import path string|Unexpected import path format): (.*?)(?: - Expected|$)", _other_dataset),
    (r"Unable to load config ['\"](.*?)['\"]", _no_options_file),
    (r"parsing config|while parsing|while scanning", _not_yaml),
    (r"Unexpected config:(.*)", _no_config),
    (r"(?:File does not exist|Path is not a file|not readable): '(.*)'", _unreadable),
    (r"argument (\S+): ignored explicit argument '(.*)'", _no_value_wanted),
    (r"argument subcommand: invalid choice: '(.*?)' \(choose from (.*)\)", _no_such_command),
    (r'"(?:\w+\.)?subcommand" to be one of \{(.*)\}', _no_command),
    (r"Not of type (\w+): (?:.*: '(.*)'$|(\S*) does not conform|)", _wrong_number),
    (r".*(?:Got|Given) value: (.*)", _wrong_value),
)


def _wanted(text: str) -> str:
    """Return what is wanted, from the types that a message names."""
    subtypes = re.search(r"Subtypes: (.*?) Errors:", text)
    expected = re.search(r"Expected an? (.*)", text)
    types = _TYPE.findall(subtypes[1] if subtypes else expected[1] if expected else "")
    choices = [type_.removeprefix("typing.Literal[")[:-1] for type_ in types if type_.startswith("typing.")]
    plain = [type_.removeprefix("<class '").removesuffix("'>") for type_ in types if not type_.startswith("typing.")]
    kinds = [_KINDS.get(name.rpartition(".")[2] if "[" not in name else name, name) for name in plain]
    kinds = [kind for kind in kinds if kind != "NoneType" and "." not in kind]
    if choices and not kinds:
        return f"choose among {', '.join(choices)}"
    return f"wanted {' or '.join([*kinds, *choices])}" if kinds else "not a value of this option"


def _spelled(name: str, option: str, parser: ArgumentParser) -> str:
    """Return a required argument as it is typed; ``option`` is the one that it belongs to, if any."""
    if option:
        return f"{option}.{name}"
    words = parser.prog.replace(" [options]", "").split()[1:]
    own = name.removeprefix(".".join([*words, ""]))
    for action in parser._actions:
        if action.dest == own and not action.option_strings:
            return own.upper()
    return f"--{own.replace('_', '-')}"
