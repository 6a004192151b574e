"""A model that streams for minutes while everybody else writes to the transcript: no takeover where there is none, and
one that is real costs neither the answer nor another model.

The provider is the real Bedrock client over a real socket; its answer takes 150 seconds of virtual time, in steps.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.kernel import Holdfast
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.pydantic_ai import PydanticAIModel
from holdfast.outbox.message import MOVED_ON_NOTE
from holdfast.session import entries as made
from holdfast.store.views import InputView
from holdfast.testing import mishaps
from holdfast.testing.incidents import foreign
from holdfast.testing.provider import ProviderStub, Scene
from holdfast.testing.world import World
from holdfast.turn.runner import AgentSettings
from holdfast.turn.turn import Turn

MODEL = "bedrock/anthropic.claude-sonnet-4-20250514-v1:0"
FALLBACKS = ("bedrock/fallback-one", "bedrock/fallback-two", "bedrock/fallback-three")
SESSIONS = {
    "main": ("agent:main:main", "main"),
    "cron-nested": ("agent:main:cron:nightly", "cron-nested"),
    "hook": ("hook:deploy", "hook"),
    "slack thread": ("agent:main:slack:channel:C042:thread:1718000000.42", "main"),
}
STREAM_S = 150.0


@pytest.fixture
async def stub() -> AsyncIterator[ProviderStub]:
    async with ProviderStub() as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path, stub: ProviderStub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A gateway whose models are all behind the stub, reached by the real client."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    model = PydanticAIModel(
        ModelTarget("bedrock", MODEL.partition("/")[2], catalog.BEDROCK, stub.url, region="us-east-1")
    )
    agent = AgentSettings(model=MODEL, fallbacks=FALLBACKS)
    async with World(tmp_path, client_for=lambda _: model, agent=agent, patience_s=30.0) as opened:
        yield opened
    await model.aclose()


class Others:
    """Everybody who may write while the model streams, one after the other, a step each."""

    def __init__(self, turn: Turn, here: Holdfast, elsewhere: Holdfast) -> None:
        self._turn = turn
        self._here = here.session(turn.session)
        self._elsewhere = elsewhere.session(turn.session)
        self._half = b""
        self._steps = (
            self._mirror_here,
            self._partial,
            self._mirror_elsewhere,
            self._failure_stub,
            self._first_half_of_a_mirror,
            self._second_half,
            self._label,
        )
        self.wrote = 0

    async def step(self) -> None:
        await self._steps[self.wrote % len(self._steps)]()
        self.wrote += 1

    async def _mirror_here(self) -> None:
        await self._here.append_metadata(made.mirror("what was delivered"))

    async def _mirror_elsewhere(self) -> None:
        await self._elsewhere.append_metadata(made.mirror("what was delivered, by another handle"))

    async def _partial(self) -> None:
        await self._turn.append(made.custom("holdfast:partial", {"text": "one two", "why": "checkpoint"}))

    async def _failure_stub(self) -> None:
        """The line that a runtime writes about its own failed attempt."""
        failed = made.assistant([], model="bedrock/earlier", stop_reason="error", error_message="529 overloaded")
        await self._turn.append(failed, final=False)

    async def _first_half_of_a_mirror(self) -> None:
        """Another program's delivery mirror, unrecorded, whose bytes come in two writes."""
        path = Path(self._turn.transcript.path)
        line = foreign.entry(path, "assistant")
        line["message"] |= {"provider": made.MIRROR_PROVIDER, "model": made.MIRROR_MODELS[1]}
        raw = json.dumps(line).encode() + b"\n"
        self._half = raw[len(raw) // 2 :]
        append(path, raw[: len(raw) // 2])

    async def _second_half(self) -> None:
        append(Path(self._turn.transcript.path), self._half)

    async def _label(self) -> None:
        lines = await self._here.lines()
        await self._here.append_metadata(made.label(lines[-1].id or "", "seen"))


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


async def running_turn(world: World, stub: ProviderStub, requests: int) -> Turn:
    await asyncio.wait_for(stub.asked(requests), 60)
    [turn] = world.hf.live_turns()
    return turn


async def nothing_was_held_against_a_model(world: World, stub: ProviderStub, input_id: str, *, requests: int) -> None:
    """No other model was asked, nothing decided about one, no cool-down, no pin."""
    assert len(stub.requests) == requests
    kinds = [event["kind"] for event in await world.hf.store.events(input_id=input_id)]
    assert "turn.fallback" not in kinds
    known = await world.hf.store.models()
    assert (known.cooldowns, known.pins, known.fallbacks) == ([], [], [])


async def stream_150_s(world: World, stub: ProviderStub, scene: Scene, others: Others | None) -> None:
    """Let an answer come in over 150 virtual seconds, with somebody writing before each piece of it."""
    pause_s = STREAM_S / len(scene.chunks)
    for _ in scene.chunks:
        await world.clock.advance(pause_s)
        if others is not None:
            await others.step()
        stub.tick()


async def one_turn(world: World, stub: ProviderStub, session: str, lane: str, elsewhere: Holdfast) -> InputView:
    text = " ".join(f"word{number}" for number in range(18))
    scene = mishaps.answer(catalog.BEDROCK, text, paced=True)
    stub.play(scene)
    asked = len(stub.requests)
    input_id = await world.inbound(session, "take your time", lane=lane)
    turn = await running_turn(world, stub, asked + 1)
    others = Others(turn, world.hf, elsewhere)
    began = world.clock.mono()
    await stream_150_s(world, stub, scene, others)
    assert world.clock.mono() - began >= STREAM_S - 1
    assert others.wrote >= 20
    view = await world.settled(input_id)
    assert turn.lost is None, await world.story(input_id)
    assert (view.state, view.answer, view.attempts) == ("answered", text, 1), await world.story(input_id)
    assert len(stub.requests) == asked + 1
    return view


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("kind", SESSIONS)
async def test_what_others_may_write_during_150_s_of_a_stream_is_no_takeover(
    kind: str, rounds: int, world: World, stub: ProviderStub
) -> None:
    session, lane = SESSIONS[kind]
    async with holdfast.open(world.state) as elsewhere:
        for _ in range(rounds):
            view = await one_turn(world, stub, session, lane, elsewhere)
            await nothing_was_held_against_a_model(world, stub, view.id, requests=len(stub.requests))
    turns = await world.hf.store.turns(session=session, limit=100)
    assert [turn.outcome for turn in turns] == ["answered"] * rounds
    await world.idle(passing_s=60)
    assert len({arrived.delivery_id for arrived in world.channel.received}) == len(world.channel.received) == rounds
    lines = await world.hf.session(session).lines()
    assert {line.kind for line in lines} == {"header", "entry"}, "every line parses"
    assert sum(line.origin is not None and line.origin.final for line in lines) == rounds


# ── a takeover that is one ───────────────────────────────────────────────────────────────────────────────────────────


async def somebody_else_speaks(turn: Turn, elsewhere: Holdfast) -> None:
    """A turn of another program, appended as if we were not there."""
    foreign.append_foreign(Path(turn.transcript.path), "assistant")


async def the_file_is_replaced(turn: Turn, elsewhere: Holdfast) -> None:
    foreign.rewrite_foreign(Path(turn.transcript.path), "replace")


async def the_session_is_claimed_by_another(turn: Turn, elsewhere: Holdfast) -> None:
    """Ours shows no life any more, so that another process takes the session for a turn of its own."""
    turn._hf.store.beater.stop(turn.id)  # pyright: ignore[reportAttributeAccessIssue]
    async with elsewhere.turn(turn.session, wait_s=20) as taken:
        await taken.append(holdfast.user("meanwhile"))


@pytest.mark.parametrize(
    ("take_over", "verdict"),
    [
        (somebody_else_speaks, "foreign_turn"),
        (the_file_is_replaced, "tampered"),
        (the_session_is_claimed_by_another, "superseded"),
    ],
)
@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_takeover_in_mid_window_costs_neither_the_answer_nor_another_model(
    kind: str, take_over: Any, verdict: str, world: World, stub: ProviderStub, caplog: pytest.LogCaptureFixture
) -> None:
    """Three healthy models stand behind the one that answers."""
    session, lane = SESSIONS[kind]
    scene = mishaps.answer(catalog.BEDROCK, "the answer that must not be lost", paced=True)
    stub.play(scene, *(mishaps.answer(catalog.BEDROCK, f"of fallback {n}") for n in range(len(FALLBACKS))))
    async with holdfast.open(world.state, beat_term_s=0.2) as elsewhere:
        input_id = await world.inbound(session, "take your time", lane=lane)
        turn = await running_turn(world, stub, 1)
        stub.tick(len(scene.chunks) // 2)
        await take_over(turn, elsewhere)
        stub.tick(len(scene.chunks))
        view = await world.settled(input_id)
        assert turn.lost is not None
        assert turn.lost.kind == verdict
        assert (view.state, view.answer) == ("superseded", "the answer that must not be lost")
        await world.idle(passing_s=60)
        [arrived] = await world.saw("the answer that must not be lost", times=1)
        assert MOVED_ON_NOTE in arrived.text
        await nothing_was_held_against_a_model(world, stub, input_id, requests=1)
    assert "model-fallback" not in caplog.text
    assert "All models failed" not in caplog.text
