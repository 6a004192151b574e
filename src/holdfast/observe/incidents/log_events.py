"""What a line of a gateway's log tells of: the failures that operators search for. Pure.

One line is at most one event. The words are those that Holdfast writes (its log lines are a part of its interface) and
those of OpenClaw's releases of 2026, both of which are read alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from holdfast.model.failure import classify
from holdfast.observe.incidents.log_lines import LogLine

Kind = Literal[
    "takeover",  # a turn found its session changed, and stopped
    "lock_timeout",  # a turn did not get a session's write lock
    "lane_error",  # a lane's task failed for another reason
    "candidate_failed",  # failover went on from a model
    "candidate_succeeded",
    "exhausted",  # no model was left
    "no_reply",  # a run ended before its reply
    "long_running",
    "stalled",
    "stuck",
    "recovery_requested",
    "recovery_completed",
]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened.

    Args:
        at_ms: UTC; None: the line does not tell.
        lane: as it was written, for the three kinds of a lane's task.
        duration_ms: how long that task had run.
        transcript: path of the session's file, where it is named.
        session: session key, where it is named.
        what: class of the lane's error, failure class of a candidate, outcome of a recovery, or why a session is said
            to stand still.
        is_lock: it is a lock that the line blames.
        is_local: the line blames a lock or a changed session file, which is no model's failure.
        requested, candidate: models of a decision.
        age_s: since when a session stands still.
    """

    kind: Kind
    at_ms: int | None
    lane: str = ""
    duration_ms: int | None = None
    transcript: str = ""
    session: str = ""
    what: str = ""
    is_local: bool = False
    is_lock: bool = False
    requested: str = ""
    candidate: str = ""
    age_s: float | None = None


_LANE_ERROR = re.compile(
    r'lane task error:\s*lane=(?P<lane>"[^"]*"|\S+)\s+durationMs=(?P<ms>\d+)\s+error="?(?P<error>.*)'
)
_TRANSCRIPT = re.compile(r"""(?:^|(?<=[\s"'(=]))(?P<path>(?:~|[A-Za-z]:)?[/\\][^"\n]*?\.jsonl)""")
_CLASS = re.compile(r"(?P<name>[A-Za-z_][\w.]*(?:Error|Exception|Timeout))\b")
_FACT = re.compile(r'(?<![\w.])([A-Za-z]\w*)[=:]\s*("(?:[^"\\]|\\.)*"|[^\s,;]+)')
_DETAIL = re.compile(r"\bdetail=(.*)", re.DOTALL)
_AGE = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)?$")
_AGE_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_AGES = ("lastProgressAge", "age", "doing_s", "running_s")
TAKEOVER_WORDS = ("session file changed while embedded prompt lock was released", "SessionTakeoverError")
LOCK_WORDS = ("session file locked", "SessionWriteLockTimeoutError", "SessionWriteLockStaleError")
_STANDSTILL: tuple[tuple[str, Kind], ...] = (
    ("session.long_running", "long_running"),
    ("session.stalled", "stalled"),
    ("session.stuck", "stuck"),
    ("long-running session", "long_running"),
    ("stalled session", "stalled"),
    ("stuck session", "stuck"),
)


def event_of(line: LogLine) -> Event | None:
    """The event that a line tells of; None: none of those that are counted."""
    text = line.text
    if "lane task error" in text:
        return _lane_error(line)
    if "All models failed" in text:
        return _exhausted(line)
    if "allback" in text and "decision" in text:
        return _decision(line)
    if "gent failed before reply" in text:
        return Event(
            "no_reply", line.at_ms, transcript=_transcript(text), is_local=_is_takeover(text) or _is_lock(text)
        )
    if "session.recovery." in text or "stuck session recovery" in text:
        return _recovery(line)
    for words, kind in _STANDSTILL:
        if words in text:
            return _standstill(line, kind)
    return None  # a lock's own warnings: each of those that ended a run is told of by one of the lines above


def _lane_error(line: LogLine) -> Event | None:
    found = _LANE_ERROR.search(line.text)
    if found is None:
        return None
    error = found["error"]
    kind: Kind = "takeover" if _is_takeover(error) else "lock_timeout" if _is_lock(error) else "lane_error"
    name = _CLASS.search(error)
    return Event(
        kind, line.at_ms, lane=found["lane"].strip('"'), duration_ms=int(found["ms"]), transcript=_transcript(error),
        what=name["name"] if name else "error without a class", is_local=kind != "lane_error",
    )  # fmt: skip


def _exhausted(line: LogLine) -> Event:
    is_local = _is_takeover(line.text) or _is_lock(line.text)
    return Event("exhausted", line.at_ms, transcript=_transcript(line.text), is_local=is_local)


def _decision(line: LogLine) -> Event | None:
    facts = _facts(line.text)
    decision = facts.get("decision", "candidate_failed" if "candidate" in facts else "")
    candidate = _model(facts, "candidate")
    if decision == "candidate_succeeded":
        requested = _model(facts, "requested")
        return Event("candidate_succeeded", line.at_ms, requested=requested, candidate=candidate)
    if decision != "candidate_failed":
        return None
    detail = _DETAIL.search(line.text)
    said = detail[1] if detail else facts.get("fallbackStepFromFailureDetail", "")
    is_local = _is_takeover(said) or _is_lock(said) or (bool(said) and classify(said).coordination)
    reason = facts.get("reason") or facts.get("fallbackStepFromFailureReason") or "unknown"
    return Event(
        "candidate_failed", line.at_ms, transcript=_transcript(said), what=reason, is_local=is_local,
        is_lock=_is_lock(said),
        requested=_model(facts, "requested"), candidate=candidate,
    )  # fmt: skip


def _recovery(line: LogLine) -> Event:
    facts = _facts(line.text)
    session = facts.get("session") or facts.get("sessionKey") or ""
    if "recovery.requested" in line.text:
        return Event("recovery_requested", line.at_ms, session=session, what=facts.get("reason", ""))
    outcome = facts.get("outcome") or facts.get("status") or facts.get("action") or "unknown"
    if outcome.startswith(("abort", "release")):
        did = facts.get("aborted") == "true" or facts.get("released", "0") not in ("0", "false")
        outcome = "effective" if did else "ineffective"
    return Event("recovery_completed", line.at_ms, session=session, what=outcome, age_s=_age(facts.get("age")))


def _standstill(line: LogLine, kind: Kind) -> Event:
    facts = _facts(line.text)
    session = facts.get("sessionKey") or facts.get("session") or ""
    age = _age(next((facts[name] for name in _AGES if name in facts), None))
    transcript = facts.get("sessionId", "")
    return Event(kind, line.at_ms, session=session, transcript=transcript, what=facts.get("reason", ""), age_s=age)


def _is_takeover(text: str) -> bool:
    return any(words in text for words in TAKEOVER_WORDS)


def _is_lock(text: str) -> bool:
    return any(words in text for words in LOCK_WORDS)


def _transcript(text: str) -> str:
    """The session's file that a message names."""
    at = text.find("released: ")
    found = _TRANSCRIPT.search(text, at + len("released: ") if at >= 0 else 0)
    return found["path"] if found else ""


def _facts(text: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for name, value in _FACT.findall(text):
        facts.setdefault(name, value.strip('"'))
    return facts


def _model(facts: dict[str, str], name: str) -> str:
    """`requested=a/b`, or provider and model in fields of their own."""
    if name in facts:
        return facts[name]
    parts = (facts.get(f"{name}Provider"), facts.get(f"{name}Model"))
    return "/".join(part for part in parts if part)


def _age(text: str | None) -> float | None:
    found = _AGE.match(text or "")
    return float(found[1]) * _AGE_S[found[2]] if found else None


# ── lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_FIXED = frozenset(
    """session agent main heartbeat cron run subagent hook direct dm group channel thread topic account room peer
    nested slack discord telegram whatsapp signal feishu lark matrix teams msteams line imessage webchat web console
    github googlechat irc mattermost zalo openai explicit webhook acp""".split()  # noqa: SIM905  # a list of words
)
"""Words of a lane's name that say what it is; what follows `agent`, `run`, `direct` and their like is somebody's id."""
_BEFORE_ID = frozenset(
    "agent run direct dm group channel thread topic account room peer subagent hook".split()  # noqa: SIM905
)
ID = "<id>"


@lru_cache(maxsize=65_536)
def lane_class(lane: str) -> str:
    """A lane's name without the ids in it: `session:agent:<id>:main:heartbeat`."""
    words = lane.split(":")
    shown: list[str] = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        is_peer_kind = i + 1 < len(words) and words[i + 1] in ("direct", "dm", "group", "channel")
        if before in _BEFORE_ID and not (before == "channel" and word == "thread"):
            shown.append(ID)
        elif word in _FIXED or i == 0 or (is_peer_kind and i == 3):
            shown.append(word)
        else:
            shown.append(ID)
    return ":".join(shown)


def is_session_lane(lane: str) -> bool:
    """Whether a lane is that of one session, rather than one that many share."""
    return lane.startswith("session:")
