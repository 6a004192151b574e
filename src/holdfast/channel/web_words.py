"""What browsers of the web chat say, and where. Pure.

Everybody who is logged in holds the gateway's token, so there is one person: `owner`. Their conversations have names:
`main` is the one that they have by themselves, each other one is a thread of theirs, with a session of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.channel.listening import Heard
from holdfast.errors import InputError
from holdfast.outbox.mail import Mail

OWNER = "owner"
MAIN = "main"
TEXT_CHARS_MAX = 32_000
"""Of one message; longer texts belong into files of the workspace."""
FRAME_BYTES_MAX = 512 * 1024
"""Of one frame: such a text, however its characters are escaped."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first thing that a browser says. `after`: the last message that it has; None: it has none yet."""

    conversation: str
    after: int | None


@dataclass(frozen=True, slots=True)
class Say:
    """Something was said. `id`: the browser's own name for it, the same each time that it is sent."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class More:
    """What was said before a message is wanted."""

    before: int


Frame = Hello | Say | More


def read_frame(values: Any) -> Frame:
    """A frame that a browser has sent. Raises InputError: it is none; names what is wrong."""
    if not isinstance(values, Mapping):
        raise InputError("a frame must be a JSON object")
    kind = values.get("type")
    if kind == "hello":
        after = values.get("after")
        return Hello(conversation_of(values.get("conversation", MAIN)), None if after is None else _seq("after", after))
    if kind == "say":
        return _say(values.get("id"), values.get("text"))
    if kind == "more":
        return More(_seq("before", values.get("before")))
    raise InputError('type: must be "hello", "say" or "more"')


def _say(name: Any, text: Any) -> Say:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise InputError("id: must be 8 to 64 letters, digits, - or _, another one for each message")
    if not isinstance(text, str) or not text.strip():
        raise InputError("text: must be a text that is not empty")
    if len(text) > TEXT_CHARS_MAX:
        raise InputError(f"text: {len(text):,} characters; at most {TEXT_CHARS_MAX:,}")
    return Say(name, text)


def _seq(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise InputError(f"{name}: must be the seq of a message")
    return value


def conversation_of(name: Any) -> str:
    """The name of a conversation. Raises InputError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError("conversation: must be 1 to 40 small letters, digits or -")
    return name


def target_of(conversation: str) -> str:
    """Where answers of a conversation go: `owner`, or `owner/NAME`."""
    return OWNER if conversation == MAIN else f"{OWNER}/{conversation}"


def named_by(target: str) -> str | None:
    """The conversation of a target; None: there can be none."""
    owner, slash, name = target.partition("/")
    if owner != OWNER or (slash and (name == MAIN or not _NAME.fullmatch(name))):
        return None
    return name or MAIN


def heard_of(say: Say, conversation: str, at_ms: int) -> Heard:
    """The message as the gate takes it."""
    return Heard(
        id=f"{conversation}:{say.id}",
        kind="direct",
        peer=OWNER,
        sender=OWNER,
        sender_name=OWNER,
        text=say.text,
        target=target_of(conversation),
        thread=None if conversation == MAIN else conversation,
        at_ms=at_ms,
    )


def mail_id_of(say: Say, conversation: str) -> str:
    """Names what a person said among the messages that browsers are shown."""
    return f"u_{conversation}:{say.id}"


def shown(mail: Mail) -> dict[str, Any]:
    """A message as browsers get it."""
    return {"type": "message", "seq": mail.seq, "id": mail.id, "who": mail.who, "text": mail.text, "at_ms": mail.at_ms}
