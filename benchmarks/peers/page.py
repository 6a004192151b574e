"""The tables of `docs/evidence/peers.md`, between its marks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.peers.environments import ROOT

PAGE = ROOT / "docs" / "evidence" / "peers.md"
BEGIN, END = "<!-- drawn by make bench-peers -->", "<!-- end of what is drawn -->"
Titles = dict[str, dict[str, str]]


def figure(values: Iterable[float | None], digits: int = 1) -> str:
    """Median, and the smallest and largest in brackets where they differ."""
    known = sorted(one for one in values if one is not None)
    if not known:
        return "-"
    shown = [f"{one:,.{digits}f}" for one in (statistics.median(known), known[0], known[-1])]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def contests(report: dict[str, Any], titles: Titles) -> list[str]:
    rows = []
    for name, shapes in report["contests"].items():
        for shape, runs in shapes.items():
            cells = [
                figure((one[key] for one in runs), 0) for key in ("acknowledged", "lost", "not_adjacent", "thrown_away")
            ]
            rate = figure([one["kept_per_s"] for one in runs])
            errors = ", ".join(sorted({error for one in runs for error in one["errors"]})) or "none"
            rows.append([titles["stores"][name], shape, *cells, rate, errors])
    head = ["store", "processes x at once", "acknowledged of 48", "lost though acknowledged",
            "answer not after its question", "model calls thrown away", "turns kept a second", "errors"]  # fmt: skip
    return ["### Turns of several at once on one conversation", "", *table(head, rows)]


def overheads(report: dict[str, Any], titles: Titles) -> list[str]:
    rows = [
        [titles["stores"][name], *(
            figure((one[key] for one in counts[count] if one is not None), 2)
            for key in ("cpu_ms", "wall_ms") for count in ("0", "1000", "10000")
        )]
        for name, counts in report["overheads"].items()
    ]  # fmt: skip
    head = ["store", "CPU ms, 0", "1,000", "10,000 messages", "by the clock ms, 0", "1,000", "10,000"]
    return ["### What one turn costs beside its model, by what was said before", "", *table(head, rows)]


def sizes(report: dict[str, Any], titles: Titles) -> list[str]:
    rows = []
    for name, found in report["sizes"].items():
        cells = []
        for size in ("10 KB", "1 MB", "100 MB", "1 GB"):
            runs = found.get(size)
            cells.append("not run" if not runs else figure([one["wall_ms"] for one in runs]))
        rows.append([titles["stores"][name], *cells])
    head = ["store", "10 KB, ms", "1 MB", "100 MB", "1 GB"]
    return ["### From an imported library to the end of one turn, by what is on disk", "", *table(head, rows)]


def locks(report: dict[str, Any], titles: Titles) -> list[str]:
    rows = [
        [titles["locks"][name], figure(found["alone_us"]),
         figure((one["appends"] / 1.5 for one in found["contests"]), 0),
         figure([one["fairness"] for one in found["contests"]], 2),
         figure([one["longest_ms"] for one in found["contests"]]), figure(found["after_kill_ms"])]
        for name, found in report["locks"].items()
    ]  # fmt: skip
    head = ["lock", "alone, µs", "4 processes: appends + syncs a second", "fewest against most", "longest wait, ms",
            "SIGKILL of the holder to the next, ms"]  # fmt: skip
    return ["### Locks", "", *table(head, rows)]


def chains(report: dict[str, Any], titles: Titles) -> list[str]:
    rows = []
    for name, runs in report["chains"].items():
        local = runs[0]["local_error"]
        walks = "**yes**: " if len(set(local["asked"])) > 1 else "no: "
        sees = "the next model's answer" if local["raised"] is None else f"`{local['raised']}`"
        costs = [figure([one[kind] for one in runs]) for kind in ("first", "after_three")]
        rows.append([titles["chains"][name], *costs, walks + ", ".join(local["asked"]), sees])
    head = ["chain", "first answers, CPU µs", "three refuse, then one answers, CPU µs",
            "a local lock error walks the chain", "its caller gets"]  # fmt: skip
    return ["### Chains of models", "", *table(head, rows)]


def queues(report: dict[str, Any], titles: Titles) -> list[str]:
    rows = []
    for name, counts in report["queues"]["bursts"].items():
        for count, runs in counts.items():
            done = [one for one in runs if one is not None]
            rows.append([titles["queues"][name], count, figure([one["cpu_us"] for one in done]),
                         figure([one["wall_us"] for one in done])])  # fmt: skip
    lines = ["### Bursts of inputs", "", *table(["queue", "inputs", "CPU µs each", "by the clock µs each"], rows)]
    killed = [
        ["Holdfast, a waiting process", figure([one / 1000 for one in report["locks"]["holdfast"]["after_kill_ms"]], 4)]
    ]
    for name, seconds in report["queues"]["killed"].items():
        never = sum(one is None for one in seconds)
        shown = figure(seconds, 2) if never < len(seconds) else ""
        still = f"not within 15 s in {never} of {len(seconds)} rounds" if never else ""
        killed.append([name, "; ".join(one for one in (shown, still) if one)])
    head = ["who goes on", "seconds from SIGKILL to the next turn of the conversation"]
    return [*lines, "### The conversation of a worker that was killed", "", *table(head, killed)]


def write_page(report: dict[str, Any], titles: Titles) -> None:
    """Put the tables of what has been measured into the page."""
    made = report["contests_machine"]
    lines = [
        f"Measured {made['at']}, {made['processors']} processors, {made['system']}, {made['file_system']}, Python "
        f"{made['python']}; load at the beginning of each part: "
        + ", ".join(f"{name} {report[f'{name}_machine']['load_1_min']}" for name in PARTS if name in report) + ".",
        "", f"Versions: {', '.join(' '.join(one) for one in sorted(report['versions'].items()))}.", "",
    ]  # fmt: skip
    for name, part in PARTS.items():
        lines += part(report, titles) if name in report else []
    lines += ["### Not measured", "", *(f"- {name}: {why}." for name, why in report["missing"].items()), ""]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"{END}{after}", encoding="utf-8")


PARTS = {
    "contests": contests, "overheads": overheads, "sizes": sizes, "locks": locks, "chains": chains, "queues": queues,
}  # fmt: skip
