"""The loop: who is asked next, what leaves at once, and the receipts."""

from __future__ import annotations

import asyncio
import logging

import pytest

from holdfast.errors import (
    AllModelsFailedError,
    InputError,
    ProviderError,
    ResourceError,
    SessionWriteLockTimeoutError,
    TurnCancelledError,
)
from holdfast.model.client import ModelAnswer, ModelClient, ModelRequest, TextDelta, ThinkingDelta
from holdfast.model.failover import Decision, ask, build_chain
from holdfast.testing.model import Reply, ScriptedModel

REQUEST = ModelRequest("x/first", [{"role": "user", "content": "hi"}])
CHAIN = ["x/first", "x/second", "x/third"]


def limited(text: str = "slow down") -> ProviderError:
    return ProviderError(text, status=429, code="rate_limit_exceeded")


class Watch:
    """One run of the loop over a scripted model, with what came out of it."""

    def __init__(self, *script: str | Reply | BaseException) -> None:
        self.model = ScriptedModel(*script)
        self.items: list[TextDelta | ThinkingDelta] = []
        self.decisions: list[Decision] = []

    @property
    def asked(self) -> list[str]:
        return [request.model for request in self.model.requests]

    def client_for(self, ref: str) -> ModelClient:
        return self.model

    def on_item(self, item: TextDelta | ThinkingDelta) -> None:
        self.items.append(item)

    async def run(self, chain: list[str] | None = None) -> ModelAnswer:
        return await ask(
            chain or CHAIN, REQUEST, client_for=self.client_for, on_item=self.on_item, on_decision=self.decisions.append
        )


# ── chains ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chain_is_the_requested_model_the_fallbacks_and_the_primary_each_once() -> None:
    assert build_chain("a/1", ["b/2", "a/1", "c/3"], "d/4") == ["a/1", "b/2", "c/3", "d/4"]
    assert build_chain("a/1", ["b/2"], "a/1") == ["a/1", "b/2"]
    assert build_chain("a/1") == ["a/1"]


def test_a_strict_choice_has_no_fallback() -> None:
    assert build_chain("a/1", ["b/2"], "c/3", strict=True) == ["a/1"]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_first_model_that_answers_is_no_decision() -> None:
    watch = Watch("hello world")
    answer = await watch.run()
    assert answer.text == "hello world"
    assert watch.asked == ["x/first"]
    assert watch.decisions == []
    assert "".join(item.text for item in watch.items) == "hello world"


async def test_a_provider_error_asks_the_next_model_and_both_are_recorded() -> None:
    watch = Watch(limited(), "from the second")
    answer = await watch.run()
    assert (answer.text, answer.model) == ("from the second", "second")
    assert watch.asked == ["x/first", "x/second"]
    assert watch.decisions == [
        Decision("candidate_failed", "x/first", "x/first", "rate_limit", "x/second", "slow down"),
        Decision("candidate_succeeded", "x/first", "x/second"),
    ]


async def test_a_missing_key_counts_as_that_models_failure() -> None:
    watch = Watch("hello")

    def client_for(ref: str) -> ModelClient:
        if ref == "x/first":
            raise ProviderError("No API key found for provider 'x'", reason="auth", sent=False)
        return watch.model

    answer = await ask(CHAIN, REQUEST, client_for=client_for, on_item=watch.on_item, on_decision=watch.decisions.append)
    assert answer.text == "hello"
    assert watch.decisions[0].reason == "auth"


async def test_thinking_aloud_does_not_keep_the_next_model_from_being_asked() -> None:
    watch = Watch(Reply(thinking="hmm", error=limited()), "hello")
    assert (await watch.run()).text == "hello"


async def test_an_unknown_failure_moves_on_too() -> None:
    watch = Watch(ProviderError("something weird"), "hello")
    await watch.run()
    assert watch.decisions[0].reason == "unclassified"


# ── what leaves at once ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        SessionWriteLockTimeoutError("a.jsonl", 1, "pid 1"),
        ResourceError("disk full"),
        InputError("no such role"),
        TurnCancelledError("somebody"),
        asyncio.CancelledError(),
        ZeroDivisionError("a defect of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.promise("P7")
async def test_what_is_no_models_failure_leaves_unchanged_and_uses_up_no_candidate(error: BaseException) -> None:
    watch = Watch(error)
    with pytest.raises(type(error)) as caught:
        await watch.run()
    assert caught.value is error
    assert watch.asked == ["x/first"]
    assert watch.decisions == []


async def test_a_provider_error_that_only_wraps_a_coordination_error_leaves_too() -> None:
    wrapped = ProviderError("request failed")
    wrapped.__cause__ = inside = SessionWriteLockTimeoutError("a.jsonl", 1, "pid 1")
    watch = Watch(wrapped)
    with pytest.raises(SessionWriteLockTimeoutError) as caught:
        await watch.run()
    assert caught.value is inside
    assert (watch.asked, watch.decisions) == (["x/first"], [])


@pytest.mark.promise("P7")
async def test_a_rate_limit_caused_by_a_lock_timeout_is_still_a_rate_limit() -> None:
    wrapped = limited()
    wrapped.__cause__ = SessionWriteLockTimeoutError("a.jsonl", 1, "pid 1")
    watch = Watch(wrapped, "hello")
    await watch.run()
    assert watch.decisions[0].reason == "rate_limit"


async def test_a_context_overflow_is_named_and_no_other_model_is_asked() -> None:
    watch = Watch(ProviderError("prompt is too long: 9 tokens > 8 maximum", status=400))
    with pytest.raises(ProviderError) as caught:
        await watch.run()
    assert caught.value.reason == "context_overflow"
    assert (watch.asked, watch.decisions) == (["x/first"], [])


async def test_after_text_has_reached_the_user_no_other_model_is_asked() -> None:
    watch = Watch(Reply("half an", error=ProviderError("cut", code="connection_error")))
    with pytest.raises(ProviderError) as caught:
        await watch.run()
    assert caught.value.partial == "half an"
    assert watch.asked == ["x/first"]
    assert [(decision.decision, decision.next) for decision in watch.decisions] == [("candidate_failed", None)]


async def test_an_error_of_the_watcher_closes_the_stream() -> None:
    watch = Watch("some words here")

    def refuse(item: TextDelta | ThinkingDelta) -> None:
        raise ResourceError("the watcher is full")

    with pytest.raises(ResourceError):
        await ask(CHAIN, REQUEST, client_for=watch.client_for, on_item=refuse, on_decision=watch.decisions.append)
    assert watch.model.open == 0


async def test_cancelling_closes_the_stream_and_records_nothing() -> None:
    watch = Watch(Reply("never said", gate=asyncio.Event()))
    task = asyncio.create_task(watch.run())
    await asyncio.wait_for(watch.model.asked(), 5)
    assert watch.model.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (watch.model.open, watch.decisions) == (0, [])


# ── exhaustion ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_failed_attempt_alone_keeps_its_own_error() -> None:
    error = limited()
    watch = Watch(error)
    with pytest.raises(ProviderError) as caught:
        await watch.run(["x/first"])
    assert caught.value is error
    assert [decision.decision for decision in watch.decisions] == ["candidate_failed", "exhausted"]


async def test_exhaustion_tells_each_attempt() -> None:
    last = ProviderError("boom", status=500)
    watch = Watch(limited(), ProviderError("weird"), last)
    with pytest.raises(AllModelsFailedError) as caught:
        await watch.run()
    told = "x/first: slow down (rate_limit) | x/second: weird (unclassified) | x/third: boom (server_error)"
    assert str(caught.value) == f"All models failed (3): {told}"
    assert caught.value.__cause__ is last
    assert [ref for ref, _ in caught.value.attempts] == CHAIN
    exhausted = watch.decisions[-1]
    assert (exhausted.decision, exhausted.candidate, exhausted.reason) == ("exhausted", "x/third", "server_error")


async def test_a_client_that_ends_without_an_answer_has_failed() -> None:
    class Silent:
        async def stream(self, request: ModelRequest):
            if request.model == "nobody":
                yield TextDelta("")

    with pytest.raises(ProviderError) as caught:
        await ask(
            ["x/first"], REQUEST, client_for=lambda _: Silent(), on_item=Watch().on_item, on_decision=lambda _: None
        )
    assert caught.value.code == "no_finish_reason"


# ── log lines ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_decision_is_one_log_line_in_the_form_operators_search_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="holdfast.model.failover"):
        await Watch(limited("slow\n down"), "hello").run()
    assert [record.getMessage() for record in caplog.records] == [
        (
            "[model-fallback/decision] decision=candidate_failed requested=x/first candidate=x/first "
            "reason=rate_limit next=x/second detail=slow down"
        ),
        "[model-fallback/decision] decision=candidate_succeeded candidate=x/second",
    ]


def test_a_models_name_cannot_forge_a_log_line() -> None:
    line = Decision("candidate_failed", "x/a\x1b[31m\nspoof", "x/a", "auth", None, "d").line()
    assert "\n" not in line
    assert "\x1b" not in line
    assert "requested=x/aspoof" in line
    assert line.endswith("next=none detail=d")
