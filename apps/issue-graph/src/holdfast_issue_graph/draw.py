"""The drawn graph: one SVG, light and dark, without scripts. Pure.

Columns by distance from the start, rows by time. Everything that strangers wrote is escaped text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from holdfast_issue_graph.graph import Edge, Graph
from holdfast_issue_graph.item import Item
from holdfast_issue_graph.refs import RELATIONS, Relation
from holdfast_issue_graph.report import SAYS

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, TITLE_CHARS = 250, 58, 90, 20, 28, 31
_STYLE = """
  svg { background: #ffffff; font: 13px system-ui, sans-serif; }
  text { fill: #1f2328; } .quiet { fill: #59636e; font-size: 11px; }
  rect.card { fill: #f6f8fa; stroke: #d1d9e0; } .start rect.card { stroke: #0969da; stroke-width: 2.5; }
  .open { fill: #1a7f37; } .closed { fill: #cf222e; } .merged { fill: #8250df; } .unread { fill: #818b98; }
  path { fill: none; stroke: #818b98; stroke-width: 1.2; } path.mentions { stroke-dasharray: 2 4; }
  path.fixes { stroke: #1a7f37; stroke-width: 2; } path.supersedes { stroke: #8250df; stroke-width: 2; }
  path.duplicates { stroke: #bc4c00; stroke-width: 2; } path.blocked_by { stroke: #cf222e; stroke-width: 2; }
  path.part_of { stroke: #0969da; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; } text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    rect.card { fill: #151b23; stroke: #3d444d; }
  }
"""


def svg_of(graph: Graph) -> str:
    """The picture. Reads well up to about a hundred items; more are drawn all the same."""
    places = _places(graph)
    right = max((x for x, _ in places.values()), default=0) + WIDTH + MARGIN
    bottom = max((y for _, y in places.values()), default=0) + HEIGHT + MARGIN + 34
    shown = [edge for edge in graph.edges if {edge.source.lower(), edge.target.lower()} <= places.keys()]
    edges = [_edge(edge, places) for edge in shown]
    cards = [_card(graph, key, item, places[key]) for key, item in graph.items.items()]
    title = escape(f"Issue graph of {graph.start}: {len(graph.items)} items, {len(graph.edges)} links")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom}" width="{right}" height="{bottom}" '
        f'role="img" aria-label="{title}"><title>{title}</title><style>{_STYLE}</style>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0 8 4 0 8z" style="fill:#818b98;stroke:none"/></marker></defs>'
        f"{''.join(edges)}{''.join(cards)}{_legend(shown, bottom)}</svg>\n"
    )


def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Where each card stands: its column is its distance, its row the order of time, columns centred."""
    columns: dict[int, list[str]] = {}
    for key in sorted(graph.items, key=lambda key: (graph.depths[key], graph.items[key].at, key)):
        columns.setdefault(graph.depths[key], []).append(key)
    tallest = max((len(keys) for keys in columns.values()), default=0)
    places: dict[str, tuple[int, int]] = {}
    for depth, keys in columns.items():
        above = (tallest - len(keys)) * (HEIGHT + GAP_Y) // 2
        for row, key in enumerate(keys):
            places[key] = (MARGIN + depth * (WIDTH + GAP_X), MARGIN + above + row * (HEIGHT + GAP_Y))
    return places


def _card(graph: Graph, key: str, item: Item, place: tuple[int, int]) -> str:
    x, y = place
    start = " start" if key == graph.start.lower() else ""
    kind = "pull request" if item.kind == "pull" else "issue"
    card = (
        f'<g class="item{start}" transform="translate({x} {y})"><title>{_text(f"{item.ref}: {item.title}")}</title>'
        f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<rect class="{item.state}" width="6" height="{HEIGHT}" rx="3"/>'
        f'<text x="16" y="20">{_text(_shortened(item.title))}</text>'
        f'<text x="16" y="36" class="quiet">{_text(item.ref)} · {kind}</text>'
        f'<text x="16" y="50" class="quiet">{item.state} · {_text(item.at[:10])} · {_text(item.by)}</text></g>'
    )
    if re.fullmatch(r"https://[A-Za-z0-9._~:/?#%=&-]+", item.url):
        return f'<a href="{escape(item.url)}" target="_blank" rel="noopener noreferrer">{card}</a>'
    return card


def _edge(edge: Edge, places: Mapping[str, tuple[int, int]]) -> str:
    (x1, y1), (x2, y2) = places[edge.source.lower()], places[edge.target.lower()]
    y1, y2 = y1 + HEIGHT // 2, y2 + HEIGHT // 2
    if x1 == x2:  # beside each other in one column: around the right side
        x1, x2, bend = x1 + WIDTH, x2 + WIDTH, GAP_X // 2 + abs(y2 - y1) // 12
        path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 + bend} {y2} {x2} {y2}"
    else:
        x1, x2 = (x1 + WIDTH, x2) if x1 < x2 else (x1, x2 + WIDTH)
        middle = (x1 + x2) // 2
        path = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
    told = _text(f"{edge.source} {SAYS[edge.relation]} {edge.target}")
    return f'<path class="{edge.relation}" d="{path}" marker-end="url(#tip)"><title>{told}</title></path>'


def _legend(edges: Sequence[Edge], bottom: int) -> str:
    used: list[Relation] = [relation for relation in RELATIONS if any(edge.relation == relation for edge in edges)]
    parts: list[str] = []
    x, y = MARGIN, bottom - 18
    for relation in used:
        parts.append(
            f'<path class="{relation}" d="M{x} {y - 4}h26"/><text x="{x + 32}" y="{y}">{SAYS[relation]}</text>'
        )
        x += 48 + 8 * len(SAYS[relation])
    return f'<g class="legend">{"".join(parts)}</g>'


def _shortened(title: str) -> str:
    return title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1].rstrip() + "…"


def _text(text: str) -> str:
    """Escaped, and without the characters that XML forbids."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))
