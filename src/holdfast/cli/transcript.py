"""`holdfast transcript`: what was said in a session, read off its file. Never writes, takes no lock."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.cli.lists import read
from holdfast.cli.output import for_people, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import InputError
from holdfast.observe.lines import describe, ids_beside

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.session.lines import Line

LOOK_S = 0.3


@click.command()
@click.argument("session")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on; end with Ctrl-C.")
@click.option("--raw", is_flag=True, help="The lines of the file, byte for byte.")
@click.option(
    "--all", "everything", is_flag=True, help="Also what is for audit alone: labels, notices, foreign lines, …"
)
@common_options
@pass_settings
def transcript(settings: Settings, session: str, follow: bool, raw: bool, everything: bool) -> None:
    """Print what was said in SESSION, oldest first.

    Without --all it shows what is for people: messages, summaries, kept answers. What of it the model is not shown is
    marked, and so are lines beside the active branch. With --json each line of the file is one JSON line with its kind,
    visibility, origin and place.
    """
    lines, path = read(settings, lambda hf: _lines_and_path(hf, session))
    beside = ids_beside(lines)
    write = _write_raw if raw else _write_json if settings.json else _write_text
    for line in lines:
        if raw or settings.json or everything or _is_for_everybody(line):
            write(line, beside=line.id in beside)
    if follow:
        if path is None:
            raise InputError("this state keeps no files to follow")
        for line in _follow(Path(path), sum(len(line.raw) + 1 for line in lines)):
            if raw or settings.json or everything or _is_for_everybody(line):
                write(line, beside=False)
                sys.stdout.flush()


async def _lines_and_path(hf: Holdfast, key: str) -> tuple[Sequence[Line], str | None]:
    session = hf.session(key)
    lines, path = await asyncio.gather(session.lines(), session.path())
    return lines, path


def _is_for_everybody(line: Line) -> bool:
    """What is for the model is for people, too."""
    return _visibility(line) != "audit"


def _visibility(line: Line) -> str:
    from holdfast.session.visibility import visibility_of

    return visibility_of(line)


def _follow(path: Path, offset: int) -> Iterator[Line]:
    """Lines written to `path` after `offset`, once complete. A replaced or cut file is read from its beginning."""
    from holdfast.session.lines import read_line, split_lines

    identity = path.stat().st_ino
    while True:
        try:
            found = path.stat()
            if found.st_ino != identity or found.st_size < offset:
                click.echo("holdfast: the file was replaced; from its beginning:", err=True)
                identity, offset = found.st_ino, 0
            with path.open("rb") as file:
                file.seek(offset)
                complete, _ = split_lines(file.read())
        except FileNotFoundError:
            complete = []  # between two names; or deleted, then it may come back
        for raw in complete:
            offset += len(raw) + 1
            yield read_line(raw)
        time.sleep(LOOK_S)


def _write_raw(line: Line, *, beside: bool) -> None:
    sys.stdout.buffer.write(line.raw + b"\n")
    sys.stdout.buffer.flush()


def _write_json(line: Line, *, beside: bool) -> None:
    try:
        entry = line.value()
    except (ValueError, RecursionError):
        entry = None
    text = None if entry is not None else line.raw.decode("utf-8", "backslashreplace")
    print_json(
        {
            "kind": line.kind, "visibility": _visibility(line), "beside": beside, "reason": line.reason, "entry": entry,
            "text": text,
        }
    )  # fmt: skip


def _write_text(line: Line, *, beside: bool) -> None:
    heading, text = describe(line)
    mark = {"user": "  (not for the model)", "audit": "  (for audit)"}.get(_visibility(line), "")
    mark += "  (beside the active branch)" if beside else ""
    print_text(for_people(f"── {heading}{mark}"))
    if text:
        print_text(for_people(text.rstrip("\n")) + "\n")
