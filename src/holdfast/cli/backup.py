"""`holdfast backup` and `holdfast restore`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.store.views import Saved

Progress = Callable[[str, int, int], None]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--with-token", is_flag=True, help="Put the gateway's token in as well; without it a new one is made.")
@common_options
@pass_settings
def backup(settings: Settings, file: Path | None, with_token: bool) -> None:
    """Copy a state into one FILE, while it is in use [holdfast-DATE.tar.gz].

    Conversations, archives, accepted messages, answers not yet delivered, timers, pins, workspaces: all that a restored
    state goes on with. Not in it: keys and tokens that the configuration names, and files outside the state directory.
    A name without .gz is not compressed.
    """
    from holdfast import opening

    to = file or Path(f"holdfast-{datetime.now(UTC):%Y-%m-%d-%H%M%S}.tar.gz")
    state = settings.existing_state()
    with _progress(settings) as progress:
        saved = opening.backup(state, to, with_token=with_token, progress=progress)
    _show(settings, saved, f"{saved.path}: {_holds(saved)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--hold/--no-hold", default=True, help="Hold work back until it is released [yes].")
@common_options
@pass_settings
def restore(settings: Settings, file: Path, hold: bool) -> None:
    """Make the state directory (--state) from a backup FILE. It must not be there yet.

    Every file is compared with what was backed up. Work is held back afterwards, so that nobody is answered twice if
    the old state has gone on since: look at it, then `holdfast recover --release`.
    """
    from holdfast import opening

    with _progress(settings) as progress:
        saved = opening.restore(file, settings.state, hold=hold, progress=progress)
    _show(settings, saved, f"{saved.path}, as of {saved.at}: {_holds(saved)}")
    if hold and not settings.json:
        print_text(
            "Work is held back. Look at it (`holdfast inputs`, `holdfast outbox`), then `holdfast recover --release`."
        )


def _holds(saved: Saved) -> str:
    counted = [f"{saved.sessions} conversations", f"{saved.files} files", f"{saved.bytes:,} bytes",
               f"{saved.open_inputs} messages open", f"{saved.undelivered} answers undelivered"]  # fmt: skip
    return ", ".join(counted)


def _show(settings: Settings, saved: Saved, text: str) -> None:
    if settings.json:
        print_json({**asdict(saved), "remarks": list(saved.remarks)})
        return
    print_text(on_one_line(text))
    for remark in saved.remarks:
        print_text(on_one_line(f"remark: {remark}"))


@contextmanager
def _progress(settings: Settings) -> Iterator[Progress]:
    """A bar for people who watch; nothing for programs."""
    if settings.json or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("", total=None)

        def progress(name: str, done: int, total: int) -> None:
            shown.update(bar, description=on_one_line(name)[-40:], completed=done, total=total or None)

        yield progress
