"""Keep a conversation with any model: two questions, the second one after the program was started anew.

    python examples/plain.py [STATE]

STATE is a folder for the session (default: a temporary one, removed at the end). Nothing goes over the network.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import holdfast

SESSION = "agent:main:main"


async def call_any_model(messages: list[dict[str, Any]]) -> str:
    """Stands for your model: it gets the conversation, oldest first, and gives back text. It may take minutes."""
    asked = [part["text"] for message in messages if message["role"] == "user" for part in message["content"]]
    await asyncio.sleep(0.05)
    return f"You have asked {len(asked)} question(s); the latest was {asked[-1]!r}."


async def ask(state: Path, question: str) -> str:
    async with holdfast.open(state) as hf, hf.turn(SESSION, wait_s=30) as turn:
        await turn.append(holdfast.user(question))
        async with turn.prompt_window() as window:  # nobody is locked out while the model thinks
            answer = await call_any_model(await turn.context())
            window.finished(answer)  # kept even if somebody else has written to the session meanwhile
        assert window.verdict is not None
        print(f"the session meanwhile: {window.verdict.kind}")
        await turn.append(holdfast.assistant(answer, model="example/any"))
    return answer


async def main(state: Path) -> None:
    for question in ("Who owns this conversation?", "And now?"):
        print(f"> {question}\n{await ask(state, question)}")
    async with holdfast.open(state) as hf:
        print(f"transcript: {await hf.session(SESSION).path()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch)))
