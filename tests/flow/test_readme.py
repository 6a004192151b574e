"""The programs of the README run as they stand there: against a gateway with the demo model, and as a library."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import holdfast
from holdfast.testing.served import served

if TYPE_CHECKING:
    import pytest

README = Path(__file__).parents[2] / "README.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
KEY = "agent:main:main"


def program(words: str) -> str:
    [found] = [text for text in PROGRAMS if words in text]
    return found


async def test_the_openai_client_of_the_readme_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    async with served(tmp_path / "state") as gateway:
        text = program("from openai import OpenAI").replace("http://127.0.0.1:18890", gateway.url)
        assert gateway.url in text
        await asyncio.to_thread(exec, text, {})
        assert capsys.readouterr().out == "echo #1: hello\n"
        said = [entry.message["role"] for entry in await gateway.hf.session(KEY).entries() if hasattr(entry, "message")]
        assert said == ["user", "assistant"]


async def test_the_library_program_of_the_readme_keeps_question_and_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call_any_model(messages: list[dict[str, Any]]) -> str:
        return f"{len(messages)} message(s)"

    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread(exec, program("async with holdfast.open"), {"call_any_model": call_any_model})
    async with holdfast.open(tmp_path / "state") as hf:
        said = [
            (entry.message["role"], entry.message["content"][0]["text"]) for entry in await hf.session(KEY).entries()
        ]
    assert said == [("user", "hello"), ("assistant", "1 message(s)")]
