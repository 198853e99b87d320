"""Write the pages of the commands from the parsers that the program itself uses.

    ```{command} data check
    ```

becomes the command's usage and all of its options with types, defaults and help; ``{dataset} Folder`` does the same for
the options of a dataset, ``{command-list}`` is the table of all commands.
"""

from __future__ import annotations

import re
import types
import typing
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from markup import page_link
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.cli.main import command_groups
from supersimplenet.datasets.registry import SOURCES
from supersimplenet.runtime.__main__ import _parser as runtime_parser

RUNTIME = "python -m supersimplenet.runtime"
_WORDS = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Path": "path",
    "PositiveInt": "whole number, at least 1",
    "NonNegativeInt": "whole number, 0 or more",
    "OpenUnitInterval": "number between 0 and 1",
    "DataSource": "name of a dataset",
}
_LISTS = (tuple, list)
_SECTIONS = {
    "data": "Dataset",
    "model": "Network",
    "view": "View",
    "recipe": "Recipe",
    "trainer": "Trainer",
    "cache": "Cache",
}
# In help: a literal in one or two back quotes, a page of the docs, or what looks like an option.
_MARKUP = re.compile(r"``(.+?)``|`(.+?)`|docs/([\w/-]+)\.md|(?<![\w-])(--[a-z][\w.-]*\w)")


def all_commands() -> dict[str, Command]:
    """Return every command by the words that call it, such as ``data check``."""
    return {
        f"{group} {command.name}".strip(): command for group, found in command_groups().items() for command in found
    }


def parser_of(name: str) -> ArgumentParser:
    """Return the parser of a command, or of the line's program under `RUNTIME`."""
    return runtime_parser() if name == RUNTIME else all_commands()[name].parser


def page_of(name: str) -> str:
    """Return the stem of the page of a command: ``data-check``."""
    return "runtime" if name == RUNTIME else name.replace(" ", "-")


def options_of(parser: ArgumentParser) -> Iterator[tuple[str, list[Action]]]:
    """Yield each group of a parser's options: its title and its options, hidden ones left out."""
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help is not SUPPRESS]
        if shown:
            yield (group.title or "").rstrip("."), shown


def kind_of(action: Action) -> str:
    """Return in words what an option takes; empty for a switch."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return " or ".join(f"`{choice}`" for choice in action.choices)
    hint = getattr(action, "_typehint", action.type)
    if type(action).__name__ in ("ActionConfigFile", "_ActionConfigLoad"):
        return "YAML file"
    number = {"*": "any number of: ", "+": "one or more: ", 2: "two of: "}.get(action.nargs or "", "")
    return number + _in_words(hint)


def _in_words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        return ", or ".join(dict.fromkeys(_in_words(kind) for kind in kinds))
    if origin in _LISTS:
        several = [kind for kind in inner if kind is not Ellipsis]
        if len(several) > 1:
            return f"{len(several)} of: {_in_words(several[0])}"
        return f"list of: {_in_words(several[0])}"
    return _WORDS.get(getattr(hint, "__name__", ""), "text")


def default_of(action: Action) -> str:
    """Return an option's default as it is typed; empty where there is none."""
    default = action.default
    if action.nargs == 0 or default is None or default is SUPPRESS or (isinstance(default, _LISTS) and not default):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, _LISTS):
        return f"[{','.join(map(str, default))}]"
    return str(default)


def usage_of(name: str, parser: ArgumentParser) -> str:
    """Return how a command is called: what it must have, and that there is more."""
    words, optional = [name if name == RUNTIME else f"supersimplenet {name}"], False
    for action in (action for _, group in options_of(parser) for action in group):
        value = _value_of(action)
        if not action.option_strings:
            several = {"*": f"[{value} ...]", "?": f"[{value}]"}
            words.append(several.get(str(action.nargs), value))
        elif action.required:
            words.append(f"{action.option_strings[0]} {value}")
        else:
            optional = True
    return " ".join([*words, *(["[options]"] if optional else [])])


def _value_of(action: Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    metavar = action.metavar if isinstance(action.metavar, str) and not action.metavar.startswith("{") else None
    return (metavar or action.dest.rpartition(".")[2]).upper()


def _text(words: str, page: str) -> list[nodes.Node]:
    """Return help as nodes: literals, and pages of the docs as links."""
    found: list[nodes.Node] = []
    end = 0
    for match in _MARKUP.finditer(words):
        found.append(nodes.Text(words[end : match.start()]))
        end = match.end()
        literal = match[1] or match[2] or match[4]
        if literal:
            found.append(nodes.literal(text=literal))
        else:
            found.append(page_link(match[3], page))
    found.append(nodes.Text(words[end:]))
    return found


class _Options(SphinxDirective):
    """What the pages of commands and datasets share: a list of options."""

    required_arguments = 1
    final_argument_whitespace = True

    def section(self, title: str, anchor: str) -> nodes.section:
        section = nodes.section(ids=[anchor], names=[anchor])
        section += nodes.title("", "", *_text(title, self.env.docname))
        return section

    def listed(self, actions: list[Action], prefix: str) -> nodes.definition_list:
        found = nodes.definition_list(classes=["options"])
        for action in actions:
            name = action.option_strings[0] if action.option_strings else _value_of(action)
            anchor = nodes.make_id(f"{prefix} {name.lstrip('-')}".replace(".", "-"))
            term = nodes.term(ids=[anchor])
            names = action.option_strings or [name]
            for place, spelled in enumerate(name for name in names if not name.endswith("+")):
                term += [*([nodes.Text(" ")] if place else []), nodes.literal(text=spelled, classes=["option"])]
            body = nodes.definition()
            facts = [kind_of(action)]
            facts += ["required"] if action.required and action.option_strings else []
            default = default_of(action)
            facts += [f"default `{default}`"] if default else []
            line = nodes.inline(classes=["facts"])
            line += _text(" · ".join(fact for fact in facts if fact), self.env.docname)
            term += [nodes.Text(" "), line]
            given = "Any of these options." if type(action).__name__ == "_ActionConfigLoad" else action.help
            explained = (given or "").replace("%(default)s", default).replace("%%", "%").strip()
            explained = f"{explained[:1].upper()}{explained[1:]}"
            end = "" if explained.endswith(".") else "."
            body += nodes.paragraph("", "", *_text(f"{explained}{end}", self.env.docname))
            found += nodes.definition_list_item("", term, body)
        return found


class _Command(_Options):
    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        parser, stem = parser_of(name), page_of(name)
        description = " ".join((parser.description or "").split())
        found: list[nodes.Node] = [nodes.paragraph("", "", *_text(description, self.env.docname))]
        usage = nodes.literal_block(text=usage_of(name, parser), classes=["usage"])
        usage["language"] = "text"
        found.append(usage)
        for title, actions in options_of(parser):
            short = {"positional arguments": "Arguments", "options": "Options"}.get(title)
            prefix = actions[-1].dest.partition(".")[0]
            group = f"{_SECTIONS[prefix]}: `--{prefix}`" if prefix in _SECTIONS else title
            section = self.section(short or group, nodes.make_id(f"{stem} {short or prefix}"))
            if not short:
                section += nodes.paragraph("", "", *_text(f"{title}.", self.env.docname))
            section += self.listed(actions, stem)
            found.append(section)
        return found


class _Dataset(_Options):
    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        parser = OptionParser()
        parser.add_class_arguments(SOURCES[name], "data")
        actions = [
            action
            for _, group in options_of(parser)
            for action in group
            if action.dest.startswith("data.") and "help" not in action.dest
        ]
        return [self.listed(actions, name)]


class _CommandList(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        rows = [(name, command.help) for name, command in all_commands().items()]
        found = nodes.definition_list(classes=["options"])
        for name, text in [*rows, (RUNTIME, "predict with an exported file, without torch")]:
            place = f"/reference/commands/{page_of(name)}"
            link = addnodes.pending_xref(
                "", refdoc=self.env.docname, refdomain="std", reftype="doc", reftarget=place, refexplicit=True
            )
            link += nodes.literal(text=name)
            body = nodes.definition("", nodes.paragraph("", "", *_text(f"{text[:1].upper()}{text[1:]}.", "")))
            found += nodes.definition_list_item("", nodes.term("", "", link), body)
        return [found]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives; a page is read again when a module of the command line changes."""
    app.add_directive("command", _Command)
    app.add_directive("dataset", _Dataset)
    app.add_directive("command-list", _CommandList)
    app.connect("env-get-outdated", _from_parsers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _from_parsers(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    return [name for name in env.found_docs if Path(name).parts[:2] == ("reference", "commands")]
