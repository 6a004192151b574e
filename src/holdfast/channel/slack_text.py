"""Text to and from Slack: its mrkdwn is not Markdown. Pure.

Whatever goes out is escaped, so that no text of a model or of a user can call a whole channel (`<!channel>`) or hide
where a link leads. Source: Slack, "Formatting text for app surfaces".
"""

from __future__ import annotations

import re

_CODE = re.compile(
    r"(?P<block>^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*(?:\n(?P<body>.*?))?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z))"
    r"|(?P<inline>`[^`\n]+`)",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[([^\[\]\n]+)\]\(((?:https?://|mailto:)[^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)*)\)")
_BARE_LINK = re.compile(r"&lt;((?:https?://|mailto:)[^\s<>]+?)&gt;")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^([ \t]*)[*+-][ \t]+", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")
_STRUCK = re.compile(r"~~(?=\S)(.+?)(?<=\S)~~")
_STAR = "\x01"
"""Stands for a star that is Slack's already."""


def to_mrkdwn(text: str) -> str:
    """Markdown as Slack shows it. Code stays as it is, without the name of its language."""
    pieces: list[str] = []
    done = 0
    for code in _CODE.finditer(text.replace(_STAR, "")):
        pieces.append(_prose(text[done : code.start()]))
        if code["block"] is not None:
            pieces.append(f"```\n{_escaped((code['body'] or '').rstrip(chr(10)))}\n```")
        else:
            pieces.append(_escaped(code["inline"]))
        done = code.end()
    pieces.append(_prose(text[done:]))
    return "".join(pieces)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _prose(text: str) -> str:
    text = _escaped(text)
    text = _LINK.sub(lambda link: f"<{link[2].replace('|', '%7C')}|{link[1].replace('|', '¦')}>", text)
    text = _BARE_LINK.sub(r"<\1>", text)
    text = _HEADING.sub(lambda heading: f"**{heading[1].replace('**', '')}**", text)
    text = _BULLET.sub(r"\1• ", text)
    text = _BOLD.sub(lambda bold: f"{_STAR}{bold[1] or bold[2]}{_STAR}", text)
    text = _ITALIC.sub(r"_\1_", text)
    return _STRUCK.sub(r"~\1~", text).replace(_STAR, "*")


_REFERENCE = re.compile(r"<([^<>\n]+)>")


def from_mrkdwn(text: str, me: str) -> str:
    """What somebody wrote, as plain text; the mention by which they address us is taken out.

    Args:
        me: our own user id.
    """
    text = re.sub(rf"^\s*<@{re.escape(me)}(?:\|[^>]*)?>[:,]?\s*", "", text) if me else text
    text = _REFERENCE.sub(lambda found: _plain(found[1]), text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def mentions(text: str, user: str) -> bool:
    """Whether a text names a user."""
    return bool(user) and re.search(rf"<@{re.escape(user)}(?:\|[^>]*)?>", text) is not None


def _plain(reference: str) -> str:
    what, _, label = reference.partition("|")
    if what.startswith("@"):
        return f"@{label or what[1:]}"
    if what.startswith("#"):
        return f"#{label or what[1:]}"
    if what.startswith("!"):
        return label or f"@{what[1:].partition('^')[0]}"
    address = what.removeprefix("mailto:").removeprefix("tel:")
    return address if not label or label in what else f"{label} ({address})"
