"""What an item's texts hold: the problem, the error, evidence, code, what is open. Pure, and without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast_issue_graph.graph import Edge, Graph
from holdfast_issue_graph.item import Item

_FENCE = re.compile(
    r"^[ ]{0,3}(?P<mark>`{3,}|~{3,})[ ]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<text>.*?)^[ ]{0,3}(?P=mark)", re.M | re.S
)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(?P<title>[^\n]+)$", re.MULTILINE)
_ERROR_LINE = re.compile(
    r"^.*(?:\b[A-Z]\w*(?:Error|Exception)\b|\berror\s*[:\[]|\bfatal:|\bpanic:|\bTraceback \(most recent|\bfailed:).*$",
    re.MULTILINE,
)
_EVIDENCE = re.compile(
    r"!\[[^\]]*\]\((?P<picture>https://[^)\s]+)\)|(?P<link>https://(?:gist\.github\.com|github\.com/user-attachments)/\S+)"
)
_LOG_LINE = re.compile(
    r"^\s*(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\[?\d\d:\d\d:\d\d|\s+at \S+ \(|  File \"|\$ |> )", re.MULTILINE
)
_PROBLEM = re.compile(r"problem|description|summary|what happened|actual|bug|issue", re.IGNORECASE)
PROSE_LANGUAGES = frozenset(
    {"", "text", "txt", "log", "console", "shell", "sh", "bash", "output", "diff", "md", "markdown"}
)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block. where: "body" or who wrote the comment."""

    language: str
    text: str
    where: str
    url: str


@dataclass(frozen=True, slots=True)
class Found:
    """A line with where it stands."""

    text: str
    where: str
    url: str


def problem_of(item: Item, chars_max: int = 1_500) -> str:
    """What the item is about, in its author's words: the section that says so, or else its beginning; without code."""
    body = _COMMENT.sub("", item.body)
    prose = _FENCE.sub("", body)
    headings = list(_HEADING.finditer(prose))
    named = next((at for at, one in enumerate(headings) if _PROBLEM.search(one["title"])), None)
    if named is not None:
        end = headings[named + 1].start() if named + 1 < len(headings) else len(prose)
        section = prose[headings[named].end() : end].strip()
        prose = section or prose
    plain = re.sub(r"\n{3,}", "\n\n", _HEADING.sub("", prose)).strip()
    if len(plain) <= chars_max:
        return plain
    cut_at = plain.rfind(" ", 0, chars_max)
    return plain[: cut_at if cut_at > 0 else chars_max] + " …"


def blocks_of(item: Item) -> Iterator[Block]:
    """The code blocks of the body, then those of the comments."""
    for text, where, url in texts_of(item):
        for found in _FENCE.finditer(text):
            if found["text"].strip():
                yield Block(found["language"].lower(), found["text"].rstrip(), where, url)


def errors_of(item: Item, most: int = 5) -> list[Found]:
    """Lines that tell of an error, each once, in order."""
    found: dict[str, Found] = {}
    for text, where, url in texts_of(item):
        for line in _ERROR_LINE.finditer(text):
            said = line[0].strip()[:300]
            if not said.startswith("#"):
                found.setdefault(re.sub(r"\d+", "0", said.strip("`*> ")), Found(said, where, url))
    return list(found.values())[:most]


def evidence_of(item: Item, most: int = 12) -> list[Found]:
    """What shows that it happened: logs, transcripts of a terminal, pictures, gists; and who showed it."""
    found: list[Found] = []
    for block in blocks_of(item):
        if _LOG_LINE.search(block.text) or (block.language in PROSE_LANGUAGES and _ERROR_LINE.search(block.text)):
            lines = block.text.strip().splitlines()
            found.append(Found(f"log of {len(lines)} line(s): {lines[0].strip()[:120]}", block.where, block.url))
    for text, where, url in texts_of(item):
        found += [Found(one["picture"] or one["link"], where, url) for one in _EVIDENCE.finditer(text)]
    return found[:most]


def example_of(item: Item) -> Block | None:
    """The code that shows it best: the longest block in a programming language, up to 60 lines; then any."""
    blocks = [block for block in blocks_of(item) if len(block.text.splitlines()) <= 60]
    code = [block for block in blocks if block.language not in PROSE_LANGUAGES]
    chosen = code or [block for block in blocks if not _LOG_LINE.search(block.text)]
    return max(chosen, key=lambda block: len(block.text), default=None)


def texts_of(item: Item) -> Iterator[tuple[str, str, str]]:
    """Each text of people with who wrote it and where. What programs wrote is left out."""
    yield _COMMENT.sub("", item.body), item.by, item.url
    for said in item.comments:
        if not said.is_program:
            yield _COMMENT.sub("", said.text), said.by, said.url or item.url


def fixed_by(graph: Graph, ref: str) -> list[Edge]:
    """What fixed, replaced or doubled the item, from the edges that lead to it."""
    told = ("fixes", "supersedes", "duplicates")
    return [edge for edge in graph.edges if edge.target.lower() == ref.lower() and edge.relation in told]


def open_ends(graph: Graph) -> list[str]:
    """What somebody who reads this has still to find out, most telling first."""
    ends: list[str] = []
    for key in graph.items:
        item = graph.items[key]
        fixes = fixed_by(graph, item.ref)
        merged = [edge for edge in fixes if _state(graph, edge.source) == "merged"]
        if item.state == "open" and merged:
            ends.append(f"{item.ref} is open although {merged[0].source}, which {merged[0].relation} it, is merged.")
        elif item.state == "closed" and item.kind == "pull":
            ends.append(f"{item.ref} was closed without being merged.")
        elif item.state == "closed" and not fixes:
            ends.append(f"{item.ref} is closed, and nothing that was read says by what.")
        elif item.state == "open":
            ends.append(f"{item.ref} is open.")
        people = [said for said in item.comments if not said.is_program]
        if item.state == "open" and people and "?" in people[-1].text[-300:]:
            ends.append(f"{item.ref}: the last comment, of @{people[-1].by}, asks something.")
    ends += [f"{one.ref} could not be read: {one.why}." for one in graph.failed]
    if graph.left:
        ends.append(f"{len(graph.left)} more are named and were not read.")
    return ends


def _state(graph: Graph, ref: str) -> str:
    item = graph.items.get(ref.lower())
    return item.state if item is not None else ""
