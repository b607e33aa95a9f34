"""Writes the site's reference of config fields and of commands, from the code that they describe: conf.py calls it before each build."""

import inspect
import io
import re
import textwrap
import tokenize
from pathlib import Path
from typing import Any, get_type_hints

import typer
import typer.main

from imgclf.cli.commands import app
from imgclf.config import fields
from imgclf.config.group import Group

_WIDTH = 100  # characters of a command's help


def write(folder: Path) -> None:
    """Makes configuration.md and commands.md in `folder`; one that says the same already is left alone."""
    for name, text in {"configuration.md": configuration(), "commands.md": commands()}.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def configuration() -> str:
    """A table of each group's fields: name, default, meaning."""
    about = (
        "# Config fields\n\nEvery field of an experiment. `--set GROUP.FIELD=VALUE` sets one on the command line, "
        "`config.GROUP.field = value` in a config file. Durations are strings: `500 steps`, `10 epochs`, `20%`; sizes are (height, width)."
    )
    return about + "\n\n" + "\n".join(_group(fields.Config, "")) + "\n"


def _group(group: type[Group], prefix: str) -> list[str]:
    title = f"`{prefix.rstrip('.')}`" if prefix else "At the top"
    lines = [f"## {title}", "", inspect.getdoc(group) or "", "", "| field | default | meaning |", "|---|---|---|"]
    inner: list[str] = []
    meanings = comments(inspect.getsource(group))
    for name, hint in get_type_hints(group).items():
        if isinstance(hint, type) and issubclass(hint, Group):
            inner += _group(hint, f"{prefix}{name}.")
        else:
            default = repr(getattr(group, name, "")).replace("|", "\\|")
            lines.append(f"| `{prefix}{name}` | `{default}` | {_cell(meanings.get(name, ''))} |")
    return [*lines, "", *inner]


def comments(source: str) -> dict[str, str]:
    """What the comments of a class's source say of each of its fields: those above a field, then the one behind it."""
    above: list[str] = []
    behind: dict[int, str] = {}
    names: dict[int, str] = {}
    found: dict[str, str] = {}
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline):
        if token.type == tokenize.COMMENT:
            behind[token.start[0]] = token.string.lstrip("# ")
    for number, line in enumerate(lines, start=1):
        if field := re.match(r"    (\w+): ", line):
            names[number] = field[1]
            found[field[1]] = " ".join([*above, behind.get(number, "")]).strip()
            above = []
        elif line.strip().startswith("#"):
            above.append(behind.get(number, ""))
        else:
            above = []
    return found


def _cell(text: str) -> str:
    """A comment as a cell of a table: no Markdown in it means anything."""
    return re.sub(r"([|*_<>\[\]$])", r"\\\1", text)


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    root: Any = typer.main.get_command(app)
    parts = ["# Commands", "What a command does, a function does too: [Python](python.md).", *_help_of(root, "imgclf")]
    return "\n\n".join(parts) + "\n"


def _help_of(command: Any, name: str, parent: Any = None) -> list[str]:
    context = command.make_context(name.split()[-1], [], parent=parent, resilient_parsing=True)
    context.terminal_width = context.max_content_width = _WIDTH
    if hasattr(command, "commands"):
        parts = [] if parent is None else [f"## {name}", (command.help or "").strip()]
        for inner in command.list_commands(context):
            parts += _help_of(command.commands[inner], f"{name} {inner}", context)
        return parts
    return [f"{'##' if name.count(' ') == 1 else '###'} {name}", f"```text\n{_plain(command, context)}\n```"]


def _plain(command: Any, context: Any) -> str:
    """The help without the frames that Typer draws on a terminal."""
    formatter = context.make_formatter()
    formatter.write_usage(context.command_path, " ".join(command.collect_usage_pieces(context)))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        text = paragraph.replace("\b", "").replace("\\[", "[").strip("\n")  # brackets are escaped for the terminal's markup
        if text:
            formatter.write(
                "\n" + textwrap.indent(text if text.startswith(" ") else textwrap.fill(" ".join(text.split()), _WIDTH - 2), "  ") + "\n"
            )
    rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    with formatter.section("Arguments and options"):
        formatter.write_dl(rows)
    return formatter.getvalue().rstrip()
