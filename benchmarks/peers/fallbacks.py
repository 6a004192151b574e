"""Chains of models: what a call costs beside its model, and whether a lock that cannot be had walks down the chain.

python -m benchmarks.peers.fallbacks litellm|langchain|pydantic_ai|holdfast
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

ROUNDS = 60
NAMES = ("m0", "m1", "m2", "m3")
ASKED: list[str] = []
"""The models that the call of the moment has asked so far."""


class SessionLockTimeout(Exception):  # noqa: N818  # what it is called where the bug was reported
    """A local lock that could not be had: no model has failed."""


Call = Callable[[set[str], type[Exception] | None], Awaitable[list[str]]]
"""Asks the chain; models of the set fail as a provider does, or the first one with the local error. Who was asked."""


def litellm() -> Call:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    library: Any = importlib.import_module("litellm")
    library.suppress_debug_info = True
    logging.disable(logging.ERROR)
    failing: list[Any] = [set[str](), None]

    async def acompletion(_self: Any, model: str, **_: Any) -> Any:
        ASKED.append(model)
        if failing[1] is not None and model == "m0":
            raise failing[1]("session file locked")
        if model in failing[0]:
            raise library.RateLimitError("slow down", llm_provider="bench", model=model)
        return library.mock_completion(model="bench", messages=[], mock_response="hi")

    provider = type("Provider", (library.CustomLLM,), {"acompletion": acompletion})()
    library.custom_provider_map = [{"provider": "bench", "custom_handler": provider}]

    models = [{"model_name": one, "litellm_params": {"model": f"bench/{one}"}} for one in NAMES]
    # Cool-downs off: each call of the measurement is to walk the same way.
    router = library.Router(
        model_list=models, fallbacks=[{"m0": list(NAMES[1:])}], num_retries=0, disable_cooldowns=True
    )

    async def call(bad: set[str], local: type[Exception] | None) -> list[str]:
        ASKED.clear()
        failing[:] = [bad, local]
        await router.acompletion(model="m0", messages=[{"role": "user", "content": "hi"}])
        return list(ASKED)

    return call


def langchain() -> Call:
    runnables: Any = importlib.import_module("langchain_core.runnables")
    failing: list[Any] = [set[str](), None]

    def model(name: str) -> Any:
        async def answer(_: Any) -> str:
            ASKED.append(name)
            if failing[1] is not None and name == "m0":
                raise failing[1]("session file locked")
            if name in failing[0]:
                raise RuntimeError("429 slow down")
            return "hi"

        return runnables.RunnableLambda(answer)

    chain = model("m0").with_fallbacks([model(one) for one in NAMES[1:]])

    async def call(bad: set[str], local: type[Exception] | None) -> list[str]:
        ASKED.clear()
        failing[:] = [bad, local]
        await chain.ainvoke("hi")
        return list(ASKED)

    return call


def pydantic_ai() -> Call:
    functions: Any = importlib.import_module("pydantic_ai.models.function")
    fallback: Any = importlib.import_module("pydantic_ai.models.fallback")
    models: Any = importlib.import_module("pydantic_ai.models")
    messages: Any = importlib.import_module("pydantic_ai.messages")
    exceptions: Any = importlib.import_module("pydantic_ai.exceptions")
    failing: list[Any] = [set[str](), None]

    def model(name: str) -> Any:
        async def answer(_history: Any, _info: Any) -> Any:
            ASKED.append(name)
            if failing[1] is not None and name == "m0":
                raise failing[1]("session file locked")
            if name in failing[0]:
                raise exceptions.ModelHTTPError(429, name)
            return messages.ModelResponse(parts=[messages.TextPart("hi")])

        return functions.FunctionModel(answer)

    chain = fallback.FallbackModel(*[model(one) for one in NAMES])
    request = [messages.ModelRequest(parts=[messages.UserPromptPart(content="hi")])]

    async def call(bad: set[str], local: type[Exception] | None) -> list[str]:
        ASKED.clear()
        failing[:] = [bad, local]
        await chain.request(request, None, models.ModelRequestParameters())
        return list(ASKED)

    return call


def holdfast() -> Call:
    clients: Any = importlib.import_module("holdfast.model.client")
    failover: Any = importlib.import_module("holdfast.model.failover")
    errors: Any = importlib.import_module("holdfast.errors")
    logging.getLogger("holdfast").setLevel(logging.CRITICAL)
    failing: list[Any] = [set[str](), None]

    class Instant:
        async def stream(self, request: Any) -> AsyncIterator[Any]:
            name = request.model.partition("/")[0]
            ASKED.append(name)
            if failing[1] is not None and name == "m0":
                raise failing[1]("session file locked")
            if name in failing[0]:
                raise errors.ProviderError("slow down", status=429)
            yield clients.ModelAnswer([{"type": "text", "text": "hi"}], "stop", "x", "y", "z", clients.zero_usage())

    model = Instant()
    chain = [f"{one}/x" for one in NAMES]
    request = clients.ModelRequest(chain[0], [{"role": "user", "content": "hi"}])

    async def call(bad: set[str], local: type[Exception] | None) -> list[str]:
        ASKED.clear()
        failing[:] = [bad, local]
        await failover.ask(
            chain, request, client_for=lambda _: model, on_item=lambda _: None, on_decision=lambda _: None
        )
        return list(ASKED)

    return call


async def main(name: str) -> dict[str, Any]:
    call: Call = {"litellm": litellm, "langchain": langchain, "pydantic_ai": pydantic_ai, "holdfast": holdfast}[name]()
    found: dict[str, Any] = {}
    for kind, bad in (("first", set[str]()), ("after_three", set[str](NAMES[:3]))):
        cpu_us: list[float] = []
        for number in range(-5, ROUNDS):
            began = time.process_time()
            asked = await call(bad, None)
            if number >= 0:
                cpu_us.append((time.process_time() - began) * 1e6)
            assert asked == list(NAMES[: len(bad) + 1]), asked
        found[kind] = cpu_us
    try:
        found["local_error"] = {"asked": await call(set(), SessionLockTimeout), "raised": None}
    except Exception as failed:  # an edge: what a caller sees is what is asked
        found["local_error"] = {"asked": list(ASKED), "raised": type(failed).__name__}
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
