"""What strangers and models write, made harmless before it stands among our own words. Pure."""

from __future__ import annotations

import hashlib
import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~])")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
"""Controls, characters without width, and those that turn the direction of a line around."""
_CODE = str.maketrans("`|<>", "'¦‹›")


def plain(text: str, at: int = 2_000) -> str:
    """On one line, cut, with nothing that Markdown or HTML acts upon and no name or number that notifies anybody."""
    said = cut(" ".join(seen(text).split()), at)
    said = _MARKUP.sub(r"\\\1", said).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return said.replace("@", "@\u200b").replace("://", ":\u200b//").replace("www.", "www\u200b.")


def code(text: str) -> str:
    """A name of a file or a label as code in a line; what would end the code is left out."""
    said = cut(" ".join(seen(text).translate(_CODE).split()), 300)
    return f"`{said or ' '}`"


def block(text: str, at: int, language: str = "") -> str:
    """A code block that its text cannot end, indented to stand in a list; a cut is shown."""
    shown = cut(seen(text), at)
    fence = "`" * max(3, 1 + max((len(one) for one in re.findall(r"`+", shown)), default=0))
    return "\n".join(f"  {line}" for line in (f"{fence}{language}", *shown.split("\n"), fence))


def seen(text: str) -> str:
    """Without the characters that people cannot see."""
    return _UNSEEN.sub("", text)


def cut(text: str, at: int) -> str:
    """At most `at` characters; a cut is shown."""
    return text if len(text) <= at else f"{text[: max(0, at - 1)].rstrip()}…"


def on_a_terminal(text: str) -> str:
    """Without what a terminal acts upon; lines stay."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


def digest(*texts: str) -> str:
    """Tells two texts apart; of no secret."""
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
