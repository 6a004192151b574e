"""What stands before a conversation: the agent's own text, files of its workspace, what the request brings along. Pure.

The order is from what changes least to what changes most, and nothing in it tells the time, so that a provider that
keeps the beginning of requests finds the same one again. Every file is listed with what became of it.

Source of the names: OpenClaw's bootstrap files. The bounds are ours: all files together cost about 20,000 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.session.key import parse_key

FILES = ("AGENTS.md", "SOUL.md", "TOOLS.md", "IDENTITY.md", "USER.md", "MEMORY.md")
"""In the order in which they are shown: how to work, in what manner, with what, as whom, for whom, what is known."""
PERSONAL = frozenset({"USER.md", "MEMORY.md"})
"""What is known of a person, which is not for groups."""
OF_TASKS = frozenset({"AGENTS.md", "TOOLS.md"})
"""What a sub-agent is shown: it has one task, and speaks to no person."""
FILE_BYTES_MAX = 20_000
TOTAL_BYTES_MAX = 60_000
LEAST_BYTES = 1_000
"""A file for which there is less room than this is left out: so little of it would mislead."""
HEAD = "These files of your workspace were written for you. Changes to them are seen in the next turn."

State = Literal["whole", "cut", "missing", "refused", "no_room", "withheld"]


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was read.

    Args:
        bytes: of the file; None: there is none.
        text: what of it may be shown, at most `FILE_BYTES_MAX`; `left_out` bytes of its middle are missing.
        problem: why it could not be read, in words.
    """

    name: str
    bytes: int | None = None
    text: str = ""
    left_out: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """What became of one file.

    state: "whole"; "cut" (only `shown_bytes` of it are shown); "missing"; "refused" (`why`); "no_room" (those before it
        have taken up all there is); "withheld" (not for this kind of conversation).
    """

    name: str
    state: State
    bytes: int = 0
    shown_bytes: int = 0
    why: str = ""

    @property
    def in_words(self) -> str:
        """For lists."""
        match self.state:
            case "whole":
                return f"{self.name} ({self.bytes} bytes)"
            case "cut":
                return f"{self.name} (cut: {self.shown_bytes} of {self.bytes} bytes)"
            case "refused":
                return f"{self.name} (refused: {self.why})"
            case "no_room":
                return f"{self.name} ({self.bytes} bytes, left out: the others fill the room)"
            case "withheld":
                return f"{self.name} (not shown here: {self.why})"
            case _:
                return f"{self.name} (missing)"


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """The text, None for none at all, and what became of the files."""

    text: str | None
    files: tuple[PromptFile, ...] = ()


def build(
    session: str, found: Sequence[Found], *, before: str | None = None, after: str | None = None,
    total_bytes_max: int = TOTAL_BYTES_MAX,
) -> SystemPrompt:  # fmt: skip
    """The system prompt of one turn.

    Args:
        session: its key, which says whose ears there are.
        found: the files, in order.
        before: the agent's own text. after: what the request brings along.
    """
    left = total_bytes_max
    files: list[PromptFile] = []
    pieces: list[str] = []
    for one in found:
        file, text = _shown(one, withheld_from(session, one.name), left)
        files.append(file)
        if text:
            left -= file.shown_bytes
            pieces.append(f'<file name="{one.name}">\n{text}\n</file>')
    told = "\n\n".join([HEAD, *pieces]) if pieces else None
    return SystemPrompt("\n\n".join(text for text in (before, told, after) if text) or None, tuple(files))


def withheld_from(session: str, name: str) -> str:
    """Why a file is not for a session, in words; empty: it is."""
    key = parse_key(session)
    if key.chat in ("group", "channel") and name in PERSONAL:
        return "others listen"
    if key.kind == "subagent" and name in FILES and name not in OF_TASKS:
        return "a sub-agent has one task"
    return ""


def cut_file(name: str, data: bytes, limit: int = FILE_BYTES_MAX) -> Found:
    """A file's bytes as they may be shown: of one that is too long three quarters of the limit from its beginning, one
    quarter from its end, and a note between them.
    """
    if len(data) <= limit:
        return Found(name, len(data), data.decode("utf-8", "replace").strip())
    return _without_middle(name, data, len(data), 0, limit)


def _shown(one: Found, withheld: str, left: int) -> tuple[PromptFile, str]:
    """What becomes of one file when there is room for `left` bytes, and its text."""
    if one.problem:
        return PromptFile(one.name, "refused", one.bytes or 0, 0, one.problem), ""
    if one.bytes is None:
        return PromptFile(one.name, "missing"), ""
    if withheld:
        return PromptFile(one.name, "withheld", one.bytes, 0, withheld), ""
    data = one.text.encode()
    if len(data) > left:
        if left < LEAST_BYTES:
            return PromptFile(one.name, "no_room", one.bytes), ""
        one = _without_middle(one.name, data, one.bytes, one.left_out, left)
        data = one.text.encode()
    state: State = "cut" if one.left_out else "whole"
    return PromptFile(one.name, state, one.bytes or 0, len(data)), one.text


def _without_middle(name: str, data: bytes, size: int, left_out: int, limit: int) -> Found:
    """At most `limit` bytes, the note about the rest included, cut between characters."""
    room = limit - 120 - len(name.encode())  # the note
    end = max(0, room // 4)
    begin = max(0, room - end)
    left_out += len(data) - begin - end
    note = f"\n[… {left_out} bytes left out; the file {name} of your workspace has them …]\n"
    text = data[:begin].decode("utf-8", "ignore") + note + data[len(data) - end :].decode("utf-8", "ignore")
    return Found(name, size, text.strip(), left_out)
