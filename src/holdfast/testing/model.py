"""A model that says what a test tells it to, when the test lets it.

    model = ScriptedModel("Hello!", Reply(calls=[("lookup", {"q": "x"})]), ProviderError("busy", status=429))
    …                                       # run the code under test against it
    await model.asked(2)                    # wait until two requests have come in, without sleeping
    model.requests[1].messages              # what the model was shown

`hold` makes answers wait until `release`: the prompt window stays open for as long as the test needs it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import ProviderError
from holdfast.ids import derived_id
from holdfast.model.catalog import split_ref
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ThinkingDelta, zero_usage


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer.

    Args:
        text: streamed word by word.
        thinking: streamed before it.
        calls: tool calls as (name, arguments); the answer then ends with "toolUse".
        error: raised instead of ending: at once, or after `text` was streamed (a ProviderError gets it as `.partial`).
        stop_reason: how the answer ends; default by `calls`.
        usage: what the provider counts; None: nothing.
        gate: awaited before the first word (a stall); see also `ScriptedModel.hold`.
    """

    text: str = ""
    thinking: str = ""
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    error: BaseException | None = None
    stop_reason: str | None = None
    gate: asyncio.Event | None = field(default=None, compare=False)
    usage: dict[str, Any] | None = None


class ScriptedModel:
    """A `ModelClient` that answers from a script and remembers what it was asked. Any model reference will do.

    Args:
        script: answers in order: a text, a `Reply`, or an exception to raise.
        otherwise: makes the answer once the script is used up; None: asking for more is an AssertionError, because the
            test did not expect the request.

    Attributes:
        requests: every request, in order of arrival.
        open: how many streams are running now.
    """

    def __init__(
        self,
        *script: str | Reply | BaseException,
        otherwise: Callable[[ModelRequest], str | Reply] | None = None,
    ) -> None:
        self.requests: list[ModelRequest] = []
        self.open = 0
        self._script: deque[str | Reply | BaseException] = deque(script)
        self._otherwise = otherwise
        self._arrived = asyncio.Condition()
        self._gate: asyncio.Event | None = None

    def script(self, *more: str | Reply | BaseException) -> None:
        """Append to the script."""
        self._script.extend(more)

    def hold(self) -> None:
        """From now on no answer begins before `release`."""
        self._gate = asyncio.Event()

    def release(self) -> None:
        """Let every held answer, and all later ones, go on."""
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    async def asked(self, count: int = 1) -> ModelRequest:
        """Wait until `count` requests in all have come in; returns the `count`th. Bound the wait with a timeout."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        number = len(self.requests)
        self.requests.append(request)
        reply = self._next(request)
        gates = [gate for gate in (self._gate, reply.gate) if gate is not None]
        self.open += 1
        try:
            async with self._arrived:
                self._arrived.notify_all()
            for gate in gates:
                await gate.wait()
            for word in _words(reply.thinking):
                yield ThinkingDelta(word)
            for word in _words(reply.text):
                yield TextDelta(word)
            if reply.error is not None:
                if isinstance(reply.error, ProviderError):
                    reply.error.partial = reply.error.partial or reply.text
                raise reply.error
            yield _answer(request, reply, number)
        finally:
            self.open -= 1

    def _next(self, request: ModelRequest) -> Reply:
        if self._script:
            step = self._script.popleft()
        elif self._otherwise is not None:
            step = self._otherwise(request)
        else:
            raise AssertionError(f"the script is at its end, but {request.model} was asked: {request.messages[-1:]}")
        if isinstance(step, str):
            return Reply(text=step)
        return step if isinstance(step, Reply) else Reply(error=step)


def _answer(request: ModelRequest, reply: Reply, number: int) -> ModelAnswer:
    provider, model = split_ref(request.model)
    content: list[dict[str, Any]] = []
    if reply.thinking:
        content.append({"type": "thinking", "thinking": reply.thinking})
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    for index, (name, arguments) in enumerate(reply.calls):
        call_id = "call_" + derived_id("scripted", number, index)[:24]
        content.append({"type": "toolCall", "id": call_id, "name": name, "arguments": arguments})
    stop_reason = reply.stop_reason or ("toolUse" if reply.calls else "stop")
    return ModelAnswer(content, stop_reason, provider, model, "scripted", {**zero_usage(), **(reply.usage or {})})


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)
