"""References to issues and pull requests in what people write, and how the items relate: a pure reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Relation = Literal["fixes", "duplicates", "supersedes", "blocked_by", "part_of", "mentions"]
RELATIONS: tuple[Relation, ...] = ("fixes", "duplicates", "supersedes", "blocked_by", "part_of", "mentions")
"""The stronger first: two texts that say different things of the same pair are told as the stronger one."""
TEXT_MAX = 100_000
"""Characters of one text that are looked at; GitHub takes 65,536."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9-]{0,38}"
_REPO = r"[A-Za-z0-9._-]{1,100}"
_URL = re.compile(
    rf"https?://(?P<host>[A-Za-z0-9.-]+(?::\d+)?)/(?P<owner>{_NAME})/(?P<repo>{_REPO})/(?:issues|pull|pulls)/"
    rf"(?P<number>\d{{1,9}})(?![\d\w])"
)
_MENTION = re.compile(
    rf"{_URL.pattern}"
    rf"|(?<![\w/#&.-])(?P<owner2>{_NAME})/(?P<repo2>{_REPO})#(?P<number2>\d{{1,9}})\b"
    rf"|(?<![\w/#&;.-])(?:#|GH-)(?P<number3>\d{{1,9}})\b"
)
_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|<!--.*?(?:-->|\Z)", re.DOTALL)
_WORDS: dict[Relation, str] = {
    "fixes": r"fix(?:e[sd])?|close[sd]?|resolve[sd]?",
    "duplicates": r"duplicate of|dupe of|same as",
    "supersedes": r"supersede[sd]?|replace[sd]?|instead of|in favou?r of",
    "blocked_by": r"blocked by|depends on|requires|needs",
    "part_of": r"part of|tracked (?:in|by)|follow[- ]?up (?:to|of)",
}
_BEFORE: dict[Relation, re.Pattern[str]] = {
    relation: re.compile(rf"\b(?:{words})[\s:*_]*(?:(?:issue|pr|pull request)\s+)?\Z", re.IGNORECASE)
    for relation, words in _WORDS.items()
}
"""What stands right before a reference."""
_BY = re.compile(
    r"\b(?:superseded|replaced|fixed|closed|resolved)\s+by[\s:*_]*\Z|\bin favou?r of[\s:*_]*\Z", re.IGNORECASE
)
"""Said the other way round: what is named does it to what speaks."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """An issue or a pull request. Names are kept as written and compared without case, as GitHub does."""

    owner: str
    repo: str
    number: int

    @property
    def text(self) -> str:
        return f"{self.owner}/{self.repo}#{self.number}"

    @property
    def key(self) -> str:
        """The same for all spellings."""
        return self.text.lower()

    @classmethod
    def of(cls, text: str) -> Ref:
        """Of `owner/repo#12`. Raises: ValueError: it is none."""
        found = re.fullmatch(rf"({_NAME})/({_REPO})#(\d{{1,9}})", text)
        if found is None:
            raise ValueError(f"{text!r} is no owner/repo#number")
        return cls(found[1], found[2], int(found[3]))


@dataclass(frozen=True, slots=True)
class Mention:
    """`ref` is named; what speaks does `relation` to it, or, with `by_it`, has it done by it."""

    ref: Ref
    relation: Relation
    by_it: bool = False


def parse_start(text: str, hosts: tuple[str, ...] = ("github.com", "www.github.com")) -> Ref:
    """The item that somebody wants to know of: an address in a browser, or `owner/repo#12`.

    Raises:
        ValueError: it is neither, or of another host; the text says what is wanted.
    """
    wanted = "paste an address such as https://github.com/owner/repo/issues/12, or owner/repo#12"
    said = text.strip()
    found = _URL.match(said)
    if found is None:
        try:
            return Ref.of(said)
        except ValueError:
            raise ValueError(f"{said[:200]!r} is no issue or pull request: {wanted}") from None
    if found["host"].lower() not in hosts:
        raise ValueError(f"{found['host']!r} is not {hosts[0]}: {wanted}")
    return Ref(found["owner"], found["repo"], int(found["number"]))


def mentions(text: str, here: Ref, hosts: tuple[str, ...] = ("github.com", "www.github.com")) -> Iterator[Mention]:
    """What a text of the item `here` names, in order, each with how it relates; code and comments name nothing."""
    plain = _CODE.sub(lambda found: " " * len(found[0]), text[:TEXT_MAX])
    for found in _MENTION.finditer(plain):
        if found["number"] is not None:
            if found["host"].lower() not in hosts:
                continue
            ref = Ref(found["owner"], found["repo"], int(found["number"]))
        elif found["number2"] is not None:
            ref = Ref(found["owner2"], found["repo2"], int(found["number2"]))
        else:
            ref = Ref(here.owner, here.repo, int(found["number3"]))
        if ref.number == 0 or ref.key == here.key:
            continue
        yield _told(ref, plain[max(0, found.start() - 60) : found.start()])


def _told(ref: Ref, before: str) -> Mention:
    by_it = bool(_BY.search(before))
    said = _BY.sub(lambda found: re.sub(r"\s+by[\s:*_]*\Z", " ", found[0], flags=re.IGNORECASE), before)
    for relation, words in _BEFORE.items():
        if words.search(said):
            return Mention(ref, relation, by_it)
    return Mention(ref, "mentions")
