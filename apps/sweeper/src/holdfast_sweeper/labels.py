"""Labels that follow the review. Only these are ours; nobody else's label is ever touched. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from holdfast_sweeper.facts import Facts
from holdfast_sweeper.ladder import PRIORITIES, RANKS
from holdfast_sweeper.proof import MOCK_LABEL, NEEDED_LABEL, Verdict, section_of
from holdfast_sweeper.review import Impact, Review, Risk

Status = Literal["reviewing", "needs work", "ready", "needs a maintainer", "stopped", "exempt"]
SIZES = (("XS", 10), ("S", 50), ("M", 250), ("L", 1_000), ("XL", 10**9))
"""Up to so many lines added and removed."""
SUPPLIED, SUFFICIENT = "proof: supplied", "proof: sufficient"
NEEDS_INFO = "triage: needs-info"
OURS = frozenset([
    *(f"size: {name}" for name, _ in SIZES), *PRIORITIES, *(f"impact: {one}" for one in get_args(Impact)),
    *(f"merge-risk: {one}" for one in get_args(Risk)), NEEDED_LABEL, MOCK_LABEL, NEEDS_INFO, SUPPLIED, SUFFICIENT,
    *(f"rating: {one}" for one in RANKS), *(f"status: {one}" for one in get_args(Status)),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """What to do on GitHub. Reasons are for the comment, by label."""

    add: tuple[str, ...]
    remove: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        return not (self.add or self.remove)


def diff(current: Iterable[str], wanted: Iterable[str]) -> Change:
    """From what is there to what we want, as far as it is ours."""
    there, want = set(current), {one for one in wanted if one in OURS}
    return Change(tuple(sorted(want - there)), tuple(sorted((there & OURS) - want)))


def wanted_of(review: Review, status: Status | None = None) -> dict[str, str]:
    """The labels that belong on a reviewed item, each with its reason."""
    facts, draft = review.facts, review.draft
    wanted = proof_labels(facts, review.proof, is_stale=review.is_stale)
    wanted[review.priority] = "of the worst finding" if draft.findings else "as the item reads"
    wanted[f"impact: {draft.impact}"] = "what it is about"
    if facts.kind == "pull":
        wanted |= size_label(facts)
        wanted[f"merge-risk: {draft.risk}"] = draft.risk_why or "as the change reads"
        wanted[f"rating: {review.rating.overall}"] = (
            f"proof {review.rating.proof}, patch {review.rating.patch}: the weaker counts"
        )
    elif draft.reproducibility in ("unclear", "not reproducible"):
        wanted[NEEDS_INFO] = draft.reproducibility_why or "it cannot be reproduced as it is told"
    said = status or status_of(review)
    wanted[f"status: {said}"] = "where it stands"
    return wanted


def proof_labels(facts: Facts, proof: Verdict | None, *, is_stale: bool) -> dict[str, str]:
    """Those of the gate alone. What was shown for an earlier commit is supplied and no longer sufficient."""
    if facts.kind != "pull" or proof is None or proof.status == "skipped":
        return {}
    wanted = dict.fromkeys(proof.labels, proof.why)
    if any(line.strip() for line in section_of(facts.body)):
        wanted[SUPPLIED] = "the section is there"
    if proof.status == "passed" and not is_stale:
        wanted[SUFFICIENT] = proof.why
    return wanted


def size_label(facts: Facts) -> dict[str, str]:
    lines = facts.added + facts.removed
    name = next(name for name, most in SIZES if lines <= most)
    return {f"size: {name}": f"{facts.added} lines added, {facts.removed} removed"}


def status_of(review: Review) -> Status:
    """Where an item stands after its review."""
    if review.draft.security == "concern" or review.draft.risk == "high":
        return "needs a maintainer"
    return "ready" if review.is_ready else "needs work"
