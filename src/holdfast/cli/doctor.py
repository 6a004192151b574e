"""`holdfast doctor`: whether what a state promises is true of it now, and mending it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from holdfast.cli import exit_codes
from holdfast.cli.output import log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.doctor.checkup import Checkup, Mended
    from holdfast.doctor.facts import PlaceFacts, StateFacts
    from holdfast.doctor.finding import Finding

Progress = Callable[[str, int, int], None]


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended safely; no transcript is ever moved or removed.")
@click.option("--online", is_flag=True, help="Ask each configured model for one word, too; that costs some tokens.")
@common_options
@pass_settings
def doctor(settings: Settings, fix: bool, online: bool) -> int:
    """Check a state: its ledger, conversations, queues, deliveries, files and disk; and its configuration.

    Works beside a gateway and without one, and changes nothing without --fix. What may be over in an instant counts
    only if it is still there at a second look. A fault breaks a promise, or is about to; a remark is good to know.

    Exit code 0: no fault (or none is left); 1: faults; 78: the configuration is wrong.
    """
    from holdfast.cli.surroundings import look_around

    state = settings.existing_state()
    with _progress(settings) as progress:
        around = look_around(settings, online=online, progress=progress)
        result = _check(settings, state, around, fix, progress)
    if settings.json:
        print_json({**_as_json(result, fix), "not_applicable": _without(state)})
    else:
        _show(result, fix)
        if "://" in state:
            for check, why in _without(state).items():
                print_text(on_one_line(f"not applicable ({check}): {why}"))
    if around.config_faults:
        return exit_codes.CONFIGURATION
    return exit_codes.FAILED if any(one.level == "fault" for one in result.found) else exit_codes.DONE


def _without(state: str) -> dict[str, str]:
    """Checks that a state of this kind cannot have, and why."""
    from holdfast.doctor.database import NOT_APPLICABLE, OF_DATABASES

    return NOT_APPLICABLE if "://" in state else OF_DATABASES


def _check(settings: Settings, state: str, around: PlaceFacts, fix: bool, progress: Progress) -> Checkup:
    """Look, and mend if asked. A damaged ledger or a wrong configuration comes first: nothing is opened then."""
    import holdfast.opening
    from holdfast.doctor.checkup import Checkup, look

    def examine() -> StateFacts:
        return replace(holdfast.opening.examine(state, progress=progress), place=around)

    facts, found = look(examine)
    may_open = not (facts.problem or facts.ledger.damage or around.config_faults)
    if not fix or not may_open or not any(one.mendable for one in found):
        return Checkup(tuple(found))
    settings.stand_beside_openclaw()
    mended = asyncio.run(_mend(settings, found))
    _, found = look(examine)
    return Checkup(tuple(found), tuple(mended))


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
        bars = {what: shown.add_task(what, total=1) for what in ("models", "ledger", "transcripts")}
        yield lambda what, done, of: shown.update(bars[what], completed=done, total=max(of, 1))
