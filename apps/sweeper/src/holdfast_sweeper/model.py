"""Who writes the draft: a model behind an OpenAI-compatible address (a Holdfast gateway is one), or the plain rules."""

from __future__ import annotations

from typing import Any, Protocol

import httpx

ANSWER_BYTES_MAX = 4_000_000
ANSWER_S = 900.0


class ModelError(Exception):
    """The model has not answered. The text says why, and no address: it is shown where strangers read."""


class Model(Protocol):
    """name: as the review shows it. `ask` raises ModelError."""

    name: str

    async def ask(self, system: str, prompt: str) -> str: ...


class HttpModel:
    """Chat completions of an address, one request per question.

    Args:
        url: without the path. token: empty: none is sent.
    """

    def __init__(self, url: str, name: str, token: str) -> None:
        self.name = name
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def ask(self, system: str, prompt: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        try:
            async with httpx.AsyncClient(timeout=ANSWER_S, headers=self._headers) as http:
                answer = await http.post(
                    f"{self._url}/v1/chat/completions", json={"model": self.name, "messages": messages}
                )
        except httpx.HTTPError as exc:
            raise ModelError(f"the model's server cannot be reached ({type(exc).__name__})") from exc
        if answer.status_code != 200:
            raise ModelError(f"the model's server answered with {answer.status_code}")
        if len(answer.content) > ANSWER_BYTES_MAX:
            raise ModelError("the answer is too long")
        try:
            told: Any = answer.json()
            text = told["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise ModelError("the model's server answered in another form than chat completions") from None
        if not isinstance(text, str):
            raise ModelError("the answer is no text")
        return text
