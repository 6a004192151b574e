"""What hangs together with what: which item is fetched next, and the edges between those that were. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast_issue_graph.item import Item
from holdfast_issue_graph.refs import RELATIONS, Relation


@dataclass(frozen=True, slots=True)
class Limits:
    """depth: steps from the start; 0: the start alone. items: at most so many are fetched. per_item: links that are
    followed of one. elsewhere: whether items of other repositories are followed; they are named in any case.
    """

    depth: int = 2
    items: int = 40
    per_item: int = 30
    elsewhere: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that could not be had. why: for people."""

    ref: str
    why: str


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` does `relation` to `target`."""

    source: str
    target: str
    relation: Relation
    found_in: str


@dataclass(frozen=True, slots=True)
class Graph:
    """start: the item that was asked for. items, depths: by key (small letters). left: named, not fetched, and why."""

    start: str
    items: Mapping[str, Item]
    depths: Mapping[str, int]
    edges: Sequence[Edge]
    failed: Sequence[Failed] = ()
    left: Mapping[str, str] = field(default_factory=dict[str, str])


def next_of(start: str, items: Mapping[str, Item], failed: Iterable[str], limits: Limits) -> str | None:
    """The item to fetch now; None: done. Nearest first, of those the more strongly related, then as found.

    It depends on what was fetched and on nothing else, so whoever goes on after an interruption goes the same way.
    """
    gone = {ref.lower() for ref in failed}
    if start.lower() not in items:
        return None if start.lower() in gone else start
    if len(items) >= limits.items:
        return None
    open_links: list[tuple[int, int, int, str]] = []
    for key, depth in depths_of(start, items).items():
        if depth >= limits.depth:
            continue
        for order, link in enumerate(items[key].links[: limits.per_item]):
            if link.to.lower() in items or link.to.lower() in gone or not _is_followed(start, link.to, limits):
                continue
            open_links.append((depth, RELATIONS.index(link.relation), order, link.to))
    return min(open_links)[3] if open_links else None


def graph_of(start: str, items: Mapping[str, Item], failed: Sequence[Failed], limits: Limits) -> Graph:
    """The whole, once nothing is fetched any more."""
    depths = depths_of(start, items)
    gone = {one.ref.lower() for one in failed}
    left: dict[str, str] = {}
    strongest: dict[tuple[str, str], Edge] = {}
    for key in depths:
        for link in items[key].links:
            edge = _edge(items[key].ref, link.to, link.relation, link.found_in, by_it=link.by_it)
            pair = (min(key, link.to.lower()), max(key, link.to.lower()))
            before = strongest.get(pair)
            if before is None or RELATIONS.index(edge.relation) < RELATIONS.index(before.relation):
                strongest[pair] = edge
            if link.to.lower() not in items and link.to.lower() not in gone:
                left.setdefault(link.to, _why_left(start, link.to, depths[key], limits))
    return Graph(start, {key: items[key] for key in depths}, depths, tuple(strongest.values()), tuple(failed), left)


def depths_of(start: str, items: Mapping[str, Item]) -> dict[str, int]:
    """How many steps each fetched item is away from the start, in the order in which they are reached."""
    if start.lower() not in items:
        return {}
    depths = {start.lower(): 0}
    ring = [start.lower()]
    while ring:
        reached: list[str] = []
        for key in ring:
            for link in items[key].links:
                if link.to.lower() in items and link.to.lower() not in depths:
                    depths[link.to.lower()] = depths[key] + 1
                    reached.append(link.to.lower())
        ring = reached
    return depths


def _edge(ref: str, to: str, relation: Relation, found_in: str, *, by_it: bool) -> Edge:
    return Edge(to, ref, relation, found_in) if by_it else Edge(ref, to, relation, found_in)


def _is_followed(start: str, to: str, limits: Limits) -> bool:
    return limits.elsewhere or to.lower().rpartition("#")[0] == start.lower().rpartition("#")[0]


def _why_left(start: str, to: str, depth: int, limits: Limits) -> str:
    if not _is_followed(start, to, limits):
        return "of another repository"
    return f"more than {limits.depth} steps away" if depth >= limits.depth else "past the limit of items"
