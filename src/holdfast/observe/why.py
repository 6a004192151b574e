"""`holdfast why`: the chain from input to outcome, in plain words, each line with its time and where it can be
checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from holdfast.doctor.pins import pin_in_words
from holdfast.errors import UnknownInputError
from holdfast.inbound.child import Child
from holdfast.model.usage import call_in_words
from holdfast.recovery.progress import words_of
from holdfast.store.protocol import Store
from holdfast.store.views import DeliveryView, InputView, TurnView, WhyLine, WhyReport

TEXT_SHOWN = 120
NOTHING: Mapping[str, WhyLine] = MappingProxyType({})


async def build_report(store: Store, target: str, working: Mapping[str, WhyLine] = NOTHING) -> WhyReport:
    """The story of an input, a turn, a sub-agent, or the newest input of a session.

    Args:
        working: what turns that run do at this moment, by their ids.

    Raises:
        UnknownInputError: nothing of that name.
    """
    if target.startswith("turn_"):
        turn = await store.turn(target)
        if turn is None:
            raise UnknownInputError(f"no turn {target!r}; `holdfast turns` lists them")
        if turn.input_id is None:
            return await _of_turn(store, turn, working)
        target = turn.input_id
    if target.startswith("child_"):
        child = await store.child(target)
        if child is None:
            raise UnknownInputError(f"no sub-agent {target!r}; `holdfast children` lists them")
        return await _of_child(store, child, working)
    if not target.startswith("in_"):
        newest = await store.inputs(session=target, state=None, limit=1)
        if not newest:
            raise UnknownInputError(f"no input, turn or session {target!r}; `holdfast inputs` lists inputs")
        target = newest[0].id
    return await _of_input(store, await store.input(target), working)


async def _of_input(store: Store, view: InputView, working: Mapping[str, WhyLine]) -> WhyReport:
    accepted = f"accepted from {view.source} for {view.session}, lane {view.lane}: {_said(view.payload)}"
    lines = [WhyLine(view.accepted_at_ms, accepted, f"inputs:{view.id}")]
    turns = await store.turns_of(view.id)
    lines.extend(_turn_began(turn) for turn in turns)
    lines.extend(_event_line(event) for event in await store.events(input_id=view.id))
    for turn in turns:
        lines.extend(await _used_in(store, turn))
    lines.extend(_turn_ended(turn) for turn in turns if turn.ended_at_ms is not None)
    lines.extend(working[turn.id] for turn in turns if turn.state == "running" and turn.id in working)
    if view.state == "queued":
        where = f"{view.position} before it" if view.position else "next on its session"
        lines.append(WhyLine(view.accepted_at_ms, f"waiting: {where}", f"inputs:{view.id}"))
        hold = await store.held()
        if hold is not None:
            lines.append(WhyLine(hold.since_ms, f"work is held back: {hold.way_out}", "holds"))
    if view.settled and view.settled_at_ms is not None:
        because = f" ({view.detail})" if view.detail else ""
        attempts = f" after {view.attempts} attempts" if view.attempts > 1 else ""
        lines.append(WhyLine(view.settled_at_ms, f"ended as {view.state}{attempts}{because}", f"inputs:{view.id}"))
    lines.extend(await _pinned(store, view))
    deliveries = await store.deliveries(state=None, limit=1000, input_id=view.id)
    lines.extend(WhyLine(d.updated_at_ms, _delivered(d), f"outbox:{d.id}") for d in deliveries)
    lines.sort(key=lambda line: line.at_ms)  # stable: what happened in the same millisecond stays as listed
    return WhyReport(view.id, "input", view.session, view.state, lines)


async def _pinned(store: Store, view: InputView) -> list[WhyLine]:
    """The session's model, where that is not the configured one: as far as it was so before the input had ended."""
    return [
        WhyLine(pin.set_at_ms, f"the session was {pin_in_words(pin)}", f"model_pins:{pin.session}")
        for pin in await store.pin_facts(view.session)
        if view.settled_at_ms is None or pin.set_at_ms <= view.settled_at_ms
    ]


async def _of_turn(store: Store, turn: TurnView, working: Mapping[str, WhyLine]) -> WhyReport:
    lines = [_turn_began(turn), *(_event_line(event) for event in await store.events(turn=turn.id))]
    lines.extend(await _used_in(store, turn))
    if turn.ended_at_ms is not None:
        lines.append(_turn_ended(turn))
    elif turn.id in working:
        lines.append(working[turn.id])
    lines.sort(key=lambda line: line.at_ms)
    return WhyReport(turn.id, "turn", turn.session, turn.outcome or turn.state, lines)


async def _of_child(store: Store, child: Child, working: Mapping[str, WhyLine]) -> WhyReport:
    """From the task that was given away to the input of the parent that brings its end."""
    by = f"spawned by {child.parent_session}, for {child.parent_input or child.parent_turn or 'a program'}"
    given = f"{by}: {child.label!r}, depth {child.depth}, rights of lane {child.rights}, at most {child.timeout_s:g} s"
    lines = [WhyLine(child.spawned_at_ms, given, f"children:{child.id}")]
    for input_id in dict.fromkeys([child.input_id, child.last_input]):
        lines.extend((await _of_input(store, await store.input(input_id), working)).lines)
    if child.stop_by is not None:
        stopped = f"stopped with its parent's work, by {child.stop_by}: nobody is told anew"
        lines.append(WhyLine(child.ended_at_ms or child.spawned_at_ms, stopped, f"children:{child.id}"))
    if child.announce_id is not None:
        told = await store.input(child.announce_id)
        text = f"its end was announced to {child.parent_session} as {told.id}, which is {told.state}"
        lines.append(WhyLine(told.accepted_at_ms, text, f"inputs:{told.id}"))
    lines.sort(key=lambda line: line.at_ms)
    return WhyReport(child.id, "child", child.session, child.state, lines)


async def _used_in(store: Store, turn: TurnView) -> list[WhyLine]:
    """What its model calls used, each at its end; one that is under way where it began."""
    return [
        WhyLine(one.ended_at_ms or one.began_at_ms, call_in_words(one), f"model_calls:{one.id}")
        for one in await store.calls_of(turn.id)
    ]


def _turn_began(turn: TurnView) -> WhyLine:
    text = f"turn {turn.id} took the session: epoch {turn.epoch}, lane {turn.lane}, process {turn.process}"
    return WhyLine(turn.started_at_ms, text, f"turns:{turn.id}")


def _turn_ended(turn: TurnView) -> WhyLine:
    because = f" ({turn.detail})" if turn.detail else ""
    return WhyLine(turn.ended_at_ms or 0, f"the turn ended: {turn.outcome}{because}", f"turns:{turn.id}")


def _event_line(event: dict[str, Any]) -> WhyLine:
    return WhyLine(event["at_ms"], describe_event(event["kind"], event["data"]), f"events:{event['seq']}")


def describe_event(kind: str, data: dict[str, Any]) -> str:
    """One event of a turn's story in words. Kinds without words of their own are shown as they are."""
    words = _WORDS.get(kind)
    if words is not None:
        return words(data)
    facts = ", ".join(f"{name}={value}" for name, value in data.items() if value is not None)
    return f"{kind} {facts}".strip()


_WORDS = {
    "turn.history": lambda d: f"the client's history and the session: {d['history']}",
    "turn.began_anew": lambda d: f"a new conversation began here: {d['why']}; what was said before is kept",
    "turn.trimmed": lambda d: f"{d['dropped']} old messages were left out to fit the model's window",
    "turn.compaction": lambda d: _compaction(d),
    "turn.memory_flush": lambda d: _memory_flush(d),
    "turn.memory_note": lambda d: f"note by {d['name']}{' failed' if d['is_error'] else ''}",
    "turn.too_long": lambda d: f"the context was refused as too long (about {d['tokens']} tokens): {d['detail']}",
    "turn.spending": lambda d: d.get("held") or f"spending comes near a limit: {d['near']}",
    "turn.discarded": lambda d: f"what had been streamed is kept for people, not as the answer: {d['reason']}",
    "turn.found": lambda d: f"found on taking the session: {d['detail']}",
    "turn.model": lambda d: f"asked {d['model']} (step {d['step']}); write lock released",
    "turn.window": lambda d: (
        f"the transcript had changed meanwhile: {d['verdict']} ({d['detail'] or 'nothing foreign'})"
    ),
    "transcript.metadata": lambda d: f"process {d['process']} added metadata, up to byte {d['end']}",
    "turn.answer": lambda d: f"{d['model']} answered ({d['finish']})",
    "turn.fallback": lambda d: _fallback(d),
    "turn.took_in": lambda d: (
        f"turn {d['turn']} took it in {'after a step' if d['how'] == 'steer' else 'with others'}, for {d['input']}"
    ),
    "turn.joined": lambda d: f"took in {d['id']} ({d['how']})",
    "turn.model_state": lambda d: _model_state(d),
    "turn.tool_call": lambda d: f"tool {d['name']} called ({d['id']})",
    "turn.tool_result": lambda d: f"tool {d['name']} returned{' an error' if d['is_error'] else ''}",
    "turn.cancel_requested": lambda d: f"{d['by']} asked for an end",
    "input.held_up": lambda d: f"its conversation is held up by {d['holder']}",
    "turn.yielded": lambda d: f"gave way to {d['to']}, which waits in a better lane",
    "turn.timed_out": lambda d: f"its own limit ended it: {d['why']}",
    "turn.stopped_by_recovery": lambda d: f"recovery asked it to end: {d['why']}",
    "session.long_running": lambda d: f"works for {d['running_s']} s now: {_work(d)}",
    "session.stalled": lambda d: f"stands still ({d['reason']}): {_work(d)}; {d['next']}",
    "session.stuck": lambda d: f"nothing of it lives ({d['reason']}): {_work(d)}; {d['next']}",
    "session.recovery.requested": lambda d: f"recovery: {d['action']}, since {d['reason']}",
    "session.recovery.completed": lambda d: f"recovery was {d['outcome']}: {d['detail']}",
    "turn.salvaged": lambda d: f"the session was lost; the finished answer is kept in {d['where']}",
    "turn.died": lambda d: f"its turn died: {d['detail']}",
    "child.spawned": lambda d: f"gave a task to sub-agent {d['label']!r} ({d['child']})",
    "child.task": lambda d: f"the task of {d['child']}, given by {d['parent']} ({d['of'] or 'a program'})",
    "child.announced": lambda d: (
        f"sub-agent {d['label']!r} ({d['child']}) ended as {d['outcome']}; told by {d['input']}"
    ),
    "child.stopped": lambda d: f"sub-agent {d['label']!r} ({d['child']}) was stopped with its parent's work",
    "tool.loop": lambda d: f"tool {d['name']} was not run: the calls go in circles ({d['loop']})",
    "tool.denied": lambda d: f"tool {d['name']} was denied: {d['why']}",
    "tool.granted": lambda d: f"tool {d['name']} needed no question: {d['by']} has allowed it for this conversation",
    "approval.asked": lambda d: f"a person was asked whether {d['tool']} may run ({d['approval']}: {d['why']})",
    "approval.approved": lambda d: f"{d['approval']}: allowed by {d['by']}, {_scope(d['scope'])}",
    "approval.denied": lambda d: f"{d['approval']}: {d['by']} has said no",
    "approval.used": lambda d: f"{d['approval']}: used, {d['tool']} runs",
    "approval.expired": lambda d: f"{d['approval']}: nobody has answered in time",
    "approval.void": lambda d: f"{d['approval']}: void, nobody waits for the answer any more",
    "background.began": lambda d: f"started {d['background']} in the background: {d['title']}",
    "background.ended": lambda d: f"{d['background']} has ended ({d['outcome']}, code {d['code']})",
    "background.announced": lambda d: f"the end of {d['background']} was told by {d['input']}",
    "background.stopped": lambda d: f"{d['background']} was stopped with the work of its session",
    "message.sent": lambda d: (
        f"message {d['message']} to {d['to']}" + (f", by way of session {d['known_in']}" if d["known_in"] else "")
    ),
    "delivery": lambda d: (
        f"delivery to {d['channel']}:{d['target']}, {_part(d['part'])}, {_DELIVERY_WORDS.get(d['event'], d['event'])}"
        + (f" ({d['detail']})" if d["detail"] else "")
    ),
}


_DELIVERY_WORDS = {
    "start": "handed to the channel",
    "confirm": "confirmed by the channel",
    "confirm_piece": "its first piece confirmed, more to come",
    "refuse": "refused, to be tried again",
    "give_up": "given up",
    "sender_died": "its sender died before it knew",
    "resend_past_stalled": "its sender stands still; a labelled copy begun",
    "report_stalled": "given up: its sender stands still, and nobody can tell whether it has arrived",
    "lose_track": "its fate is unknown",
    "found": "found on the platform",
    "found_piece": "its first piece found on the platform, more to come",
    "not_found": "not on the platform, to be sent again",
    "resend_labelled": "sent again with a label",
    "repeat": "sent again in a way that makes no second message",
    "report": "reported as failed",
    "expire": "given up: it stood still for too long",
    "retry": "to be sent again by somebody's wish",
    "drop": "dropped by somebody's wish",
}


def _scope(scope: str) -> str:
    return "this once" if scope == "once" else "and calls like it in this conversation"


def _work(data: dict[str, Any]) -> str:
    pid = f" (pid {data['pid']})" if data["pid"] is not None else ""
    doing = f"{words_of(data['doing'], data['name'])} for {data['doing_s']} s" if data["doing"] else "nothing known"
    return f"process {data['process']}{pid}, lane {data['lane']}, {doing}, nothing heard for {data['still_s']} s"


def _fallback(data: dict[str, Any]) -> str:
    who = data["candidate"] + (f" (key {data['key']})" if data.get("key") else "")
    match data["decision"]:
        case "candidate_failed":
            following = f"; next {data['next']}" if data.get("next") else "; no model left"
            return f"{who} failed ({data['reason']}: {data['detail']}){following}"
        case "candidate_succeeded":
            instead = f" in place of {data['requested']}" if data["requested"] != data["candidate"] else " after all"
            return f"{who} answered{instead}"
        case "candidate_skipped":
            following = f"; next {data['next']}" if data.get("next") else ""
            return f"{who} was passed over ({data['reason']}: {data['detail']}){following}"
        case "history_mended":
            return f"{who} did not take the history, which is shown without thinking from here on ({data['detail']})"
        case "candidate_waits" | "probe_cooldown_candidate":
            return f"{who} is {data['detail']} ({data['reason']})"
        case _:
            return f"all models failed: {data['detail']}"


_COMPACTION_CAUSES = {
    "threshold": "little room was left",
    "room": "there was no room for it",
    "overflow": "it was refused as too long",
    "hand": "somebody asked for it",
}


def _memory_flush(data: dict[str, Any]) -> str:
    if data["phase"] == "began":
        return "before the conversation is shortened its agent may note what should be known later"
    if data["phase"] == "done":
        return f"the agent has noted what it wanted to, in {data['calls']} calls"
    return f"memory flush: {data['reason']}" + (f", after {data['calls']} calls" if data["calls"] else "")


def _compaction(data: dict[str, Any]) -> str:
    match data["phase"]:
        case "began":
            cause = _COMPACTION_CAUSES.get(data["why"], data["why"])
            return f"a summary of the conversation is being written: {cause}; write lock released"
        case "refused":
            return f"a summary was not used: {data['reason']}"
        case "done":
            how = "" if data["how"] == "model" else ", with an extract for a summary"
            return f"the conversation was shortened from about {data['before']} tokens to {data['after']}{how}"
        case _:
            return f"the conversation was not shortened: {data['reason']}"


def _model_state(data: dict[str, Any]) -> str:
    told = f"; told to {data['told']}" if data["told"] else ""
    if data["active"] is None:
        return f"{data['selected']} answers this session again{told}"
    return f"from now on {data['active']} answers in place of {data['selected']} ({data['reason']}){told}"


def _said(payload: dict[str, Any]) -> str:
    content = payload.get("content")
    if content is None:
        messages = payload.get("messages") or [{}]
        content = messages[-1].get("content", "")
    text = content if isinstance(content, str) else " ".join(part.get("text", "[image]") for part in content)
    short = text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + "…"
    return repr(short)


def _delivered(delivery: DeliveryView) -> str:
    detail = f" ({delivery.detail})" if delivery.detail else ""
    return f"delivery to {delivery.route}, {_part(delivery.part)}: {delivery.state}{detail}"


def _part(part: int) -> str:
    return f"part {part + 1}" if part >= 0 else "a notice"
