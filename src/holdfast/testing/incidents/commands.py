"""Holdfast as people start it: `holdfast up` in a process of its own, and commands that are typed beside it.

Where a scenario is about what a command says, or about two gateways on one address, nothing stands in for them: the
program itself is run, with an environment of its own, and its exit code and words are what the facts read.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from holdfast.testing.incidents.scenario import ScenarioError
from holdfast.testing.incidents.world import Said, World, WorldError

COMMAND_S_MAX = 30.0
VIEWS = {"inputs": "inputs", "turns": "turns", "deliveries": "outbox", "sessions": "sessions"}
"""What a world asks of a process, and the command that shows it."""


async def run_command(world: World, state: str, *words: str) -> Said:
    """Run a command on a state to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", "--state", state, *words, env=_environment(world),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_S_MAX)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise WorldError(f"`holdfast {' '.join(words)}` did not end") from None
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


def _environment(world: World) -> dict[str, str]:
    """That of this process without variables of ours; one configured address for all of a world."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return {
        **kept, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(world.folder),
        "HOLDFAST_GATEWAY_PORT": str(port_of(world)),
    }  # fmt: skip


def port_of(world: World) -> int:
    """The port that all gateways of a world are configured for; a free one is chosen at first."""
    if world.port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            world.port = int(free.getsockname()[1])
    return world.port


class RealGateway:
    """`holdfast up` on a state. What its world asks of it is asked by commands, as people would."""

    def __init__(self, world: World, state: str, process: asyncio.subprocess.Process) -> None:
        self._world = world
        self._state = state
        self._process = process

    @classmethod
    async def start(cls, world: World, name: str, state: str) -> RealGateway | None:
        """Start it and wait until it serves; None if it ended instead: the world keeps what it said and its code."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "holdfast", "--state", state, "up", env=_environment(world),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        gateway = cls(world, state, process)
        try:
            async with asyncio.timeout(COMMAND_S_MAX):
                while line := await process.stdout.readline():
                    if b"ready at" in line:
                        return gateway
                out, err = await process.communicate()
        except TimeoutError:
            await gateway.kill(signal.SIGKILL)
            raise WorldError(f"`holdfast up` as {name} neither served nor ended") from None
        assert process.returncode is not None
        world.commands[name] = Said(process.returncode, out.decode(), err.decode())
        world.exit_codes[name] = process.returncode
        return None

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def do(self, order: str, /, **args: Any) -> Any:
        """What a world wants to see, from the command that shows it. Model, tools and clock are its own."""
        if order in VIEWS:
            said = await run_command(self._world, self._state, VIEWS[order], "--json")
            return json.loads(said.out)
        if order == "accept":
            said = await run_command(self._world, self._state, "send", args["session"], args["text"], "--json")
            return {"id": json.loads(said.out)["id"]} if said.code == 0 else {"refused": "send", "text": said.err}
        if order == "children":
            return []  # the demo model gives no tasks away
        if order in ("free", "advance"):
            return None
        raise ScenarioError(f"a gateway that is run as people run it takes no order {order!r}")

    async def stop(self, drain_s: float) -> int:  # noqa: ARG002  # it drains as its configuration says
        return await self._end(signal.SIGTERM)

    async def kill(self, number: int) -> None:
        await self._end(number)

    async def _end(self, number: int) -> int:
        if self.alive:
            self._process.send_signal(number)
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode


# ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def are_run_by_people(verbs: list[str], facts: list[tuple[str, dict[str, Any]]], args: list[dict[str, Any]]) -> bool:
    """Whether the gateways of a scenario are to be real ones: a command is typed in a place of its own, or two
    supervisors start the same gateway.
    """
    typed = any(verb == "repair_command" and "by" in of for verb, of in zip(verbs, args, strict=True))
    return typed or any(fact == "second_owner_refused" and of.get("by") == "directory_lease" for fact, of in facts)


async def start_by_people(world: World, name: str, kind: str) -> None:
    """A supervisor starts a gateway; or a person opens a shell, with a state in which something was said once."""
    state = world.state_of(name)
    if kind == "gateway":
        gateway = await RealGateway.start(world, name, state)
        if gateway is not None:
            world.processes[name] = gateway
        return
    said = await run_command(world, state, "send", world.key("elsewhere"), "hello")
    if said.code:
        raise WorldError(f"nothing can be said in {state}: {said.err}")


REPAIRS = {
    "reset": ("reset", ["recover", "--release"]),
    "cleanup_preview": ("cleanup", ["recover", "--dry-run"]),
    "cleanup_apply": ("cleanup", ["recover"]),
    "doctor_fix": ("doctor", ["doctor", "--fix"]),
}
"""Repair commands of scenarios: the name of their process, and what is typed."""


async def repair_command(world: World, args: dict[str, Any]) -> None:
    """An operator types a repair command. What there is to clean up before a clean-up is the turn of a dead process."""
    if args["name"] not in REPAIRS:
        raise ScenarioError(f"unknown repair {args['name']!r}; there are: {', '.join(REPAIRS)}")
    if args["name"] == "cleanup_preview":
        await leave_a_dead_turn(world, "S")
    name, words = REPAIRS[args["name"]]
    name = args.get("by", name)
    state = world.state_of(name)
    session = [world.key(args["session"])] if "session" in args else []
    world.commands[name] = said = await run_command(world, state, *words, *session)
    world.exit_codes[name] = said.code
    world.repaired[name] = (state, session)


async def leave_a_dead_turn(world: World, session: str) -> None:
    """A program that owned a session was killed."""
    await world.start("died", apart=True)
    process = world.processes["died"]
    await process.do("keep", session=world.key(session))
    await process.kill(signal.SIGKILL)
    del world.processes["died"]


async def hold_work(world: World) -> None:
    """Three gateways that die within minutes: whatever comes in from now on is kept, and nothing is run."""
    for name in ("first", "second", "third"):
        await world.start(f"{name} gateway", apart=True)
        process = world.processes.pop(f"{name} gateway")
        await process.do("boot")
        await process.kill(signal.SIGKILL)
    if await world.process().do("boot") is None:
        raise WorldError("work is not held back although three gateways have died")


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def is_repaired(world: World, name: str) -> bool:
    """Whether a repair has left nothing to do, by the same program's own eyes."""
    state, session = world.repaired[name]
    return (await run_command(world, state, "recover", "--dry-run", *session)).code == 0


async def second_owner_refused(world: World, args: dict[str, Any]) -> str | None:
    """A second gateway on the same address has ended and names the first; of two schedulers one has fired a job."""
    if args.get("what") == "scheduler":
        runs = await world.process().do("timer_runs", timer=None)
        refused = [run for run in runs if run["state"] == "skipped" and run["detail"] == "still-running"]
        return None if refused else f"no firing was refused: {[(run['timer'], run['state']) for run in runs]}"
    said = world.commands.get(args["process"])
    if said is None:
        return f"{args['process']} serves beside the first"
    first = [one for one in world.processes.values() if isinstance(one, RealGateway) and one.alive]
    named = any(f"pid {one.pid}" in said.err for one in first)
    return None if named and "already running" in said.err else f"exit code {said.code}: {said.err}"
