"""A creature for each item, for fun: made of the repository's name and the number alone, so that it never changes.

It knows nothing of any review, and no review knows of it. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeVar

from holdfast_sweeper.facts import Item

T = TypeVar("T")
Rarity = Literal["common", "uncommon", "rare", "epic", "legendary"]
CHANCES: tuple[tuple[Rarity, int], ...] = (
    ("legendary", 10), ("epic", 50), ("rare", 150), ("uncommon", 300), ("common", 490),
)  # fmt: skip
"""Of a thousand."""
KINDS = ("crab", "lobster", "hermit", "shrimp", "shellfish", "krab", "isopod", "barnacle")
MOODS = ("sleepy", "curious", "stern", "cheerful", "shy", "proud", "puzzled", "patient")
SHELLS = ("plain", "striped", "dotted", "mossy", "glassy", "spiral")
HATS = ("none", "none", "none", "cap", "crown", "shell", "kelp", "lantern")
COLOURS: dict[Rarity, tuple[tuple[str, str], ...]] = {
    "common": (("#c96f4a", "sand"), ("#8c9a5b", "olive"), ("#a9836b", "clay")),
    "uncommon": (("#d9534f", "coral"), ("#4f9da6", "teal"), ("#b5893c", "amber")),
    "rare": (("#3b6fb6", "deep blue"), ("#7a56a3", "violet")),
    "epic": (("#b0306a", "magenta"), ("#1f7a5a", "emerald")),
    "legendary": (("#d4a017", "gold"), ("#5a6b7b", "mithril")),
}
GRACES = ("claw", "shell", "wit", "patience", "luck")


@dataclass(frozen=True, slots=True)
class Creature:
    """graces: each 1 to 20, more likely high the rarer it is."""

    name: str
    kind: str
    rarity: Rarity
    mood: str
    shell: str
    hat: str
    colour: str
    colour_name: str
    graces: tuple[tuple[str, int], ...]

    @property
    def told(self) -> str:
        hat = "" if self.hat == "none" else f", wearing a {self.hat}"
        return (
            f"{self.name}, a {self.mood} {self.colour_name} {self.kind} with a {self.shell} shell{hat} ({self.rarity})"
        )


def is_eligible(kind: str, state: str, *, is_draft: bool) -> bool:
    """Whether an item hatches: a pull request that is no draft any more, or an issue that was closed."""
    return (kind == "pull" and not is_draft) or (kind == "issue" and state == "closed")


def hatch(item: Item) -> Creature:
    """The creature of an item."""
    dice = _Dice(f"{item.repo.lower()}#{item.number}")
    rolled, rarity = dice.below(1000), CHANCES[-1][0]
    for name, chance in CHANCES:
        if rolled < chance:
            rarity = name
            break
        rolled -= chance
    tier = [name for name, _ in reversed(CHANCES)].index(rarity)
    colour, colour_name = dice.of(COLOURS[rarity])
    graces = tuple((name, min(20, 1 + dice.below(12) + 2 * tier)) for name in GRACES)
    first, second = (
        dice.of(("Bri", "Kel", "Mar", "Nau", "Pel", "Sal", "Tid", "Wra")),
        dice.of(("by", "go", "la", "mo", "na", "rix", "tus", "zo")),
    )
    return Creature(
        f"{first}{second}", dice.of(KINDS), rarity, dice.of(MOODS), dice.of(SHELLS), dice.of(HATS), colour, colour_name,
        graces,
    )  # fmt: skip


def svg_of(item: Item) -> str:
    """Its picture: our own shapes and words only, 320 by 220."""
    one, dice = hatch(item), _Dice(f"drawn {item.repo.lower()}#{item.number}")
    parts = [_water(dice), _legs(one), _claws(one), _body(one, dice), _eyes(one), _hat(one), _words(one)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 220" width="320" height="220" role="img">'
        f"<title>{one.told}</title>{''.join(parts)}</svg>\n"
    )


class _Dice:
    """Numbers that follow from a text, the same on every machine and for ever."""

    def __init__(self, seed: str) -> None:
        self._seed, self._rolls = seed, 0

    def below(self, most: int) -> int:
        self._rolls += 1
        rolled = hashlib.sha256(f"holdfast-sweeper hatch 1\0{self._seed}\0{self._rolls}".encode()).digest()
        return int.from_bytes(rolled[:8]) % most

    def of(self, choices: tuple[T, ...]) -> T:
        return choices[self.below(len(choices))]


def _water(dice: _Dice) -> str:
    bubbles = "".join(
        f'<circle cx="{20 + dice.below(280)}" cy="{15 + dice.below(130)}" r="{2 + dice.below(5)}"/>'
        for _ in range(9)
    )  # fmt: skip
    sand = "M0 165q40-9 80 0t80 0 80 0 80 0v41a14 14 0 0 1-14 14H14a14 14 0 0 1-14-14z"
    return (
        f'<rect width="320" height="220" rx="14" fill="#eaf4f7"/><path d="{sand}" fill="#e9dcc0"/>'
        f'<g fill="none" stroke="#9cc7d8">{bubbles}</g>'
    )


def _legs(one: Creature) -> str:
    lines = "".join(
        f'<path d="M{160 + side * 40} {118 + 8 * row}q{side * 26} {2 + 4 * row} {side * 34} {26 - 2 * row}"/>'
        for side in (-1, 1)
        for row in range(3)
    )
    return f'<g fill="none" stroke="{one.colour}" stroke-width="6" stroke-linecap="round">{lines}</g>'


def _claws(one: Creature) -> str:
    size = 13 + one.graces[0][1] // 2
    return "".join(
        f'<g transform="translate({160 + side * 84} 84)"><path d="M{-side * 34} 26Q{-side * 8} 24 0 0" fill="none" '
        f'stroke="{one.colour}" stroke-width="9"/><circle r="{size}" fill="{one.colour}"/>'
        f'<path d="M0 0L{-6} {-size - 3}L{7} {-size - 3}z" fill="#eaf4f7"/></g>'
        for side in (-1, 1)
    )


def _body(one: Creature, dice: _Dice) -> str:
    width = 48 + one.graces[1][1]
    spots = [(dice.below(64), dice.below(36)) for _ in range(9)]
    spiral = "M160 112m-4 0a4 4 0 1 1 8 2a10 10 0 1 1-17-4a17 17 0 1 1 29 9"
    marks = {
        "striped": "".join(f'<path d="M{130 + 15 * at} 92v44" stroke="#fff6" stroke-width="5"/>' for at in range(5)),
        "dotted": "".join(f'<circle cx="{128 + x}" cy="{96 + y}" r="4" fill="#fff7"/>' for x, y in spots),
        "mossy": "".join(f'<circle cx="{128 + x}" cy="{86 + y // 4}" r="6" fill="#6f9a4a"/>' for x, y in spots),
        "glassy": '<ellipse cx="142" cy="100" rx="18" ry="8" fill="#fff8"/>',
        "spiral": f'<path d="{spiral}" fill="none" stroke="#fff8" stroke-width="4"/>',
    }  # fmt: skip
    return f'<ellipse cx="160" cy="114" rx="{width}" ry="35" fill="{one.colour}"/>{marks.get(one.shell, "")}'


def _eyes(one: Creature) -> str:
    lid = 3 if one.mood in ("sleepy", "stern") else 6
    smile = {"cheerful": "q14 12 28 0", "stern": "h28", "shy": "q14 5 28 0", "puzzled": "q7-6 14 0t14 0"}.get(
        one.mood, "q14 7 28 0"
    )
    eyes = "".join(
        f'<path d="M{x} 86V70" stroke="{one.colour}" stroke-width="5"/><ellipse cx="{x}" cy="66" rx="8" ry="{lid + 2}" '
        f'fill="#fff"/><ellipse cx="{x}" cy="66" rx="4" ry="{lid}" fill="#22303a"/>'
        for x in (144, 176)
    )
    return f'{eyes}<path d="M146 124{smile}" fill="none" stroke="#22303a" stroke-width="3" stroke-linecap="round"/>'


def _hat(one: Creature) -> str:
    return {
        "cap": '<path d="M136 56q24-26 48 0h12v6h-60z" fill="#3b6fb6"/>',
        "crown": '<path d="M140 56l-3-22 12 10 11-14 11 14 12-10-3 22z" fill="#d4a017"/>',
        "shell": '<path d="M142 56a18 18 0 0 1 36 0zM160 38v18M151 41l5 15M169 41l-5 15" fill="#fcb" stroke="#b98"/>',
        "kelp": '<path d="M160 56q-12-14 0-26t0-24M160 44q10-8 16-2" fill="none" stroke="#4c7a3d" stroke-width="5"/>',
        "lantern": '<path d="M160 58q2-30 26-30" fill="none" stroke="#5a6b7b" stroke-width="3"/>'
        '<circle cx="190" cy="32" r="8" fill="#f7d774"/>',
    }.get(one.hat, "")  # fmt: skip


def _words(one: Creature) -> str:
    graces = " · ".join(f"{name} {number}" for name, number in one.graces)
    font = 'font-family="system-ui, sans-serif" text-anchor="middle" fill="#22303a"'
    return (
        f'<text x="160" y="186" font-size="15" font-weight="600" {font}>{one.name} · {one.rarity} {one.kind}</text>'
        f'<text x="160" y="205" font-size="11" {font}>{graces}</text>'
    )
