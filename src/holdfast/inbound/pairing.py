"""Unknown senders: a code, which the owner approves, lets somebody write to an agent. Pure.

Who writes for the first time is sent a code; what they wrote is not taken. `holdfast pairing approve CHANNEL CODE`, by
somebody who has the code from them, lets them in from then on. A code is for one sender of one channel: knowing it
helps nobody else. Codes end after an hour, and at most three senders of a channel wait at once, so that strangers
cannot fill a list. Source: semantics.md 2.13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast import ids

CODE_S = 3600.0
PENDING_MAX = 3
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without 0, O, 1 and I, which people take for one another."""
CODE_CHARS = 8

PairingState = Literal["pending", "approved", "revoked", "expired"]


@dataclass(frozen=True, slots=True)
class Pairing:
    """A sender who has asked to be let in. `name`: what people call them, for showing only. Times: epoch ms."""

    channel: str
    sender: str
    name: str
    code: str
    state: PairingState
    asked_at_ms: int
    expires_at_ms: int
    decided_by: str | None = None
    decided_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TurnedAwayCount:
    """How often a gate has turned something away for one reason. `sender` is empty where only the place counts."""

    channel: str
    reason: str
    peer: str
    sender: str
    times: int
    first_at_ms: int
    last_at_ms: int


@dataclass(frozen=True, slots=True)
class ListenerView:
    """Who listens to a channel, and how that goes.

    Args:
        process: whoever took it last. life: whether that process lives: "alive", "dead" or "unknown".
        state: "connecting", "listening", "waiting" (for its next try) or "refused" (people have to do something).
        beat: grows while it is at it.
        since_ms: in this state since then.
    """

    channel: str
    process: str
    life: str
    state: str
    detail: str | None
    beat: int
    since_ms: int


def new_code() -> str:
    """40 random bits that can be read out over a telephone."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in bytes.fromhex(ids.nonce())[:CODE_CHARS])


def pairing_text(channel: str, code: str) -> str:
    """What an unknown sender is told."""
    return (
        f"I do not know you yet, so I have not read this. Give my owner this code: {code}\n"
        f"It is good for an hour. They approve it with `holdfast pairing approve {channel} {code}`; then write again."
    )


def busy_text(waiting: int) -> str:
    """What a sender is told whose message found no room."""
    return f"{waiting} messages wait already, so I have not taken this one. Please send it again later."
