"""Putting a question to a person and waiting for the answer: what a gateway's gate does for tools, and `Turn.ask_leave`
for programs that bring a loop of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.text import on_one_line
from holdfast.tool.approval import Approval, ApprovalOrder, NotAsked

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

LOOK_S = 1.0
"""Everyone looks once a second; wake-ups are hints."""
log = logging.getLogger("holdfast.tools")


async def ask(
    hf: Holdfast, turn: Turn, order: ApprovalOrder, *, told: Callable[[Approval], Awaitable[None]] | None = None
) -> Approval | NotAsked:
    """Put a question, and wait for its answer or the end of its time.

    Args:
        told: called once it is in the ledger, with its id.

    Returns: with state "used" if what was asked for may be done now, once, by this turn, and only then; else what
    became of it.

    Raises:
        SessionTakeoverError, OwnershipLostError: the session was lost meanwhile. TurnCancelledError: and the like.

    Cancelled: the question is void if the turn is to stop; else the next attempt takes it over.
    """
    asked = await hf.store.ask_approval(order)
    if isinstance(asked, NotAsked):
        return asked
    turn.flush_story()
    turn.publish("turn.approval", id=asked.id, name=order.tool, arguments=asked.shown)
    hf.answers_arrived.set()
    log.info("turn %s waits for a person: may %s run? (%s)", turn.id, on_one_line(order.tool), asked.id)
    try:
        if told is not None:
            await told(asked)
        answer = await _answer(hf, asked, order.timeout_s)
    except BaseException:
        if turn.is_to_stop:  # else the next attempt takes it over: it tells that the call has not run
            hf.store.void_approval(asked.id)
        raise
    turn.publish("turn.approval_ended", id=asked.id, name=order.tool, state=answer.state)
    if answer.state == "approved":
        await turn.check()  # it is ours still, and nobody has asked it to stop
        if await hf.store.use_approval(answer.id, order.turn, turn.epoch, order.digest):
            return replace(answer, state="used")
        answer = await hf.store.approval(asked.id) or answer
    return replace(answer, state="void") if answer.state in ("approved", "used") else answer  # it was another's to use


async def _answer(hf: Holdfast, asked: Approval, timeout_s: float) -> Approval:
    """What became of the question, once it is answered or its time is over; by our own clock."""
    until = hf.clock.mono() + timeout_s
    while True:
        hf.approvals_changed.clear()
        found = await hf.store.approval(asked.id) or asked
        if found.state != "pending":
            return found
        left = until - hf.clock.mono()
        if left <= 0:
            await hf.store.close_approval(asked.id, "expire")
            return await hf.store.approval(asked.id) or found
        await _pause(hf, min(left, LOOK_S))


async def _pause(hf: Holdfast, seconds: float) -> None:
    waits = [asyncio.ensure_future(one) for one in (hf.clock.sleep(seconds), hf.approvals_changed.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
