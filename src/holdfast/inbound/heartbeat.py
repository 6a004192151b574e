"""When an agent's heartbeat runs, when it is skipped and why, and what of its answer is for anybody. Pure.

A heartbeat is a turn that nobody asked for: the agent looks whether something needs attention. Most looks find nothing,
so most of this module is about not running, not speaking and not being in anybody's way. The file with its
instructions is read by `heartbeat_file.py`; the loop is `timers.py`. Rules and numbers: semantics.md 2.5.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from holdfast.errors import InputError
from holdfast.inbound.schedule import duration_ms, zone_of
from holdfast.outbox.message import is_silent

ACK_TOKEN = "HEARTBEAT_OK"  # a word of the protocol
ACK_CHARS_MAX = 300
MIN_SPACING_MS = 30_000
FLOOD_STARTS = 5
FLOOD_WINDOW_MS = 60_000
BUSY_RETRY_MS = 1000
COALESCE_MS = 250
DUPLICATE_WINDOW_MS = 24 * 3_600_000
FINAL_AGE_MS_MAX = 30_000
"""An answer that is not delivered yet holds a heartbeat back for so long; after that something else is wrong."""

BUSY = frozenset({"requests-in-flight", "cron-in-progress", "lanes-busy"})
"""Skips that pass by themselves: asked again after `BUSY_RETRY_MS`, with the same reason, for as long as it takes."""

Intent = Literal["scheduled", "event", "immediate", "manual", "task"]


# ── how often ────────────────────────────────────────────────────────────────────────────────────────────────────────


def interval_ms(text: str | None) -> int | None:
    """The pause between two heartbeats; a bare number is minutes. None: no heartbeat (`0m`, or no duration)."""
    return (duration_ms(text) if text is not None else None) or None


def next_tick(interval: int, seed: str, agent: str, after_ms: int) -> int:
    """The agent's next regular time. Its phase follows from seed and name, so that agents do not all wake together."""
    digest = hashlib.sha256(f"{seed}\0{agent}".encode("utf-8", "surrogatepass")).digest()
    phase = int.from_bytes(digest[:8], "big") % interval
    return phase + ((after_ms - phase) // interval + 1) * interval


def is_active(start: str | None, end: str | None, zone: str, at: datetime, *, user_zone: str = "UTC") -> bool:
    """Whether `at` is within the active hours: `start` counts, `end` does not; equal ones mean never.

    Args:
        start, end: `HH:MM` (`24:00`: midnight at the end of a day). If one of them is no time, there are no hours.
        zone: "user", "local" (both: `user_zone`), or an IANA name; one that is unknown counts as "user".
    """
    first, last = _minutes(start), _minutes(end)
    if first is None or last is None:
        return True
    try:
        here = zone_of(user_zone if zone in ("user", "local") else zone)
    except InputError:
        here = zone_of(user_zone)
    shown = at.astimezone(here)
    now = shown.hour * 60 + shown.minute
    return first <= now < last if first <= last else now >= first or now < last


def _minutes(text: str | None) -> int | None:
    found = re.fullmatch(r"(\d\d):(\d\d)", text or "")
    if found is None:
        return None
    hour, minute = int(found[1]), int(found[2])
    return hour * 60 + minute if minute < 60 and (hour < 24 or (hour, minute) == (24, 0)) else None


# ── what woke it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def normal_reason(reason: str | None) -> str:
    """The reason of a wake as it is kept: never blank."""
    return (reason or "").strip() or "requested"


def kind_of(reason: str | None) -> str:
    """The kind of a reason: "cron" of "cron:job-1", …; "other" for those not known."""
    text = (reason or "").strip()
    if text in ("interval", "manual", "exec-event", "retry", "wake"):
        return text
    for start, kind in (("cron:", "cron"), ("hook:", "hook"), ("acp:spawn:", "wake")):
        if text.startswith(start):
            return kind
    return "other"


def intent_of(reason: str | None) -> Intent:
    """How much a reason may pass over. Only a bare "wake" is immediate: streams of updates wake too, and are held."""
    text = (reason or "").strip()
    if text == "manual":
        return "manual"
    if text in ("wake", "background-task"):
        return "immediate"
    return "scheduled" if text in ("interval", "retry") else "event"


def strength(reason: str | None) -> int:
    """Of two reasons the stronger one names the run: retry < interval < default < action."""
    return {"retry": 0, "interval": 1, "manual": 3, "exec-event": 3, "hook": 3}.get(kind_of(reason), 2)


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that has been asked for: why, from when on, and whether it waits for something busy."""

    reason: str
    at_ms: int
    waits_busy: bool = False


def asked(pending: Pending | None, reason: str | None, at_ms: int) -> Pending:
    """Another request, joined with the one that waits: the stronger reason (of equals the later), the sooner time. The
    wait of a busy skip is not cut short.
    """
    reason = normal_reason(reason)
    if pending is None:
        return Pending(reason, at_ms)
    kept = reason if strength(reason) >= strength(pending.reason) else pending.reason
    return Pending(kept, pending.at_ms if pending.waits_busy else min(pending.at_ms, at_ms), pending.waits_busy)


def after_skip(pending: Pending, why: str, now_ms: int) -> Pending | None:
    """What waits after a skip: the same again for one that passes by itself or an error, else nothing."""
    return Pending(pending.reason, now_ms + BUSY_RETRY_MS, waits_busy=True) if why in BUSY | {"error"} else None


# ── whether it runs ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Defer:
    """Not now: why, and when to ask again."""

    reason: Literal["not-due", "min-spacing", "flood"]
    retry_at_ms: int


def gate(
    intent: Intent, now_ms: int, *, next_due_ms: int = 0, last_start_ms: int | None = None, starts: Sequence[int] = ()
) -> Defer | None:
    """Whether a run may begin now (None), or what it waits for.

    Args:
        next_due_ms: its next regular time. An event may come before it only if the agent has never run.
        starts: the latest starts, in any order.
    """
    if intent == "manual":
        return None
    if intent != "immediate":
        is_first_event = intent == "event" and last_start_ms is None
        if now_ms < next_due_ms and not is_first_event:
            return Defer("not-due", next_due_ms)
        if last_start_ms is not None and 0 <= now_ms - last_start_ms < MIN_SPACING_MS:
            return Defer("min-spacing", last_start_ms + MIN_SPACING_MS)
    recent = sorted(at for at in starts if now_ms - FLOOD_WINDOW_MS <= at <= now_ms)
    if len(recent) >= FLOOD_STARTS:
        return Defer("flood", recent[-FLOOD_STARTS] + FLOOD_WINDOW_MS + 1)
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a heartbeat finds when it wants to run.

    Args:
        in_flight: inputs that wait or run and would be disturbed: of the agent's sessions, or the heartbeat's own.
        undelivered_ms: age of the youngest answer of the session that has not gone out yet, and is no mere
            acknowledgement; None: there is none.
        cron_runs: a cron job's turn waits or runs.
        nested_busy: the agent's `cron-nested` or `subagent` lanes are in use.
        has_events: something happened that it is to be told of.
    """

    enabled: bool = True
    active: bool = True
    in_flight: bool = False
    undelivered_ms: int | None = None
    cron_runs: bool = False
    nested_busy: bool = False
    skip_when_busy: bool = False
    file_empty: bool = False
    tasks_only: bool = False
    tasks_due: int = 0
    has_events: bool = False
    can_show: bool = True
    direct_blocked: bool = False


def skip_reason(around: Surroundings, reason: str) -> str | None:
    """Why it does not run, the first reason that holds; None: it runs."""
    scheduled = intent_of(reason) == "scheduled" and not around.has_events
    undelivered = around.undelivered_ms is not None and around.undelivered_ms < FINAL_AGE_MS_MAX
    found = (
        ("disabled", not around.enabled),
        ("quiet-hours", not around.active),
        ("requests-in-flight", around.in_flight or undelivered),
        ("cron-in-progress", around.cron_runs),
        ("lanes-busy", around.skip_when_busy and around.nested_busy),
        ("empty-heartbeat-file", around.file_empty and scheduled),
        ("no-tasks-due", around.tasks_only and not around.tasks_due and scheduled),
        ("dm-blocked", around.direct_blocked),
        ("alerts-disabled", not around.can_show),
    )
    return next((why for why, holds in found if holds), None)


# ── what of its answer is for anybody ────────────────────────────────────────────────────────────────────────────────

_MARKUP = re.compile(r"<[^<>]{0,200}>|&nbsp;")
_EDGES = "*`~_ \t\r\n"
_AT_START = re.compile(rf"{ACK_TOKEN}(?!\w)[\s!-/:-@\[-`{{-~]*")
_AT_END = re.compile(rf"(?<!\w){ACK_TOKEN}[\s!-/:-@\[-`{{-~]{{0,4}}$")


@dataclass(frozen=True, slots=True)
class Acked:
    """A text without the acknowledgement. `skip`: nothing of it is for anybody."""

    text: str
    skip: bool
    stripped: bool


def strip_ack(text: str | None, *, heartbeat: bool, ack_chars_max: int = ACK_CHARS_MAX) -> Acked:
    """Take the token off both ends; in the middle it is text like any other.

    Args:
        heartbeat: the answer to a heartbeat, of which a rest of up to `ack_chars_max` characters is dropped, too.
            Else an ordinary reply, which is dropped only if nothing is left.
    """
    said = (text or "").strip()
    if not said:
        return Acked("", skip=True, stripped=False)
    bare = _MARKUP.sub(" ", said).strip(_EDGES)
    rest = _without_token(bare)
    if rest == bare:
        return Acked(said, skip=False, stripped=False)
    dropped = not rest or (heartbeat and len(rest) <= ack_chars_max)
    return Acked("" if dropped else rest, skip=dropped, stripped=True)


def _without_token(text: str) -> str:
    while True:
        rest = _AT_END.sub("", text)
        found = _AT_START.match(rest)
        if found is not None:
            rest = rest[found.end() :]
        rest = rest.strip(_EDGES) if rest != text else rest
        if rest == text:
            return text
        text = rest


def is_only_ack(replies: Sequence[tuple[str | None, bool]], ack_chars_max: int = ACK_CHARS_MAX) -> bool:
    """Whether nothing of what a job has said (text, has media) is worth sending. No reply at all is none either."""
    return all(
        (is_silent(text) or strip_ack(text, heartbeat=True, ack_chars_max=ack_chars_max).skip) and not media
        for text, media in replies
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """What becomes of an answer: "send" its text, or nothing because it is an "ack", a "duplicate" or "silent"."""

    kind: Literal["send", "ack", "duplicate", "silent"]
    text: str = ""


RESPONDED = "heartbeat"
"""Under this name the result of a heartbeat's input keeps what its tool `heartbeat_respond` has said."""
RESPONSE_CHARS_MAX = 20_000


def answer_of(answer: str | None, result: Mapping[str, Any] | None) -> str | None:
    """What a heartbeat has to say: what it has responded in so many words, else its answer.

    `notify` false is an acknowledgement, whatever the answer says. `notify` true is news; an answer that is only an
    acknowledgement is then no text for them.
    """
    said = (result or {}).get(RESPONDED)
    if not isinstance(said, dict):
        return answer
    if said.get("notify") is not True:
        return ACK_TOKEN
    return str(said.get("text") or "") or answer


def plan_reply(
    text: str | None, now_ms: int, *, last_text: str | None = None, last_sent_ms: int | None = None,
    show_ok: bool = False, show_alerts: bool = True, ack_chars_max: int = ACK_CHARS_MAX, prefix: str = "",
) -> Reply:  # fmt: skip
    """What of a heartbeat's answer is delivered.

    Args:
        last_text, last_sent_ms: what the last delivered heartbeat said, and when; the same again within a day is not.
        show_ok, show_alerts: whether acknowledgements, and everything else, are delivered.
        prefix: what the agent's replies begin with; not part of what it says.
    """
    said = (text or "").strip().removeprefix(prefix).strip()
    if is_silent(said):
        return Reply("silent")
    acked = strip_ack(said, heartbeat=True, ack_chars_max=ack_chars_max)
    if acked.skip:
        return Reply("send", ACK_TOKEN) if show_ok and acked.stripped else Reply("ack")
    if not show_alerts:
        return Reply("silent")
    repeats = last_text == acked.text and last_sent_ms is not None
    if repeats and last_sent_ms is not None and 0 <= now_ms - last_sent_ms < DUPLICATE_WINDOW_MS:
        return Reply("duplicate")
    return Reply("send", acked.text)


# ── what it is told of ───────────────────────────────────────────────────────────────────────────────────────────────

_NOISE = ("heartbeat poll", "heartbeat wake")


def is_exec_completion(event: str) -> bool:
    """Whether an event says that a command has ended."""
    return event.strip().lower().startswith("exec finished")


def is_cron_event(event: str) -> bool:
    """Whether an event says something: no blank, no acknowledgement, no noise of other heartbeats, no command's end."""
    text = event.strip()
    if not text or strip_ack(text, heartbeat=True).skip or is_exec_completion(text):
        return False
    return not text.lower().startswith(_NOISE)
