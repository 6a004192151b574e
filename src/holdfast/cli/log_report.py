"""The shell of `holdfast incidents report`: files in, progress on the terminal, a report out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from holdfast.cli import exit_codes
from holdfast.cli.output import print_json, print_text
from holdfast.errors import InputError
from holdfast.observe.incidents.as_page import report_page
from holdfast.observe.incidents.as_text import report_text
from holdfast.observe.incidents.findings import findings_of
from holdfast.observe.incidents.log_events import event_of
from holdfast.observe.incidents.log_files import Source, journal, lines_of, lines_of_stream, source_of
from holdfast.observe.incidents.log_lines import LogLine
from holdfast.observe.incidents.tally import Tally

STANDARD_INPUT = Path("-")


def journal_arguments(wanted: bool, units: Sequence[str], since: str | None) -> tuple[str, ...] | None:
    """What journalctl is told besides; None: the journal is not read."""
    if not wanted:
        if units or since:
            raise click.UsageError("--unit and --since are about the journal: add --journal")
        return None
    named = [argument for unit in units for argument in (f"--unit={unit}", f"--user-unit={unit}")]
    return (*named, *([f"--since={since}"] if since else []))


def run(files: Sequence[Path], journal_of: tuple[str, ...] | None, html: Path | None, *, as_json: bool) -> int:
    """Read all, in the order given; the exit code.

    A file that is damaged is told of on standard error, and what could be read of it counts.
    Raises: InputError: a file is not there; the page cannot be written (the report has been shown by then).
    """
    if not files and journal_of is None:
        raise click.UsageError("name log files, or use --journal")
    sources = [(path, _source(path)) for path in files]
    tally, names = Tally(), [source.name for _, source in sources]
    faults: list[str] = []
    with _progress(sum(source.bytes_total or 0 for _, source in sources)) as read:
        for path, source in sources:
            stream = lines_of_stream(sys.stdin.buffer, source, read) if path == STANDARD_INPUT else None
            _count(tally, stream or lines_of(path, source, read), faults)
        if journal_of is not None:
            names.append("journal")
            with journal(journal_of) as stream:
                _count(tally, lines_of_stream(stream, Source("journal", None, None), read), faults)
    found = findings_of(tally, names)
    for fault in faults:
        print(f"holdfast: {fault}", file=sys.stderr)
    if as_json:
        print_json(found)
    else:
        for line in report_text(found):
            print_text(line)
    if html is not None:
        _write(html, report_page(found))
    return exit_codes.DONE if found.is_clean and not faults else exit_codes.FAILED


def _source(path: Path) -> Source:
    return Source("standard input", None, None) if path == STANDARD_INPUT else source_of(path)


def _count(tally: Tally, lines: Iterable[LogLine], faults: list[str]) -> None:
    try:
        tally.add(event for line in lines if (event := event_of(line)) is not None)
    except InputError as damaged:
        faults.append(str(damaged))


def _write(path: Path, page: str) -> None:
    try:
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(page)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc.strerror or exc}") from exc


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("", total=total or None)
        yield lambda count: shown.advance(bar, count)
