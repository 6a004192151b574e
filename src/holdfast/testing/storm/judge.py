"""After the storm: let everything come to rest, then hold what clients saw and what is on disk against the promises.

`calm` uses Holdfast; `judge` reads the files by other means than Holdfast's own. Read `judge` first.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import holdfast
from holdfast.ids import input_line_id
from holdfast.kernel import Holdfast
from holdfast.session.entries import text_of
from holdfast.testing.linear import NEVER, Operation, check_log
from holdfast.testing.storm import outsider
from holdfast.testing.storm.notes import Note, Notebook, all_notes
from holdfast.testing.storm.victims import Scene, serving
from holdfast.testing.storm.weather import path_of

TERMINAL = {"answered", "steered", "merged", "superseded", "skipped", "cancelled", "failed"}
REST_S_MAX = 300.0
"""Liveness: so long after the last fault nothing may be open any more. It takes two seconds on a quiet machine; the
bound that no machine can excuse is held by the simulation, in virtual time.
"""
EVERYTHING = 1_000_000
NOTICE = "n_"
"""How the id of a delivery begins that tells a sender how things stand, and is no answer."""


# ── coming to rest ───────────────────────────────────────────────────────────────────────────────────────────────────


def calm(scene: Scene) -> dict[str, Any]:
    """Answer and deliver what is open, use every session once more, then recover twice, which may change nothing."""
    began = time.monotonic()
    broken = asyncio.run(_come_to_rest(scene))
    before = _contents(scene)
    for _ in range(2):
        asyncio.run(_recover(scene))
    if _contents(scene) != before:
        broken.append("I10: recovering twice changed what was there")
    return {"seconds": round(time.monotonic() - began, 1), "broken": broken}


async def _come_to_rest(scene: Scene) -> list[str]:
    broken: list[str] = []
    async with scene.open("calm") as hf:
        until = time.monotonic() + REST_S_MAX
        async with serving(hf, scene, Notebook(scene.notes, "calm.0"), random.Random(scene.seed)):
            while open_ones := await _what_is_open(hf):
                if time.monotonic() > until:
                    broken.append(f"I9: {REST_S_MAX:g} s after the last fault there are still open: {open_ones[:5]}")
                    break
                await asyncio.sleep(0.05)
        for view in await hf.sessions():
            async with hf.turn(view.key, wait_s=10) as turn:
                await turn.append(holdfast.user("after the storm"))
    return broken


async def _what_is_open(hf: Holdfast) -> list[str]:
    views = [view for state in ("queued", "running") for view in await hf.inputs(state=state, limit=EVERYTHING)]
    found = [f"input {view.id} of {view.session} is {view.state}: {view.detail}" for view in views]
    deliveries = [one for one in await hf.deliveries(limit=EVERYTHING) if one.state not in ("sent", "failed")]
    return found + [f"delivery {one.id} is {one.state}: {one.detail}" for one in deliveries]


async def _recover(scene: Scene) -> None:
    async with scene.open("calm") as hf:
        await hf.store.recover_dead()


def _contents(scene: Scene) -> dict[str, Any]:
    """What recovery may not change: transcripts byte by byte, inputs and deliveries row by row."""
    found: dict[str, Any] = {str(path): path.read_bytes() for path in _transcripts(scene)}
    for table in ("inputs", "outbox"):
        found[table] = [tuple(row.values()) for row in rows(scene, f"select * from {table} order by seq")]
    return found


# ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────────


def rows(scene: Scene, sql: str) -> list[dict[str, Any]]:
    """Ask the ledger, on a connection that cannot write."""
    connection = sqlite3.connect(f"file:{scene.state / 'ledger.sqlite3'}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def _transcripts(scene: Scene) -> list[Path]:
    return sorted(path for path in (scene.state / "sessions").glob("*/*.jsonl") if ".kept-" not in path.name)


@dataclass(slots=True)
class Evidence:
    """Everything that clients wrote down and everything on disk, read once; and what was found wrong with it."""

    scene: Scene
    calls: list[tuple[Note, Note]]  # (call, result) of those that returned
    events: list[Note]
    inputs: dict[str, dict[str, Any]]
    turns: list[dict[str, Any]]
    outbox: list[dict[str, Any]]
    entries: dict[str, list[dict[str, Any]]]  # by session, lines that parse, without the header
    session_of: dict[str, str]  # by transcript
    broken: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def results(self, what: str) -> Iterable[tuple[Note, Note]]:
        return (pair for pair in self.calls if pair[1].what == what)

    def require(self, holds: bool, promise: str, words: str) -> None:
        if not holds:
            self.broken.append(f"{promise}: {words}")


def gather(scene: Scene) -> Evidence:
    calls: list[tuple[Note, Note]] = []
    events: list[Note] = []
    for notes in all_notes(scene.notes):
        begun = {note.number: note for note in notes if note.kind == "call"}
        calls += [(begun[note.number], note) for note in notes if note.kind == "result"]
        events += [note for note in notes if note.kind == "event"]
    found = Evidence(
        scene, calls, events,
        inputs={row["id"]: row for row in rows(scene, "select * from inputs order by seq")},
        turns=rows(scene, "select * from turns"), outbox=rows(scene, "select * from outbox order by seq"),
        entries={}, session_of={row["transcript"]: row["key"] for row in rows(scene, "select * from sessions")},
    )  # fmt: skip
    for session in scene.sessions:
        path = path_of(scene, session)
        if path.exists():
            found.entries[session] = _read(found, session, path)
    return found


def _read(found: Evidence, session: str, path: Path) -> list[dict[str, Any]]:
    """I2: every line parses, apart from those an outsider left torn; one header, at the beginning."""
    *raws, tail = path.read_bytes().split(b"\n")
    found.require(tail == b"", "P3 I2", f"{session}: the file ends in the middle of a line: {tail[:80]!r}")
    entries: list[dict[str, Any]] = []
    for number, raw in enumerate(raws, 1):
        try:
            entries.append(json.loads(raw))
        except ValueError:
            allowed = session not in found.scene.clean and raw.startswith(outsider.TORN)
            found.require(allowed, "P3 I2", f"{session}: line {number} does not parse: {raw[:80]!r}")
    headers = [number for number, entry in enumerate(entries) if entry.get("type") == "session"]
    found.require(headers == [0], "P6 I2", f"{session}: headers at lines {headers}")
    found.seen["lines"] += len(entries) - 1
    return entries[1:]


# ── the judgement ────────────────────────────────────────────────────────────────────────────────────────────────────


def judge(scene: Scene) -> dict[str, Any]:
    """Every check, each adding what it finds to `broken`, with the promise (DESIGN §1) it breaks."""
    found = gather(scene)
    for check in (
        check_transcripts, check_acknowledged, check_ends, check_answers_told, check_deliveries, check_tools,
        check_false_takeovers, check_missed_takeovers, check_histories,
    ):  # fmt: skip
        check(found)
    return {"broken": found.broken[:50], "seen": dict(found.seen), "tried": tried(found)}


def origin_of(entry: dict[str, Any]) -> dict[str, Any]:
    return entry.get("holdfast") or {}


def epoch_of(entry: dict[str, Any]) -> int:
    """The epoch of a line of conversation; 0 for metadata and for what others wrote."""
    origin = origin_of(entry)
    return origin.get("epoch", 0) if origin.get("writer") == "turn" else 0


def check_transcripts(found: Evidence) -> None:
    """I1: no id twice. I4: epochs never go down. I8: parents resolve, in clean sessions to the line before."""
    for session, entries in found.entries.items():
        known: set[str | None] = {None}
        epoch, before = 0, None
        for entry in entries:
            found.require(entry["id"] not in known, "P3 I1", f"{session}: {entry['id']} stands twice")
            parent = entry.get("parentId")
            if session in found.scene.clean:
                found.require(parent == before, "P1 I8", f"{session}: {entry['id']} hangs off {parent}, not {before}")
            elif origin_of(entry):
                found.require(
                    parent in known, "P1 I8", f"{session}: {entry['id']} hangs off {parent}, which is unknown"
                )
            known.add(entry["id"])
            before = entry["id"]
            if epoch_of(entry):
                found.require(
                    epoch_of(entry) >= epoch,
                    "P1 I4",
                    f"{session}: {entry['id']} of epoch {epoch_of(entry)} after {epoch}",
                )
                epoch = max(epoch, epoch_of(entry))


def check_acknowledged(found: Evidence) -> None:
    """I1: what a client was told is stored or written is there, once; the same key is the same input."""
    by_key: dict[str, set[str]] = defaultdict(set)
    for what in ("accept", "send"):
        for call, result in found.results(what):
            input_id = result.facts.get("id")
            if input_id is None:
                continue
            found.seen["acknowledged"] += 1
            by_key[call.facts["key"]].add(input_id)
            row = found.inputs.get(input_id)
            found.require(row is not None, "P3 I1", f"{input_id} was acknowledged and is gone")
            if row is not None:
                said = json.loads(row["payload"])["content"]
                said = said if isinstance(said, str) else "".join(part["text"] for part in said)
                found.require(
                    said == call.facts["text"], "P3 I1", f"{input_id} was {call.facts['text']!r}, is {said!r}"
                )
    for key, ids in by_key.items():
        found.require(len(ids) == 1, "P3 I1", f"{key} was accepted as {sorted(ids)}")
    lines = {session: Counter(entry["id"] for entry in entries) for session, entries in found.entries.items()}
    for what in ("append", "metadata"):
        for _, result in found.results(what):
            session, line = result.facts["session"], result.facts.get("line")
            if line is not None and session not in found.scene.replaced:
                found.seen["lines told"] += 1
                there = lines.get(session, Counter())[line]
                found.require(there == 1, "P3 I1", f"{session}: {line} was written and stands there {there} times")


def check_ends(found: Evidence) -> None:
    """I5: each input ended, in one state, with its reason; its own line stands once, its final line if answered."""
    finals: Counter[str] = Counter()
    own_lines: Counter[str] = Counter()
    place: dict[str, int] = {}
    for session, entries in found.entries.items():
        for number, entry in enumerate(entries):
            own_lines[entry["id"]] += 1
            place[entry["id"]] = number
            if origin_of(entry).get("final"):
                for input_id in origin_of(entry).get("inputs", ()):  # none: a library turn
                    finals[input_id] += 1
                    row = found.inputs.get(input_id)
                    has_answer = row is not None and row["state"] in ("answered", "superseded")
                    told = text_of(json.loads(row["result"])["message"]) if row is not None and has_answer else None
                    found.require(
                        told == text_of(entry["message"]),
                        "P3 I6",
                        f"{session}: {input_id} was answered {text_of(entry['message'])!r}, the ledger has {told!r}",
                    )
    for input_id, row in found.inputs.items():
        found.seen[f"input {row['state']}"] += 1
        found.require(row["state"] in TERMINAL, "P2 I5", f"{input_id} is {row['state']}")
        found.require(row["state"] != "failed" or bool(row["detail"]), "P2 I5", f"{input_id} failed without a reason")
        is_answered = row["state"] == "answered"
        if row["session"] in found.scene.replaced:
            continue
        # An answer that slipped in behind a foreign line is kept and delivered as superseded, and stands there too.
        slipped = row["state"] == "superseded" and row["session"] in found.scene.edited
        found.require(
            finals[input_id] == int(is_answered) or (slipped and finals[input_id] == 1),
            "P3 I1" if finals[input_id] < int(is_answered) else "P2 I5",
            f"{input_id} is {row['state']} and has {finals[input_id]} final lines",
        )
        own = own_lines[input_line_id(input_id)]
        found.require(
            own == 1 or (own == 0 and not is_answered),
            "P3 I1",
            f"the line of {input_id} ({row['state']}) stands {own} times",
        )
    check_order(found, place)


def check_order(found: Evidence, place: dict[str, int]) -> None:
    """I8: in each session the inputs' lines stand in the order in which they were accepted."""
    for session in found.scene.clean:
        order = [
            (row["seq"], place[input_line_id(input_id)])
            for input_id, row in found.inputs.items()
            if row["session"] == session and input_line_id(input_id) in place
        ]
        swapped = [(a, b) for a, b in pairwise(order) if a[1] > b[1]]
        found.require(not swapped, "P2 I8", f"{session}: inputs out of order (number, line): {swapped[:3]}")


def check_answers_told(found: Evidence) -> None:
    """I1 and P2: an end that a client was told of is the end; the answer is to its own message."""
    told = [(note.facts, note.facts["key"]) for note in found.events if note.what == "answered"]
    told += [(result.facts, call.facts["key"]) for call, result in found.results("send") if result.facts.get("state")]
    for facts, key in told:
        row = found.inputs.get(facts["id"])
        if row is None or facts["state"] in ("queued", "running"):
            continue
        found.seen["ends told"] += 1
        found.require(
            row["state"] == facts["state"], "P2 I5", f"{facts['id']} was told to be {facts['state']}, is {row['state']}"
        )
        if facts["state"] == "answered":
            now = text_of(json.loads(row["result"])["message"])
            found.require(
                now == facts["answer"], "P3 I1", f"{facts['id']}: the answer was {facts['answer']!r}, is {now!r}"
            )
            found.require(f"message {key}." in now, "P1", f"{facts['id']}: the message {key} was answered with {now!r}")


def check_deliveries(found: Evidence) -> None:
    """I6, I7 and P4, as the receiving side has seen it."""
    by_id = {row["id"]: row for row in found.outbox}
    arrived: Counter[str] = Counter()
    for channel in found.scene.channels():
        unlabelled: Counter[str] = Counter()
        for one in channel.received:
            arrived[one.delivery_id] += 1
            found.seen["arrived"] += 1
            found.seen["arrived labelled"] += one.label is not None
            unlabelled[one.delivery_id] += one.label is None
            row = by_id.get(one.delivery_id)
            found.require(row is not None, "P4 I7", f"{one.delivery_id} arrived and nobody knows of it")
            if row is not None:
                found.require(one.text == row["body"], "P4 I6", f"{one.delivery_id} arrived as {one.text!r}")
        twice = [key for key, count in unlabelled.items() if count > 1]
        found.require(not twice, "P4 I6", f"{channel.name}: arrived twice without a label: {twice[:5]}")
    answers = [row for row in found.outbox if not row["id"].startswith(NOTICE)]
    parts = Counter((row["input"], row["part"]) for row in answers)
    for (input_id, part), count in parts.items():
        found.require(count == 1, "P4 I6", f"part {part} of {input_id} is delivered {count} times")
    for row in found.outbox:
        found.require(row["state"] in ("sent", "failed"), "P4 I9", f"{row['id']} is {row['state']}")
        lost = row["state"] == "sent" and not arrived[row["id"]]
        found.require(not lost, "P3 I7", f"{row['id']} is called sent and never arrived")
        source = found.inputs.get(row["input"])
        found.require(source is not None, "P3 I1", f"{row['id']} delivers an answer to {row['input']}, which is gone")
        if source is not None and source["state"] == "answered" and not row["id"].startswith(NOTICE):
            answer = text_of(json.loads(source["result"])["message"])
            found.require(row["body"] == answer, "P4 I6", f"{row['id']} says {row['body']!r}, the answer is {answer!r}")
    delivered = {row["input"] for row in answers}
    for input_id, row in found.inputs.items():
        if row["route_channel"] and row["state"] == "answered":
            found.require(
                input_id in delivered, "P3", f"{input_id} is answered and its answer was never to be delivered"
            )


def check_tools(found: Evidence) -> None:
    """A tool that is not marked restart-safe runs once per call, whoever died meanwhile."""
    runs = Counter(note.facts["call"] for note in found.events if note.what == "tool")
    found.seen["tools run"] = len(runs)
    twice = [call for call, count in runs.items() if count > 1]
    found.require(not twice, "P2", f"tool calls that ran twice: {twice[:5]}")


def check_false_takeovers(found: Evidence) -> None:
    """P5: where only we have written, nobody is ever taken for an intruder."""
    clean = set(found.scene.clean)
    for note in found.events:
        if note.what == "lost":
            found.seen[f"lost {note.facts['verdict']}"] += 1
            is_false = note.facts["session"] in clean and note.facts["verdict"] != "superseded"
            found.require(
                not is_false,
                "P5",
                f"{note.client} in {note.facts['session']}: {note.facts['verdict']}: {note.facts['detail']}",
            )
    for turn in found.turns:
        found.seen[f"turn {turn['outcome']}"] += 1
        if found.session_of[turn["transcript"]] in clean:
            found.seen["turns undisturbed"] += 1
            is_false = turn["outcome"] == "taken_over" and not (turn["detail"] or "").startswith("superseded")
            found.require(not is_false, "P5", f"{turn['id']} in {turn['session']}: {turn['detail']}")


def check_missed_takeovers(found: Evidence) -> None:
    """P6: behind a foreign message no turn goes on that had begun before it. One line may slip in at the very instant
    of the foreign one; its turn then knows, and writes nothing more.
    """
    foreign = {
        result.facts["line"]: call.at_ns
        for call, result in found.results("edit")
        if result.facts["name"] in outsider.CONVERSATION and result.facts["line"]
    }
    for _, result in found.results("edit"):
        found.seen[f"edit {result.facts['name']}"] += 1
    began = {
        (result.facts["session"], result.facts["epoch"]): result.at_ns
        for _, result in found.results("take")
        if result.facts.get("epoch")
    }
    outcome = {(found.session_of[turn["transcript"]], turn["epoch_number"]): turn["outcome"] for turn in found.turns}
    for session in found.scene.edited:
        entries = found.entries.get(session, [])
        for at, entry in enumerate(entries):
            if entry["id"] not in foreign:
                continue
            found.seen["foreign messages"] += 1
            before = {epoch_of(one) for one in entries[:at]}
            after = Counter(epoch_of(one) for one in entries[at + 1 : at + 200] if epoch_of(one))
            for epoch, lines in after.items():
                had_begun = epoch in before or began.get((session, epoch), NEVER) < foreign[entry["id"]]
                if not had_begun:
                    continue
                found.seen["slipped in"] += 1
                ended = outcome.get((session, epoch))
                went_on = lines > 1 or ended in ("answered", "done")
                found.require(
                    not went_on,
                    "P6",
                    f"{session}: epoch {epoch} wrote {lines} lines behind {entry['id']}, then {ended}",
                )


def check_histories(found: Evidence) -> None:
    """I3 and I11: what clients saw of each session is explained by one order of takes, appends and reads."""
    histories: dict[str, list[Operation]] = defaultdict(list)
    for call, result in found.calls:
        session = result.facts.get("session")
        operation = operation_of(call, result)
        if session in found.scene.clean and operation is not None:
            histories[session].append(operation)
            found.seen[f"op {operation.name}{' refused' if operation.result is False else ''}"] += 1
    for session, history in histories.items():
        lines = [(entry["id"], epoch_of(entry)) for entry in found.entries.get(session, [])]
        checked = check_log(lines, history)
        found.seen["histories"] += 1
        found.seen["history steps"] += checked.steps
        found.require(
            checked.finding == "linearizable", "P1 I11", f"{session}: {checked.finding}, stuck at {checked.stuck[:4]}"
        )


def operation_of(call: Note, result: Note) -> Operation | None:
    """What a pair of notes says about (epoch, log); None if nothing."""
    facts = result.facts
    at = (call.client, float(call.at_ns), float(result.at_ns))
    if result.what == "take" and facts.get("epoch"):
        return Operation(*at, "take", result=facts["epoch"])
    if result.what == "append" and facts.get("line"):
        return Operation(*at, "append", (facts["epoch"], facts["line"]), True)
    if result.what == "append":
        return Operation(*at, "append", (facts["epoch"], f"refused {call.client} {call.number}"), False)
    if result.what == "metadata" and facts.get("line"):
        return Operation(*at, "append", (0, facts["line"]), True)
    if result.what == "read":
        return Operation(*at, "read", result=facts["length"])
    return None


def tried(found: Evidence) -> dict[str, str]:
    """Per promise, what was tried, in words with counts."""
    seen = found.seen
    ends = sum(count for name, count in seen.items() if name.startswith("input "))
    return {
        "P1": f"{seen['op take']} takes, {seen['op append']} appends, {seen['op append refused']} refused, "
        f"{seen['op read']} reads in {seen['histories']} histories",
        "P2": f"{ends} inputs, {seen['ends told']} ends told",
        "P3": f"{seen['acknowledged']} inputs acknowledged, {seen['lines told']} lines told, {seen['lines']} lines",
        "P4": f"{seen['arrived']} messages arrived, {seen['arrived labelled']} of them labelled",
        "P5": f"{seen['turns undisturbed']} turns among ourselves",
        "P6": f"{sum(n for name, n in seen.items() if name.startswith('edit '))} edits, "
        f"{seen['foreign messages']} foreign messages",
        "P9": f"{seen['turn died']} turns died and were closed, recovery repeated twice",
    }
