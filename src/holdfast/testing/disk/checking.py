"""What has to be true of a state directory whatever happened to the processes that used it (reliability.md §5).

Everything is read from the files themselves, by other means than Holdfast's own.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

TORN_BY_OTHERS = b'{"torn'
"""How a line begins that an outsider left unfinished; it stays in the file, closed with a newline."""
TERMINAL = {"answered", "steered", "merged", "superseded", "skipped", "cancelled", "failed"}


def rows(state: Path, sql: str, *values: Any) -> list[dict[str, Any]]:
    """Ask the ledger, on a connection that cannot write."""
    connection = sqlite3.connect(f"file:{state / 'ledger.sqlite3'}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, values)]
    finally:
        connection.close()


def transcripts(state: Path) -> list[Path]:
    """All of a state, archived ones among them; answers kept beside one are none."""
    return sorted(path for path in (state / "sessions").glob("*/*.jsonl") if ".kept-" not in path.name) + archives(
        state
    )


def archives(state: Path) -> list[Path]:
    return sorted((state / "archives").glob("*/*.jsonl"))


def entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a transcript. Each must parse (I2) except an outsider's torn one, and the last one must be whole."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data, data[-200:]
    return [json.loads(raw) for raw in data.splitlines() if not raw.startswith(TORN_BY_OTHERS)]


def check(state: Path, *, accepted: dict[str, str]) -> None:
    """All invariants that hold once nobody works.

    Args:
        accepted: text by input id, of the inputs that were acknowledged.
    """
    for path in transcripts(state):
        check_transcript(entries(path))
    check_inputs(state, accepted)
    check_archives(state)
    check_timers_and_children(state)
    check_marks(state)


def asked_to_end(state: Path) -> set[str]:
    """Turns that were asked to end since they stood still."""
    return {row["turn"] for row in rows(state, "select * from events where kind='session.recovery.requested'")}


def check_marks(state: Path) -> None:
    """Whoever was asked to end stood still, what came of it was said once, and nothing is left of it (P9)."""
    assert rows(state, "select * from marks") == []
    said = Counter(row["turn"] for row in rows(state, "select * from events where kind='session.recovery.completed'"))
    asked = asked_to_end(state)
    assert said == Counter(asked), (asked, said)
    stopped = rows(state, "select * from inputs where error='TurnStalledError'")
    assert all(row["state"] == "failed" and row["turn"] in asked for row in stopped), (asked, stopped)


def check_timers_and_children(state: Path) -> None:
    """Each time of a timer is one run, with an input; each end of a sub-agent was told, once (I1, I9)."""
    runs = rows(state, "select * from timer_runs where state<>'skipped'")
    times = Counter((row["timer"], row["scheduled_at_ms"], row["attempt"]) for row in runs)
    assert all(count == 1 for count in times.values()), f"fired twice: {times}"
    assert all(row["state"] != "running" and row["input"] for row in runs), runs
    fired = rows(state, "select id, dedupe_key from inputs where source in ('cron', 'heartbeat')")
    known = {row["input"] for row in runs}
    unknown = [row for row in fired if row["id"] not in known and "@manual:" not in row["dedupe_key"]]
    assert len(known) == len(runs), runs
    assert not unknown, (runs, fired)  # of one by hand whoever asked for it was not told that it runs
    news = rows(state, "select id from inputs where source='announcement'")
    of_hearts = [row for row in runs if row["timer"].startswith("heartbeat:") and row["state"] == "ok"]
    assert sorted(row["announce"] for row in of_hearts) == sorted(row["id"] for row in news), (of_hearts, news)
    overdue = rows(state, "select id from timers where state='active' and next_at_ms < 1000")
    assert not overdue, f"never fired: {overdue}"
    for child in rows(state, "select * from children"):
        told = rows(state, "select * from inputs where source='subagent' and dedupe_key=?", child["id"])
        assert (child["state"], len(told)) == ("announced", 1), (child, told)
    tasks = rows(state, "select * from inputs where source='spawn'")
    assert len(tasks) == len(rows(state, "select * from children")), "a task without its sub-agent, or the reverse"


def check_archives(state: Path) -> None:
    """Each archive that the ledger tells of is there, and none that it does not tell of; none is half done."""
    told = rows(state, "select * from archives")
    assert all(row["state"] == "kept" for row in told), told
    assert {state / "archives" / row["name"] for row in told} == set(archives(state))
    assert all(path.stat().st_nlink == 1 for path in archives(state)), "an archive is still in use"


def check_transcript(lines: list[dict[str, Any]]) -> None:
    """Header first, ids once (I1), parents resolve (I8), epochs never go down (I4), one store."""
    if not lines:
        return
    assert lines[0]["type"] == "session"
    known: set[str | None] = {None}
    epoch = 0
    for entry in lines[1:]:
        assert entry["type"] != "session"
        assert entry["id"] not in known, f"{entry['id']} twice"
        assert entry["parentId"] in known, f"parent of {entry['id']} is not there"
        known.add(entry["id"])
        origin = entry.get("holdfast")
        if origin is not None and origin["writer"] == "turn":
            assert origin["epoch"] >= epoch, "an older epoch wrote after a newer one"
            epoch = origin["epoch"]
    final = Counter(one for entry in lines for one in entry.get("holdfast", {}).get("inputs", []) if is_final(entry))
    assert all(count == 1 for count in final.values()), f"answered twice: {final}"


def is_final(entry: dict[str, Any]) -> bool:
    return bool(entry.get("holdfast", {}).get("final"))


def check_inputs(state: Path, accepted: dict[str, str]) -> None:
    """Each acknowledged input is there once, in one state (I1, I5); an answer is the transcript's own (I6, I7)."""
    stored = {row["id"]: row for row in rows(state, "select * from inputs")}
    said = {
        (one, text_of(entry))
        for path in transcripts(state)
        for entry in entries(path)
        if is_final(entry)
        for one in entry["holdfast"]["inputs"]
    }
    for input_id, text in accepted.items():
        row = stored[input_id]
        assert json.loads(row["payload"])["content"] == text
        assert row["state"] in TERMINAL | {"queued", "running"}
        assert row["state"] != "failed" or row["detail"]
    for input_id, row in stored.items():
        if row["state"] in ("answered", "steered", "merged"):
            answer = text_of(json.loads(row["result"]))
            assert (input_id, answer) in said, "an answer that the transcript does not have"
        else:
            assert input_id not in {one for one, _ in said} or row["state"] in ("queued", "running")
    delivered = Counter((row["input"], row["part"]) for row in rows(state, "select * from outbox"))
    assert all(count == 1 for count in delivered.values())


def text_of(entry: dict[str, Any]) -> str:
    content = entry["message"]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
