"""What is promised of each way into a conversation (`ways.py`), checked when everything has come to rest.

Times are compared only where no wall clock was set, lines only where no outsider has damaged the file.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from holdfast import ids
from holdfast.inbound.child import SPAWN
from holdfast.inbound.timer import CRON, HEARTBEAT
from holdfast.inbound.timers import TIMED_OUT
from holdfast.lane.queue import INTERRUPTED_BY, RESET_BY
from holdfast.session.entries import text_of
from holdfast.testing.simulation.checking_tools import effects_of_tools
from holdfast.testing.simulation.machine import TROUBLES
from holdfast.testing.simulation.rest import ANSWERED, Rest, Rows, content_of, leaves_a_line
from holdfast.turn.turn import DROPPED_TYPE, RESET_TYPE

DROPPED_PART = -2
"""Part of the notice to whoever's message gave way (`store/sql/queueing.py`)."""
_ANSWER = re.compile(r"answer \d+ to (.*)", re.DOTALL)


def find_broken_ways(rest: Rest) -> Iterable[str]:
    """Every promise about these ways that was broken, in words."""
    for row in rest.inputs.values():
        if rest.file_of(row) not in rest.harmed:
            yield from _line_faults(rest, row)
            yield from _answer_faults(rest, row)
        yield from _reason_faults(rest, row)
        yield from _debounce_faults(rest, row)
        yield from _interrupt_faults(rest, row)
        if row["state"] == "skipped" and row["how"] in ("summary", "drop"):
            yield from _drop_faults(rest, row)
        if content_of(row) == "/stop":
            yield from _stop_faults(rest, row)
        if content_of(row) in ("/new", "/reset"):
            yield from _reset_faults(rest, row)
    yield from _order_faults(rest)
    yield from _partial_faults(rest)
    yield from _timer_faults(rest)
    yield from _recovery_faults(rest)
    yield from _yield_faults(rest)
    yield from _compaction_faults(rest)


# ── what was said, and the answer to it ──────────────────────────────────────────────────────────────────────────────


def _line_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """P3: what was answered stands in the transcript, before its answer."""
    if row["state"] not in ANSWERED or not leaves_a_line(row) or row["source"] == "announcement":
        return
    own = ids.input_line_id(row["id"])
    at = [number for number, line in enumerate(rest.lines_of(row)) if line.get("id") == own]
    final = rest.finals.get(row["id"])
    if len(at) != 1:
        yield f"P3: {row['id']} was {row['state']}, and its own line stands {len(at)} times"
    elif final is not None and final in rest.lines_of(row)[: at[0]]:
        yield f"I8: {row['id']} was {row['state']} by a line that stands before its own"


def _answer_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """An answer is to what was asked: the model was shown it last, whatever was shortened, steered or left out."""
    if row["state"] not in ANSWERED or rest.file_of(row) in rest.foreign or not row["result"]:
        return
    if row["source"] == "announcement":
        return  # what is said of a run, and no answer
    said = _ANSWER.fullmatch(text_of(json.loads(row["result"])["message"]))
    final = rest.finals.get(row["id"])
    if said is not None and final is not None:
        asked = [content_of(rest.inputs[one]) for one in final["holdfast"]["inputs"] if one in rest.inputs]
        if said[1] not in asked:
            yield f"P2: {row['id']} asked {asked} and was answered: {said[0][:80]!r}"


def _order_faults(rest: Rest) -> Iterable[str]:
    """What one person says in one conversation keeps its order."""
    queues: dict[tuple[str, str, str], list[str]] = {}
    for row in sorted(rest.inputs.values(), key=lambda row: row["seq"]):
        if row["lane"] == "main" and row["source"] == "simulation":
            place = (row["transcript"], row["route_target"], row["mode"])
            queues.setdefault(place, []).append(ids.input_line_id(row["id"]))
    for (transcript, *_), own in queues.items():
        there = [line.get("id") for line in rest.lines.get(rest.paths[transcript], [])]
        at = [there.index(one) for one in own if one in there]
        if at != sorted(at) and rest.paths[transcript] not in rest.harmed:
            yield f"I8: in {transcript} messages of one person stand in another order than they came: {at}"


def _reason_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """P2: nothing is cancelled, skipped or failed that nobody has asked for, or that has no cause."""
    by, detail = row["cancel_by"] or "", row["detail"] or ""
    said = {content_of(one) for one in rest.inputs.values() if one["transcript"] == row["transcript"]}
    if row["state"] == "cancelled":
        is_asked = (
            (by == "sender" and row["id"] in rest.seen.cancelled)
            or (by == INTERRUPTED_BY and rest.ways.queue.mode == "interrupt")
            or (by == RESET_BY and "/reset" in said)
            or (by == "/stop" and "/stop" in said)
            or (by.startswith(TIMED_OUT) and row["source"] in (CRON, HEARTBEAT))
            or row["source"] == SPAWN
        )
        if not is_asked:
            yield f"P2: {row['id']} was cancelled by {by!r} ({detail}), and nobody had asked for it"
    if row["state"] == "skipped" and row["source"] != "compaction" and row["how"] not in ("summary", "drop"):
        yield f"P2: {row['id']} was skipped: {detail!r}"
    if row["state"] == "failed" and row["error"] == "NoAnswer":
        yield f"P2: {row['id']} has failed without any cause: {detail!r}"


# ── a busy session ───────────────────────────────────────────────────────────────────────────────────────────────────


def _debounce_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """Whatever waits behind a turn begins once it has been quiet, also after a restart."""
    wanted_ms = rest.ways.queue.debounce_ms if _found_busy(rest, row) is not None else row["debounce_ms"]
    if not wanted_ms or rest.counts.get("clock set"):
        return
    first = min((turn["started_at_ms"] for turn in rest.turns if turn["input"] == row["id"]), default=None)
    if first is not None and first < row["accepted_at_ms"] + wanted_ms:
        early = row["accepted_at_ms"] + wanted_ms - first
        yield f"queue: {row['id']} was begun {early} ms before it had been quiet for {wanted_ms} ms"


def _interrupt_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """P2: where newer messages interrupt, the turn that one of them has met was asked to stop."""
    met = _found_busy(rest, row)
    if rest.ways.queue.mode != "interrupt" or met is None or rest.counts.get("clock set"):
        return
    other = rest.inputs[met["input"]]
    if other["route_target"] == row["route_target"] and other["cancel_by"] is None:
        yield f"queue: {row['id']} came while {met['id']} ran for {other['id']}, and did not interrupt it"


def _found_busy(rest: Rest, row: sqlite3.Row) -> sqlite3.Row | None:
    """The turn that ran for a person when another message of a person came; None: there was none for certain. Who was
    stopped meanwhile has taken its time from before.
    """
    if row["lane"] != "main" or row["source"] != "simulation" or content_of(row).startswith("/"):
        return None
    for turn in rest.turns:
        of = rest.inputs.get(turn["input"] or "")
        is_of_person = of is not None and of["source"] == "simulation" and not content_of(of).startswith("/")
        if (turn["transcript"], turn["lane"]) != (row["transcript"], "main") or not is_of_person:
            continue
        if turn["input"] != row["id"] and turn["started_at_ms"] < row["accepted_at_ms"] < (turn["ended_at_ms"] or 0):
            return turn
    return None


def _drop_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """P2: who had to give way was told of it, and so was the model, if it was to be."""
    told = [one for one in rest.outbox if one["part"] == DROPPED_PART and one["target"] == row["route_target"]]
    if not told:
        yield f"P2: {row['id']} was dropped, and its sender was not told"
    carrier = rest.inputs.get(row["joined"])
    if carrier is None:
        yield f"P3: {row['id']} was dropped for {row['joined']}, which is not there"
    elif row["how"] == "summary" and carrier["state"] in ANSWERED and rest.file_of(row) not in rest.harmed:
        lines = [line for line in rest.lines_of(row) if line.get("customType") == DROPPED_TYPE]
        text = "".join(str(line.get("content")) for line in lines if carrier["id"] in line["holdfast"]["inputs"])
        if content_of(row)[:40] not in text:
            yield f"P3: {row['id']} was dropped, and {carrier['id']} does not tell the model of it"


def _partial_faults(rest: Rest) -> Iterable[str]:
    """What a model had said when its turn was stopped is kept for people."""
    if rest.counts.get("power loss"):
        return  # such a line has no sync of its own
    for turn in rest.turns:
        begun = rest.seen.cut_off.get(turn["id"])
        path = rest.paths[turn["transcript"]]
        if begun is None or turn["outcome"] != "cancelled" or path in rest.harmed:
            continue
        kept = [
            line["data"]["text"]
            for line in rest.lines.get(path, [])
            if line.get("customType") == "holdfast:partial" and (line.get("holdfast") or {}).get("turn") == turn["id"]
        ]
        if begun not in kept:
            yield f"queue: {turn['id']} was stopped after {begun!r}, of which is kept {kept}"


def gave_way(turn: sqlite3.Row) -> bool:
    return turn["outcome"] == "requeued" and str(turn["detail"]).startswith("gave way to ")


def _yield_faults(rest: Rest) -> Iterable[str]:
    """P2: whoever gave way comes after the input that he gave way to."""
    by_transcript: dict[str, Rows] = {}
    for turn in sorted(rest.turns, key=lambda turn: turn["epoch_number"]):
        by_transcript.setdefault(turn["transcript"], []).append(turn)
    for turns in by_transcript.values():
        for turn, after in pairwise(turns):
            if not gave_way(turn) or rest.counts.get("clock set"):
                continue
            other = rest.inputs.get((turn["detail"] or "").removeprefix("gave way to "))
            if after["input"] != turn["input"] or other is None or other["joined"] or other["cancel_by"]:
                continue
            if (other["settled_at_ms"] or 0) > after["started_at_ms"]:
                yield f"lanes: {turn['input']} gave way to {other['id']} and was the next one all the same"


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stop_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """What waited when /stop was carried out is not begun afterwards."""
    if row["state"] != "answered" or rest.counts.get("clock set") or not row["settled_at_ms"]:
        return
    for other in rest.inputs.values():
        if other["session"] != row["session"] or other["seq"] >= row["seq"] or other["state"] not in ANSWERED:
            continue
        final = rest.finals.get(other["id"])
        by = next((turn for turn in rest.turns if final and turn["id"] == final["holdfast"]["turn"]), None)
        if by is not None and by["started_at_ms"] > row["settled_at_ms"]:
            yield f"P2: {other['id']} was stopped by {row['id']}, and was answered by {by['id']} afterwards"


def _reset_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """A new conversation begins in one line, without a parent."""
    if row["state"] != "answered" or rest.file_of(row) in rest.harmed:
        return
    lines = [
        line
        for line in rest.lines_of(row)
        if line.get("customType") == RESET_TYPE and line["data"].get("input") == row["id"]
    ]
    if len(lines) != 1 or lines[0].get("parentId") is not None:
        yield f"I1: {row['id']} began a conversation anew in {len(lines)} lines"


# ── timers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _timer_faults(rest: Rest) -> Iterable[str]:
    """Each scheduled time is one run, each run is one input, and no input of a timer is without its run."""
    fired = [run for run in rest.runs if run["state"] != "skipped"]
    times = Counter((run["timer"], run["scheduled_at_ms"], run["attempt"]) for run in fired)
    yield from (f"timers: {time} has fired {count} times" for time, count in times.items() if count > 1)
    of = Counter(run["input"] for run in fired)
    for run in fired:
        if of[run["input"]] > 1 or run["input"] not in rest.inputs:
            yield f"timers: run {run['id']} has the input {run['input']}, which {of[run['input']]} runs have"
        if run["state"] == "running":
            yield f"I9: run {run['id']} is still open"
    paused_at = {f"{timer['id']}@{timer['next_at_ms']}" for timer in rest.timers}  # after its input, before its run
    for row in rest.inputs.values():
        is_known = row["id"] in of or row["dedupe_key"] in paused_at
        if row["source"] in (CRON, HEARTBEAT) and not is_known and not rest.counts.get("clock set"):
            yield f"timers: {row['id']} ({row['dedupe_key']}) was fired, and no run knows of it"
    told = Counter(run["announce"] for run in fired if run["announce"])
    said = [row for row in rest.inputs.values() if row["source"] == "announcement"]
    said = [row for row in said if not row["dedupe_key"].startswith("m_")]  # a message that a tool has sent
    news = {row["id"] for row in said if not row["dedupe_key"].endswith(":alert")}
    if set(told) != news or any(count > 1 for count in told.values()):
        yield f"timers: announced were {sorted(news)}, the runs know of {dict(told)}"
    failed = sum(run["state"] == "failed" for run in fired)
    alerts = [json.loads(row["payload"])["content"] for row in said if row["id"] not in news]
    for text in alerts:
        counted = re.search(r"failed (\d+) times in a row", text)
        if counted is not None and int(counted[1]) > failed:
            yield f"timers: {failed} runs have failed, and an alert says: {text[:80]!r}"


# ── recovery ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _recovery_faults(rest: Rest) -> Iterable[str]:
    """P9: only turns that stood still were asked to end, each by its epoch; no other was ended so; what came of it was
    said once.
    """
    asked: dict[str, dict[str, Any]] = {}
    told: Counter[str] = Counter()
    for event in rest.events:
        if event["kind"] == "session.recovery.requested":
            asked[event["turn"]] = json.loads(event["data"])
        elif event["kind"] == "session.recovery.completed":
            told[event["turn"]] += 1
    for turn, data in asked.items():
        if data["epoch"] != rest.epochs.get(turn):
            yield f"P9: {turn} of epoch {rest.epochs.get(turn)} was asked to end as epoch {data['epoch']}"
        may_stand_still = any(rest.counts.get(what) for what in ("stop", *TROUBLES))  # until its disk obeys again
        if turn not in rest.seen.silent and not may_stand_still:
            yield f"P9: {turn} was asked to end, and its model had not fallen silent"
        if told[turn] != 1 and not rest.counts.get("power loss"):
            yield f"P9: {turn} was asked to end, and what came of it was told {told[turn]} times"
    for turn in rest.turns:
        row = rest.inputs.get(turn["input"] or "")
        is_stalled = row is not None and row["error"] == "TurnStalledError" and row["turn"] == turn["id"]
        if is_stalled and turn["id"] not in asked and not rest.counts.get("power loss"):
            yield f"P9: {turn['id']} was ended by recovery, which had asked {sorted(asked)}"


# ── compaction ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _compaction_faults(rest: Rest) -> Iterable[str]:
    """I8: a summary stands for what is there."""
    for path, lines in rest.lines.items():
        known: set[str] = set()
        for line in lines:
            known.add(str(line.get("id")))
            if (
                line.get("type") == "compaction"
                and line.get("firstKeptEntryId") not in known
                and path not in rest.harmed
            ):
                yield f"I8: {path.name}: {line['id']} keeps from {line.get('firstKeptEntryId')} on, which is not there"


def effects_of(rest: Rest) -> dict[str, int]:
    """How often each way was gone to its end, for a batch to show that it was not idle."""
    kinds: Counter[str] = Counter()
    for lines in rest.lines.values():
        for line in lines:
            if (line.get("holdfast") or {}).get("writer") == "turn":
                kinds[str(line.get("customType") or line.get("type"))] += 1
    runs = Counter(run["timer"] for run in rest.runs if run["state"] == "ok")
    events = Counter(event["kind"] for event in rest.events)
    found = {
        "said again": sum(row["duplicates"] for row in rest.inputs.values()),
        "turn gave way": sum(gave_way(turn) for turn in rest.turns),
        "dropped for another": sum(row["how"] in ("summary", "drop") for row in rest.inputs.values()),
        "interrupted": sum(row["cancel_by"] == INTERRUPTED_BY for row in rest.inputs.values()),
        "cut-off answer kept": kinds["holdfast:partial"],
        "began anew": kinds[RESET_TYPE],
        "stopped by /stop": sum(row["cancel_by"] == "/stop" for row in rest.inputs.values()),
        "compaction": kinds["compaction"],
        "job run": sum(count for timer, count in runs.items() if timer.startswith(CRON)),
        "heartbeat run": sum(count for timer, count in runs.items() if timer.startswith(HEARTBEAT)),
        "turn asked to end": events["session.recovery.requested"],
        "recovery judged": events["session.recovery.completed"],
        **effects_of_tools(rest),
    }
    return {what: number for what, number in found.items() if number}
