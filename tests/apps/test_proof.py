"""The gate for proof of real behaviour, beyond the cases of others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_sweeper import proof

VALUES = {
    "Behavior or issue addressed": "Two workers no longer write the same file at once.",
    "Real environment tested": "Debian 12, two processes.",
    "Exact steps or command run after this patch": "started both, sent 20 messages",
    "Evidence after fix": "terminal transcript: worker B waited, then wrote",
    "Observed result after fix": "Forty rows in order.",
    "What was not tested": "none",
}


def request(body: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"author_association": "NONE", "user": {"login": "somebody", "type": "User"}, "body": body} | (more or {})


def body(heading: str = "## Real behavior proof", **changed: str) -> str:
    values = VALUES | {name.replace("_", " "): value for name, value in changed.items()}
    return f"{heading}\n\n" + "\n".join(f"- {name}: {value}" for name, value in values.items())


def status(text: str) -> str:
    return proof.judge(request(text)).status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (body(), "passed"),
        (body("### Real behavior proof (required for others)"), "passed"),
        (body("# Real behavior proof"), "missing"),
        (body().replace("\n", "\r\n"), "passed"),
        (body(Evidence_after_fix="<!-- put a screenshot here -->"), "missing"),
        (body(Evidence_after_fix="[screenshot or log]"), "missing"),
        (body(Evidence_after_fix="Looks right.\n- could not test."), "insufficient"),
        (body(Evidence_after_fix="the unit tests are green"), "mock_only"),
        (body(Evidence_after_fix="```text\n$ run\n# a comment of the shell\nanswer\n```"), "passed"),
        (body(Evidence_after_fix="```\n```"), "insufficient"),
        (body(Evidence_after_fix="\n  ~~~\n  What was not tested: n/a\n  ~~~"), "passed"),
        (body(Before_evidence="- todo"), "passed"),
        (f"```\n{body()}\n```", "missing"),
        (f"intro\n\n{body()}\n\n# Notes\n\nEvidence: n/a", "passed"),
        (body().replace("- ", "**").replace(":", ":**"), "passed"),
    ],
)
def test_a_text_is_read_as_people_write_it(text: str, expected: str) -> None:
    assert status(text) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"author_association": "MEMBER"}, "skipped"),
        ({"user": {"login": "renovate[bot]", "type": "User"}}, "skipped"),
        ({"user": {"login": "helper", "type": "Bot"}}, "skipped"),
        ({"user": None}, "missing"),
        ({"author_association": None}, "missing"),
        ({"labels": [{"name": "proof: override"}]}, "override"),
        ({"labels": "proof: override"}, "missing"),
        ({"body": None, "labels": None}, "missing"),
    ],
)
def test_who_wrote_it_and_what_a_maintainer_put_there_count_first(more: dict[str, Any], expected: str) -> None:
    assert proof.judge(request("", more)).status == expected


@given(st.text(alphabet="#`~:-* \n\rabRealbhviorpof[]().!/", max_size=200), st.integers(0, 5), st.text(max_size=40))
def test_no_text_breaks_it_and_a_verdict_agrees_with_itself(noise: str, at: int, value: str) -> None:
    name = list(VALUES)[at].replace(" ", "_")
    for text in (noise, body() + noise, noise + "\n" + body(), body(**{name: value})):
        verdict = proof.judge(request(text))
        assert verdict.passes == (verdict.status == "passed")
        assert bool(verdict.labels) != verdict.passes
        assert list(verdict.missing) == [one.key for one in proof.FIELDS if one.key in verdict.missing]
        assert verdict.why
