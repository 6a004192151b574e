"""Verbs of inputs and turns: what channels hand over, what the provider streams, how tools run, who stops a turn."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from holdfast.lane.queue import USER_LANE
from holdfast.testing.incidents.child_verbs import start_child
from holdfast.testing.incidents.scenario import ScenarioError
from holdfast.testing.incidents.stuck import at_tool, leave_ghost, reap, share_id, swap_guards
from holdfast.testing.incidents.world import InputName, ProcessGoneError, TurnName, World, WorldError

Args = dict[str, Any]


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def accept(world: World, args: Args) -> None:
    repeat = int(args.get("repeat", 1))
    for number in range(repeat):
        name = args["as"] if repeat == 1 else f"{args['as']}#{number}"
        text = args.get("text", name)
        one = InputName(name, args["session"], args["lane"], text, args.get("by") or "G", time.monotonic())
        world.inputs[name] = one
        if world.down_until_s is not None:
            continue  # nobody is there to acknowledge it: the channel keeps it
        await hand_over(world, one)
        if one.id is None and "refused" not in world.errors.get(name, ""):
            raise WorldError(f"{name} was not acknowledged: {world.errors.get(name)}")


async def webhook_fire(world: World, args: Args) -> None:
    """Deliveries of a hook, one after the other; the first has the name. A full queue refuses (429), which its sender
    hears: nothing was acknowledged then.
    """
    for number in range(int(args.get("repeat", 1))):
        name = args["as"] if number == 0 else f"{args['as']}#{number}"
        one = InputName(name, args["session"], "hook", f"{args['hook']} {number}", "G", time.monotonic())
        world.inputs[name] = one
        await hand_over(world, one)
        if one.id is None and "LaneFull" not in world.errors.get(name, ""):
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
        if one.name in world.paced and len(world.processes) > 1:
            await world.pace(answer["id"])
    else:
        world.errors[one.name] = f"refused: {answer['refused']}: {answer['text']}"


async def reset_session(world: World, args: Args) -> None:
    """Somebody asks for a new conversation in the session, now. It takes its turn; a death that is told next comes in
    the middle of it, and then it is carried out after the restart.
    """
    session = args["session"]
    one = InputName(f"reset {len(world.resets)}", session, USER_LANE, "/reset", "G", time.monotonic())
    world.resets.append(one)
    rows = [row for row in await world.ledger("sessions") if row["key"] == world.key(session)]
    if rows and (rows[0]["path"] or world.database is not None):
        world.saved[f"{session}.before"] = (await world.transcript(session)).read_bytes()
    dies = world.ahead[:1] and world.ahead[0].verb == "kill" and "transcript not" in world.ahead[0].args.get("when", "")
    if dies:
        await world.process().do("kill_at", points=["append.after_intent"])
    await hand_over(world, one)

    async def stands_in_line() -> bool:
        """It is done, or waits for a turn that has been asked to end."""
        view = next(row for row in await world.ledger("inputs") if row["id"] == one.id)
        turns = await world.ledger("turns")
        running = [row for row in turns if row["session"] == view["session"] and row["state"] == "running"]
        return view["state"] not in ("queued", "running") and not running

    if not dies:
        await world.until(stands_in_line, f"the reset of {session}")


async def inbound_raw(world: World, args: Args) -> None:
    one = InputName(args["as"], args["session"], args["lane"], args["text"], "G", time.monotonic())
    world.inputs[one.name] = one
    world.updates[one.name] = int(args.get("update", 0))
    if not args.get("_later"):  # the disk is about to refuse: it is handed over once that is in place
        await hand_over(world, one)


async def ack_inbound(world: World, args: Args) -> None:
    world.input_id(args["input"])  # the position moves on only past what was acknowledged
    world.confirm(world.updates.get(args["input"], 0))


async def redeliver(world: World, args: Args) -> None:
    one = world.inputs[args["input"]]
    if args.get("if") == "unacknowledged" and one.id is not None:
        return
    if 0 < world.updates.get(one.name, 0) <= world.position:
        return  # the platform was told that it has been taken
    first = one.id
    await world.supervise()
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
    if args["lane"] == "child":
        await start_child(world, args)
        return
    if args.get("ghost"):
        await leave_ghost(world, args["session"])
        return
    if "shares_id_with" in args:
        await share_id(world, args["session"], args["shares_id_with"])
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
    """A check point. A user's choice of a model is exact: of a turn that has one, another model than the scenario names
    may be asked, and the facts decide.
    """
    row = await ask_open(world, args["turn"])
    swap_guards(world)
    if args.get("model"):
        asked = [one["model"] for one in world.journal("ask") if one["turn"] == row["id"]]
        pins = [
            one for one in await world.ledger("pins") if one["session"] == row["session"] and one["source"] == "user"
        ]
        if asked[-1].split("/")[0] != args["model"] and not pins:
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
    if args.get("_stops"):
        await world.process().do("stop_at", points=["append.after_intent"])
    await stream(world, name, "end", text_of_parts(args.get("text", "")))
    if args.get("_stops"):
        return
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
        await model_breaks(world, args)
        return
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
        """Nothing more is told of the turn: what it asks next, now or after a pause, answers with the same error."""
        process = await world.owner(row)
        if not await process.do("stream", turn=row["id"], order="fail", value=value):
            await world.pass_time(1.0)
        now = await world.turn(args["turn"])
        return now is not None and now["state"] == "settled"

    if not again:
        await world.until(failed, f"{args['turn']} to fail")
        return
    await world.until(went_on, f"{args['turn']} to go on after the provider's error")


async def model_breaks(world: World, args: Args) -> None:
    """A model fails from now on, until the processes are started anew; another conversation is the first to meet it."""
    name = args["model"]
    value = {"status": args.get("status"), "body": args.get("body", "")}
    for process in world.processes.values():
        await process.do("break_model", provider=name, value=value)
    if name != world.models[0]:
        return
    await start_turn(world, {"as": f"meets {name}", "session": "elsewhere", "lane": "chat"})
    await model_stream_end(world, {"turn": f"meets {name}", "text": "from another model"})


async def switch_model(world: World, args: Args) -> None:
    """A user chooses a session's model."""
    model = f"{args['to']}/model"
    await world.process().do("pin_model", session=world.key(args["session"]), model=model, by=args["by"])


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
    if args.get("approval") == "pending":
        await at_tool(world, call, "tool_waits_for_person")


async def tool_sends(world: World, name: str) -> None:
    """A tool of this turn that runs says something on the channel, beside the turn's answer."""
    row = await world.turn_begun(name)

    async def sent() -> bool:
        for process in world.processes.values():
            if process.alive and await process.do("tool_sends", turn=row["id"], text=f"a message of {name}'s tool"):
                return True
        return False

    await world.until(sent, f"a message of a tool of {name}")


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
    if args.get("keep_memory_slot"):
        await reap(world, args["session"])
        return
    if "turn" in args:
        known = world.turn_name(args["turn"])
        target = world.input_id(known.input)
    elif "input" in args:
        target = world.input_id(args["input"])
    else:
        raise ScenarioError("a stop names a turn or an input")
    if args.get("by") == "provider":  # it had begun to answer, and breaks off
        await stream(world, args["turn"], "text", "the beginning of ")
        await stream(world, args["turn"], "fail", {"status": 0, "body": "aborted by the provider"})
        return
    await world.process().do("cancel", target=target, by=args["by"])
    await world.process().do("go_on")

    async def ended() -> bool:
        rows = await world.ledger("inputs")
        return next(row for row in rows if row["id"] == target)["state"] not in ("queued", "running")

    await world.until(ended, f"the end of what {args['by']} stopped")
