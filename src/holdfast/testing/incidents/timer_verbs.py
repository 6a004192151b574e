"""Verbs and facts of timers: a job or a heartbeat is due; the runtime fires it, or says why not."""

from __future__ import annotations

import time
from typing import Any

from holdfast.testing.incidents.comparing import counted
from holdfast.testing.incidents.scenario import ScenarioError
from holdfast.testing.incidents.world import InputName, World

Args = dict[str, Any]
JOB_LIMIT_S = 3600


async def cron_fire(world: World, args: Args) -> None:
    """A job is due, `repeat` times; each time its run is an input, named by the scenario. One that is due again
    and again has ended before that: a job does not overtake itself.
    """
    session, job, repeat = world.key(args["session"]), f"{args['job']}", int(args.get("repeat", 1))
    for number in range(repeat):
        to = f"test:{world.key(heard_in(world, args))}"
        process = world.process(world.home(args))
        at_ms = await process.do("make_job_due", job=job, session=session, to=to, timeout_s=world.job_limit_s)

        async def fired(at_ms: int = at_ms) -> dict[str, Any] | None:
            runs = await world.process().do("timer_runs", timer=f"cron:{job}")
            return next((run for run in runs if run["scheduled_at_ms"] == at_ms), None)

        run = await world.until(fired, f"job {job} to fire")
        name = args["as"] if number == 0 and "as" in args else f"{args.get('as', job)}#{number}"
        await name_input(world, name, args["session"], "cron", run["input_id"])

        async def ended(at_ms: int = at_ms) -> bool:
            await world.help_others()
            runs = await world.process().do("timer_runs", timer=f"cron:{job}")
            return all(run["state"] != "running" for run in runs if run["scheduled_at_ms"] == at_ms)

        if repeat > 1:
            await world.until(ended, f"run {number} of job {job} to end")


async def heartbeat_tick(world: World, args: Args) -> None:
    """The heartbeat of a session is due. It fires, or is put off with a reason and fires later: then its input gets its
    name once it is asked for.
    """
    conversation = heard_in(world, args)
    isolated = world.heartbeat_isolated or conversation != args["session"]
    at_ms = await world.process().do("make_heartbeat_due", session=world.key(conversation),
                                     to=f"test:{world.key(conversation)}", isolated=isolated,
                                     model=world.heartbeat_model)  # fmt: skip

    async def looked_at() -> bool:
        runs = await world.process().do("timer_runs", timer="heartbeat:main")
        return any(max(run["scheduled_at_ms"], run["ended_at_ms"] or 0) >= at_ms for run in runs)

    await world.until(looked_at, "the heartbeat to fire or to be put off")
    await name_input(world, args["as"], args["session"], "heartbeat", None)
    await find_heartbeats(world)


def heard_in(world: World, args: Args) -> str:
    """The conversation that the news of a heartbeat or job are for: where the scenario delivers them, else its own."""
    turns = {step.args.get("as") for step in world.ahead if step.args.get("input") == args.get("as", "")}
    targets = [step.args["target"] for step in world.ahead
               if step.verb == "deliver_ok" and step.args.get("turn") in turns and "target" in step.args]  # fmt: skip
    return targets[0] if targets else args["session"]


async def name_input(world: World, name: str, session: str, lane: str, input_id: str | None) -> None:
    world.inputs[name] = InputName(name, session, lane, name, "G", time.monotonic(), input_id)
    if input_id is not None and name in world.paced:
        await world.pace(input_id)


async def find_heartbeats(world: World) -> None:
    """Give heartbeats that were put off, and have run since, their inputs; ticks put off together are one run."""
    waiting = [one for one in world.inputs.values() if one.lane == "heartbeat" and one.id is None]
    if not waiting:
        return
    runs = await world.process().do("timer_runs", timer="heartbeat:main")
    fired = [run for run in runs if run["input_id"] is not None]
    named = {one.id for one in world.inputs.values()}
    new = [run for run in fired if run["input_id"] not in named]
    for one in waiting if new else ():
        await name_input(world, one.name, one.session, one.lane, new[-1]["input_id"])


async def job_runs(world: World, args: Args) -> str | None:
    runs = await world.process().do("timer_runs", timer=f"cron:{args['job']}")
    return counted(sum(run["state"] != "skipped" for run in runs), args, f"runs of {args['job']}")


async def session_key(world: World, args: Args) -> str | None:
    await find_heartbeats(world)
    input_id = world.input_id(args["input"])
    rows = [row for row in await world.ledger("inputs") if row["id"] == input_id]
    if not rows:
        raise ScenarioError(f"no input {args['input']!r}")
    return None if rows[0]["session"] == world.key(args["is"]) else f"{args['input']} is in {rows[0]['session']}"
