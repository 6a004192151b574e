"""Replaying a file of incidents: one world and one result per scenario.

for result in replay(Path("incidents.json")):
    print(result.line())
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec

from holdfast.testing.incidents import commands, compacting, conversing, facts, stuck, verbs, words
from holdfast.testing.incidents.rows import Databases, server_of
from holdfast.testing.incidents.scenario import Incident, ScenarioError, Step, load_incidents
from holdfast.testing.incidents.world import ProcessGoneError, Rig, World, WorldError

BACKENDS = ("embedded", "postgres")
SCENARIO_MAX_S = 120.0
SWEEP_POINTS_MAX = 200
ENDS_A_PROCESS = {"kill", "process_start", "block_loop"}
DECIDES_A_SEND = {"deliver_begin", "deliver_ok", "deliver_fail", "deliver_unknown"}

Status = Literal["passed", "failed", "waiting", "not_applicable"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scenario.

    Args:
        facts_checked: how many facts were read; up to and with the first that did not hold.
        first_failed: that fact, or the step that did not come about; `seen`: what was there instead.
        reason: of `waiting` (the feature that is missing) and of `not_applicable`.
    """

    id: str
    family: str
    status: Status
    facts_checked: int = 0
    first_failed: str | None = None
    seen: str | None = None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def line(self) -> str:
        """One JSON object on one line."""
        return msgspec.json.encode({**msgspec.to_builtins(self), "passed": self.passed}).decode()


def replay(
    path: Path, ids: Sequence[str] | None = None, *, backend: str = "embedded", server: str | None = None
) -> Iterator[Result]:
    """Run the scenarios of a file, in its order, each in a folder of its own that is removed afterwards.

    Args:
        ids: only these; None: all.
        backend: "embedded", or "postgres": each in a database of its own that is dropped afterwards.
        server: of "postgres": where to make databases; None: `HOLDFAST_TEST_POSTGRES_URL`, else one from pip.

    Raises:
        ScenarioError: an unknown verb, fact, word or id. Must not be called from a running event loop.
    """
    if backend not in BACKENDS:
        raise ScenarioError(f"unknown backend {backend!r}; there are: {', '.join(BACKENDS)}")
    incidents = load_incidents(path)
    unknown = sorted(set(ids or ()) - {incident.id for incident in incidents})
    if unknown:
        raise ScenarioError(f"{path} has no incident {', '.join(unknown)}")
    wanted = [incident for incident in incidents if ids is None or incident.id in ids]
    if backend == "embedded":
        for incident in wanted:
            yield replay_one(incident)
        return
    with server_of(server) as url:
        databases = Databases(url)
        try:
            for incident in wanted:
                yield replay_one(incident, databases=databases)
        finally:
            databases.close()


def why_not_run(incident: Incident, *, on_rows: bool = False) -> tuple[Status, str] | None:
    """("not_applicable", the reason) or ("waiting", the feature); None: it runs."""
    steps = [(step.verb, step.args) for step in incident.all_steps]
    expected = [(one.fact, one.args) for one in incident.expected]
    reason = words.why_not_applicable(steps)
    if reason is None and on_rows:
        reason = words.why_not_on_rows(steps, expected)
    if reason is not None:
        return "not_applicable", reason
    feature = words.missing_feature(steps, expected)
    return None if feature is None else ("waiting", feature)


def replay_one(incident: Incident, *, databases: Databases | None = None, rig: Rig | None = None) -> Result:
    """Run one scenario, with `databases` on PostgreSQL; with a `rig`, the runner is under test. Raises ScenarioError as
    `replay`.
    """
    not_run = why_not_run(incident, on_rows=databases is not None)
    if not_run is not None:
        return Result(incident.id, incident.family, not_run[0], reason=not_run[1])
    rig = replace(rig or Rig(), databases=databases)
    with tempfile.TemporaryDirectory(prefix="incident-") as folder:
        return asyncio.run(_sweep(incident, Path(folder), rig))


async def _sweep(incident: Incident, folder: Path, rig: Rig) -> Result:
    """Once, or once per point at which a process may die until it no longer does."""
    if not any("sweep" in step.args for step in incident.steps):
        return (await _run(incident, folder, 0, rig))[0]
    checked = 0
    for nth in range(1, SWEEP_POINTS_MAX):
        result, died = await _run(incident, folder / f"{nth}", nth, rig)
        checked += result.facts_checked
        if not result.passed:
            return replace(result, facts_checked=checked, seen=f"point {nth}: {result.seen}")
        if not died:
            return Result(incident.id, incident.family, "passed", checked)
    raise ScenarioError(f"{incident.id}: more than {SWEEP_POINTS_MAX} points")


async def _run(incident: Incident, folder: Path, kill_nth: int, rig: Rig) -> tuple[Result, bool]:
    """The result, and whether a process died at the point of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    if rig.databases is None:
        return await _run_in(make_world(incident, folder, kill_nth), incident, rig)
    with rig.databases.fresh() as database:
        world = make_world(incident, folder, kill_nth)
        world.database = database
        return await _run_in(world, incident, rig)


async def _run_in(world: World, incident: Incident, rig: Rig) -> tuple[Result, bool]:
    world.rig = rig
    live = _Progress()
    failed: str | None = None
    try:
        async with asyncio.timeout(SCENARIO_MAX_S):
            failed = await _live(world, incident, live)
    except WorldError as wrong:
        failed = str(wrong)
    except ProcessGoneError:
        failed = "a process died that nobody killed"
    except TimeoutError:
        failed = f"not within {SCENARIO_MAX_S:g} s"
    finally:
        await world.close()
    if failed is None:
        return Result(incident.id, incident.family, "passed", live.checked), world.died_at_point
    return Result(incident.id, incident.family, "failed", live.checked, live.doing, failed), world.died_at_point


@dataclass(slots=True)
class _Progress:
    doing: str = "the start"
    checked: int = 0


async def _live(world: World, incident: Incident, live: _Progress) -> str | None:
    """All steps, then the rest of the world to its end, then the facts. What was seen at the first that fails."""
    if incident.all_steps[0].verb not in ("process_start", "repair_command"):
        await world.start(first_process(incident))
    if any(step.args.get("when") == "slow preparation" for step in incident.steps):
        await world.process().do("prepare_slowly")
    await compacting.prepare(world, incident)
    groups = _at_once(_with_plans(incident))
    for number, group in enumerate(groups, 1):
        world.ahead = tuple(step for later in groups[number:] for step in later)
        live.doing = " / ".join(f"{step.verb} {step.args}" for step in group)
        await asyncio.gather(*(verbs.perform(world, step) for step in group))
    live.doing = "the end"
    if any(process.alive for process in world.processes.values()):
        await verbs.await_idle(world, {"_last": True})
    for expectation in incident.expected:
        live.doing = str(expectation)
        live.checked += 1
        seen = await facts.check(world, expectation)
        if seen is not None:
            return seen
    return None


def make_world(incident: Incident, folder: Path, kill_nth: int) -> World:
    """What can be known of a world before the first step: whether somebody dies in it, which sends are decided."""
    steps = incident.all_steps
    world = World(folder, in_processes=any(step.verb in ENDS_A_PROCESS for step in steps), kill_nth=kill_nth)
    inputs = {step.args["as"]: step.args.get("input", step.args["as"]) for step in steps if step.verb == "start_turn"}
    decided = [step.args["turn"] for step in steps if step.verb in DECIDES_A_SEND]
    for turn in decided:
        if turn not in inputs:
            raise ScenarioError(f"{incident.id}: no turn is called {turn!r}")
    world.paced = frozenset(inputs[turn] for turn in decided)
    if any(step.verb == "lock_leave" for step in steps):
        world.lock_protocol = "openclaw"
    world.in_processes |= any(step.verb == "corrupt" and step.args["file"] == "index" for step in steps)
    world.tool_limit_s = stuck.tool_limit_of(incident)
    world.deaf_tool = stuck.never_returns(incident)
    world.in_processes |= any(step.args.get("ghost") for step in steps)
    world.holds_locks = any(step.verb == "lock_hold" for step in steps)
    facts_asked = [(one.fact, one.args) for one in incident.expected]
    world.by_people = commands.are_run_by_people([one.verb for one in steps], facts_asked, [one.args for one in steps])
    for step in incident.setup:
        if "models" in step.args:
            world.models = models_of(step.args["models"])
        if "heartbeat_isolated" in step.args:
            world.heartbeat_isolated = bool(step.args["heartbeat_isolated"])
        if "heartbeat_model" in step.args:
            world.heartbeat_model = f"{step.args['heartbeat_model']}/model"
        if "job_limit_s" in step.args:
            world.job_limit_s = int(step.args["job_limit_s"])
        world.swaps_guards |= bool(step.args.get("guard_swapped_during_turn"))
        if "queue_cap" in step.args:
            world.per_session_max = int(step.args["queue_cap"])
    if any(words.holds_for_hours(step.verb, step.args) for step in steps):
        world.acquire_timeout_ms = 60_000 // verbs.REAL_PACE
    if any("|" in step.args.get("text", "") for step in steps if step.verb == "model_stream_end"):
        world.text_max = conversing.TEXT_MAX_OF_PARTS
    return world


def first_process(incident: Incident) -> str:
    """The name of the gateway that runs from the start: G, or the one whose start is not told."""
    told = {step.args["name"] for step in incident.all_steps if step.verb == "process_start"}
    named = [str(step.args["process"]) for step in incident.all_steps if "process" in step.args]
    return next((name for name in named if name not in told and name != "worker"), "G")


def models_of(value: str) -> tuple[str, ...]:
    """ "primary,second", or a number in words."""
    if value == "six":
        return ("primary", "second", "third", "fourth", "fifth", "sixth")
    return tuple(value.split(","))


def _with_plans(incident: Incident) -> list[Step]:
    """The steps; what the next step happens in the middle of is told of it.

    An input that the disk is to refuse is handed over only once the refusal is in place.
    """
    steps = list(incident.all_steps)
    for at, (step, following) in enumerate(pairwise(incident.all_steps)):
        refuses = following.args.get("op")
        if step.verb == "inbound_raw" and refuses == "spool_write":
            steps[at] = Step(step.verb, {**step.args, "_later": True})
        if step.verb == "model_stream_end" and following.verb == "block_loop":
            steps[at] = Step(step.verb, {**step.args, "_stops": True})
    return steps


def _at_once(steps: list[Step]) -> list[list[Step]]:
    """Steps in order; neighbours with the same `at` happen together."""
    groups: list[list[Step]] = []
    for step in steps:
        at: Any = step.args.get("at")
        if at is not None and groups and groups[-1][0].args.get("at") == at:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups
