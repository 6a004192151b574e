"""What people see of channels, and what they decide about senders: on the command line and over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.inbound.pairing import ListenerView, Pairing, TurnedAwayCount
from holdfast.kernel import Holdfast
from holdfast.text import on_one_line

log = logging.getLogger("holdfast.channels")


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """What is known of a channel without asking its platform."""

    kind: str
    listens: bool = True
    is_called: bool = False


async def approve(hf: Holdfast, channel: str, code: str, *, by: str) -> Pairing:
    """Let in whom a code was sent to. Durable.

    Raises:
        InputError: no such code waits.
    """
    pairing = await hf.store.approve_pairing(channel, code.strip().upper(), by)
    if pairing is None:
        raise InputError(f"no code {code!r} of channel {channel!r} waits; `holdfast pairing list` shows those that do")
    log.info("channel %s: %s was let in by %s", channel, on_one_line(pairing.sender), on_one_line(by))
    return pairing


async def revoke(hf: Holdfast, channel: str, sender: str, *, by: str) -> Pairing:
    """Let a sender in no more, or forget their code. Durable.

    Raises:
        InputError: they are not known.
    """
    pairing = await hf.store.revoke_pairing(channel, sender, by)
    if pairing is None:
        raise InputError(f"channel {channel!r} knows no sender {sender!r}; `holdfast pairing list` shows them")
    log.info("channel %s: %s is let in no more, by %s", channel, on_one_line(sender), on_one_line(by))
    return pairing


def shown_channels(
    kinds: Mapping[str, ChannelKind], listeners: Sequence[ListenerView], away: Sequence[TurnedAwayCount]
) -> list[dict[str, Any]]:
    """Channels as people see them, also those that only another process serves: who listens, how that goes, and what
    was turned away.
    """
    rows = {row.channel: row for row in listeners}
    return [
        {"channel": name, **_state_of(kinds.get(name), rows.get(name)), "turned_away": _of(name, away)}
        for name in sorted({*kinds, *rows})
    ]


def _state_of(kind: ChannelKind | None, row: ListenerView | None) -> dict[str, Any]:
    about: dict[str, Any] = {"kind": kind.kind if kind is not None else None}
    if row is not None and row.life != "dead":
        return {**about, "state": row.state, "detail": row.detail, "process": row.process, "since_ms": row.since_ms}
    if row is not None or kind is None or kind.listens:
        state = "nobody listens"
    else:
        state = "called" if kind.is_called else "sends only"
    return {**about, "state": state, "detail": None, "process": None, "since_ms": None}


def _of(channel: str, away: Sequence[TurnedAwayCount]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in asdict(one).items() if key != "channel"} for one in away if one.channel == channel
    ]
