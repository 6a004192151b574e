"""A gateway in the middle of a storm, and one full of texts that try to become scripts, for a browser to look at."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import holdfast
from holdfast.config import Config
from holdfast.errors import ProviderError
from holdfast.inbound.event import InboundEvent, Route
from holdfast.model.client import ModelRequest, StreamItem
from holdfast.testing.channel import FakeChannel
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served

SESSIONS = 200
LANES = ("main", "main", "main", "cron", "hook")
CALLED = "hostileWasRun"
"""What every hostile text tries to call, in whatever way; the pages never define it."""

_CALLS = (f"{CALLED}()", f"alert('{CALLED}')", f"fetch('https://example.com/?{CALLED}')", f"window.{CALLED}=1")
_AROUND = (
    "<script>{}</script>", "</script><script>{}</script>", "<img src=x onerror=\"{}\">", "<svg onload=\"{}\">",
    "<iframe srcdoc=\"<script>{}</script>\"></iframe>", "\"><script>{}</script>", "'><img src=x onerror={}>",
    "<a href=\"javascript:{}\">press</a>", "[press](javascript:{})", "`<script>{}</script>`",
    "```html\n<script>{}</script>\n```", "**<b onmouseover=\"{}\">bold</b>**", "<body onload={}>",
    "<style>@import 'https://example.com/x.css';</style><i onclick={}>",
    "<math><mtext><script>{}</script></mtext></math>", "${{{}}}", "{{{{constructor.constructor('{}')()}}}}",
    "<template><script>{}</script></template>",
    "<object data=\"javascript:{}\"></object>",
    "<form action=\"javascript:{}\"><button autofocus onfocus={}>x</button></form>",
    "<meta http-equiv=refresh content=\"0;url=javascript:{}\">", "<details open ontoggle=\"{}\">",
    "<video><source onerror=\"{}\">",
    "https://example.com/\"onmouseover=\"{}", "\u202e<script>{}</script>\u0000\u001b[31m",
)  # fmt: skip
HOSTILE = tuple(around.replace("{}", call) for call in _CALLS for around in _AROUND)
"""A hundred texts."""


def name_from(text: str, number: int) -> str:
    """A session key that ends in a hostile text, as free as keys are."""
    return f"agent:main:x{number}-" + "".join(letter for letter in text if letter.isprintable() and letter != ":")[:80]


@dataclass
class Slow:
    """Answers after a moment, sometimes by way of a tool, now and then not at all."""

    chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        await asyncio.sleep(self.chance.uniform(0.05, 1.5))
        draw = self.chance.random()
        if draw < 0.06:
            raise ProviderError("the request was refused: no such field", status=400)
        has_result = any(message.get("role") == "toolResult" for message in request.messages[-2:])
        reply = Reply(calls=[("status", {})]) if draw < 0.3 and not has_result else Reply("An answer with `code`.")
        async for item in ScriptedModel(reply).stream(request):
            yield item


@asynccontextmanager
async def storm(state: Path) -> AsyncIterator[Served]:
    """A gateway that 200 sessions speak to, in three lanes, as long as the block lasts; all have spoken once before."""
    config = Config.model_validate({"lanes": {"widths": {"main": 24, "cron": 8, "hook": 8}}})
    channel = FakeChannel(platform=state.parent / "platform.jsonl")
    async with served(state, model=Slow(), channels=[channel], config=config) as gateway:
        keys = [f"agent:main:chat-{number}" for number in range(SESSIONS)]
        chance = random.Random(11)

        async def say(key: str) -> None:
            lane = chance.choice(LANES)
            route = Route("test" if chance.random() < 0.9 else "nowhere", key)
            await gateway.hf.accept(InboundEvent(key, {"content": "What is new?"}, lane=lane, route=route))

        for key in keys:
            await say(key)
        async with asyncio.TaskGroup() as group:
            talking = group.create_task(_go_on(keys, chance, say))
            yield gateway
            talking.cancel()


async def _go_on(keys: list[str], chance: random.Random, say: Any) -> None:
    while True:
        await asyncio.sleep(0.05)
        await say(chance.choice(keys))


@asynccontextmanager
async def hostile(state: Path) -> AsyncIterator[Served]:
    """A gateway with a hundred hostile texts as messages, answers, errors, names, titles, senders and tools."""
    texts = iter(range(10**9))

    def answer(_: ModelRequest) -> Reply:
        number = next(texts)
        text = HOSTILE[number % len(HOSTILE)]
        if number % 10 == 3:
            return Reply(error=ProviderError(text, status=400))
        return Reply(calls=[("status", {"of": text})], text=text) if number % 10 == 6 else Reply(text)

    async with served(state, model=ScriptedModel(otherwise=answer)) as gateway:
        hf = gateway.hf
        for number, text in enumerate(HOSTILE):
            key = "agent:main:main" if number % 2 else name_from(text, number)
            route = Route("nowhere", text) if number % 5 == 0 and text.isprintable() else None
            admission = await hf.accept(InboundEvent(key, {"content": text}, route=route))
            await hf.wait_input(admission.input_id, 60)  # pyright: ignore[reportAttributeAccessIssue]  # accepted
        for number in range(0, 20, 2):
            text = HOSTILE[number]
            with suppress(holdfast.InputError):  # a title is one line: some of these are none
                await hf.session(name_from(text, number)).rename(text)
            await hf.pin_model(name_from(text, number), "demo/demo", by=text)
        yield gateway
