"""What turns leave behind of models, and what they begin with: cool-downs, pins, keys, notices, over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import AllModelsFailedError, ProviderError, SessionTakeoverError
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.model.client import ModelClient
from holdfast.model.credentials import Credential
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.turn.runner import AgentSettings, Runner
from holdfast.turn.tools import Toolbox

CHAT, GROUP = "agent:main:slack:direct:u1", "agent:main:slack:group:g1"
CHAIN = AgentSettings("a/1", ("b/2",))
STICKY = replace(CHAIN, policy="sticky_until_probe")


def limited(status: int = 429, **facts: Any) -> ProviderError:
    return ProviderError("not now", status=status, **facts)


class Keys:
    """Clients of one scripted model, with keys by provider; remembers which key was used."""

    def __init__(self, model: ScriptedModel, *keys: str) -> None:
        self._model = model
        self._keys = tuple(Credential(key, key.upper(), "secret") for key in keys)
        self.used: list[str] = []

    def client_for(self, ref: str, credential: str = "", /) -> ModelClient:
        self.used.append(f"{ref}:{credential}")
        return self._model

    def credentials(self, _ref: str, /) -> tuple[Credential, ...]:
        return self._keys


class Here:
    """A process: a handle, a runner, one scripted model behind all references."""

    def __init__(self, hf: Holdfast, clock: VirtualClock) -> None:
        self.hf = hf
        self.clock = clock
        self.model = ScriptedModel()
        self.agent = CHAIN
        self.models: Any = lambda _: self.model
        self.in_window: Callable[[], None] | None = None

    @property
    def asked(self) -> list[str]:
        return [request.model for request in self.model.requests]

    async def say(self, text: str, *script: Any, session: str = CHAT, lane: str = "main", route: str = "") -> str:
        """One input, run to its end. Returns its id."""
        self.model.script(*script)
        to = Route.parse(route) if route else None
        admission = await self.hf.accept(InboundEvent(session, {"content": text}, lane=lane, route=to))
        assert isinstance(admission, Accepted)
        await self.run(admission.input_id, session, lane)
        return admission.input_id

    async def run(self, input_id: str, session: str = CHAT, lane: str = "main") -> None:
        runner = Runner(self.hf, client_for=self.models, agent_for=lambda _: self.agent, toolbox=Toolbox())
        async with self.hf.turn(session, lane=lane, input_id=input_id) as turn:
            assert turn.view is not None
            await runner.run(turn, turn.view)

    async def pins(self) -> list[tuple[str, str]]:
        return [(pin.model, pin.source) for pin in (await self.hf.models()).pins]

    async def told(self, input_id: str) -> list[str]:
        return [one.body for one in await self.hf.store.deliveries(state=None, limit=9, input_id=input_id)]


@asynccontextmanager
async def opened(state: Path, clock: VirtualClock | None = None) -> AsyncIterator[Here]:
    clock = clock or VirtualClock()
    async with holdfast.open(state, clock=clock) as hf:
        yield Here(hf, clock)


async def test_a_failed_model_is_left_alone_also_after_a_restart_and_comes_back_by_itself(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with opened(tmp_path / "s", clock) as here:
        await here.say("one", limited(), "b answers")
        await here.say("two", "b again")
        assert here.asked == ["a/1", "b/2", "b/2"]
    async with opened(tmp_path / "s", clock) as here:
        await here.say("three", "still b")
        await clock.advance(31)
        await here.say("four", "a is back")
        assert here.asked == ["b/2", "a/1"]
        assert (await here.hf.models()).cooldowns == []  # a success removes it with its settlement


async def test_a_turn_that_lost_its_session_asks_no_second_model(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        await here.say("one", "fine")
        path = await here.hf.session(CHAT).path()
        assert path is not None

        class Intruder(ScriptedModel):
            async def stream(self, request: Any) -> AsyncIterator[Any]:
                self.requests.append(request)
                Path(path).write_bytes(b'{"replaced": true}\n')
                raise limited()
                yield  # makes it a generator

        here.model = Intruder()
        with pytest.raises(SessionTakeoverError):
            await here.say("two")
        assert here.asked == ["a/1"]
        assert await here.pins() == []


async def test_a_single_model_is_asked_again_after_pauses(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        here.agent = AgentSettings("a/1")
        task = asyncio.create_task(here.say("one", limited(503), limited(503), "at last"))
        while not task.done():
            await here.clock.advance(0.5)
            await asyncio.sleep(0.005)
        assert here.asked == ["a/1"] * 3
        assert (await here.hf.input(await task)).answer == "at last"
        assert (await here.hf.models()).cooldowns == []


async def test_nobody_is_asked_again_once_words_have_reached_the_user(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        with pytest.raises(ProviderError, match="not now"):
            await here.say("one", Reply("Well, ", error=limited(503)))
        assert here.asked == ["a/1"]


async def test_an_automatic_pin_holds_with_its_answer_and_goes_when_its_origin_is_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        here.agent = STICKY
        await here.say("one", limited(), "b stands in")
        [pin] = (await here.hf.models()).pins
        assert (pin.model, pin.source, pin.origin, pin.reason, pin.holds) == ("b/2", "auto", "a/1", "rate_limit", True)
        assert pin.expires_at_ms is not None
        await here.clock.advance(60)
        await here.say("two", "b still")
        await here.clock.advance(300)
        await here.say("three", "a is back")
        assert here.asked == ["a/1", "b/2", "b/2", "a/1"]
        assert await here.pins() == []


async def test_a_pin_whose_attempt_fails_or_is_stopped_is_taken_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        here.agent = replace(STICKY, retry_s=0)
        with pytest.raises(AllModelsFailedError):
            await here.say("one", limited(), limited())
        assert await here.pins() == []
        await here.clock.advance(400)
        here.model.script(limited(), Reply("never", gate=asyncio.Event()))
        task = asyncio.create_task(here.say("two"))
        await asyncio.wait_for(here.model.asked(4), 10)
        assert await here.pins() == [("b/2", "auto")]  # seen while it is tried
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await here.pins() == []


@pytest.mark.parametrize("lane", ["heartbeat", "cron", "hook", "subagent"])
async def test_a_machines_turn_leaves_neither_pin_nor_notice_on_a_chat(tmp_path: Path, lane: str) -> None:
    async with opened(tmp_path / "s") as here:
        here.agent = STICKY
        told = await here.say("tick", limited(), "b", lane=lane, route="test:u1")
        now = await here.hf.models()
        assert (now.pins, now.fallbacks) == ([], [])
        assert await here.told(told) == ["b"]


async def test_a_users_choice_is_exact_and_survives_failures(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        here.agent = replace(STICKY, retry_s=0)
        assert await here.hf.pin_model(CHAT, "u/own", by="me") is None
        with pytest.raises(ProviderError):
            await here.say("one", limited())
        await here.clock.advance(31)
        await here.say("two", "mine")
        assert here.asked == ["u/own", "u/own"]
        assert await here.pins() == [("u/own", "user")]
        before = await here.hf.unpin_model(CHAT)
        assert before is not None
        assert before.model == "u/own"


async def test_a_choice_in_the_middle_of_a_turn_counts_from_the_next_model_call(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here, opened(tmp_path / "s", here.clock) as elsewhere:
        gate = asyncio.Event()
        here.model.script(Reply(calls=[("no_such_tool", {})], gate=gate), "done")
        task = asyncio.create_task(here.say("one"))
        await asyncio.wait_for(here.model.asked(1), 10)
        await elsewhere.hf.pin_model(CHAT, "u/own", by="me")
        async with asyncio.timeout(60):
            while not (turns := here.hf.live_turns()) or turns[0].pin is None:
                await here.clock.advance(0.5)
                await asyncio.sleep(0.005)
        gate.set()
        await asyncio.wait_for(task, 20)
        assert here.asked == ["a/1", "u/own"]


async def test_a_change_is_told_once_in_a_delivery_of_its_own_and_not_in_a_group(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        first = await here.say("one", limited(), "b", route="test:u1")
        second = await here.say("two", "b", route="test:u1")
        await here.clock.advance(31)
        third = await here.say("three", "a", route="test:u1")
        assert sorted(await here.told(first)) == ["b", "↪️ Model Fallback: b/2 (selected a/1; rate limit)"]
        assert await here.told(second) == ["b"]
        assert sorted(await here.told(third)) == ["a", "↪️ Model Fallback cleared: a/1 (was b/2)"]
        group = await here.say("four", limited(), "b", session=GROUP, route="test:g1")
        assert await here.told(group) == ["b"]
        [state] = (await here.hf.models()).fallbacks
        assert (state.session, state.active) == (GROUP, "b/2")
        report = await here.hf.why(first)
        assert any("told to test:u1" in line.text for line in report.lines)


async def test_keys_are_used_in_turn_and_a_session_keeps_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as here:
        here.agent = AgentSettings("a/1", retry_s=0)
        keys = here.models = Keys(here.model, "k1", "k2")
        await here.say("one", "x")
        mine, other = keys.used[0], {"a/1:k1": "a/1:k2", "a/1:k2": "a/1:k1"}[keys.used[0]]
        await here.say("two", limited(402), "paid by the other")
        await here.say("three", "so is this")
        assert keys.used == [mine, mine, other, other]
        [row] = (await here.hf.models()).cooldowns
        assert (row.reason, row.label, row.model) == ("billing", mine[-2:].upper(), "")


async def test_no_key_is_in_what_is_shown_or_kept(tmp_path: Path) -> None:
    assert "secret" not in repr(Credential("id", "LABEL", "secret"))
    async with opened(tmp_path / "s") as here:
        here.models = Keys(here.model, "k1", "k2")
        input_id = await here.say("one", limited(402), "fine")
        assert "secret" not in repr(await here.hf.models()) + repr(await here.hf.why(input_id))
    assert all(b"secret" not in one.read_bytes() for one in (tmp_path / "s").rglob("*") if one.is_file())
