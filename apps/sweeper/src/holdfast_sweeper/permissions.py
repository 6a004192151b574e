"""Who may ask for what, and what they are told if not. Pure; who somebody is, GitHub says (`reading.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_sweeper.commands import ANSWERING, CHANGING, READING, SAYS, Word

WRITES = frozenset({"write", "maintain", "admin"})


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who comments.

    Args:
        permission: GitHub's word: "admin", "maintain", "write", "triage", "read", "none".
        is_author: the item is theirs.
        is_program: an app or a bot; it may ask for nothing unless the settings name it.
    """

    login: str
    permission: str = "none"
    is_author: bool = False
    is_program: bool = False

    @property
    def writes(self) -> bool:
        return self.permission in WRITES


def refusal(word: Word, asker: Asker, *, programs: frozenset[str] = frozenset()) -> str:
    """Why `asker` may not ask for `word`, for them to read; empty: they may."""
    if asker.is_program and asker.login.lower() not in programs:
        return "programs are not listened to, unless the settings name them in `programs`"
    if word == "unknown":
        return f"that is no command; there are {', '.join(one for one in SAYS if one != 'unknown')}"
    if word in READING and not (asker.writes or asker.is_author):
        return f"`{word}` is for the author and for people with write access; you have “{asker.permission}”"
    if word in CHANGING and not asker.writes:
        hint = "; the author may ask for `review` and `explain`" if asker.is_author else ""
        return f"`{word}` changes the repository, so it takes write access; you have “{asker.permission}”{hint}"
    if word in ANSWERING and not asker.writes:
        return f"`{word}` takes write access; you have “{asker.permission}”"
    return ""


def may_answer(asked_by: str, answerer: Asker, *, self_approval: bool) -> str:
    """Why somebody may not answer the question that `asked_by` has caused; empty: they may."""
    if not answerer.writes:
        return f"consent takes write access; you have “{answerer.permission}”"
    if answerer.login.lower() == asked_by.lower() and not self_approval:
        return "whoever asks for a change does not consent to it as well; somebody else with write access does"
    return ""
