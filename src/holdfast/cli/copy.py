"""`holdfast copy`: a state from a folder into PostgreSQL, or back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import on_one_line


@click.command()
@click.option("--from", "source", required=True, metavar="STATE", help="A state directory, or a postgres:// URL.")
@click.option("--to", "target", required=True, metavar="STATE", help="The other kind; it must be empty.")
@click.option("--hold/--no-hold", default=True, help="Hold work back in the copy until it is released [yes].")
@common_options
@pass_settings
def copy(settings: Settings, source: str, target: str, hold: bool) -> None:
    """Copy a state between a folder and a PostgreSQL database, both ways.

    Conversations byte for byte, archives, accepted messages with their keys, answers not yet delivered, timers, pins,
    usage. Nothing may use either side meanwhile. The source stays as it is. Killed, the same command goes on.

    Work is held back in the copy afterwards, so that nobody is answered twice if the source is started again: then
    `holdfast recover --release`.
    """
    from holdfast import opening

    with _progress(settings) as progress:
        done = opening.copy(source, target, hold=hold, progress=progress)
    if settings.json:
        print_json({**asdict(done), "remarks": list(done.remarks), "held": hold})
        return
    resumed = " (an earlier copy was gone on with)" if done.resumed else ""
    print_text(on_one_line(
        f"{done.target}: {done.sessions} sessions, {done.transcripts} transcripts, {done.archives} archives, "
        f"{done.lines:,} lines, {done.bytes:,} bytes, {done.rows:,} rows, {done.open_inputs} messages open, "
        f"{done.undelivered} answers undelivered{resumed}"
    ))  # fmt: skip
    for remark in done.remarks:
        print_text(on_one_line(f"remark: {remark}"))
    if hold:
        print_text(
            "Work is held back there. Start nothing on the old state any more; then `holdfast recover --release`."
        )


@contextmanager
def _progress(settings: Settings) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per thing that is copied, for people who watch; nothing for programs."""
    if settings.json or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    percent = TextColumn("{task.percentage:3.0f} %")
    columns = (TextColumn("{task.description:14}"), BarColumn(), percent, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("", total=None)
        yield lambda what, done, of: shown.update(bar, description=what[-14:], completed=done, total=max(of, 1))
