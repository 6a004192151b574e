"""The tools `read`, `write`, `edit` and `list`: files of the agent's workspace, and none besides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from holdfast.errors import InputError
from holdfast.model.client import ToolSpec
from holdfast.tool.arguments import flag, number, text_of, texts
from holdfast.tool.workspace import DEPTH_MAX, Workspace
from holdfast.turn.tools import Tool, ToolCall

T = TypeVar("T")
LINES_MAX = 2000
SHOWN_CHARS_MAX = 100_000
"""Of a file, in one call; `from_line` shows the rest."""

_PATH = {"type": "string", "description": "Relative to the workspace."}


def file_tools() -> list[Tool]:
    """All four. They need `ToolCall.workspace`."""
    return [
        Tool(_READ, read, restart_safe=True, effect="read"),
        Tool(_LIST, list_files, restart_safe=True, effect="read"),
        Tool(_WRITE, write, restart_safe=True, effect="change"),
        Tool(_EDIT, edit, effect="change"),
    ]


_READ = ToolSpec(
    "read",
    "Read a text file of the workspace.",
    {
        "type": "object",
        "properties": {
            "path": _PATH,
            "from_line": {"type": "integer", "description": "First line to show; 1 is the first of the file."},
            "lines": {"type": "integer", "description": f"How many lines, at most {LINES_MAX}."},
        },
        "required": ["path"],
    },
)
_LIST = ToolSpec(
    "list",
    "List the files of a folder of the workspace.",
    {
        "type": "object",
        "properties": {
            "path": {**_PATH, "description": "A folder; left out: the workspace itself."},
            "depth": {"type": "integer", "description": f"How many folders deep, 1 to {DEPTH_MAX}."},
        },
    },
)
_WRITE = ToolSpec(
    "write",
    "Write a file of the workspace, replacing what was in it.",
    {
        "type": "object",
        "properties": {"path": _PATH, "text": {"type": "string"}},
        "required": ["path", "text"],
    },
)
_EDIT = ToolSpec(
    "edit",
    "Replace one piece of text in a file of the workspace. The piece must be in it exactly once.",
    {
        "type": "object",
        "properties": {
            "path": _PATH,
            "old": {"type": "string", "description": "The text to replace, exactly as it stands in the file."},
            "new": {"type": "string"},
            "all": {"type": "boolean", "description": "Replace it wherever it is."},
        },
        "required": ["path", "old", "new"],
    },
)


async def read(call: ToolCall) -> str:
    """The lines asked for, with a note about those left out."""
    path = text_of(call, "path")
    first, count = number(call, "from_line", 1, 1, 10**9), number(call, "lines", LINES_MAX, 1, LINES_MAX)
    data = await _in_thread(call, lambda space: space.read(path))
    if b"\0" in data[:8192]:
        raise InputError(f"{path!r} is not a text file ({len(data)} bytes)")
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    shown = "".join(lines[first - 1 : first - 1 + count])
    left_out = max(0, len(lines) - (first - 1 + count))
    if len(shown) > SHOWN_CHARS_MAX:
        return f"{shown[:SHOWN_CHARS_MAX]}\n… ({len(shown) - SHOWN_CHARS_MAX} characters of these lines left out)"
    if left_out:
        return f"{shown}… ({left_out} lines more; from_line={first + count} goes on)"
    return shown or "(empty)"


async def list_files(call: ToolCall) -> str:
    """One name per line; a folder's ends in a slash."""
    path = text_of(call, "path", ".") or "."
    depth = number(call, "depth", 1, 1, DEPTH_MAX)
    found, more = await _in_thread(call, lambda space: space.list(path, depth))
    names = [f"{one.path}/" if one.kind == "folder" else f"{one.path} ({_about(one.kind, one.bytes)})" for one in found]
    return "\n".join([*names, *(["… (more than are listed)"] if more else [])]) or "(empty)"


def _about(kind: str, size: int) -> str:
    return f"{size} bytes" if kind == "file" else kind


async def write(call: ToolCall) -> str:
    path, text = texts(call, "path", "text")
    data = _bytes(text)
    is_new = await _in_thread(call, lambda space: space.write(path, data))
    return f"{'made' if is_new else 'replaced'} {path} ({len(data)} bytes)"


async def edit(call: ToolCall) -> str:
    path, old, new = texts(call, "path", "old", "new")
    every = flag(call, "all")
    _bytes(new)
    count = await _in_thread(call, lambda space: space.change(path, old, new, every=every))
    return f"changed {path} in {count} place{'' if count == 1 else 's'}"


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError("the text holds half a character (a lone surrogate); leave it out") from None


async def _in_thread(call: ToolCall, act: Callable[[Workspace], T]) -> T:
    """On a thread: disks may be slow. Cancelled, what was begun still ends, whole."""
    space = workspace_of(call)
    return await asyncio.get_running_loop().run_in_executor(None, lambda: act(space))


def workspace_of(call: ToolCall) -> Workspace:
    """The workspace of the agent that calls. Raises InputError: it has none."""
    if not call.workspace:
        raise InputError("this agent has no workspace")
    return Workspace(call.workspace)
