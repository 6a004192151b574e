"""What model calls use: tokens, money, and how calls are summed up. Pure.

Money is whole micro-dollars (a millionth of a US dollar), each call rounded up, so that a sum is never below what was
spent. A call without a known price costs None: it is counted beside the money, never as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from holdfast.text import on_one_line

MILLION = 1_000_000
OUTPUT_TOKENS_GUESSED = 1_000
"""What an answer is taken to need before it is there, unless the request allows less."""

CallState = Literal["begun", "cut", "failed", "done"]
"""Under way; ended without an answer of its own (its process died, or somebody stopped it); refused or broken off by
its provider; answered. A call moves to the right only, so whoever writes it twice changes nothing.
"""
STATES: tuple[CallState, ...] = ("begun", "cut", "failed", "done")
Purpose = Literal["answer", "summary"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """As transcripts have them: `input` is what was read neither from a cache nor into one; `reasoning` is a part of
    `output`.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input, self.output + other.output, self.cache_read + other.cache_read,
            self.cache_write + other.cache_write, self.reasoning + other.reasoning,
        )  # fmt: skip

    @property
    def read(self) -> int:
        """Everything that the model was shown."""
        return self.input + self.cache_read + self.cache_write


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-dollars for a million tokens: `$3` for a million is 3,000,000 here."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    def of(self, tokens: Tokens) -> int:
        """In micro-dollars, rounded up."""
        spent = (
            tokens.input * self.input + tokens.output * self.output + tokens.cache_read * self.cache_read
            + tokens.cache_write * self.cache_write
        )  # fmt: skip
        return -(-spent // MILLION)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model, whatever became of it.

    Args:
        id: the turn's and its number in it: the same call written down again is the same row.
        model: the reference that was asked. key: the name of the key, where there are several.
        step: which step of the turn it belongs to; 0: none (a summary between two turns).
        tokens, cost: as its provider has counted them; with `is_estimate` as we guess. cost None: no price is known.
    """

    id: str
    turn: str
    session: str
    agent: str
    lane: str
    input_id: str | None
    model: str
    key: str
    step: int
    purpose: Purpose
    state: CallState
    began_at_ms: int
    ended_at_ms: int | None = None
    reason: str = ""
    tokens: Tokens = Tokens()
    cost: int | None = None
    is_estimate: bool = False


def call_id(turn: str, number: int) -> str:
    return f"{turn}:{number:04}"


def of_answer(usage: dict[str, Any]) -> Tokens | None:
    """The tokens of an answer's v3 usage object; None: its provider has counted nothing."""
    tokens = Tokens(
        _count(usage.get("input")), _count(usage.get("output")), _count(usage.get("cacheRead")),
        _count(usage.get("cacheWrite")), _count(usage.get("reasoning")),
    )  # fmt: skip
    return tokens if tokens.read or tokens.output else None


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 1e12 else 0


# ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Used:
    """A sum over calls.

    Args:
        failed: how many of the calls gave no answer. summaries: how many were for the conversation's upkeep.
        guessed: how many are in here as we guess, since their provider has said nothing.
        cost: micro-dollars of those whose price is known. unpriced: how many have none.
    """

    calls: int = 0
    failed: int = 0
    summaries: int = 0
    guessed: int = 0
    tokens: Tokens = Tokens()
    cost: int = 0
    unpriced: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.calls + other.calls, self.failed + other.failed, self.summaries + other.summaries,
            self.guessed + other.guessed, self.tokens + other.tokens, self.cost + other.cost,
            self.unpriced + other.unpriced,
        )  # fmt: skip


def used_by(call: ModelCall) -> Used:
    """One call as a sum."""
    return Used(
        1, int(call.state in ("failed", "cut")), int(call.purpose == "summary"), int(call.is_estimate), call.tokens,
        call.cost or 0, int(call.cost is None),
    )  # fmt: skip


def total(parts: Iterable[Used]) -> Used:
    found = Used()
    for part in parts:
        found += part
    return found


def ended(
    call: ModelCall, state: CallState, at_ms: int, *, tokens: Tokens, cost: int | None, reason: str = "",
    is_estimate: bool = False,
) -> ModelCall:  # fmt: skip
    """The call once it is over."""
    return replace(
        call, state=state, ended_at_ms=at_ms, tokens=tokens, cost=cost, reason=reason, is_estimate=is_estimate
    )


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def money(micros: int) -> str:
    """`$12.34`, in whole cents, rounded up; below a dollar with as many places as it takes."""
    if micros < MILLION:
        return "$0." + f"{micros:06}".rstrip("0").ljust(2, "0")
    cents = -(-micros // 10_000)
    return f"${cents // 100:,}.{cents % 100:02}"


def tokens_in_words(tokens: Tokens) -> str:
    """`1,200 in (1,000 from the cache), 50 out`."""
    cached = [f"{tokens.cache_read:,} from the cache"] if tokens.cache_read else []
    cached += [f"{tokens.cache_write:,} into the cache"] if tokens.cache_write else []
    thought = f" ({tokens.reasoning:,} of them thinking)" if tokens.reasoning else ""
    inside = f" ({', '.join(cached)})" if cached else ""
    return f"{tokens.read:,} in{inside}, {tokens.output:,} out{thought}"


def cost_in_words(used: Used) -> str:
    """Money, and aloud what is not in it."""
    if used.unpriced and used.unpriced == used.calls:
        return "unknown price"
    unknown = f" and {used.unpriced} calls of unknown price" if used.unpriced else ""
    return money(used.cost) + unknown


def in_words(used: Used) -> str:
    """A sum for people."""
    calls = f"{used.calls:,} call{'' if used.calls == 1 else 's'}"
    marks = [f"{used.failed:,} without an answer"] if used.failed else []
    marks += [f"{used.summaries:,} for summaries"] if used.summaries else []
    marks += [f"{used.guessed:,} guessed"] if used.guessed else []
    marked = f" ({', '.join(marks)})" if marks else ""
    return f"{calls}{marked}, {tokens_in_words(used.tokens)}, {cost_in_words(used)}"


def call_in_words(call: ModelCall) -> str:
    """One call for people, as the story of a turn has it."""
    what = "a summary by " if call.purpose == "summary" else ""
    who = f"{what}{call.model}" + (f" (key {call.key})" if call.key else "")
    about = "about " if call.is_estimate else ""
    how = {"begun": "is under way", "cut": "was cut off", "failed": f"gave no answer ({call.reason or 'failed'})"}
    said = f" {how[call.state]}" if call.state in how else ""
    cost = "unknown price" if call.cost is None else money(call.cost)
    return on_one_line(f"used: {who}{said}: {about}{tokens_in_words(call.tokens)}, {about}{cost}")
