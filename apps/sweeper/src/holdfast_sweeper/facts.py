"""What is known of one pull request or issue, made small and plain from GitHub's answers: pure, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast_sweeper.text import cut, digest

Kind = Literal["pull", "issue"]
CheckState = Literal["passed", "failed", "running"]
BODY_MAX, COMMENT_MAX, PATCH_MAX = 20_000, 4_000, 12_000
COMMENTS_MAX, FILES_MAX = 40, 300
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_REPO = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_TESTS = re.compile(
    r"(?:^|/)(?:tests?|__tests__|spec|testing)(?:/|$)|(?:^|/)test_[^/]+$|[._-](?:test|spec)\.[a-z]+$", re.I
)
_DOCS = re.compile(r"(?:^|/)docs?/|\.(?:md|rst|txt|adoc)$|(?:^|/)(?:readme|changelog|license)[^/]*$", re.I)
_SETUP = re.compile(
    r"(?:^|/)\.github/|(?:^|/)(?:dockerfile|makefile)[^/]*$|\.(?:ya?ml|toml|ini|cfg|lock)$"
    r"|(?:^|/)(?:package(?:-lock)?|tsconfig[^/]*)\.json$|(?:^|/)requirements[^/]*$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Item:
    """Which one."""

    repo: str
    number: int

    @property
    def text(self) -> str:
        return f"{self.repo}#{self.number}"

    @property
    def session(self) -> str:
        """Its conversation."""
        return f"agent:sweeper:github:channel:{self.repo.lower()}:thread:{self.number}"

    @classmethod
    def of(cls, text: str) -> Item:
        """From `owner/repo#12` or its address. Raises ValueError."""
        said = re.sub(r"^https://github\.com/([^/]+/[^/]+)/(?:issues|pull)/(\d+).*$", r"\1#\2", text.strip())
        repo, _, number = said.partition("#")
        if not is_repo(repo) or not re.fullmatch(r"[1-9]\d{0,9}", number):
            raise ValueError(f"{text[:100]!r} names no item; write owner/repo#12, or its address")
        return cls(repo, int(number))


@dataclass(frozen=True, slots=True)
class Changed:
    """One file of a pull request. patch: as GitHub shows it, cut; empty: it is binary or too large."""

    path: str
    status: str
    added: int
    removed: int
    patch: str = ""

    @property
    def area(self) -> str:
        """What part of the repository it is of: tests, docs, build and settings, or its first folder."""
        for area, pattern in (("tests", _TESTS), ("docs", _DOCS), ("build and settings", _SETUP)):
            if pattern.search(self.path):
                return area
        folders = self.path.split("/")[:-1]
        skipped = folders[1:] if folders and folders[0] in ("src", "lib", "packages", "apps") else folders
        return "/".join(skipped[:1] or folders[:1]) or "top level"

    @property
    def is_code(self) -> bool:
        return self.area not in ("tests", "docs", "build and settings")

    def new_lines(self) -> dict[int, str]:
        """The lines that it adds, by their numbers in the new file."""
        return {number: text for number, sign, text in self._lines() if sign == "+"}

    def shown_lines(self) -> set[int]:
        """All lines of the new file that the patch shows."""
        return {number for number, _, _ in self._lines()}

    def old_ranges(self) -> list[tuple[int, int]]:
        """First and last line, in the old file, of each piece that is replaced."""
        found = (_HUNK.match(line) for line in self.patch.splitlines())
        return [(int(one[1]), int(one[1]) + int(one[2] or 1) - 1) for one in found if one and int(one[2] or 1)]

    def _lines(self) -> Iterable[tuple[int, str, str]]:
        at = 0
        for line in self.patch.splitlines():
            hunk = _HUNK.match(line)
            if hunk:
                at = int(hunk[3])
            elif at and line[:1] in ("+", " "):
                yield at, line[0], line[1:]
                at += 1


@dataclass(frozen=True, slots=True)
class Said:
    by: str
    text: str
    association: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: CheckState
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom it may concern. confidence: 0 to 1; why: in words."""

    login: str
    role: str
    confidence: float
    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a review rests on. head: the commit it is about: of a pull request its newest, of an issue the
    newest of the repository's main branch.
    """

    item: Item
    kind: Kind
    state: Literal["open", "closed", "merged"]
    title: str
    body: str
    author: str
    association: str
    labels: tuple[str, ...]
    head: str
    url: str
    is_draft: bool = False
    is_program: bool = False
    head_repo: str = ""
    head_ref: str = ""
    base_ref: str = ""
    base: str = ""
    files: tuple[Changed, ...] = ()
    files_left_out: int = 0
    comments: tuple[Said, ...] = ()
    reviews: tuple[Said, ...] = ()
    checks: tuple[Check, ...] = ()
    people: tuple[Person, ...] = ()
    mergeable: bool | None = None
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)

    @property
    def digest(self) -> str:
        """What a review depends on; another one: it has to be made anew."""
        return digest(self.kind, self.head if self.kind == "pull" else "", self.title, self.body)

    @property
    def body_digest(self) -> str:
        return digest(self.body)

    @property
    def added(self) -> int:
        return sum(one.added for one in self.files)

    @property
    def removed(self) -> int:
        return sum(one.removed for one in self.files)

    @property
    def has_code(self) -> bool:
        return any(one.is_code for one in self.files)

    @property
    def has_tests(self) -> bool:
        return any(one.area == "tests" for one in self.files)


def facts_of(
    item: Item, issue: Mapping[str, Any], pull: Mapping[str, Any] | None, files: Sequence[Any], comments: Sequence[Any],
    *, main: str = "", reviews: Sequence[Any] = (), checks: Sequence[Check] = (), ours: int = 0,
) -> Facts:  # fmt: skip
    """From the answers of `/issues/N`, `/pulls/N`, its `/files` and the `/comments`. Another form counts as absent.

    Args:
        pull: None: it is an issue. main: newest commit of the main branch. ours: id of our account, whose comments are
        no part of it.
    """
    about = pull or issue
    user = _inner(about, "user")
    changed = [_changed(one) for one in files if isinstance(one, Mapping) and _text(one, "filename")]
    is_merged = pull is not None and (pull.get("merged") is True or bool(_text(pull, "merged_at")))
    head, base = _inner(about, "head"), _inner(about, "base")
    login = _text(user, "login")
    return Facts(
        item=item,
        kind="pull" if pull is not None else "issue",
        state="merged" if is_merged else "closed" if about.get("state") == "closed" else "open",
        title=" ".join(_text(about, "title").split())[:300],
        body=cut(_text(about, "body"), BODY_MAX),
        author=login,
        association=_text(about, "author_association"),
        labels=tuple(names_of(about.get("labels"))),
        head=_text(head, "sha") if pull is not None else main,
        url=_text(about, "html_url") or f"https://github.com/{item.repo}/issues/{item.number}",
        is_draft=about.get("draft") is True,
        is_program=user.get("type") == "Bot" or login.endswith("[bot]"),
        head_repo=_text(_inner(head, "repo"), "full_name"),
        head_ref=_text(head, "ref"),
        base_ref=_text(base, "ref"),
        base=_text(base, "sha"),
        files=tuple(changed[:FILES_MAX]),
        files_left_out=max(0, len(changed) - FILES_MAX),
        comments=tuple(_said(comments, ours)),
        reviews=tuple(_said(reviews, ours)),
        checks=tuple(checks),
        mergeable=about.get("mergeable") if isinstance(about.get("mergeable"), bool) else None,
        raw={name: about.get(name) for name in ("author_association", "user", "labels", "body")},
    )


def checks_of(runs: Sequence[Any], statuses: Sequence[Any], *, not_ours: str) -> tuple[Check, ...]:
    """From check runs and commit statuses, the newest of each name; `not_ours`: the context of our own, left out."""
    found: dict[str, Check] = {}
    for run in (one for one in runs if isinstance(one, Mapping)):
        done = run.get("status") == "completed"
        fine = run.get("conclusion") in ("success", "neutral", "skipped")
        output = _inner(run, "output")
        summary = cut(f"{_text(output, 'title')}\n{_text(output, 'summary')}\n{_text(output, 'text')}".strip(), 3_000)
        name = _text(run, "name")
        found.setdefault(name, Check(name, ("passed" if fine else "failed") if done else "running", summary))
    for status in (one for one in statuses if isinstance(one, Mapping) and one.get("context") != not_ours):
        name, state = _text(status, "context"), status.get("state")
        told: CheckState = "passed" if state == "success" else "running" if state == "pending" else "failed"
        found.setdefault(name, Check(name, told, _text(status, "description")))
    return tuple(found.values())


def people_of(
    ranges: Mapping[str, Sequence[tuple[int, int, str]]],
    files: Sequence[Changed],
    author: str,
    closers: Iterable[str] = (),
) -> tuple[Person, ...]:  # fmt: skip
    """Whom a change may concern: whoever wrote the lines that it replaces, by blame.

    Args:
        ranges: by file: first line, last line, login, as blame tells it. author: of the item, who knows of it already.
        closers: logins that reviewed or merged such things; counted as hints only.
    """
    lines: dict[str, int] = {}
    places: dict[str, set[str]] = {}
    for changed in files:
        for first, last in changed.old_ranges():
            for begin, end, login in ranges.get(changed.path, ()):
                shared = min(last, end) - max(first, begin) + 1
                if shared > 0 and login and login != author:
                    lines[login] = lines.get(login, 0) + shared
                    places.setdefault(login, set()).add(changed.path)
    total = sum(lines.values())
    found = [
        Person(
            login,
            "wrote most of what is changed" if count * 2 > total else "wrote some of what is changed",
            round(min(0.95, 0.3 + 0.65 * count / total), 2),
            f"{count} of {total} lines by blame, in {len(places[login])} file(s)",
        )
        for login, count in sorted(lines.items(), key=lambda one: (-one[1], one[0]))[:5]
    ]
    known = {one.login for one in found} | {author, ""}
    found += [
        Person(one, "has reviewed here", 0.3, "a review of this item")
        for one in dict.fromkeys(closers)
        if one not in known
    ][:3]
    return tuple(found)


def is_repo(text: str) -> bool:
    return bool(_REPO.fullmatch(text)) and not any(part in (".", "..") for part in text.split("/"))


def names_of(labels: Any) -> list[str]:
    """Names of labels, which are objects or texts."""
    listed = labels if isinstance(labels, list) else []
    names = (_text(one, "name") if isinstance(one, Mapping) else one for one in listed)
    return [name for name in names if isinstance(name, str) and name]


def _changed(one: Mapping[str, Any]) -> Changed:
    return Changed(
        _text(one, "filename")[:500], _text(one, "status")[:20], _count(one, "additions"), _count(one, "deletions"),
        cut(_text(one, "patch"), PATCH_MAX),
    )  # fmt: skip


def _said(comments: Sequence[Any], ours: int) -> Iterable[Said]:
    kept = [
        one for one in comments if isinstance(one, Mapping) and not (ours and _inner(one, "user").get("id") == ours)
    ]
    for one in kept[-COMMENTS_MAX:]:
        where = f"{_text(one, 'path')}:{one.get('line')}: " if _text(one, "path") else ""
        text = cut(where + _text(one, "body"), COMMENT_MAX)
        yield Said(_text(_inner(one, "user"), "login"), text, _text(one, "author_association"))


def _inner(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = source.get(name)
    return value if isinstance(value, Mapping) else {}


def _count(source: Mapping[str, Any], name: str) -> int:
    value = source.get(name)
    return value if isinstance(value, int) and 0 <= value < 10_000_000 else 0


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""
