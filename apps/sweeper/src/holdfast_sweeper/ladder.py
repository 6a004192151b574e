"""The ladder: proof and patch are rated apart, and the whole is as good as the weaker of the two. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from holdfast_sweeper.proof import FIELDS, Verdict, is_real, strength

Rank = Literal[
    "challenger crab", "diamond lobster", "platinum hermit", "gold shrimp", "silver shellfish", "unranked krab",
    "off-meta tidepool",
]  # fmt: skip
RANKS: tuple[Rank, ...] = get_args(Rank)
"""Best first. The last one is none: a rating does not apply."""
OFF_META: Rank = "off-meta tidepool"
Priority = Literal["P0", "P1", "P2", "P3"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
SURE = 0.5
"""A finding with less confidence counts as one priority lower."""
MOVES_MAX = 6


@dataclass(frozen=True, slots=True)
class Rating:
    """moves: what would lift it, the most effective first; empty: there is nothing above."""

    proof: Rank
    patch: Rank
    moves: tuple[str, ...] = ()

    @property
    def overall(self) -> Rank:
        return weaker(self.proof, self.patch)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A finding, as far as it counts here."""

    title: str
    priority: Priority
    confidence: float


def weaker(one: Rank, other: Rank) -> Rank:
    """The lower of two; where one does not apply, the other."""
    if OFF_META in (one, other):
        return other if one == OFF_META else one
    return one if RANKS.index(one) > RANKS.index(other) else other


def proof_rank(verdict: Verdict | None, *, is_stale: bool = False) -> Rank:
    """Of what was shown of a real run.

    Args:
        verdict: None: nothing has to be shown (an issue).
        is_stale: it was shown for an earlier commit; one step lower.
    """
    if verdict is None or verdict.status == "skipped":
        return OFF_META
    if verdict.status == "override":
        return "gold shrimp"
    if verdict.status == "missing":
        return "unranked krab"
    if verdict.status in ("mock_only", "insufficient"):
        return "silver shellfish"
    shown = "\n".join((verdict.values.get("evidence", ""), verdict.values.get("observedResult", "")))
    rank: Rank = ("platinum hermit", "diamond lobster", "challenger crab")[min(2, max(0, strength(shown) - 1))]
    return RANKS[RANKS.index(rank) + 1] if is_stale else rank


def patch_rank(findings: Iterable[Weighed], *, has_code: bool, has_tests: bool, applies: bool = True) -> Rank:
    """Of a change, by its worst finding; the best rank takes tests beside code."""
    if not applies:
        return OFF_META
    counts = [0] * (len(PRIORITIES) + 1)
    for one in findings:
        counts[PRIORITIES.index(one.priority) + (one.confidence < SURE)] += 1
    if counts[0]:
        return "unranked krab"
    if counts[1]:
        return "silver shellfish"
    if counts[2]:
        return "gold shrimp" if counts[2] > 2 else "platinum hermit"
    return "diamond lobster" if counts[3] or (has_code and not has_tests) else "challenger crab"


def moves_of(
    verdict: Verdict | None, findings: Sequence[Weighed], *, has_code: bool, has_tests: bool, is_stale: bool = False
) -> tuple[str, ...]:
    """What would lift the rating, the weightiest first."""
    moves = [
        f"mend {one.priority}: {one.title}" for one in sorted(findings, key=lambda one: PRIORITIES.index(one.priority))
    ]
    if verdict is not None and verdict.status in ("missing", "mock_only", "insufficient"):
        names = ", ".join(one.names[0] for one in FIELDS if one.key in verdict.missing)
        moves.insert(0, f"fill in: {names}" if names else "show a run of the change: a log, a terminal, a picture")
    elif verdict is not None and is_stale:
        moves.insert(0, "show a run of the newest commit, and edit the text so")
    elif verdict is not None and verdict.status == "passed" and not is_real(verdict.values.get("evidence", "")):
        moves.append("put what was seen into the field for evidence")
    if has_code and not has_tests:
        moves.append("add a test that fails without the change")
    return tuple(moves[:MOVES_MAX])
