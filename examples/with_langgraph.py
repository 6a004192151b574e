"""A langgraph graph each run of which is a turn: two questions at once, and neither writes over the other.

    python examples/with_langgraph.py [STATE]

Its node answers by itself, so nothing goes over the network; put a model of yours in its place.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

import holdfast
from holdfast.integrations.langgraph import SessionSaver, own


async def model(state: MessagesState) -> dict[str, Any]:
    """Tells how many questions it has been asked so far."""
    asked = [message.text for message in state["messages"] if message.type == "human"]
    await asyncio.sleep(0.05)
    return {"messages": [AIMessage(f"{asked[-1]} That is question {len(asked)}.")]}


async def main(state: Path) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    async with holdfast.open(state) as hf:
        saver = SessionSaver(hf)
        graph = own(builder.compile(checkpointer=saver), saver)
        ada: Any = {"configurable": {"thread_id": "ada"}}
        async with asyncio.TaskGroup() as group:
            for question in ("Who owns this?", "And now?"):
                group.create_task(graph.ainvoke({"messages": [HumanMessage(question)]}, ada))
        for message in (await graph.aget_state(ada)).values["messages"]:
            print(message.type, message.text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
