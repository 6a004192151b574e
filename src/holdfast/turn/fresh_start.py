"""A conversation that nobody survives is not read again: by policy, off by default (`recovery.fresh_after`)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from holdfast.store.views import InputView, TurnView
from holdfast.text import on_one_line
from holdfast.turn.resets import begin_anew
from holdfast.turn.turn import Turn

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

RunInput = Callable[[Turn, InputView], Awaitable[None]]
log = logging.getLogger("holdfast.recovery")


def ended_by_recovery(turn: TurnView) -> bool:
    """Whether a turn died with its process, or was ended since it stood still."""
    return turn.outcome == "died" or (
        turn.outcome == "interrupted" and (turn.detail or "").startswith("stopped by recovery")
    )


def wants_fresh_start(before: Sequence[TurnView], fresh_after: int) -> bool:
    """Whether so many turns in a row, newest first, have ended by recovery."""
    return fresh_after > 0 and len(before) >= fresh_after and all(map(ended_by_recovery, before[:fresh_after]))


def with_fresh_starts(hf: Holdfast, run_input: RunInput) -> RunInput:
    """`run_input`, before which a conversation begins anew if the last turns of its session have all ended by recovery.

    Only at the first run of an input: a later one carries on what stands in the old conversation, and that input ends
    by itself after three attempts.
    """

    async def run(turn: Turn, view: InputView) -> None:
        many = hf.watch.fresh_after
        if many and turn.attempt == 1 and "messages" not in view.payload:
            turns = await hf.store.turns(session=turn.session, limit=many + 1)
            if wants_fresh_start([one for one in turns if one.id != turn.id], many):
                branch = await turn.branch()
                last = branch[-1].id if branch else None
                why = f"recovery: the last {many} turns died or stood still"
                await begin_anew(hf, turn, by=why)
                turn.note("turn.began_anew", why=why)
                log.warning("session.recovery.fresh_start session=%s turn=%s file=%s old_conversation_ends_at=%s",
                            on_one_line(turn.session), turn.id, turn.transcript.path, last)  # fmt: skip
        await run_input(turn, view)

    return run
