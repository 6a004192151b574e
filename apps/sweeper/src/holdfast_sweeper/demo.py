"""A made-up pull request with a draft as a model writes it: for the manual, and to look at without a network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast_sweeper.facts import Item, checks_of, facts_of, people_of
from holdfast_sweeper.proof import judge
from holdfast_sweeper.review import Draft, Review, review_of

AT = "2026-11-25T12:00:00+00:00"


def demo_review() -> Review:
    """The review of the bundled pull request, always the same."""
    told: dict[str, Any] = json.loads((Path(__file__).parent / "demo.json").read_bytes())
    checks = checks_of(told["checks"], [], not_ours="")
    facts = facts_of(Item.of(told["item"]), {}, told["pull"], told["files"], told["comments"], checks=checks)
    ranges = {path: [(first, last, login) for first, last, login in one] for path, one in told["blame"].items()}
    facts = replace(facts, people=people_of(ranges, facts.files, facts.author))
    draft = Draft.model_validate(told["draft"])
    return review_of(facts, draft, judge(facts.raw), model="demo/scripted", at=AT)
