"""Whether a pull request shows that its change was run for real: a pure reading of its text.

Whoever does not belong to the repository fills in a section "Real behavior proof" of six fields. Tests, mocks, lint and
CI are welcome and are no proof: they show what the author expected. The order of the checks is the order of `judge`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "missing", "mock_only", "insufficient", "skipped", "override"]

OVERRIDE_LABEL = "proof: override"
NEEDED_LABEL = "triage: needs-real-behavior-proof"
MOCK_LABEL = "triage: mock-only-proof"
INSIDERS = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})
BODY_MAX = 262_144
"""Characters that are looked at; GitHub itself takes 65,536."""


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that has to be said. names: how it may be called. takes_none: "none" is an answer to it."""

    key: str
    names: tuple[str, ...]
    takes_none: bool = False


FIELDS = (
    Field("behavior", ("behavior or issue addressed", "issue addressed", "behavior addressed")),
    Field("environment", ("real environment tested", "environment tested", "real setup tested")),
    Field(
        "steps",
        (
            "exact steps or command run after this patch",
            "exact steps or command run after the patch",
            "exact steps or command run after fix",
            "steps run after the patch",
            "command run after the patch",
        ),
    ),
    Field("evidence", ("evidence after fix", "after-fix evidence", "evidence link or embedded proof", "evidence")),
    Field("observedResult", ("observed result after fix", "observed result after the fix", "observed result")),
    Field("notTested", ("what was not tested", "not tested"), takes_none=True),
)
OTHER_FIELDS = ("before evidence", "before evidence optional")
"""They may stand there, end the field before them, and are asked of nobody."""

_HEADING = re.compile(r"#{1,6}\s+\S")
_OUR_HEADING = re.compile(r"#{2,6}\s+real behavior proof\b", re.IGNORECASE)
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_FIELD_LINE = re.compile(
    r"\s*(?:[-*]\s*)?(?:\*\*)?(?P<name>[a-z][a-z -]*?)(?:\s*\([^)]*\))?(?:\*\*)?\s*:(?:\*\*)?\s*(?P<value>.*)",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_LIST_MARK = re.compile(r"\s*[-*]\s+")

EMPTY_WORDS = frozenset({
    "n/a", "na", "not applicable", "tbd", "todo", "unknown", "unsure", "none provided", "no evidence", "not tested",
    "untested", "-",
})  # fmt: skip
NOTHING_WORDS = frozenset({"none", "nothing else", "no known gaps", "no additional gaps"})
ADMISSIONS = frozenset({
    "n/a", "na", "not applicable", "not tested", "untested", "no evidence", "did not test", "didn't test",
    "could not test", "couldn't test",
})  # fmt: skip

_ARTEFACT = re.compile(
    r"""
      !\[[^\]]*\]\([^)]+\)                                         # an embedded picture
    | <(?:img|video)\b
    | github\.com/user-attachments/assets/
    | https?://\S+\.(?:png|jpe?g|gif|webp|mp4|mov|webm)\b
    | \b(?:screenshot|screen\s*recording|recording
        | terminal\s+(?:capture|screenshot|transcript|output) | console\s+(?:output|log)
        | runtime\s+logs? | redacted\s+logs? | (?:live|actual|observed)\s+output
        | stdout | stderr | stack\s+trace | (?:trace|log)\s+excerpt)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PICTURE = re.compile(
    r"!\[[^\]]*\]\([^)]+\)|<(?:img|video)\b[^>]*>?|https?://\S+\.(?:png|jpe?g|gif|webp|mp4|mov|webm)\b"
    r"|https?://github\.com/user-attachments/assets/\S+",
    re.IGNORECASE,
)
_LIVE_COMMAND = re.compile(
    r"\b(?:holdfast|openclaw|node|docker|curl|gh|ssh|adb|xcrun|xcodebuild|open|npm\s+run|pnpm\s+openclaw)\b",
    re.IGNORECASE,
)
"""Programs whose name, beside what they answered, is taken for a run."""
_REHEARSAL = re.compile(
    r"""
      \b(?:pnpm|npm|yarn|bun)\s+(?:run\s+)?(?:test|vitest|lint|typecheck|tsgo|build|check)\b
    | \b(?:pytest|vitest|unit\s+tests?|mock(?:ed|s)?|snapshots?|lint|typechecks?|tsgo|ci(?:\s+passes?)?)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What runs where the author decides what comes out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. missing: keys of fields, in the order of `FIELDS`. values: what the fields say."""

    status: Status
    why: str
    missing: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def passes(self) -> bool:
        """Whether the check of the pull request succeeds."""
        return self.status in ("passed", "skipped", "override")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that belong on it; of these two no other."""
        if self.status == "mock_only":
            return (MOCK_LABEL,)
        return (NEEDED_LABEL,) if self.status in ("missing", "insufficient") else ()


def judge(pull_request: Mapping[str, Any], labels: Iterable[Any] | None = None) -> Verdict:
    """Read a pull request as GitHub's REST API gives it (`author_association`, `user`, `labels`, `body`).

    `labels`: names, or objects with one; None: those of the pull request. What is absent or of another type counts as
    empty, and its author as a stranger.
    """
    if OVERRIDE_LABEL in _names(pull_request.get("labels") if labels is None else labels):
        return Verdict("override", f"the label {OVERRIDE_LABEL!r} was put there by a maintainer")
    if not is_stranger(pull_request):
        return Verdict("skipped", "maintainers, collaborators and programs are not asked for it")
    body = pull_request.get("body")
    lines = section_of(body if isinstance(body, str) else "")
    if not any(line.strip() for line in lines):
        return Verdict("missing", "there is no section 'Real behavior proof' with anything in it")
    values = values_of(lines)
    missing = tuple(one.key for one in FIELDS if is_empty(values.get(one.key, ""), takes_none=one.takes_none))
    if missing:
        return Verdict("missing", f"these fields say nothing: {', '.join(missing)}", missing, values)
    if any(_is_admission(_said(line)) for line in _in_the_open(lines)):
        return Verdict("insufficient", "a line says that it was not tested", (), values)
    shown = f"{values['evidence']}\n{values['observedResult']}"
    if is_real(shown):
        return Verdict("passed", "it shows a run of the change", (), values)
    if _REHEARSAL.search(f"{shown}\n{values['steps']}"):
        return Verdict("mock_only", "tests, mocks, snapshots, lint, types and CI are no run of the change", (), values)
    why = "nothing in it is a picture, a recording, a log, copied output or a terminal of a real run"
    return Verdict("insufficient", why, (), values)


def is_stranger(pull_request: Mapping[str, Any]) -> bool:
    """Whether its author is a person who does not belong to the repository."""
    user = pull_request.get("user")
    user = user if isinstance(user, Mapping) else {}
    login = user.get("login")
    login = login if isinstance(login, str) else ""
    if user.get("type") == "Bot" or login.lower().endswith("[bot]") or login.startswith("app/"):
        return False
    return str(pull_request.get("author_association") or "").upper() not in INSIDERS


def section_of(body: str) -> list[str]:
    """The lines below the first heading "Real behavior proof" up to the next heading; a `#` in a code fence is none."""
    text = _COMMENT.sub("", body[:BODY_MAX].replace("\r\n", "\n").replace("\r", "\n"))
    found: list[str] = []
    inside, fence = False, ""
    for line in text.split("\n"):
        if not fence and _HEADING.match(line):
            if inside:
                break
            inside = bool(_OUR_HEADING.match(line))
        elif inside:
            found.append(line)
        fence = _fence_after(fence, line)
    return found


def values_of(lines: Iterable[str]) -> dict[str, str]:
    """What each field says: the rest of its line and the lines below it, up to the next field. The first one counts."""
    parts: dict[str, list[str]] = {}
    filling: list[str] = []
    fence = ""
    for line in lines:
        name, value = ("", line) if fence else _field_of(line)
        if name:
            filling = parts.setdefault(name, []) if name not in parts else []
        filling.append(value)
        fence = _fence_after(fence, line)
    return {name: "\n".join(part).strip() for name, part in parts.items()}


def is_empty(value: str, *, takes_none: bool = False) -> bool:
    """Whether a field says nothing: empty, a placeholder, or a template's words in brackets."""
    said = " ".join(value.lower().split())
    if takes_none and said in NOTHING_WORDS:
        return False
    return not said or said in EMPTY_WORDS or bool(re.fullmatch(r"\[[^\]]*\]", value.strip()))


def is_real(text: str) -> bool:
    """Whether a text shows, or names, what came out of a run."""
    return bool(_ARTEFACT.search(text) or _LIVE_COMMAND.search(text) or _has_block(text))


def strength(text: str) -> int:
    """How many kinds of things a text shows: a picture or recording, a copied terminal, a log in words."""
    kinds = (bool(_PICTURE.search(text)), _has_block(text), bool(_ARTEFACT.search(_PICTURE.sub("", text))))
    return sum(kinds)


def _has_block(text: str) -> bool:
    """Whether there is a code block with at least a line in it."""
    fence, inside = "", False
    for line in text.split("\n"):
        after = _fence_after(fence, line)
        if fence and not after and inside:
            return True
        inside = bool(fence) and (inside or bool(line.strip()))
        fence = after
    return False


def _in_the_open(lines: Iterable[str]) -> Iterator[str]:
    """The lines outside code fences."""
    fence = ""
    for line in lines:
        if not fence:
            yield line
        fence = _fence_after(fence, line)


def _fence_after(fence: str, line: str) -> str:
    """The open code fence below `line`; empty: none. One that opens and closes in a line opens nothing."""
    found = _FENCE.match(line)
    if not found:
        # A fence may also stand behind the name of a field: "Evidence: ```text".
        behind = re.search(r":\s*(`{3,}|~{3,})[\w+-]*\s*$", line)
        return behind.group(1) if behind and not fence else fence
    mark = found.group(1)
    if not fence:
        return "" if mark in line[found.end() :] else mark
    closes = mark[0] == fence[0] and len(mark) >= len(fence) and not line[found.end() :].strip()
    return "" if closes else fence


def _field_of(line: str) -> tuple[str, str]:
    """The key of the field that a line begins, with the rest of the line. Others' names: themselves; none: empty."""
    found = _FIELD_LINE.fullmatch(line)
    if not found:
        return "", line
    name = " ".join(found["name"].lower().split())
    if name in OTHER_FIELDS:
        return name, found["value"]
    return next((one.key for one in FIELDS if name in one.names), ""), found["value"]


def _said(line: str) -> str:
    name, value = _field_of(line)
    return value if name else _LIST_MARK.sub("", line, count=1)


def _is_admission(said: str) -> bool:
    return " ".join(said.lower().split()).rstrip(". ") in ADMISSIONS


def _names(labels: Any) -> set[str]:
    if not isinstance(labels, Iterable) or isinstance(labels, str | bytes):
        return set()
    names = (label.get("name") if isinstance(label, Mapping) else label for label in labels)
    return {name for name in names if isinstance(name, str)}
