"""What a comment on GitHub says: the marker by which it is found again, whom it calls, who it speaks to. Pure.

A comment of ours ends in an HTML comment that nobody sees, with the key of its delivery. It counts only as the very end
of a text: what an answer quotes is no marker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

BODY_CHARS_MAX = 65_536
"""Of one comment; longer ones are refused with 422."""
MARKER_CHARS_MAX = 160
TEXT_MAX = 65_000
"""Room is left for the marker, and for what keeps names from being called."""
_MARKER = re.compile(r"<!-- holdfast:(?P<id>[A-Za-z0-9_.-]{1,80})(?P<flags>(?: [a-z]+)*) -->\s*\Z")
_CALL = re.compile(r"(?<![A-Za-z0-9_/`])@(?=[A-Za-z0-9])")
_CODE = re.compile(
    r"(^ {0,3}(?:```|~~~).*?(?:^ {0,3}(?:```|~~~)[^\n]*$|\Z)|(?<!`)`[^`\n]+`(?!`))", re.DOTALL | re.MULTILINE
)
_QUOTE = re.compile(r"^ {0,3}>.*$", re.MULTILINE)
_WIDE = "\uff20"
_SILENT = "\u200b"
"""Between `@` and a name: it looks the same, and nobody is notified."""


@dataclass(frozen=True, slots=True)
class Marker:
    """delivery_id: the key. preview: it is the beginning of an answer. standing: it is edited again and again."""

    delivery_id: str
    preview: bool = False
    standing: bool = False

    def __str__(self) -> str:
        flags = "".join(f" {name}" for name in ("preview", "standing") if getattr(self, name))
        return f"<!-- holdfast:{self.delivery_id}{flags} -->"


def marked(text: str, marker: Marker, *, mentions: bool) -> str:
    """The body of a comment. `mentions`: whoever it names with @ is notified."""
    end = f"\n\n{marker}"
    shown = text if mentions else without_calls(text)
    if len(shown) + len(end) > BODY_CHARS_MAX:
        shown = text.replace("@", _WIDE)  # of the same length
    return shown + end


def marker_of(body: str) -> Marker | None:
    """The marker of a comment of ours; None: it has none."""
    found = _MARKER.search(body[-MARKER_CHARS_MAX:])
    if found is None:
        return None
    flags = found["flags"].split()
    return Marker(found["id"], "preview" in flags, "standing" in flags)


def without_calls(text: str) -> str:
    """A text that notifies nobody: an answer is a model's, and a name in it may be a team of hundreds."""
    return _outside_code(text, lambda part: _CALL.sub(f"@{_SILENT}", part))


def mentions(text: str, login: str) -> bool:
    """Whether a text speaks to somebody; not in what it quotes, and not in code."""
    said = _outside_code(_QUOTE.sub("", text), lambda part: part, code=lambda _: " ")
    return bool(login) and _named(login).search(said) is not None


def without_address(text: str, login: str) -> str:
    """The text without the name at its beginning, where that only addresses."""
    if not login:
        return text.strip()
    return re.sub(rf"\A\s*@{re.escape(login)}(?![A-Za-z0-9_-])[,:]?\s*", "", text, flags=re.IGNORECASE).strip()


def _named(login: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_/-])@{re.escape(login)}(?![A-Za-z0-9_/-])", re.IGNORECASE)


def _outside_code(text: str, change: Callable[[str], str], code: Callable[[str], str] = lambda part: part) -> str:
    parts = _CODE.split(text)
    return "".join(code(part) if number % 2 else change(part) for number, part in enumerate(parts))
