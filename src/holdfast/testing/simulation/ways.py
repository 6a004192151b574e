"""What an installation is used for in a run, besides plain messages: every way into a conversation, and what people and
recovery do to it. Drawn from the seed, a few at a time, since each costs time and hides the others.

    queue        messages of one person that meet a busy session: steered, collected, interrupting, dropped
    commands     /new, /reset and /stop among them
    machines     a webhook in the conversation of a person, whose messages it gives way to
    webhooks     a sender that delivers the same again and again, through whichever process is there
    timers       a cron job and a heartbeat, in every process
    sub-agents   tasks that a turn hands to sessions of their own
    watchdog     models that fall silent, and a recovery that has leave to ask their turns to end
    compaction   conversations that become too long
    tools        calls that a person is asked about, messages to others, programs in the background
    previews     answers that are shown while they are written, in the message that becomes them
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.cron import JobDefinition
from holdfast.lane.queue import PLAIN, Drop, Mode, QueueSettings
from holdfast.recovery.watching import WatchSettings

SHARES = {
    "queue": 0.22, "commands": 0.10, "machines": 0.12, "webhooks": 0.12, "timers": 0.08, "sub-agents": 0.06,
    "watchdog": 0.05, "compaction": 0.06, "tools": 0.08, "previews": 0.08,
}  # fmt: skip
"""In which part of all seeds there is which."""
MODES: tuple[Mode, ...] = ("steer", "collect", "interrupt", "followup")
DROPS: tuple[Drop, ...] = ("summarize", "old", "new")

JOB = JobDefinition("look", "is there mail", every="1s", timeout_s=600)
HEARTBEAT = HeartbeatSettings("main", 1_500, "agent:main:main", file="HEARTBEAT.md", target="last")
HEARTBEAT_FILE = "Look whether somebody waits."
WATCH = WatchSettings(warn_s=0.6, abort_s=2.5, live_owners="ask")
WATCH_EVERY_S = 0.5
SILENCE_S = 6.0
"""How long a model says nothing that has fallen silent: far past the age at which its turn is asked to end."""
WINDOW_TOKENS = 400
PADDING = " and so on" * 25
"""Behind each message where conversations are to become too long, or answers to come in pieces: some ninety tokens."""
CHANNEL = "chat"
ASKED_S = 2.5
"""How long a person has to say whether a call may run."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What a run has. `queue`: how a busy session behaves."""

    names: frozenset[str]
    queue: QueueSettings = PLAIN

    def __contains__(self, name: str) -> bool:
        return name in self.names


def draw(random: Random, only: Collection[str] | None) -> Ways:
    """What the seed says, or these and no others."""
    names = {name for name, share in SHARES.items() if random.random() < share}
    settings = QueueSettings(
        MODES[int(random.random() * len(MODES))], random.choice((0, 150, 600)), random.choice((1, 2, 20)),
        DROPS[int(random.random() * len(DROPS))],
    )  # fmt: skip
    names = names if only is None else set(only)
    return Ways(frozenset(names), settings if "queue" in names else PLAIN)
