"""The manual page, drawn from the commands themselves: `python scripts/man.py > holdfast.1` (`make man`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from holdfast.cli.root import root
from holdfast.version import __version__


def page() -> str:
    """All commands in one page, in roff."""
    lines = [
        f'.TH HOLDFAST 1 "" "holdfast {__version__}" "User Commands"',
        ".SH NAME",
        "holdfast \\- who owns a conversation right now",
    ]
    lines += [
        ".SH SYNOPSIS",
        ".B holdfast",
        ".RI [ options ] \\ command \\ [ arguments ]",
        ".SH DESCRIPTION",
        text(root.help or ""),
    ]
    lines += [".SH OPTIONS", *options(root), ".SH COMMANDS"]
    for names, command in commands(root, ("holdfast",)):
        context = click.Context(command, info_name=names[-1])
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [
            f'.SS "{escape(" ".join(names[1:]))}"',
            f".B {escape(' '.join(names))}",
            escape(usage),
            ".PP",
            text(command.help or ""),
        ]
        lines += options(command)
    lines += [
        ".SH ENVIRONMENT",
        "Every key of the configuration has a variable; \\fBholdfast config schema\\fR names them.",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def commands(group: click.Group, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command below a group, groups before what is in them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))


def options(command: click.Command) -> list[str]:
    context = click.Context(command)
    records = [
        record for param in command.get_params(context) if (record := param.get_help_record(context)) is not None
    ]
    return [line for name, told in records for line in (".TP", f".B {escape(name)}", escape(told))]


def text(told: str) -> str:
    """Paragraphs of a help text."""
    told = told.partition("\f")[0].replace("\b", "")
    return "\n.PP\n".join(escape(" ".join(part.split())) for part in re.split(r"\n\s*\n", told) if part.strip())


def escape(told: str) -> str:
    """Text that roff takes as text, also at the beginning of a line."""
    plain = told.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


if __name__ == "__main__":
    print(page(), end="")
