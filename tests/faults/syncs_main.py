"""Turns of several kinds, with a mark in the system calls around each. Run under strace by `test_syncs.py`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.turn.turn import Turn

KEY = "agent:main:main"


async def accepted(hf: Holdfast, key: str | None = None) -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": "question"}, source="test", key=key))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def claimed(hf: Holdfast, input_id: str) -> Turn:
    turn = await hf.claim(KEY, wait_s=5, input_id=input_id)
    assert isinstance(turn, Turn)
    await turn.append_input([{"role": "user", "content": "question"}])
    return turn


async def answer(hf: Holdfast, turn: Turn) -> None:
    async with turn.prompt_window():
        await turn.context()
    await turn.append(holdfast.assistant("answer", model="demo/demo"))
    await hf.close_turn(turn, None)


async def plain_turn(hf: Holdfast) -> None:
    await answer(hf, await claimed(hf, await accepted(hf)))


async def turn_with_a_tool(hf: Holdfast) -> None:
    turn = await claimed(hf, await accepted(hf))
    call = {"type": "toolCall", "id": "c", "name": "work", "arguments": {}}
    await turn.append(holdfast.assistant([call], model="demo/demo", stop_reason="toolUse"))
    await turn.check()
    await turn.append(holdfast.tool_result("c", "work", "done"))
    await answer(hf, turn)


async def library_turn(hf: Holdfast) -> None:
    async with hf.turn(KEY, wait_s=5) as turn:
        await turn.append(holdfast.user("question"))
        async with turn.prompt_window():
            await turn.context()
        await turn.append(holdfast.assistant("answer", model="demo/demo"))


async def idle_turn(hf: Holdfast) -> None:
    async with hf.turn(KEY, wait_s=5):
        pass


async def metadata(hf: Holdfast) -> None:
    await hf.session(KEY).append_metadata(holdfast.session_info("title"))


async def durable_metadata(hf: Holdfast) -> None:
    await hf.session(KEY).append_metadata(holdfast.session_info("title"), durable=True)


async def duplicate(hf: Holdfast) -> None:
    await hf.accept(InboundEvent(KEY, {"content": "question"}, source="test", key="again"))


async def reading(hf: Holdfast) -> None:
    await hf.session(KEY).entries()
    await hf.inputs()
    await hf.why(KEY)


async def main(state: str) -> None:
    kinds: list[Callable[[Holdfast], Awaitable[None]]] = [
        plain_turn, turn_with_a_tool, library_turn, idle_turn, metadata, durable_metadata, duplicate, reading,
    ]  # fmt: skip
    async with holdfast.open(state) as hf:
        await answer(hf, await claimed(hf, await accepted(hf, "again")))  # makes the files
        for kind in kinds:
            for _ in range(3):
                os.access(f"/begin/{kind.__name__}", os.F_OK)
                await kind(hf)
                os.access(f"/end/{kind.__name__}", os.F_OK)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
