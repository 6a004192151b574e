"""Bringing what a timer's run has found into a conversation: an input like any other, whose turn asks no model.

Its turn takes the session for an instant, writes what was found as the assistant's own words, so that the conversation
knows of it, and settles with it, so that the outbox carries it. Its key is the run's, so it happens once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.inbound.event import InboundEvent, Route
from holdfast.outbox.message import Outcome
from holdfast.session import entries as made
from holdfast.store.views import InputView
from holdfast.turn.turn import Turn

RunInput = Callable[[Turn, InputView], Awaitable[None]]
LANE = "announcement"
SOURCE = "announcement"
WEBHOOK = "webhook"
"""The channel of results that are posted; its targets are ids of timers (`channel/webhook.py`)."""


def event_of(run: str, of: str | None, text: str, session: str, route: Route | None, *, line: bool) -> InboundEvent:
    """The event of an announcement.

    Args:
        run: its idempotency key: the run, and which of its announcements.
        of: the input whose result it is.
        line: whether it is written into the session; not where it stands there already.
    """
    about = {"run": run, "of": of, "line": line}
    return InboundEvent(
        session, {"content": text, "announces": about}, source=SOURCE, key=run, lane=LANE, route=route, waits=True,
        origin={"of": of},
    )  # fmt: skip


def announced_by(payload: dict[str, Any]) -> dict[str, Any] | None:
    """What an input announces, if it is an announcement of ours."""
    about = payload.get("announces")
    return about if isinstance(about, dict) else None


def is_announcement(view: InputView) -> bool:
    return view.source == SOURCE and announced_by(view.payload) is not None


def with_announcements(run_input: RunInput) -> RunInput:
    """`run_input` for everything but announcements, which need no model."""

    async def run(turn: Turn, view: InputView) -> None:
        await (run_announcement if is_announcement(view) else run_input)(turn, view)

    return run


async def run_announcement(turn: Turn, view: InputView) -> None:
    """The whole turn. Raises as `Turn.append`."""
    text = str(view.payload["content"])
    if (announced_by(view.payload) or {}).get("line"):
        await turn.append(made.assistant(text, model=made.ANNOUNCEMENT_MODEL), final=True)
    else:
        turn.outcome = Outcome("answered", answer=text, detail="announced; it stands in its own session already")
