"""What every source produces: one `InboundEvent`, and the answers the one door can give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import InputError
from holdfast.lane.queue import Mode
from holdfast.text import on_one_line


@dataclass(frozen=True, slots=True)
class Route:
    """Where the answer goes. `channel` names an adapter ("console", "test", …), `target` is that adapter's address."""

    channel: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Route:
        """From "channel:target". Raises InputError; a target with control characters is none."""
        channel, colon, target = text.partition(":")
        if on_one_line(text) != text:
            raise InputError(f"route: {text[:80]!a} holds control characters; leave them out")
        if not (channel and colon and target):
            raise InputError(f'a route is "channel:target", for instance "console:me", not {text!r}')
        return cls(channel, target)


@dataclass(frozen=True, slots=True)
class InboundEvent:
    """One thing that happened and wants a turn.

    Args:
        session: session key, free text up to 512 bytes, e.g. "agent:main:main".
        payload: what was said, JSON-able. Either `{"content": str | [parts]}` (one user message) or
            `{"messages": [...], "tools": [...], "settings": {...}}` (a chat client's view, aligned when the turn
            starts).
        source, account, key: name the event for dedupe. `key=None` means the source has no key: never a duplicate.
        lane: line of turns it waits in; see `lane/policy.py`.
        route: where the answer is delivered; None: nowhere, it is kept under the input id.
        waits: the caller waits for its own answer (never steered, merged or dropped).
        queue: what to do if the session is busy, "steer", "followup", "collect" or "interrupt" (`lane/queue.py`); None:
            as the session, its channel or the configuration says.
        model: "provider/model" or None for the configured one.
        origin: free facts for people and for joining retries (token digest, request digest, …).
        home: the session whose transcript this one shares from now on (`route.py`); its own key: none's; None: as it
            has been.
    """

    session: str
    payload: dict[str, Any]
    source: str = "library"
    account: str = ""
    key: str | None = None
    lane: str = "main"
    route: Route | None = None
    waits: bool = False
    queue: Mode | None = None
    model: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Stored and synced; it will end in exactly one terminal state.

    ahead: inputs queued before it in its session. interrupts: the running input that is asked to stop for it.
    dropped: an input that gave way to it in a full queue.
    """

    input_id: str
    ahead: int
    interrupts: str | None = None
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same source, account and key with the same body was accepted before, as `input_id`. It is synced."""

    input_id: str
    state: str


@dataclass(frozen=True, slots=True)
class LaneFull:
    """Nothing was stored: `waiting` inputs are queued and `limit` is the most."""

    lane: str
    waiting: int
    limit: int


Admission = Accepted | Duplicate | LaneFull
