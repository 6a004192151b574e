"""The turns that are measured: the whole way of an accepted input, with a model that answers at once."""

from __future__ import annotations

import holdfast
from holdfast.lane.policy import LaneLimits

MODEL = "bench/instant"
QUESTION = "What is the capital of France, and since when?"
ANSWER = "Paris; by most accounts since 987, with interruptions that historians like to argue about."
LIMITS = LaneLimits(widths={"main": 64})  # so that sixteen sessions may run at once on any machine


async def accept(hf: holdfast.Holdfast, session: str) -> str:
    accepted = await hf.accept(holdfast.InboundEvent(session, {"content": QUESTION}))
    assert isinstance(accepted, holdfast.Accepted)
    return accepted.input_id


async def plain_turn(hf: holdfast.Holdfast, session: str) -> None:
    """accept (synced), claim, user line, prompt window, final line (synced), settlement (synced)."""
    async with hf.turn(session, input_id=await accept(hf, session)) as turn:
        await turn.append(holdfast.user(QUESTION))
        async with turn.prompt_window() as window:
            window.finished(ANSWER)
        await turn.append(holdfast.assistant(ANSWER, model=MODEL))


async def tool_turn(hf: holdfast.Holdfast, session: str) -> None:
    """The same with one tool round before the answer: its call line is synced before the tool starts."""
    call = {"type": "toolCall", "id": "call_1", "name": "look_up", "arguments": {"what": "capital"}}
    async with hf.turn(session, input_id=await accept(hf, session)) as turn:
        await turn.append(holdfast.user(QUESTION))
        async with turn.prompt_window():
            pass
        await turn.append(holdfast.assistant([call], model=MODEL, stop_reason="toolUse"))
        await turn.check()
        await turn.append(holdfast.tool_result("call_1", "look_up", "Paris"))
        async with turn.prompt_window() as window:
            window.finished(ANSWER)
        await turn.append(holdfast.assistant(ANSWER, model=MODEL))
