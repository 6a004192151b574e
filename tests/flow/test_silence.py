"""A model that says nothing: its own limit moves on to the next model, its run's limit ends the run, explained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.config import load_config
from holdfast.gateway.app import agents_of, limits_of
from holdfast.inbound.cron import JobDefinition, check
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.model.client import ModelRequest, StreamItem
from holdfast.recovery.progress import Progress
from holdfast.session.entries import CustomEntry
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.asking import AgentSettings
from holdfast.turn.silence import BACKSTOP_S, GRACE_S, SILENCE_S_MAX, Silence, choose_silence, why_over

KEY = "agent:main:main"


def test_the_nearest_limit_counts_and_without_any_the_providers_own_holds() -> None:
    assert choose_silence(None, None, None) == Silence(BACKSTOP_S, is_own=False)
    assert choose_silence(None, 40, 50) == Silence(40, is_own=True)
    assert choose_silence(30, 40, 50) == Silence(30, is_own=True)
    assert choose_silence(10**9).limit_s == SILENCE_S_MAX
    assert (Silence().request_timeout_s, Silence().of_model(120.0)) == (None, 120.0)
    own = Silence(3000, is_own=True)
    assert (own.request_timeout_s, own.of_model(120.0)) == (3000 + GRACE_S, 3000)


@pytest.mark.parametrize(
    ("silence", "doing", "granted_s", "still_s", "ends"),
    [
        (Silence(), "model", None, BACKSTOP_S, False),
        (Silence(), "model", None, BACKSTOP_S + 1, True),
        (Silence(), "model", 120.0, BACKSTOP_S + 1, True),
        (Silence(), "model", 3600.0, 3600 + GRACE_S, False),
        (Silence(), "model", 3600.0, 3601 + GRACE_S, True),
        (Silence(60, is_own=True), "model", 3600.0, 61, True),
        (Silence(60, is_own=True), "tool", None, 10_000, False),
        (Silence(60, is_own=True), "question", None, 10_000, False),
        (Silence(60, is_own=True), "retry", None, 10_000, False),
    ],
)
def test_only_a_models_silence_counts(
    silence: Silence, doing: str, granted_s: float | None, still_s: float, ends: bool
) -> None:
    progress = Progress.at(0.0).begins(doing, "p/m", 5.0, granted_s)  # pyright: ignore[reportArgumentType]  # a word
    assert (why_over(silence, progress, 5.0 + still_s) is not None) == ends


async def test_a_model_that_stays_silent_ends_its_turn_and_what_waits_goes_on(tmp_path: Path) -> None:
    """Nobody has said anything about silence: a provider that keeps the connection alive does not hold on for ever."""
    async with World(tmp_path, model=ScriptedModel()) as world:
        never = asyncio.Event()
        world.model.script(Reply("never", gate=never), "re: two")
        first = await world.inbound(KEY, "one")
        request = await world.model.asked(1)
        second = await world.inbound(KEY, "two")
        await world.pass_time(BACKSTOP_S - 20)
        assert not (await world.hf.input(first)).settled
        await world.pass_time(30)
        ended = await world.settled(first)
        assert (ended.state, ended.error) == ("failed", "TurnLimitError")
        assert (await world.settled(second)).answer == "re: two"
        await world.saw("timed out: scripted/model had said nothing for 180")
        [turn] = await world.hf.store.turns_of(first)
        assert turn.outcome == "interrupted"
        assert "its own limit ended it: timed out" in await world.story(first)
        assert request.timeout_s is None, "its provider's limit would have held"
        await world.check_promises()


async def test_a_run_that_may_be_silent_for_long_is_and_no_longer(tmp_path: Path) -> None:
    """A job says so: its model's client is told to wait longer than that, and the run ends by the job's limit."""
    job = JobDefinition("job", "think", every="10s", to="test:alice", timeout_s=7200, silence_s=600)
    agent = AgentSettings(model="scripted/model", silence_s=100)
    model = ScriptedModel(Reply("never", gate=asyncio.Event()), otherwise=lambda _: "re: again")

    def timers(hf: Holdfast) -> Timers:
        return Timers(hf, jobs=[job], heartbeats=[], read_file=lambda _: None)

    async with World(tmp_path, model=model, agent=agent, timers=timers) as world:
        asked = asyncio.create_task(model.asked(1))
        while not asked.done():
            await world.pass_time(1)
        assert (await asked).timeout_s == 600 + GRACE_S
        [turn] = world.hf.live_turns()
        assert turn.progress.limit_s == 600
        await world.pass_time(580)
        assert not (await world.hf.input(turn.input_id or "")).settled
        await world.pass_time(30)
        assert (await world.settled(turn.input_id or "")).state == "failed"
        await world.saw("Cron job job has failed: timed out: scripted/model had said nothing for 60")


async def test_what_had_been_said_before_the_silence_is_kept(tmp_path: Path) -> None:
    class Breaks(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
            async for item in super().stream(request):
                yield item
                await asyncio.Event().wait()

    agent = AgentSettings(model="scripted/model", silence_s=60)
    async with World(tmp_path, model=Breaks("half of it"), agent=agent) as world:
        input_id = await world.inbound(KEY, "one")
        await world.model.asked(1)
        await world.pass_time(70)
        assert (await world.settled(input_id)).state == "failed"
        kept = [one for one in await world.hf.session(KEY).entries() if isinstance(one, CustomEntry)]
        assert [one.data for one in kept] == [{"text": "half", "why": "interrupted"}]


def test_the_configuration_says_it_for_all_an_agent_and_a_job(tmp_path: Path) -> None:
    job = "[cron.jobs.j]\nmessage = 'x'\nevery = '1h'\nsilence_s = 30\n"
    file = tmp_path / "holdfast.toml"
    file.write_text(f"[turn]\nsilence_s = 50\n[agents.main]\nsilence_s = 40\n{job}")
    config = load_config(file, {})
    assert limits_of(config).silence_s == 50
    assert agents_of(config, "/state")(KEY).silence_s == 40
    assert agents_of(config, "/state")("agent:other:main").silence_s is None
    assert config.cron.jobs["j"].definition("j").silence_s == 30
    [fault] = check(replace(config.cron.jobs["j"].definition("j"), silence_s=4000))
    assert fault == "silence_s: 4000 must be from 1 to its timeout_s, 3600, which ends a run"
