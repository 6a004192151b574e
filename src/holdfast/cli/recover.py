"""`holdfast recover`: close what died, as the next owner would, and say whether it helped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import exit_codes
from holdfast.cli.lists import read
from holdfast.cli.output import local_time, log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
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
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Watch the turns of living processes for so long; those that show no life for 90 s are closed, too.",
)
@click.option("--release", is_flag=True, help="Let work go on that is held back after a crash loop of gateways.")
@common_options
@pass_settings
def recover(settings: Settings, session: str | None, dry_run: bool, wait_s: float, release: bool) -> int:
    """Close turns whose process is dead: of SESSION, or of all sessions.

    What such a turn had answered is settled, anything else goes back to its place in line (or ends with an explanation
    after three attempts). Whatever uses the state does the same by itself within a second; this is for when nothing
    runs, or for asking why nothing moves. A live owner is never touched.

    After three gateways that died within five minutes work is held back; --release lets it go on.

    Each action says what came of it: `effective` (verified), `not_needed` (somebody else was faster) or `ineffective`.
    Exit code 0: nothing is left to do; 1: something is (with --dry-run: would be done).
    """
    if dry_run:
        plan, hold = read(settings, lambda hf: _plan(hf, session))
        _show_plan(settings, plan, hold)
        return exit_codes.FAILED if plan.actions or hold is not None else exit_codes.DONE
    settings.stand_beside_openclaw()
    report, released = asyncio.run(_recover(settings, session, wait_s, release))
    _show_report(settings, report, released)
    left = report.outcome == "ineffective" or report.hold is not None
    return exit_codes.FAILED if left else exit_codes.DONE


async def _plan(hf: Holdfast, session: str | None) -> tuple[Plan, Hold | None]:
    return await hf.plan_recovery(session), await hf.held()


async def _recover(settings: Settings, session: str | None, wait_s: float, release: bool) -> tuple[Report, Hold | None]:
    import holdfast

    log_plainly()
    async with holdfast.open(settings.existing_state(), kind="cli", **settings.lock_terms()) as hf:
        released = await hf.release() if release else None
        return await hf.recover(session, wait_s=wait_s), released


def _show_plan(settings: Settings, plan: Plan, hold: Hold | None) -> None:
    if settings.json:
        actions = [{**_owner(one.owner), "action": one.kind, "reason": one.reason} for one in plan.actions]
        held = hold.reason if hold is not None else None
        print_json({"dry_run": True, "held": held, "actions": actions, "left_alone": _left(plan.left_alone)})
        return
    _show_hold(hold)
    for one in plan.actions:
        print_text(on_one_line(f"{_words(one.owner)}: would be closed, since {one.reason}"))
    _show_left(plan.left_alone, nothing=not plan.actions)


def _show_hold(hold: Hold | None) -> None:
    if hold is not None:
        print_text(on_one_line(f"work is held back since {local_time(hold.since_ms)}: {hold.way_out}"))


def _show_report(settings: Settings, report: Report, released: Hold | None) -> None:
    if settings.json:
        actions = [
            {**_owner(one.action.owner), "action": one.action.kind, "reason": one.action.reason,
             "outcome": one.outcome, "detail": one.detail}
            for one in report.done
        ]  # fmt: skip
        held, freed = (one.reason if one is not None else None for one in (report.hold, released))
        left = _left(report.left_alone)
        print_json({"outcome": report.outcome, "held": held, "released": freed, "actions": actions, "left_alone": left})
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


def _owner(owner: Owner) -> dict[str, Any]:
    return {
        "sessions": list(owner.sessions), "transcript": owner.transcript, "epoch": owner.epoch.number,
        "turn": owner.turn, "lane": owner.lane, "process": owner.process, "pid": owner.pid, "life": owner.life,
        "input": owner.input_id,
    }  # fmt: skip


def _left(left: tuple[LeftAlone, ...]) -> list[dict[str, Any]]:
    return [{**_owner(one.owner), "reason": one.reason} for one in left]


def _words(owner: Owner) -> str:
    pid = f" (pid {owner.pid})" if owner.pid is not None else ""
    return f"{', '.join(owner.sessions)}: turn {owner.turn} ({owner.lane}) of process {owner.process}{pid}"
