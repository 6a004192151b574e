"""Repairs: what `--fix` does about a finding, through the doors that everything else goes through.

Each looks again whether it is still so, and says what it did; what did not help is found by the next look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.recovery.upkeep import finish
from holdfast.session.handle import UPKEEP_LANE

if TYPE_CHECKING:
    from holdfast.doctor.finding import Finding
    from holdfast.kernel import Holdfast

NOTHING = "nothing to do any more"


async def list_again(hf: Holdfast, found: Finding) -> str:
    """Of a transcript that is there nothing is moved, and no byte is touched."""
    if not await hf.store.list_session(found.about, found.subject):
        return NOTHING
    return (
        f"listed again as {found.about}; its file stays where it is (what would move a conversation is "
        "`holdfast sessions archive`)"
    )


async def mend_lines(hf: Holdfast, found: Finding) -> str:
    """Whoever takes a transcript writes it anew where that is needed: a turn without an input does just that.

    Raises: CoordinationError: a turn runs; it looks after its own transcript. ResourceError.
    """
    async with hf.turn(found.about, lane=UPKEEP_LANE, wait_s=0, thorough=True) as turn:
        told = await hf.store.mend_transcript(turn.owned)
    return "; ".join(told) or NOTHING


async def close_dead(hf: Holdfast, found: Finding) -> str:
    """As `holdfast recover`; a turn of a living process is never closed."""
    if found.about == "stray":
        return "closed" if await hf.store.close_stray_turn(found.subject) else NOTHING
    report = await hf.recover()
    done = [one for one in report.done if one.action.owner.turn == found.subject]
    return "; ".join(f"{one.outcome}: {one.detail}" for one in done) or "closed by recovery"


async def requeue(hf: Holdfast, found: Finding) -> str:
    """Back to its place; a final line that its turn has left is found by the next one."""
    state = await hf.store.requeue_stranded(found.subject)
    return NOTHING if state is None else f"it is {state} again"


async def recount(hf: Holdfast, found: Finding) -> str:  # noqa: ARG001  # all of them at once
    await hf.store.recount_queues()
    return "counted anew"


async def unpin(hf: Holdfast, found: Finding) -> str:
    """Only this very pin: one that was set meanwhile stays."""
    return "taken away" if await hf.store.remove_pin(found.subject, found.about) else NOTHING


async def end_archives(hf: Holdfast, found: Finding) -> str:  # noqa: ARG001  # all of them at once
    """As gateways do."""
    return f"{await finish(hf)} unfinished archive(s) ended"


async def narrow(hf: Holdfast, found: Finding) -> str:
    return "its owner's alone now" if await hf.store.narrow_rights(found.subject) else NOTHING
