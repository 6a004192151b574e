"""A conversation that begins anew by itself: decided when its next message's turn begins, by that turn's owner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from holdfast.inbound.freshness import ResetPolicy, why_anew
from holdfast.lane.queue import USER_LANE
from holdfast.store.views import InputView
from holdfast.turn.turn import Turn

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

RunInput = Callable[[Turn, InputView], Awaitable[None]]


async def begin_anew(hf: Holdfast, turn: Turn, *, by: str) -> None:
    """Begin a new conversation in the turn's transcript; a model that failover has pinned goes, a user's choice stays.

    Carried out twice for an input it is done once. Raises: as `Turn.append`.
    """
    await turn.begin_anew(by=by)
    if await hf.store.grants(turn.session):  # what was allowed was allowed in the conversation before
        await hf.store.revoke_grants(turn.session)
    if turn.pin is not None and turn.pin.source == "auto":
        await hf.unpin_model(turn.session)


def with_resets(hf: Holdfast, run_input: RunInput, policy_of: Callable[[str], ResetPolicy]) -> RunInput:
    """`run_input`, before which a conversation that has grown stale begins anew.

    Only what people say asks: a machine's turn neither resets a conversation nor keeps it fresh. Clients that send a
    history of their own are left alone, since they say what the conversation is.
    """

    async def run(turn: Turn, view: InputView) -> None:
        policy = policy_of(view.session) if view.lane == USER_LANE and "messages" not in view.payload else None
        if policy is not None and not policy.is_never:
            last_ms = await hf.store.last_spoken_ms(view.session, before_input=view.id)
            why = why_anew(last_ms, view.accepted_at_ms, policy)
            if why is not None:
                await begin_anew(hf, turn, by=why)
                turn.note("turn.began_anew", why=why)
        await run_input(turn, view)

    return run
