"""Comparing what was seen with what a fact asks for: numbers, and words by the table."""

from __future__ import annotations

from typing import Any

from holdfast.testing.incidents.scenario import ScenarioError

Args = dict[str, Any]


def counted(seen: int, args: Args, what: str) -> str | None:
    """Compare a number with `count`, `min`, `max`."""
    if not {"count", "min", "max"} & set(args):
        raise ScenarioError(f"{what}: how many? give count, min or max")
    wanted = args.get("count")
    fits = (wanted is None or seen == wanted) and args.get("min", seen) <= seen <= args.get("max", seen)
    return None if fits else f"{what}: {seen}"


def one_of(seen: Any, args: Args, table: dict[str, tuple[str, ...]], what: str) -> str | None:
    """Compare a word of the product with the words of `is`, `one_of` or `not`, by the table."""
    named = args.get("one_of") or args.get("is") or args.get("not")
    if named is None:
        raise ScenarioError(f"{what}: compared with what? give is, one_of or not")
    wanted: set[str] = set()
    for word in named.split(","):
        if word not in table:
            raise ScenarioError(f"{what}: unknown word {word!r}; there are: {', '.join(table)}")
        wanted |= set(table[word])
    fits = (seen in wanted) != ("not" in args)
    return None if fits else f"{what}: {seen}"
