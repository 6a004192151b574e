"""From an event of Discord to what was heard. Pure but for the files, which are fetched when somebody wants them.

A message is named by its conversation and its id, which Discord gives out once: an event that is told again, after a
connection was lost, is the same message. Discord's text is Markdown already; what goes out is sent as it is, with
mentions turned off (`discord_web.py`), so that no text of a model calls anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.channel.listening import Attachment, Heard

ReplyInThread = Literal["always", "in_threads"]
_SAID = frozenset({0, 19})
"""Types of messages that are something said: by itself, and as a reply. Others are notices, such as of a new member."""
_THREADS = frozenset({10, 11, 12})
_TEXT = 0
_ANNOUNCEMENT = 5
EPOCH_MS = 1_420_070_400_000
"""When Discord's clock began; an id holds a time since then in its upper 42 bits."""


@dataclass(frozen=True, slots=True)
class Place:
    """A target: a conversation (a channel, a thread, direct messages), a person, or the thread under a message.

    Shown as `123`, `@456` and `123/789`. The thread that begins under a message has the message's id, so that the last
    one is known before there is a thread.
    """

    channel: str
    person: str = ""
    under: str = ""

    def __str__(self) -> str:
        if self.person:
            return f"@{self.person}"
        return f"{self.channel}/{self.under}" if self.under else self.channel


def place_of(target: str) -> Place:
    """The same, read."""
    if target.startswith("@"):
        return Place("", person=target[1:])
    channel, _, under = target.partition("/")
    return Place(channel, under=under)


@dataclass(frozen=True, slots=True)
class Channel:
    """What is known of a conversation of a server. `parent`: the channel that a thread stands in; empty: it is none.

    may_begin: whether threads can be begun under its messages.
    """

    id: str
    parent: str = ""
    may_begin: bool = False


def channel_of(told: Mapping[str, Any]) -> Channel:
    """From what Discord says of it."""
    kind, parent = told.get("type"), told.get("parent_id")
    return Channel(
        _text(told, "id"), parent if kind in _THREADS and isinstance(parent, str) else "",
        kind in (_TEXT, _ANNOUNCEMENT),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One message of somebody else. `guild`: the server; empty: it was said directly."""

    event: Mapping[str, Any]
    id: str
    channel: str
    guild: str
    sender: str


def message_of(event: Mapping[str, Any], me: str) -> Message | None:
    """What MESSAGE_CREATE tells; None: nothing that was said, or we said it ourselves.

    Args:
        me: our own user id.
    """
    author = _mapping(event, "author")
    message = Message(
        event, _text(event, "id"), _text(event, "channel_id"), _text(event, "guild_id"), _text(author, "id")
    )
    is_said = event.get("type", 0) in _SAID and message.sender != me
    return message if is_said and message.id and message.channel and message.sender else None


def heard_of(
    message: Message,
    me: str,
    channel: Channel | None,
    *,
    reply_in_thread: ReplyInThread = "in_threads",
    attachment: Callable[[Mapping[str, Any]], Attachment],
) -> Heard:
    """The message as the gate takes it.

    Args:
        channel: where it was said; None: directly. attachment: makes one of a file.
    """
    event = message.event
    author, files = _mapping(event, "author"), event.get("attachments")
    peer, thread, target = message.sender, None, message.channel
    if channel is not None:
        peer = channel.parent or channel.id
        thread = channel.id if channel.parent else None
        if reply_in_thread == "always" and channel.may_begin:
            thread, target = message.id, f"{channel.id}/{message.id}"
    return Heard(
        id=f"{message.channel}:{message.id}",
        kind="direct" if channel is None else "channel",
        peer=peer,
        sender=message.sender,
        text=plain_text(event, me),
        target=target,
        thread=thread,
        guild=message.guild or None,
        sender_name=_text(_mapping(event, "member"), "nick")
        or _text(author, "global_name")
        or _text(author, "username"),
        mentioned=_speaks_to(event, me),
        is_bot=author.get("bot") is True or bool(_text(event, "webhook_id")),
        attachments=tuple(attachment(file) for file in files if isinstance(file, dict))
        if isinstance(files, list)
        else (),
        at_ms=sent_at_ms(message.id),
    )


def sent_at_ms(message_id: str) -> int:
    """When a message was sent, by its id; 0: that is none."""
    is_number = message_id.isascii() and message_id.isdigit() and len(message_id) < 21
    return (int(message_id) >> 22) + EPOCH_MS if is_number else 0


def _speaks_to(event: Mapping[str, Any], me: str) -> bool:
    named = any(_text(user, "id") == me for user in _mentioned(event))
    return named or _text(_mapping(_mapping(event, "referenced_message"), "author"), "id") == me


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_REFERENCE = re.compile(r"<(?:@!?(?P<user>\d+)|@&(?P<role>\d+)|#(?P<channel>\d+)|a?:(?P<emoji>\w+):\d+)>")


def plain_text(event: Mapping[str, Any], me: str) -> str:
    """What somebody wrote, people called by their names; the mention by which they address us is taken out."""
    names = {_text(user, "id"): _text(user, "global_name") or _text(user, "username") for user in _mentioned(event)}
    text = re.sub(rf"^\s*<@!?{re.escape(me)}>[:,]?\s*", "", _text(event, "content"))

    def named(found: re.Match[str]) -> str:
        if found["user"]:
            return f"@{names.get(found['user']) or found['user']}"
        if found["role"]:
            return f"@{found['role']}"
        return f"#{found['channel']}" if found["channel"] else f":{found['emoji']}:"

    return _REFERENCE.sub(named, text)


# ── reading what nobody has checked ──────────────────────────────────────────────────────────────────────────────────


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _mentioned(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    users = event.get("mentions")
    return [user for user in users if isinstance(user, dict)] if isinstance(users, list) else []
