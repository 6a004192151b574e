"""A gateway's log, made up: 122 takeovers over 37 transcripts in seven lane classes, the worst session hit 32 times."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

LANES = {
    "session:agent:<id>:main": "session:agent:{agent}:main",
    "session:agent:<id>:main:heartbeat": "session:agent:{agent}:main:heartbeat",
    "session:agent:<id>:cron:<id>:run:<id>": "session:agent:{agent}:cron:j{n}:run:8f0c{n}",
    "session:agent:<id>:telegram:direct:<id>": "session:agent:{agent}:telegram:direct:77{n}",
    "session:agent:<id>:slack:channel:<id>:thread:<id>": "session:agent:{agent}:slack:channel:C0{n}:thread:17{n}.1",
    "session:agent:<id>:discord:channel:<id>": "session:agent:{agent}:discord:channel:99{n}",
    "session:agent:<id>:subagent:<id>": "session:agent:{agent}:subagent:5d{n}",
}
COUNTS = [32, *[3] * 18, *[2] * 18]
WORDS = "EmbeddedAttemptSessionTakeoverError: session file changed while embedded prompt lock was released"
BEGAN = datetime(2026, 5, 18, 6, 0, tzinfo=UTC)
assert sum(COUNTS) == 122
assert len(COUNTS) == 37


def story(seed: int = 1) -> list[tuple[datetime, str, str]]:
    """Moment, subsystem and text of each line, in order. Each takeover is told of by the lane of its session and by the
    shared lane; two in three leave no reply. In between stands what a log is full of.
    """
    rng = random.Random(seed)  # the same story each time
    names = list(LANES.values())
    told: list[tuple[datetime, str, str]] = []
    hits = [number for number, count in enumerate(COUNTS) for _ in range(count)]
    rng.shuffle(hits)
    moment = BEGAN
    for turn, number in enumerate(hits):
        moment += timedelta(minutes=rng.randint(5, 90))
        agent = f"a{number % 4}"
        path = f"/home/me/.openclaw/agents/{agent}/sessions/{number:08x}-54.jsonl"
        lane = names[number % 7].format(agent=agent, n=number)
        ms = rng.randint(4_000, 300_000)
        error = f'error="{WORDS}: {path}"'
        shared = "cron-nested" if ":cron:" in lane else "main"
        told.append((moment, "diagnostic", f"lane task error: lane={shared} durationMs={ms} {error}"))
        moment += timedelta(milliseconds=rng.randint(0, 7))
        told.append((moment, "diagnostic", f"lane task error: lane={lane} durationMs={ms + rng.randint(0, 9)} {error}"))
        if turn % 3:
            text = f"Embedded agent failed before reply: {WORDS.split(': ')[1]}: {path}"
            told.append((moment, "", text))
        told += [(moment, "gateway", f"res ok chat.send {n} {rng.getrandbits(60)}ms conn=4") for n in range(20)]
    return told


def as_text(told: list[tuple[datetime, str, str]]) -> bytes:
    lines = (
        f"{at.isoformat(timespec='milliseconds')} {f'[{system}] ' if system else ''}{text}" for at, system, text in told
    )
    return "\n".join(lines).encode() + b"\n"


def as_json(told: list[tuple[datetime, str, str]]) -> bytes:
    """As OpenClaw's file log writes it."""
    lines = (
        json.dumps({
            "time": at.isoformat(), "0": json.dumps({"subsystem": system}), "1": text,
            "_meta": {"logLevelName": "ERROR", "date": at.isoformat()},
        })
        for at, system, text in told
    )  # fmt: skip
    return "\n".join(lines).encode() + b"\n"


def as_journal(told: list[tuple[datetime, str, str]]) -> bytes:
    """As `journalctl -o export` writes it."""
    records = (
        f"__CURSOR=s={n}\n__REALTIME_TIMESTAMP={int(at.timestamp() * 1_000_000)}\n_PID=1\n"
        f"MESSAGE={f'[{system}] ' if system else ''}{text}\n"
        for n, (at, system, text) in enumerate(told)
    )
    return "\n".join(records).encode() + b"\n"


def as_syslog(told: list[tuple[datetime, str, str]]) -> bytes:
    """The short form, which has no year and no fractions of a second."""
    lines = (f"{at:%b %e %H:%M:%S} host openclaw[7]: [{system}] {text}" for at, system, text in told)
    return "\n".join(lines).encode() + b"\n"
