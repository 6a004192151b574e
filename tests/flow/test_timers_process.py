"""Two gateways as processes of their own on one state: a job each second fires once, also when one is killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import holdfast
from holdfast.inbound.timer import TimerRun
from holdfast.store.views import InputView
from tests.flow.test_gateway_process import Started, started

EACH_SECOND = """
[cron.jobs.tick]
message = "tick"
cron = "* * * * * *"
deliver = "none"
"""
ONCE = """
[cron.jobs.once]
message = "just once"
at = "8s"
deliver = "none"
"""


async def seen(state: Path | str) -> tuple[list[TimerRun], list[InputView]]:
    """Runs, oldest first, and the inputs that were accepted for them."""
    async with holdfast.open_reader(state) as hf:
        runs = await hf.store.timer_runs(limit=2000)
        inputs = await hf.inputs(limit=10_000)
    return runs[::-1], [view for view in inputs if view.source == "cron"]


async def until(state: Path | str, enough: Callable[[list[TimerRun]], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not enough((await seen(state))[0]):
        assert time.monotonic() < end, [(run.state, run.detail) for run in (await seen(state))[0]]
        await asyncio.sleep(0.2)


async def first_due(state: Path) -> int:
    """When the only job is due, once somebody has planned it. Milliseconds since 1970."""
    async with asyncio.timeout(60):
        while True:
            async with holdfast.open_reader(state) as hf:
                timers = await hf.store.timers(kind="cron")
            if timers and timers[0].next_at_ms is not None:
                return timers[0].next_at_ms
            await asyncio.sleep(0.1)


def fired(runs: list[TimerRun]) -> list[TimerRun]:
    return [run for run in runs if run.state != "skipped"]


async def settled(state: Path) -> None:
    await until(state, lambda runs: all(run.state != "running" for run in runs))


def configured(path: Path, text: str) -> tuple[Path, list[str]]:
    path.mkdir(exist_ok=True)
    (path / "holdfast.toml").write_text(text)
    return path / "state", ["--port", "0", "--config", str(path / "holdfast.toml")]


async def kill(gateway: Started) -> None:
    gateway.process.send_signal(signal.SIGKILL)
    await gateway.process.wait()


def check_each_once(runs: list[TimerRun], inputs: list[InputView]) -> None:
    ran = fired(runs)
    assert {run.state for run in ran} == {"ok"}
    assert max(Counter(run.scheduled_at_ms for run in ran).values()) == 1, "a time fired twice"
    assert len({run.input_id for run in ran}) == len(ran)
    assert {view.id for view in inputs} == {run.input_id for run in ran}, "an input that no run knows of"
    assert all(run.scheduled_at_ms % 1000 == 0 for run in runs)
    assert {view.state for view in inputs} == {"answered"}


async def test_a_job_each_second_fires_once_among_two_gateways_and_after_one_is_killed(tmp_path: Path) -> None:
    state, options = configured(tmp_path, EACH_SECOND)
    async with started(state, *options) as one, started(state, *options) as two:
        await until(state, lambda runs: len(fired(runs)) >= 5)
        await kill(one)
        before = len(fired((await seen(state))[0]))
        await until(state, lambda runs: len(fired(runs)) >= before + 5)
        two.process.send_signal(signal.SIGTERM)
        await two.ended()
    async with started(state, "--port", "0"):  # the job is no longer configured; what it had begun is closed
        await settled(state)
    runs, inputs = await seen(state)
    check_each_once([run for run in runs if run.state != "cancelled"], [view for view in inputs
                    if view.id not in {run.input_id for run in runs if run.state == "cancelled"}])  # fmt: skip


async def test_a_run_that_was_missed_while_nobody_was_there_is_made_up_for_once(tmp_path: Path) -> None:
    state, options = configured(tmp_path, ONCE)
    async with started(state, *options) as one:
        due_ms = await first_due(state)  # a gateway that is ready may not have planned its jobs yet
        await kill(one)
    await asyncio.sleep(max(0.0, due_ms / 1000 - time.time()) + 0.5)  # real time: the job is due meanwhile
    async with started(state, *options), started(state, *options):
        await until(state, lambda runs: len(fired(runs)) >= 1)
        await settled(state)
        await asyncio.sleep(2.5)
    runs, inputs = await seen(state)
    assert [(run.state, run.attempt) for run in runs] == [("ok", 1)]
    assert [view.state for view in inputs] == ["answered"]
