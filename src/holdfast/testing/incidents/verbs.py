"""What each verb does to the world: bytes on disk, signals, what provider and platform answer. Never an internal flag.

Where the runtime has to act by itself (start a turn, send, retry) a verb waits for that; see "The world of a scenario"
in `docs/incidents.md`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.clock import iso
from holdfast.session.key import file_stem
from holdfast.testing.incidents import words
from holdfast.testing.incidents.child_verbs import child_run_done, finish_a_run
from holdfast.testing.incidents.commands import hold_work, repair_command, run_command, start_by_people
from holdfast.testing.incidents.compacting import compaction, store_write
from holdfast.testing.incidents.conversing import (
    abort,
    accept,
    ack_inbound,
    hand_over,
    inbound_raw,
    model_stream_begin,
    model_stream_chunk,
    model_stream_end,
    model_stream_stall,
    owned_append,
    owned_rewrite,
    provider_error,
    redeliver,
    reset_session,
    start_turn,
    switch_model,
    tool_begin,
    tool_end,
    tool_sends,
    webhook_fire,
)
from holdfast.testing.incidents.foreign import append_foreign, corrupt_file, rewrite_foreign, touch
from holdfast.testing.incidents.scenario import ScenarioError, Step
from holdfast.testing.incidents.stuck import others_answer, tool_progress, watchdog_scan
from holdfast.testing.incidents.timer_verbs import cron_fire, find_heartbeats, heartbeat_tick
from holdfast.testing.incidents.world import UNKNOWN_TICKS, Child, ProcessGoneError, World, WorldError

Args = dict[str, Any]
Verb = Callable[[World, Args], Awaitable[None]]


async def perform(world: World, step: Step) -> None:
    """Carry out one step.

    Raises:
        WorldError: the product did not get there. ScenarioError: the step makes no sense.
    """
    if world.links_hang and step.verb != "kill":
        world.links_hang = False
        for process in world.processes.values():
            await process.do("drop_links")
    await world.rig.verbs.get(step.verb, TABLE[step.verb])(world, step.args)


# ── others ───────────────────────────────────────────────────────────────────────────────────────────────────────────

OUR_LANES = ("gateway", "channel_ingress", "cron", "heartbeat")


async def foreign_append(world: World, args: Args) -> None:
    by, kind, session = args["by"], args["kind"], args["session"]
    if by in OUR_LANES or by.startswith("child"):
        if kind != "user":
            await world.process().do("metadata", session=world.key(session), kind=kind, text=f"{kind} by {by}")
            return
        queued = [row for row in await world.ledger("inputs") if row["state"] == "queued"]
        if not any(row["session"] == world.key(session) for row in queued):  # else: what was handed over just before
            await accept(world, {"as": f"by {by}", "session": session, "lane": "chat", "text": f"from {by}"})
        return
    await world.edit(session, lambda path: append_foreign(path, kind))


async def foreign_rewrite(world: World, args: Args) -> None:
    path = await world.transcript(args["session"])
    world.saved.setdefault(f"{args['session']}.before", path.read_bytes())
    await world.edit(args["session"], lambda path: rewrite_foreign(path, args["kind"]))


async def metadata_append(world: World, args: Args) -> None:
    by = args.get("by")
    process = world.process(by if by in world.processes else None)
    await process.do("metadata", session=world.key(args["session"]), kind=args["kind"], text=args["kind"])


async def metadata_touch(world: World, args: Args) -> None:
    touch(await world.transcript(args["session"]), args["kind"])


async def read_only_access(world: World, args: Args) -> None:
    """A reader with a process of its own if it has a name, else any gateway's history view."""
    by = args.get("by")
    if by == "CLI" and args.get("op") == "list":
        said = await run_command(world, world.state_of(""), "sessions")
        if said.code:
            raise WorldError(f"the sessions cannot be listed: {said.err}")
        return
    if by is not None and by not in world.processes and world.in_processes:
        await world.start(by)
    process = world.process(by if by in world.processes else None)
    if args.get("op") == "list":
        await process.do("sessions")
        return
    try:
        await process.do("read", session=world.key(args["session"]))
    except WorldError as failed:
        if "UnknownSessionError" not in str(failed):
            world.errors[f"reader {args.get('by', 'r')}"] = str(failed)


REAL_PACE = 10
"""The write lock is a kernel lock and waits for it live in real time; holds are played so many times faster."""


async def lock_hold(world: World, args: Args) -> None:
    """A process stands inside the write lock while its disk takes so long."""
    await made_transcript(world, args["session"])
    if words.holds_for_hours("lock_hold", args):
        await stand_still_inside(world, args)
        return
    if args["by"] not in world.processes:
        await world.start(args["by"], apart=True)
    seconds = float(args.get("seconds", args.get("payload_delay_s", 0)))
    process, key = world.process(world.home(args)), world.key(args["session"])
    world.tasks.append(asyncio.create_task(process.do("hold_lock", session=key, seconds=seconds / REAL_PACE)))

    async def held() -> bool:
        return bool(world.journal("holding"))

    await world.until(held, f"{args['by']} to hold the write lock")


async def stand_still_inside(world: World, args: Args) -> None:
    """A process stops, as a whole, in the middle of an append of its own turn, with the write lock in its hand."""
    process = world.processes[args["by"]]
    if not isinstance(process, Child):
        raise ScenarioError("only a process of its own can stand still")
    turn = await process.do("keep", session=world.key(args["session"]))
    await process.do("stop_at", points=["append.after_intent"])
    appending = process.do("append_in_turn", turn=turn, kind="custom", text="wedged")
    world.tasks.append(asyncio.create_task(appending))

    async def stopped() -> bool:
        return process.stands_still

    await world.until(stopped, f"{args['by']} to stand still", ticks=0)
    world.standing[args["by"]] = process
    del world.processes[args["by"]]


async def let_them_stand(world: World) -> None:
    """What the living do while somebody stands still: ten minutes stand for hours, in which they would only look again
    once a second. Then whoever stood still goes on, as if no time had passed, and ends its turn.
    """
    seconds = min(world.still_s, STANDING_S_MAX)
    steps = int(seconds // UNKNOWN_TICKS)
    seconds = float(steps * UNKNOWN_TICKS)
    for _ in range(steps):
        await world.pass_time(UNKNOWN_TICKS)
    for name, process in world.standing.items():
        process.go_on()
        await process.do("advance", seconds=seconds)
        await process.do("free", on=True)
        await process.do("let_go")
        world.processes[name] = process
    world.standing.clear()


STANDING_S_MAX = 600.0


async def lock_leave(world: World, args: Args) -> None:
    """A lock file of another program beside the transcript, with the payload it would have."""
    path = await made_transcript(world, args["session"])
    pids = {"same_as_next_process": os.getpid(), "unrelated_live_process": os.getppid()}
    lock: dict[str, Any] = {"pid": pids.get(args["pid"], 2**22 - 1), "createdAt": iso(datetime.now(UTC))}
    if args.get("started") == "earlier":
        lock["starttime"] = 1
    if args.get("removable") is False:
        await world.process().do("refuse_removal", path=f"{path}.lock")
    Path(f"{path}.lock").write_text(json.dumps(lock))


async def made_transcript(world: World, session: str) -> Path:
    await world.process().do("make_session", session=world.key(session))
    return await world.transcript(session)


async def corrupt(world: World, args: Args) -> None:
    if args["file"] == "index":
        await empty_ledger(world, args["how"])
        return
    if args["file"] != "transcript":
        raise ScenarioError(f"cannot damage a file of kind {args['file']!r}")
    session = args["session"]
    if world.key(session) not in [row["key"] for row in await world.ledger("sessions")]:
        await made_transcript(world, session)
    path = await world.transcript(session)
    world.saved[f"{session}.before"] = path.read_bytes()
    world.saved[f"{session}.torn"] = await world.edit(session, lambda file: corrupt_file(file, args["how"]))


async def empty_ledger(world: World, how: str) -> None:
    """The ledger is the index of sessions here. Every process dies in the moment in which it has no bytes."""
    if how != "0 bytes":
        raise ScenarioError(f"unknown damage {how!r} of an index")
    for name in list(world.processes):
        await world.processes.pop(name).kill(signal.SIGKILL)
    for path in world.state.glob("ledger.sqlite3*"):
        path.write_bytes(b"")


async def io_error(world: World, args: Args) -> None:
    """The disk refuses at the points of the store that the operation passes."""
    op = args["op"]
    if op == "offset_write":  # the channel's own file, outside the state
        world.position_refuses = args["errno"]
        return
    points = {
        "spool_write": ["ledger.before_commit"],
        "append": ["append.after_intent"],
        "queue_remove": ["ledger.before_commit"],
    }
    if op not in points:
        raise ScenarioError(f"unknown operation {op!r}")
    if points[op]:
        lasts_s = float(args.get("duration_s", 0))
        partly = str(await world.transcript(args["session"])) if args.get("bytes_written") == "partial" else None
        await world.process().do("fail_at", points=points[op], code=args["errno"], lasts_s=lasts_s, partly_into=partly)
    for one in world.inputs.values():
        if op == "spool_write" and one.id is None:
            await hand_over(world, one)


# ── delivery ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def sending(world: World, name: str) -> str:
    """Wait until a send for a turn's input stands at the platform; returns the input's id."""
    input_id = world.input_id(world.turn_name(name).input)

    async def look() -> bool:
        for process in world.processes.values():
            if process.alive and await process.do("sending", input_id=input_id):
                return True
        return False

    await world.until(look, f"a send of the answer of {name}", ticks=UNKNOWN_TICKS)
    return input_id


async def decide(world: World, name: str, what: str) -> None:
    """Say what becomes of the send that stands at the platform; wait until the runtime has taken it in."""
    input_id = world.input_id(world.turn_name(name).input)
    before = len(world.journal("message"))
    if name in world.preordered:
        world.preordered.remove(name)
        before = 0
    else:
        await sending(world, name)
        for process in world.processes.values():
            if process.alive and await process.do("sending", input_id=input_id):
                await process.do("order_send", input_id=input_id, what=what)
                break
    if what == "fail":
        world.refused.add(name)
        await world.until(lambda: refusal_noted(world, input_id), f"the refusal of {name} to be noted")
        return
    await world.until(lambda: arrived(world, before), f"the message of {name} to arrive")
    if what == "ok":
        await world.until(lambda: confirmed(world, input_id), f"the confirmation of {name} to be noted")


async def arrived(world: World, before: int) -> bool:
    return len(world.journal("message")) > before


async def rows_of(world: World, input_id: str) -> list[dict[str, Any]]:
    return [row for row in await world.ledger("deliveries") if row["input_id"] == input_id]


async def refusal_noted(world: World, input_id: str) -> bool:
    return any(row["state"] in ("pending", "failed") and row["attempts"] for row in await rows_of(world, input_id))


async def confirmed(world: World, input_id: str) -> bool:
    """Every part is sent, or the next one is on its way."""
    for process in world.processes.values():
        if process.alive and await process.do("sending", input_id=input_id):
            return True
    return all(row["state"] == "sent" for row in await rows_of(world, input_id))


async def deliver_begin(world: World, args: Args) -> None:
    await sending(world, args["turn"])


async def deliver_ok(world: World, args: Args) -> None:
    if args.get("part") == "tool_message":
        await tool_sends(world, args["turn"])
    await decide(world, args["turn"], "ok")


async def deliver_fail(world: World, args: Args) -> None:
    await decide(world, args["turn"], "fail")


async def deliver_unknown(world: World, args: Args) -> None:
    await decide(world, args["turn"], "unknown")
    world.links_hang = True


# ── processes and time ───────────────────────────────────────────────────────────────────────────────────────────────


async def process_start(world: World, args: Args) -> None:
    home = args.get("home")
    if home is not None:
        for other in set(world.homes.values()) - {home}:
            world.untouched[other] = files_of(world.folder / other)
        world.homes[args["name"]] = home
    if world.by_people:
        await start_by_people(world, args["name"], args["kind"])
    else:
        await world.start(args["name"])


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes; without shared memory, in which readers leave their marks."""
    return {str(one): one.read_bytes() for one in folder.rglob("*") if one.is_file() and not one.name.endswith("-shm")}


async def kill(world: World, args: Args) -> None:
    name = args["process"]
    number = getattr(signal, f"SIG{args['signal']}")
    if name == KEEPER:
        await keep_idle(world)
    process = world.processes[name]
    when = args.get("when", "")
    try:
        if "sweep" in args:
            await process.do("free", on=True)
            await world.until(lambda: dead_or_done(world, process), f"{name} to die on its way")
        elif when == "during save":
            await process.do("kill_at", points=["append.after_write"])
            await process.do("free", on=True)
            await world.until(lambda: dead(process), f"{name} to die while it saves")
        elif when.startswith("after user record"):
            await world.until(lambda: asked(world), "a request at the provider")
        elif when.endswith("transcript not"):
            await world.until(lambda: dead(process), f"{name} to die between the two")
        elif when == "part 2 in flight":
            await world.until(lambda: second_part(world, process), "the second part to be sent")
    except ProcessGoneError:
        world.died_at_point = "sweep" in args  # the very death that was waited for
    world.processes.pop(name)
    await process.kill(number)
    world.note(name, "died")


KEEPER = "worker"
"""A process of no gateway's that keeps the conversation for itself between messages."""


async def keep_idle(world: World) -> None:
    """Start it, and let it take the newest session for a turn in which nothing happens."""
    await world.start(KEEPER)
    session = list(world.inputs.values())[-1].session
    await world.processes[KEEPER].do("keep", session=world.key(session))


async def dead_or_done(world: World, process: Any) -> bool:
    """Whether the process died at its point, or the input has come all its way."""
    if not process.alive:
        world.died_at_point = True
        return True
    if any(row["state"] in ("queued", "running") for row in await process.do("inputs")):
        return False
    return all(row["state"] == "sent" for row in await process.do("deliveries"))


async def dead(process: Any) -> bool:
    return not process.alive


async def asked(world: World) -> bool:
    return bool(world.journal("ask"))


async def second_part(world: World, process: Any) -> bool:
    return any([await process.do("sending", input_id=one.id) for one in world.inputs.values() if one.id])


async def restart(world: World, args: Args) -> None:
    name = args["process"]
    if name in world.processes:
        await world.stop(name)
    world.kill_nth = 0
    await world.start(name)


async def stop_graceful(world: World, args: Args) -> None:
    await world.stop(args["process"], float(args.get("drain_s", 0)))


async def advance_clock(world: World, args: Args) -> None:
    """Time passes. What the platform does with a send that is tried again meanwhile is the scenario's next word on it:
    no platform keeps a connection for minutes.
    """
    for name in sorted(world.refused):
        following = next((step for step in world.ahead if step.verb.startswith("deliver_")
                          and step.args.get("turn") == name), None)  # fmt: skip
        if following is not None:
            what = {"deliver_ok": "ok", "deliver_fail": "fail"}.get(following.verb, "unknown")
            input_id = world.input_id(world.turn_name(name).input)
            await world.process().do("order_send", input_id=input_id, what=what)
            world.preordered.add(name)
    world.refused.clear()
    await others_answer(world)
    await world.pass_time(float(args["seconds"]))
    if world.down_until_s is not None and world.passed_s >= world.down_until_s:
        world.down_until_s = None
        await world.start("G")
        for one in [one for one in world.inputs.values() if one.id is None]:
            await hand_over(world, one)  # the channel kept what nobody had acknowledged


async def block_loop(world: World, args: Args) -> None:
    """The process stands still, as a whole, just before it writes the answer; time passes without it. One that stands
    still already does so until everything that the others can do is done.
    """
    if args.get("process") in world.standing:
        world.still_s = float(args["seconds"])
        return
    process = next(iter(world.processes.values()))
    if not isinstance(process, Child):
        raise ScenarioError("only a process of its own can stand still")
    seconds = float(args["seconds"])

    async def stopped() -> bool:
        return process.stands_still

    await world.until(stopped, "the process to stand still", ticks=0)
    catching_up = asyncio.create_task(process.do("advance", seconds=seconds))
    world.passed_s += seconds
    process.go_on()
    await catching_up


async def configure(world: World, args: Args) -> None:
    """Options of processes that start later are read before the first one does; a link is made at once."""
    if "link" in args:
        target = await made_transcript(world, args["target"])
        link = target.with_name(f"{file_stem(world.key(args['link']))}.jsonl")
        link.symlink_to(target.name)
    if args.get("stale_writer_claim") == "finished_run":
        await finish_a_run(world, args["session"])
    if args.get("reload"):  # what a changed configuration takes here
        await world.stop("G")
        world.down_until_s = world.passed_s + float(args["duration_s"])
    if "index_entries" in args:
        await world.process().do("make_sessions", count=int(args["index_entries"]))
    if args.get("state") == "wedged":
        await made_transcript(world, args["session"])
        await hold_work(world)
    for key in args:
        if key not in words.CONFIGURE:
            raise ScenarioError(f"unknown option {key!r}")


async def await_idle(world: World, args: Args) -> None:
    """The rest of the world answers and takes by itself until nothing runs, waits or is on its way."""
    if world.links_hang:
        await world.process().do("drop_links")
    for process in world.processes.values():
        if process.alive:
            await process.do("free", on=True)

    if world.standing:
        await let_them_stand(world)

    async def idle() -> bool:
        if any(row["state"] in ("queued", "running") for row in await world.ledger("inputs")):
            return False
        if any(row["state"] == "running" for row in await world.ledger("turns")):
            return False
        if any(row["state"] not in ("announced", "stopped") for row in await world.ledger("children")):
            return False
        refused = lambda row: row["state"] == "pending" and row["attempts"] > 0  # noqa: E731  # waits for its time
        return all(row["state"] in ("sent", "failed") or refused(row) for row in await world.ledger("deliveries"))

    async def heartbeats_ran() -> bool:
        await find_heartbeats(world)
        return all(one.id is not None for one in world.inputs.values() if one.lane == "heartbeat")

    await world.until(idle, "everything to be done", ticks=UNKNOWN_TICKS)
    await world.until(heartbeats_ran, "heartbeats that were put off to run", ticks=UNKNOWN_TICKS)
    await world.until(idle, "everything to be done", ticks=UNKNOWN_TICKS)
    for process in world.processes.values():
        if process.alive and not args.get("_last"):
            await process.do("free", on=False)


TABLE: dict[str, Verb] = {
    "abort": abort, "accept": accept, "ack_inbound": ack_inbound, "advance_clock": advance_clock,
    "await_idle": await_idle, "block_loop": block_loop, "child_run_done": child_run_done, "compaction": compaction,
    "configure": configure, "corrupt": corrupt,
    "webhook_fire": webhook_fire, "cron_fire": cron_fire, "heartbeat_tick": heartbeat_tick,
    "deliver_begin": deliver_begin, "deliver_fail": deliver_fail, "deliver_ok": deliver_ok,
    "deliver_unknown": deliver_unknown,
    "foreign_append": foreign_append, "foreign_rewrite": foreign_rewrite, "inbound_raw": inbound_raw,
    "io_error": io_error, "kill": kill, "lock_hold": lock_hold, "lock_leave": lock_leave,
    "metadata_append": metadata_append,
    "metadata_touch": metadata_touch, "model_stream_begin": model_stream_begin,
    "model_stream_chunk": model_stream_chunk, "model_stream_end": model_stream_end,
    "model_stream_stall": model_stream_stall, "owned_append": owned_append, "owned_rewrite": owned_rewrite,
    "process_start": process_start, "provider_error": provider_error, "read_only_access": read_only_access,
    "redeliver": redeliver, "repair_command": repair_command, "reset_session": reset_session, "restart": restart,
    "start_turn": start_turn,
    "stop_graceful": stop_graceful,
    "store_write": store_write, "switch_model": switch_model,
    "tool_begin": tool_begin, "tool_end": tool_end, "tool_progress": tool_progress, "watchdog_scan": watchdog_scan,
}  # fmt: skip
