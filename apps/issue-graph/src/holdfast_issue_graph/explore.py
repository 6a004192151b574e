"""Exploring from one item on, as a turn that owns the item's conversation: whoever is interrupted goes on where it was.

Each item that was read is a line of the conversation, so a killed run loses at most the item it was reading; and two
people who ask for the same item at once do not read it twice: the second one is told who is at it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

import holdfast
from holdfast_issue_graph.github import AbsentError, GitHub
from holdfast_issue_graph.graph import Failed, Graph, Limits, graph_of, next_of
from holdfast_issue_graph.item import Item, item_of
from holdfast_issue_graph.refs import Ref

RUN, ITEM, FAILED, DONE = "issue-graph.run", "issue-graph.item", "issue-graph.failed", "issue-graph.done"


@dataclass(frozen=True, slots=True)
class Progress:
    """read: items so far. doing: what is read now; empty: all is done. resumed: what an interrupted run had read."""

    read: int
    limit: int
    doing: str = ""
    resumed: int = 0


@dataclass(slots=True)
class _Run:
    """What the conversation holds of the newest run."""

    limits: Limits
    items: dict[str, Item]
    failed: list[Failed]
    is_done: bool = False


def session_of(start: Ref) -> str:
    """The conversation of an item's graph."""
    return f"agent:issue-graph:github:channel:{start.owner.lower()}/{start.repo.lower()}:thread:{start.number}"


async def explore(
    hf: holdfast.Holdfast,
    github: GitHub,
    start: Ref,
    limits: Limits,
    *,
    hosts: tuple[str, ...] = ("github.com", "www.github.com"),
    wait_s: float = 1.0,
    told: Callable[[Progress], None] = lambda _: None,
) -> Graph:
    """The graph around `start`. A run that was interrupted, with the same limits, is gone on with.

    Cancelled or killed: what was read is kept, and the next call goes on.

    Raises:
        holdfast.SessionBusyError: somebody explores this very item. GitHubError: see `github`.
    """
    await _put_ended_away(hf, session_of(start))
    async with hf.turn(session_of(start), wait_s=wait_s) as turn:
        run = _newest(await hf.session(turn.session).entries(), limits)
        if run is None:
            run = _Run(limits, {}, [])
            await turn.append(holdfast.custom(RUN, {"start": start.text, "limits": msgspec.to_builtins(limits)}))
            await turn.append(holdfast.session_info(f"Issue graph of {start.text}"))
        resumed = len(run.items)
        while (ref := next_of(start.text, run.items, (one.ref for one in run.failed), limits)) is not None:
            told(Progress(len(run.items), limits.items, ref, resumed))
            try:
                item = await read_item(github, Ref.of(ref), hosts)
            except AbsentError as exc:
                run.failed.append(Failed(ref, str(exc)))
                await turn.append(holdfast.custom(FAILED, msgspec.to_builtins(run.failed[-1])))
                continue
            run.items[ref.lower()] = item
            await turn.append(holdfast.custom(ITEM, {"key": ref.lower(), "item": msgspec.to_builtins(item)}))
        await turn.append(holdfast.custom(DONE, {"items": len(run.items), "failed": len(run.failed)}), durable=True)
        told(Progress(len(run.items), limits.items, "", resumed))
    return graph_of(start.text, run.items, run.failed, limits)


async def read_item(github: GitHub, ref: Ref, hosts: tuple[str, ...]) -> Item:
    """One item with its comments and its timeline. A timeline that is refused counts as empty.

    Raises: AbsentError, LimitedError, GitHubError: see `github`.
    """
    path = f"/repos/{ref.owner}/{ref.repo}/issues/{ref.number}"
    issue = await github.get(path)
    comments = await github.pages(f"{path}/comments", pages_max=3)
    try:
        timeline = await github.pages(f"{path}/timeline", pages_max=3)
    except AbsentError:
        timeline = []
    return item_of(ref, issue if isinstance(issue, dict) else {}, comments, timeline, hosts)


async def _put_ended_away(hf: holdfast.Holdfast, session: str) -> None:
    """Archive the conversation of a run that is done, so that it does not grow with each run. In use: not now."""
    try:
        entries = await hf.session(session).entries()
    except holdfast.UnknownSessionError:
        return
    if entries and getattr(entries[-1], "custom_type", "") == DONE:
        with contextlib.suppress(holdfast.SessionBusyError):
            await hf.session(session).archive(by="holdfast-issue-graph")


def _newest(entries: list[Any], limits: Limits) -> _Run | None:
    """The run that was not ended, if it was made with these limits."""
    run: _Run | None = None
    for entry in entries:
        kind: str = getattr(entry, "custom_type", "")
        data: dict[str, Any] = getattr(entry, "data", {})
        if kind == RUN:
            run = _Run(msgspec.convert(data["limits"], Limits), {}, [])
        elif run is not None and kind == ITEM:
            run.items[data["key"]] = msgspec.convert(data["item"], Item)
        elif run is not None and kind == FAILED:
            run.failed.append(msgspec.convert(data, Failed))
        elif run is not None and kind == DONE:
            run.is_done = True
    return run if run is not None and not run.is_done and run.limits == limits else None
