"""States with something wrong in them, for trying whether an operator finds out what: made by real gateways.

    python -m holdfast.testing.prepared FOLDER
    holdfast --state FOLDER/takeover why agent:main:main
    holdfast --state FOLDER/silent-pin doctor
    holdfast --state FOLDER/dead-letter top --once

`takeover`: another program appended to a transcript while the model was asked. `silent-pin`: somebody wrote a model
into the ledger by hand, says neither who nor until when, and a session is answered by it. `dead-letter`: a channel
would not take an answer.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from holdfast import ids
from holdfast.clock import SystemClock, epoch_ms, iso
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served

SESSION = "agent:main:main"
STRANGER = "a line that another program wrote"
PINNED = "demo/cheaper"
NO_SUCH_CHAT = "chat-404"
WAIT_S = 30.0


async def make_takeover(state: Path) -> str:
    """Somebody else appends while the model is asked; the id of the message that met it."""
    model = ScriptedModel("lost to another writer", otherwise=lambda _: "said again")
    async with served(state, model=model) as gateway:
        await _said(gateway, "Good morning")
        model.script("first try")
        model.hold()
        input_id = await _accept(gateway, "Are you there?")
        await asyncio.wait_for(model.asked(2), WAIT_S)
        [view] = await gateway.hf.sessions()
        _append_as_a_stranger(Path(str(view.path)))
        model.release()
        await gateway.hf.wait_input(input_id, WAIT_S)
        return input_id


async def make_silent_pin(state: Path) -> str:
    """A model is written into the ledger by hand; the id of the message that was answered by it."""
    async with served(state, model=ScriptedModel(otherwise=lambda _: "hello")) as gateway:
        await _said(gateway, "Good morning")
    now_ms = epoch_ms(SystemClock().now())
    with closing(sqlite3.connect(state / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute(
            "insert into model_pins(session, id, model, source, reason, set_at_ms, set_by, checked_at_ms, credential,"
            " holds) values(?, 'pin_by_hand', ?, 'user', 'failover', ?, '', ?, '', 1)",
            (SESSION, PINNED, now_ms, now_ms),
        )
    async with served(state, model=ScriptedModel(otherwise=lambda _: "hello again")) as gateway:
        return await _said(gateway, "Who answers me?")


async def make_dead_letter(state: Path) -> str:
    """A channel takes no message for a chat; the id of the message whose answer did not arrive."""
    channel = FakeChannel("chat")
    channel.refuse(permanent=True)
    async with served(state, model=ScriptedModel("an answer that nobody got"), channels=[channel]) as gateway:
        input_id = await _said(gateway, "Hello?", Route("chat", NO_SUCH_CHAT))
        async with asyncio.timeout(WAIT_S):
            while not await gateway.hf.deliveries(state="failed"):
                await gateway.hf.clock.sleep(0.05)
        return input_id


MAKERS: dict[str, Callable[[Path], Awaitable[str]]] = {
    "takeover": make_takeover,
    "silent-pin": make_silent_pin,
    "dead-letter": make_dead_letter,
}


async def _accept(gateway: Served, text: str, route: Route | None = None) -> str:
    admission = await gateway.hf.accept(InboundEvent(SESSION, {"content": text}, route=route))
    assert isinstance(admission, Accepted), admission
    return admission.input_id


async def _said(gateway: Served, text: str, route: Route | None = None) -> str:
    input_id = await _accept(gateway, text, route)
    view = await gateway.hf.wait_input(input_id, WAIT_S)
    assert view.state == "answered", view
    return input_id


def _append_as_a_stranger(path: Path) -> None:
    """A message at the end of a transcript, in the format of other programs and without any lock."""
    last = json.loads(path.read_text(encoding="utf-8").rstrip("\n").rsplit("\n", 1)[-1])
    now = iso(SystemClock().now())
    message = {"role": "user", "content": STRANGER}
    line = {"type": "message", "id": ids.nonce()[:8], "parentId": last["id"], "timestamp": now, "message": message}
    with path.open("a", encoding="utf-8") as transcript:
        transcript.write(json.dumps(line) + "\n")


def main(arguments: list[str]) -> int:
    """Make all three below a folder, and say what to ask of each."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m holdfast.testing.prepared FOLDER\n")
        return 2
    for name, make in MAKERS.items():
        state = Path(arguments[0]) / name
        input_id = asyncio.run(_made(make, state))
        sys.stdout.write(f"holdfast --state {state} why {input_id}\n")
    return 0


async def _made(make: Callable[[Path], Awaitable[str]], state: Path) -> str:
    return await make(state)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
