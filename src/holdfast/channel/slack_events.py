"""From an event of Slack to what was heard. Pure but for the files, which are fetched when somebody wants them.

A message is named by its channel and its time stamp, which Slack gives out once: an event that is told again, and the
two events that a mention causes (`message` and `app_mention`), are the same message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.channel.listening import Attachment, Heard
from holdfast.channel.slack_text import from_mrkdwn, mentions
from holdfast.inbound.route import Kind

ReplyInThread = Literal["always", "in_threads", "never"]
_SUBTYPES = frozenset({"", "file_share", "thread_broadcast", "me_message", "bot_message"})
"""Those that are something said; others are edits, deletions and notices."""
_KINDS: Mapping[str, Kind] = {"im": "direct", "mpim": "group", "channel": "channel", "group": "channel"}
"""By `channel_type`. A "group" is a private channel."""


@dataclass(frozen=True, slots=True)
class Me:
    """Who we are, as `auth.test` says it."""

    user: str
    bot: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class Threads:
    """Where answers go (`SlackConfig`)."""

    in_channels: ReplyInThread = "always"
    in_direct: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A target: a conversation, or a thread of it. Shown as `C0123` or `C0123/1700000000.000100`."""

    channel: str
    thread: str | None = None

    def __str__(self) -> str:
        return self.channel if self.thread is None else f"{self.channel}/{self.thread}"


def place_of(target: str) -> Place:
    """The same, read."""
    channel, _, thread = target.partition("/")
    return Place(channel, thread or None)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of somebody else: the event, its conversation and its time stamp."""

    event: Mapping[str, Any]
    channel: str
    ts: str
    team: str

    @property
    def sender(self) -> str:
        return _text(self.event, "user") or _text(self.event, "bot_id")

    @property
    def thread(self) -> str | None:
        """The time stamp of the message whose thread it stands in; None: it stands in none, or begins one."""
        thread = _text(self.event, "thread_ts")
        return thread if thread and thread != self.ts else None

    @property
    def kind(self) -> Kind:
        kind = _KINDS.get(_text(self.event, "channel_type"))
        return kind or ("direct" if self.channel.startswith("D") else "channel")


def message_of(payload: Mapping[str, Any], me: Me) -> Message | None:
    """What a request of the Events API tells; None: nothing that was said, or we said it ourselves."""
    event = payload.get("event")
    if payload.get("type") != "event_callback" or not isinstance(event, dict):
        return None
    if event.get("type") not in ("message", "app_mention") or _text(event, "subtype") not in _SUBTYPES:
        return None
    message = Message(event, _text(event, "channel"), _text(event, "ts"), _text(payload, "team_id"))
    is_ours = message.sender == me.user or (me.bot != "" and _text(event, "bot_id") == me.bot)
    return message if message.channel and message.ts and message.sender and not is_ours else None


def heard_of(
    message: Message,
    me: Me,
    threads: Threads,
    *,
    name: str = "",
    attachment: Callable[[Mapping[str, Any]], Attachment],
) -> Heard:
    """The message as the gate takes it.

    Args:
        name: what people call its sender. attachment: makes one of a file.
    """
    event, kind = message.event, message.kind
    text = _text(event, "text")
    files = event.get("files")
    return Heard(
        id=f"{message.channel}:{message.ts}",
        kind=kind,
        peer=message.sender if kind == "direct" else message.channel,
        sender=message.sender,
        text=from_mrkdwn(text, me.user),
        target=str(Place(message.channel, _reply_thread(message, threads))),
        thread=_conversation_thread(message, threads),
        team=message.team or None,
        sender_name=name,
        mentioned=event.get("type") == "app_mention"
        or mentions(text, me.user)
        or _text(event, "parent_user_id") == me.user,
        is_bot=bool(_text(event, "bot_id")),
        attachments=tuple(attachment(file) for file in files if isinstance(file, dict))
        if isinstance(files, list)
        else (),
        at_ms=int(float(message.ts) * 1000) if _is_number(message.ts) else 0,
    )


def _reply_thread(message: Message, threads: Threads) -> str | None:
    """Where the answer stands."""
    if message.kind == "direct" or threads.in_channels == "in_threads":
        return message.thread
    if threads.in_channels == "never":
        return None
    return message.thread or (message.ts if message.kind == "channel" else None)


def _conversation_thread(message: Message, threads: Threads) -> str | None:
    """Whether that is a conversation of its own."""
    if message.kind == "direct":
        return message.thread if threads.in_direct else None
    return _reply_thread(message, threads)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _is_number(ts: str) -> bool:
    whole, _, part = ts.partition(".")
    return ts.isascii() and whole.isdigit() and len(whole) < 13 and (part.isdigit() or not part)
