"""langgraph: an owned graph of one node over a list of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

import holdfast
from holdfast.integrations.langgraph import SessionSaver, own
from tests.integrations import hundred
from tests.integrations.scene_plain import said_in

THREAD: Any = {"configurable": {"thread_id": "hundred"}}


async def model(state: MessagesState) -> dict[str, list[BaseMessage]]:
    return {"messages": [AIMessage(await hundred.think(str(state["messages"][-1].content)))]}


def graph_with(saver: SessionSaver) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    return builder.compile(checkpointer=saver)


@asynccontextmanager
async def asking(hf: holdfast.Holdfast) -> AsyncIterator[hundred.Ask]:
    saver = SessionSaver(hf)
    graph = own(graph_with(saver), saver, wait_s=300)

    async def ask(question: str) -> str:
        state = await graph.ainvoke({"messages": [HumanMessage(question)]}, THREAD)
        return state["messages"][-1].content

    yield ask


async def told(hf: holdfast.Holdfast) -> list[tuple[str, str]]:
    state = await graph_with(SessionSaver(hf)).aget_state(THREAD)
    found = [("user" if one.type == "human" else "assistant", one.content) for one in state.values["messages"]]
    assert await said_in(hf, "agent:main:langgraph:direct:hundred") == found
    return found
