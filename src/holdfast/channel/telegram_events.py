"""Messages of Telegram: what was heard, and text as it is shown there (HTML of a few tags). Pure but for the files,
which are fetched when somebody wants them. Source: Telegram Bot API, "Update", "Formatting options".
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.channel.listening import Attachment, Heard

_FILES = ("document", "audio", "voice", "video", "animation")


@dataclass(frozen=True, slots=True)
class Me:
    """Who we are, as `getMe` says it."""

    id: str
    username: str


@dataclass(frozen=True, slots=True)
class Place:
    """A target: a chat, or a topic of it. Shown as `-100123` or `-100123/7`."""

    chat: str
    topic: str = ""

    def __str__(self) -> str:
        return f"{self.chat}/{self.topic}" if self.topic else self.chat


def place_of(target: str) -> Place:
    """The same, read."""
    chat, _, topic = target.partition("/")
    return Place(chat, topic)


def heard_of(
    update: Mapping[str, Any], me: Me, attachment: Callable[[Mapping[str, Any], str], Attachment]
) -> Heard | None:
    """What an update tells; None: nothing that was said, or we said it ourselves.

    Args:
        attachment: makes one of a file, with its media type where the file does not tell.
    """
    message = _mapping(update, "message")
    chat, sender = _mapping(message, "chat"), _mapping(message, "from") or _mapping(message, "sender_chat")
    chat_id, message_id, sender_id = chat.get("id"), message.get("message_id"), sender.get("id")
    if not isinstance(chat_id, int) or not isinstance(message_id, int) or not isinstance(sender_id, int):
        return None
    text, files = _text(message, "text") or _text(message, "caption"), _attachments(message, attachment)
    if str(sender_id) == me.id or not (text or files):
        return None
    is_direct = chat.get("type") == "private"
    topic = message.get("message_thread_id") if message.get("is_topic_message") is True else None
    date = message.get("date")
    return Heard(
        id=f"{chat_id}:{message_id}",
        kind="direct" if is_direct else "group",
        peer=str(sender_id if is_direct else chat_id),
        sender=str(sender_id),
        text=plain_text(text, me),
        target=str(Place(str(chat_id), str(topic or ""))),
        thread=str(topic) if topic else None,
        sender_name=" ".join(filter(None, (_text(sender, "first_name"), _text(sender, "last_name"))))
        or _text(sender, "username"),
        mentioned=_speaks_to(message, text, me),
        is_bot=sender.get("is_bot") is True,
        attachments=files,
        at_ms=date * 1000 if isinstance(date, int) else 0,
    )


def plain_text(text: str, me: Me) -> str:
    """What somebody wrote, without the name by which they address us: `@bot hello`, `/status@bot`."""
    name = rf"@{re.escape(me.username)}\b"
    text = re.sub(rf"^\s*{name}[:,]?\s*", "", text, flags=re.IGNORECASE)
    return re.sub(rf"^(\s*/\w+){name}", r"\1", text, flags=re.IGNORECASE)


def _speaks_to(message: Mapping[str, Any], text: str, me: Me) -> bool:
    if re.search(rf"@{re.escape(me.username)}\b", text, re.IGNORECASE):
        return True
    entities = message.get("entities") or message.get("caption_entities")
    named = (
        [_mapping(one, "user").get("id") for one in entities if isinstance(one, dict)]
        if isinstance(entities, list)
        else []
    )
    answered = _mapping(_mapping(message, "reply_to_message"), "from").get("id")
    return me.id in (*map(str, named), str(answered))


def _attachments(
    message: Mapping[str, Any], attachment: Callable[[Mapping[str, Any], str], Attachment]
) -> tuple[Attachment, ...]:
    """A picture comes in several sizes, the largest last."""
    found = [attachment(_mapping(message, name), "") for name in _FILES if _mapping(message, name)]
    sizes = message.get("photo")
    if isinstance(sizes, list) and sizes and isinstance(sizes[-1], dict):
        found.append(attachment(sizes[-1], "image/jpeg"))
    return tuple(found)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


# ── text that goes out ───────────────────────────────────────────────────────────────────────────────────────────────

_CODE = re.compile(
    r"(?P<block>^ {0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?P<word>[\w+#.-]*)[^\n]*(?:\n(?P<body>.*?))?"
    r"(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z))|(?P<inline>`(?P<code>[^`\n]+)`)",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[([^\[\]\n]+)\]\((https?://[^\s()<>\"]+)\)")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^([ \t]*)[*+-][ \t]+", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")
_STRUCK = re.compile(r"~~(?=\S)([^~\n]+?)(?<=\S)~~")


def to_html(text: str) -> str:
    """Markdown as Telegram shows it. What would not be valid HTML there is refused by it, and sent as it is."""
    pieces: list[str] = []
    done = 0
    for code in _CODE.finditer(text):
        pieces.append(_prose(text[done : code.start()]))
        if code["block"] is not None:
            kind = f' class="language-{html.escape(code["word"])}"' if code["word"] else ""
            pieces.append(f"<pre><code{kind}>{html.escape((code['body'] or '').rstrip(chr(10)))}</code></pre>")
        else:
            pieces.append(f"<code>{html.escape(code['code'])}</code>")
        done = code.end()
    pieces.append(_prose(text[done:]))
    return "".join(pieces)


def _prose(text: str) -> str:
    text = html.escape(text, quote=False)
    text = _HEADING.sub(lambda heading: f"**{heading[1].replace('**', '')}**", text)
    text = _BULLET.sub(r"\1• ", text)
    text = _BOLD.sub(r"<b>\1</b>", text)
    text = _ITALIC.sub(r"<i>\1</i>", text)
    text = _STRUCK.sub(r"<s>\1</s>", text)
    return _LINK.sub(r'<a href="\2">\1</a>', text)
