"""Which key of a provider a session goes on with: the one whose cache holds its beginning. Every process finds the
same, since it is read off the ledger of model calls.

A provider keeps what it has read for the account behind a key. So where a provider has several keys, a session asks
with the one that answered it last, for as long as the provider keeps that (`CacheSettings.warm_s`); a cool-down or a
failure moves it on, and then it stays with the key that it came to. Once nothing is kept any more, and for a session
that is new, the order is that of `in_order_for`, which spreads sessions over the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from holdfast.model.catalog import provider_of
from holdfast.model.credentials import Credential
from holdfast.model.usage import ModelCall

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

TURNS_LOOKED_AT = 4
"""The turn that asks is one of them, one that was cancelled or summarised may be another."""


async def warm_keys(hf: Holdfast, turn: Turn, warm_s: Callable[[str], float], now_ms: int) -> dict[str, str]:
    """The names of the keys that a turn's session goes on with, by provider."""
    calls: list[ModelCall] = []
    for one in await hf.store.turns(session=turn.session, limit=TURNS_LOOKED_AT):
        if one.id != turn.id:
            calls += reversed(await hf.store.calls_of(one.id))
    return choose_keys(calls, warm_s, now_ms)


def choose_keys(calls: Iterable[ModelCall], warm_s: Callable[[str], float], now_ms: int) -> dict[str, str]:
    """The same of these calls, the newest first. A provider whose newest answer is too old for its cache has none."""
    newest: dict[str, ModelCall] = {}
    for call in calls:
        if call.state == "done" and call.purpose == "answer" and call.key:
            newest.setdefault(provider_of(call.model), call)
    return {
        provider: call.key
        for provider, call in newest.items()
        if now_ms - (call.ended_at_ms or call.began_at_ms) <= warm_s(call.model) * 1000
    }


def warm_first(keys: Sequence[Credential], warm: str | None) -> list[Credential]:
    """These keys, the warm one before the others."""
    return sorted(keys, key=lambda one: one.label != warm)
