"""The real SDKs, over real sockets, against every mishap of every interface: its class of failure, and one request.

What a stream's end loses or keeps is in `test_model_providers.py`; how the chain goes on is in `test_model_chain.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.errors import ProviderError, TurnLimitError
from holdfast.model import catalog
from holdfast.model.catalog import ModelTarget
from holdfast.model.client import Heard, ModelAnswer, ModelRequest, Piece, StreamSign, TextDelta, feed
from holdfast.model.failure import classify
from holdfast.model.pydantic_ai import PydanticAIModel
from holdfast.testing import mishaps
from holdfast.testing.provider import ProviderStub

MODELS = {
    catalog.OPENAI: "gpt-4o",
    catalog.ANTHROPIC: "claude-stub",
    catalog.GOOGLE: "gemini-2.5-flash",
    catalog.BEDROCK: "anthropic.claude-sonnet-4-20250514-v1:0",
}
SILENCE_S = 1.0
PATIENCE_S = 60.0


@pytest.fixture(params=MODELS)
def api(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)  # AWS reads its credentials from the environment and from files
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return request.param


@pytest.fixture
async def stub() -> AsyncIterator[ProviderStub]:
    async with ProviderStub() as server:
        yield server


@pytest.fixture
async def model(api: str, stub: ProviderStub) -> AsyncIterator[PydanticAIModel]:
    region = "us-east-1" if api == catalog.BEDROCK else None
    key = None if api == catalog.BEDROCK else "k"
    client = PydanticAIModel(ModelTarget("lab", MODELS[api], api, stub.url, key, region, idle_timeout_s=PATIENCE_S))
    yield client
    await client.aclose()


def asking(model: PydanticAIModel, timeout_s: float | None = None) -> ModelRequest:
    return ModelRequest(model.target.ref, [{"role": "user", "content": "hi"}], timeout_s=timeout_s)


async def failure_of(model: PydanticAIModel, timeout_s: float | None = None) -> ProviderError:
    """As turns ask."""
    pieces: list[Piece] = []
    heard = Heard(pieces.append)
    with pytest.raises(ProviderError) as caught:
        await feed(model, asking(model, timeout_s), heard)
    assert all(isinstance(piece, TextDelta | StreamSign) for piece in pieces)
    assert caught.value.partial == "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == heard.text
    return caught.value


@pytest.mark.parametrize("mishap", mishaps.MISHAPS)
async def test_each_mishap_gets_its_class_and_is_asked_about_once(
    api: str, mishap: str, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(mishaps.scene(api, mishap), mishaps.answer(api))  # a retry would be answered well
    failed = await failure_of(model, SILENCE_S if mishap == "stall" else None)
    found = classify(failed, provider="lab")
    assert (found.reason, found.coordination) == (mishaps.reason_of(api, mishap), False), failed
    assert len(stub.requests) == 1, "the SDK must not retry"
    assert failed.retry_after_s == (mishaps.RETRY_AFTER_S if mishap == "rate_limit" else None)


async def test_a_stream_that_stalls_is_a_timeout_by_the_targets_own_limit(
    api: str, stub: ProviderStub, model: PydanticAIModel
) -> None:
    target = ModelTarget(
        "lab", MODELS[api], api, stub.url, model.target.api_key, model.target.region, idle_timeout_s=SILENCE_S
    )
    impatient = PydanticAIModel(target)
    stub.play(mishaps.scene(api, "stall"))
    began = asyncio.get_running_loop().time()
    failed = await failure_of(impatient)
    took_s = asyncio.get_running_loop().time() - began
    await impatient.aclose()
    assert (failed.code, classify(failed).reason) == ("timeout", "timeout")
    assert failed.partial.startswith("one two")
    assert took_s >= SILENCE_S
    assert len(stub.requests) == 1


async def test_a_stream_that_goes_on_slowly_is_no_stall(api: str, stub: ProviderStub, model: PydanticAIModel) -> None:
    """The limit is one of silence: the whole takes longer than it."""
    scene = mishaps.answer(api, paced=True)
    stub.play(scene)

    async def trickle() -> None:
        await stub.asked()
        for _ in scene.chunks:
            await asyncio.sleep(SILENCE_S / 4)
            stub.tick()

    trickling = asyncio.create_task(trickle())
    began = asyncio.get_running_loop().time()
    items = [item async for item in model.stream(asking(model, SILENCE_S * 2))]
    await trickling
    assert isinstance(items[-1], ModelAnswer)
    assert items[-1].text == mishaps.TEXT
    assert asyncio.get_running_loop().time() - began > SILENCE_S * 2


async def test_cancelling_in_the_middle_reaches_the_providers_socket(
    api: str, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(mishaps.scene(api, "stall"))
    first = asyncio.Event()

    async def consume() -> None:
        async for _ in model.stream(asking(model)):
            first.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(first.wait(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stub.client_gone(), PATIENCE_S)
    assert len(stub.requests) == 1


async def test_cancelling_before_the_first_word_reaches_it_too(
    api: str, stub: ProviderStub, model: PydanticAIModel
) -> None:
    stub.play(mishaps.answer(api, paced=True))

    async def consume() -> None:
        async for _ in model.stream(asking(model)):
            raise AssertionError("nothing was sent")

    task = asyncio.create_task(consume())
    await asyncio.wait_for(stub.asked(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stub.client_gone(), PATIENCE_S)


async def test_whoever_wants_no_more_ends_the_answer_though_its_provider_has_fallen_silent(
    api: str, stub: ProviderStub, model: PydanticAIModel
) -> None:
    """The limit may be passed by what waits to be handed on, and nothing more comes that could wake the reader."""
    pieces: list[Piece] = []

    def hand_on(piece: Piece) -> None:
        pieces.append(piece)
        if heard.chars > 3:
            raise TurnLimitError("output_bytes", "too much")

    heard = Heard(hand_on)
    stub.play(mishaps.scene(api, "stall"))
    async with asyncio.timeout(PATIENCE_S - 5):
        assert await feed(model, asking(model), heard) is None
        assert isinstance(heard.stopped_by, TurnLimitError)
        if api != catalog.BEDROCK:  # its client blocks in a thread: the connection is closed when it has woken
            await stub.client_gone()


async def test_cancelling_whoever_waits_closes_the_connection_and_what_came_was_handed_on(
    api: str, stub: ProviderStub, model: PydanticAIModel
) -> None:
    first = asyncio.Event()
    heard = Heard(lambda piece: first.set() if isinstance(piece, TextDelta) else None)
    stub.play(mishaps.scene(api, "stall"))
    async with asyncio.timeout(PATIENCE_S - 5):
        waiting = asyncio.create_task(feed(model, asking(model), heard))
        await first.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert mishaps.TEXT.startswith(heard.text.strip())
        if api != catalog.BEDROCK:
            await stub.client_gone()
