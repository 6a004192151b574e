"""Verbs of compaction: somebody asks for one, the provider writes its summary, others want the session meanwhile.

A machine's compaction and a turn's own begin only where a conversation is long enough: such a scenario's session has a
conversation from before, and the model that is asked now has a small window (`prepare`).
"""

from __future__ import annotations

import time
from typing import Any

from holdfast.lane.queue import USER_LANE
from holdfast.testing.incidents.scenario import Incident, ScenarioError
from holdfast.testing.incidents.world import InputName, World

Args = dict[str, Any]
WINDOW = 4_000
"""Tokens; a conversation is shortened past 2,667 between two turns, past 3,000 in one."""
BEFORE_CHARS = {"little": 4_100, "none": 4_800}
"""Of the message from before, which is answered with as many: little room is left, or none."""
SUMMARY = "What was said before, in short."


def _needs(incident: Incident) -> dict[str, str]:
    """By session, how much room is left in it from the start; nothing for those that only users have shortened."""
    turns = {step.args["as"] for step in incident.all_steps if step.verb == "start_turn"}
    needs: dict[str, str] = {}
    for step in incident.all_steps:
        if step.verb == "compaction" and step.args["by"] != "user":
            is_in_turn = step.args["by"] == "preflight" or (
                step.args["by"] in turns and step.args.get("trigger") != "overflow"
            )
            room = "none" if is_in_turn else "little"
            needs.setdefault(step.args["session"], room)
    return needs


async def prepare(world: World, incident: Incident) -> None:
    """The conversation from before, held with a model of a large window."""
    needs = _needs(incident)
    for session, room in needs.items():
        await world.process().do("free", on=True)
        answer = await world.process().do(
            "accept", session=world.key(session), lane=USER_LANE, text="before".ljust(BEFORE_CHARS[room], "."),
            key=f"before {session}", paced=False,
        )  # fmt: skip
        await world.until(lambda of=answer["id"]: settled(world, of), "the conversation from before")
        await world.process().do("free", on=False)
    if needs:
        world.context_window = WINDOW
        await world.process().do("set_window", tokens=WINDOW)


async def compaction(world: World, args: Args) -> None:
    """`start`: it is asked for, and its summary is being written or it stands in line. `end`: the summary is there;
    one that was not asked for yet is, first. Of a turn, and "preflight": the turn does it by itself, so `start` waits
    for that.
    """
    by, phase = args["by"], args["phase"]
    if phase not in ("start", "end"):
        raise ScenarioError(f"unknown phase {phase!r} of a compaction")
    if by in world.turns or by == "preflight":
        await in_turn(world, args)
        return
    name = f"compaction by {by}"
    if name not in world.compactions:
        await ask(world, name, args)
    if phase == "end":
        await end(world, name)


async def ask(world: World, name: str, args: Args) -> None:
    session = args["session"]
    one = InputName(name, session, USER_LANE, "/compact", "G", time.monotonic())
    order = {"session": world.key(session), "key": name}
    if args["by"] == "user":
        answer = await world.process().do("accept", lane=USER_LANE, text="/compact", paced=False, **order)
    else:
        answer = await world.process().do("ask_for_compaction", by=args["by"], **order)
    one.id = answer["id"]
    world.compactions[name] = one

    async def begun_or_in_line() -> bool:
        if await summarising(world, one.id or "") is not None or await settled(world, one.id or ""):
            return True
        rows = await world.ledger("inputs")
        return any(row["state"] == "running" and row["id"] != one.id for row in rows)

    await world.until(begun_or_in_line, f"{name} to begin or to stand in line")


async def settled(world: World, input_id: str) -> bool:
    return any(row["id"] == input_id and row["state"] not in ("queued", "running") for row in await
               world.ledger("inputs"))  # fmt: skip


async def summarising(world: World, input_id: str | None, session: str | None = None) -> str | None:
    """The turn of an input, or any of a session, that has a request for a summary at the provider."""
    key = world.key(session) if session is not None else None
    turns = {row["id"] for row in await world.ledger("turns") if row["input_id"] == input_id or row["session"] == key}
    for process in world.processes.values():
        for turn in await process.do("summarising") if process.alive else []:
            if turn in turns:
                return turn
    return None


async def end_summary(world: World, turn: str) -> None:
    for process in world.processes.values():
        if process.alive and await process.do("stream", turn=turn, order="end", value=SUMMARY):
            return


async def end(world: World, name: str) -> None:
    """The provider has written its summary; if it was stopped meanwhile nobody reads that any more."""
    one = world.compactions[name]

    async def over() -> bool:
        turn = await summarising(world, one.id)
        if turn is not None:
            await end_summary(world, turn)
        if await settled(world, one.id or ""):
            return True
        turns = await world.ledger("turns")
        return any(row["input_id"] == one.id and row["state"] == "settled" for row in turns)  # it gave way

    await world.until(over, f"the end of {name}")


async def in_turn(world: World, args: Args) -> None:
    """Of a turn that shortens its own conversation. Once the turn has ended, what the provider still sends is for
    nobody.
    """
    session, by = args["session"], args["by"]

    async def writes() -> str | None:
        return await summarising(world, None, session)

    async def has_ended() -> bool:
        row = await world.turn(by) if by in world.turns else None
        return row is not None and row["state"] == "settled"

    async def begun() -> bool:
        return await has_ended() or await writes() is not None

    async def over() -> bool:
        turn = await writes()
        if turn is not None and not await has_ended():
            await end_summary(world, turn)
            return False
        return await has_ended() or any(
            row["kind"] == "turn.compaction" and row["data"]["phase"] == "done" for row in world.journal("event")
        )

    await world.until(begun, f"a summary to be asked for by {by}")
    if args["phase"] == "end":
        await world.until(over, f"the end of the compaction by {by}")


async def store_write(world: World, args: Args) -> None:
    """What is kept of a session beside its conversation changes: somebody has seen it, or it is listed no more."""
    session = world.key(args["session"])
    if args["op"] == "touch":
        await world.process().do("mark_read", session=session, by=args["by"])
    elif args["op"] == "expire":
        world.saved[f"{args['session']}.before"] = (await world.transcript(args["session"])).read_bytes()
        await world.process().do("unlist", session=session)
    else:
        raise ScenarioError(f"unknown change of the index {args['op']!r}")
