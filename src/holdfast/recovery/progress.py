"""What a turn was last heard of: counted and named, so that others can tell work that takes long from work that stands
still. Plain values.

The turn's process keeps it in memory and hands it over with each beat (`store/embedded/record_file.py`), as durations
on its own monotonic clock: wall clocks jump, and other processes have another one. A turn shorter than a beat writes
nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Doing = Literal["beginning", "model", "tool", "retry", "question", "compaction", "wait", "settling"]
"""What a turn does: it begins; asks a model; runs a tool; waits to ask again after a failure; waits for a person; makes
a summary; waits for another turn of ours (a child, a transcript); has its final line and settles.
"""
WAITS: tuple[Doing, ...] = ("retry", "question", "compaction", "wait")
"""Silence is what these are made of: they are never taken for standing still while their own limit has not passed."""
NAME_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Report:
    """Progress as its own process measured it at one moment; durations in milliseconds.

    Args:
        count: pieces of progress so far; the same number twice means that nothing was heard in between.
        running_ms: since the turn began. still_ms: since the last piece. doing_ms: since it began to do what it does.
        name: of the model or tool, or what is waited for.
        limit_ms: how long what it does may be silent or last by itself; None: not known.
    """

    count: int
    running_ms: int
    still_ms: int
    doing: Doing
    name: str
    doing_ms: int
    limit_ms: int | None = None

    def later(self, ms: int) -> Report:
        """The same if nothing has been heard for `ms` more."""
        return replace(self, running_ms=self.running_ms + ms, still_ms=self.still_ms + ms, doing_ms=self.doing_ms + ms)

    @property
    def in_words(self) -> str:
        """ "tool exec for 300 s, nothing heard for 280 s"."""
        heard = "" if self.still_ms < 1000 else f", nothing heard for {self.still_ms // 1000} s"
        return f"{words_of(self.doing, self.name)} for {self.doing_ms // 1000} s{heard}"


def words_of(doing: Doing, name: str) -> str:
    """ "model openai/gpt-5", "waits for a child"."""
    kind = {"wait": "waits for", "retry": "waits to ask again", "question": "waits for a person", "tool": "tool",
            "model": "model"}.get(doing, doing)  # fmt: skip
    return f"{kind} {name}".strip()


@dataclass(frozen=True, slots=True)
class Progress:
    """The same in the turn's own process. Replaced as a whole, so that the thread that beats reads one moment.

    Args:
        began_mono, heard_mono, since_mono: when the turn began, was last heard of, began to do what it does.
        limit_s: how long what it does may be silent or last by itself; None: not known.
    """

    began_mono: float
    heard_mono: float
    since_mono: float
    count: int = 0
    doing: Doing = "beginning"
    name: str = ""
    limit_s: float | None = None

    @classmethod
    def at(cls, mono: float) -> Progress:
        return cls(mono, mono, mono)

    def heard(self, mono: float, pieces: int = 1) -> Progress:
        """So many pieces more of what it does: chunks, lines of output."""
        count = self.count + pieces
        return Progress(self.began_mono, mono, self.since_mono, count, self.doing, self.name, self.limit_s)

    def begins(self, doing: Doing, name: str, mono: float, limit_s: float | None = None) -> Progress:
        """From now on it does something else."""
        return Progress(self.began_mono, mono, mono, self.count + 1, doing, name[:NAME_CHARS_MAX], limit_s)

    def report(self, mono: float) -> Report:
        limit_ms = None if self.limit_s is None else _ms(self.limit_s)
        return Report(self.count, _ms(mono - self.began_mono), _ms(mono - self.heard_mono), self.doing, self.name,
                      _ms(mono - self.since_mono), limit_ms)  # fmt: skip


def _ms(seconds: float) -> int:
    return max(0, int(seconds * 1000))
