"""The one comment: Markdown of a review, of progress, and of what became of commands. Pure.

What strangers and models wrote is shown as text: no markup of theirs takes effect, nobody is notified, no link made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast_sweeper.facts import Facts, Item
from holdfast_sweeper.hatch import hatch
from holdfast_sweeper.review import Review
from holdfast_sweeper.text import code, cut, plain

COMMENT_MAX = 62_000
"""GitHub takes 65,536 characters."""
_HOST = re.compile(r"https://[A-Za-z0-9.-]+(?::\d+)?(?=/)")
MARK = "<!-- holdfast-sweeper"
WORKS = {"queued": "waits", "reading": "reads the item", "asking": "asks the model", "writing": "writes it down"}


@dataclass(frozen=True, slots=True)
class Note:
    """What became of a command, or is becoming. word: the command, by: whose, said: in words, ours or made plain."""

    word: str
    by: str
    said: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything that the comment shows.

    progress: a key of `WORKS`; empty: nothing runs. why_none: instead of a review. notes: newest last. hatched: the
    address of the picture; empty: there is none; None: nothing has hatched. earlier: the report of another state.
    """

    item: Item
    review: Review | None = None
    progress: str = ""
    progress_head: str = ""
    why_none: str = ""
    notes: tuple[Note, ...] = ()
    hatched: str | None = None
    labels: Mapping[str, str] | None = None
    earlier: str = ""
    earlier_head: str = ""


def mark_of(item: Item) -> str:
    """The line that nobody sees and by which the comment is found again."""
    return f"{MARK}:{item.repo.lower()}#{item.number} -->"


def is_marked(body: str, item: Item) -> bool:
    return body.startswith(mark_of(item))


def comment_of(shown: Shown) -> str:
    """The whole comment, within GitHub's limit: what is too long is cut between its parts."""
    parts = [f"{mark_of(shown.item)}\n## Review of {shown.item.text}"]
    if shown.progress:
        head = f" at {code(shown.progress_head[:12])}" if shown.progress_head else ""
        parts.append(f"⏳ The sweeper {WORKS.get(shown.progress, plain(shown.progress))}{head}.")
    parts += [_notes(shown.notes)]
    if shown.review is not None:
        parts += _review(shown.review, shown.labels or {})
    elif shown.earlier:
        parts.append(
            f"<details><summary>An earlier commit, {shown.earlier_head[:12]}</summary>\n\n{shown.earlier}\n</details>"
        )
    elif shown.why_none and not shown.progress:
        parts.append(f"No review: {plain(shown.why_none)}.")
    if shown.hatched is not None:
        parts.append(_hatched(shown.item, shown.hatched))
    return _within([part for part in parts if part])


def report_of(review: Review, labels: Mapping[str, str]) -> str:
    """The review alone, as a report."""
    return _within([f"# Review of {review.facts.item.text}", *(one for one in _review(review, labels) if one)]) + "\n"


def _within(parts: Sequence[str]) -> str:
    kept: list[str] = []
    size = 0
    for part in parts:
        size += len(part) + 2
        if size > COMMENT_MAX - 100:
            kept.append("… the rest is too long for a comment; `holdfast-sweeper review` shows it.")
            break
        kept.append(part)
    return "\n\n".join(kept)


def _review(review: Review, labels: Mapping[str, str]) -> list[str]:
    facts, draft = review.facts, review.draft
    return [
        f"**{review.rating.overall}** · {review.priority} · {'ready' if review.is_ready else 'not ready'}",
        f"**Summary.** {plain(draft.summary)}",
        _surface(facts),
        f"**Reproducibility: {draft.reproducibility}.** {plain(draft.reproducibility_why)}".rstrip(),
        f"**Best solution.** {plain(draft.best_solution)}" if draft.best_solution else "",
        _findings(review),
        _list("Acceptance criteria", (plain(one) for one in draft.acceptance), "- [ ] "),
        _list("Evidence", (f"{plain(one.claim)} ({_place(facts, one.file, one.line)})" for one in draft.evidence)),
        _risk(review),
        f"**Security: {draft.security}.** {plain(draft.security_note)}".rstrip(),
        _rating(review),
        _list(
            "Related people",
            (f"{plain(one.login)}: {one.role} ({one.why}; confidence {one.confidence:.0%})" for one in facts.people),
        ),
        _list("Labels", (f"{code(name)}: {plain(why)}" for name, why in sorted(labels.items()))),
        f"**Next step.** {plain(draft.next_step)}" if draft.next_step else "",
        f"{plain(review.note)}" if review.note else "",
        (f"<sub>Reviewed commit {code(facts.head[:12] or 'none')} with {code(review.model)}, "
        f"{review.at[:16].replace('T', ' ')} UTC. Commands: `/sweep re-review`, `/sweep explain`, `/sweep stop`; with "
        "write access `/sweep autofix`, `/sweep fix ci`, `/sweep address review`, `/sweep automerge`.</sub>"),
    ]  # fmt: skip


def _surface(facts: Facts) -> str:
    if facts.kind != "pull":
        return ""
    areas: dict[str, list[int]] = {}
    for one in facts.files:
        row = areas.setdefault(one.area, [0, 0, 0])
        row[0], row[1], row[2] = row[0] + 1, row[1] + one.added, row[2] + one.removed
    rows = [
        f"| {plain(area)} | {files} | {added} | {removed} |"
        for area, (files, added, removed) in sorted(areas.items(), key=lambda one: -(one[1][1] + one[1][2]))[:20]
    ]
    rows.append(f"| all | {len(facts.files)} | {facts.added} | {facts.removed} |")
    more = f"\n\n{facts.files_left_out} more file(s) were not read." if facts.files_left_out else ""
    return "| area | files | added | removed |\n|---|---:|---:|---:|\n" + "\n".join(rows) + more


def _findings(review: Review) -> str:
    found = review.draft.findings
    if not found:
        return "**Findings.** None."
    lines = []
    for number, one in enumerate(found, 1):
        place = f" {_place(review.facts, one.file, one.line)}" if one.file else ""
        detail = f"\n   {plain(one.detail)}" if one.detail else ""
        lines.append(
            f"{number}. **{one.priority}**{place} {plain(one.title)} (confidence {one.confidence:.0%}){detail}"
        )
    return "**Findings**\n\n" + "\n".join(lines)


def _place(facts: Facts, file: str, line: int | None) -> str:
    """A file and line at the reviewed commit; a link where its address is made of nothing but plain characters."""
    shown = code(f"{file}:{line}" if line else file)
    if facts.head and all((one.isalnum() and one.isascii()) or one in "/._-" for one in file) and ".." not in file:
        anchor = f"#L{line}" if line else ""
        host = _HOST.match(facts.url)
        repo = f"{host[0] if host else 'https://github.com'}/{facts.head_repo or facts.item.repo}"
        return f"[{shown}]({repo}/blob/{facts.head}/{file}{anchor})"
    return f"{shown} at {code(facts.head[:12])}" if facts.head else shown


def _risk(review: Review) -> str:
    draft = review.draft
    head = f"**Risk before merge: {draft.risk}.** {plain(draft.risk_why)}".rstrip()
    options = [
        f"- {'**recommended** ' if one.recommended else ''}{plain(': '.join(filter(None, (one.title, one.detail))))}"
        for one in draft.options
    ]
    return head + ("\n\n" + "\n".join(options) if options else "")


def _rating(review: Review) -> str:
    rating = review.rating
    proof = f" ({plain(review.proof.why)})" if review.proof is not None else ""
    stale = "; shown for an earlier commit" if review.is_stale else ""
    head = f"**Rating.** Proof: {rating.proof}{proof}{stale}. Patch: {rating.patch}. Overall: **{rating.overall}**."
    moves = "\n".join(f"- {plain(one)}" for one in rating.moves)
    return f"{head}\n\nTo rank up:\n\n{moves}" if moves else head


def _notes(notes: Sequence[Note]) -> str:
    lines = [
        f"- {code(one.word)}{f' by {plain(one.by)}' if one.by else ''}: {cut(one.said, 12_000)}" for one in notes[-5:]
    ]
    return "\n".join(lines)


def _list(title: str, lines: Iterable[str], mark: str = "- ") -> str:
    listed = [f"{mark}{one}" for one in lines]
    return f"**{title}**\n\n" + "\n".join(listed) if listed else ""


def _hatched(item: Item, address: str) -> str:
    told = hatch(item).told
    return f"🥚 Hatched: {told}." + (f"\n\n![{told}]({address})" if address else "")
