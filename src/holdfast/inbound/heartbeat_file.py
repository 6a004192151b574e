"""HEARTBEAT.md: what an agent is to look after, and the text that a heartbeat says. Pure; the file is read elsewhere.

    Anything here is shown to the model at each heartbeat.

    tasks:
    - name: mail
      interval: 2h
      prompt: Look for mail that cannot wait.

A `tasks:` block gives parts of the work intervals of their own. With nothing but tasks in the file, a heartbeat at
which none is due does not ask the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.inbound.heartbeat import ACK_TOKEN
from holdfast.inbound.schedule import duration_ms

FILE_BYTES_MAX = 64 * 1024
TASKS_MAX = 50
_EMPTY_LINE = re.compile(r"\s*(#+(\s.*)?|[-*+]\s*(\[[ xX]?\]\s*)?|<!--.*-->)?\s*")
_FIELD = re.compile(r"\s*(?:-\s+)?(name|interval|prompt)\s*:\s*(.*?)\s*")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the file."""

    name: str
    interval_ms: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a file says: text for every heartbeat, and tasks. `empty`: nothing to do at all (headings, blanks)."""

    text: str
    tasks: tuple[Task, ...] = ()
    empty: bool = False


def is_empty(content: str) -> bool:
    """Whether a file says nothing: only blank lines, headings, list marks without text, comments."""
    return all(_EMPTY_LINE.fullmatch(line) for line in content.splitlines())


def read_instructions(content: str | None) -> Instructions:
    """Take the file apart. None: there is no file, which is no reason not to look. Half a task counts as text."""
    if content is None:
        return Instructions("")
    tasks: list[Task] = []
    kept: list[str] = []
    block: list[str] | None = None
    for line in [*content.splitlines(), ""]:
        if block is None and line.strip() == "tasks:":
            block = []
        elif block is not None and (line.startswith((" ", "\t", "-")) and line.strip()):
            block.append(line)
        else:
            if block is not None:
                tasks += _tasks_of(block, kept)
                block = None
            kept.append(line)
    if block is not None:
        tasks += _tasks_of(block, kept)
    text = "\n".join(kept).strip()
    return Instructions("" if is_empty(text) else text, tuple(tasks[:TASKS_MAX]), empty=not tasks and is_empty(text))


def _tasks_of(block: Sequence[str], kept: list[str]) -> list[Task]:
    items: list[list[str]] = []
    for line in block:
        if line.lstrip().startswith("-") or not items:
            items.append([])
        items[-1].append(line)
    found: list[Task] = []
    for item in items:
        fields = {match[1]: match[2].strip("\"'") for line in item if (match := _FIELD.fullmatch(line)) is not None}
        every = duration_ms(fields.get("interval", ""))
        if fields.get("name") and fields.get("prompt") and every:
            found.append(Task(fields["name"], every, fields["prompt"]))
        else:
            kept.extend(item)
    return found


def due_tasks(tasks: Sequence[Task], last_ms: Mapping[str, int], now_ms: int) -> list[Task]:
    """Those whose interval has passed since they were last shown, and those never shown. A stamp from the future (the
    clock was set back) counts as none.
    """
    return [task for task in tasks if not 0 <= now_ms - last_ms.get(task.name, -(10**15)) < task.interval_ms]


def prompt(instructions: Instructions, tasks: Sequence[Task], events: Sequence[str], at: str) -> str:
    """What a heartbeat says to the model.

    Args:
        tasks: those that are due.
        events: what happened since.
        at: the time, in words.
    """
    opening = (
        f"Heartbeat at {at}. Nobody has written; look whether anything needs attention now. Do not take up old tasks "
        f"from earlier in the conversation. If nothing does, answer with {ACK_TOKEN} alone; else say what it is, "
        "without that word."
    )
    parts = [opening]
    if instructions.text:
        parts.append(f"HEARTBEAT.md, to be followed to the letter:\n\n{instructions.text}")
    if tasks:
        parts.append("Tasks that are due:\n\n" + "\n".join(f"- {task.name}: {task.prompt}" for task in tasks))
    if events:
        parts.append("Since the last look:\n\n" + "\n".join(f"- {event}" for event in events))
    return "\n\n".join(parts)
