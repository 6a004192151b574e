"""Checks of work: claims have live holders, inputs an end or an owner, answers a delivery, pins a reason. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.doctor.facts import ClaimFact, DeliveryFact, StateFacts
from holdfast.doctor.finding import Finding
from holdfast.doctor.pins import pin_fault
from holdfast.outbox.message import is_silent

WAITS_LONG_MS = 10 * 60_000
"""Nothing waits for longer where somebody works; where nobody does, it is what people ask about."""


def find_dead_claims(facts: StateFacts) -> Iterator[Finding]:
    """A session that a dead process owns answers nobody until it is closed."""
    for one in facts.ledger.claims:
        if one.life == "dead":
            yield Finding(
                "claims", one.turn, f"{_claimed(one)}, which is dead", "--fix closes it, as `holdfast recover` does",
                mendable=True, passes=True,
            )  # fmt: skip
        elif one.life == "unknown":
            yield Finding(
                "claims", one.turn, f"{_claimed(one)}, and whether that lives cannot be told ({_no_sign(facts)})",
                "`holdfast recover --wait 120` watches its beat, and closes it if that stands still", passes=True,
            )  # fmt: skip
        elif one.turn_state != "running":
            yield Finding(
                "claims", one.turn, f"{_claimed(one)}, and that turn is {one.turn_state or 'unknown'}",
                f"end that process (pid {one.pid}); its claim is closed then", passes=True,
            )  # fmt: skip


def _no_sign(facts: StateFacts) -> str:
    if facts.database is None:
        return "its sentinel is gone"
    return "its row is gone, or its connection comes and goes"


def _claimed(one: ClaimFact) -> str:
    pid = f" (pid {one.pid})" if one.pid is not None else ""
    names = ", ".join(one.sessions) or one.transcript
    return f"{names} is owned by turn {one.turn} ({one.lane}) of process {one.process}{pid}"


def find_stray_turns(facts: StateFacts) -> Iterator[Finding]:
    """A turn that is called running and owns nothing does nothing."""
    for one in facts.ledger.strays:
        yield Finding(
            "claims", one.id, f"turn {one.id} of {one.session} is called running and owns nothing",
            "--fix closes its row", mendable=True, passes=True, about="stray",
        )  # fmt: skip


def find_stranded_inputs(facts: StateFacts) -> Iterator[Finding]:
    """An accepted input has ended, is owned, or stands in a queue that somebody looks after."""
    for one in facts.ledger.inputs:
        if not one.is_placed:
            yield Finding(
                "inputs", one.id, f"input {one.id} of {one.session} waits for a transcript that is not known",
                f"`holdfast stop {one.id}` ends it; send it again",
            )  # fmt: skip
        elif one.state == "running" and not one.is_owned:
            yield Finding(
                "inputs", one.id, f"input {one.id} of {one.session} is called running, and no turn runs it",
                "--fix puts it back in its place", mendable=True, passes=True,
            )  # fmt: skip
    waits = [one for one in facts.ledger.inputs if one.state == "queued" and one.is_placed]
    late = [one for one in waits if facts.at_ms - one.accepted_at_ms > WAITS_LONG_MS]
    if late and not facts.ledger.gateways and facts.ledger.held_since_ms is None:
        yield Finding(
            "inputs", "queue",
            f"{len(late)} input(s) wait for over {WAITS_LONG_MS // 60_000} minutes, such as {late[0].id} of "
            f"{late[0].session}, and no gateway runs",
            "start one: `holdfast up`", level="remark",
        )  # fmt: skip


def find_held_work(facts: StateFacts) -> Iterator[Finding]:
    """After a crash loop nothing is run until somebody says so."""
    if facts.ledger.held_since_ms is not None:
        yield Finding("held", "work", f"work is held back: {facts.ledger.held}", "`holdfast recover --release`")


def find_wrong_counts(facts: StateFacts) -> Iterator[Finding]:
    """The lengths of queues are kept, not counted: they decide who is refused."""
    for one in facts.ledger.counts:
        where = f"of transcript {one.transcript}" if one.transcript else "of all sessions"
        yield Finding(
            "queues", f"{one.transcript or 'all'}/{one.lane}",
            f"the queue {where} in lane {one.lane!r} is kept as {one.kept[0]} open and {one.kept[1]} waiting; "
            f"it has {one.true[0]} and {one.true[1]}",
            "--fix counts anew", mendable=True,
        )  # fmt: skip


def find_lost_answers(facts: StateFacts) -> Iterator[Finding]:
    """An answer with a route has a delivery, committed with it. Making one afterwards could send it a second time."""
    for one in facts.ledger.unsent:
        if not one.answer or is_silent(one.answer):
            continue
        yield Finding(
            "deliveries", one.id,
            f"input {one.id} of {one.session} was answered, and there is no delivery to {one.route}",
            f"`holdfast why {one.id}` has the answer; whether it was sent cannot be known, so it is not sent by itself",
        )  # fmt: skip


def find_stuck_deliveries(facts: StateFacts) -> Iterator[Finding]:
    """What has not arrived: given up, unknown, or waiting for somebody who sends it."""
    for one in facts.ledger.deliveries:
        to = f"delivery {one.id} of input {one.input} to {one.channel}:{one.target}"
        why = f" ({one.detail})" if one.detail else ""
        if one.state == "failed":
            yield Finding(
                "deliveries", one.id, f"{to} failed after {one.attempts} attempt(s){why}",
                f"`holdfast outbox retry {one.id}` once its cause is gone, or `holdfast outbox drop {one.id}`",
            )  # fmt: skip
        elif _waits_long(one, facts):
            yield Finding(
                "deliveries", one.id,
                f"{to} is {one.state} for {(facts.at_ms - one.updated_at_ms) // 60_000} minutes{why}",
                "a gateway that has this channel sends it: `holdfast up`; `holdfast outbox show` tells more",
                level="remark",
            )  # fmt: skip


def _waits_long(one: DeliveryFact, facts: StateFacts) -> bool:
    return one.life != "alive" and facts.at_ms - one.updated_at_ms > WAITS_LONG_MS


def find_bad_pins(facts: StateFacts) -> Iterator[Finding]:
    """A pin says who set it and why. An automatic one ends by itself; a user's may stay."""
    for pin in facts.ledger.pins:
        wrong = pin_fault(pin)
        if wrong:
            yield Finding(
                "pins", pin.session, f"{pin.session} is pinned to {pin.model} by {pin.by or 'nobody'}: {wrong}",
                "--fix takes it away; `holdfast model pin` sets one in your name", mendable=True, about=pin.id,
            )  # fmt: skip


def find_takeovers(facts: StateFacts) -> Iterator[Finding]:
    """Turns that lost their session to another writer: no fault of the state, and what people ask about."""
    by_session: dict[str, list[str]] = {}
    for turn, session in facts.ledger.taken_over:
        by_session.setdefault(session, []).append(turn)
    for session, turns in by_session.items():
        yield Finding(
            "takeovers", session,
            f"{session}: {len(turns)} turn(s) of the last week lost it to another writer, the newest {turns[0]}",
            f"`holdfast why {turns[0]}` says who wrote", level="remark",
        )  # fmt: skip
