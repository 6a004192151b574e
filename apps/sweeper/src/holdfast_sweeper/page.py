"""A review as one page of HTML that needs nothing else: everything of others is escaped text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from holdfast_sweeper.hatch import svg_of
from holdfast_sweeper.ladder import OFF_META, RANKS
from holdfast_sweeper.review import Finding, Review
from holdfast_sweeper.text import seen

CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def html_of(review: Review, labels: Mapping[str, str], *, with_creature: bool) -> str:
    """The whole page."""
    facts, draft, rating = review.facts, review.draft, review.rating
    cards = (
        ("overall", rating.overall), ("proof", rating.proof), ("patch", rating.patch), ("priority", review.priority),
        ("risk before merge", draft.risk), ("security", draft.security),
    )  # fmt: skip
    title = f"{facts.item.text}: {facts.title}"
    shown = "".join(f"<div class=card><span class=soft>{name}</span><b>{_text(what)}</b></div>" for name, what in cards)
    seen_at = (f"{_text(one.claim)} <code>{_text(_place(one.file, one.line))}</code>" for one in draft.evidence)
    people = (
        f"<b>{_text(one.login)}</b> {_text(one.role)} <span class=soft>({_text(one.why)}, {one.confidence:.0%})</span>"
        for one in facts.people
    )
    tags = (f'<span class="label" title="{_text(why)}">{_text(name)}</span>' for name, why in sorted(labels.items()))
    parts = [
        _head(review, title, with_creature=with_creature),
        f'<div class="cards">{shown}</div>',
        _ladder(review),
        _surface(review),
        _section("Reproducibility", f"<p><b>{draft.reproducibility}.</b> {_text(draft.reproducibility_why)}</p>"),
        _section("Best solution", _paragraph(draft.best_solution)),
        _section("Findings", "".join(_finding(one) for one in draft.findings) or "<p>None.</p>"),
        _section("Acceptance criteria", _list(_text(one) for one in draft.acceptance)),
        _section("Evidence", _list(seen_at)),
        _section("Before merge", _paragraph(draft.risk_why) + _options(review)),
        _section("Security", _paragraph(draft.security_note)),
        _section("To rank up", _list(_text(one) for one in rating.moves)),
        _section("Related people", _list(people)),
        _section("Labels", "".join(tags)),
        _section("Next step", _paragraph(draft.next_step)),
        f'<p class="soft">{_text(review.note)}</p>' if review.note else "",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"content-security-policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{CSS}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(review: Review, title: str, *, with_creature: bool) -> str:
    facts = review.facts
    creature = svg_of(facts.item) if with_creature else ""
    return (
        f'<div class="top"><div><h1>{_text(title)}</h1><p class="soft">{facts.kind} by {_text(facts.author)} · '
        f"reviewed commit <code>{_text(facts.head[:12])}</code> with <code>{_text(review.model)}</code>, "
        f"{_text(review.at[:16])}</p><p>{_text(review.draft.summary)}</p></div>{creature}</div>"
    )


def _ladder(review: Review) -> str:
    own = review.rating.overall
    names = [one for one in RANKS if one != OFF_META or own == OFF_META]
    rungs = "".join(f'<li class="{"here" if one == own else ""}">{one}</li>' for one in names)
    return f'<ul class="ladder">{rungs}</ul>'


def _surface(review: Review) -> str:
    areas: dict[str, list[int]] = {}
    for one in review.facts.files:
        row = areas.setdefault(one.area, [0, 0, 0])
        row[0], row[1], row[2] = row[0] + 1, row[1] + one.added, row[2] + one.removed
    rows = "".join(
        f"<tr><td>{_text(area)}</td>{''.join(f'<td class=n>{count}</td>' for count in row)}</tr>"
        for area, row in sorted(areas.items(), key=lambda one: -(one[1][1] + one[1][2]))
    )
    head = '<tr><th>area</th><th class="n">files</th><th class="n">added</th><th class="n">removed</th></tr>'
    return _section("Surface", f"<table>{head}{rows}</table>") if rows else ""


def _finding(one: Finding) -> str:
    place = f" <code>{_text(_place(one.file, one.line))}</code>" if one.file else ""
    return (
        f'<div class="finding {one.priority}"><b>{one.priority} {_text(one.title)}</b>{place} '
        f'<span class="soft">{one.confidence:.0%} sure</span><br>{_text(one.detail)}</div>'
    )


def _options(review: Review) -> str:
    return "".join(
        f'<div class="card{" own" if one.recommended else ""}"><b>{_text(one.title)}</b>{_text(one.detail)}'
        f"{' <span class=soft>recommended</span>' if one.recommended else ''}</div>"
        for one in review.draft.options
    )


def _place(file: str, line: int | None) -> str:
    return f"{file}:{line}" if line else file


def _section(title: str, inside: str) -> str:
    return f"<h2>{title}</h2>{inside}" if inside else ""


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>" if text else ""


def _list(lines: Iterable[str]) -> str:
    inside = "".join(f"<li>{line}</li>" for line in lines)
    return f"<ul>{inside}</ul>" if inside else ""


def _text(text: str) -> str:
    return escape(seen(text), quote=True)
