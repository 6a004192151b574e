"""The chart of `docs/images/peers.svg`: of 48 acknowledged turns, those that are there in one piece, for each store.

Drawn by hand, as text: a chart that no library of a given version has to be there for.
"""

from __future__ import annotations

import statistics
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LABEL, BAR, GAP = 860, 250, 12, 4
SHAPES = {"1 x 8": "1 process, 8 at once", "2 x 4": "2 processes, 4 at once", "4 x 2": "4 processes, 2 at once"}
KINDS = (
    ("kept", "kept, answer after its question", "#2f7d4f"),
    ("apart", "kept, torn apart", "#d9a441"),
    ("lost", "lost though acknowledged", "#b3382c"),
    ("refused", "refused after the model was asked", "#8a8f98"),
)


def shares(runs: list[dict[str, Any]]) -> dict[str, float]:
    median = {key: statistics.median(one[key] for one in runs) for key in ("acknowledged", "lost", "not_adjacent")}
    there = median["acknowledged"] - median["lost"]
    return {
        "kept": there - median["not_adjacent"], "apart": median["not_adjacent"], "lost": median["lost"],
        "refused": 48 - median["acknowledged"],
    }  # fmt: skip


def draw(report: dict[str, Any], titles: dict[str, str], path: Path) -> None:
    """Write the chart."""
    scale = (WIDTH - LABEL - 50) / 48
    top, parts = 64, list[str]()
    for name, shapes in report["contests"].items():
        rows = [shape for shape in SHAPES if shape in shapes]
        title = escape(titles[name].replace("`", ""))
        parts.append(f'<text x="{LABEL - 10}" y="{top + BAR}" text-anchor="end" class="name">{title}</text>')
        for shape in rows:
            left = float(LABEL)
            for kind, _, colour in KINDS:
                width = shares(shapes[shape])[kind] * scale
                if width:
                    parts.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
                left += width
            parts.append(f'<text x="{WIDTH - 42}" y="{top + BAR - 2}" class="shape">{escape(shape)}</text>')
            top += BAR + GAP
        top += 10
    legend, left = list[str](), 12
    for _, words, colour in KINDS:
        legend.append(f'<rect x="{left}" y="34" width="12" height="12" fill="{colour}"/>')
        legend.append(f'<text x="{left + 18}" y="44" class="shape">{escape(words)}</text>')
        left += 42 + 6 * len(words)
    style = "text { font: 12px sans-serif; fill: #24292f } .name { font-weight: 600 } .shape { font-size: 11px }"
    head = "48 turns on one conversation, medians; processes x turns at once"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 6}" role="img" '
        f'aria-label="{escape(head)}">\n<style>{style}</style>\n'
        f'<rect width="{WIDTH}" height="{top + 6}" fill="#ffffff"/>\n'
        f'<text x="12" y="20" class="name">{escape(head)}</text>\n' + "\n".join([*legend, *parts]) + "\n</svg>\n",
        encoding="utf-8",
    )
