"""A chain of four models behind four real SDKs: what each mishap makes of the walk, and how often anybody was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from holdfast.errors import AllModelsFailedError, ProviderError
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import ModelAnswer, ModelRequest, TextDelta, ThinkingDelta
from holdfast.model.failover import Decision, ask
from holdfast.model.pydantic_ai import PydanticAIModel
from holdfast.testing import mishaps
from holdfast.testing.provider import ProviderStub

PATIENCE_S = 60.0
STALL_S = 1.0
"""The longest silence, where it is meant to pass."""
CHAIN = {
    "bedrock/anthropic.claude-sonnet-4-20250514-v1:0": catalog.BEDROCK,
    "anthropic/claude-stub": catalog.ANTHROPIC,
    "google/gemini-2.5-flash": catalog.GOOGLE,
    "openai/gpt-4o": catalog.OPENAI,
}
MODELS = list(CHAIN)
APIS = list(CHAIN.values())


def target_of(ref: str, api: str, url: str, silence_s: float) -> ModelTarget:
    provider, _, model = ref.partition("/")
    key, region = (None, "us-east-1") if api == catalog.BEDROCK else ("a-key-of-ours", None)
    return ModelTarget(provider, model, api, url, key, region, idle_timeout_s=silence_s)


class Walk:
    """The chain on one stub, and what asking along it gave."""

    def __init__(self, stub: ProviderStub) -> None:
        self.stub = stub
        self.decisions: list[Decision] = []
        self.said = ""
        self.wait_at_most(PATIENCE_S)

    def wait_at_most(self, silence_s: float) -> None:
        made = {ref: target_of(ref, api, self.stub.url, silence_s) for ref, api in CHAIN.items()}
        self.clients = {ref: PydanticAIModel(target) for ref, target in made.items()}

    async def ask(self, *scenes: Callable[[str], object]) -> ModelAnswer:
        for api, scene in zip(APIS, scenes, strict=False):
            self.stub.play(scene(api))  # pyright: ignore[reportArgumentType]
        request = ModelRequest(MODELS[0], [{"role": "user", "content": "hi"}])
        return await ask(
            MODELS, request, client_for=lambda ref: self.clients[ref], on_item=self._hear,
            on_decision=self.decisions.append,
        )  # fmt: skip

    def _hear(self, item: TextDelta | ThinkingDelta) -> None:
        self.said += item.text

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        return [(one.decision, one.candidate.partition("/")[0], one.reason) for one in self.decisions]


def going_wrong(mishap: str) -> Callable[[str], object]:
    return lambda api: mishaps.scene(api, mishap)


@pytest.fixture
async def walk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Walk]:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    async with ProviderStub() as stub:
        made = Walk(stub)
        yield made
        for client in made.clients.values():
            await client.aclose()


async def test_each_refusal_leads_to_the_next_sdk_and_each_is_asked_once(walk: Walk) -> None:
    answer = await walk.ask(
        going_wrong("rate_limit"), going_wrong("overloaded"), going_wrong("billing"), mishaps.answer
    )
    assert (answer.model, answer.text, walk.said) == ("gpt-4o", mishaps.TEXT, mishaps.TEXT)
    assert walk.told == [
        ("candidate_failed", "bedrock", "rate_limit"),
        ("candidate_failed", "anthropic", "overloaded"),
        ("candidate_failed", "google", "billing"),
        ("candidate_succeeded", "openai", None),
    ]
    assert len(walk.stub.requests) == 4


async def test_what_fails_before_the_first_word_leads_on_too(walk: Walk) -> None:
    answer = await walk.ask(going_wrong("html"), going_wrong("auth"), going_wrong("server_error"), mishaps.answer)
    assert answer.text == mishaps.TEXT
    assert [reason for _, _, reason in walk.told] == ["timeout", "auth", "server_error", None]


@pytest.mark.parametrize("mishap", ["cut", "stall", "no_finish", "error_event"])
async def test_words_that_reached_the_user_are_never_followed_by_another_sdks(walk: Walk, mishap: str) -> None:
    walk.wait_at_most(STALL_S if mishap == "stall" else PATIENCE_S)
    with pytest.raises(ProviderError) as caught:
        await walk.ask(going_wrong(mishap), mishaps.answer)
    assert caught.value.partial == walk.said
    assert mishaps.TEXT.startswith(walk.said.strip())
    assert walk.said
    assert walk.told == [("candidate_failed", "bedrock", mishaps.reason_of(catalog.BEDROCK, mishap))]
    assert len(walk.stub.requests) == 1


async def test_an_overflow_is_for_compaction_and_asks_nobody_else(walk: Walk) -> None:
    with pytest.raises(ProviderError) as caught:
        await walk.ask(going_wrong("overflow"), mishaps.answer)
    assert caught.value.reason == "context_overflow"
    assert (walk.told, len(walk.stub.requests)) == ([], 1)


async def test_when_all_have_failed_each_is_told_with_its_reason_and_the_soonest_wait(walk: Walk) -> None:
    with pytest.raises(AllModelsFailedError) as caught:
        await walk.ask(*(going_wrong(mishap) for mishap in ("rate_limit", "server_error", "rate_limit", "auth")))
    assert [error.reason for _, error in caught.value.attempts] == ["rate_limit", "server_error", "rate_limit", "auth"]
    assert caught.value.retry_after_s is not None
    assert 0 < caught.value.retry_after_s <= mishaps.RETRY_AFTER_S
    assert "All models failed (4)" in str(caught.value)
    assert len(walk.stub.requests) == 4
