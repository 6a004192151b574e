"""A process that owns a session and does nothing more, to be killed: what store tests mean by "its process died".

    async with holding(location, "agent:main:main", input_id=…, answer="…") as process:
        process.kill()

Run as `python -m holdfast.testing.holder LOCATION SESSION [INPUT [ANSWER]]`; says "ready" once it owns the session.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import holdfast
from holdfast.session.ownership import Busy

READY_S_MAX = 30.0


@asynccontextmanager
async def holding(
    location: str, session: str, *, input_id: str | None = None, answer: str | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process owns the session now. Leaving kills it if it still lives.

    Args:
        location: what `holdfast.open` takes.
        input_id: the input that its turn answers.
        answer: a final line it has written and not settled.
    """
    arguments = [location, session, *(one for one in (input_id, answer) if one is not None)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast.testing.holder", *arguments,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = await asyncio.wait_for(process.stdout.readline(), READY_S_MAX)
        if said != b"ready\n":
            raise AssertionError(f"the other process did not get {session!r}; it said {said!r}")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def kill(process: asyncio.subprocess.Process) -> None:
    """SIGKILL, and wait until it is gone."""
    process.kill()
    await process.wait()


async def _hold(location: str, session: str, input_id: str | None = None, answer: str | None = None) -> None:
    async with holdfast.open(location) as hf:
        turn = await hf.claim(session, wait_s=10.0, input_id=input_id)
        if isinstance(turn, Busy):
            raise SystemExit(f"busy: {turn.holder}")
        if answer is not None:
            await turn.append(holdfast.user("asked"))
            await turn.append(holdfast.assistant(answer, model="demo/demo"))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_hold(*sys.argv[1:]))
