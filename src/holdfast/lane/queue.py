"""What becomes of an input that finds its session busy: modes, the quiet window, what shares a turn, what a full queue
drops. Pure; the store keeps what is decided here, so that a restart finds the queue with its modes and its order.

    steer      taken into the running turn after its tool calls, before the next model call; else a turn of its own
    followup   a turn of its own, in order
    collect    what waits and may share a turn becomes one turn, once it has been quiet for a moment
    interrupt  the running turn is stopped (its work is kept for people); what waits becomes one turn

Source of modes, words and defaults: the queue of the re-imagined system (reference, "Queue modes").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from holdfast.errors import InputError

Mode = Literal["steer", "followup", "collect", "interrupt"]
Drop = Literal["summarize", "old", "new"]
How = Literal["steer", "merge"]

USER_LANE = "main"
"""Only what people say is steered, merged, dropped or interrupts; a machine's input always has a turn of its own."""

INTERRUPTED_BY = "a newer message"
"""How the request to stop is signed when a message interrupts a turn."""
RESET_BY = "/reset"
"""The same when a new conversation is asked for at once. Whoever is stopped by it is told so."""
WAITED_S = 2.0
"""A wait is mentioned to the sender once it has lasted this long."""
DEBOUNCE_MS_MAX = 60_000
CAP_MAX = 1_000
JOINED_MAX = 20
"""Inputs that one turn takes in at a time."""
BULLETS_MAX = 20
BULLET_CHARS_MAX = 140


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """How a session's queue behaves.

    Args:
        mode: see the module.
        debounce_ms: how long it must have been quiet before what waited behind a turn begins; each arrival restarts it.
        cap: inputs that may wait; then `drop` says what gives way.
        drop: "old": the oldest that waits; "summarize": the same, but a line about it stands before the next turn;
            "new": the one that arrives is refused.
    """

    mode: Mode = "steer"
    debounce_ms: int = 500
    cap: int = 20
    drop: Drop = "summarize"


PLAIN = QueueSettings(mode="followup", debounce_ms=0)
"""Every input a turn of its own, at once: of programs that bring a loop of their own."""


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_change(words: Sequence[str]) -> dict[str, Any]:
    """What `/queue` was told: a mode, `debounce:0.5s`, `cap:25`, `drop:old`, in any order; each at most once.

    Returns: the settings named, by field of `QueueSettings`.

    Raises:
        InputError: a word that is none of these; says which and what there is.
    """
    change: dict[str, Any] = {}
    for word in words:
        name, value = _read_word(word.strip().lower())
        if name in change:
            raise InputError(f"/queue: {name.removesuffix('_ms')} is given twice")
        change[name] = value
    return change


def _read_word(word: str) -> tuple[str, Any]:
    if word in get_args(Mode):
        return "mode", word
    name, _, value = word.partition(":")
    if name == "debounce" and (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s)?", value)):
        milliseconds = round(float(match[1]) * (1 if match[2] == "ms" else 1000))
        if milliseconds <= DEBOUNCE_MS_MAX:
            return "debounce_ms", milliseconds
    if name == "cap" and value.isdecimal() and len(value) < 10 and 1 <= int(value) <= CAP_MAX:
        return "cap", int(value)
    if name == "drop" and value in get_args(Drop):
        return "drop", value
    raise InputError(
        f"/queue: {word[:40]!r} is not understood; there are {', '.join(get_args(Mode))}, debounce:SECONDS (up to "
        f"{DEBOUNCE_MS_MAX // 1000}s), cap:NUMBER (up to {CAP_MAX}) and drop:{'|'.join(get_args(Drop))}"
    )


def with_change(settings: QueueSettings, change: Mapping[str, Any]) -> QueueSettings:
    """Settings with a change laid over them."""
    return replace(settings, **change)


def in_words(settings: QueueSettings) -> str:
    """The settings as `/queue` takes them."""
    quiet = f"{settings.debounce_ms / 1000:g}s"
    return f"{settings.mode} debounce:{quiet} cap:{settings.cap} drop:{settings.drop}"


# ── arriving ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Arrival:
    """How an input waits: what is kept of the settings with it."""

    mode: Mode
    debounce_ms: int


def arrive(settings: QueueSettings, *, waits: bool, lane: str, ahead: int) -> Arrival:
    """How an input joins the queue.

    Args:
        waits: its caller waits for its own answer.
        ahead: inputs of its transcript that run or wait; a session that is free starts at once.
    """
    if waits or lane != USER_LANE:
        return Arrival("followup", 0)
    return Arrival(settings.mode, settings.debounce_ms if ahead else 0)


def quiet_in_s(arrivals: Iterable[tuple[int, int]], now_ms: int) -> float:
    """How long it must still be quiet, by (accepted_at_ms, debounce_ms) of what waits on a transcript.

    A wall clock that was set back does not hold a queue up: an arrival in the future counts as long ago.
    """
    waits = [at + debounce - now_ms for at, debounce in arrivals if debounce and at <= now_ms]
    return max(0, *waits, 0) / 1000


# ── sharing a turn ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Place:
    """What decides whether two inputs may share a turn: one answer must be right for both, and go to one place."""

    id: str
    session: str
    lane: str
    channel: str | None
    target: str | None
    model: str | None
    waits: bool
    mode: Mode


def may_share(own: Place, other: Place) -> bool:
    """Whether `other` may be answered by the turn of `own`."""
    same_place = (own.session, own.lane, own.channel, own.target) == (
        other.session, other.lane, other.channel, other.target,
    )  # fmt: skip
    return same_place and own.lane == USER_LANE and not other.waits and other.model in (None, own.model)


def choose_joining(own: Place, waiting: Sequence[Place], how: How) -> list[Place]:
    """Which of the inputs that wait, oldest first, the turn of `own` takes in.

    Args:
        how: "merge": before the turn asks its model for the first time; "steer": at a later step.
    """
    modes = ("steer",) if how == "steer" else ("collect", "interrupt")
    if how == "merge" and own.mode not in modes:
        return []
    return [other for other in waiting if other.mode in modes and may_share(own, other)][:JOINED_MAX]


# ── a full queue ─────────────────────────────────────────────────────────────────────────────────────────────────────


def choose_dropped(arriving: Place, waiting: Sequence[Place]) -> Place | None:
    """What gives way to `arriving`: the oldest that waits for the same place, and whose caller does not."""
    return next((other for other in waiting if may_share(arriving, other)), None)


def summary_text(texts: Sequence[str]) -> str:
    """What stands before the next turn about inputs that were dropped, oldest first."""
    bullets = [f"- {_shorten(text)}" for text in texts[-BULLETS_MAX:]]
    left_out = len(texts) - len(bullets)
    if left_out:
        bullets.insert(0, f"- (and {left_out} before these)")
    count = "1 message was" if len(texts) == 1 else f"{len(texts)} messages were"
    return "\n".join([f"[{count} dropped because too many were waiting; in short:]", *bullets])


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= BULLET_CHARS_MAX else line[: BULLET_CHARS_MAX - 1] + "…"
