"""The lines of one transcript, judged as they come: whether each can be read and stands where it should, and whether
tool calls and results pair. Pure; memory grows with the number of ids, not with the bytes.
"""

from __future__ import annotations

from typing import Any

from holdfast.context.repair import FAILED_STOPS
from holdfast.session.lines import read_line
from holdfast.session.mending import Mender


class LinesFound:
    """Takes the lines of a file in order, without their newlines."""

    def __init__(self) -> None:
        self._mender = Mender(lambda _entry, _id, _parent: b"")
        self._count = 0
        self._open: dict[str, list[int]] = {}  # calls without a result: the lines that made them
        self._last_answer = 0
        self.unasked = 0

    def take(self, raw: bytes) -> None:
        self._count += 1
        self._mender.take(raw)
        if b'"assistant"' in raw or b'"toolResult"' in raw:
            self._pair(raw)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, in words; empty: nothing. An empty file has none."""
        return tuple(self._mender.told())

    @property
    def unanswered(self) -> int:
        """Calls without a result after which a model spoke again. Later ones may still be running."""
        return sum(at < self._last_answer for made in self._open.values() for at in made)

    def _pair(self, raw: bytes) -> None:
        line = read_line(raw)
        if line.kind != "entry" or line.type != "message":
            return
        message: dict[str, Any] = line.value().get("message") or {}
        if line.message_role == "toolResult":
            made = self._open.get(str(message.get("toolCallId")))
            if made:
                made.pop()
            else:
                self.unasked += 1
        elif line.message_role == "assistant":
            self._last_answer = self._count
            content = message.get("content")
            if message.get("stopReason") in FAILED_STOPS or not isinstance(content, list):
                return
            for part in content:
                if isinstance(part, dict) and part.get("type") == "toolCall":
                    self._open.setdefault(str(part.get("id")), []).append(self._count)
