"""The table of crashes (DESIGN §3), each row with a real SIGKILL at that point and the state opened again."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.inbound.event import Accepted, Duplicate, InboundEvent
from holdfast.kernel import Holdfast
from holdfast.turn.turn import Turn
from tests.faults import checks, outsider
from tests.faults.remote import GoneError, Remote, Troupe

KEY = "agent:main:main"
OTHER = "agent:main:other"
ANSWER = "the answer"


async def dies_of(call: asyncio.Future[Any], remote: Remote) -> None:
    """The command never answers, because the process was killed on its way."""
    with pytest.raises(GoneError):
        await call
    assert await remote.dies() == -9


async def accepted(remote: Remote, text: str = "question", session: str = KEY, **how: Any) -> str:
    admission = await remote.call("accept", session=session, text=text, route="alice", **how)
    assert admission["kind"] == "Accepted"
    return admission["id"]


async def claimed(hf: Holdfast, **how: Any) -> Turn:
    turn = await hf.claim(KEY, wait_s=5, **how)
    assert isinstance(turn, Turn)
    return turn


def path_in(state: Path) -> Path:
    [path] = checks.transcripts(state)
    return path


def messages(state: Path) -> list[tuple[str, str]]:
    """(role, text) of the messages of the only transcript."""
    found = [entry for entry in checks.entries(path_in(state)) if entry["type"] == "message"]
    return [(entry["message"]["role"], checks.text_of(entry)) for entry in found]


async def settles(remote: Remote, input_id: str, state: str = "answered") -> dict[str, Any]:
    view = await remote.call("wait_input", id=input_id)
    assert view["state"] == state, view
    return view


# ── before and after accepting ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P3", "I1")
async def test_before_accept_commits_the_sender_hears_nothing_and_a_retry_is_the_first(
    state: Path, processes: Troupe
) -> None:
    one = await processes.start(state)
    await one.call("arm", point="accept.before_commit")
    await dies_of(one.ask("accept", session=KEY, text="question", key="k1"), one)
    async with holdfast.open(state) as hf:
        assert await hf.inputs() == []
        event = InboundEvent(KEY, {"content": "question"}, source="test", key="k1")
        first = await hf.accept(event)
        assert isinstance(first, Accepted)
        assert await hf.accept(event) == Duplicate(first.input_id, "queued")


@pytest.mark.parametrize("point", ["accept.after_commit", "ledger.after_commit"])
@pytest.mark.promise("P3", "I1")
async def test_a_sender_whose_acknowledgement_was_lost_is_told_that_it_is_known(
    state: Path, processes: Troupe, point: str
) -> None:
    one = await processes.start(state)
    await one.call("arm", point=point)
    await dies_of(one.ask("accept", session=KEY, text="question", key="k1"), one)
    async with holdfast.open(state) as hf:
        [view] = await hf.inputs()
        retried = await hf.accept(InboundEvent(KEY, {"content": "question"}, source="test", key="k1"))
        assert retried == Duplicate(view.id, "queued")


@pytest.mark.promise("P3", "I8")
async def test_what_was_accepted_keeps_its_place_and_its_lane(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    ids = [await accepted(one, f"question {number}") for number in range(3)]
    other = await accepted(one, "elsewhere", OTHER, lane="cron")
    await one.kill()
    two = await processes.start(state)
    places = [(await two.call("input", id=id)) for id in ids]
    assert [(view["state"], view["position"], view["attempts"]) for view in places] == [
        ("queued", 0, 0), ("queued", 1, 0), ("queued", 2, 0),
    ]  # fmt: skip
    async with holdfast.open(state) as hf:
        assert [(view.lane, view.route) for view in await hf.inputs(session=OTHER)] == [("cron", "test:alice")]
    await two.call("work", script=[])
    for id in [*ids, other]:
        await settles(two, id)
    asked = [
        checks.text_of(entry)
        for path in checks.transcripts(state)
        for entry in checks.entries(path)
        if entry["type"] == "message" and entry["message"]["role"] == "user"
    ]
    assert sorted(asked) == ["elsewhere", "question 0", "question 1", "question 2"]
    assert [text for text in asked if text != "elsewhere"] == ["question 0", "question 1", "question 2"]
    checks.check(state, accepted={other: "elsewhere"})


# ── mid-turn ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MID_TURN = [
    ("claim.after_commit", 1),
    ("claim.after_record", 1),
    ("append.after_intent", 1),
    ("append.after_write", 1),
    ("append.after_record", 1),
    ("append.after_intent", 2),
]


@pytest.mark.parametrize(("point", "nth"), MID_TURN)
@pytest.mark.promise("P3", "I1")
async def test_a_turn_that_died_before_its_final_line_is_run_again_and_its_input_written_once(
    state: Path, processes: Troupe, point: str, nth: int
) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point=point, nth=nth)
    await one.call("work", script=[ANSWER])
    assert await one.dies() == -9
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    view = await settles(two, input_id)
    assert (view["attempts"], view["answer"]) == (2, ANSWER)
    assert messages(state) == [("user", "question"), ("assistant", ANSWER)]
    assert [row["body"] for row in checks.rows(state, "select * from outbox")] == [ANSWER]
    checks.check(state, accepted={input_id: "question"})


async def test_the_first_death_is_seen_by_a_process_that_was_there_all_the_time(state: Path, processes: Troupe) -> None:
    one, two = await processes.start(state), await processes.start(state)
    input_id = await accepted(one)
    await one.call("work", script=[["a"]])
    assert [await one.event(), await one.event()] == [f"turn {input_id}", "tool a"]
    await two.call("work", script=[ANSWER])
    await one.kill()
    assert (await settles(two, input_id))["answer"] == ANSWER


@pytest.mark.promise("P2", "I5", "I9")
async def test_after_three_charged_attempts_the_input_fails_and_says_why(state: Path, processes: Troupe) -> None:
    input_id = ""
    for attempt in range(3):
        one = await processes.start(state)
        input_id = input_id or await accepted(one)
        await one.call("work", script=[["a"]])
        assert await one.event() == f"turn {input_id}"
        await one.event()
        await one.kill()
        [row] = checks.rows(state, "select state, charged from inputs")
        assert row == {"state": "running", "charged": attempt}
    last = await processes.start(state)
    await last.call("work", script=[ANSWER])
    view = await settles(last, input_id, "failed")
    assert view["error"] == "TurnDied"
    [delivery] = checks.rows(state, "select * from outbox")
    assert "died 3 times" in delivery["body"]
    assert "send it again" in delivery["body"]
    checks.check(state, accepted={input_id: "question"})


async def test_inputs_that_died_together_are_run_one_at_a_time_and_only_such_a_death_is_charged(
    state: Path, processes: Troupe
) -> None:
    one = await processes.start(state)
    first, second = await accepted(one, "one"), await accepted(one, "two", OTHER)
    await one.call("work", script=[["a"], ["b"]])
    seen = {await one.event() for _ in range(4)}
    assert {f"turn {first}", f"turn {second}"} <= seen
    await one.kill()

    two = await processes.start(state)
    await two.call("work", script=[["c"], ["d"]])
    alone = (await two.event()).removeprefix("turn ")
    assert await two.event() == "tool c"
    charged = "select id, state, charged, solo from inputs order by id"
    other = second if alone == first else first
    assert {row["id"]: row["charged"] for row in checks.rows(state, charged)} == {first: 0, second: 0}
    assert {row["id"]: row["state"] for row in checks.rows(state, charged)} == {alone: "running", other: "queued"}
    await two.kill()

    three = await processes.start(state)
    await three.call("work", script=[ANSWER, ANSWER])
    for input_id in (first, second):
        await settles(three, input_id)
    assert {row["id"]: row["charged"] for row in checks.rows(state, charged)} == {alone: 1, other: 0}
    checks.check(state, accepted={first: "one", second: "two"})


async def test_an_unanswered_call_gets_an_interrupted_result_and_its_tool_is_not_run_again(
    state: Path, processes: Troupe
) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("work", script=[["a", "b"]])
    assert [await one.event(), await one.event()] == [f"turn {input_id}", "tool a"]
    await one.kill()
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    await settles(two, input_id)
    assert await two.event() == f"turn {input_id}"
    assert two.no_more_events()
    [calls, *results] = [entry["message"] for entry in checks.entries(path_in(state))[2:-1]]
    assert [part["arguments"]["as"] for part in calls["content"]] == ["a", "b"]
    assert [result["toolCallId"] for result in results] == [part["id"] for part in calls["content"]]
    assert all(result["isError"] and "interrupted" in result["content"][0]["text"] for result in results)
    checks.check(state, accepted={input_id: "question"})


async def test_a_tool_that_is_restart_safe_is_run_again(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("work", script=[["a"]], restart_safe=True)
    assert [await one.event(), await one.event()] == [f"turn {input_id}", "tool a"]
    await one.kill()
    two = await processes.start(state)
    await two.call("work", script=[ANSWER], restart_safe=True, tool_hangs=False)
    await settles(two, input_id)
    assert [await two.event(), await two.event()] == [f"turn {input_id}", "tool a"]
    assert [role for role, _ in messages(state)] == ["user", "assistant", "toolResult", "assistant"]
    checks.check(state, accepted={input_id: "question"})


async def test_a_result_that_was_written_is_not_asked_for_again(state: Path, processes: Troupe) -> None:
    """Killed with one of two calls answered: only the other one is reported as interrupted."""
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="append.after_record", nth=3)  # the input, the calls, the first result
    await one.call("work", script=[["a", "b"]], tool_hangs=False)
    assert await one.dies() == -9
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    await settles(two, input_id)
    results = [text for role, text in messages(state) if role == "toolResult"]
    assert results[0] == "done"
    assert "interrupted" in results[1]
    assert len(results) == 2


# ── final line written, not settled ──────────────────────────────────────────────────────────────────────────────────

FINAL = [
    ("append.after_write", 2),
    ("append.after_record", 2),
    ("settle.before_sync", 1),
    ("transcript.before_sync", 1),
    ("transcript.after_sync", 1),
    ("settle.after_sync", 1),
]


@pytest.mark.parametrize(("point", "nth"), FINAL)
@pytest.mark.promise("P2", "P3")
async def test_a_final_line_settles_its_input_without_asking_the_model_again(
    state: Path, processes: Troupe, point: str, nth: int
) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point=point, nth=nth)
    await one.call("work", script=[ANSWER])
    assert await one.dies() == -9
    assert checks.rows(state, "select state from inputs") == [{"state": "running"}]
    two = await processes.start(state)
    await two.call("work", script=["asked again"])
    view = await settles(two, input_id)
    assert (view["attempts"], view["answer"]) == (1, ANSWER)
    assert two.no_more_events()
    assert messages(state) == [("user", "question"), ("assistant", ANSWER)]
    assert [row["body"] for row in checks.rows(state, "select * from outbox")] == [ANSWER]
    checks.check(state, accepted={input_id: "question"})


@pytest.mark.promise("P2", "P9")
async def test_whoever_claims_next_settles_a_final_line_first(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="settle.after_sync")
    await one.call("work", script=[ANSWER])
    await one.dies()
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        assert (await hf.input(input_id)).answer == ANSWER
        await hf.close_turn(turn, None)


@pytest.mark.promise("P2", "I10")
async def test_a_lost_settlement_is_found_when_the_input_itself_is_claimed(state: Path, processes: Troupe) -> None:
    """The ledger forgot the settlement (an unsynced commit, a power loss): the final line still answers."""
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("work", script=[ANSWER])
    await settles(one, input_id)
    await one.kill()
    connection = sqlite3.connect(state / "ledger.sqlite3")
    with connection:
        connection.execute("update inputs set state='queued', result=null, settled_at_ms=null")
        connection.execute("delete from outbox")
    connection.close()
    two = await processes.start(state)
    await two.call("work", script=["asked again"])
    assert (await settles(two, input_id))["answer"] == ANSWER
    assert messages(state) == [("user", "question"), ("assistant", ANSWER)]


# ── torn tails ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kept", [1, 40, 64, 65, 200, -1])
@pytest.mark.promise("P5", "I2")
async def test_a_torn_tail_of_ours_is_cut(state: Path, processes: Troupe, kept: int) -> None:
    """Killed with the line written and not recorded; then only the first bytes of it are on the disk."""
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="append.after_write", nth=2)
    await one.call("work", script=[ANSWER])
    await one.dies()
    path = path_in(state)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    with path.open("r+b") as file:
        file.truncate(start + kept if kept > 0 else len(whole) - 1)
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    assert (await settles(two, input_id))["attempts"] == 2
    assert path.read_bytes().startswith(whole[:start])
    assert messages(state) == [("user", "question"), ("assistant", ANSWER)]
    checks.check(state, accepted={input_id: "question"})


@pytest.mark.parametrize("torn", ['{"type":"message","id":"x1","par', '{"type":"mess\x00', "x", "{" * 500])
@pytest.mark.promise("P6", "I2")
async def test_a_torn_tail_of_somebody_else_is_closed_and_kept(state: Path, processes: Troupe, torn: str) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="append.after_intent", nth=2)
    await one.call("work", script=[ANSWER])
    await one.dies()
    path = path_in(state)
    outsider.run("append_bytes", str(path), text=torn)
    before = path.read_bytes()
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        assert any("closed with a newline" in found for found in turn._owned.findings)
        await hf.close_turn(turn, None)
    (original,) = path.parent.glob(f"{path.name}.original-*")
    assert original.read_bytes() == before + b"\n"
    *_, aside, repair = checks.entries(path)
    assert (aside["customType"], aside["data"]["text"]) == ("holdfast:set_aside", torn)
    assert (repair["customType"], repair["data"]["original"]) == ("holdfast:repair", original.name)
    mended = path.read_bytes()
    assert mended.startswith(before.removesuffix(torn.encode()))
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    await settles(two, input_id)
    assert path.read_bytes().startswith(mended)
    checks.check(state, accepted={input_id: "question"})


async def test_a_foreign_tail_after_a_write_that_was_taken_back_is_not_cut(state: Path) -> None:
    """What we meant to write and did not must not explain somebody else's bytes later."""

    def disk_full(point: str) -> None:
        if point == "append.after_intent" and armed:
            raise OSError(28, "No space left on device")

    armed = False
    async with holdfast.open(state, faults=disk_full, disk_patience_s=0) as hf:
        turn = await claimed(hf)
        await turn.append(holdfast.user("one"))
        armed = True
        with pytest.raises(holdfast.ResourceError):
            await turn.append(holdfast.user("two"))
        armed = False
        path = turn.transcript.path
        line = Path(path).read_bytes().splitlines()[-1]
        outsider.run("append_bytes", path, text=line[:20].decode())
        before = Path(path).read_bytes()
        with pytest.raises(holdfast.SessionTakeoverError) as lost:
            await turn.append(holdfast.user("three"))
        assert lost.value.verdict.kind == "tampered"
        assert Path(path).read_bytes() == before
        await hf.close_turn(turn, lost.value)


# ── power loss ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def synced_then_more(state: Path, processes: Troupe) -> tuple[Path, bytes, bytes, str]:
    """An answered exchange, then two lines that no sync had covered when the power went.

    Returns: path, the synced part, the rest, the id of the input that was running.
    """
    one = await processes.start(state)
    first = await accepted(one, "first")
    await one.call("work", script=[ANSWER])
    await settles(one, first)
    synced = path_in(state).read_bytes()
    await one.kill()
    two = await processes.start(state)
    second = await accepted(two, "second")
    await two.call("claim", turn="t", session=KEY, wait_s=5, input_id=second)
    await two.call("append_input", turn="t")
    await two.call("append", turn="t", kind="custom", text="unsynced")
    await two.kill()
    rest = path_in(state).read_bytes()[len(synced) :]
    assert rest.count(b"\n") == 2
    return path_in(state), synced, rest, second


DAMAGE: dict[str, tuple[Any, int]] = {
    "nothing lost": (lambda rest: rest, 2),
    "the last line lost": (lambda rest: rest[: rest.index(b"\n") + 1], 1),
    "both lost": (lambda rest: b"", 0),
    "the last line torn": (lambda rest: rest[:-30], 1),
    "the first line zeroed": (lambda rest: b"\0" * (rest.index(b"\n") + 1) + rest[rest.index(b"\n") + 1 :], 0),
    "the first line's middle zeroed": (lambda rest: rest[:50] + b"\0" * 50 + rest[100:], 0),
    "zeros behind": (lambda rest: rest + b"\0" * 4096, 2),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.promise("P3", "I2")
async def test_after_a_power_loss_every_line_behind_the_synced_end_is_checked(
    state: Path, processes: Troupe, what: str
) -> None:
    """From the first bad line on it is set aside, whole and byte for byte; what was acknowledged stays."""
    path, synced, rest, second = await synced_then_more(state, processes)
    act, good = DAMAGE[what]
    damaged = act(rest)
    path.write_bytes(synced + damaged)
    checks.reboot(state)
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        kept = b"".join(damaged.splitlines(keepends=True)[:good])
        assert path.read_bytes() == synced + kept
        aside = [one.read_bytes() for one in path.parent.glob("*.aside-*")]
        assert aside == ([damaged[len(kept) :]] if damaged != kept else [])
        assert any("set aside" in found for found in turn._owned.findings) == bool(aside)
        await hf.close_turn(turn, None)
        [view] = await hf.inputs(state="queued")
        assert view.id == second
        again = await claimed(hf, input_id=second)
        await again.append_input([{"role": "user", "content": "second"}])
        await again.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert await hf.close_turn(again, None) == "answered"
    asked = [checks.text_of(entry) for entry in checks.entries(path) if entry.get("message", {}).get("role") == "user"]
    assert asked == ["first", "second"]
    checks.check(state, accepted={second: "second"})


async def test_after_a_power_loss_the_dead_own_nothing_even_if_their_sentinels_are_gone(
    state: Path, processes: Troupe
) -> None:
    """Sentinels are not synced. A process of another boot is dead all the same."""
    await synced_then_more(state, processes)
    for sentinel in (state / "processes").iterdir():
        sentinel.unlink()
    checks.reboot(state)
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        await hf.close_turn(turn, None)


async def test_acknowledged_bytes_that_are_missing_after_a_power_loss_are_reported_as_damage(
    state: Path, processes: Troupe
) -> None:
    path, synced, _, _ = await synced_then_more(state, processes)
    lines = synced.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    checks.reboot(state)
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        assert any(f"damage: {len(lines[-1])} bytes" in found for found in turn._owned.findings), turn._owned.findings
        await turn.append(holdfast.user("still here"))
        await hf.close_turn(turn, None)
    checks.check_transcript(checks.entries(path))


async def test_acknowledged_bytes_that_were_changed_while_the_machine_was_off_are_reported(
    state: Path, processes: Troupe
) -> None:
    path, synced, _, _ = await synced_then_more(state, processes)
    path.write_bytes(synced.replace(b"first", b"fIrst"))
    checks.reboot(state)
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        assert any("damage: bytes before offset" in found for found in turn._owned.findings), turn._owned.findings
        await hf.close_turn(turn, None)


# ── recorded but missing bytes ───────────────────────────────────────────────────────────────────────────────────────


async def test_recorded_bytes_that_were_never_acknowledged_may_be_missing(state: Path, processes: Troupe) -> None:
    """The same boot: the record says more than the file has, and nobody was ever told of it."""
    path, synced, _, second = await synced_then_more(state, processes)
    path.write_bytes(synced)
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    await settles(two, second)
    assert [text for role, text in messages(state) if role == "user"] == ["first", "second"]
    checks.check(state, accepted={second: "second"})


@pytest.mark.promise("P6")
async def test_acknowledged_bytes_that_are_missing_are_reported(state: Path, processes: Troupe) -> None:
    path, synced, _, _ = await synced_then_more(state, processes)
    path.write_bytes(b"".join(synced.splitlines(keepends=True)[:-1]))
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        assert any("truncated" in found for found in turn._owned.findings)
        await hf.close_turn(turn, None)


# ── settled, not delivered ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P3")
async def test_what_was_settled_and_not_delivered_is_still_there_to_deliver(state: Path, processes: Troupe) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="settle.after_commit")
    await one.call("work", script=[ANSWER])
    await one.dies()
    async with holdfast.open(state) as hf:
        [delivery] = await hf.deliveries()
        assert (delivery.state, delivery.body, delivery.input_id) == ("pending", ANSWER, input_id)
        assert (await hf.input(input_id)).state == "answered"
        [still_open] = await hf.store.open_deliveries(["test"])
        assert still_open.body == ANSWER


# ── recovery without a claim ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P3", "P9", "I7")
async def test_recovery_writes_the_bytes_of_the_dead_again_and_makes_them_durable_before_it_settles_by_them(
    state: Path, processes: Troupe
) -> None:
    """After a failed sync the kernel may show bytes that will never reach the disk."""
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="settle.before_sync")
    await one.call("work", script=[ANSWER])
    await one.dies()
    path = path_in(state)
    before = path.stat().st_mtime_ns
    async with holdfast.open(state) as hf:
        assert await hf.store.recover_dead() == 1
        assert (await hf.input(input_id)).answer == ANSWER
        assert path.stat().st_mtime_ns > before
        assert await hf.store.recover_dead() == 0
        turn = await claimed(hf)
        assert turn._owned.findings == []
        assert turn._owned.claim.record.synced == path.stat().st_size  # pyright: ignore[reportAttributeAccessIssue]
        await hf.close_turn(turn, None)


@pytest.mark.promise("P3", "I7")
async def test_after_a_power_loss_nothing_is_settled_by_a_line_that_stands_behind_damage(
    state: Path, processes: Troupe
) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("arm", point="settle.before_sync")
    await one.call("work", script=[ANSWER])
    await one.dies()
    path = path_in(state)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * len(lines[1]) + lines[2])
    checks.reboot(state)
    async with holdfast.open(state) as hf:
        assert await hf.store.recover_dead() == 1
        assert (await hf.input(input_id)).state == "queued"
        assert path.read_bytes() == lines[0]
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    await settles(two, input_id)
    checks.check(state, accepted={input_id: "question"})


@pytest.mark.parametrize("what", ["replace_with_folder", "replace_with_pipe", "replace_with_link", "truncate"])
async def test_an_input_whose_turn_died_ends_even_if_its_session_cannot_be_read(
    state: Path, processes: Troupe, what: str
) -> None:
    one = await processes.start(state)
    input_id = await accepted(one)
    await one.call("work", script=[["a"]])
    assert [await one.event(), await one.event()] == [f"turn {input_id}", "tool a"]
    await one.kill()
    path = path_in(state)
    if what == "truncate":
        path.write_bytes(b"no header\n")
    else:
        outsider.run(what, str(path))
    two = await processes.start(state)
    await two.call("work", script=[ANSWER])
    view = await settles(two, input_id, "failed")
    assert view["error"] == "TranscriptFormatError"
    [delivery] = checks.rows(state, "select * from outbox")
    assert "could not be answered" in delivery["body"]


async def test_a_turn_that_wrote_nothing_says_nothing_of_what_others_have_not_synced(
    state: Path, processes: Troupe
) -> None:
    """What a settlement calls durable is not checked after a power loss."""
    one = await processes.start(state)
    async with holdfast.open(state) as hf:
        turn = await claimed(hf)
        await one.call("metadata", session=KEY, kind="label", text="x")
        await turn.inspect()
        await hf.close_turn(turn, None)
        assert checks.rows(state, "select synced_end from transcripts") == [{"synced_end": 0}]
        turn = await claimed(hf)
        await turn.append(holdfast.user("x"), durable=True)
        await hf.close_turn(turn, None)
    size = path_in(state).stat().st_size
    assert checks.rows(state, "select synced_end from transcripts") == [{"synced_end": size}]
