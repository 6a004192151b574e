"""Holdfast as a library: accept the input (synced), wait for the turn, question, prompt window, answer, settle."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import holdfast
from benchmarks.peers.stores.store import Model, Said, Store
from holdfast.errors import UnknownSessionError
from holdfast.lane.policy import LaneLimits

KEY = "agent:main:main"
WAIT_S = 600.0


class Kernel:
    def __init__(self, opened: AbstractAsyncContextManager[holdfast.Holdfast], hf: holdfast.Holdfast) -> None:
        self._opened = opened
        self._hf = hf

    async def turn(self, question: str, model: Model) -> None:
        accepted = await self._hf.accept(holdfast.InboundEvent(KEY, {"content": question}))
        assert isinstance(accepted, holdfast.Accepted)
        async with self._hf.turn(KEY, input_id=accepted.input_id, wait_s=WAIT_S) as turn:
            await turn.append(holdfast.user(question))
            async with turn.prompt_window() as window:
                await turn.context()
                answer = await model(question)
                window.finished(answer)
            await turn.append(holdfast.assistant(answer, model="bench/instant"))

    async def history(self) -> list[Said]:
        found: list[Said] = []
        try:
            lines = await self._hf.session(KEY).lines()
        except UnknownSessionError:
            return []
        for line in lines:
            message = json.loads(line.raw).get("message", {})
            if message.get("role") in ("user", "assistant"):
                text = message["content"]
                found.append((message["role"], text if isinstance(text, str) else text[0]["text"]))
        return found

    async def fill(self, said: list[Said]) -> None:
        async with self._hf.turn(KEY) as turn:
            for role, text in said:
                made = holdfast.user(text) if role == "user" else holdfast.assistant(text, model="bench/instant")
                await turn.append(made)

    async def close(self) -> None:
        await self._opened.__aexit__(None, None, None)


async def open_store(folder: Path) -> Store:
    opened = holdfast.open(folder / "state", limits=LaneLimits(widths={"main": 64}, per_session_max=1000))
    return Kernel(opened, await opened.__aenter__())
