"""What is found in another program's folder, and what came of bringing it in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Lines = Callable[[], Iterator[bytes]]
"""Reads a conversation from its beginning: lines of the transcript format, any version, the last one perhaps torn."""

State = Literal["new", "continued", "unchanged", "empty", "gone on", "another"]
"""What came of a conversation, or would: brought in; lines were added that had been missing; all of it is here; nothing
in it; here somebody has spoken since, so that what is new over there stays there; another one has its key.
"""
REMARKS_MAX = 20


@dataclass(frozen=True, slots=True)
class PinWish:
    """The model that a session had over there, in place of the configured one.

    source: "user": chosen by a person; "auto": put in place of `origin`, which had failed.
    """

    model: str
    source: Literal["user", "auto"]
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of another program.

    Args:
        key: the session it becomes.
        source: where it is over there, for people.
        lines: reads it.
        size_bytes: how much there is to read, for progress.
        queue: settings of its queue, as `Holdfast.change_queue` takes them.
        left: names of what was known of it over there and has no counterpart.
    """

    key: str
    source: str
    lines: Lines
    size_bytes: int = 0
    title: str | None = None
    pin: PinWish | None = None
    queue: dict[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """All that one run brings in. remarks: what was not taken, and why."""

    conversations: tuple[Conversation, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of one conversation.

    lines, bytes: written now, or, in a dry run, that would be. mended: what was wrong with the source, in words; bad:
    lines that no reader can use, each with its number and why; they are kept in their place, as they are.
    """

    key: str
    source: str
    state: State
    lines: int = 0
    bytes: int = 0
    there: int = 0
    mended: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    pin: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did, or would do."""

    source: str
    dry: bool
    conversations: tuple[Brought, ...]
    remarks: tuple[str, ...] = ()

    @property
    def has_findings(self) -> bool:
        """Whether something over there stays there although it was asked for."""
        return any(one.state in ("gone on", "another") for one in self.conversations)
