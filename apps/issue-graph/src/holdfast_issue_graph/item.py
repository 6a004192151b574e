"""One issue or pull request, made small and plain from what GitHub answers: pure, whatever the answer holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from holdfast_issue_graph.refs import RELATIONS, Ref, Relation, mentions

Kind = Literal["issue", "pull"]
State = Literal["open", "closed", "merged"]
TEXT_MAX = 20_000
"""Characters kept of a text; the rest is cut, visibly."""
COMMENTS_MAX, COMMENTS_CHARS_MAX = 200, 150_000
"""So that an item is a line of a transcript that everybody can still read."""
TOLD = frozenset({
    "closed", "reopened", "merged", "connected", "marked_as_duplicate", "head_ref_force_pushed", "reviewed",
})  # fmt: skip
"""Lines of a timeline that are kept, beside labels, new titles and what refers to the item."""


@dataclass(frozen=True, slots=True)
class Said:
    """Something that somebody wrote. at: ISO time in UTC, as GitHub tells it."""

    by: str
    at: str
    text: str
    url: str = ""
    is_author: bool = False
    is_program: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a timeline. what: in GitHub's word. ref: the item that it came from or leads to."""

    at: str
    what: str
    by: str = ""
    note: str = ""
    ref: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """`to` is related; `by_it`: it does `relation` to us. found_in: "body", "comment" or "timeline"."""

    to: str
    relation: Relation
    by_it: bool
    found_in: str


@dataclass(frozen=True, slots=True)
class Item:
    """What is kept of one item. links: each other item once, by its strongest relation."""

    ref: str
    kind: Kind
    state: State
    title: str
    by: str
    at: str
    closed_at: str
    labels: tuple[str, ...]
    url: str
    body: str
    comments: tuple[Said, ...]
    comments_left_out: int
    timeline: tuple[Happening, ...]
    links: tuple[Link, ...]


def item_of(
    ref: Ref, issue: Mapping[str, Any], comments: Sequence[Any], timeline: Sequence[Any], hosts: tuple[str, ...]
) -> Item:
    """From the answers of `/issues/N`, its `/comments` and its `/timeline`. What has another form counts as absent."""
    pull = issue.get("pull_request")
    is_pull = isinstance(pull, Mapping)
    author = _login(issue.get("user"))
    said = tuple(_said(one, author) for one in comments if isinstance(one, Mapping))
    kept = _kept(said)
    lines = tuple(line for one in timeline if isinstance(one, Mapping) and (line := _happening(one)) is not None)
    is_merged = is_pull and (bool(_text(pull, "merged_at")) or any(line.what == "merged" for line in lines))
    state: State = "merged" if is_merged else "closed" if issue.get("state") == "closed" else "open"
    body = cut(_text(issue, "body"))
    return Item(
        ref=ref.text,
        kind="pull" if is_pull else "issue",
        state=state,
        title=" ".join(_text(issue, "title").split())[:300],
        by=author,
        at=_text(issue, "created_at"),
        closed_at=_text(issue, "closed_at"),
        labels=tuple(_labels(issue.get("labels"))),
        url=_text(issue, "html_url") or f"https://github.com/{ref.owner}/{ref.repo}/issues/{ref.number}",
        body=body,
        comments=kept,
        comments_left_out=len(said) - len(kept),
        timeline=lines,
        links=_links(ref, body, said, lines, hosts),
    )


def cut(text: str, at: int = TEXT_MAX) -> str:
    """At most `at` characters, and a note of how many are missing."""
    return text if len(text) <= at else f"{text[:at]}\n[… {len(text) - at} characters left out]"


def _kept(said: Sequence[Said]) -> tuple[Said, ...]:
    """The first ones, within both bounds."""
    sizes = accumulate(len(one.text) for one in said)
    return tuple(one for one, size in zip(said[:COMMENTS_MAX], sizes, strict=False) if size <= COMMENTS_CHARS_MAX)


def _links(
    ref: Ref, body: str, said: Sequence[Said], lines: Sequence[Happening], hosts: tuple[str, ...]
) -> tuple[Link, ...]:
    found: dict[str, Link] = {}

    def note(link: Link) -> None:
        key, before = link.to.lower(), found.get(link.to.lower())
        if before is None or RELATIONS.index(link.relation) < RELATIONS.index(before.relation):
            found[key] = link

    for where, text in (("body", body), *(("comment", one.text) for one in said)):
        for named in mentions(text, ref, hosts):
            note(Link(named.ref.text, named.relation, named.by_it, where))
    for line in lines:
        if line.ref and line.ref.lower() != ref.key:
            relation: Relation = "fixes" if line.what in ("connected", "closed_by") else "mentions"
            note(Link(line.ref, relation, True, "timeline"))
    return tuple(found.values())


def _happening(event: Mapping[str, Any]) -> Happening | None:
    what = _text(event, "event")
    at = _text(event, "created_at") or _text(event, "submitted_at")
    by = _login(event.get("actor")) or _login(event.get("user"))
    if what == "cross-referenced":
        source = event.get("source")
        origin = source.get("issue") if isinstance(source, Mapping) else None
        return Happening(at, what, by, _text(origin, "title")[:300], _ref_of(origin)) if _ref_of(origin) else None
    if what in ("labeled", "unlabeled"):
        label = event.get("label")
        return Happening(at, what, by, _text(label, "name"))
    if what == "renamed":
        rename = event.get("rename")
        return Happening(at, what, by, f"{_text(rename, 'from')} → {_text(rename, 'to')}"[:300])
    if what in TOLD:
        note = _text(event, "state_reason") or _text(event, "state") or _text(event, "commit_id")[:12]
        return Happening(at, what, by, note)
    return None


def _ref_of(issue: Any) -> str:
    """`owner/repo#12` of an issue as it stands in an answer; empty: it does not say."""
    if not isinstance(issue, Mapping) or not isinstance(issue.get("number"), int):
        return ""
    repository = issue.get("repository")
    name = _text(repository, "full_name") or "/".join(_text(issue, "repository_url").rstrip("/").split("/")[-2:])
    try:
        return Ref.of(f"{name}#{issue['number']}").text
    except ValueError:
        return ""


def _said(comment: Mapping[str, Any], author: str) -> Said:
    user = comment.get("user")
    by = _login(user)
    is_program = isinstance(user, Mapping) and (user.get("type") == "Bot" or by.endswith("[bot]"))
    text, url = cut(_text(comment, "body"), 8_000), _text(comment, "html_url")
    return Said(by, _text(comment, "created_at"), text, url, is_author=by == author, is_program=is_program)


def _labels(labels: Any) -> list[str]:
    named = labels if isinstance(labels, list) else []
    names = (_text(one, "name") if isinstance(one, Mapping) else one for one in named)
    return [name for name in names if isinstance(name, str) and name]


def _login(user: Any) -> str:
    return _text(user, "login")


def _text(source: Any, name: str) -> str:
    value = source.get(name) if isinstance(source, Mapping) else None
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""
