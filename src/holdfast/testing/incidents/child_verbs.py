"""Verbs of sub-agents: a parent gives a task away, a child comes to its end, and its parent is to hear of that.

The session of a child has a key that the runtime chooses; scenarios call it as they like.
"""

from __future__ import annotations

import time
from typing import Any

from holdfast.inbound.child import LANE
from holdfast.testing.incidents.scenario import ScenarioError
from holdfast.testing.incidents.world import InputName, TurnName, World, WorldError

Args = dict[str, Any]
RESULT = "child_result"
"""What scenarios call the input that brings a child's end to its parent."""
ENDS = {"completed": ("answered",), "taken_over": ("answered", "superseded", "failed")}
UNTOLD_PARENT = "P"


async def spawn_child(world: World, session: str, *, parent: str, turn: str, text: str) -> None:
    """The parent's session gives a task away; the child's first turn has a name from here on."""
    key = world.key(parent)
    made = await world.process().do("spawn", session=key, task=text)
    world.child_keys[session] = made["session"]
    world.inputs[turn] = InputName(turn, session, LANE, text, "G", time.monotonic(), made["input_id"])
    world.turns[turn] = TurnName(turn, turn, 0, "G")


def parent_in(world: World, session: str) -> str:
    """Who gave a child its task: whoever is told to hear of its end later."""
    told = [step.args["parent"] for step in world.ahead
            if step.verb == "child_run_done" and step.args["child"] == session]  # fmt: skip
    return told[0] if told else UNTOLD_PARENT


async def start_child(world: World, args: Args) -> None:
    """A check point, as `start_turn`: the child's turn has begun."""
    name, session = args["as"], args["session"]
    await spawn_child(world, session, parent=parent_in(world, session), turn=name, text=f"task of {session}")
    await world.turn_begun(name)


async def child_run_done(world: World, args: Args) -> None:
    """A child comes to its end, with a text if it is told one; wait until that is an input of its parent."""
    session, outcome = args["child"], args["outcome"]
    if outcome not in ENDS:
        raise ScenarioError(f"a child ends as one of {', '.join(ENDS)}, not {outcome!r}")
    if session not in world.child_keys:
        name = f"run of {session}"
        await spawn_child(world, session, parent=args["parent"], turn=name, text=f"task of {session}")
    turn = next(one for one in world.turns.values() if world.inputs[one.input].session == session)
    row = await world.turn_begun(turn.name)
    if row["state"] != "settled" and outcome == "completed":
        await world.answer(row, args.get("text") or f"{session} is done")

    async def announced() -> dict[str, Any] | None:
        children = await world.ledger("children")
        child = next(one for one in children if one["session"] == world.child_keys[session])
        return child if child["announce_id"] is not None else None

    child = await world.until(announced, f"the end of {session} to be an input of {args['parent']}")
    if child["outcome"] not in ENDS[outcome]:
        raise WorldError(f"{session} ended as {child['outcome']}, not {outcome}: {child['detail']}")
    if child["parent_session"] != world.key(args["parent"]):
        raise WorldError(f"{session} is a child of {child['parent_session']}")
    world.child_ended = (child["ended_at_ms"], time.monotonic())
    world.inputs[RESULT] = InputName(
        RESULT, args["parent"], "subagent", RESULT, "G", time.monotonic(), child["announce_id"]
    )


async def result_handled(world: World, args: Args) -> str | None:
    """`elapsed event=result_handled`: from the child's end to the end of its parent's turn about it."""
    if world.child_ended is None:
        raise ScenarioError("no child has ended")
    input_id = world.input_id(RESULT)
    ends = [row for row in world.journal("event") if row["kind"] == "turn.settled" and row["input"] == input_id]
    if not ends:
        return "its parent never dealt with it"
    at_ms, real_s = world.child_ended
    took_s = max((ends[-1]["at_ms"] - at_ms) / 1000, ends[-1]["real_s"] - real_s)
    return None if took_s <= args["max_s"] else f"its parent dealt with it after {took_s:.1f} s"


async def finish_a_run(world: World, session: str) -> None:
    """A run of a session that has come to its end, silently; what another runtime leaves of its claim stays there."""
    name = f"finished run of {session}"
    one = InputName(name, session, "chat", "an earlier message", "G", time.monotonic())
    world.inputs[name] = one
    answer = await world.process().do(
        "accept", session=world.key(session), lane=one.lane, text=one.text, key=name, paced=False
    )
    one.id = answer["id"]
    world.turns[name] = TurnName(name, name, 0, "G")
    await world.answer(await world.turn_begun(name), "NO_REPLY")

    async def settled() -> bool:
        row = await world.turn(name)
        return row is not None and row["state"] == "settled"

    await world.until(settled, f"the end of the {name}")
