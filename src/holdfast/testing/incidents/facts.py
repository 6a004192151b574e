"""How each fact is read: from transcript bytes, messages at the platform, requests at the provider, the ledger's public
views, log records and exit codes. Transcripts are parsed here by plain JSON, not by the code under test.

A reader returns None if the fact holds, else what was seen instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from holdfast.lane.queue import INTERRUPTED_BY, RESET_BY
from holdfast.outbox.message import SILENT
from holdfast.testing.incidents import words
from holdfast.testing.incidents.child_verbs import result_handled
from holdfast.testing.incidents.commands import is_repaired, second_owner_refused
from holdfast.testing.incidents.comparing import Args, counted, one_of
from holdfast.testing.incidents.scenario import Expectation, ScenarioError
from holdfast.testing.incidents.timer_verbs import find_heartbeats, job_runs, session_key
from holdfast.testing.incidents.transcripts import (
    branch_reaches,
    lines_of,
    replay_valid,
    transcript_has,
    transcript_lacks,
    transcript_valid,
)
from holdfast.testing.incidents.verbs import files_of
from holdfast.testing.incidents.world import World, WorldError

Fact = Callable[[World, Args], Awaitable[str | None]]


async def check(world: World, expectation: Expectation) -> str | None:
    """None if it holds, else what was seen. Raises ScenarioError for arguments that no reader understands."""
    return await world.rig.facts.get(expectation.fact, TABLE[expectation.fact])(world, expectation.args)


# ── messages at the platform ─────────────────────────────────────────────────────────────────────────────────────────


async def messages_of(world: World, args: Args) -> list[dict[str, Any]]:
    """Rows of the platform for an input or a session, with the input and its state beside them."""
    by_key = {row["id"]: row["input_id"] for row in await world.ledger("deliveries")}
    inputs = {row["id"]: row for row in await world.ledger("inputs")}
    wanted = world.input_id(args["input"]) if "input" in args else None
    session = world.key(args["session"]) if "session" in args else None
    found = []
    for row in world.journal("message"):
        input_id = by_key.get(row["delivery"].split(".")[0])
        view = inputs.get(input_id or "")
        if view is not None and (view["id"] == wanted or session in (view["session"], row["target"])):
            found.append({**row, "input": view["id"], "state": view["state"]})
    return found


async def announcements_of(world: World, args: Args) -> list[dict[str, Any]]:
    """Rows of the platform that tell of an input: what became of a job's run is told by an announcement of its own."""
    if "input" not in args or args.get("absent"):
        return []
    of = world.input_id(args["input"])
    rows = await world.ledger("inputs")
    telling = {row["id"] for row in rows if (row["payload"].get("announces") or {}).get("of") == of}
    by_key = {row["id"]: row["input_id"] for row in await world.ledger("deliveries")}
    return [row for row in world.journal("message") if by_key.get(row["delivery"].split(".")[0]) in telling]


async def replies_delivered(world: World, args: Args) -> str | None:
    """Answers, not explanations: what reached the platform for inputs that have an answer. Each part counts once."""
    rows = [row for row in await messages_of(world, args) if row["state"] in ("answered", "superseded")]
    text = args.get("text")
    if text is not None:
        rows = [row for row in rows if text in row["text"]]
    if "part" in args:
        pieces = list(dict.fromkeys(row["delivery"] for row in rows))
        part = int(args["part"]) - 1
        seen = sum(row["delivery"] == pieces[part] for row in rows) if part < len(pieces) else 0
        return counted(seen, args, f"copies of part {part + 1}")
    copies: dict[str, Counter[str]] = {}
    for row in rows:
        copies.setdefault(row["input"], Counter())[row["delivery"]] += 1
    seen = sum(max(pieces.values()) for pieces in copies.values())
    return counted(seen, args, f"replies {[row['text'] for row in await messages_of(world, args)]}")


async def no_silent_loss(world: World, args: Args) -> str | None:
    key = world.key(args["session"])
    views = {row["id"]: row for row in await world.ledger("inputs")}
    told = {row["input_id"] for row in await world.ledger("deliveries")}
    acknowledged = {row["input"]: row["key"] for row in world.journal("acknowledged")}
    handed = [one for one in world.inputs.values() if one.session == args["session"]]
    for input_id, name in acknowledged.items():
        if input_id not in views:
            return f"{name} was acknowledged and is not in the ledger"
    arrived = {row["input"] for row in await messages_of(world, args)}
    for view in views.values():
        if view["session"] != key or view["state"] in ("queued", "running") or is_done_upkeep(view):
            continue
        if view["id"] not in arrived and view["id"] not in told:
            return f"{acknowledged.get(view['id'], view['id'])} ended {view['state']} and nobody was told"
    for one in handed:
        if one.id is None and one.name not in world.errors:
            return f"{one.name} was handed over, never acknowledged and never refused"
    return None


def is_done_upkeep(view: dict[str, Any]) -> bool:
    """Whether it is an order of the runtime to itself, done or skipped with its reason: nobody is to be told of it."""
    order = view["payload"].get("compaction")
    done = view["state"] in ("answered", "skipped") and bool(view["detail"])
    return order is not None and order["by"] != "user" and done


async def delivery_state(world: World, args: Args) -> str | None:
    await find_heartbeats(world)
    input_id = world.input_id(args["input"])
    states = {row["state"] for row in await world.ledger("deliveries") if row["input_id"] == input_id}
    view = await input_view(world, args["input"])
    if not states and (view["detail"] or "").startswith(SILENT):
        states = {"silent"}
    if not states:
        return f"the answer of {args['input']} has no delivery"
    for state in states:
        wrong = one_of(state, args, words.DELIVERY_STATES, f"delivery of {args['input']}")
        if wrong:
            return wrong
    return None


async def user_notice(world: World, args: Args) -> str | None:
    if "process" in args:
        said = world.commands.get(args["process"])
        return f"{args['process']} said nothing" if said is None else told(f"{said.out}\n{said.err}", args)
    rows = [*await messages_of(world, args), *await announcements_of(world, args)]
    if args.get("absent"):
        rows = [row for row in rows if row["state"] not in ("answered", "superseded")]
        return f"{[row['text'] for row in rows]}" if rows else None
    texts = [row["text"] for row in rows]
    return None if any(told(text, args) is None for text in texts) else f"told: {texts}"


def told(text: str, args: Args) -> str | None:
    """Whether a text says what it should mention, and names the facts it should."""
    wanted = [*args["mentions"].split(), *args.get("fields", "").split(",")]
    stems = {
        "failed": ("failed", "could not be answered"), "run": ("run turn_",), "age": ("no life for ",),
        "process": ("process ", "pid "),
    }  # fmt: skip
    holds = all(any(stem in text.lower() for stem in stems.get(word, (word,))) for word in wanted if word)
    return None if holds else f"told: {text}"


# ── inputs and turns in the ledger ───────────────────────────────────────────────────────────────────────────────────


async def input_view(world: World, name: str) -> dict[str, Any]:
    await find_heartbeats(world)
    input_id = world.input_id(name)
    return next(row for row in await world.ledger("inputs") if row["id"] == input_id)


async def input_state(world: World, args: Args) -> str | None:
    view = await input_view(world, args["input"])
    return one_of(view["state"], args, words.INPUT_STATES, f"{args['input']} ({view['detail']})")


async def input_runs(world: World, args: Args) -> str | None:
    return counted(len(await world.runs(args["input"])), args, f"runs of {args['input']}")


async def turn_row(world: World, args: Args) -> dict[str, Any]:
    """The turn a fact names, or the last run of an input."""
    if "input" in args:
        runs = await world.runs(args["input"])
        if not runs:
            raise WorldError(f"{args['input']} was never run")
        return runs[-1]
    row = await world.turn(args["turn"])
    if row is None:
        raise WorldError(f"turn {args['turn']} never began")
    return row


async def turn_outcome(world: World, args: Args) -> str | None:
    row = await turn_row(world, args)
    what = f"turn {args.get('turn') or args['input']} ({row['detail']})"
    wrong = one_of(row["outcome"], args, words.TURN_OUTCOMES, what)
    if wrong is None and args.get("is") == "superseded":
        displaced = ("superseded", f"cancelled by {INTERRUPTED_BY}", f"cancelled by {RESET_BY}")
        wrong = None if (row["detail"] or "").startswith(displaced) else f"{what}: {row['outcome']}"
    return wrong


def verdict_of(world: World, row: dict[str, Any]) -> str:
    """The strongest verdict that a turn has met: the one it was lost for, else those of its windows."""
    if row["outcome"] == "taken_over":
        return (row["detail"] or "").split(":")[0]
    met = [one["data"]["verdict"] for one in world.journal("event")
           if one["kind"] == "turn.window" and one["turn"] == row["id"]]  # fmt: skip
    return met[-1] if met else "unchanged"


async def change_class(world: World, args: Args) -> str | None:
    row = await turn_row(world, args)
    return one_of(verdict_of(world, row), args, words.CHANGE_CLASSES, f"verdict of {args['turn']}")


async def error_class(world: World, args: Args) -> str | None:
    if "reader" in args:
        errors = [text for name, text in world.errors.items() if name.startswith("reader")]
        return None if (args["is"] == "none") == (not errors) else f"readers: {errors}"
    if "attempt" in args:
        turn, _, number = args["attempt"].partition(".")
        row = await turn_row(world, {"turn": turn})
        failed = [one for one in world.journal("event") if one["kind"] == "turn.fallback" and one["turn"] == row["id"]
                  and one["data"]["decision"] in ("candidate_failed", "history_mended")]  # fmt: skip
        decided = failed[int(number) - 1]["data"]["decision"] if len(failed) >= int(number) else "none"
        seen = {"candidate_failed": "provider", "history_mended": "replay_rejected"}.get(decided, decided)
        return None if seen == args["is"] else f"attempt {args['attempt']}: {seen}"
    row = await turn_row(world, args)
    decided = any(one["kind"] == "turn.fallback" and one["turn"] == row["id"] for one in world.journal("event"))
    seen = "none"
    if row["outcome"] in ("taken_over", "coordination"):
        seen = "coordination"
    elif decided:
        seen = "provider"
    elif row["outcome"] == "failed":
        seen = "failed"
    return None if seen == args["is"] else f"{args}: {seen} ({row['outcome']}: {row['detail']})"


def asks_of(world: World, turns: set[str]) -> list[dict[str, Any]]:
    return [row for row in world.journal("ask") if row["turn"] in turns]


async def turns_of(world: World, args: Args) -> set[str]:
    if "input" in args:
        return {row["id"] for row in await world.runs(args["input"])}
    row = await world.turn(args["turn"])
    return {row["id"]} if row is not None else set()


async def fallback_attempts(world: World, args: Args) -> str | None:
    asks = asks_of(world, await turns_of(world, args))
    models = list(dict.fromkeys(row["model"] for row in asks))
    return counted(max(0, len(models) - 1), args, f"models after the first ({models})")


async def provider_calls(world: World, args: Args) -> str | None:
    return counted(len(asks_of(world, await turns_of(world, args))), args, "requests at the provider")


async def model_used(world: World, args: Args) -> str | None:
    asks = asks_of(world, await turns_of(world, args))
    seen = asks[-1]["model"].split("/")[0] if asks else None
    return None if seen == args["is"] else f"{args['turn']} was answered by {seen}"


async def model_pin(world: World, args: Args) -> str | None:
    """The pin that is in force, by its provider's name; one whose attempt came to nothing is none."""
    key = world.key(args["session"])
    pins = [row for row in await world.ledger("pins") if row["session"] == key and row["holds"]]
    seen = pins[0]["model"].split("/")[0] if pins else "none"
    if seen != args["is"] or ("source" in args and pins[0]["source"] != args["source"]):
        return f"pin of {args['session']}: {pins or 'none'}"
    return None


async def auth_cooldown(world: World, args: Args) -> str | None:
    rows = [row for row in await world.ledger("cooldowns") if row["provider"] == args["provider"]]
    return None if (args["is"] == "none") == (not rows) else f"cool-downs of {args['provider']}: {rows}"


async def owner_count(world: World, args: Args) -> str | None:
    """Turns of one transcript at the same time: overlapping requests at the provider, or lines between each other's."""
    session = args.get("session") or args["file"]
    sessions = await world.ledger("sessions")
    path = next((where_of(row) for row in sessions if row["key"] == world.key(session)), None)
    keys = {row["key"] for row in sessions if where_of(row) == path}
    turns = {row["id"] for row in await world.ledger("turns") if row["session"] in keys}
    most = 0
    asking: dict[str, str] = {}
    for row in world.journal():
        if row["what"] == "ask" and row["turn"] in turns:
            asking[row["turn"]] = row["process"]
        elif row["what"] == "asked":
            asking.pop(row["turn"], None)
        elif row["what"] == "died":  # nobody asks in a process that is no more
            asking = {turn: process for turn, process in asking.items() if process != row["process"]}
        most = max(most, len(asking))
    spans: list[str] = []
    for line in await lines_of(world, session):
        origin = line.get("holdfast") or {}
        if origin.get("writer") == "turn" and (not spans or spans[-1] != origin["turn"]):
            spans.append(origin["turn"])
    if len(spans) != len(set(spans)):
        most = max(most, 2)
    running = sum(row["state"] == "running" and row["id"] in turns for row in await world.ledger("turns"))
    seen = running if args.get("max") == 0 else max(most, min(1, len(turns)))
    return counted(seen, args, f"owners of {session}")


def where_of(row: dict[str, Any]) -> str:
    """What tells transcripts apart: the file, or where there are none, their name."""
    return str(Path(row["path"]).resolve()) if row["path"] else row["transcript"]


async def lane_free(world: World, args: Args) -> str | None:
    """Nothing of the session is left, and its newest input did not stand in line for longer than it may."""
    rows = [row for row in await world.ledger("inputs") if row["session"] == world.key(args["session"])]
    left = [row["id"] for row in rows if row["state"] in ("queued", "running")]
    if left or not rows:
        return f"still there: {left}"
    newest = max(rows, key=lambda row: (row["accepted_at_ms"], row["id"]))
    runs = [row["started_at_ms"] for row in await world.ledger("turns") if row["input_id"] == newest["id"]]
    if newest["state"] == "cancelled" and not runs:
        return None
    waited_s = (min(runs) - newest["accepted_at_ms"]) / 1000
    return None if waited_s <= args["within_s"] else f"the newest input waited {waited_s:g} s"


async def lock_free(world: World, args: Args) -> str | None:
    """Somebody can write, and no lock file stands beside the transcript."""
    left = Path(f"{await world.transcript(args['session'])}.lock")
    if left.exists():
        return f"left behind: {left.name}"
    before = world.passed_s
    await world.process().do("metadata", session=world.key(args["session"]), kind="custom", text="is it free?")
    took = world.passed_s - before
    return None if took <= args["within_s"] else f"free after {took:g} s"


async def lock_owner_named(world: World, args: Args) -> str | None:
    """Who had the session, told after the end: of each of its turns the run, the process and the start."""
    rows = [row for row in await world.ledger("turns") if row["session"] == world.key(args["session"])]
    story = {"run": "id", "process": "process", "start": "started_at_ms"}
    unknown = [field for field in args["fields"].split(",") if field not in story]
    if unknown:
        raise ScenarioError(f"the story of an owner has no {', '.join(unknown)}")
    missing = [(row["id"], field) for row in rows for field in args["fields"].split(",") if not row[story[field]]]
    return f"not told: {missing}" if missing or not rows else None


async def queue_depth(world: World, args: Args) -> str | None:
    if args.get("queue") == "delivery":
        seen = sum(row["state"] in ("pending", "started", "unknown") for row in await world.ledger("deliveries"))
    else:
        key = world.key(args["session"])
        seen = sum(row["session"] == key and row["state"] == "queued" for row in await world.ledger("inputs"))
    return None if seen == args["is"] else f"waiting: {seen}"


# ── logs, processes, files, time ─────────────────────────────────────────────────────────────────────────────────────


def log_texts(world: World, name: str) -> list[str]:
    pattern = words.LOG_RECORDS.get(name)
    if pattern is None:
        raise ScenarioError(f"unknown log record {name!r}; there are: {', '.join(words.LOG_RECORDS)}")
    said = [line for one in world.commands.values() for line in f"{one.out}\n{one.err}".splitlines()]
    return [text for text in (*(row["text"] for row in world.journal("log")), *said) if re.search(pattern, text)]


NAMES_WHAT_IT_IS_ABOUT = {
    "waiting_for_session_lock", "coordination_seen_during_provider_failure", "stale_owner_cleared",
    "possible_duplicate", "recovery_verified", "lock_release_failed", "maintenance_deferred", "late_write_rejected",
}  # fmt: skip


async def is_about(world: World, args: Args, text: str) -> bool:
    """Whether a record gives the reason, and names what the scenario asks about: the turn or input, or its session or
    transcript.
    """
    reason = args.get("reason")
    if reason is not None and str(words.LOG_REASONS.get(reason, reason)) not in text:
        return False
    if args["name"] not in NAMES_WHAT_IT_IS_ABOUT:
        return True
    names: list[str] = []
    session = args.get("session")
    if "run" in args:
        return (await turn_row(world, {"turn": args["run"]}))["id"] in text
    if "turn" in args:
        row = await turn_row(world, args)
        names += [row["id"], row["input_id"]]
        session = world.inputs[world.turn_name(args["turn"]).input].session
    if "input" in args:
        input_id = world.input_id(args["input"])
        names += [input_id, *(row["id"] for row in await world.ledger("deliveries") if row["input_id"] == input_id)]
    if session is not None:
        names += [world.key(session), str(await world.transcript(session))]
        names += [row["transcript"] for row in await world.ledger("sessions") if row["key"] == world.key(session)]
    return any(name in text for name in names)


async def turn_ends(world: World, args: Args) -> str | None:
    """`turn_end`: the event `turn.settled` that watchers get, with the outcome that the ledger has for the turn."""
    row = await turn_row(world, args)
    wrong = one_of(row["outcome"], {"is": args["outcome"]}, words.TURN_OUTCOMES, f"end of {args['turn']}")
    ends = [one for one in world.journal("event") if one["kind"] == "turn.settled" and one["turn"] == row["id"]]
    return wrong or counted(len(ends), {"count": args.get("count", 1)}, f"ends of {args['turn']}")


async def recovery_actions(world: World, args: Args) -> str | None:
    """Turns of a session that were ended by recovery, whoever did it."""
    seen = [text for text in log_texts(world, "recovery_verified") if key_in(text, world.key(args["session"]))]
    return counted(len(seen), args, "recoveries")


def key_in(text: str, key: str) -> bool:
    """Whether a record of recovery is about a session; a transcript that sessions share has all their keys there."""
    named = re.search(r" session=(\S+)", text)
    return named is not None and key in named[1].split(",")


async def stopped_for_a_user(world: World) -> str | None:
    """Turns, and words to people, that say that somebody wanted it."""
    turns = [row["detail"] for row in await world.ledger("turns") if row["outcome"] == "cancelled"]
    said = [row["text"] for row in world.journal("message") if re.search(r"^Stopped\.|by (the )?user", row["text"])]
    return f"{turns + said}" if turns or said else None


async def acknowledged_and_unknown(world: World) -> str | None:
    known = {row["id"] for row in await world.ledger("inputs")}
    lost = [row["key"] for row in world.journal("acknowledged") if row["input"] not in known]
    return f"acknowledged and not in the ledger: {lost}" if lost else None


async def log_event(world: World, args: Args) -> str | None:
    if args["name"] == "turn_end":
        return await turn_ends(world, args)
    seen = [text for text in log_texts(world, args["name"]) if await is_about(world, args, text)]
    wanted = {"count": args["count"]} if "count" in args else {"min": args.get("count_min", 1)}
    return counted(len(seen), wanted, f"records of {args['name']} among "
                   f"{[row['text'][:100] for row in world.journal('log')]}")  # fmt: skip


async def log_absent(world: World, args: Args) -> str | None:
    if args["name"] == "acked_without_record":
        return await acknowledged_and_unknown(world)
    if args["name"] == "aborted_by_user":
        return await stopped_for_a_user(world)
    seen = log_texts(world, args["name"])
    return f"{seen}" if seen else None


async def exit_code(world: World, args: Args) -> str | None:
    seen = world.exit_codes.get(args["process"])
    if args.get("reflects") == "result":
        good = await is_repaired(world, args["process"])
        return (
            None if (seen == 0) == good else f"exit code {seen}, and the repair {'has' if good else 'has not'} worked"
        )
    if args["is"] == "nonzero":
        return None if seen else f"exit code {seen}"
    return None if seen == args["is"] else f"exit code {seen}"


async def process_alive(world: World, args: Args) -> str | None:
    process = world.processes.get(args["process"])
    if process is None or not process.alive:
        return "it has ended"
    await process.do("sessions")
    return None


async def file_kept(world: World, args: Args) -> str | None:
    if args.get("home") is not None:
        before = world.untouched.get(args["home"])
        after = files_of(world.folder / args["home"])
        names = {name for name in {*(before or {}), *after} if not world.by_people or name.endswith(".jsonl")}
        changed = [] if before is None else [name for name in names if before.get(name) != after.get(name)]
        return "the folder was never looked at" if before is None else f"changed: {changed}" if changed else None
    session, what = args["session"].removesuffix(".old"), args["what"]  # a new conversation goes on in the same file
    path = await world.transcript(session)
    beside = [one.read_bytes() for one in path.parent.iterdir() if one.is_file()]
    if what == "transcript":
        before = world.saved.get(f"{session}.before")
        if before is None:
            return None if path.stat().st_size else "the transcript is empty"
        return None if any(before in data for data in beside) else "the lines from before are gone"
    if what == "torn_bytes":
        torn = world.saved[f"{session}.torn"]
        return None if torn and any(torn in data for data in beside) else f"gone: {torn[:60]!r}"
    raise ScenarioError(f"unknown thing to keep {what!r}")


async def index_matches(world: World, args: Args) -> str | None:
    rows = await world.ledger("sessions")
    listed = {str(Path(row["path"]).resolve()) for row in rows if row["path"]}
    files = [one for one in (world.state / "sessions").rglob("*.jsonl") if ".kept-" not in one.name]  # kept answers
    there = {str(one.resolve()) for one in files}
    if world.database is not None:
        wrong = world.database.index_fault()
        if wrong:
            return wrong
    elif listed != there:
        return f"listed: {sorted(listed)}, on disk: {sorted(there)}"
    if world.key(args["session"]) not in {row["key"] for row in rows}:
        return f"{args['session']} is not listed"
    return None


async def elapsed(world: World, args: Args) -> str | None:
    """From the handing over to the event."""
    event = args["event"]
    if event == "tool_end":
        begun, ended = world.journal("tool"), world.journal("tool_ended")
        took = max((seconds_between(world, *two) for two in zip(begun, ended, strict=True)), default=None)
        return None if took is not None and took <= args["max_s"] else f"tools took {took} s"
    if event == "result_handled":
        return await result_handled(world, args)
    name, what = event_of(world, event)
    input_id = world.resets[0].id if what == "reset" else world.input_id(name)
    came = next(row for row in [*world.journal("acknowledged"), *accepted_events(world)] if row["input"] == input_id)
    runs = {row["id"] for row in await world.ledger("turns") if row["input_id"] == input_id}
    wanted = {
        "request": [row for row in world.journal("ask") if row["turn"] in runs],
        "start": [row for row in world.journal("event") if row["kind"] == "turn.started" and row["turn"] in runs],
        "reply": await messages_of(world, {"input": name}) if what == "reply" else [],
        "notice": [row for row in await messages_of(world, {"input": name}) if "held by" in row["text"]]
        if what == "notice"
        else [],
        "reset": [row for row in world.journal("event") if row["kind"] == "turn.settled" and row["input"] == input_id],
    }[what]
    if not wanted:
        return f"{event} never came"
    took = seconds_between(world, came, wanted[0])
    return None if took <= args["max_s"] else f"{event} after {took:.1f} s"


def accepted_events(world: World) -> list[dict[str, Any]]:
    """Inputs that nobody has handed over: a timer's."""
    return [row for row in world.journal("event") if row["kind"] == "input.accepted"]


def seconds_between(world: World, first: dict[str, Any], last: dict[str, Any]) -> float:
    """By the world's clock, by the processor time of the process in which both happened, and, where a write lock is
    held, by the real clock, on which it is waited for. The longest counts; how busy the machine is does not.
    """
    took = [(last["at_ms"] - first["at_ms"]) / 1000]
    if last["process"] == first["process"]:
        took.append(last["cpu_s"] - first["cpu_s"])
    if world.holds_locks:
        took.append(last["real_s"] - first["real_s"])
    return max(took)


def event_of(world: World, event: str) -> tuple[str, str]:
    """The input that an event is about, and which of its moments: e.g. "second_reply", "m1_start", "t2_lock"."""
    first, _, moment = event.partition("_")
    order = {"first": 0, "second": 1}
    if event == "notice":
        return list(world.inputs)[-1], "notice"
    if event == "reset" and world.resets:
        return "reset", "reset"
    if first in order and moment in ("request", "reply"):
        said = [one.name for one in world.inputs.values() if one.lane != "heartbeat"]  # which nobody said
        return said[order[first]], moment
    if first in world.inputs and moment == "start":
        return first, "start"
    if first in world.turns and moment == "lock":
        return world.turns[first].input, "start"
    if first in world.turns and moment == "end":
        return world.turns[first].input, "reply"
    raise ScenarioError(f"unknown event {event!r}")


TABLE: dict[str, Fact] = {
    "auth_cooldown": auth_cooldown, "model_pin": model_pin, "job_runs": job_runs, "session_key": session_key,
    "branch_reaches": branch_reaches, "change_class": change_class, "delivery_state": delivery_state,
    "elapsed": elapsed, "error_class": error_class, "exit_code": exit_code, "fallback_attempts": fallback_attempts,
    "file_kept": file_kept, "index_matches": index_matches, "input_runs": input_runs, "input_state": input_state,
    "lane_free": lane_free, "lock_free": lock_free, "lock_owner_named": lock_owner_named, "log_absent": log_absent,
    "log_event": log_event, "model_used": model_used, "no_silent_loss": no_silent_loss, "owner_count": owner_count,
    "process_alive": process_alive, "provider_calls": provider_calls, "queue_depth": queue_depth,
    "recovery_actions": recovery_actions, "second_owner_refused": second_owner_refused, "replay_valid": replay_valid,
    "replies_delivered": replies_delivered,
    "transcript_has": transcript_has,
    "transcript_lacks": transcript_lacks, "transcript_valid": transcript_valid, "turn_outcome": turn_outcome,
    "user_notice": user_notice,
}  # fmt: skip
