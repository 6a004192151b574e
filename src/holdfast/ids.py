"""Identities. Random ones for what happens, derived ones for what must come out the same when it is done again.

A line's id is 128 bits as 32 hex digits: eight digits collide at about 10^5 lines (kernel notes).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Chance:
    """Where random identities come from: the system. The simulation draws them from its seed (see `drawn_from`)."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def now_ms(self) -> int:
        """Milliseconds since 1970, for ids that sort."""
        return int(time.time() * 1000)


_chance: ContextVar[Chance] = ContextVar("holdfast_chance", default=Chance())  # noqa: B039  # it has no state


@contextmanager
def drawn_from(chance: Chance) -> Iterator[None]:
    """Within it, and in tasks made there, identities come from `chance`."""
    token = _chance.set(chance)
    try:
        yield
    finally:
        _chance.reset(token)


def new_id(prefix: str) -> str:
    """`in_019ab…`: a sortable id, 48 bits of milliseconds and 80 random bits, 32 hex digits after the prefix."""
    chance = _chance.get()
    return f"{prefix}_{chance.now_ms():012x}{chance.bytes(10).hex()}"


def nonce() -> str:
    """128 random bits as 32 hex digits: the second half of an epoch."""
    return _chance.get().bytes(16).hex()


def derived_id(*parts: str | int) -> str:
    """128 bits that follow from `parts` alone, as 32 hex digits."""
    raws = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"".join([len(raw).to_bytes(8, "big") + raw for raw in raws])).hexdigest()[:32]


def input_line_id(input_id: str) -> str:
    """The id of the line that holds an input's own message: from the input alone, so it is never written twice."""
    return derived_id("input", input_id)


def entry_id(turn_id: str, epoch: str, sequence: int) -> str:
    """The id of any other line: from turn (or input), epoch and sequence number."""
    return derived_id("entry", turn_id, epoch, sequence)
