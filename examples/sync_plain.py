"""The same as plain.py without `async`: `holdfast.sync` has the same names and raises the same errors.

python examples/sync_plain.py [STATE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import holdfast
import holdfast.sync

SESSION = "agent:main:main"


def call_any_model(messages: list[dict[str, Any]]) -> str:
    asked = [part["text"] for message in messages if message["role"] == "user" for part in message["content"]]
    return f"You have asked {len(asked)} question(s); the latest was {asked[-1]!r}."


def main(state: Path) -> None:
    with holdfast.sync.open(state) as hf:
        for question in ("Who owns this conversation?", "And now?"):
            with hf.turn(SESSION, wait_s=30) as turn:
                turn.append(holdfast.user(question))
                with turn.prompt_window() as window:
                    answer = call_any_model(turn.context())
                    window.finished(answer)
                turn.append(holdfast.assistant(answer, model="example/any"))
            print(f"> {question}\n{answer}")
        for view in hf.turns():
            print(f"{view.id}: {view.state}, {view.outcome}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch))
