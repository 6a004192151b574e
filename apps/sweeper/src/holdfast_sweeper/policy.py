"""What a change takes: when something may be merged, and which edits a model may propose. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_sweeper.facts import Facts
from holdfast_sweeper.review import Review
from holdfast_sweeper.settings import Merge, reaches

RUNNING = "checks still run"
EDITS_MAX, TEXT_MAX = 20, 200_000
_CLOSED = re.compile(r"^(?:\.github|\.git|\.gitlab|\.circleci)(?:/|$)|(?:^|/)(?:codeowners|\.gitmodules)$", re.I)


def against_merging(
    facts: Facts, review: Review | None, merge: Merge, *, approvals: int, changes_requested: int
) -> list[str]:
    """Everything that stands against a merge now, in words; empty: nothing does."""
    found: list[str] = []
    if facts.state != "open":
        found.append(f"it is {facts.state}")
    if facts.is_draft:
        found.append("it is a draft")
    if facts.mergeable is not True:
        found.append(
            "GitHub says it conflicts" if facts.mergeable is False else "GitHub does not know yet if it conflicts"
        )
    failed = [one.name for one in facts.checks if one.state == "failed"]
    running = [one.name for one in facts.checks if one.state == "running"]
    if failed:
        found.append(f"checks fail: {', '.join(failed[:5])}")
    if running:
        found.append(f"{RUNNING}: {', '.join(running[:5])}")
    if len(facts.checks) < merge.checks_min:
        found.append(f"there are {len(facts.checks)} checks, the settings ask for {merge.checks_min}")
    if changes_requested:
        found.append(f"{changes_requested} reviewer(s) ask for changes")
    if approvals < merge.reviews_min:
        found.append(f"{approvals} approving review(s), the settings ask for {merge.reviews_min}")
    if review is None:
        found.append("this commit is not reviewed; ask for `review` first")
        return found
    if not reaches(review.rating.overall, merge.rank_min):
        found.append(f"it is rated {review.rating.overall}, the settings ask for {merge.rank_min}")
    if review.priority in ("P0", "P1"):
        found.append(f"a finding of {review.priority} is open")
    if review.draft.security == "concern":
        found.append("there is a concern about security")
    if merge.proof and review.proof is not None and (not review.proof.passes or review.is_stale):
        found.append("the proof was shown for an earlier commit" if review.is_stale else f"proof: {review.proof.why}")
    return found


class Edit(BaseModel):
    """Replace a text, which stands there once, in a file. find: empty: the file is new."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    path: Annotated[str, Field(min_length=1, max_length=500)]
    find: Annotated[str, Field(max_length=TEXT_MAX)] = ""
    replace: Annotated[str, Field(max_length=TEXT_MAX)]


class Proposal(BaseModel):
    """What a model wants to change."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    message: Annotated[str, Field(min_length=1, max_length=2_000)]
    edits: Annotated[tuple[Edit, ...], Field(min_length=1, max_length=EDITS_MAX)]


@dataclass(frozen=True, slots=True)
class Patch:
    """Files as they would be; how many lines differ, and the differences, for the person who is asked."""

    message: str
    files: Mapping[str, str]
    told: tuple[str, ...]
    diff: str = ""


def read_proposal(answer: str) -> Proposal | str:
    """The proposal in a model's answer, or what is wrong with it."""
    begins = answer.find("{")
    if begins < 0:
        return "there is no JSON object in the answer"
    try:
        told, _ = json.JSONDecoder().raw_decode(answer[begins : begins + 4_000_000])
        return Proposal.model_validate(told)
    except ValidationError as exc:
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in exc.errors()[:5])
    except (ValueError, RecursionError) as exc:
        return f"the JSON object cannot be read: {exc}"


def path_fault(path: str, allowed: Sequence[str]) -> str:
    """Why a file may not be changed; empty: it may.

    Args:
        allowed: the files of the pull request, beside which tests may be added.
    """
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts) or not path.isprintable():
        return f"{path[:80]!r} is no path in the repository"
    if _CLOSED.search(path):
        return f"{path} says who may do what; no program changes it"
    if path not in allowed and not any(part in ("test", "tests") for part in parts[:-1]):
        return f"{path} is not part of the pull request"
    return ""


def apply(proposal: Proposal, files: Mapping[str, str], allowed: Sequence[str]) -> Patch | str:
    """The files after the edits, or why they cannot be made.

    Args:
        files: texts at the reviewed commit, by path; those that are not there are new.
    """
    after: dict[str, str] = {}
    for edit in proposal.edits:
        fault = path_fault(edit.path, allowed)
        if fault:
            return fault
        text = after.get(edit.path, files.get(edit.path))
        if text is None and edit.find:
            return f"{edit.path} is not there"
        if text is None or not edit.find:
            if text is not None:
                return f"{edit.path} is there already; say what to replace in it"
            after[edit.path] = edit.replace
            continue
        if text.count(edit.find) != 1:
            return f"what is to be replaced stands {text.count(edit.find)} times in {edit.path}"
        after[edit.path] = text.replace(edit.find, edit.replace)
    changed = {path: text for path, text in after.items() if text != files.get(path)}
    if not changed:
        return "the edits change nothing"
    told = tuple(
        f"{path}: {len(files.get(path, '').splitlines())} → {len(text.splitlines())} lines"
        for path, text in changed.items()
    )
    return Patch(" ".join(proposal.message.split())[:200], changed, told, _diff_of(files, changed))


def _diff_of(files: Mapping[str, str], changed: Mapping[str, str]) -> str:
    lines: list[str] = []
    for path, text in changed.items():
        before, after = files.get(path, "").splitlines(), text.splitlines()
        lines += unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm="")
    return "\n".join(lines)
