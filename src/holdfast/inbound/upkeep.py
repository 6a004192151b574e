"""Shortening a conversation between two turns: an input of its own, in a lane behind everybody else's.

So it waits for whoever has the session, holds it like any turn, gives way to people, ends in one named way, and whoever
dies in the middle leaves the session as it was and the input queued.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from holdfast.errors import InputError
from holdfast.inbound.event import Accepted, Admission, InboundEvent
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.store.views import InputView

LANE = "compaction"
SOURCE = "compaction"
FOCUS_CHARS_MAX = 1_000
log = logging.getLogger("holdfast.compaction")


def event_of(session: str, *, by: str, why: str, focus: str = "", key: str | None = None) -> InboundEvent:
    """The event that asks for it.

    Args:
        by: who asks, for people.
        why: "threshold": it is skipped if there is room by then; "hand": somebody wants it.
        focus: what the summary should keep above all.

    Raises:
        InputError: a focus of more than 1,000 characters.
    """
    if len(focus) > FOCUS_CHARS_MAX:
        raise InputError(f"a focus has at most {FOCUS_CHARS_MAX} characters; this one has {len(focus)}")
    about = {"by": by, "why": why, "focus": focus}
    return InboundEvent(
        session, {"content": "shorten the conversation", "compaction": about}, source=SOURCE, key=key, lane=LANE,
        waits=True,
    )  # fmt: skip


async def ask_for_compaction(
    hf: Holdfast, session: str, *, by: str, why: str = "hand", focus: str = "", key: str | None = None
) -> Admission:
    """Have a conversation shortened as soon as nobody has it. Raises as `Holdfast.accept`."""
    admission = await hf.accept(event_of(session, by=by, why=why, focus=focus, key=key))
    if isinstance(admission, Accepted) and admission.ahead:
        log.info("compaction %s of session %s deferred: it waits for %d before it", admission.input_id,
                 on_one_line(session), admission.ahead)  # fmt: skip
    return admission


def compaction_in(view: InputView) -> dict[str, Any] | None:
    """What is asked, if an input of ours asks for a compaction."""
    about = view.payload.get("compaction")
    return about if view.source == SOURCE and isinstance(about, dict) else None
