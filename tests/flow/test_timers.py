"""Cron jobs and heartbeats from their time to whoever hears of them, with time that stands still, and crashes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.inbound import orders
from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.cron import JobDefinition
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.inbound.timer import Timer, TimerRun
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.opening import open as open_state
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World

MAIN = "agent:main:main"
MINUTE = 60.0
JOB = JobDefinition("job", "look at the mail", every="10m", to="test:alice")
BEAT = HeartbeatSettings("main", 30 * 60_000, MAIN, target="test:alice", file="HEARTBEAT.md")


def with_timers(
    *jobs: JobDefinition, beats: list[HeartbeatSettings] | None = None, file: str | None = None
) -> Callable[[Holdfast], Timers]:
    return lambda hf: Timers(hf, jobs=jobs, heartbeats=beats or [], read_file=lambda _: file)


async def until(look: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0) -> Any:
    """Wait in real time for what goes on on threads."""
    end = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < end, f"never came: {what}"
        await asyncio.sleep(0.005)
    return found


async def timer_of(world: World, timer_id: str = "cron:job") -> Timer:
    async def look() -> list[Timer]:
        return [one for one in await world.hf.store.timers() if one.id == timer_id]

    return (await until(look, timer_id))[0]


async def runs_of(world: World, timer_id: str = "cron:job") -> list[TimerRun]:
    """Oldest first."""
    return (await world.hf.store.timer_runs(timer=timer_id))[::-1]


async def ended(world: World, count: int, timer_id: str = "cron:job") -> list[TimerRun]:
    """Runs that were run and ended, once there are so many; virtual time passes meanwhile as it must for the looks."""
    end = time.monotonic() + 40
    while True:
        runs = await runs_of(world, timer_id)
        done = [run for run in runs if run.state not in ("running", "skipped")]
        if len(done) >= count and all(run.state != "running" for run in runs):
            return done
        assert time.monotonic() < end, runs
        await world.pass_time(1)


async def due(world: World, timer_id: str = "cron:job") -> None:
    """Let time pass until just past the timer's next time, once everything is done that needs none."""
    await world.settle()
    timer = await timer_of(world, timer_id)
    assert timer.next_at_ms is not None
    at_ms = max(timer.next_at_ms, timer.not_before_ms)
    world.clock.set_wall_clock(0)
    left_s = at_ms / 1000 - world.clock.now().timestamp()
    await world.clock.advance(max(0.0, left_s) + 0.1)


# ── cron ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_runs_afresh_in_its_own_session_and_its_result_is_known_where_it_is_announced(
    tmp_path: Path,
) -> None:
    async with World(tmp_path, timers=with_timers(JOB)) as world:
        await world.settled(await world.inbound(MAIN, "hello", to="alice"))
        for n in (1, 2):
            await due(world)
            [*_, run] = await ended(world, n)
            assert (run.state, run.reason) == ("ok", "schedule")
        await world.saw("re: look at the mail", times=2)
        run = await until(lambda: delivered(world), "the delivery to be noted")
        assert (await world.hf.input(run.input_id)).session == "agent:main:cron:job"
        assert [text for _, text in await world.said(MAIN)][-2:] == ["re: look at the mail"] * 2
        shown = [request.messages for request in world.model.requests]
        assert [len(messages) for messages in shown[1:]] == [1, 1]
        await world.settled(await world.inbound(MAIN, "and?", to="alice"))
        assert "re: look at the mail" in str(world.model.requests[-1].messages), "the conversation knows of it"


async def delivered(world: World) -> TimerRun | None:
    *_, run = await runs_of(world)
    return run if run.delivery == "sent" else None


async def test_a_job_of_the_main_session_answers_there_and_is_not_written_twice(tmp_path: Path) -> None:
    job = replace(JOB, target="main", to="last")
    async with World(tmp_path, timers=with_timers(job)) as world:
        await world.settled(await world.inbound(MAIN, "hello", to="bob"))
        await due(world)
        await ended(world, 1)
        await world.saw("cron job job): look at the mail")
        assert world.channel.received[-1].target == "bob"
        assert [text for _, text in await world.said(MAIN)].count(world.channel.received[-1].text) == 1


async def test_an_acknowledgement_of_a_job_is_nobodys_news(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "HEARTBEAT_OK")
    async with World(tmp_path, timers=with_timers(JOB), model=model) as world:
        await due(world)
        [run] = await ended(world, 1)
        assert (run.state, run.delivery, world.channel.received) == ("ok", "none", [])


async def test_failures_back_off_are_told_after_two_and_stop_the_job_after_ten(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: Reply(error=ValueError("the mail server is gone")))
    async with World(tmp_path, timers=with_timers(replace(JOB, every="10s")), model=model) as world:
        pauses: list[float] = []
        for n in range(1, 11):
            await due(world)
            await ended(world, n)
            timer = await timer_of(world)
            pauses.append(timer.not_before_ms / 1000 - world.clock.now().timestamp())
            assert timer.failures == n
            assert timer.state == ("disabled" if n == 10 else "active")
        assert [round(pause / 30) for pause in pauses[:5]] == [1, 2, 10, 30, 120]
        await world.saw("is stopped")
        told = [one.text for one in world.channel.received if "in a row" in one.text]
        assert [text.split(" times")[0][-2:].strip() for text in told] == ["2", "6", "7", "8", "9", "10"]
        assert "holdfast cron resume job" in told[-1]
        await world.pass_time(30)
        assert len(await ended(world, 10)) == 10
        resumed = await orders.resume(world.hf, "cron:job")
        assert (resumed.state, resumed.failures) == ("active", 0)


async def test_a_job_that_runs_once_is_tried_again_after_what_may_pass_and_is_done(tmp_path: Path) -> None:
    is_down = True
    model = ScriptedModel(otherwise=lambda _: Reply(error=busy()) if is_down else "done")
    job = replace(JOB, every=None, at="20m")
    async with World(tmp_path, timers=with_timers(job), model=model) as world:
        for n in (1, 2, 3):  # a turn asks again by itself for a while, and then fails
            is_down = n < 3
            await due(world)
            await ended(world, n)
        runs = await ended(world, 3)
        assert [(run.attempt, run.state) for run in runs] == [(1, "failed"), (2, "failed"), (3, "ok")]
        assert len({run.scheduled_at_ms for run in runs}) == 1
        assert (await timer_of(world)).state == "done"
        await world.saw("done")


def busy() -> Exception:
    from holdfast.errors import ProviderError

    return ProviderError("overloaded, try again later", status=529, provider="scripted")


async def test_a_run_that_is_still_going_on_is_not_joined_by_another_and_is_ended_at_its_limit(tmp_path: Path) -> None:
    job = replace(JOB, every="1m", timeout_s=90)
    async with World(tmp_path, timers=with_timers(job)) as world:
        world.model.hold()
        await due(world)
        await until(lambda: asked(world), "the model to be asked")
        await due(world)
        await until(lambda: skipped(world, "still-running"), "the second run to be skipped")
        await world.pass_time(40)
        runs = await ended(world, 1)
        assert (runs[0].state, (runs[0].detail or "")[:9]) == ("failed", "timed out")


async def asked(world: World) -> bool:
    return bool(world.model.requests)


async def skipped(world: World, why: str, timer_id: str = "cron:job") -> bool:
    return any(run.detail == why for run in await runs_of(world, timer_id))


async def test_what_was_missed_is_made_up_for_once_each_and_not_all_at_once(tmp_path: Path) -> None:
    jobs = [replace(JOB, name=f"job{n}", message=f"job {n}", every="1h") for n in range(7)]
    once = replace(JOB, name="once", message="just once", every=None, at="90m")
    async with World(tmp_path, timers=with_timers(*jobs, once)) as world:
        await timer_of(world, "cron:once")
        world.timers.stop()
        await world.clock.advance(10 * 3600)
        restarted_ms = int(world.clock.now().timestamp() * 1000)
        await world.restart()
        await timer_of(world, "cron:once")
        await world.pass_time(40)
        for job in [*(f"job{n}" for n in range(7)), "once"]:
            await until(lambda job=job: at_rest(world, f"cron:{job}"), f"the end of {job}")
        runs = {job: await runs_of(world, f"cron:{job}") for job in [*(f"job{n}" for n in range(7)), "once"]}
        states = [[(run.state, run.detail) for run in of] for of in runs.values()]
        assert states.count([("ok", None)]) == 6, states
        assert states.count([("skipped", "missed")]) == 2
        assert states[-1] == [("ok", None)], "what runs once is never left out"
        began = sorted(of[0].began_at_ms for of in runs.values() if of[0].state == "ok")
        assert all(at_ms >= restarted_ms + 5000 * place for place, at_ms in enumerate(began)), began


async def at_rest(world: World, timer_id: str) -> bool:
    await world.pass_time(1)
    runs = await runs_of(world, timer_id)
    return bool(runs) and all(run.state != "running" for run in runs)


async def test_a_job_can_be_paused_run_by_hand_and_removed(tmp_path: Path) -> None:
    async with World(tmp_path, timers=lambda hf: Timers(hf)) as world:
        await orders.add_job(world.hf, JOB)
        await orders.pause(world.hf, "cron:job")
        await world.clock.advance(3600)
        await world.pass_time(2)
        assert await runs_of(world) == []
        run = await orders.run_now(world.hf, "cron:job")
        [done] = await ended(world, 1)
        assert (done.id, done.state, done.reason) == (run.id, "ok", "manual")
        await orders.change(world.hf, "cron:job", lambda _: None)
        assert await world.hf.store.timers() == []


async def test_jobs_follow_the_configuration_and_keep_what_people_decided(tmp_path: Path) -> None:
    async with World(tmp_path, timers=with_timers(JOB, replace(JOB, name="other"))) as world:
        await timer_of(world, "cron:other")
        before = await orders.pause(world.hf, "cron:job")
        world._timers_for = with_timers(replace(JOB, message="look again"))
        await world.restart()
        await until(lambda: gone(world, "cron:other"), "the job that is no longer configured to go")
        after = await timer_of(world)
        assert (after.state, after.next_at_ms) == ("paused", before.next_at_ms)
        assert after.spec["job"]["message"] == "look again"


async def gone(world: World, timer_id: str) -> bool:
    return all(one.id != timer_id for one in await world.hf.store.timers())


async def test_a_wall_clock_that_was_set_back_silences_no_job_and_repeats_none(tmp_path: Path) -> None:
    job = replace(JOB, every=None, cron="*/10 * * * *")
    async with World(tmp_path, timers=with_timers(job)) as world:
        await due(world)
        await ended(world, 1)
        world.clock.set_wall_clock(-365 * 24 * 3600)
        await until(lambda: heard_of_the_step(world), "the next time to be chosen again")
        await due(world)
        assert len(await ended(world, 2)) == 2


async def heard_of_the_step(world: World) -> bool:
    await world.pass_time(1)
    timer = await timer_of(world)
    return timer.next_at_ms is not None and 0 < timer.next_at_ms / 1000 - world.clock.now().timestamp() <= 600


# ── heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_heartbeat_with_nothing_to_say_leaves_the_conversation_as_it_is(tmp_path: Path) -> None:
    model = ScriptedModel("Hi.", otherwise=lambda _: "HEARTBEAT_OK")
    async with World(tmp_path, timers=with_timers(beats=[BEAT]), model=model) as world:
        await world.settled(await world.inbound(MAIN, "hello", to=None))
        path = Path(await world.hf.session(MAIN).path() or "")
        before = path.read_bytes()
        await due(world, "heartbeat:main")
        [run] = await ended(world, 1, "heartbeat:main")
        assert (run.state, run.detail, run.delivery) == ("ok", "ack", "none")
        assert (await world.hf.input(run.input_id or "")).session == f"{MAIN}:heartbeat"
        assert path.read_bytes() == before


async def test_news_of_a_heartbeat_are_sent_and_known_to_the_conversation_once_a_day(tmp_path: Path) -> None:
    model = ScriptedModel(otherwise=lambda _: "The disk is full.")
    async with World(tmp_path, timers=with_timers(beats=[BEAT], file="Look at the disk."), model=model) as world:
        await due(world, "heartbeat:main")
        await ended(world, 1, "heartbeat:main")
        await world.saw("The disk is full.")
        assert [text for _, text in await world.said(MAIN)] == ["The disk is full."]
        assert "Look at the disk." in str(model.requests[0].messages)
        await due(world, "heartbeat:main")
        [_, again] = await ended(world, 2, "heartbeat:main")
        assert again.detail == "duplicate"
        assert len(world.channel.received) == 1


async def test_a_busy_skip_is_noted_once_and_the_heartbeat_comes_as_soon_as_it_may(tmp_path: Path) -> None:
    async with World(tmp_path, timers=with_timers(beats=[BEAT])) as world:
        world.model.hold()
        user = await world.inbound(MAIN, "hello")
        await until(lambda: asked(world), "the user's turn")
        await due(world, "heartbeat:main")
        await until(lambda: skipped(world, "requests-in-flight", "heartbeat:main"), "the skip")
        await world.pass_time(10)
        assert len(await runs_of(world, "heartbeat:main")) == 1
        world.model.release()
        await world.settled(user)
        await world.idle()
        await ended(world, 1, "heartbeat:main")
        assert [run.state for run in await runs_of(world, "heartbeat:main")] == ["skipped", "ok"]


@pytest.mark.parametrize(
    ("facts", "file", "why"),
    [({"start": "08:00", "end": "08:00"}, None, "quiet-hours"), ({}, "# Nothing\n", "empty-heartbeat-file"),
     ({"show_alerts": False}, None, "alerts-disabled")],
)  # fmt: skip
async def test_a_skip_that_stays_waits_for_the_next_regular_time(
    tmp_path: Path, facts: dict[str, Any], file: str | None, why: str
) -> None:
    async with World(tmp_path, timers=with_timers(beats=[replace(BEAT, **facts)], file=file)) as world:
        first = (await timer_of(world, "heartbeat:main")).next_at_ms or 0
        await due(world, "heartbeat:main")

        async def look() -> Any:
            await world.pass_time(1)  # a look that began before it was due sees it with the next one
            return await skipped(world, why, "heartbeat:main")

        await until(look, why)
        await world.pass_time(5)
        [run] = await runs_of(world, "heartbeat:main")
        assert run.ended_at_ms == run.began_at_ms
        assert (await timer_of(world, "heartbeat:main")).next_at_ms == first + BEAT.every_ms
        assert world.model.requests == []


async def test_a_wake_tells_the_heartbeat_and_several_are_one_run(tmp_path: Path) -> None:
    async with World(tmp_path, timers=with_timers(beats=[BEAT], file="# Nothing\n")) as world:
        await timer_of(world, "heartbeat:main")
        await orders.wake(world.hf, "main", reason="cron:x", text="the backup has ended", mode="next")
        await world.pass_time(3)
        assert world.model.requests == []
        await orders.wake(world.hf, "main", reason="wake", text="the door is open")
        await orders.wake(world.hf, "main", reason="hook:wake", text="it rains")
        [run] = await ended(world, 1, "heartbeat:main")
        said = str(world.model.requests[0].messages)
        assert [text in said for text in ("the backup has ended", "the door is open", "it rains")] == [True] * 3
        assert run.reason == "hook:wake"
        assert await world.hf.store.wakes() == []


async def test_a_wake_that_somebody_asks_for_does_not_wait_for_the_next_regular_time(tmp_path: Path) -> None:
    async with World(tmp_path, timers=with_timers(beats=[BEAT])) as world:
        await due(world, "heartbeat:main")
        await ended(world, 1, "heartbeat:main")
        await world.idle()
        await orders.wake(world.hf, "main", reason="hook", text="it rains")
        await ended(world, 2, "heartbeat:main")
        assert "it rains" in str(world.model.requests[-1].messages)


async def test_tasks_are_shown_at_their_own_intervals(tmp_path: Path) -> None:
    tasks = {"often": "10m", "daily": "1d"}
    file = "tasks:\n" + "".join(f"- name: {one}\n  interval: {every}\n  prompt: Look {one}.\n"
                                for one, every in tasks.items())  # fmt: skip
    async with World(tmp_path, timers=with_timers(beats=[BEAT], file=file)) as world:
        for n in (1, 2):
            await due(world, "heartbeat:main")
            await ended(world, n, "heartbeat:main")
        first, second = (str(request.messages) for request in world.model.requests)
        assert ("Look often." in first, "Look daily." in first) == (True, True)
        assert ("Look often." in second, "Look daily." in second) == (True, False)


async def test_a_heartbeat_that_fails_does_not_stop_the_next(tmp_path: Path) -> None:
    model = ScriptedModel(Reply(error=ValueError("no")), otherwise=lambda _: "HEARTBEAT_OK")
    async with World(tmp_path, timers=with_timers(beats=[BEAT]), model=model) as world:
        for n in (1, 2):
            await due(world, "heartbeat:main")
            await ended(world, n, "heartbeat:main")
        runs = await ended(world, 2, "heartbeat:main")
        assert [run.state for run in runs] == ["failed", "ok"]
        assert runs[1].scheduled_at_ms - runs[0].scheduled_at_ms == BEAT.every_ms
        assert world.channel.received == []


async def test_the_old_way_runs_in_the_conversation_itself(tmp_path: Path) -> None:
    async with World(tmp_path, timers=with_timers(beats=[replace(BEAT, isolated=False)])) as world:
        await due(world, "heartbeat:main")
        [run] = await ended(world, 1, "heartbeat:main")
        assert (await world.hf.input(run.input_id or "")).session == MAIN
        await world.saw("Heartbeat at")
        assert [role for role, _ in await world.said(MAIN)] == ["user", "assistant"]


# ── all at once ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("isolated", [True, False])
async def test_a_long_heartbeat_messages_a_job_and_a_hook_all_end_and_nobody_takes_anything_over(
    tmp_path: Path, isolated: bool
) -> None:
    """The heartbeat streams for three minutes; messages come from two handles, and a job is due."""
    beat, job = replace(BEAT, isolated=isolated), replace(JOB, target="main", every=None, at="2026-01-01T00:01:00")
    async with World(tmp_path, timers=with_timers(beats=[beat])) as world:
        await timer_of(world, "heartbeat:main")
        stream = asyncio.Event()
        world.model.script(Reply("HEARTBEAT_OK", gate=stream))
        await orders.wake(world.hf, "main", reason="manual")
        await world.pass_time(3)
        await until(lambda: asked(world), "the heartbeat to be asked")
        await orders.add_job(world.hf, replace(job, at=world.clock.now().isoformat()[:19]))
        inputs = [await world.inbound(MAIN, f"message {n}") for n in range(3)]
        async with open_state(world.state, clock=world.clock) as other:
            for lane in ("main", "hook"):
                event = InboundEvent(MAIN, {"content": f"from elsewhere ({lane})"}, lane=lane)
                accepted = await other.accept(event)
                assert isinstance(accepted, Accepted)
                inputs.append(accepted.input_id)
        await world.pass_time(180)
        if isolated:
            assert (await world.hf.input(inputs[0])).state == "answered", "it holds nobody's line"
        stream.set()
        views = [await world.settled(one) for one in inputs]
        assert {view.state for view in views} == {"answered"}
        await ended(world, 1, "heartbeat:main")
        assert (await ended(world, 1))[0].state == "ok"
        await world.idle(passing_s=30)
        outcomes = {turn.outcome for turn in await world.hf.turns(limit=100)}
        assert outcomes == {"answered"}, outcomes
        assert all(request.model == "scripted/model" for request in world.model.requests)
