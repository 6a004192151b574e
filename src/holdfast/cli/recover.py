"""`holdfast recover`: close what died, as the next owner would, and say whether it helped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import exit_codes
from holdfast.cli.lists import read
from holdfast.cli.output import log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.recovery.classify import LeftAlone, Owner, Plan
    from holdfast.recovery.reaper import Report


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
@common_options
@pass_settings
def recover(settings: Settings, session: str | None, dry_run: bool, wait_s: float) -> int:
    """Close turns whose process is dead: of SESSION, or of all sessions.

    What such a turn had answered is settled, anything else goes back to its place in line (or ends with an explanation
    after three attempts). Whatever uses the state does the same by itself within a second; this is for when nothing
    runs, or for asking why nothing moves. A live owner is never touched.

    Each action says what came of it: `effective` (verified), `not_needed` (somebody else was faster) or `ineffective`.
    Exit code 0: nothing is left to do; 1: something is (with --dry-run: would be done).
    """
    if dry_run:
        plan = read(settings, lambda hf: hf.plan_recovery(session))
        _show_plan(settings, plan)
        return exit_codes.FAILED if plan.actions else exit_codes.DONE
    report = asyncio.run(_recover(settings, session, wait_s))
    _show_report(settings, report)
    return exit_codes.FAILED if report.outcome == "ineffective" else exit_codes.DONE


async def _recover(settings: Settings, session: str | None, wait_s: float) -> Report:
    import holdfast

    log_plainly()
    async with holdfast.open(settings.existing_state(), kind="cli") as hf:
        return await hf.recover(session, wait_s=wait_s)


def _show_plan(settings: Settings, plan: Plan) -> None:
    if settings.json:
        actions = [{**_owner(one.owner), "action": one.kind, "reason": one.reason} for one in plan.actions]
        print_json({"dry_run": True, "actions": actions, "left_alone": _left(plan.left_alone)})
        return
    for one in plan.actions:
        print_text(on_one_line(f"{_words(one.owner)}: would be closed, since {one.reason}"))
    _show_left(plan.left_alone, nothing=not plan.actions)


def _show_report(settings: Settings, report: Report) -> None:
    if settings.json:
        actions = [
            {**_owner(one.action.owner), "action": one.action.kind, "reason": one.action.reason,
             "outcome": one.outcome, "detail": one.detail}
            for one in report.done
        ]  # fmt: skip
        print_json({"outcome": report.outcome, "actions": actions, "left_alone": _left(report.left_alone)})
        return
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
