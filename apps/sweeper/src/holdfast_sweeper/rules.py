"""A reviewer without a model: plain rules over the facts. What it says is little, the same every time, and true.

It writes the review when no model is configured (`demo/rules`), and when a model's answer cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast_sweeper.facts import Changed, Facts
from holdfast_sweeper.review import Draft, Evidence, Finding, Impact, Option, Reproducibility, Risk

NAME = "demo/rules"
_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,}|xox[abp]-[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_DEBUG = re.compile(r"\b(?:breakpoint\(\)|pdb\.set_trace\(\)|debugger;|console\.log\(|binding\.pry)")
_CONFLICT = re.compile(r"^(?:<{7} |={7}$|>{7} )")
_LATER = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
_RISKY = re.compile(r"\beval\(|\bexec\(|shell\s*=\s*True|verify\s*=\s*False|dangerouslySetInnerHTML|pickle\.loads?\(")
_SKIPPED = re.compile(r"@pytest\.mark\.skip|\b(?:it|test|describe)\.skip\(|@unittest\.skip")
RULES: tuple[tuple[re.Pattern[str], str, str, float, str], ...] = (
    (_SECRET, "P0", "what looks like a secret is added", 0.9, "Take it out of the history as well, and revoke it."),
    (_CONFLICT, "P0", "a conflict marker is left in the file", 0.9, "The merge was not finished here."),
    (
        _RISKY,
        "P1",
        "a call that runs or trusts what it is given",
        0.6,
        "Say where its argument comes from, or do without.",
    ),
    (_DEBUG, "P2", "a debugging aid is left in", 0.8, "It was likely meant for the author alone."),
    (_SKIPPED, "P2", "a test is switched off", 0.7, "Say why, and when it comes back."),
    (_LATER, "P3", "something is put off", 0.6, "Open an issue for it, or do it here."),
)
_STEPS = re.compile(r"\b(?:steps? to reproduce|reproduc(?:e|tion)|how to reproduce|expected behaviou?r)\b", re.I)
_FENCE = re.compile(r"^\s*(?:```|~~~)", re.M)
_SECURITY = re.compile(r"\b(?:security|vulnerab|CVE-\d)", re.I)
_LARGE = 1_000
_SENSITIVE = re.compile(r"(?:^|/)(?:auth|login|session|token|secret|crypto|security|permission|payment|migrat)", re.I)


def draft_of(facts: Facts) -> Draft:
    """The review by rules."""
    return _of_pull(facts) if facts.kind == "pull" else _of_issue(facts)


def _of_pull(facts: Facts) -> Draft:
    findings = list(_findings(facts))[:20]
    if facts.has_code and not facts.has_tests:
        findings.append(
            Finding(
                title="code changes and no test does",
                detail="A test that fails without it shows what the change is for.",
                priority="P3",
                confidence=0.7,
            )
        )
    sensitive = [one.path for one in facts.files if _SENSITIVE.search(one.path)]
    lines = facts.added + facts.removed
    failed = [one.name for one in facts.checks if one.state == "failed"]
    risk: Risk = "high" if failed or (sensitive and lines > 250) else "medium" if sensitive or lines > _LARGE else "low"
    why = "; ".join(
        [f"checks fail: {', '.join(failed[:3])}"] * bool(failed)
        + [f"it touches {one}" for one in sensitive[:1]]
        + [f"{lines} lines change"] * (lines > _LARGE)
    )
    areas = sorted({one.area for one in facts.files})
    return Draft(
        summary=f"“{facts.title or 'Without a title'}”: {len(facts.files)} file(s) in "
        f"{', '.join(areas[:4]) or 'no area'}, "
        f"{facts.added} lines added, {facts.removed} removed.",
        reproducibility="not applicable",
        reproducibility_why="rules read the change and run nothing",
        best_solution="Rules cannot tell whether there is a better way; a model or a maintainer can.",
        findings=tuple(findings),
        acceptance=(
            "the checks of the repository pass at the reviewed commit",
            *([f"a test covers {next(one.path for one in facts.files if one.is_code)}"] if facts.has_code else []),
            *([f"no finding of {findings[0].priority} is left"] if findings else []),
        ),
        evidence=tuple(Evidence(claim=one.title, file=one.file, line=one.line) for one in findings if one.file)
        or tuple(_first_lines(facts)),
        priority="P3",
        impact=_impact(facts, sensitive),
        risk=risk,
        risk_why=why or "small, and away from what is sensitive",
        options=_options(risk),
        security="concern" if any(one.priority == "P0" for one in findings) else "look" if sensitive else "nothing",
        security_note=f"Look at {', '.join(sensitive[:3])}." if sensitive else "No rule about security was met.",
        next_step=f"Author: {findings[0].title}." if findings else "Maintainer: read it; the rules have found nothing.",
    )


def _findings(facts: Facts) -> Iterator[Finding]:
    for changed in facts.files:
        seen: set[str] = set()
        for number, text in changed.new_lines().items():
            for pattern, priority, title, confidence, detail in RULES:
                if (
                    title not in seen
                    and pattern.search(text)
                    and not (pattern is _RISKY and changed.area != _code(changed))
                ):
                    seen.add(title)
                    yield Finding.model_validate(
                        {
                            "title": title,
                            "detail": detail,
                            "priority": priority,
                            "file": changed.path,
                            "line": number,
                            "confidence": confidence,
                        }
                    )


def _code(changed: Changed) -> str:
    """Its area if it is code; otherwise something that is no area."""
    return changed.area if changed.is_code else ""


def _first_lines(facts: Facts) -> Iterator[Evidence]:
    for one in facts.files[:3]:
        lines = one.new_lines()
        if lines:
            yield Evidence(claim="what the change does first here", file=one.path, line=min(lines))


def _impact(facts: Facts, sensitive: list[str]) -> Impact:
    areas = {one.area for one in facts.files}
    if sensitive:
        return "security"
    if areas <= {"docs"}:
        return "docs"
    return "behaviour" if facts.has_code else "internal"


def _options(risk: Risk) -> tuple[Option, ...]:
    return (
        Option(title="merge as it is", detail="once the checks have passed", recommended=risk == "low"),
        Option(
            title="ask for the findings first", detail="and review again after the push", recommended=risk == "medium"
        ),
        Option(
            title="have somebody who knows the area look", detail="see the related people", recommended=risk == "high"
        ),
    )


def _of_issue(facts: Facts) -> Draft:
    has_steps, has_block = bool(_STEPS.search(facts.body)), bool(_FENCE.search(facts.body))
    kind: Reproducibility = "likely" if has_steps and has_block else "unclear"
    lacks = [name for name, there in (("steps", has_steps), ("an error or output as text", has_block)) if not there]
    return Draft(
        summary=f"“{facts.title or 'Without a title'}”, opened by {facts.author or 'somebody'}; "
        f"{len(facts.body.split())} words, {len(facts.comments)} comment(s).",
        reproducibility=kind,
        reproducibility_why=f"it lacks {' and '.join(lacks)}" if lacks else "steps and output are there",
        best_solution="Rules cannot tell; once it is reproduced, the smallest change that makes the steps work.",
        acceptance=("the steps of the issue work", "a test fails without the change"),
        priority="P2" if re.search(r"\b(?:crash|data loss|corrupt|security|regression)", facts.body, re.I) else "P3",
        impact="behaviour",
        risk="low",
        risk_why="nothing changes by an issue",
        security="look" if _SECURITY.search(f"{facts.title} {facts.body}") else "nothing",
        next_step=f"Author: add {' and '.join(lacks)}." if lacks else "Maintainer: reproduce it.",
    )
