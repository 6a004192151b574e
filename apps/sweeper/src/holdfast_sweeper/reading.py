"""Reading one item from GitHub, with all that a review rests on; and who somebody is. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from holdfast_sweeper.facts import Changed, Check, Facts, Item, Person, checks_of, facts_of, people_of
from holdfast_sweeper.github import AbsentError, GitHub, RefusedError
from holdfast_sweeper.permissions import Asker
from holdfast_sweeper.render import is_marked

BLAMED_MAX = 5
STATES = ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")
_BLAME = """query($owner: String!, $name: String!, $sha: String!, $path: String!) {
  repository(owner: $owner, name: $name) { object(expression: $sha) { ... on Commit { blame(path: $path) {
    ranges { startingLine endingLine commit { author { user { login } } } } } } } } }"""


@dataclass(frozen=True, slots=True)
class Seen:
    """An item as it is now. ours: our comments with its mark, the oldest first, as id and body."""

    facts: Facts
    ours: tuple[tuple[int, str], ...]
    approvals: int = 0
    changes_requested: int = 0


async def read_item(github: GitHub, item: Item, *, not_ours: str, blame: bool = True) -> Seen:
    """Everything about an item. What is refused in detail (checks, blame, timeline) counts as absent.

    Args:
        not_ours: context of our own commit status, which is no check of others.

    Raises: AbsentError: there is no such item. GitHubError.
    """
    _, our_id = await github.me()
    base = f"/repos/{item.repo}"
    issue = _mapping(await github.get(f"{base}/issues/{item.number}"))
    comments = await github.pages(f"{base}/issues/{item.number}/comments")
    ours = ours_among(comments, item, our_id)
    if "pull_request" not in issue:
        main = await _main(github, item.repo)
        return Seen(facts_of(item, issue, None, [], comments, main=main, ours=our_id), ours)
    pull = _mapping(await github.get(f"{base}/pulls/{item.number}"))
    files = await github.pages(f"{base}/pulls/{item.number}/files", pages_max=4)
    reviews = await _optional(github, f"{base}/pulls/{item.number}/reviews")
    on_lines = await _optional(github, f"{base}/pulls/{item.number}/comments")
    facts = facts_of(item, issue, pull, files, comments, reviews=[*reviews, *on_lines], ours=our_id)
    newest = {_login(one): one["state"] for one in reviews if isinstance(one, Mapping) and one.get("state") in STATES}
    people = await _people(github, facts, [login for login in newest if login]) if blame else ()
    states = list(newest.values())
    checks = await read_checks(github, item.repo, facts.head, not_ours=not_ours)
    return Seen(
        replace(facts, checks=checks, people=people), ours, states.count("APPROVED"), states.count("CHANGES_REQUESTED")
    )


def ours_among(comments: Sequence[Any], item: Item, our_id: int) -> tuple[tuple[int, str], ...]:
    """Our own comments with the item's mark. Somebody else's that begin with it are theirs."""
    found = [
        (one["id"], str(one.get("body") or ""))
        for one in comments
        if isinstance(one, Mapping)
        and isinstance(one.get("id"), int)
        and our_id
        and _mapping(one.get("user")).get("id") == our_id
        and is_marked(str(one.get("body") or ""), item)
    ]
    return tuple(sorted(found))


async def read_checks(github: GitHub, repo: str, sha: str, *, not_ours: str) -> tuple[Check, ...]:
    """The checks and statuses of a commit."""
    if not sha:
        return ()
    try:
        runs = await github.pages(f"/repos/{repo}/commits/{sha}/check-runs", pages_max=3, key="check_runs")
    except (AbsentError, RefusedError):
        runs = []
    statuses = await _optional(github, f"/repos/{repo}/commits/{sha}/statuses")
    return checks_of(runs, statuses, not_ours=not_ours)


async def who(github: GitHub, repo: str, login: str, *, user_id: int, facts: Facts, is_program: bool) -> Asker:
    """What GitHub says of somebody's rights. Unknown counts as none."""
    author = _mapping(facts.raw.get("user"))
    is_author = bool(user_id) and author.get("id") == user_id
    try:
        told = _mapping(await github.get(f"/repos/{repo}/collaborators/{quote(login, safe='')}/permission"))
    except (AbsentError, RefusedError):
        told = {}
    # `role_name` tells maintain and triage, which `permission` folds into write and read.
    role, permission = str(told.get("role_name") or ""), str(told.get("permission") or "none")
    named = role if role in ("admin", "maintain", "write", "triage", "read", "none") else permission
    return Asker(login, named, is_author, is_program)


async def _people(github: GitHub, facts: Facts, reviewers: Sequence[str]) -> tuple[Person, ...]:
    """By blame of the largest files, at the commit that the change begins from."""
    largest = sorted((one for one in facts.files if one.old_ranges()), key=lambda one: -one.removed)[:BLAMED_MAX]
    ranges = {one.path: await _blame(github, facts, one) for one in largest}
    return people_of(ranges, facts.files, facts.author, reviewers)


async def _blame(github: GitHub, facts: Facts, changed: Changed) -> list[tuple[int, int, str]]:
    owner, _, name = facts.item.repo.partition("/")
    try:
        told = await github.graphql(_BLAME, {"owner": owner, "name": name, "sha": facts.base, "path": changed.path})
    except (AbsentError, RefusedError):
        return []
    blame = _mapping(_mapping(_mapping(told.get("repository")).get("object")).get("blame"))
    listed = blame.get("ranges")
    found: list[tuple[int, int, str]] = []
    for one in listed if isinstance(listed, list) else []:
        first, last = _mapping(one).get("startingLine"), _mapping(one).get("endingLine")
        login = _mapping(_mapping(_mapping(_mapping(one).get("commit")).get("author")).get("user")).get("login")
        if isinstance(first, int) and isinstance(last, int) and isinstance(login, str):
            found.append((first, last, login))
    return found


async def _main(github: GitHub, repo: str) -> str:
    """The newest commit of the main branch; empty: it cannot be read."""
    try:
        branch = str(_mapping(await github.get(f"/repos/{repo}")).get("default_branch") or "main")
        return str(_mapping(await github.get(f"/repos/{repo}/commits/{quote(branch, safe='')}")).get("sha") or "")
    except (AbsentError, RefusedError):
        return ""


async def _optional(github: GitHub, path: str) -> list[Any]:
    try:
        return await github.pages(path, pages_max=3)
    except (AbsentError, RefusedError):
        return []


def _login(one: Mapping[str, Any]) -> str:
    return str(_mapping(one.get("user")).get("login") or "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
