"""Asking a chain of models until one answers, with a receipt for every decision.

Only a `ProviderError` is a failure of a model. Whatever else is raised (who may write, this machine, the caller,
cancellation) leaves at once and uses up no candidate. Nothing is pinned: every turn starts with its requested model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from holdfast.errors import AllModelsFailedError, ProviderError
from holdfast.model.client import ModelAnswer, ModelClient, ModelRequest, StreamItem, TextDelta, ThinkingDelta
from holdfast.model.failure import FailureClass, classify

log = logging.getLogger(__name__)

UNCLASSIFIED = "unclassified"
DETAIL_CHARS_MAX = 300

# Model names come from users: no terminal sequence or line break of theirs reaches the log.
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of the loop, as it is recorded and logged.

    Args:
        decision: "candidate_failed", "candidate_succeeded" or "exhausted".
        requested: the model the turn asked for.
        candidate: the model this decision is about.
        reason: failure class, "unclassified" if none is known; None for a success.
        next: the model that is asked next, or None.
        detail: the error in words.
    """

    decision: str
    requested: str
    candidate: str
    reason: str | None = None
    next: str | None = None
    detail: str = ""

    def line(self) -> str:
        """The log line that operators search for."""
        head = f"[model-fallback/decision] decision={self.decision}"
        if self.decision == "candidate_succeeded":
            line = f"{head} candidate={self.candidate}"
        else:
            line = (
                f"{head} requested={self.requested} candidate={self.candidate} reason={self.reason} "
                f"next={self.next or 'none'} detail={self.detail}"
            )
        return _UNPRINTABLE.sub("", line)


def build_chain(
    requested: str, fallbacks: Sequence[str] = (), primary: str | None = None, strict: bool = False
) -> list[str]:
    """The models to ask, in order: the requested one, the fallbacks, the configured primary last; each once.

    Args:
        strict: the requested model or none (a user's own choice).
    """
    if strict:
        return [requested]
    return list(dict.fromkeys([requested, *fallbacks, *([primary] if primary else [])]))


async def ask(
    chain: Sequence[str],
    request: ModelRequest,
    *,
    client_for: Callable[[str], ModelClient],
    on_item: Callable[[TextDelta | ThinkingDelta], Awaitable[None]],
    on_decision: Callable[[Decision], None],
) -> ModelAnswer:
    """Ask the models of `chain` in turn until one answers. Each is asked once.

    Args:
        chain: from `build_chain`; `chain[0]` is the requested model.
        request: its `model` is replaced by each candidate.
        client_for: the client of a candidate; may raise a ProviderError (a missing key), which counts as its failure.
        on_item: gets every delta. Once it was given text, no other model is asked: the user has seen this one's words.
        on_decision: gets every decision after it was logged. A first model that simply answers is no decision.

    Raises:
        AllModelsFailedError: several candidates failed; carries a receipt of each.
        ProviderError: the only candidate's own error; or of the one that had begun to answer (`.partial` holds what
            was delivered); or a context overflow (`.reason == "context_overflow"`), which is for compaction: no other
            model is asked, and no decision is recorded.
        Anything else that a client or a callback raised, unchanged.

    Cancelled: the stream of the moment is closed; no decision is recorded.
    """
    requested = chain[0]
    failed: list[tuple[Decision, ProviderError]] = []
    for index, candidate in enumerate(chain):
        seen = _Seen()
        try:
            answer = await _ask_one(client_for(candidate), replace(request, model=candidate), on_item, seen)
        except ProviderError as failure:
            found = classify(failure, provider=candidate.partition("/")[0])
            if found.coordination:
                raise
            failure.partial = failure.partial or seen.text
            failure.reason = failure.reason or found.reason
            if found.reason == "context_overflow" and not seen.text:
                raise
            following = None if seen.text or index + 1 == len(chain) else chain[index + 1]
            decision = _failed(requested, candidate, failure, found, following)
            _record(decision, on_decision)
            failed.append((decision, failure))
            if seen.text:
                raise
        else:
            if failed:
                _record(Decision("candidate_succeeded", requested, candidate), on_decision)
            return answer
    last, failure = failed[-1]
    _record(replace(last, decision="exhausted", detail=f"{len(failed)} of {len(chain)} failed"), on_decision)
    if len(failed) == 1:
        raise failure
    raise AllModelsFailedError([(decision.candidate, error) for decision, error in failed]) from failure


class _Seen:
    """What the user has seen of a candidate's answer."""

    def __init__(self) -> None:
        self.text = ""


async def _ask_one(
    client: ModelClient,
    request: ModelRequest,
    on_item: Callable[[TextDelta | ThinkingDelta], Awaitable[None]],
    seen: _Seen,
) -> ModelAnswer:
    answer: ModelAnswer | None = None
    async with _closing(client.stream(request)) as stream:
        async for item in stream:
            if isinstance(item, ModelAnswer):
                answer = item
            else:
                if isinstance(item, TextDelta):
                    seen.text += item.text
                await on_item(item)
    if answer is None:
        raise ProviderError("the stream ended without an answer", code="no_finish_reason", partial=seen.text)
    return answer


@asynccontextmanager
async def _closing(stream: AsyncIterator[StreamItem]) -> AsyncIterator[AsyncIterator[StreamItem]]:
    """Close an async generator when a callback raised while it was suspended; other iterators have nothing to close."""
    try:
        yield stream
    finally:
        aclose = getattr(stream, "aclose", None)
        if aclose is not None:
            await aclose()


def _failed(
    requested: str, candidate: str, failure: ProviderError, found: FailureClass, following: str | None
) -> Decision:
    detail = " ".join(str(failure).split())[:DETAIL_CHARS_MAX]
    return Decision("candidate_failed", requested, candidate, found.reason or UNCLASSIFIED, following, detail)


def _record(decision: Decision, on_decision: Callable[[Decision], None]) -> None:
    level = logging.INFO if decision.decision == "candidate_succeeded" else logging.WARNING
    log.log(level, "%s", decision.line(), extra={"decision": decision})
    on_decision(decision)
