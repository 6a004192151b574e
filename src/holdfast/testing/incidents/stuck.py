"""Verbs of turns that stand still: the watchdog looks, a tool says something or waits for a person, owners that are
dead, sessions that look like each other.

In a scenario in which somebody looks, who lives may be asked to end (`recovery.live_owners = "ask"`): the stricter
setting for those in which nobody is to be touched, and the only one in which anybody may be.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from holdfast.session.key import file_stem
from holdfast.testing.incidents.scenario import Incident, ScenarioError
from holdfast.testing.incidents.world import UNKNOWN_TICKS, Child, World, WorldError

Args = dict[str, Any]
TOOL_LIMIT_S = 600.0
"""What a tool call may take unless the scenario says otherwise: the default of `turn.tool_seconds_max`."""
GHOST = "ghost"
SLOT = "slot"
REAP_S = 1200.0
"""For so long a beat may be watched. It ends once the beat has stood still for 90 s."""


def tool_limit_of(incident: Incident) -> float | None:
    """How long a tool call may take on the world's clock; None where nobody looks for turns that stand still."""
    if not any(step.verb == "watchdog_scan" for step in incident.all_steps):
        return None
    told = [step.args["tool_limit_s"] for step in incident.setup if "tool_limit_s" in step.args]
    return float(told[0]) if told else TOOL_LIMIT_S


def never_returns(incident: Incident) -> bool:
    """Whether a scenario is about a tool call that nothing ends: it tells of a limit of tools, and of no end of one."""
    limited = any("tool_limit_s" in step.args for step in incident.setup)
    return limited and not any(step.verb == "tool_end" for step in incident.all_steps)


async def watchdog_scan(world: World, _: Args) -> None:
    """Every process looks once; while an owner has been asked to end, again each second, until that is judged."""

    async def judged() -> bool:
        asked = [await one.do("look_for_stuck") for one in world.processes.values() if one.alive]
        return not any(asked)

    await world.until(judged, "what came of asking", ticks=UNKNOWN_TICKS)


async def others_answer(world: World) -> None:
    """Before time passes in a world in which somebody looks: a turn of which the scenario says nothing has had its
    answer long ago.
    """
    if world.tool_limit_s is None:
        return

    async def only_named_run() -> bool:
        await world.help_others()
        # What waits is asked before what runs: whatever is begun in between is then seen running.
        queued = [row["session"] for row in await world.ledger("inputs") if row["state"] == "queued"]
        running = {row["id"]: row["session"] for row in await world.ledger("turns") if row["state"] == "running"}
        named = {row["id"] for row in [await world.turn(one) for one in world.turns] if row is not None}
        held = {session for turn, session in running.items() if turn in named}
        return running.keys() <= named and held.issuperset(queued)

    await world.until(only_named_run, "what the scenario does not speak of to be done")


async def tool_progress(world: World, args: Args) -> None:
    """A tool has something to say, and goes on."""
    await at_tool(world, args["id"], "tool_says")


async def at_tool(world: World, call: str, order: str) -> None:
    async def done() -> bool:
        return any([await one.do(order, call=call) for one in world.processes.values() if one.alive])

    await world.until(done, f"tool call {call} to run")


async def leave_ghost(world: World, session: str) -> None:
    """A turn of which nothing lives: a process takes the session and is killed."""
    await world.start(GHOST, apart=True)
    await world.processes[GHOST].do("keep", session=world.key(session))
    await world.processes.pop(GHOST).kill(signal.SIGKILL)


async def reap(world: World, session: str) -> None:
    """A process has a turn open in which nothing happens, and stands still; the turn is closed by recovery, once its
    beat has been watched for the whole term. Then the process goes on, and has its turn in memory as before.
    """
    await world.start(SLOT, apart=True)
    slot = world.processes[SLOT]
    assert isinstance(slot, Child)
    turn = await slot.do("keep", session=world.key(session))
    slot.stand_still()
    del world.processes[SLOT]
    reaping = asyncio.create_task(world.process().do("reap", session=world.key(session), wait_s=REAP_S))
    began_s = world.passed_s
    try:
        while not reaping.done():  # it ends once the beat has stood still; a look takes real time, too
            await world.pass_time(1.0)
        if turn not in await reaping:
            raise WorldError(f"turn {turn} of {session} was not closed")
    finally:
        reaping.cancel()
        slot.go_on()
        world.processes[SLOT] = slot
    await slot.do("advance", seconds=world.passed_s - began_s)
    if turn not in await slot.do("turns_in_memory"):
        raise WorldError(f"turn {turn} of {session} is not in memory any more")


def swap_guards(world: World) -> None:
    """The file that says who owns a transcript becomes another one with the same bytes, while a turn runs: a program
    that copies and renames has done that.
    """
    if not world.swaps_guards:
        return
    world.swaps_guards = False
    for path in [one for one in (world.state / "fence").iterdir() if not one.suffix]:
        copy = path.with_name(f"{path.name}.copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)


async def share_id(world: World, session: str, other: str) -> None:
    """The transcript of a session begins as a copy of another's beginning, id and all, as careless forks leave it."""
    path = await world.transcript(other)
    header = path.read_bytes().splitlines(keepends=True)[0]
    if json.loads(header)["type"] != "session":
        raise ScenarioError(f"the transcript of {other} has no header")
    path.with_name(f"{file_stem(world.key(session))}.jsonl").write_bytes(header)
