"""What an agent is asked before its conversation is shortened: whether something of it should be noted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from holdfast.context.plan import is_compaction
from holdfast.session.key import parse_key
from holdfast.session.lines import Line

FLUSH_TYPE = "holdfast:memory_flush"
"""customType of the lines that tell of it: for audit, never for a model."""
FOLDER = "memory"
"""Of the workspace; the only one that may be written in."""


def note_path(at: datetime) -> str:
    """The file for what is noted at this time, relative to the workspace."""
    return f"{FOLDER}/{at:%Y-%m-%d}.md"


def instruction(path: str) -> str:
    """What the agent is asked, behind the conversation as it is shown."""
    return (
        "This conversation is about to be shortened: a summary will stand for its older part. If something was said "
        "that should be known later and is written down nowhere yet (decisions, preferences, facts, what is still to "
        f"be done), note it now, in short, in the file {path} of your workspace. If the file is there, read it first "
        f"and keep what it says. You can write in the folder {FOLDER} alone. Nobody reads your answer; if there is "
        "nothing to note, or once it is noted, answer NO_REPLY."
    )


def was_flushed(lines: Sequence[Line]) -> bool:
    """Whether it was begun since the newest compaction of a branch: it is done once for each."""
    for line in reversed(lines):
        if is_compaction(line):
            return False
        if line.type == "custom" and line.custom_type == FLUSH_TYPE:
            return True
    return False


def unfit_session(session: str) -> str:
    """Why a session has no memory to keep, in words; empty: it may have."""
    key = parse_key(session)
    if key.heartbeat or key.kind in ("cron", "hook", "subagent"):
        return "it is no conversation with a person"
    return ""
