"""The tree that the lines of a transcript form, and the branch that a conversation is on.

Rules, with what an outsider could have written in mind:

- Parents: `parentId` null is a root. An absent one means the leaf at that point of the file: so files of version 1
  are chained, and so OpenClaw's gateway writes into transcripts above 8 MiB.
- Of several lines with one id the first counts: a later line cannot replace what was already answered upon.
- A parent that is missing, or a ring of parents, ends the walk there; the branch says so in `problems`.
- Unknown and malformed lines whose ids could be read keep their place in the tree; the context leaves them out.
- The last line is the leaf whatever its type, but a mirror hung elsewhere does not move it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast.ids import derived_id
from holdfast.session.entries import ID_BYTES_MAX
from holdfast.session.lines import Line, is_mirror


@dataclass(frozen=True, slots=True)
class Branch:
    """Lines from the root to the leaf, and what was wrong on the way."""

    lines: tuple[Line, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """Lines by id, made by `Tree.of`. It may start anywhere in a file; the missing part is then a problem of `walk`."""

    nodes: dict[str, Line] = field(default_factory=dict)
    leaf: str | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Tree:
        """The tree of lines in file order. Header, blank lines and lines without an id are no part of it."""
        nodes: dict[str, Line] = {}
        problems: list[str] = []
        leaf: str | None = None
        for line in lines:
            id = line.id
            if id is None or line.kind in ("header", "blank"):
                if line.kind == "malformed":
                    problems.append(f"a line could not be read: {line.reason}")
                continue
            if id in nodes:
                problems.append(f"id {id} is used twice; the first line counts")
                continue
            if not line.has_parent:
                line = msgspec.structs.replace(line, parent=leaf, has_parent=True)
            nodes[id] = line
            leaf = leaf_after(leaf, line)
        return cls(nodes, leaf, tuple(problems))

    def walk(self, leaf: str | None) -> Branch:
        """From the root to `leaf`; empty for None. Each line is visited once at most."""
        path: list[Line] = []
        seen: set[str] = set()
        problem: str | None = None
        at = leaf
        while at is not None:
            if at in seen:
                problem = f"the parents of {leaf} form a ring at {at}"
                break
            line = self.nodes.get(at)
            if line is None:
                problem = f"parent {at} is missing" if path else f"leaf {at} is missing"
                break
            seen.add(at)
            path.append(line)
            at = line.parent
        path.reverse()
        return Branch(tuple(path), self.problems if problem is None else (*self.problems, problem))


def leaf_after(leaf: str | None, line: Line) -> str | None:
    """The leaf once `line` stands at the end of the file. An id that is too long to be one is nobody's parent."""
    if line.id is None or line.kind in ("header", "blank") or len(line.id) > ID_BYTES_MAX:
        return leaf
    aside = is_mirror(line) and line.has_parent and line.parent != leaf and leaf is not None
    return leaf if aside else line.id


def active_branch(lines: Sequence[Line], leaf: str | None = None) -> Branch:
    """The branch that ends at `leaf`, or at the file's own leaf when None. Older formats are lifted first."""
    tree = Tree.of(lift(lines))
    return tree.walk(tree.leaf if leaf is None else leaf)


def lift(lines: Sequence[Line]) -> Sequence[Line]:
    """Give entries of a version 1 file the ids they lack. In memory only: no byte of the file changes.

    Ids follow from position and content, so they come out the same at every reading; a compaction's
    `firstKeptEntryIndex`, a position among the parsed lines with the header as 0, becomes the id found there. Version 2
    needs nothing: its role `hookMessage` is read as `custom` when a context is planned.
    """
    header = next((line for line in lines if line.kind == "header"), None)
    if header is None or header.version != 1:
        return lines
    parsed = [line for line in lines if line.type is not None or line.id is not None]
    parsed = [id_in_version_1(line, position) for position, line in enumerate(parsed)]
    return [_with_first_kept(line, parsed) for line in parsed]


def id_in_version_1(line: Line, position: int) -> Line:
    """The line with the id that follows from its place among the parsed lines, if it has none of its own."""
    if line.kind != "entry" or line.id is not None:
        return line
    return msgspec.structs.replace(line, id=derived_id("v1", position, line.raw.hex()))


def _with_first_kept(line: Line, parsed: Sequence[Line]) -> Line:
    position = line.first_kept_index
    if line.first_kept is not None or position is None or not 0 <= position < len(parsed):
        return line
    kept = parsed[position]
    return line if kept.kind == "header" else msgspec.structs.replace(line, first_kept=kept.id)


def reaches_back(lines: list[Line]) -> bool:
    """Whether the branch that ends here goes back to its root, or to the first line that a compaction has kept."""
    if not any(line.type == "compaction" or (line.has_parent and line.parent is None) for line in lines):
        return False
    branch = active_branch(lines).lines
    if not branch:
        return False
    first = next(line for line in lines if line.id == branch[0].id)
    if first.has_parent and first.parent is None:
        return True
    at = next((at for at in reversed(range(len(branch))) if branch[at].type == "compaction"), None)
    if at is None or branch[at].kind != "entry":
        return False
    kept = branch[at].first_kept
    return kept == branch[at].id or any(line.id == kept for line in branch[:at])
