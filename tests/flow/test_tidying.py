"""What is thrown away in time, and what never is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import holdfast
from holdfast.clock import epoch_ms
from holdfast.inbound.event import Accepted, Duplicate, InboundEvent
from holdfast.kernel import TIDY_FIRST_S, Holdfast
from holdfast.store.sql import tidying
from holdfast.testing.clock import VirtualClock

KEY = "agent:main:main"
OLD_MS = 1_000_000_000_000  # in 2001


@contextmanager
def ledger_of(state: Path) -> Iterator[sqlite3.Connection]:
    ledger = sqlite3.connect(state / "ledger.sqlite3", isolation_level=None)
    try:
        yield ledger
    finally:
        ledger.close()


def count(state: Path, table: str, where: str = "true") -> int:
    with ledger_of(state) as ledger:
        return ledger.execute(f"select count(*) from {table} where {where}").fetchone()[0]


def age(state: Path) -> None:
    """As if all that has happened had happened long ago."""
    with ledger_of(state) as ledger:
        ledger.execute(
            "update turns set started_at_ms=?1, ended_at_ms=case when state='settled' then ?1 end", (OLD_MS,)
        )
        ledger.execute("update events set at_ms=?", (OLD_MS,))
        ledger.execute("update processes set started_at_ms=?", (OLD_MS,))
        ledger.execute("update inputs set accepted_at_ms=?", (OLD_MS,))


def fill(state: Path, table: str, rows: int, *, lead: str = "0") -> None:
    """Rows of turns long ended, or of their stories, older than all others (`lead` "f": with greater ids)."""
    with ledger_of(state) as ledger:
        ledger.execute("begin")
        if table == "turns":
            ledger.executemany(
                "insert into turns values(?,'agent:main:old','t','main',null,1,'p_old',null,'settled',?,?,'done','')",
                ((f"turn_{lead}000{number:028d}", OLD_MS, OLD_MS) for number in range(rows)),
            )
        else:
            least = ledger.execute("select coalesce(min(seq), 1) from events").fetchone()[0]
            ledger.executemany(
                "insert into events values(?,?,'agent:main:old',null,'turn_old','turn.window','{}')",
                ((least - rows + number, OLD_MS) for number in range(rows)),
            )
        ledger.execute("commit")


async def accepted(hf: Holdfast, key: str | None = None) -> str:
    admission = await hf.accept(InboundEvent(KEY, {"content": "question"}, source="test", key=key))
    assert isinstance(admission, Accepted)
    return admission.input_id


async def test_old_stories_of_ended_turns_go_and_the_newest_stay_whatever_their_age(state: Path) -> None:
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY) as turn:
            turn.note("turn.window", detail="long ago")
        fill(state, "turns", tidying.ROWS_KEPT + 500)
        fill(state, "events", tidying.ROWS_KEPT + 500)
        age(state)
        assert await hf.store.tidy() > 900
        assert count(state, "turns") == tidying.ROWS_KEPT
        assert count(state, "events") == tidying.ROWS_KEPT
        assert [view.id for view in await hf.turns(session=KEY)] == [turn.id]  # it is of the newest
        assert await hf.store.tidy() == 0


async def test_what_is_not_old_stays_however_many_there_are_and_zero_days_keep_everything(state: Path) -> None:
    fill_rows = tidying.ROWS_KEPT + 300
    async with holdfast.open(state) as hf:
        fill(state, "turns", fill_rows)
        with ledger_of(state) as ledger:
            ledger.execute("update turns set ended_at_ms=?", (epoch_ms(hf.clock.now()),))
        assert await hf.store.tidy() == 0
    async with holdfast.open(state, keep_days=0) as hf:
        age(state)
        await hf.store.tidy()
        assert count(state, "turns") == fill_rows


async def test_what_is_open_and_every_key_stay_however_old(state: Path) -> None:
    async with holdfast.open(state) as hf:
        answered = await accepted(hf, "first")
        async with hf.turn(KEY, input_id=answered) as turn:
            await turn.append(holdfast.assistant("hi", model="test/test"))
        waiting = await accepted(hf, "second")
        async with hf.turn("agent:main:other") as running:
            running.note("turn.window", detail="under way")
            running.flush_story()
            hf.store.note_events([(OLD_MS, KEY, waiting, None, "note", {})])
            await hf.store.transcript_of(KEY + ":any")  # the notes are in the ledger
            fill(state, "turns", tidying.ROWS_KEPT + 300, lead="f")
            fill(state, "events", tidying.ROWS_KEPT + 300)
            with ledger_of(state) as ledger:  # the oldest of all, by number too
                ledger.execute("update events set seq=seq-1000000 where turn=? or input=?", (running.id, waiting))
            age(state)
            await hf.store.tidy()
            assert count(state, "turns") == tidying.ROWS_KEPT + 1  # the ended one of ours has gone
            assert count(state, "turns", "state='running'") == 1
            assert count(state, "events", "kind='note'") == 1
            assert count(state, "events", f"turn='{running.id}'") >= 1
        assert count(state, "inputs") == 2
        again = await hf.accept(InboundEvent(KEY, {"content": "question"}, source="test", key="first"))
        assert isinstance(again, Duplicate)
        assert again.input_id == answered
        assert (await hf.input(answered)).answer == "hi"


async def test_processes_that_are_gone_go_and_those_that_live_or_own_something_stay(state: Path) -> None:
    async with holdfast.open(state) as one, holdfast.open(state) as other:
        with ledger_of(state) as ledger:
            for name, boot, owner in (
                ("p_other_boot", "before", ""),
                ("p_owner", "before", "t_left"),
                ("p_same", "", ""),
            ):
                same = ledger.execute("select boot from processes limit 1").fetchone()[0]
                ledger.execute("insert into processes values(?,1,'cli',?,?)", (name, OLD_MS, boot or same))
                if owner:
                    ledger.execute(
                        "insert into transcripts(id, path, owner_turn, owner_process) values(?,?,'turn_left',?)",
                        (owner, "sessions/left.jsonl", name),
                    )
            recent = ledger.execute(
                "select boot, started_at_ms from processes where name=?", (one.process_id,)
            ).fetchone()
            ledger.execute("insert into processes values('p_just_now',1,'cli',?,?)", (recent[1], recent[0]))
        await one.store.tidy()
        with ledger_of(state) as ledger:
            left = {row[0] for row in ledger.execute("select name from processes")}
            assert left == {one.process_id, other.process_id, "p_owner", "p_just_now"}
            ledger.execute("delete from transcripts where id='t_left'")


async def test_a_wait_is_forgotten_when_the_turn_that_waited_runs_no_more(state: Path) -> None:
    async with holdfast.open(state) as hf, hf.turn(KEY) as turn:
        with ledger_of(state) as ledger:
            ledger.execute("insert into waits values('w_dead','p_dead','t_x','turn_gone',1)")
            ledger.execute("insert into waits values('w_live','p_live','t_y',?,1)", (turn.id,))
        await hf.store.tidy()
        assert count(state, "waits") == 1
        assert count(state, "waits", "id='w_live'") == 1


async def test_housekeeping_does_it_after_a_minute(state: Path) -> None:
    clock = VirtualClock()
    async with holdfast.open(state, clock=clock) as hf:
        await hf.store.transcript_of(KEY)
        fill(state, "turns", tidying.ROWS_KEPT + 40)
        await clock.advance(TIDY_FIRST_S + 1)
        for number in range(200):  # each a hop to the thread that tidies
            await hf.store.transcript_of(f"agent:main:test:direct:{number}")
            if count(state, "turns") == tidying.ROWS_KEPT:
                return
        raise AssertionError("nothing was thrown away")
