"""What is promised of tools (`ways.py`): nothing runs unasked, calls have results, messages and ends are told once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from holdfast.inbound.child import BACKGROUND_END
from holdfast.session.entries import text_of
from holdfast.testing.simulation.rest import ANSWERED, Rest

_NOTE = re.compile(r"note \d+")


def find_broken_tools(rest: Rest) -> Iterable[str]:
    """Every promise about tools that was broken, in words."""
    yield from _pair_faults(rest)
    if "tools" in rest.ways:
        yield from _approval_faults(rest)
        yield from _message_faults(rest)
        yield from _program_faults(rest)


def _pair_faults(rest: Rest) -> Iterable[str]:
    """Every call of an answered input has one result."""
    answered = {row["id"] for row in rest.inputs.values() if row["state"] in ANSWERED}
    for path, lines in rest.lines.items():
        if path in rest.harmed or path in rest.foreign:
            continue
        said = [line for line in lines if line.get("type") == "message" and line.get("holdfast")]
        results = Counter(line["message"].get("toolCallId") for line in said if line["message"]["role"] == "toolResult")
        for line in said:
            content = line["message"].get("content")
            if line["message"]["role"] != "assistant" or not isinstance(content, list):
                continue
            calls = [part["id"] for part in content if part.get("type") == "toolCall"]
            if answered.intersection(line["holdfast"].get("inputs", ())):
                yield from (f"I8: {path.name}: call {one} has {results[one]} results" for one in calls
                            if results[one] != 1)  # fmt: skip


def _approval_faults(rest: Rest) -> Iterable[str]:
    """What a person is asked about ran after a yes to this very call of this very attempt, and once."""
    used = {(row["turn"], row["epoch_nonce"], row["call"], row["digest"]): row["id"] for row in rest.approvals
            if row["state"] == "used"}  # fmt: skip
    for call in rest.seen.acted:
        question = used.get((call.turn, call.epoch.nonce, call.id, call.digest))
        if question is None:
            yield f"tools: {call.id} of {call.turn} ran, and no question about it was answered and used"
        elif question not in rest.seen.said_yes:
            yield f"tools: {call.id} of {call.turn} ran, and nobody had said yes to {question}"


def _message_faults(rest: Rest) -> Iterable[str]:
    """P4, P3: one unlabelled copy of each; what a call was told to be on its way is in the outbox."""
    notes = [one for one in rest.seen.arrived if _NOTE.fullmatch(one.text) and one.label is None]
    for text, count in Counter(one.text for one in notes).items():
        if count > 1:
            yield f"P4: {text!r} arrived {count} times without a label"
    bodies = Counter(row["body"] for row in rest.outbox)
    for path, lines in rest.lines.items():
        asked = {
            part["id"]: part["arguments"]["text"]
            for line in lines
            if line.get("type") == "message" and isinstance(line["message"].get("content"), list)
            for part in line["message"]["content"]
            if part.get("type") == "toolCall" and part["name"] == "message"
        }
        for line in lines if path not in rest.harmed else ():
            message = line.get("message") or {}
            is_sent = message.get("role") == "toolResult" and text_of(message).startswith("on its way")
            if is_sent and bodies[asked[message["toolCallId"]]] != 1:
                text = asked[message["toolCallId"]]
                yield f"P3: {text!r} was said to be on its way, and is {bodies[text]} times in the outbox"


def _program_faults(rest: Rest) -> Iterable[str]:
    """I1, I9: its session has heard of the end of each program, once."""
    told = Counter(row["dedupe_key"] for row in rest.inputs.values() if row["source"] == BACKGROUND_END)
    for program in rest.programs:
        if program["state"] == "open":
            yield f"I9: the end of {program['id']} is still to be told"
        elif program["state"] == "announced" and told[program["id"]] != 1:
            yield f"I1: the end of {program['id']} was told {told[program['id']]} times"
    for unknown in set(told) - {program["id"] for program in rest.programs}:
        yield f"I1: the end of {unknown} was told, which never began"


def effects_of_tools(rest: Rest) -> dict[str, int]:
    """How often each was gone to its end."""
    states = Counter(row["state"] for row in rest.approvals)
    return {
        "call allowed": states["used"],
        "call denied": states["denied"],
        "nobody answered": states["expired"],
        "note arrived": sum(_NOTE.fullmatch(one.text) is not None for one in rest.seen.arrived),
        "program's end told": sum(row["state"] == "announced" for row in rest.programs),
        "program lost": sum(row["outcome"] == "lost" for row in rest.programs),
    }
