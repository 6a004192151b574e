"""A review: what a model may say of an item (`Draft`), and what comes of it together with the facts (`Review`). Pure.

A model's words are read strictly in form and kindly in detail: unknown keys are left out, long texts cut, and what does
not agree with the facts (a file that is not there, a line that the patch does not show) is not passed on as certain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from holdfast_sweeper.facts import Facts
from holdfast_sweeper.ladder import PRIORITIES, Priority, Rating, Weighed, moves_of, patch_rank, proof_rank
from holdfast_sweeper.proof import Verdict
from holdfast_sweeper.text import cut, seen

Reproducibility = Literal["reproduced", "likely", "unclear", "not reproducible", "not applicable"]
Risk = Literal["low", "medium", "high"]
Security = Literal["nothing", "look", "concern"]
Impact = Literal["security", "data", "behaviour", "speed", "docs", "internal"]
ANSWER_MAX = 400_000


def _text_of(at: int, or_else: str = "") -> BeforeValidator:
    def read(value: Any) -> Any:
        return cut(seen(value).strip(), at) or or_else if isinstance(value, str) else value

    return BeforeValidator(read)


def _first(at: int) -> BeforeValidator:
    return BeforeValidator(lambda value: value[:at] if isinstance(value, list) else value)


Short = Annotated[str, _text_of(200)]
Long = Annotated[str, _text_of(2_000)]
Line = Annotated[int | None, Field(ge=1, le=10_000_000)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=False)


class Finding(_Said):
    """Something wrong. file: empty: nowhere in particular. confidence: 0 to 1."""

    title: Annotated[str, _text_of(200), Field(min_length=1)]
    detail: Long = ""
    priority: Priority
    file: Annotated[str, _text_of(500)] = ""
    line: Line = None
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5


class Evidence(_Said):
    """What shows it, at a line of the reviewed commit."""

    claim: Annotated[str, _text_of(500), Field(min_length=1)]
    file: Annotated[str, _text_of(500), Field(min_length=1)]
    line: Line = None


class Option(_Said):
    """What maintainers can do about the risk."""

    title: Annotated[str, _text_of(200), Field(min_length=1)]
    detail: Long = ""
    recommended: bool = False


class Draft(_Said):
    """What a model says of an item."""

    summary: Annotated[str, _text_of(2_000), Field(min_length=1)]
    reproducibility: Reproducibility
    reproducibility_why: Long = ""
    best_solution: Long = ""
    findings: Annotated[tuple[Finding, ...], _first(20)] = ()
    acceptance: Annotated[tuple[Annotated[str, _text_of(500)], ...], _first(10)] = ()
    evidence: Annotated[tuple[Evidence, ...], _first(15)] = ()
    priority: Priority = "P3"
    impact: Impact = "internal"
    risk: Risk = "low"
    risk_why: Long = ""
    options: Annotated[tuple[Option, ...], _first(4)] = ()
    security: Security = "nothing"
    security_note: Long = ""
    next_step: Long = ""

    @model_validator(mode="after")
    def _one_is_recommended(self) -> Draft:
        chosen = next((at for at, one in enumerate(self.options) if one.recommended), 0)
        options = tuple(one.model_copy(update={"recommended": at == chosen}) for at, one in enumerate(self.options))
        object.__setattr__(self, "options", options)
        return self


def read_draft(answer: str) -> Draft | str:
    """The draft in a model's answer, bare or in a code fence; or what is wrong with it, for the model to mend."""
    text = answer[:ANSWER_MAX]
    begins = text.find("{")
    if begins < 0:
        return "there is no JSON object in the answer"
    try:
        told, _ = json.JSONDecoder().raw_decode(text[begins:])
    except (ValueError, RecursionError) as exc:
        return f"the JSON object cannot be read: {exc}"
    try:
        return Draft.model_validate(told)
    except ValidationError as exc:
        faults = [f"{'.'.join(map(str, one['loc'])) or 'the object'}: {one['msg']}" for one in exc.errors()[:10]]
        return "; ".join(faults)


@dataclass(frozen=True, slots=True)
class Review:
    """A whole review. model: who wrote the draft. at: ISO time. is_stale: the proof was shown for an earlier commit.

    note: something about how it came to be, for readers; empty: nothing.
    """

    facts: Facts
    draft: Draft
    proof: Verdict | None
    rating: Rating
    model: str
    at: str
    is_stale: bool = False
    note: str = ""

    @property
    def priority(self) -> Priority:
        """Of the item: that of its worst finding, of an issue what the draft says."""
        found = {one.priority for one in self.draft.findings}
        for one in PRIORITIES:
            if one in found:
                return one
        return self.draft.priority

    @property
    def is_ready(self) -> bool:
        """Whether nothing that was found speaks against it."""
        return self.priority in ("P2", "P3") and self.draft.risk != "high" and (self.proof is None or self.proof.passes)


def review_of(
    facts: Facts, draft: Draft, proof: Verdict | None, *, model: str, at: str, is_stale: bool = False, note: str = ""
) -> Review:
    """Put a review together."""
    said = grounded(draft, facts)
    weighed = [Weighed(one.title, one.priority, one.confidence) for one in said.findings]
    tests = {"has_code": facts.has_code, "has_tests": facts.has_tests}
    is_pull = facts.kind == "pull"
    rating = Rating(
        proof_rank(proof, is_stale=is_stale),
        patch_rank(weighed, **tests, applies=is_pull and bool(facts.files)),
        moves_of(proof, weighed if is_pull else (), **tests, is_stale=is_stale),
    )
    return Review(facts, said, proof, rating, model, at, is_stale, note)


def grounded(draft: Draft, facts: Facts) -> Draft:
    """The draft without what the facts do not bear out.

    Of a pull request: a finding in a file that is not in it loses the place and half its confidence, a line that the
    patch does not show is left out, and evidence in other files is left out.
    """
    if facts.kind != "pull":
        return draft
    shown = {one.path: one.shown_lines() for one in facts.files}

    def placed(one: Finding) -> Finding:
        if not one.file:
            return one.model_copy(update={"line": None})
        if one.file not in shown:
            return one.model_copy(update={"file": "", "line": None, "confidence": round(one.confidence / 2, 2)})
        return one if one.line in shown[one.file] else one.model_copy(update={"line": None})

    def is_seen(one: Evidence) -> bool:
        return one.file in shown and (one.line is None or one.line in shown[one.file])

    findings = sorted((placed(one) for one in draft.findings), key=lambda one: PRIORITIES.index(one.priority))
    return draft.model_copy(
        update={"findings": tuple(findings), "evidence": tuple(one for one in draft.evidence if is_seen(one))}
    )


def with_proof(review: Review, proof: Verdict | None, *, is_stale: bool) -> Review:
    """The same review with another verdict on its proof."""
    return review_of(
        review.facts, review.draft, proof, model=review.model, at=review.at, is_stale=is_stale, note=review.note
    )
