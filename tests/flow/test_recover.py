"""`holdfast recover`: plan, act on one captured epoch, verify; a live owner is never touched (P9)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.cli.main import run
from holdfast.recovery import reaper
from tests.faults import checks
from tests.faults.remote import RemoteError, Troupe
from tests.faults.test_readers import untouched

KEY = "agent:main:main"


async def died_in_mid_turn(state: Path, processes: Troupe) -> str:
    """A process died while it ran an input; its id."""
    one = await processes.start(state)
    input_id = (await one.call("accept", session=KEY, text="question"))["id"]
    await one.call("arm", point="append.after_intent", nth=2)
    await one.call("work", script=["the answer"])
    await one.dies()
    return input_id


def command(capsys: pytest.CaptureFixture[str], state: Path, *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = run(["--state", str(state), "recover", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


async def test_the_turn_of_a_dead_process_is_closed_once_and_its_input_is_queued_again(
    state: Path, processes: Troupe, capsys: pytest.CaptureFixture[str]
) -> None:
    input_id = await died_in_mid_turn(state, processes)

    def story() -> None:
        with untouched(state):
            code, planned = command(capsys, state, "--dry-run")
        assert (code, planned["left_alone"]) == (1, [])
        (action,) = planned["actions"]
        assert (action["action"], action["reason"], action["input"]) == ("close_dead", "its process is dead", input_id)
        code, report = command(capsys, state)
        assert (code, report["outcome"]) == (0, "effective")
        (done,) = report["actions"]
        assert (done["epoch"], done["outcome"]) == (action["epoch"], "effective")
        assert done["detail"] == f"input {input_id} is queued"
        code, again = command(capsys, state)
        assert (code, again["outcome"], again["actions"]) == (0, "not_needed", [])
        assert command(capsys, state, "--dry-run")[0] == 0

    await asyncio.to_thread(story)


@pytest.mark.promise("P2", "P3")
async def test_a_final_line_is_settled_by_recovery_and_delivered_later(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    input_id = (await one.call("accept", session=KEY, text="question"))["id"]
    await one.call("arm", point="settle.after_sync")
    await one.call("work", script=["the answer"])
    await one.dies()
    async with holdfast.open(state) as hf:
        report = await hf.recover(KEY)
        assert report.outcome == "effective"
        assert report.done[0].detail == f"input {input_id} is answered"
        assert (await hf.input(input_id)).answer == "the answer"
    checks.check(state, accepted={input_id: "question"})


@pytest.mark.promise("P9")
async def test_a_live_owner_is_left_alone(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    await one.call("claim", turn="t", session=KEY, wait_s=5)
    async with holdfast.open(state) as hf, hf.turn("agent:main:mine") as mine:
        report = await hf.recover()
        assert (report.outcome, report.done) == ("not_needed", ())
        reasons = {left.owner.sessions[0]: left.reason for left in report.left_alone}
        assert reasons == {KEY: "its process lives", "agent:main:mine": "it runs in this very process"}
        await mine.append(holdfast.user("x"))
    await one.call("append", turn="t", kind="user", text="still mine")
    await one.call("settle", turn="t")


@pytest.mark.promise("P9", "I10")
async def test_of_two_who_planned_the_same_one_is_effective_and_the_other_was_not_needed(
    state: Path, processes: Troupe
) -> None:
    await died_in_mid_turn(state, processes)
    async with holdfast.open(state) as one, holdfast.open(state) as two:
        plans = [await hf.plan_recovery() for hf in (one, two)]
        assert (await reaper.act(one.store, plans[0], one.clock)).outcome == "effective"
        async with one.turn(KEY) as turn:  # somebody owns it again: an old plan must not touch that
            late = await reaper.act(two.store, plans[1], two.clock)
            assert (late.outcome, late.done[0].detail) == ("not_needed", "somebody else has closed it meanwhile")
            await turn.append(holdfast.user("x"))


async def test_a_plan_for_an_epoch_that_is_over_does_nothing_to_the_next_dead_one(
    state: Path, processes: Troupe
) -> None:
    await died_in_mid_turn(state, processes)
    async with holdfast.open(state) as hf:
        (action,) = (await hf.plan_recovery()).actions
        other = replace(action.owner, epoch=action.owner.epoch._replace(nonce="0" * 32))
        assert await hf.store.close_turn_of(other, lapsed=False) is False
        assert len((await hf.plan_recovery()).actions) == 1


async def test_a_process_that_stands_still_is_closed_only_after_the_whole_term_and_finds_itself_superseded(
    state: Path, processes: Troupe
) -> None:
    one = await processes.start(state, beat_s=0.2)
    await one.call("claim", turn="t", session=KEY, wait_s=5)
    await one.call("append", turn="t", kind="user", text="before")
    async with holdfast.open(state, beat_term_s=2.0) as hf:
        beating = await hf.recover(wait_s=1.0, beat_term_s=2.0)
        assert beating.outcome == "not_needed"
        (claim,) = beating.left_alone
        os.kill(claim.owner.pid or 0, signal.SIGSTOP)
        try:
            assert (await hf.recover(beat_term_s=2.0)).outcome == "not_needed"  # nobody has watched yet
            report = await hf.recover(wait_s=10.0, beat_term_s=2.0)
        finally:
            os.kill(claim.owner.pid or 0, signal.SIGCONT)
        assert report.outcome == "effective"
        assert report.done[0].action.kind == "close_lapsed"
        with pytest.raises(RemoteError) as lost:
            await one.call("append", turn="t", kind="user", text="late")
        assert "superseded" in lost.value.message
        async with hf.turn(KEY) as turn:
            await turn.append(holdfast.user("after"))
    lines = checks.entries(checks.transcripts(state)[0])
    assert [checks.text_of(line) for line in lines if line["type"] == "message"] == ["before", "after"]
