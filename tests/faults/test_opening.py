"""Opening a state directory: many at once, damaged ones, foreign ones, ones that cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import ResourceError, StateVersionError, StoreStoppedError
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.turn.turn import Turn
from tests.faults.remote import RemoteError, Troupe

KEY = "agent:main:main"


async def accept(hf: Holdfast, text: str = "question", key: str | None = None) -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": text}, source="test", key=key))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def a_turn(hf: Holdfast) -> None:
    async with hf.turn(KEY, wait_s=5) as turn:
        await turn.append(holdfast.user("x"))


# ── at once ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_processes_may_open_a_new_state_at_the_same_moment(tmp_path: Path, processes: Troupe) -> None:
    remotes = [await processes.start() for _ in range(3)]
    for number in range(10):
        state = tmp_path / f"state-{number}"
        await asyncio.gather(*(remote.call("open", state=str(state)) for remote in remotes))
        await asyncio.gather(*(remote.call("accept", session=KEY, text="x") for remote in remotes))
        await asyncio.gather(*(remote.call("close") for remote in remotes))
        async with holdfast.open(state) as hf:
            assert len(await hf.inputs()) == 3


async def test_processes_may_come_and_go_while_others_work(state: Path, processes: Troupe) -> None:
    """Who opens and finds itself alone tidies up; it must not tidy away somebody who has just come."""
    coming = [await processes.start() for _ in range(2)]

    async def come_and_go(number: int) -> None:
        for round_ in range(12):
            await coming[number].call("open", state=str(state))
            await coming[number].call("claim", turn="t", session=f"agent:main:{number}", wait_s=5)
            assert len(list((state / "processes").iterdir())) >= 1, round_
            await coming[number].call("settle", turn="t")
            await coming[number].call("close")

    await asyncio.gather(come_and_go(0), come_and_go(1))
    async with holdfast.open(state) as hf:
        assert [turn.outcome for turn in await hf.turns()] == ["done"] * 24


# ── damaged ledgers ──────────────────────────────────────────────────────────────────────────────────────────────────

DAMAGE = {
    "garbage": lambda data: b"not a database " * 400,
    "zero bytes": lambda data: b"",
    "zeroed pages": lambda data: data[:1024] + b"\0" * (len(data) - 1024),
    "half of it": lambda data: data[: len(data) // 2],
    "missing": None,
}


async def used(state: Path) -> str:
    """A state with an answered exchange and an open input. Returns the transcript's path."""
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=1) as turn:
            await turn.append(holdfast.user("hello"))
            await turn.append(holdfast.assistant("hi", model="demo/demo"))
            path = turn.transcript.path
        await accept(hf)
    return path


def damage(state: Path, what: str) -> None:
    ledger = state / "ledger.sqlite3"
    act = DAMAGE[what]
    if act is None:
        ledger.unlink()
    else:
        ledger.write_bytes(act(ledger.read_bytes()))


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_ledger_is_set_aside_when_nobody_lives_and_the_conversation_is_kept(
    state: Path, what: str
) -> None:
    path = await used(state)
    before = Path(path).read_bytes()
    epochs = [json.loads(raw)["holdfast"]["epoch"] for raw in before.splitlines()[1:]]
    damage(state, what)
    async with holdfast.open(state) as hf:
        assert any("cannot be known" in finding for finding in hf.store.findings)  # pyright: ignore[reportAttributeAccessIssue]
        assert await hf.inputs() == []
        assert [(view.key, view.path) for view in await hf.sessions()] == [(KEY, path)]
        async with hf.turn(KEY, wait_s=5) as turn:
            assert turn.transcript.path == path
            assert turn.epoch.number > max(epochs)
            assert len(await turn.context()) == 2
            await turn.append(holdfast.user("still here"))
    assert Path(path).read_bytes().startswith(before)
    aside = [one.name for one in state.iterdir() if ".damaged-" in one.name]
    assert bool(aside) == (what != "missing")
    async with holdfast.open(state) as hf:
        assert hf.store.findings == []  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.promise("P9")
async def test_a_damaged_ledger_is_refused_while_anybody_lives(state: Path, processes: Troupe, what: str) -> None:
    await used(state)
    living = await processes.start(state)
    damage(state, what)
    names = sorted(one.name for one in state.iterdir())
    with pytest.raises(ResourceError, match="still use this state"):
        async with holdfast.open(state):
            pass
    assert sorted(one.name for one in state.iterdir()) == names
    await living.kill()
    async with holdfast.open(state) as hf:
        await a_turn(hf)


async def test_processes_may_open_a_damaged_state_at_the_same_moment(tmp_path: Path, processes: Troupe) -> None:
    """One sets the ledger aside and begins a new one; the others must not set that one aside too."""
    remotes = [await processes.start() for _ in range(3)]
    for number in range(6):
        state = tmp_path / f"state-{number}"
        await used(state)
        damage(state, "garbage")
        opened = await asyncio.gather(
            *(remote.call("open", state=str(state)) for remote in remotes), return_exceptions=True
        )
        for remote, result in zip(remotes, opened, strict=True):
            if isinstance(result, RemoteError):
                assert "still use this state" in result.message
            else:
                await remote.call("accept", session=KEY, text="x")
                await remote.call("close")
        async with holdfast.open(state) as hf:
            stored = sum(not isinstance(result, RemoteError) for result in opened)
            assert len(await hf.inputs()) == stored >= 1


@pytest.mark.parametrize("how", ["replaced", "removed"])
@pytest.mark.promise("P1")
async def test_a_ledger_replaced_under_a_process_stops_it(state: Path, how: str) -> None:
    await used(state)
    ledger = state / "ledger.sqlite3"
    async with holdfast.open(state) as hf:
        copy = ledger.with_suffix(".copy")
        copy.write_bytes(ledger.read_bytes())
        if how == "replaced":
            copy.rename(ledger)
        else:
            ledger.unlink()
        for _ in range(2):
            with pytest.raises(StoreStoppedError):
                await accept(hf)
            with pytest.raises(StoreStoppedError):
                await hf.claim(KEY, wait_s=1)
        assert hf.store.stopped


async def test_whoever_waits_when_the_ledger_goes_is_told(state: Path) -> None:
    await used(state)
    async with holdfast.open(state) as hf:
        turn = await hf.claim(KEY, wait_s=1)
        waiter = asyncio.create_task(hf.claim(KEY, wait_s=30))
        (state / "ledger.sqlite3").unlink()
        with pytest.raises(StoreStoppedError):
            await accept(hf)
        with pytest.raises(StoreStoppedError):
            await waiter
        assert isinstance(turn, Turn)
        assert await hf.close_turn(turn, None) is None  # not recorded; whoever opens the state next sees to it


# ── stopped inside ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_process_stopped_inside_the_ledger_is_named_after_a_bounded_wait(
    state: Path, processes: Troupe
) -> None:
    holder = await processes.start(state)
    async with holdfast.open(state, acquire_timeout_ms=200) as hf:
        await holder.call("arm", point="ledger.before_commit", act="stop")
        writing = holder.ask("accept", session=KEY, text="theirs")
        assert await holder.event() == "at ledger.before_commit"
        with pytest.raises(ResourceError, match=rf"locked \(timeout 200ms\): pid={holder.pid} \(stopped\).*kill -CONT"):
            await accept(hf, "ours")
        assert not hf.store.stopped
        holder.cont()
        await writing
        await accept(hf, "ours")
        assert [one.payload["content"] for one in await hf.inputs()] == ["ours", "theirs"]


# ── not ours, not writable ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_state_of_a_newer_version_is_refused_untouched(state: Path) -> None:
    await used(state)
    marker = state / "holdfast.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 99}))
    before = {one: one.stat().st_mtime_ns for one in state.rglob("*")}
    with pytest.raises(StateVersionError, match="newer"):
        async with holdfast.open(state):
            pass
    assert {one: one.stat().st_mtime_ns for one in state.rglob("*")} == before


async def test_tables_that_came_later_are_made_in_a_ledger_of_before(state: Path) -> None:
    import sqlite3

    await used(state)
    with closing(sqlite3.connect(state / "ledger.sqlite3")) as connection:
        for table in ("model_cooldowns", "model_pins", "model_fallbacks"):
            connection.execute(f"drop table {table}")
        connection.commit()
    async with holdfast.open(state) as hf:
        assert (await hf.store.models()).pins == []
        async with hf.turn("agent:main:main") as turn:
            await turn.append(holdfast.user("hello"))


async def test_a_ledger_of_a_newer_schema_is_refused(state: Path) -> None:
    import sqlite3

    await used(state)
    with sqlite3.connect(state / "ledger.sqlite3") as connection:
        connection.execute("pragma user_version=99")
    connection.close()
    with pytest.raises(StateVersionError):
        async with holdfast.open(state):
            pass


async def test_the_ledger_of_another_state_is_refused(tmp_path: Path) -> None:
    await used(tmp_path / "one")
    await used(tmp_path / "other")
    (tmp_path / "one" / "ledger.sqlite3").write_bytes((tmp_path / "other" / "ledger.sqlite3").read_bytes())
    with pytest.raises(ResourceError, match="belongs to store"):
        async with holdfast.open(tmp_path / "one"):
            pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1"}'])
async def test_an_unreadable_marker_is_refused(state: Path, text: str) -> None:
    await used(state)
    (state / "holdfast.json").write_text(text)
    with pytest.raises(ResourceError, match="marker"):
        async with holdfast.open(state):
            pass


async def test_a_lost_marker_is_taken_from_the_ledger(state: Path) -> None:
    await used(state)
    marker = state / "holdfast.json"
    before = marker.read_text()
    marker.unlink()
    async with holdfast.open(state) as hf:
        await a_turn(hf)
    assert json.loads(marker.read_text()) == json.loads(before)


async def test_a_file_in_place_of_the_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError):
        async with holdfast.open(tmp_path / "file"):
            pass


@pytest.mark.promise("I12")
async def test_folder_and_files_are_for_their_owner_only_whatever_the_umask(state: Path) -> None:
    before = os.umask(0)
    try:
        await used(state)
    finally:
        os.umask(before)
    wrong = [
        (str(one.relative_to(state)), oct(one.stat().st_mode & 0o777))
        for one in [state, *state.rglob("*")]
        if one.stat().st_mode & 0o077
    ]
    assert wrong == []
