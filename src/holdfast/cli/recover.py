"""`holdfast recover`: close what died, as the next owner would, and say whether it helped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from holdfast.cli import exit_codes
from holdfast.cli.another_state import telling_of_another_state
from holdfast.cli.lists import read
from holdfast.cli.output import local_time, log_plainly, print_json, print_text
from holdfast.cli.settings import Seconds, Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.errors import UnknownSessionError
from holdfast.recovery.shown import plan_shown, report_shown
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.recovery.classify import LeftAlone, Owner, Plan
    from holdfast.recovery.reaper import Report
    from holdfast.store.views import Hold


@click.command()
@click.argument("session", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would be done; nothing in the state changes.")
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Watch the turns of living processes for so long; those that show no life for 90 s are closed, too.",
)
@click.option("--ask", is_flag=True, help="Ask turns of living processes, too, to end; they get 15 s for it.")
@click.option("--release", is_flag=True, help="Let work go on that is held back after a crash loop of gateways.")
@common_options
@pass_settings
def recover(settings: Settings, session: str | None, dry_run: bool, wait_s: float, ask: bool, release: bool) -> int:
    """Close turns whose process is dead: of SESSION, or of all sessions.

    What such a turn had answered is settled, anything else goes back to its place in line (or ends with an explanation
    after three attempts). Whatever uses the state does the same by itself within a second; this is for when nothing
    runs, or for asking why nothing moves. A live owner is never forced: with --ask it is asked to end its turn itself.

    After three gateways that died within five minutes work is held back; --release lets it go on.

    Each action says what came of it: `effective` (verified), `not_needed` (somebody else was faster) or `ineffective`.
    Exit code 0: nothing is left to do; 1: something is (with --dry-run: would be done).
    """
    if dry_run:
        plan, hold = read(settings, lambda hf: _plan(hf, session, ask))
        _show_plan(settings, plan, hold)
        return exit_codes.FAILED if plan.actions or hold is not None else exit_codes.DONE
    settings.stand_beside_openclaw()
    with telling_of_another_state(settings):
        report, released = asyncio.run(_recover(settings, session, wait_s, ask, release))
    _show_report(settings, report, released)
    left = report.outcome == "ineffective" or report.hold is not None
    return exit_codes.FAILED if left else exit_codes.DONE


def _orderer(ask: bool) -> str | None:
    return f"holdfast recover ({user_name()})" if ask else None


async def _raise_if_unknown(hf: Holdfast, session: str | None) -> None:
    """Nothing to do in a session that does not exist is no success: it was looked for in the wrong place."""
    if session is not None and await hf.store.find_transcript(session) is None:
        raise UnknownSessionError(f"no session {session!r} in {hf.state}; `holdfast sessions` lists them")


async def _plan(hf: Holdfast, session: str | None, ask: bool) -> tuple[Plan, Hold | None]:
    await _raise_if_unknown(hf, session)
    return await hf.plan_recovery(session, ask=_orderer(ask)), await hf.held()


async def _recover(
    settings: Settings, session: str | None, wait_s: float, ask: bool, release: bool
) -> tuple[Report, Hold | None]:
    import holdfast

    log_plainly()
    async with holdfast.open(settings.existing_state(), kind="cli", **settings.lock_terms()) as hf:
        await _raise_if_unknown(hf, session)
        released = await hf.release() if release else None
        return await hf.recover(session, wait_s=wait_s, ask=_orderer(ask)), released


def _show_plan(settings: Settings, plan: Plan, hold: Hold | None) -> None:
    if settings.json:
        print_json(plan_shown(plan, hold))
        return
    _show_hold(hold)
    for one in plan.actions:
        done = "asked to end" if one.kind == "ask_to_end" else "closed"
        print_text(on_one_line(f"{_words(one.owner)}: would be {done}, since {one.reason}"))
    _show_left(plan.left_alone, nothing=not plan.actions)


def _show_hold(hold: Hold | None) -> None:
    if hold is not None:
        print_text(on_one_line(f"work is held back since {local_time(hold.since_ms)}: {hold.way_out}"))


def _show_report(settings: Settings, report: Report, released: Hold | None) -> None:
    if settings.json:
        print_json(report_shown(report, released))
        return
    if released is not None:
        print_text(on_one_line(f"released: work had been held back since {local_time(released.since_ms)}"))
    _show_hold(report.hold)
    for one in report.done:
        print_text(on_one_line(f"{_words(one.action.owner)}: {one.action.reason}; {one.outcome}: {one.detail}"))
    _show_left(report.left_alone, nothing=not report.done)


def _show_left(left: tuple[LeftAlone, ...], *, nothing: bool) -> None:
    for one in left:
        print_text(on_one_line(f"{_words(one.owner)}: left alone, {one.reason}"))
    if nothing:
        print_text("not_needed: no turn of a dead process")


def _words(owner: Owner) -> str:
    pid = f" (pid {owner.pid})" if owner.pid is not None else ""
    doing = f", {owner.report.in_words}" if owner.report is not None else ""
    return f"{', '.join(owner.sessions)}: turn {owner.turn} ({owner.lane}) of process {owner.process}{pid}{doing}"
