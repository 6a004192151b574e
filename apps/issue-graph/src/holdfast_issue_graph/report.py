"""The report: structured Markdown of a graph. Pure.

What strangers wrote is quoted so that it stays text: no markup of theirs takes effect, nobody is notified by a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast_issue_graph.findings import errors_of, evidence_of, example_of, fixed_by, open_ends, problem_of
from holdfast_issue_graph.graph import Edge, Graph
from holdfast_issue_graph.item import Happening, Item
from holdfast_issue_graph.refs import Relation

SAYS: dict[Relation, str] = {
    "fixes": "fixes",
    "duplicates": "is a duplicate of",
    "supersedes": "supersedes",
    "blocked_by": "waits for",
    "part_of": "belongs to",
    "mentions": "mentions",
}
TIMELINE_MAX = 60
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def report_of(graph: Graph, summary: str = "", summary_by: str = "") -> str:
    """The whole report. `summary`: what a model wrote, named as such."""
    start = graph.items.get(graph.start.lower())
    if start is None:
        why = graph.failed[0].why if graph.failed else "it was not read"
        return f"# {graph.start}\n\nThere is nothing to tell: {plain(why)}.\n"
    parts = [f"# {plain(start.title) or start.ref}\n\n{_facts(start)}"]
    if summary:
        by = f"Written by {plain(summary_by) or 'a model'} from what follows; it may be wrong."
        parts.append(f"## Summary\n\n{by}\n\n{quote(summary)}")
    parts.append(f"## Problem\n\n{quote(problem_of(start)) or 'The item says nothing.'}")
    parts.append(_errors(graph, start))
    parts.append(_evidence(graph))
    parts.append(_timeline(graph))
    parts.append(_what_did_what(graph))
    parts.append(_example(graph))
    parts.append("## Open ends\n\n" + ("\n".join(f"- {plain(end)}" for end in open_ends(graph)) or "None."))
    parts.append(_sources(graph))
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would act upon, and no name that notifies."""
    said = " ".join(text.split())
    return _MARKUP.sub(r"\\\1", said).replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b")


def quote(text: str) -> str:
    """Somebody's words as a quotation. Their markup is shown, not done."""
    return "\n".join(f"> {plain(line)}".rstrip() for line in text.strip().splitlines()) if text.strip() else ""


def code(text: str, language: str = "") -> str:
    """A code block that its text cannot end."""
    longest = max((len(one) for one in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{re.sub(r'[^a-z0-9+#.-]', '', language)}\n{text}\n{fence}"


def _facts(item: Item) -> str:
    what = "pull request" if item.kind == "pull" else "issue"
    labels = f", labels: {', '.join(plain(label) for label in item.labels)}" if item.labels else ""
    closed = f", closed {item.closed_at[:10]}" if item.closed_at else ""
    return f"{_link(item)}: {item.state} {what} by {plain(item.by)}, {item.at[:10]}{closed}{labels}"


def _errors(graph: Graph, start: Item) -> str:
    found = errors_of(start) or [one for key in graph.items for one in errors_of(graph.items[key], most=1)][:3]
    if not found:
        return "## Error message\n\nNone is quoted."
    return "## Error message\n\n" + "\n\n".join(f"{code(one.text)}\n\n{_from(one.where, one.url)}" for one in found)


def _evidence(graph: Graph) -> str:
    lines = [
        f"- {item.ref}: {plain(one.text)} ({_from(one.where, one.url)})"
        for item in graph.items.values()
        for one in evidence_of(item)
    ]
    return "## Evidence\n\n" + ("\n".join(lines[:40]) or "No log, picture or transcript was found.")


def _timeline(graph: Graph) -> str:
    happened = sorted(_happened(graph))
    shown = (
        happened if len(happened) <= TIMELINE_MAX else [*happened[: TIMELINE_MAX // 2], *happened[-TIMELINE_MAX // 2 :]]
    )
    lines = [f"- {at[:16].replace('T', ' ')} {text}" for at, text in shown]
    if len(happened) > TIMELINE_MAX:
        lines.insert(TIMELINE_MAX // 2, f"- … {len(happened) - TIMELINE_MAX} more")
    return "## Timeline\n\n" + "\n".join(lines)


def _happened(graph: Graph) -> Iterator[tuple[str, str]]:
    for item in graph.items.values():
        yield item.at, f"{item.ref} opened by {plain(item.by)}: {plain(item.title)}"
        for line in item.timeline:
            if (told := _told(item, line)) and line.at:
                yield line.at, told


def _told(item: Item, line: Happening) -> str:
    if line.what in ("closed", "reopened", "merged", "renamed", "marked_as_duplicate", "head_ref_force_pushed"):
        note = f" ({plain(line.note)})" if line.note else ""
        return f"{item.ref} {line.what.replace('_', ' ')} by {plain(line.by)}{note}"
    if line.what == "reviewed" and line.note in ("approved", "changes_requested"):
        return f"{item.ref}: {line.note.replace('_', ' ')} by {plain(line.by)}"
    return ""


def _what_did_what(graph: Graph) -> str:
    strong = [edge for edge in graph.edges if edge.relation != "mentions"]
    lines = [f"- {_said(graph, edge)}" for edge in strong]
    start_fixes = fixed_by(graph, graph.start)
    head = "" if start_fixes else f"Nothing that was read says that it fixes or replaces {graph.start}.\n\n"
    weak = len(graph.edges) - len(strong)
    tail = f"\n\n{weak} more pair(s) only mention each other." if weak else ""
    return "## What fixed or superseded what\n\n" + head + "\n".join(lines) + tail


def _said(graph: Graph, edge: Edge) -> str:
    source, target = (_named(graph, ref) for ref in (edge.source, edge.target))
    return f"{source} {SAYS[edge.relation]} {target} (said in a {edge.found_in})"


def _named(graph: Graph, ref: str) -> str:
    item = graph.items.get(ref.lower())
    return f"{_link(item)} ({item.state}, {plain(item.title)[:80]})" if item is not None else f"{plain(ref)} (not read)"


def _example(graph: Graph) -> str:
    for item in graph.items.values():
        block = example_of(item)
        if block is not None:
            return (
                f"## Code example\n\n{code(block.text, block.language)}\n\n{item.ref}, {_from(block.where, block.url)}"
            )
    return "## Code example\n\nNone was found."


def _sources(graph: Graph) -> str:
    lines = [
        f"| {_link(item)} | {item.kind} | {item.state} | {graph.depths[key]} | {plain(item.title)[:100]} |"
        for key, item in graph.items.items()
    ]
    left = [f"{plain(ref)} ({why})" for ref, why in list(graph.left.items())[:30]]
    more = f"\n\nNamed and not read: {', '.join(left)}{' …' if len(graph.left) > 30 else ''}." if left else ""
    return "## Read\n\n| item | kind | state | steps away | title |\n|---|---|---|---|---|\n" + "\n".join(lines) + more


def _from(who: str, url: str) -> str:
    return f"[{plain(who) or 'unknown'}]({_address(url)})" if _address(url) else plain(who)


def _link(item: Item) -> str:
    address = _address(item.url)
    return f"[{item.ref}]({address})" if address else item.ref


def _address(url: str) -> str:
    """An address that is safe between brackets; empty: it is none."""
    return url if re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&*+,;=%-]+", url) else ""
