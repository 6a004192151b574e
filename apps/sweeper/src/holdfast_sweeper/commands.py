"""What somebody asks for in a comment: `/sweep re-review`, or the account's name and the same. A pure reading.

A command begins a line. What stands in code, in a quotation, or in a comment of HTML asks for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Word = Literal[
    "review", "re-review", "re-run", "explain", "stop", "proof", "hatch",
    "autofix", "automerge", "fix ci", "address review", "approve", "deny", "unknown",
]  # fmt: skip

READING: frozenset[Word] = frozenset({"review", "re-review", "re-run", "explain", "stop", "proof", "hatch"})
"""They look, and write into the one comment."""
CHANGING: frozenset[Word] = frozenset({"autofix", "automerge", "fix ci", "address review"})
"""They make a branch, or merge; each waits for a person's consent."""
ANSWERING: frozenset[Word] = frozenset({"approve", "deny"})
SAYS: dict[Word, str] = {
    "review": "review this, unless this very state was reviewed",
    "re-review": "review it anew",
    "re-run": "the same, also what was answered before",
    "explain": "say more about a finding: `explain 2`, or about the verdict",
    "stop": "end what is running here",
    "proof": "judge the proof of a real run, for the commit that is newest now",
    "hatch": "show the creature of this item",
    "autofix": "mend the findings on a branch of its own",
    "automerge": "merge, if checks, verdict and policy allow it",
    "fix ci": "mend failing checks on a branch of its own",
    "address review": "answer reviewers' comments by changes on a branch of its own",
    "approve": "consent to what is asked for: `approve ap_…`",
    "deny": "refuse it: `deny ap_…`",
    "unknown": "",
}
BODY_MAX = 65_536

_SPELLINGS: dict[str, Word] = {
    "review": "review", "rereview": "re-review", "rerun": "re-run", "explain": "explain", "why": "explain",
    "stop": "stop", "cancel": "stop", "proof": "proof", "hatch": "hatch", "autofix": "autofix", "fix": "autofix",
    "automerge": "automerge", "merge": "automerge", "fixci": "fix ci", "addressreview": "address review",
    "addressreviews": "address review", "approve": "approve", "deny": "deny",
}  # fmt: skip
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """word: "unknown": it was meant for us, and is none of ours. rest: what follows it, on the same line."""

    word: Word
    rest: str = ""


def find_command(text: str, login: str) -> Command | None:
    """The first command of a comment; None: nobody speaks to us.

    Args:
        login: of our account; empty: only `/sweep` is heard.
    """
    fence = ""
    for line in _COMMENT.sub("", text[:BODY_MAX].replace("\r\n", "\n").replace("\r", "\n")).split("\n"):
        found = _FENCE.match(line)
        if found and (not fence or (found[1][0] == fence[0] and len(found[1]) >= len(fence))):
            fence = "" if fence else found[1]
            continue
        if fence or line.startswith(("    ", "\t", ">", " >", "  >", "   >")):
            continue
        said = _said_to_us(line.strip(), login)
        if said is not None:
            return _read(said)
    return None


def _said_to_us(line: str, login: str) -> str | None:
    name, _, rest = line.partition(" ")
    called = name.lower().rstrip(":,")
    return rest.strip() if called in ("/sweep", f"@{login.lower()}" if login else "/sweep") else None


def _read(said: str) -> Command:
    words = said.split()
    for count in (2, 1):
        spelling = re.sub(r"[-_ ]", "", "".join(words[:count]).lower()).rstrip(".!")
        if len(words) >= count and spelling in _SPELLINGS:
            return Command(_SPELLINGS[spelling], " ".join(words[count:])[:300])
    return Command("unknown", " ".join(words)[:80])
