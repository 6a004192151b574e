"""Facts read from the bytes of transcripts, and from the histories that were sent to providers."""

from __future__ import annotations

import json
from typing import Any

from holdfast.session.entries import ANNOUNCEMENT_MODEL
from holdfast.testing.incidents.comparing import Args, counted
from holdfast.testing.incidents.scenario import ScenarioError
from holdfast.testing.incidents.world import World


async def lines_of(world: World, session: str) -> list[dict[str, Any]]:
    """The lines of a transcript that parse, header included."""
    found: list[dict[str, Any]] = []
    for raw in (await world.transcript(session)).read_bytes().split(b"\n"):
        try:
            value = json.loads(raw)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def text_of(line: dict[str, Any]) -> str:
    content = line.get("message", {}).get("content", "")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def matches(line: dict[str, Any], what: str) -> bool:
    """Whether a line is what a scenario calls e.g. "user A", "assistant done", "announce", "failed tool_result".

    Raises:
        ScenarioError: words nobody has given a meaning.
    """
    kind, _, text = what.removeprefix("failed ").partition(" ")
    text = text.removeprefix("text ")
    message = line.get("message", {})
    is_mirror = message.get("model") in ("delivery-mirror", "gateway-injected")
    if kind == "user":
        return message.get("role") == "user" and (not text or text_of(line) == text)
    if kind == "assistant":
        return message.get("role") == "assistant" and not is_mirror and text in text_of(line)
    if kind == "announce":
        is_said = f"{message.get('provider')}/{message.get('model')}" == ANNOUNCEMENT_MODEL
        return (is_mirror or is_said) and text in text_of(line)
    if text == "result" and kind in ("child", "exec"):  # what it said in its own session, or its end in its parent's
        is_end = message.get("role") == "user" and text_of(line).startswith("[Sub-agent ")
        return is_end or (message.get("role") == "assistant" and text_of(line) == what)
    if kind == "heartbeat":
        return message.get("role") == "user" and text_of(line).startswith("Heartbeat at")
    if kind == "tool_result":
        if message.get("role") != "toolResult" or (what.startswith("failed ") and not message.get("isError")):
            return False
        call, _, how = text.partition(" ")
        return (not call or message.get("toolCallId") == call) and how in json.dumps(message).lower()
    if what == "thinking bytes equal to received":
        parts = message.get("content", [])
        return message.get("role") == "assistant" and {
            "type": "thinking", "thinking": "hm", "thinkingSignature": "c2lnbmVk"} in parts  # fmt: skip
    if what in ("model_change", "session_info", "compaction", "thinking_level_change", "custom"):
        return line["type"] == what
    raise ScenarioError(f"unknown kind of record {what!r}")


async def transcript_has(world: World, args: Args) -> str | None:
    what = args["what"]
    lines = await lines_of(world, args["session"])
    if what.startswith("compaction by "):
        what, lines = "compaction", await lines_by(world, args["session"], what.removeprefix("compaction by "))
    if what == "visible text of earlier answers":
        kept = {text_of(line) for line in lines if line.get("message", {}).get("role") == "assistant"}
        told = [row["text"] for row in world.journal("message")]
        lost = [text for text in told if text not in kept and not text.startswith(("This message", "Stopped"))]
        return f"answers that users saw and the transcript lacks: {lost}" if lost else None
    seen = sum(matches(line, what) for line in lines)
    if args.get("where") == "transcript_or_side_record":
        seen = max(seen, sum(what.partition(" ")[2] in text for text in await side_records(world, args["session"])))
    return counted(seen, args if {"count", "min", "max"} & set(args) else {"min": 1}, f"{what} in the transcript")


async def side_records(world: World, session: str) -> list[str]:
    """Lines for people and files beside the transcript that keep what has no place in the conversation."""
    path = await world.transcript(session)
    texts = [one.read_text(errors="replace") for one in path.parent.iterdir() if one != path and one.is_file()]
    return [*texts, *(json.dumps(line) for line in await lines_of(world, session) if line["type"] == "custom")]


async def lines_by(world: World, session: str, turn: str) -> list[dict[str, Any]]:
    """The lines that a turn has written."""
    row = await world.turn(turn)
    if row is None:
        raise ScenarioError(f"turn {turn} never began")
    return [line for line in await lines_of(world, session) if (line.get("holdfast") or {}).get("turn") == row["id"]]


async def transcript_lacks(world: World, args: Args) -> str | None:
    return await transcript_has(world, {**args, "count": 0})


async def transcript_valid(world: World, args: Args) -> str | None:
    data = (await world.transcript(args["session"])).read_bytes()
    if not data.endswith(b"\n"):
        return f"the file ends in {data[-40:]!r}"
    known: set[str] = set()
    for number, raw in enumerate(data[:-1].split(b"\n"), 1):
        try:
            line = json.loads(raw)
        except ValueError:
            return f"line {number} does not parse: {raw[:80]!r}"
        if (line["type"] == "session") != (number == 1):
            return f"line {number} is {'a second header' if number > 1 else 'no header'}"
        if number == 1:
            continue
        if line["id"] in known:
            return f"line {number}: id {line['id']} again"
        if line["parentId"] is not None and line["parentId"] not in known:
            return f"line {number}: parent {line['parentId']} does not exist"
        known.add(line["id"])
    return None


async def branch_reaches(world: World, args: Args) -> str | None:
    if args.get("from", "leaf") != "leaf":
        raise ScenarioError("a walk starts from the leaf")
    lines = [line for line in await lines_of(world, args["session"]) if line["type"] != "session"]
    by_id = {line["id"]: line for line in lines}
    at = lines[-1] if lines else None
    walked = 0
    while at is not None and walked <= len(lines):
        if matches(at, args["to"]):
            return None
        at = by_id.get(at["parentId"]) if at["parentId"] is not None else None
        walked += 1
    return f"{walked} entries walked, no {args['to']}"


async def replay_valid(world: World, args: Args) -> str | None:
    """Every history of the session that went to a provider is one it accepts."""
    key = world.key(args["session"])
    turns = {row["id"] for row in await world.ledger("turns") if row["session"] == key}
    asks = [row for row in world.journal("ask") if row["turn"] in turns]
    if not asks:
        return "nothing was ever sent to a provider"
    written = [part for line in await lines_of(world, args["session"]) for part in _parts(line.get("message", {}))]
    for number, row in enumerate(asks, 1):
        fault = history_fault(row["messages"], [part for part in written if part.get("type") == "thinking"])
        if fault:
            return f"request {number}: {fault}"
    return None


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content", [])
    return content if isinstance(content, list) else []


def history_fault(messages: list[dict[str, Any]], thinking_written: list[dict[str, Any]]) -> str | None:
    """Why a provider would refuse a history, or None."""
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "toolResult":
            if message["toolCallId"] not in open_calls:
                return f"a result without its call: {message['toolCallId']}"
            open_calls.remove(message["toolCallId"])
            continue
        if open_calls:
            return f"calls without results: {open_calls}"
        for part in _parts(message):
            if part.get("type") == "toolCall":
                if not isinstance(part.get("arguments"), dict):
                    return f"a half-written call: {part}"
                open_calls.append(part["id"])
            elif part.get("type") == "thinking":
                if not part.get("thinkingSignature"):
                    return "thinking without a signature"
                if part not in thinking_written:
                    return "thinking that was altered"
    return f"calls without results: {open_calls}" if open_calls else None
