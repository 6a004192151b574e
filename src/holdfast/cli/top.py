"""`holdfast top`: what runs, waits and went wrong, in a terminal."""

from __future__ import annotations

import sys

import click

from holdfast.cli.lists import read
from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Seconds, Settings, common_options, pass_settings
from holdfast.errors import InputError


@click.command()
@click.option("--once", is_flag=True, help="Print one look and end; also where the output is no terminal.")
@click.option(
    "--every",
    "every_s",
    type=Seconds(min=0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between looks.",
)
@common_options
@pass_settings
def top(settings: Settings, once: bool, every_s: float) -> None:
    """Show sessions with their owners and what they do, the queue, models, outbox, timers and incidents, live.

    Arrow keys choose a row, Enter tells why, 1 to 6 and Tab change the view, / filters, s stops, q ends. Looking
    changes nothing in the state; it works with and without a gateway.
    """
    if once or settings.json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _print_once(settings)
        return
    try:
        from holdfast.cli.top_screen import Top
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "textual":
            raise
        raise InputError(
            "holdfast top needs the package textual: pip install 'holdfast[top]' (`holdfast top --once` does without)"
        ) from missing
    settings.existing_state()
    Top(settings, every_s=every_s).run()


def _print_once(settings: Settings) -> None:
    from holdfast.cli.glance import COLUMNS, TABS, look

    found = read(settings, look)
    if settings.json:
        print_json(
            {
                "at_ms": found.at_ms,
                "head": found.head,
                "held": found.held,
                **{
                    tab: [
                        dict(zip(map(str.lower, COLUMNS[tab]), row.cells, strict=True)) | {"why": row.why}
                        for row in found.rows[tab]
                    ]
                    for tab in TABS
                },
            }
        )
        return
    print_text(found.head)
    if found.held is not None:
        print_text(f"work is held back: {found.held}")
    for tab in TABS:
        if found.rows[tab]:
            print_text("")
            print_text(tab)
            for line in _columns([COLUMNS[tab], *(row.cells for row in found.rows[tab])]):
                print_text(f"  {line}")


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Cells under each other, each column as wide as its widest cell, up to 44; the last one as it is."""
    widths = [min(44, max(len(cell) for cell in column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in rows
    ]
