"""The promises, checked from what an outsider can see once everything has come to rest.

Acknowledgements and answers told come from the senders, messages from the platform, the rest from transcripts and from
the ledger, opened as any reader of the files would.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from holdfast.inbound.child import END
from holdfast.lane.states import TERMINAL
from holdfast.session.entries import text_of
from holdfast.session.fence import STRENGTH
from holdfast.testing.simulation.checking_tools import find_broken_tools
from holdfast.testing.simulation.checking_ways import find_broken_ways
from holdfast.testing.simulation.outsider import Edit, Line, transcript_paths, what_lines_say
from holdfast.testing.simulation.people import Arrived
from holdfast.testing.simulation.rest import ANSWERED, Rest, leaves_a_line

ANSWERS_SEVERAL = "\n\n(This answers your last "
"""How the note begins under an answer that was given to several messages (`turn/turn.py`)."""
COUNTS_THAT_DISAGREE = """
select transcript, lane, open, queued from depths where transcript<>'' except
 select transcript, lane, count(*), count(*) filter (where state='queued') from inputs
 where state in ('queued', 'running') group by 1, 2
union all
select '', lane, sum(open), sum(queued) from depths where transcript='' and open<>0 group by 2 except
 select '', lane, count(*), count(*) filter (where state='queued') from inputs
 where state in ('queued', 'running') group by 2
"""


def transcripts_in(root: Path) -> dict[Path, bytes]:
    """Every transcript's bytes."""
    return {path: path.read_bytes() for path in transcript_paths(root)}


def find_broken(connection: sqlite3.Connection, root: Path, rest: Rest, *, fence_mode: str) -> list[str]:
    """Every promise that was broken, in words. Nothing may be running."""
    seen, inputs = rest.seen, rest.inputs
    broken = [*seen.broken, *map(_count_fault, connection.execute(COUNTS_THAT_DISAGREE))]
    for path, data in transcripts_in(root).items():
        broken += unreadable(path, data) if path not in rest.harmed else ()
        broken += _line_faults(path, rest.lines[path], is_harmed=path in rest.harmed)
    for input_id in seen.acknowledged.values():
        if input_id not in inputs:
            broken.append(f"P3: {input_id} was acknowledged and is not known any more")
    for row in inputs.values():
        broken += _input_faults(rest, row)
    broken += _delivery_faults(rest)
    broken += [f"tool call {call} was run {times} times" for call, times in seen.tool_runs.items() if times > 1]
    broken += _fence_faults(rest.turns, rest.edits, fence_mode)
    for child in rest.children:
        broken += _child_faults(child, inputs)
    return [*broken, *find_broken_ways(rest), *find_broken_tools(rest)]


def _count_fault(row: sqlite3.Row) -> str:
    return f"P3: the ledger's counts of open inputs are wrong: {tuple(row)}"


def _child_faults(child: sqlite3.Row, inputs: dict[str, sqlite3.Row]) -> Iterable[str]:
    """I9, I1: a sub-agent's parent has heard of its end, once."""
    told = [row for row in inputs.values() if (row["source"], row["dedupe_key"]) == (END, child["id"])]
    if child["state"] == "open":
        yield f"I9: the end of {child['id']} is still to be told"
    if len(told) != (child["state"] == "announced") or any(row["session"] != child["parent_session"] for row in told):
        yield f"I1: {child['id']} is {child['state']}, its parent was told by {[row['id'] for row in told]}"


def effects_in(connection: sqlite3.Connection) -> dict[str, int]:
    """How often turns were taken over or died, and inputs ended in which state."""
    found = dict(
        connection.execute(
            "select 'input ' || state, count(*) from inputs group by state"
            " union all select 'turn taken over', count(*) from turns where outcome='taken_over'"
            " union all select 'turn died', count(*) from turns where outcome='died'"
            " union all select 'answer kept', count(*) from inputs where state='superseded'"
            " union all select 'sub-agent ' || state, count(*) from children group by state"
        ).fetchall()
    )
    return {what: number for what, number in found.items() if number}


def unreadable(path: Path, data: bytes) -> Iterable[str]:
    """I2: every line parses."""
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        try:
            is_line = isinstance(json.loads(raw), dict)
        except ValueError:
            is_line = False
        if not is_line:
            yield f"I2: {path.name}:{number} does not parse: {raw[:80]!r}"
    if data and not data.endswith(b"\n"):
        yield f"I2: {path.name} ends in the middle of a line"


def _line_faults(path: Path, lines: list[Line], *, is_harmed: bool) -> list[str]:
    """I1, I4, I8: no id twice, epochs of conversation never go down, parents resolve."""
    broken: list[str] = []
    known: set[str] = set()
    highest = 0
    for line in lines:
        if line.get("type") == "session":
            continue
        line_id, parent, origin = line.get("id"), line.get("parentId"), line.get("holdfast") or {}
        if line_id in known:
            broken.append(f"I1: {path.name}: {line_id} stands there twice")
        if parent is not None and parent not in known and not is_harmed:
            broken.append(f"I8: {path.name}: {line_id} hangs off {parent}, which is not there")
        known.add(str(line_id))
        if origin.get("writer") == "turn":
            if origin["epoch"] < highest:
                broken.append(f"I4: {path.name}: {line_id} of epoch {origin['epoch']} stands behind epoch {highest}")
            highest = max(highest, origin["epoch"])
    return broken


def _input_faults(rest: Rest, row: sqlite3.Row) -> Iterable[str]:
    """P2, P3, I5: one terminal state, told once, with one final line that says the same."""
    input_id, state = row["id"], row["state"]
    result = json.loads(row["result"]) if row["result"] else None
    answer = text_of(result["message"]) if result and result.get("message") else None
    finals = rest.answers.get(input_id, [])
    if state not in TERMINAL:
        yield f"P2: {input_id} is still {state}"
    told = rest.seen.told.get(input_id)
    if told is not None and told != (state, answer):
        yield f"P2: {input_id} was told as {told}, the ledger has {(state, answer)}"
    if len(finals) > 1:
        yield f"I1: {input_id} has {len(finals)} final lines: {finals}"
    if rest.file_of(row) in rest.harmed:
        return
    if state in ANSWERED and finals != ([answer] if leaves_a_line(row) else []):
        yield f"P3: {input_id} was {state} with {answer!r}, its final lines say {finals}"
    if state not in ANSWERED and finals:
        yield f"P2: {input_id} is {state} although its final line stands: {finals}"


def _delivery_faults(rest: Rest) -> Iterable[str]:
    """P4, I6, I7: one unlabelled copy, one content, which is the transcript's; everything has come to an end."""
    there = [one for one in rest.seen.arrived if not one.gone and not _stays_behind(rest, one)]
    yield from (f"P4: {one.text!r} is the beginning of an answer, and still there" for one in there if one.preview)
    unlabelled = Counter(one.key for one in there if one.label is None)
    yield from (f"P4: {key} arrived {count} times without a label" for key, count in unlabelled.items() if count > 1)
    rows = {row["id"]: row for row in rest.outbox}
    for one in there:
        row = rows.get(one.key)
        if row is None:
            yield f"I7: {one.text!r} arrived, and the outbox does not know it"
        elif row["body"] != one.text:
            yield f"I6: {one.text!r} arrived, the outbox has {row['body']!r}"
        elif row["part"] == 0 and one.key.startswith("d_") and _is_wrong(rest, rest.inputs[row["input"]], one.text):
            yield f"I7: {one.text!r} arrived, the transcript has {rest.answers.get(row['input'])}"
    yield from (
        f"I9: delivery {row['id']} is still {row['state']}"
        for row in rest.outbox
        if row["state"] not in ("sent", "failed")
    )


def _stays_behind(rest: Rest, beginning: Arrived) -> bool:
    """Whether it begins an answer that could not take its place, and says so: by its label, or as failed."""
    if not beginning.preview:
        return False
    has_label = any(one.key == beginning.key and one.label is not None for one in rest.seen.arrived)
    return has_label or any(row["id"] == beginning.key and row["state"] == "failed" for row in rest.outbox)


def _is_wrong(rest: Rest, row: sqlite3.Row, text: str) -> bool:
    """Whether an answer was delivered that the transcript does not hold."""
    if row["state"] not in ANSWERED or not leaves_a_line(row) or rest.file_of(row) in rest.harmed:
        return False
    return rest.answers.get(row["id"]) != [text.split(ANSWERS_SEVERAL)[0]]


def _fence_faults(turns: list[sqlite3.Row], edits: list[Edit], fence_mode: str) -> Iterable[str]:
    """P5, P6: no takeover that was none, none that was missed."""
    met: dict[str, int] = {}
    for edit in edits:
        if edit.owner is not None:
            met[edit.owner] = max(met.get(edit.owner, 0), STRENGTH[edit.kind])
    for turn in turns:
        kind = (turn["detail"] or "").split(":")[0]
        is_lost = turn["outcome"] == "taken_over" and kind in ("foreign_turn", "tampered")
        if is_lost and met.get(turn["id"], 0) < STRENGTH[kind]:
            yield f"P5: {turn['id']} was lost to {turn['detail']!r}, and nobody had done that"
    passes = 3 if fence_mode == "warn" else 2
    for edit in edits:
        if edit.owner is None or edit.undone or STRENGTH[edit.kind] <= passes or not edit.path.exists():
            continue
        for said, line in what_lines_say(edit.path.read_bytes()).items():
            origin = line.get("holdfast") or {}
            is_new = said not in edit.lines and line.get("id") not in edit.ids
            is_later = is_new and origin.get("turn") == edit.owner and origin.get("writer") == "turn"
            if is_later:
                yield f"P6: {edit.owner} went on with {line['id']} after {edit.how} ({edit.kind})"
