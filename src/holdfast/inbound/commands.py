"""Slash commands: what people say to the runtime in a chat, and not to the model. Pure.

    /status  /queue …  /model …  /new  /reset  /stop  /compact …  /why …  /approve …  /deny …

A command is an input like any other: stored, deduplicated, ended once, in `holdfast why`. It never enters the
transcript. Clients that send a history of their own (`/v1/chat/completions`) are not listened to for commands: what
they show their user has to be what the transcript says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.lane.queue import USER_LANE

COMMANDS: dict[str, str] = {
    "status": "what this session is doing",
    "queue": "what becomes of messages while one is being answered: `/queue collect debounce:2s cap:25 drop:old`, "
    "`/queue default`",
    "model": "which model answers: `/model openai/gpt-5`, `/model default`",
    "new": "begin a new conversation; what was said stays in the transcript",
    "reset": "the same at once: what is being answered here is stopped",
    "stop": "stop what is being answered, and forget what waits",
    "compact": "shorten the conversation for the model: `/compact`, `/compact the invoices` (what to keep above all)",
    "why": "what became of the last message, or of the one with this id",
    "approve": "let a tool run that was asked for: `/approve ID`, `/approve ID session` (alike calls, too)",
    "deny": "do not let it: `/deny ID`",
}
"""Every command, and what it is for."""
NEEDS_TURN = frozenset({"new", "reset", "compact"})
"""Those that change the conversation: they wait for their turn like a message. The others act at once."""
STOPS_OTHERS = frozenset({"reset"})
"""Of these, those that wait for nobody's answer: a turn that runs for people is asked to stop."""
_COMMAND = re.compile(r"/([a-z][a-z_-]{0,31})(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `name` may be one that does not exist."""

    name: str
    words: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        return self.name in COMMANDS

    @property
    def acts_at_once(self) -> bool:
        """Whether it is carried out at the door, whatever runs."""
        return self.name not in NEEDS_TURN

    @property
    def stops_others(self) -> bool:
        """Whether it interrupts what is being answered."""
        return self.name in STOPS_OTHERS


def read_command(lane: str, payload: Mapping[str, Any]) -> Command | None:
    """The command that a payload is; None: it is a message. A path such as `/etc/hosts` is a message."""
    content = payload.get("content")
    if lane != USER_LANE or not isinstance(content, str):
        return None
    match = _COMMAND.fullmatch(content.strip())
    return None if match is None else Command(match[1], tuple((match[2] or "").split()))


def explain_unknown(name: str) -> str:
    """What somebody is told who used a command that does not exist."""
    known = "\n".join(f"/{one}: {what}" for one, what in COMMANDS.items())
    return f"There is no command /{name}. There are:\n{known}"
