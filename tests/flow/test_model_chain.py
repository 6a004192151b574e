"""Failover over real connections: a chain of providers of which some misbehave."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from holdfast.errors import AllModelsFailedError, InputError, ProviderError
from holdfast.model import catalog
from holdfast.model.catalog import ProviderSettings
from holdfast.model.client import ModelAnswer, ModelRequest, TextDelta, ThinkingDelta
from holdfast.model.clients import ModelClients
from holdfast.model.failover import Decision, ask
from holdfast.testing import wire
from holdfast.testing.provider import ProviderStub, Scene, json_scene

KEY = "key-that-must-not-be-told"


class NoWaiting:
    """A clock whose sleeps are over at once."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def mono(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        return None


class Chain:
    """Providers `lab` (OpenAI-compatible) and `claude` on one stub, and what an ask over them gave."""

    def __init__(self, stub: ProviderStub, clients: ModelClients) -> None:
        self.stub = stub
        self.clients = clients
        self.said = ""
        self.decisions: list[Decision] = []

    async def ask(self, *chain: str, text: str = "hi") -> ModelAnswer:
        request = ModelRequest(chain[0], [{"role": "user", "content": text}], timeout_s=20)
        return await ask(
            chain,
            request,
            client_for=self.clients.client_for,
            on_item=self._hear,
            on_decision=self.decisions.append,
        )

    def _hear(self, item: TextDelta | ThinkingDelta) -> None:
        self.said += item.text


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    async with ProviderStub() as stub:
        providers = {
            "lab": ProviderSettings(base_url=stub.url, api_key=KEY),
            "claude": ProviderSettings(api=catalog.ANTHROPIC, base_url=stub.url, api_key=KEY),
        }
        async with aclosing(ModelClients(providers, env={}, clock=NoWaiting())) as clients:
            yield Chain(stub, clients)


async def test_a_rate_limit_and_a_login_page_lead_to_the_third_model(chain: Chain) -> None:
    chain.stub.play(
        json_scene({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429),
        Scene([b"<html>log in</html>"], content_type="text/html"),
        Scene(wire.openai("Hello from the third")),
    )
    answer = await chain.ask("lab/a", "claude/claude-stub", "lab/b")
    assert (answer.text, answer.model, chain.said) == ("Hello from the third", "b", "Hello from the third")
    assert [(seen.decision, seen.candidate, seen.reason, seen.next) for seen in chain.decisions] == [
        ("candidate_failed", "lab/a", "rate_limit", "claude/claude-stub"),
        ("candidate_failed", "claude/claude-stub", "timeout", "lab/b"),
        ("candidate_succeeded", "lab/b", None, None),
    ]


async def test_a_missing_key_and_a_dead_provider_lead_to_the_demo_model(chain: Chain) -> None:
    chain.stub.play(json_scene({"error": {"message": "boom"}}, 500))
    answer = await chain.ask("openai/gpt-5", "lab/a", "demo/fast", text="still there?")
    assert answer.text == "echo #1: still there?"
    assert [seen.reason for seen in chain.decisions] == ["auth", "server_error", None]


async def test_words_that_were_delivered_are_never_followed_by_another_models(chain: Chain) -> None:
    chain.stub.play(Scene(wire.openai("Half an answer", finish=None)[:3], end="cut"), Scene(wire.openai("other")))
    with pytest.raises(ProviderError) as caught:
        await chain.ask("lab/a", "lab/b")
    assert caught.value.partial == chain.said == "Half an "
    assert len(chain.stub.requests) == 1


async def test_an_unknown_provider_in_the_chain_is_a_mistake_not_a_failure(chain: Chain) -> None:
    chain.stub.play(json_scene({"error": {"message": "boom"}}, 500))
    with pytest.raises(InputError, match="nowhere"):
        await chain.ask("lab/a", "nowhere/x", "lab/b")


async def test_an_error_of_ours_is_never_its_own_cause(chain: Chain) -> None:
    request = ModelRequest("lab/a", [{"role": "nobody"}])
    stream = chain.clients.client_for("lab/a").stream(request)
    with pytest.raises(InputError, match="nobody") as caught:
        await anext(stream)
    assert caught.value.__cause__ is None
    assert chain.stub.requests == []


@pytest.mark.promise("I12")
async def test_no_key_is_told_in_errors_or_log_lines(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        chain.stub.play(json_scene({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401))
    with caplog.at_level(logging.INFO), pytest.raises(AllModelsFailedError) as caught:
        await chain.ask("lab/a", "claude/claude-stub")
    assert all(KEY in str(seen.headers) for seen in chain.stub.requests)
    assert KEY not in f"{caught.value} {[failed.body for _, failed in caught.value.attempts]} {chain.decisions}"
    assert KEY not in caplog.text
    assert "reason=auth" in caplog.text


async def test_demo_models_show_failover_without_a_network(chain: Chain) -> None:
    answer = await chain.ask("demo/demo", "demo/backup", text="/fail 529 once hello")
    assert (answer.model, answer.text) == ("backup", "echo #1: /fail 529 once hello")
    assert [seen.reason for seen in chain.decisions] == ["overloaded", None]
