"""Text that some encoders refuse goes through the whole: accepted, stored, answered, shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast

KEY = "agent:main:main"


@pytest.mark.parametrize(
    "text", ["half an emoji \ud83d.", "a\u2028b\u2029c\x85d", "\x00\x1b[31mred", "𝕊\u202e\u200b", "é" * 2000]
)
async def test_any_text_is_kept_as_it_was_said(tmp_path: Path, text: str) -> None:
    async with holdfast.open(tmp_path / "state") as hf:
        event = holdfast.InboundEvent(KEY, {"content": text}, key="k")
        accepted = await hf.accept(event)
        assert isinstance(accepted, holdfast.Accepted)
        assert isinstance(await hf.accept(event), holdfast.Duplicate)
        async with hf.turn(KEY, input_id=accepted.input_id) as turn:
            await turn.append(holdfast.user(text))
            await turn.append(holdfast.assistant(text, model="demo/demo"))
        view = await hf.input(accepted.input_id)
        assert (view.state, view.answer, view.payload["content"]) == ("answered", text, text)
        said = [entry.message["content"][0]["text"] for entry in await hf.session(KEY).entries()]
        assert said == [text, text]
