"""From a webhook to what is to be done, and from what is known of an item to the next step. Pure.

Every event means no more than "look at this item": what is done follows from the item as GitHub has it then. So it does
not matter in which order events come, how often, or whether some never do.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast_sweeper.commands import ANSWERING, Command, Word, find_command
from holdfast_sweeper.facts import Facts, Item
from holdfast_sweeper.settings import Settings

Why = Literal["event", "push", "command", "schedule", "dispatch", "checks"]
LOOKS = {
    "pull_request": frozenset({
        "opened", "reopened", "synchronize", "edited", "ready_for_review", "converted_to_draft", "closed", "labeled",
        "unlabeled",
    }),
    "issues": frozenset({"opened", "reopened", "edited", "closed", "labeled", "unlabeled"}),
}  # fmt: skip
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to be done, as it waits in the queue.

    Args:
        by: login of whoever caused it; empty: nobody. by_id: GitHub's number of them. comment: id of the comment that
        asked; 0: none. command: None: look only. head: of a push, the commit that it brought.
    """

    item: Item
    why: Why
    by: str = ""
    by_id: int = 0
    is_program: bool = False
    comment: int = 0
    command: Command | None = None
    head: str = ""

    @property
    def ends_running(self) -> bool:
        """Whether what runs on the item is in vain now."""
        return self.why == "push" or (self.command is not None and self.command.word in ("stop", "re-run", "re-review"))

    @property
    def is_answer(self) -> bool:
        """It answers what a running turn waits for, so it cannot wait behind that turn."""
        return self.command is not None and self.command.word in ANSWERING

    @property
    def told(self) -> str:
        """In words, for the conversation."""
        what = (
            f"“{self.command.word}”"
            if self.command
            else {"push": "a push", "event": "an event"}.get(self.why, self.why)
        )
        return f"{self.item.text}: {what}{f' by {self.by}' if self.by else ''}"

    def to_json(self) -> dict[str, Any]:
        command = [self.command.word, self.command.rest] if self.command else None
        return {
            "repo": self.item.repo, "number": self.item.number, "why": self.why, "by": self.by, "by_id": self.by_id,
            "is_program": self.is_program, "comment": self.comment, "command": command, "head": self.head,
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Work:
        """Raises KeyError, TypeError or ValueError for what `to_json` has not made."""
        rest = {name: value for name, value in told.items() if name not in ("repo", "number", "command")}
        command = Command(*told["command"]) if told["command"] else None
        return cls(Item(told["repo"], told["number"]), command=command, **rest)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing is to be done, and why."""

    why: str


def plan(
    event: str, payload: Mapping[str, Any], settings: Settings, *, login: str, our_id: int
) -> list[Work] | Ignored:
    """What a webhook asks for. Whatever the payload holds, nothing breaks.

    Args:
        event: GitHub's name of it. login, our_id: our own account, whose doings are not heard.
    """
    repo, action = _text(_inner(payload, "repository"), "full_name"), _text(payload, "action")
    sender = _inner(payload, "sender")
    if not settings.hears(repo):
        return Ignored("the repository is not one of `repositories`")
    if event == "ping":
        return Ignored("ping")
    if event in ("check_suite", "status", "check_run"):
        return _of_checks(event, payload, repo, action)
    is_ours = sender.get("id") == our_id and our_id != 0
    about = _inner(payload, "pull_request") or _inner(payload, "issue")
    number = about.get("number")
    if not isinstance(number, int) or number < 1:
        return Ignored("no item is named")
    item = Item(repo, number)
    by: dict[str, Any] = {
        "by": _text(sender, "login"),
        "by_id": _number(sender, "id"),
        "is_program": sender.get("type") == "Bot",
    }
    if event == "issue_comment":
        return _of_comment(payload, item, action, by, login, is_ours=is_ours)
    if is_ours:
        return Ignored("our own doing")
    if action not in LOOKS.get(event, ()):
        return Ignored(f"{event} {action} changes nothing for us")
    if event == "issues" and not settings.issues:
        return Ignored("issues are not reviewed")
    why: Why = "push" if action == "synchronize" else "event"
    return [Work(item, why, head=_text(payload, "after")[:64], **by)]


def _of_comment(
    payload: Mapping[str, Any], item: Item, action: str, by: dict[str, Any], login: str, *, is_ours: bool
) -> list[Work] | Ignored:
    comment = _inner(payload, "comment")
    if action == "deleted" and "<!-- holdfast-sweeper" in _text(comment, "body"):
        return [Work(item, "event", **by)]
    if is_ours or action != "created":
        return Ignored("our own comment" if is_ours else f"a comment {action} asks for nothing")
    command = find_command(_text(comment, "body"), login)
    if command is None:
        return Ignored("the comment names no command")
    return [Work(item, "command", comment=_number(comment, "id"), command=command, **by)]


def _of_checks(event: str, payload: Mapping[str, Any], repo: str, action: str) -> list[Work] | Ignored:
    about = _inner(payload, event)
    if event == "status" or action != "completed":
        return Ignored("only completed checks are looked at")
    pulls = about.get("pull_requests")
    numbers = [one.get("number") for one in pulls if isinstance(one, Mapping)] if isinstance(pulls, list) else []
    found = [Work(Item(repo, one), "checks") for one in numbers[:10] if isinstance(one, int) and one > 0]
    return found or Ignored("the checks are of no pull request")


# ── what to do with an item ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Memory:
    """What the conversation of an item holds. Times are seconds since 1970.

    Args:
        comment: id of our comment as far as we know; 0: none. reviewed: digest of the facts of the newest review.
        proof_head, proof_body: for which commit, by which text, the proof was sufficient. reviews: when they were made.
    """

    comment: int = 0
    reviewed: str = ""
    proof_head: str = ""
    proof_body: str = ""
    reviews: tuple[float, ...] = ()


def is_stale(memory: Memory, facts: Facts) -> bool:
    """Whether the proof was shown for an earlier commit: the text is the same, the commit another."""
    return bool(memory.proof_head) and memory.proof_head != facts.head and memory.proof_body == facts.body_digest


def exemption(facts: Facts, settings: Settings, command: Command | None) -> str:
    """Why an item is not reviewed; empty: it is. A command asks for it all the same, unless a label forbids it."""
    exempt = settings.exempt
    label = next((one for one in exempt.labels if one in facts.labels), None)
    if label is not None:
        return f"it has the label “{label}”"
    if command is not None:
        return ""
    if facts.state != "open":
        return f"it is {facts.state}"
    if any(fnmatch.fnmatchcase(facts.author.lower(), one.lower()) for one in exempt.authors):
        return f"{facts.author} is exempt"
    if exempt.drafts and facts.is_draft:
        return "it is a draft"
    if facts.added + facts.removed > exempt.lines_max:
        return f"it changes more than {exempt.lines_max} lines; ask for it by a comment"
    return "" if settings.issues or facts.kind == "pull" else "issues are not reviewed"


def needs_review(memory: Memory, facts: Facts, command: Command | None) -> bool:
    """Whether it has to be reviewed anew: it changed, or somebody asks for that."""
    forced: tuple[Word, ...] = ("re-review", "re-run")
    return (command is not None and command.word in forced) or memory.reviewed != facts.digest


def too_often(times: Sequence[float], now: float, most: int) -> float:
    """Seconds until the next one of its kind is allowed; 0: it is now. `times`: of those before, in any order."""
    recent = sorted(one for one in times if now - HOUR_S < one <= now)
    if len(recent) < most:
        return 0.0
    return HOUR_S if most == 0 else max(1.0, recent[len(recent) - most] + HOUR_S - now)


def _inner(source: Any, name: str) -> Mapping[str, Any]:
    value = source.get(name) if isinstance(source, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def _number(source: Mapping[str, Any], name: str) -> int:
    value = source.get(name)
    return value if isinstance(value, int) else 0
