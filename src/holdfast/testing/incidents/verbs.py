"""What each verb does to the world: bytes on disk, signals, what provider and platform answer. Never an internal flag.

Where the runtime has to act by itself (start a turn, send, retry) a verb waits for that; see "The world of a scenario"
in `docs/incidents.md`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from holdfast.session.key import file_stem
from holdfast.testing.incidents import words
from holdfast.testing.incidents.foreign import append_foreign, corrupt_file, rewrite_foreign, touch
from holdfast.testing.incidents.scenario import ScenarioError, Step
from holdfast.testing.incidents.world import UNKNOWN_TICKS, InputName, ProcessGoneError, TurnName, World, WorldError

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


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def accept(world: World, args: Args) -> None:
    repeat = int(args.get("repeat", 1))
    for number in range(repeat):
        name = args["as"] if repeat == 1 else f"{args['as']}#{number}"
        text = args.get("text", name)
        one = InputName(name, args["session"], args["lane"], text, args.get("by") or "G", time.monotonic())
        world.inputs[name] = one
        await hand_over(world, one)
        if one.id is None and "refused" not in world.errors.get(name, ""):
            raise WorldError(f"{name} was not acknowledged: {world.errors.get(name)}")


async def hand_over(world: World, one: InputName) -> None:
    """The channel hands an input over, under its own key, and remembers whether it was acknowledged."""
    if world.kill_nth and not any(process.alive for process in world.processes.values()):
        return  # it died at its point before anything came in
    process = world.process(one.process if one.process in world.processes else None)
    try:
        answer = await process.do(
            "accept", session=world.key(one.session), lane=one.lane, text=one.text, key=one.name,
            paced=one.name in world.paced,
        )  # fmt: skip
    except ProcessGoneError:
        return  # nobody acknowledged it
    if "id" in answer:
        one.id = answer["id"]
    else:
        world.errors[one.name] = f"refused: {answer['refused']}: {answer['text']}"


async def inbound_raw(world: World, args: Args) -> None:
    one = InputName(args["as"], args["session"], args["lane"], args["text"], "G", time.monotonic())
    world.inputs[one.name] = one
    if not args.get("_later"):  # the disk is about to refuse: it is handed over once that is in place
        await hand_over(world, one)


async def ack_inbound(world: World, args: Args) -> None:
    world.input_id(args["input"])  # the position moves on only past what was acknowledged


async def redeliver(world: World, args: Args) -> None:
    one = world.inputs[args["input"]]
    if args.get("if") == "unacknowledged" and one.id is not None:
        return
    first = one.id
    await hand_over(world, one)
    if first is not None and one.id != first:
        raise WorldError(f"{one.name} was taken for another input: {one.id}, before {first}")
    if one.id is None:
        raise WorldError(f"{one.name} was handed over again and not acknowledged: {world.errors.get(one.name)}")


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def start_turn(world: World, args: Args) -> None:
    """A check point: the turn has begun, or stands in line for good reason."""
    name = args["as"]
    input_name = args.get("input")
    if input_name is None:
        input_name = name
        process = args.get("process") or "G"
        await accept(world, {"as": name, "session": args["session"], "lane": args["lane"], "by": process})
    before = sum(turn.input == input_name for turn in world.turns.values())
    world.turns[name] = TurnName(name, input_name, before, args.get("process") or "G")
    input_id = world.input_id(input_name)

    async def begun_or_in_line() -> bool:
        if await world.turn(name) is not None:
            return True
        rows = await world.ledger("inputs")
        mine = next(row for row in rows if row["id"] == input_id)
        if mine["state"] not in ("queued", "running"):
            return True
        return any(row["state"] == "running" and row["id"] != input_id for row in rows)

    await world.until(begun_or_in_line, f"{name} to begin or to stand in line")


async def ask_open(world: World, name: str) -> dict[str, Any]:
    """Wait until a turn has a request at the provider. Other turns that stand before it are helped on."""
    row = await world.turn_begun(name)

    async def look() -> bool:
        process = await world.owner(row)
        return bool(await process.do("asks", turn=row["id"]))

    await world.until(look, f"a model request of {name}")
    return row


async def stream(world: World, name: str, order: str, value: Any = None) -> None:
    row = await ask_open(world, name)
    process = await world.owner(row)
    if not await process.do("stream", turn=row["id"], order=order, value=value):
        raise WorldError(f"the model request of {name} was gone")


async def model_stream_begin(world: World, args: Args) -> None:
    row = await ask_open(world, args["turn"])
    if args.get("model"):
        asked = [one["model"] for one in world.journal("ask") if one["turn"] == row["id"]]
        if asked[-1].split("/")[0] != args["model"]:
            raise WorldError(f"{args['turn']} asked {asked[-1]}, not {args['model']}")


async def model_stream_chunk(world: World, args: Args) -> None:
    kind = args["kind"]
    for _ in range(int(args.get("repeat", 1))):
        if kind == "tool_call":
            await stream(world, args["turn"], "call", args["id"])
        elif kind == "partial_tool_call":
            await stream(world, args["turn"], "partial_call", args["id"])
        elif kind == "thinking":
            signed = {"full": {"thinkingSignature": "c2lnbmVk"}, "partial": {"thinkingSignature": "c2ln"}}
            await stream(world, args["turn"], "thinking", signed.get(args.get("signature", "full"), {}))
        elif kind == "text":
            await stream(world, args["turn"], "text", "word ")
        else:
            raise ScenarioError(f"unknown kind of chunk {kind!r}")


async def model_stream_stall(world: World, args: Args) -> None:
    await ask_open(world, args["turn"])
    await world.pass_time(float(args["seconds"]))


async def model_stream_end(world: World, args: Args) -> None:
    """The answer is complete; wait until the turn has taken it in."""
    name = args["turn"]
    row = await world.turn(name)
    if row is not None and row["state"] == "settled":
        return  # a stopped turn's provider still talks; nobody listens
    if args.get("kind") == "tool_call":
        await stream(world, name, "call", args["id"])
        await stream(world, name, "end", None)
        return
    await stream(world, name, "end", text_of_parts(args.get("text", "")))
    await gone(world, name)


def text_of_parts(text: str) -> str:
    """ "p1|p2" is an answer that takes two messages: each part a paragraph as long as a message."""
    if "|" not in text:
        return text
    return "\n\n".join(part.ljust(PART_CHARS, ".") for part in text.split("|"))


PART_CHARS = 60
TEXT_MAX_OF_PARTS = 90


async def gone(world: World, name: str) -> None:
    """Wait until a turn's request has ended and the turn has settled or gone on."""

    async def look() -> bool:
        row = await world.turn(name)
        if row is None or row["state"] == "settled":
            return True
        begun = [one["number"] for one in world.journal("ask") if one["turn"] == row["id"]]
        ended = [one for one in world.journal("asked") if one["turn"] == row["id"]]
        if len(ended) < len(begun):
            return False
        return row["state"] == "settled"

    await world.until(look, f"{name} to take in its answer")


async def provider_error(world: World, args: Args) -> None:
    if "turn" not in args:
        raise ScenarioError("a provider error outside a turn needs a provider of its own")
    value = {"status": args.get("status"), "body": args.get("body", "")}
    row = await ask_open(world, args["turn"])
    asks = len([one for one in world.journal("ask") if one["turn"] == row["id"]])
    await stream(world, args["turn"], "fail", value)

    async def went_on() -> bool:
        now = await world.turn(args["turn"])
        more = len([one for one in world.journal("ask") if one["turn"] == row["id"]]) > asks
        return more or (now is not None and now["state"] == "settled")

    again = any(step.args.get("turn") == args["turn"] for step in world.ahead)

    async def failed() -> bool:
        """Nothing more is told of the turn: whatever model it asks next answers with the same error."""
        process = await world.owner(row)
        await process.do("stream", turn=row["id"], order="fail", value=value)
        now = await world.turn(args["turn"])
        return now is not None and now["state"] == "settled"

    if not again:
        await world.until(failed, f"{args['turn']} to fail")
        return
    await world.until(went_on, f"{args['turn']} to go on after the provider's error")


async def tool_begin(world: World, args: Args) -> None:
    name, call = args["turn"], args["id"]
    row = await world.turn_begun(name)
    for process in world.processes.values():
        if process.alive and await process.do("tool_runs", call=call):
            return
    if await (await world.owner(row)).do("asks", turn=row["id"]):
        await finish_calls(world, name, call)
    elif not any(one["call"] == call for one in world.journal("tool")):
        settled = row["state"] == "settled"
        if settled:
            return
        try:
            await asyncio.wait_for(ask_open(world, name), 0.5)
        except (TimeoutError, WorldError):
            pass  # its call is on its way: the wait below decides
        else:
            await finish_calls(world, name, call)

    async def runs() -> bool:
        return any(one["call"] == call for one in world.journal("tool"))

    await world.until(runs, f"tool call {call} of {name}")


async def finish_calls(world: World, name: str, call: str | None) -> None:
    """End the model's answer with the calls it has announced, and `call`."""
    row = await ask_open(world, name)
    process = await world.owner(row)
    if call is not None and call not in await process.do("announced", turn=row["id"]):
        await stream(world, name, "call", call)
    await stream(world, name, "end", None)


async def tool_end(world: World, args: Args) -> None:
    call = args["id"]

    async def end() -> bool:
        for process in world.processes.values():
            if process.alive and await process.do("end_tool", call=call, ok=args.get("ok", True)):
                return True
        return any(one["call"] == call for one in world.journal("tool_ended"))

    await world.until(end, f"the end of tool call {call}")


async def owned_append(world: World, args: Args) -> None:
    """Machinery acting for the owner writes; what the turn itself has to write is a check point."""
    name, kind = args["turn"], args["kind"]
    row = await world.turn_begun(name)
    process = await world.owner(row)
    if kind == "assistant" and await process.do("announced", turn=row["id"]):
        await finish_calls(world, name, None)
        return
    if kind == "tool_result":
        return  # the turn writes it by itself; `transcript_has` looks
    if row["state"] == "settled":
        await process.do("metadata", session=row["session"], kind=kind, text=kind)
        return
    await process.do("append_in_turn", turn=row["id"], kind=kind, text=f"{kind} of {name}")


async def owned_rewrite(world: World, args: Args) -> None:
    """Nothing here rewrites a transcript: context is repaired when the model is asked. A check point."""
    await world.turn_begun(args["turn"])


async def abort(world: World, args: Args) -> None:
    if "turn" in args:
        known = world.turn_name(args["turn"])
        target = world.input_id(known.input)
    elif "input" in args:
        target = world.input_id(args["input"])
    else:
        raise ScenarioError("a stop names a turn or an input")
    if args.get("by") == "provider":
        await stream(world, args["turn"], "fail", {"status": 0, "body": "aborted by the provider"})
        return
    await world.process().do("cancel", target=target, by=args["by"])
    await world.process().do("go_on")

    async def ended() -> bool:
        rows = await world.ledger("inputs")
        return next(row for row in rows if row["id"] == target)["state"] not in ("queued", "running")

    await world.until(ended, f"the end of what {args['by']} stopped")


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
    append_foreign(await world.transcript(session), kind)


async def foreign_rewrite(world: World, args: Args) -> None:
    path = await world.transcript(args["session"])
    world.saved.setdefault(f"{args['session']}.before", path.read_bytes())
    rewrite_foreign(path, args["kind"])


async def metadata_append(world: World, args: Args) -> None:
    by = args.get("by")
    process = world.process(by if by in world.processes else None)
    await process.do("metadata", session=world.key(args["session"]), kind=args["kind"], text=args["kind"])


async def metadata_touch(world: World, args: Args) -> None:
    touch(await world.transcript(args["session"]), args["kind"])


async def read_only_access(world: World, args: Args) -> None:
    """A reader with a process of its own if it has a name, else any gateway's history view."""
    by = args.get("by")
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
    """A gateway stands inside the write lock while its disk takes so long."""
    await made_transcript(world, args["session"])
    seconds = float(args.get("seconds", args.get("payload_delay_s", 0)))
    process, key = world.process(args["by"]), world.key(args["session"])
    world.tasks.append(asyncio.create_task(process.do("hold_lock", session=key, seconds=seconds / REAL_PACE)))

    async def held() -> bool:
        return bool(world.journal("holding"))

    await world.until(held, f"{args['by']} to hold the write lock")


async def lock_leave(world: World, args: Args) -> None:
    """A lock file of another program beside the transcript, with the payload it would have."""
    path = await made_transcript(world, args["session"])
    pid = os.getpid() if args["pid"] == "unrelated_live_process" else 2**22 - 1
    lock = {"pid": pid, "createdAt": "2025-12-31T00:00:00.000Z"}
    Path(f"{path}.lock").write_text(json.dumps(lock))


async def made_transcript(world: World, session: str) -> Path:
    path = await world.process().do("make_session", session=world.key(session))
    return Path(path)


async def corrupt(world: World, args: Args) -> None:
    if args["file"] != "transcript":
        raise ScenarioError(f"cannot damage a file of kind {args['file']!r}")
    session = args["session"]
    if world.key(session) not in [row["key"] for row in await world.ledger("sessions")]:
        await made_transcript(world, session)
    path = await world.transcript(session)
    world.saved[f"{session}.before"] = path.read_bytes()
    world.saved[f"{session}.torn"] = corrupt_file(path, args["how"])


async def io_error(world: World, args: Args) -> None:
    """The disk refuses at the points of the store that the operation passes."""
    op = args["op"]
    points = {
        "spool_write": ["ledger.before_commit"],
        "append": ["append.after_intent"],
        "queue_remove": ["ledger.before_commit"],
    }
    if op not in points:
        raise ScenarioError(f"unknown operation {op!r}")
    if points[op]:
        lasts_s = float(args.get("duration_s", 0))
        await world.process().do("fail_at", points=points[op], code=args["errno"], lasts_s=lasts_s)
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
    await world.start(args["name"])


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes; without shared memory, in which readers leave their marks."""
    return {str(one): one.read_bytes() for one in folder.rglob("*") if one.is_file() and not one.name.endswith("-shm")}


async def kill(world: World, args: Args) -> None:
    name = args["process"]
    number = getattr(signal, f"SIG{args['signal']}")
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
        elif when == "part 2 in flight":
            await world.until(lambda: second_part(world, process), "the second part to be sent")
    except ProcessGoneError:
        world.died_at_point = "sweep" in args  # the very death that was waited for
    world.processes.pop(name)
    await process.kill(number)


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
    await world.pass_time(float(args["seconds"]))


async def configure(world: World, args: Args) -> None:
    """Options of processes that start later are read before the first one does; a link is made at once."""
    if "link" in args:
        target = await made_transcript(world, args["target"])
        link = target.with_name(f"{file_stem(world.key(args['link']))}.jsonl")
        link.symlink_to(target.name)
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

    async def idle() -> bool:
        if any(row["state"] in ("queued", "running") for row in await world.ledger("inputs")):
            return False
        if any(row["state"] == "running" for row in await world.ledger("turns")):
            return False
        refused = lambda row: row["state"] == "pending" and row["attempts"] > 0  # noqa: E731  # waits for its time
        return all(row["state"] in ("sent", "failed") or refused(row) for row in await world.ledger("deliveries"))

    await world.until(idle, "everything to be done", ticks=UNKNOWN_TICKS)
    for process in world.processes.values():
        if process.alive and not args.get("_last"):
            await process.do("free", on=False)


TABLE: dict[str, Verb] = {
    "abort": abort, "accept": accept, "ack_inbound": ack_inbound, "advance_clock": advance_clock,
    "await_idle": await_idle, "configure": configure, "corrupt": corrupt, "deliver_begin": deliver_begin,
    "deliver_fail": deliver_fail, "deliver_ok": deliver_ok, "deliver_unknown": deliver_unknown,
    "foreign_append": foreign_append, "foreign_rewrite": foreign_rewrite, "inbound_raw": inbound_raw,
    "io_error": io_error, "kill": kill, "lock_hold": lock_hold, "lock_leave": lock_leave,
    "metadata_append": metadata_append,
    "metadata_touch": metadata_touch, "model_stream_begin": model_stream_begin,
    "model_stream_chunk": model_stream_chunk, "model_stream_end": model_stream_end,
    "model_stream_stall": model_stream_stall, "owned_append": owned_append, "owned_rewrite": owned_rewrite,
    "process_start": process_start, "provider_error": provider_error, "read_only_access": read_only_access,
    "redeliver": redeliver, "restart": restart, "start_turn": start_turn, "stop_graceful": stop_graceful,
    "tool_begin": tool_begin, "tool_end": tool_end,
}  # fmt: skip
