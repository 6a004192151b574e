"""What the pages tell people to type: commands and options exist, configurations hold, programs use names we have."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

import holdfast
from holdfast.cli.root import root
from holdfast.config.load import read_config
from holdfast.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "integrations").glob("*.md")),
]
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
NO_COMMANDS = ("holdfast writer", "holdfast reader", "holdfast node")
"""Names that connections to PostgreSQL carry."""
_INLINE = re.compile(r"`(holdfast [^`\n]+)`")


@dataclass(frozen=True)
class Snippet:
    """page: with the line it begins at."""

    page: str
    text: str


def blocks(*languages: str) -> Iterator[Snippet]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            if found["language"] in languages:
                line = text.count("\n", 0, found.start()) + 1
                yield Snippet(f"{page.relative_to(ROOT)}:{line}", found["text"])


def commands() -> Iterator[Snippet]:
    """Each `holdfast …` of a shell block or between back ticks, without what follows a pipe or a comment."""
    for block in blocks("sh", "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield from (Snippet(block.page, part) for part in typed(line.removeprefix("$ ")))
    for page in PAGES:
        for found in _INLINE.finditer(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
            if found[1] not in NO_COMMANDS:
                yield Snippet(str(page.relative_to(ROOT)), found[1])


def typed(line: str) -> list[str]:
    before = re.split(r"\s#\s|[|;&](?!=)", line)[0]
    at = re.search(r"(?:^|\s)(holdfast\s.*)", before)
    return [at[1].strip()] if at else []


def fault_of(text: str) -> str | None:
    """What is wrong with a command as written; placeholders in capitals and `…` stand for anything."""
    try:
        words = shlex.split(text.partition(" | ")[0].replace("…", " "))[1:]  # what follows is another program's
    except ValueError as exc:
        return str(exc)
    command: click.Command = root
    options: dict[str, click.Parameter] = {}
    for at, word in enumerate(words):
        for param in command.params:
            options |= dict.fromkeys([*param.opts, *param.secondary_opts], param)
        if word.startswith("-") and len(word) > 1:
            name = word.partition("=")[0].rstrip("]")
            if name not in options and name not in ("--help", "-h", "--json", "--version"):
                return f"{command.name} has no {name}"
        elif isinstance(command, click.Group) and not _is_value(words, at, options):
            names = word.strip("[]").split("|")
            found = [command.get_command(click.Context(command), name) for name in names]
            if None in found:
                return None if word.isupper() or "/" in word else f"{command.name} has no command {word!r}"
            if len(found) > 1:
                return None
            command = found[0] or command
    return None


def _is_value(words: list[str], at: int, options: dict[str, click.Parameter]) -> bool:
    """Whether the word belongs to the option before it."""
    option = options.get(words[at - 1]) if at else None
    return isinstance(option, click.Option) and not option.is_flag


@pytest.mark.parametrize("snippet", list(commands()), ids=lambda snippet: f"{snippet.page} {snippet.text[:50]}")
def test_a_command_on_a_page_exists_with_its_options(snippet: Snippet) -> None:
    assert fault_of(snippet.text) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("holdfast nosuch", "has no command"),
        ("holdfast send --nosuch x", "has no --nosuch"),
        ("holdfast --state x sessions archives", None),
        ("holdfast outbox show|retry|drop ID", None),
        ("holdfast sessions NAME", None),
    ],
)
def test_a_wrong_command_would_be_found(text: str, fault: str | None) -> None:
    found = fault_of(text)
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)


def configurations() -> list[Snippet]:
    """Those of Holdfast; a package's own file has a table of that name, the sweeper's says so at its beginning."""
    others = ("[project", "# sweeper.toml")
    return [snippet for snippet in blocks("toml") if not any(one in snippet.text for one in others)]


@pytest.mark.parametrize("snippet", configurations(), ids=lambda snippet: snippet.page)
def test_a_configuration_on_a_page_holds(snippet: Snippet, tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(snippet.text.replace("…", "0" * 64), encoding="utf-8")
    try:
        read_config(file, {})
    except ConfigError as exc:
        faults = [line for line in str(exc).splitlines() if " is not set" not in line]
        assert faults == []


ELSEWHERE = {"holdfast.integrations.openai_agents"}
"""Modules whose frameworks are not in this environment: their tests run in one of their own."""


def defined_in(module: str) -> set[str]:
    source = Path(holdfast.__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


@pytest.mark.parametrize("snippet", list(blocks("python")), ids=lambda snippet: snippet.page)
def test_a_program_on_a_page_uses_what_is_there(snippet: Snippet) -> None:
    text = textwrap.dedent(snippet.text)
    tree = compile(text, snippet.page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast"):
            if node.module in ELSEWHERE:
                assert {name.name for name in node.names} <= defined_in(str(node.module))
                continue
            module = importlib.import_module(str(node.module))
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "holdfast":
            assert hasattr(holdfast, node.attr), node.attr
