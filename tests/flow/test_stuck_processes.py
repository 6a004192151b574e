"""Turns that stand still in other, real processes: seen from outside, asked by order, closed when nothing of them
lives; and sessions that an outer supervisor recovers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.recovery.classify import Owner
from holdfast.recovery.watchdog import Watchdog
from holdfast.recovery.watching import WatchSettings
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import served
from tests.faults.remote import Remote, RemoteError, Troupe

KEY = "agent:main:main"
WAIT_S = 30


def command(capsys: pytest.CaptureFixture[str], state: Path, *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = run(["--state", str(state), *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


async def working(state: Path, processes: Troupe) -> tuple[Remote, str]:
    """Another process runs a turn whose tool never returns; its input."""
    one = await processes.start(state, beat_s=0.1)
    input_id = (await one.call("accept", session=KEY, text="question"))["id"]
    await one.call("work", script=[["a"], "after it"])
    assert await one.event() == f"turn {input_id}"
    assert await one.event() == "tool a"
    return one, input_id


async def owner_that(hf: holdfast.Holdfast, does: str) -> Owner:
    """The owner once its process has handed over, with a beat, that it does this."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for owner in await hf.owners(KEY):
                if owner.report is not None and owner.report.doing == does:
                    return owner
            await asyncio.sleep(0.02)


@asynccontextmanager
async def watched(hf: holdfast.Holdfast) -> AsyncIterator[None]:
    watching = asyncio.create_task(Watchdog(hf).run())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.promise("P9")
async def test_what_a_turn_does_is_seen_from_other_processes_and_it_ends_when_an_operator_asks(
    state: Path, processes: Troupe, capsys: pytest.CaptureFixture[str]
) -> None:
    one, input_id = await working(state, processes)
    async with holdfast.open_reader(state) as hf:
        owner = await owner_that(hf, "tool")
        assert owner.report is not None
        assert owner.report.name == "work"

    def story() -> None:
        _, turns = command(capsys, state, "turns")
        assert (turns[0]["work"]["doing"], turns[0]["work"]["name"]) == ("tool", "work")
        _, told = command(capsys, state, "why", input_id)
        assert any("at work: process" in line["text"] and "tool work" in line["text"] for line in told["lines"])
        code, planned = command(capsys, state, "recover", KEY, "--dry-run")
        assert (code, planned["actions"]) == (0, [])
        assert "tool work" in planned["left_alone"][0]["work"]
        code, report = command(capsys, state, "recover", KEY)
        assert (code, report["outcome"]) == (0, "not_needed"), "without leave a live owner is left alone"
        code, report = command(capsys, state, "recover", KEY, "--ask")
        assert (code, report["outcome"]) == (0, "effective")
        assert report["actions"][0]["detail"] == f"input {input_id} is failed"

    await asyncio.to_thread(story)
    async with holdfast.open(state) as hf:
        view = await hf.input(input_id)
        assert view.error == "TurnStalledError"
        [result] = [entry for entry in await hf.session(KEY).entries() if "toolResult" in str(entry)]
        assert "stopped holdfast recover" in str(result)
        accepted = await hf.accept(holdfast.InboundEvent(KEY, {"content": "and now?"}))
        assert isinstance(accepted, holdfast.Accepted)
        assert (await hf.wait_input(accepted.input_id, WAIT_S)).answer == "after it", "the queue goes on"
    assert (await one.call("input", id=input_id))["state"] == "failed"


@pytest.mark.promise("P9")
async def test_a_process_that_was_stopped_is_told_of_and_its_turn_closed_after_the_term_and_not_before(
    state: Path, processes: Troupe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    one = await processes.start(state, beat_s=0.2)
    await one.call("claim", turn="t", session=KEY, wait_s=5)
    await one.call("append", turn="t", kind="user", text="before")
    settings = WatchSettings(warn_s=1.0)
    async with holdfast.open(state, beat_term_s=8.0, watch=settings) as hf, watched(hf):
        [owner] = await hf.owners()
        pid = owner.pid or 0
        os.kill(pid, signal.SIGSTOP)
        try:
            async with hf.turn(KEY, wait_s=WAIT_S) as turn:
                await turn.append(holdfast.user("after"))
        finally:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(RemoteError) as lost:
            await one.call("append", turn="t", kind="user", text="late")
        assert "superseded" in lost.value.message
    assert "recovery.requested" not in caplog.text or "reason=close_lapsed" in caplog.text
    assert f"pid={pid}" in caplog.text, "it was told of before it was closed"


@pytest.mark.promise("P9")
async def test_where_a_supervisor_recovers_nothing_is_closed_by_itself_and_all_is_said(
    state: Path, processes: Troupe, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.recovery")
    one, input_id = await working(state, processes)
    await one.kill()
    settings = WatchSettings(supervised=("agent:main:*",))
    async with holdfast.open(state, watch=settings) as hf:
        assert await hf.store.recover_dead() == 0
        for for_input in (input_id, None):
            with pytest.raises(holdfast.SessionBusyError, match="holdfast recover"):
                await hf.claim(KEY, input_id=for_input, wait_s=0.2)
        await Watchdog(hf).look()
        assert "session.stuck" in caplog.text
        assert "left to whoever supervises it" in caplog.text
        assert len(await hf.owners(KEY)) == 1
        code, report = await asyncio.to_thread(command, capsys, state, "recover", KEY)
        assert (code, report["outcome"]) == (0, "effective")
        async with hf.turn(KEY, input_id=input_id) as turn:
            await turn.append(holdfast.assistant("done", model="demo/demo"))
        assert (await hf.input(input_id)).answer == "done"
        other = await hf.claim("agent:other:main", wait_s=0.2)
        assert isinstance(other, holdfast.Turn)
        await hf.close_turn(other, None)


async def test_the_same_over_http(tmp_path: Path) -> None:
    model = ScriptedModel("never said", "hello")
    model.hold()
    async with (
        served(tmp_path / "state", model=model) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        first = (await http.post(f"/api/sessions/{KEY}/messages", json={"text": "one"})).json()["id"]
        await model.asked(1)
        planned = (await http.get(f"/api/sessions/{KEY}/recovery")).json()
        assert planned["actions"] == []
        assert planned["left_alone"][0]["work"].startswith("model ")
        left = await http.post(f"/api/sessions/{KEY}/recover")
        assert (left.status_code, left.json()["outcome"]) == (200, "not_needed")
        asked = await http.post(f"/api/sessions/{KEY}/recover", json={"ask": True}, timeout=WAIT_S)
        assert (asked.status_code, asked.json()["outcome"]) == (200, "effective")
        assert (await gateway.hf.input(first)).error == "TurnStalledError"
        for wrong in ({"ask": "yes"}, {"wait_s": -1}, {"wait_s": "long"}):
            assert (await http.post(f"/api/sessions/{KEY}/recover", json=wrong)).status_code == 400
        model.release()
        answered = await http.post(f"/api/sessions/{KEY}/messages", params={"wait": 1}, json={"text": "two"})
        assert answered.json()["answer"] == "hello"
