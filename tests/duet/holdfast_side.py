"""Holdfast's side of the duet, in a process of its own: says one JSON object per event, obeys the lines it reads."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import holdfast
from holdfast.errors import OwnershipLostError, SessionTakeoverError
from holdfast.kernel import Holdfast
from holdfast.session.entries import label, mirror

KEY = "agent:main:main"


def say(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


async def told() -> str:
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def turn(hf: Holdfast, text: str, model_s: float = 0.0) -> list[str]:
    async with hf.turn(KEY) as turn:
        asked = await turn.append(holdfast.user(text))
        async with turn.prompt_window() as window:
            await asyncio.sleep(model_s)
            window.finished(f"answer to {text}")
        return [asked, await turn.append(holdfast.assistant(f"answer to {text}", model="demo/demo"))]


async def append(hf: Holdfast, seconds: float) -> None:
    """Turns and mirrors at once for so long; a turn that meets a user's message of OpenClaw's ends, its answer kept."""
    await told()
    ends = time.monotonic() + seconds

    async def turns() -> None:
        number = 0
        while time.monotonic() < ends:
            number += 1
            try:
                say("wrote", what="turn", ids=await turn(hf, f"question {number}", model_s=0.05))
            except (SessionTakeoverError, OwnershipLostError) as lost:
                say("kept", why=str(lost))
            await asyncio.sleep(0.01)

    async def mirrors() -> None:
        number = 0
        while time.monotonic() < ends:
            number += 1
            try:
                entry = await hf.session(KEY).append_metadata(mirror(f"holdfast {number}"))
                say("wrote", what="mirror", ids=[entry])
            except holdfast.CoordinationError as refused:  # nothing was written; a turn judges the end first
                say("refused", why=type(refused).__name__)
            await asyncio.sleep(0.01)

    await asyncio.gather(turns(), mirrors())
    say("done")


async def obey(hf: Holdfast, _: float) -> None:
    while (order := await told()) not in ("end", ""):
        if order == "turn":
            ids = await turn(hf, "said here")
        else:
            said = mirror("told") if order == "mirror" else label((await hf.session(KEY).lines())[1].id or "", "named")
            ids = [await hf.session(KEY).append_metadata(said)]
        say("wrote", what=order, ids=ids)


async def window(hf: Holdfast, _: float) -> None:
    while await told() == "open":
        async with hf.turn(KEY) as turn:
            await turn.append(holdfast.user("a question"))
            async with turn.prompt_window() as window:
                say("open")
                await told()
                window.finished("an answer")
            assert window.verdict is not None
            await turn.append(holdfast.assistant("an answer", model="demo/demo"))
            say("closed", verdict=window.verdict.kind)


logging.disable(logging.WARNING)  # it would tell of each line of OpenClaw's


async def main(act: str, state: str, seconds: float) -> None:
    async with holdfast.open(state, lock_protocol="openclaw") as hf:
        await turn(hf, "hello")
        async with hf.turn(KEY) as at:
            transcript = at.transcript.path
        say("begun", transcript=transcript)
        await {"append": append, "obey": obey, "window": window}[act](hf, seconds)


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
