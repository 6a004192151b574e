"""`holdfast doctor`: whether what a state promises is true of it now, and mending it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from holdfast.cli import exit_codes
from holdfast.cli.output import log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import ConfigError
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.doctor.checkup import Checkup, Mended
    from holdfast.doctor.finding import Finding

Progress = Callable[[str, int, int], None]


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended safely; no transcript is ever moved or removed.")
@common_options
@pass_settings
def doctor(settings: Settings, fix: bool) -> int:
    """Check a state: its ledger, conversations, queues, deliveries, files and disk.

    Works beside a gateway and without one, and changes nothing without --fix. What may be over in an instant counts
    only if it is still there at a second look. A fault breaks a promise, or is about to; a remark is good to know.

    Exit code 0: no fault (or none is left); 1: faults; 78: the configuration is wrong.
    """
    with _progress(settings) as progress:
        result, wrong = _check(settings, fix, progress)
    if settings.json:
        print_json(_as_json(result, fix))
    else:
        _show(result, fix)
    if wrong:
        return exit_codes.CONFIGURATION
    return exit_codes.FAILED if any(one.level == "fault" for one in result.found) else exit_codes.DONE


def _check(settings: Settings, fix: bool, progress: Progress) -> tuple[Checkup, bool]:
    """The check-up, and whether the configuration is wrong."""
    import holdfast.opening
    from holdfast.doctor.checkup import Checkup, look
    from holdfast.doctor.finding import Finding

    try:
        settings.load()
        around: list[Finding] = []
    except ConfigError as wrong:
        around = [
            Finding("config", fault.partition(":")[0], fault, "`holdfast config check`") for fault in wrong.faults
        ]
    state = settings.existing_state()
    facts, found = look(lambda: holdfast.opening.examine(state, progress=progress))
    mended: list[Mended] = []
    is_wrong, is_damaged = bool(around), bool(facts.problem or facts.ledger.damage)
    if fix and any(one.mendable for one in found) and not is_damaged and not is_wrong:
        settings.stand_beside_openclaw()
        mended = asyncio.run(_mend(settings, found))
        _, found = look(lambda: holdfast.opening.examine(state, progress=progress))
    return Checkup((*around, *found), tuple(mended)), is_wrong


async def _mend(settings: Settings, found: list[Finding]) -> list[Mended]:
    import holdfast
    from holdfast.doctor.checkup import mend

    log_plainly()
    async with holdfast.open(settings.existing_state(), kind="cli", **settings.lock_terms()) as hf:
        return await mend(hf, found)


# ── showing it ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _show(result: Checkup, fix: bool) -> None:
    from holdfast.doctor.finding import with_faults_first

    for one in result.helped:
        print_text(on_one_line(f"mended ({one.finding.check}): {one.finding.text}; {one.said}"))
    tried = {one.finding.name: one for one in result.mended}
    for one in with_faults_first(result.found):
        print_text(on_one_line(f"{one.level} ({one.check}): {one.text}"))
        told = tried.get(one.name)
        if told is not None:
            print_text(on_one_line(f"    not mended: {told.left or told.said}"))
        elif one.way_out:
            print_text(on_one_line(f"    {one.way_out}"))
    faults = sum(one.level == "fault" for one in result.found)
    mendable = sum(one.mendable for one in result.found)
    more = f", {mendable} of what was found can be mended with --fix" if mendable and not fix else ""
    mended = f", {len(result.helped)} mended" if fix else ""
    print_text(f"{faults} fault(s), {len(result.found) - faults} remark(s){mended}{more}")


def _as_json(result: Checkup, fix: bool) -> dict[str, object]:
    helped = {one.finding.name for one in result.helped}
    return {
        "ok": not any(one.level == "fault" for one in result.found),
        "fixed": fix,
        "findings": [_finding(one) for one in result.found],
        "repairs": [
            {
                **_finding(one.finding), "said": one.said or None, "left": one.left or None,
                "helped": one.finding.name in helped,
            }
            for one in result.mended
        ],
    }  # fmt: skip


def _finding(one: Finding) -> dict[str, object]:
    return {
        "check": one.check, "level": one.level, "subject": one.subject, "text": one.text, "way_out": one.way_out,
        "mendable": one.mendable,
    }  # fmt: skip


@contextmanager
def _progress(settings: Settings) -> Iterator[Progress]:
    """A bar per thing that is looked at, on a terminal."""
    if settings.json or not sys.stderr.isatty():
        yield lambda _what, _done, _all: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bars = {what: shown.add_task(what, total=1) for what in ("ledger", "transcripts")}
        yield lambda what, done, of: shown.update(bars[what], completed=done, total=max(of, 1))
