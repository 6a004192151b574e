"""Log lines, as text for people and `grep` or as JSON for programs; known secrets are taken out of both.

Lines name their facts as `key=value`. The text form keeps the line as it was written, because operators search for it;
the JSON form carries the same facts as fields besides.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from holdfast.clock import iso
from holdfast.observe.tracing import trace_id_of
from holdfast.tool.redact import REDACTED, Redactor
from holdfast.turn.turn import current_turn

__all__ = ["FORMATS", "REDACTED", "JsonFormatter", "TextFormatter", "configure", "hide"]
FORMATS = ("text", "json")
_TAG = re.compile(r"\[([a-z/-]+)\] ")
_FACT = re.compile(r'(?<!\S)(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


def configure(stream: TextIO, *, form: str, secrets: Iterable[str], level: int = logging.INFO) -> None:
    """Send all log lines of this process to `stream`. Called again, it replaces what was set before.

    Args:
        form: one of `FORMATS`.
        secrets: values that must never be seen: the token, API keys.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(secrets) if form == "json" else TextFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries speak up only when something is wrong
    logging.getLogger("holdfast").setLevel(level)


def hide(secrets: Iterable[str]) -> None:
    """Take these, too, out of all lines from now on: of a configuration that was read again."""
    found = list(secrets)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, TextFormatter):
            handler.formatter.redactor.learn(found)


class TextFormatter(logging.Formatter):
    """`2026-05-22T10:00:00.000Z WARNING holdfast.lane: …`"""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.redactor = Redactor(secrets)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002 - logging's names
        return iso(datetime.fromtimestamp(record.created, UTC))

    def format(self, record: logging.LogRecord) -> str:
        return self.redactor.text(super().format(record))


class JsonFormatter(TextFormatter):
    """One object per line: at, level, logger, message, the turn in which it was written (and its trace, where there is
    one), tag (`diagnostic`, …), the line's facts, traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, Any] = {
            "at": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        turn = current_turn.get()
        if turn is not None:
            line["turn"] = turn
            trace = trace_id_of(turn)
            if trace is not None:
                line["trace_id"] = trace
        tag = _TAG.match(message)
        if tag:
            line["tag"] = tag[1]
        for name, value in _FACT.findall(message):
            line.setdefault(name, value[1:-1] if value.startswith('"') else value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(self.redactor.value(line), ensure_ascii=False)
