"""langgraph's threads in sessions, and its runs as turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import START, MessagesState, StateGraph

import holdfast
from holdfast.integrations.langgraph import SessionSaver, StaleCheckpointError, own
from tests.integrations.scene_langgraph import graph_with
from tests.integrations.scene_plain import said_in

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

pytestmark = pytest.mark.xdist_group("integrations")
THREAD: Any = {"configurable": {"thread_id": "ada"}}

WITHOUT_PARENT = {
    "test_list_metadata_filter_multiple_keys",
    "test_list_metadata_custom_keys",
    "test_delete_for_runs_preserves_other_runs",
}
"""They put a second checkpoint into a thread without naming the first as its parent: that is what is refused."""


@pytest.fixture
async def hf(state: Path) -> AsyncIterator[holdfast.Holdfast]:
    async with holdfast.open(state) as opened:
        yield opened


def asked(text: str) -> Any:
    return {"messages": [HumanMessage(text)]}


@pytest.mark.parametrize(("on_stale", "refused"), [("fork", set[str]()), ("refuse", WITHOUT_PARENT)])
async def test_the_conformance_tests_of_langgraph_pass(
    hf: holdfast.Holdfast, on_stale: Literal["refuse", "fork"], refused: set[str]
) -> None:
    @checkpointer_test(name="SessionSaver")
    async def savers() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield SessionSaver(hf, on_stale=on_stale)

    report = await validate(savers)
    failed = {failure.split(":")[0] for result in report.results.values() for failure in result.failures or ()}
    assert failed == refused
    assert sum(result.tests_passed for result in report.results.values()) == 81 - len(refused)
    assert all(result.detected for result in report.results.values())


async def test_a_run_that_saw_an_older_state_cannot_write_over_what_came_meanwhile(hf: holdfast.Holdfast) -> None:
    saver = SessionSaver(hf)
    graph = graph_with(saver)
    await graph.ainvoke(asked("first"), THREAD)
    seen = await saver.aget_tuple(THREAD)
    assert seen is not None
    await graph_with(SessionSaver(hf)).ainvoke(asked("second"), THREAD)
    late: Any = {**seen.checkpoint, "id": "1ffffff0-0000-6000-8000-000000000000"}
    with pytest.raises(StaleCheckpointError, match="has moved on"):
        await saver.aput(seen.config, late, seen.metadata, {})
    state = await graph.aget_state(THREAD)
    texts = [message.text for message in state.values["messages"]]
    assert texts == ["first", "answer to first", "second", "answer to second"]
    assert [text for _, text in await said_in(hf, "agent:main:langgraph:direct:ada")] == texts


async def test_a_run_may_begin_at_an_older_checkpoint_that_was_asked_for(hf: holdfast.Holdfast) -> None:
    saver = SessionSaver(hf)
    graph = own(graph_with(saver), saver)
    for text in ("one", "two"):
        await graph.ainvoke(asked(text), THREAD)
    history = [state async for state in graph.aget_state_history(THREAD)]
    old = next(state for state in history if len(state.values["messages"]) == 2)
    await graph.ainvoke(asked("another two"), old.config)
    state = await graph.aget_state(THREAD)
    texts = [message.text for message in state.values["messages"]]
    assert texts == ["one", "answer to one", "another two", "answer to another two"]


async def test_each_run_is_a_turn_that_is_settled_when_it_ends(hf: holdfast.Holdfast) -> None:
    saver = SessionSaver(hf)
    graph = own(graph_with(saver), saver)
    await graph.ainvoke(asked("one"), THREAD)
    assert [piece async for piece in graph.astream(asked("two"), THREAD, stream_mode="updates")]
    await graph.aupdate_state(THREAD, asked("three"))
    turns = await hf.turns()
    assert [(turn.state, turn.session) for turn in turns] == [("settled", "agent:main:langgraph:direct:ada")] * 3


async def test_every_asynchronous_way_to_run_a_graph_is_one_turn(hf: holdfast.Holdfast) -> None:
    saver = SessionSaver(hf)
    graph = own(graph_with(saver), saver)
    assert [event async for event in graph.astream_events(asked("one"), THREAD, version="v2")]
    await graph.abatch([asked("two"), asked("three")], THREAD)
    state = await graph.with_config(THREAD).ainvoke(asked("four"))
    texts = [message.text for message in state["messages"]]
    assert sorted(texts[::2]) == ["four", "one", "three", "two"]
    assert texts[1::2] == [f"answer to {text}" for text in texts[::2]]
    assert len(await hf.turns()) == 4
    with pytest.raises(holdfast.InputError, match="thread_id"):
        await graph.ainvoke(asked("nowhere"))


async def test_a_run_that_is_cancelled_or_whose_stream_is_closed_early_lets_go_of_its_thread(
    hf: holdfast.Holdfast,
) -> None:
    begun = asyncio.Event()

    async def waits(state: MessagesState) -> dict[str, Any]:
        if state["messages"][-1].text == "wait":
            begun.set()
            await asyncio.Event().wait()
        return {"messages": [AIMessage("done")]}

    builder = StateGraph(MessagesState)
    builder.add_node("waits", waits)
    builder.add_edge(START, "waits")
    saver = SessionSaver(hf)
    graph = own(builder.compile(checkpointer=saver), saver, wait_s=60)
    run = asyncio.create_task(graph.ainvoke(asked("wait"), THREAD))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    async with aclosing(graph.astream(asked("stream"), THREAD, stream_mode="updates")) as pieces:
        async for _ in pieces:
            break
    state = await graph.ainvoke(asked("after"), THREAD)
    assert state["messages"][-1].text == "done"
    assert [turn.state for turn in await hf.turns()] == ["settled"] * 3


async def test_other_threads_use_the_saver_without_async_and_the_loops_own_is_refused(hf: holdfast.Holdfast) -> None:
    saver = SessionSaver(hf)
    await graph_with(saver).ainvoke(asked("one"), THREAD)

    def without_async() -> tuple[int, bool]:
        count = len(list(saver.list(THREAD)))
        saver.copy_thread("ada", "bob")
        saver.prune(["bob"])
        saver.delete_thread("ada")
        bobs: Any = {"configurable": {"thread_id": "bob"}}
        return count, saver.get_tuple(THREAD) is None and len(list(saver.list(bobs))) == 1

    assert await asyncio.to_thread(without_async) == (3, True)
    with pytest.raises(holdfast.InputError, match="runs the loop"):
        saver.get_tuple(THREAD)


async def test_a_graph_with_another_checkpointer_is_refused(hf: holdfast.Holdfast) -> None:
    with pytest.raises(holdfast.InputError, match="compile the graph with this saver"):
        own(graph_with(SessionSaver(hf)), SessionSaver(hf))
