"""The tools of a memory flush: the agent's own `read`, `write` and `edit`, held to notes in one folder.

No person is asked here, so that the rule is part of the tools: a path outside the folder is refused before the tool
hears of it, and the workspace follows no link out of it. What the policy denies, or wants a person asked for, by name
is not offered at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holdfast.context.memory import FOLDER
from holdfast.errors import InputError
from holdfast.tool.policy import Effect
from holdfast.tool.workspace import Workspace
from holdfast.turn.tools import Tool, Toolbox, ToolCall

WRITING, READING = ("write", "edit"), ("read",)


def memory_tools(toolbox: Toolbox, held_back: Callable[[str, Effect], str]) -> Toolbox | str:
    """The tools that notes may be written with, or why there are none.

    Args:
        held_back: why a tool may not be used without asking a person, in words; empty: it may.
    """
    found: list[Tool] = []
    reasons: list[str] = []
    for name in (*WRITING, *READING):
        tool = toolbox.find(name)
        if tool is None:
            continue
        reason = held_back(name, "read" if name in READING else "change")
        if reason:
            reasons.append(f"{name} is {reason}")
        else:
            found.append(replace(tool, run=_within_folder(tool)))
    if any(tool.spec.name in WRITING for tool in found):
        return Toolbox(found)
    return "; ".join(reasons) or "the agent has no tool to write with"


def _within_folder(tool: Tool) -> Callable[[ToolCall], Any]:
    async def run(call: ToolCall) -> Any:
        path = call.arguments.get("path")
        names = Workspace(call.workspace).names(path) if isinstance(path, str) else []
        if len(names) < 2 or names[0] != FOLDER or not names[-1].endswith(".md"):
            raise InputError(f"path: only notes in the folder {FOLDER}, such as {FOLDER}/NAME.md")
        return await tool.run(call)

    return run
