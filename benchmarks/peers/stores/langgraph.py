"""langgraph: a graph of one node over `MessagesState`, compiled with the SQLite checkpointer."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.store import SESSION, Model, Said, Store

graphs: Any = importlib.import_module("langgraph.graph")
savers: Any = importlib.import_module("langgraph.checkpoint.sqlite.aio")
messages: Any = importlib.import_module("langchain_core.messages")
CONFIG = {"configurable": {"thread_id": SESSION}}


class LangGraph:
    def __init__(self, saver: Any, context: Any) -> None:
        self._context = context
        self._model: Model | None = None
        builder = graphs.StateGraph(graphs.MessagesState)
        builder.add_node("model", self._node)
        builder.add_edge(graphs.START, "model")
        builder.add_edge("model", graphs.END)
        self._graph = builder.compile(checkpointer=saver)

    async def _node(self, state: Any) -> Any:
        assert self._model is not None
        return {"messages": [messages.AIMessage(content=await self._model(state["messages"][-1].content))]}

    async def turn(self, question: str, model: Model) -> None:
        self._model = model
        await self._graph.ainvoke({"messages": [messages.HumanMessage(content=question)]}, CONFIG)

    async def history(self) -> list[Said]:
        state = await self._graph.aget_state(CONFIG)
        roles = {"human": "user", "ai": "assistant"}
        return [(roles[one.type], one.content) for one in state.values.get("messages", [])]

    async def fill(self, said: list[Said]) -> None:
        kinds = {"user": messages.HumanMessage, "assistant": messages.AIMessage}
        made = [kinds[role](content=text) for role, text in said]
        await self._graph.aupdate_state(CONFIG, {"messages": made}, as_node="model")

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)


async def open_store(folder: Path) -> Store:
    context = savers.AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db"))
    return LangGraph(await context.__aenter__(), context)
