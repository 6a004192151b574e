"""What goes to standard output: tables for people, plain text for pipes, JSON for programs."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from holdfast.errors import HoldfastError
from holdfast.text import escape_controls, on_one_line


class OutputError(HoldfastError):
    """Standard output took no more: its disk is full, or failed. What was asked for has been done all the same."""


def print_json(value: Any) -> None:
    """One JSON document on one line; dataclasses of the store are objects with the same names."""
    import msgspec

    try:
        print_text(msgspec.json.encode(value).decode("utf-8"))
    except UnicodeEncodeError:  # half an emoji, which only an escape can hold
        print_text(json.dumps(msgspec.to_builtins(value)))


def print_text(text: str) -> None:
    """A line, whatever is in it: what the terminal cannot show (half an emoji, a foreign encoding) is escaped.

    Raises: OutputError; BrokenPipeError where the reader has gone.
    """
    encoding = sys.stdout.encoding or "utf-8"
    with _output_refused():
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def flush_output() -> None:
    """Write what is left. Raises as `print_text`."""
    with _output_refused():
        sys.stdout.flush()


@contextmanager
def _output_refused() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as failed:
        raise OutputError(f"standard output cannot be written: {failed.strerror or failed}") from failed


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Rows under their columns: drawn by rich on a terminal, tab-separated without a heading in a pipe."""
    shown = [[on_one_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            print_text("\t".join(row))
    elif not shown:
        click.echo(empty)
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in shown:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)


def for_people(text: str) -> str:
    """`text` as it is into a pipe or file, with its control characters shown on a terminal."""
    return escape_controls(text) if sys.stdout.isatty() else text


def log_plainly(*, of_one_message: bool = False) -> None:
    """Warnings of the library as lines on standard error, in the form in which errors are told.

    Args:
        of_one_message: what becomes of it is told at the end; without the lines that say the same to operators.
    """
    handler = logging.StreamHandler()
    if of_one_message:
        handler.addFilter(_for_the_one_who_asked)
    logging.basicConfig(format="holdfast: %(message)s", level=logging.WARNING, handlers=[handler])


_FOR_OPERATORS = (
    "[model-fallback/decision]",
    "[diagnostic] lane task error",
    "Embedded agent failed",
    "no price is known",
)
_WAITS = re.compile(r"decision=candidate_waits .*candidate=(?P<who>\S+) reason=(?P<why>\S+) .*detail=(?P<what>.*)")


def _for_the_one_who_asked(record: logging.LogRecord) -> bool:
    """Leaves out what is told at the end anyway; that a model is asked again is told as a person would say it."""
    said = record.getMessage()
    waits = _WAITS.search(said)
    if waits is not None:
        from holdfast.model.words import in_words

        record.msg, record.args = f"{waits['who']} {in_words(waits['why'])}; {waits['what']}", ()
    return waits is not None or not said.startswith(_FOR_OPERATORS)


def local_time(at_ms: int | None) -> str:
    """Milliseconds since 1970 as the reader's own date and time; an empty text for None."""
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def shortened(text: str, length: int = 60) -> str:
    """The first line of `text`, at most `length` characters."""
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= length and first == text.strip() else first[: length - 1] + "…"
