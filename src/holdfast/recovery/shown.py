"""Plans and reports of recovery as JSON: what `holdfast recover --json` and the gateway answer."""

from __future__ import annotations

from typing import Any

from holdfast.recovery.classify import LeftAlone, Owner, Plan
from holdfast.recovery.reaper import Report
from holdfast.store.views import Hold


def plan_shown(plan: Plan, hold: Hold | None) -> dict[str, Any]:
    """What would be done."""
    actions = [{**_owner(one.owner), "action": one.kind, "reason": one.reason} for one in plan.actions]
    held = hold.reason if hold is not None else None
    return {"dry_run": True, "held": held, "actions": actions, "left_alone": _left(plan.left_alone)}


def report_shown(report: Report, released: Hold | None = None) -> dict[str, Any]:
    """What was done, and what came of it."""
    actions = [
        {**_owner(one.action.owner), "action": one.action.kind, "reason": one.action.reason,
         "outcome": one.outcome, "detail": one.detail}
        for one in report.done
    ]  # fmt: skip
    held, freed = (one.reason if one is not None else None for one in (report.hold, released))
    left = _left(report.left_alone)
    return {"outcome": report.outcome, "held": held, "released": freed, "actions": actions, "left_alone": left}


def _left(left: tuple[LeftAlone, ...]) -> list[dict[str, Any]]:
    return [{**_owner(one.owner), "reason": one.reason} for one in left]


def _owner(owner: Owner) -> dict[str, Any]:
    return {
        "sessions": list(owner.sessions), "transcript": owner.transcript, "epoch": owner.epoch.number,
        "turn": owner.turn, "lane": owner.lane, "process": owner.process, "pid": owner.pid, "life": owner.life,
        "input": owner.input_id, "queued": owner.queued,
        "work": owner.report.in_words if owner.report is not None else None,
    }  # fmt: skip
