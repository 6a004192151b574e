"""Cutting a long text into messages without breaking what it shows. Pure.

A cut is an offset into the text and never changes it, so that a piece is named by where it begins. How a piece is
shown follows from the whole text and its two ends: one that begins inside of a code block opens it again, one that ends
inside of one closes it. Blank space at a cut is left out. Fences are Markdown's (CommonMark 4.5): three or more
backticks or tildes at the beginning of a line.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_BLANK_LINES = re.compile(r"(?:[ \t\r]*\n)+")
_WORD = re.compile(r"[A-Za-z0-9_+#.-]{1,16}")
_MARKER_CHARS_MAX = 8
"""A longer fence than anybody writes is text: opening it again would take the room."""
ROOM_MIN = 80
"""With less room in a message, a block that is opened and closed again may not fit."""
_JOINER = "\u200d"
_STICKS_BACK = 16
"""A character with more marks on it than that is cut through."""


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code block."""

    marker: str
    language: str

    @property
    def opening(self) -> str:
        return f"{self.marker}{self.language}\n"


@dataclass(frozen=True, slots=True)
class _Marker:
    """A line that opens or closes a block. `after`: the block that is open behind it."""

    start: int
    end: int
    after: Fence | None


@lru_cache(maxsize=4)
def _markers(text: str) -> tuple[_Marker, ...]:
    """Every such line, in order. The newline belongs to it."""
    return tuple(_find_markers(text))


def _find_markers(text: str) -> Iterator[_Marker]:
    fence: Fence | None = None
    for found in _FENCE.finditer(text):
        marker, rest = found[1], found[2].strip()
        if fence is None:
            if (marker[0] == "`" and "`" in rest) or len(marker) > _MARKER_CHARS_MAX:
                continue
            word = _WORD.match(rest)
            fence = Fence(marker, word[0] if word else "")
        elif marker[0] == fence.marker[0] and len(marker) >= len(fence.marker) and not rest:
            fence = None
        else:
            continue
        yield _Marker(found.start(), min(found.end() + 1, len(text)), fence)


def fence_at(text: str, at: int) -> Fence | None:
    """The code block that is open at an offset. A line that opens one has to be over."""
    markers = _markers(text)
    number = bisect_right(markers, at, key=lambda one: one.end)
    return markers[number - 1].after if number else None


def cut(text: str, start: int, room: int) -> int:
    """How much of `text` from `start` on goes into one message of at most `room` characters, as `shown` shows it.

    Up to the end of a paragraph or a line outside of code, else the end of a line, else of a word, if there is one in
    the second half; else wherever it has to be, but through no character. At least 1.
    """
    if len(_opening(text, start)) + len(text[start:].rstrip()) <= room:
        return len(text) - start
    furthest = max(start + 1, start + room - len(_opening(text, start)))
    for ends in (_paragraphs, _lines_outside, _lines, _words):
        for end in ends(text, start + room // 2, furthest):
            if len(shown(text, start, end - start)) <= room:
                return _extended(text, start, end, room) - start
    end = furthest
    while end > start + 1 and len(shown(text, start, end - start)) > room:
        end -= 1
    return _extended(text, start, _between_characters(text, start, end), room) - start


def shown(text: str, start: int, chars: int) -> str:
    """A piece as its message shows it, without the blank space at its end."""
    end = start + chars
    piece = text[start:end].rstrip()
    open_at_end = fence_at(text, end) if end < len(text) else None
    closing = "" if open_at_end is None else f"\n{open_at_end.marker}"
    return _opening(text, start) + piece + closing


def _opening(text: str, start: int) -> str:
    fence = fence_at(text, start) if start else None
    return "" if fence is None else fence.opening


# ── where a cut may be, the furthest first ───────────────────────────────────────────────────────────────────────────


def _paragraphs(text: str, low: int, high: int) -> Iterator[int]:
    return (end for end in _ends_of(text, "\n\n", low, high) if fence_at(text, end) is None)


def _lines_outside(text: str, low: int, high: int) -> Iterator[int]:
    return (end for end in _ends_of(text, "\n", low, high) if fence_at(text, end) is None)


def _lines(text: str, low: int, high: int) -> Iterator[int]:
    return _ends_of(text, "\n", low, high)


def _words(text: str, low: int, high: int) -> Iterator[int]:
    return (end for end in _ends_of(text, " ", low, high) if _may_begin(text, end) and not _in_marker(text, end))


def _ends_of(text: str, what: str, low: int, high: int) -> Iterator[int]:
    at = text.rfind(what, low, high)
    while at >= 0:
        yield at + len(what)
        at = text.rfind(what, low, at)


def _may_begin(text: str, at: int) -> bool:
    """Whether what follows, put at the beginning of a line, does not look like a fence that it is not."""
    ahead = text[at : at + 8].lstrip(" ")
    return text[at - 1] == "\n" or not ahead.startswith(("```", "~~~"))


def _in_marker(text: str, at: int) -> bool:
    return any(one.start < at < one.end for one in _markers(text))


def _between_characters(text: str, start: int, end: int) -> int:
    """The cut, moved back to where no character, no mark on one and no fence is cut through; if there is such a place
    near.
    """
    for one in _markers(text):
        if start < one.start < end < one.end:
            return one.start
    for at in range(end, max(start, end - _STICKS_BACK), -1):
        if not _sticks(text, at) and _may_begin(text, at):
            return at
    return end


def _sticks(text: str, at: int) -> bool:
    """Whether the character there belongs to the one before it: a combining mark, a joined or coloured emoji."""
    if at >= len(text):
        return False
    here = text[at]
    return (
        unicodedata.combining(here) != 0
        or here in (_JOINER, "\ufe0e", "\ufe0f")
        or "\U0001f3fb" <= here <= "\U0001f3ff"
        or text[at - 1] == _JOINER
    )


def _extended(text: str, start: int, end: int, room: int) -> int:
    """The cut, moved behind what shows nothing, unless the text's own closing fence is longer than the one put in its
    place, by so much that the message is too long.
    """
    longer = _with_blank(text, end)
    return longer if len(shown(text, start, longer - start)) <= room else end


def _with_blank(text: str, end: int) -> int:
    """The cut, moved behind what shows nothing: blank lines, and a fence that only closes what would be opened anew."""
    end = _past_blank(text, end)
    if end < len(text) and fence_at(text, end) is not None:
        for one in _markers(text):
            if one.start == end and one.after is None:
                end = _past_blank(text, one.end)
    return len(text) if not text[end:].strip() else end


def _past_blank(text: str, end: int) -> int:
    if end and text[end - 1] != "\n":
        return end
    found = _BLANK_LINES.match(text, end)
    return found.end() if found is not None else end
