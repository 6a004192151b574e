"""The `demo` provider: no network, no key, the same text every time, at the speed of somebody typing.

An answer is `echo #N: TEXT`, where TEXT is the last user message (over 2,000 characters: its beginning and its length)
and N counts the user messages in context, so that order can be seen. `demo/fast` streams without pauses. Words at the
very beginning of the message change what happens; several may follow each other, and the answer still quotes all of it:

    /tool NAME {json}   call this tool, if it is offered; the next step answers `echo #N: TEXT → NAME: RESULT`
    /fail WHAT [once]   fail: an HTTP status such as 429, 401 or 500, or `timeout`, `overflow` (context too long) or
                        `cut` (breaks off half-way). With `once` only `demo/demo` fails, so that a fallback
                        `demo/backup` answers
    /slow SECONDS       stream for that long
    /think              think aloud first
    /long WORDS         add that many words
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import ProviderError
from holdfast.ids import derived_id
from holdfast.model.catalog import DEMO, split_ref
from holdfast.model.client import ModelAnswer, ModelRequest, StreamItem, TextDelta, ThinkingDelta, zero_usage

WORD_DELAY_S = 0.025
QUOTE_CHARS_MAX = 2000
SLOW_S_MAX = 3600.0
LONG_WORDS_MAX = 100_000
SLOW_STEP_S = 0.5  # a slow stream shows a sign of life at least this often
FAST = "fast"
FAILS_ONCE = "demo"  # the one model that `/fail … once` fails for

_COMMAND = re.compile(r"\s*/(tool|fail|slow|think|long)\b[ \t]*")


@dataclass(frozen=True, slots=True)
class Script:
    """What the beginning of a message asks for."""

    tools: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fail: str | None = None
    fail_once: bool = False
    slow_s: float = 0.0
    think: bool = False
    long_words: int = 0


def read_script(text: str) -> Script:
    """The commands at the beginning of `text`. What does not parse as one is plain text."""
    tools: list[tuple[str, dict[str, Any]]] = []
    found: dict[str, Any] = {}
    while match := _COMMAND.match(text):
        rest = text[match.end() :]
        word = re.match(r"\S*", rest)
        argument = word[0] if word else ""
        match match[1]:
            case "think":
                found["think"] = True
                text = rest
                continue
            case "tool" if argument:
                arguments, rest = _leading_object(rest[len(argument) :])
                tools.append((argument, arguments))
                text = rest
                continue
            case "fail" if argument:
                found["fail"] = argument
                once = re.match(r"\s+once\b", rest[len(argument) :])
                found["fail_once"] = once is not None
                text = rest[len(argument) + (once.end() if once else 0) :]
                continue
            case "slow" if re.fullmatch(r"\d+(\.\d+)?", argument):
                found["slow_s"] = min(float(argument), SLOW_S_MAX)
            case "long" if argument.isdecimal() and len(argument) < 10:
                found["long_words"] = min(int(argument), LONG_WORDS_MAX)
            case _:
                break
        text = rest[len(argument) :]
    return Script(tools=tools, **found)


class DemoModel:
    """A `ModelClient` for every reference of provider `demo`.

    Args:
        clock: its sleeps make the pauses, so a virtual clock makes them free.
        word_delay_s: pause after each word, for every model but `demo/fast`.
    """

    def __init__(self, clock: Clock, *, word_delay_s: float = WORD_DELAY_S) -> None:
        self._clock = clock
        self._word_delay_s = word_delay_s

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamItem]:
        _, model = split_ref(request.model)
        users = [message for message in request.messages if message.get("role") == "user"]
        asked = _text(users[-1]) if users else ""
        script = read_script(asked)
        fails = script.fail is not None and not (script.fail_once and model != FAILS_ONCE)
        if fails and script.fail != "cut":
            raise _failure(script.fail or "", model)
        results = _results_after_last_user(request.messages)
        offered = {tool.name for tool in request.tools}
        calls = [] if results else _calls(script, offered, len(request.messages))
        text = _answer(script, asked, len(users), results, offered, bool(calls))
        thought = f"thinking about: {_quote(asked)}" if script.think else ""

        pieces = _words(text)
        delay_s = 0.0 if model == FAST else self._word_delay_s
        if script.slow_s and not calls:
            pieces += [" ."] * max(0, math.ceil(script.slow_s / SLOW_STEP_S) - len(pieces))
            delay_s = script.slow_s / len(pieces)
        for piece in _words(thought):
            yield ThinkingDelta(piece)
            await self._pause(delay_s)
        said = ""
        for index, piece in enumerate(pieces):
            if fails and index >= len(pieces) // 2:
                break
            said += piece
            yield TextDelta(piece)
            await self._pause(delay_s)
        if fails:
            raise ProviderError(
                f"the connection broke off after {len(said)} characters (demo/{model})",
                code="connection_error",
                provider="demo",
                model=model,
                partial=said,
            )
        yield _finished(request, model, thought, said, calls)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._clock.sleep(seconds)


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _answer(
    script: Script, asked: str, number: int, results: list[tuple[str, str]], offered: set[str], calling: bool
) -> str:
    if calling:
        return f"calling {', '.join(name for name, _ in script.tools if name in offered)}"
    text = f"echo #{number}: {_quote(asked)}"
    if results:
        text += " → " + "; ".join(f"{name}: {_quote(result)}" for name, result in results)
    missing = [name for name, _ in script.tools if name not in offered]
    if missing:
        text += f" (no tool named {', '.join(missing)} is offered)"
    if script.long_words:
        text += "".join(f" word{index}" for index in range(1, script.long_words + 1))
    return text


def _calls(script: Script, offered: set[str], context_length: int) -> list[dict[str, Any]]:
    # The id depends on the length of the context, so a call that is made again after a crash has another one.
    return [
        {
            "type": "toolCall",
            "id": "demo_" + derived_id("demo", context_length, index, name)[:24],
            "name": name,
            "arguments": arguments,
        }
        for index, (name, arguments) in enumerate(script.tools)
        if name in offered
    ]


def _finished(request: ModelRequest, model: str, thought: str, text: str, calls: list[dict[str, Any]]) -> ModelAnswer:
    content: list[dict[str, Any]] = []
    if thought:
        content.append({"type": "thinking", "thinking": thought})
    content.append({"type": "text", "text": text})
    content += calls
    return ModelAnswer(
        content=content,
        stop_reason="toolUse" if calls else "stop",
        provider="demo",
        model=model,
        api=DEMO,
        usage=_usage(request, json.dumps(content, ensure_ascii=False)),
    )


def _usage(request: ModelRequest, said: str) -> dict[str, Any]:
    """Four characters a token: wrong in detail, right in size."""
    read = (request.system or "") + json.dumps(request.messages, ensure_ascii=False)
    usage = zero_usage()
    usage["input"] = math.ceil(len(read) / 4)
    usage["output"] = math.ceil(len(said) / 4)
    usage["totalTokens"] = usage["input"] + usage["output"]
    return usage


def _failure(what: str, model: str) -> ProviderError:
    named: dict[str, tuple[int | None, str, str]] = {
        "timeout": (None, "timeout", "no answer in time"),
        "overflow": (400, "context_length_exceeded", "prompt is too long: 1000001 tokens > 1000000 maximum"),
        "429": (429, "rate_limit_exceeded", "Rate limit reached"),
        "500": (500, "server_error", "The server had an error while processing your request"),
        "529": (529, "overloaded_error", "Overloaded"),
    }
    status, code, text = named.get(what, (None, "unexpected_response", f"asked to fail with {what!r}"))
    if what not in named and re.fullmatch(r"[45]\d\d", what):
        status = int(what)
        code, text = f"http_{what}", HTTPStatus(status).phrase if status in set(HTTPStatus) else "failed"
    head = f"HTTP {status} {code}" if status else code
    return ProviderError(
        f"{head}: {text} (demo/{model})",
        status=status,
        code=code,
        provider="demo",
        model=model,
        body={"error": {"code": code, "message": text}},
        retry_after_s=1.0 if what == "429" else None,
    )


# ── reading the context ──────────────────────────────────────────────────────────────────────────────────────────────


def _results_after_last_user(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    results: list[tuple[str, str]] = []
    for message in messages:
        if message.get("role") == "user":
            results = []
        elif message.get("role") == "toolResult":
            results.append((str(message.get("toolName", "tool")), _text(message)))
    return results


def _text(message: dict[str, Any]) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", f"[{part.get('type')}]") for part in content)


def _quote(text: str) -> str:
    if len(text) <= QUOTE_CHARS_MAX:
        return text
    return f"{text[:200]}… ({len(text)} characters)"


def _words(text: str) -> list[str]:
    """The text in pieces that join to it again, each a word with the space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def _leading_object(text: str) -> tuple[dict[str, Any], str]:
    """The JSON object at the beginning of `text` and what follows it; an empty one if there is none."""
    stripped = text.lstrip()
    if not stripped.startswith("{"):
        return {}, text
    try:
        value, end = json.JSONDecoder().raw_decode(stripped)
    except (ValueError, RecursionError):
        return {}, text
    return value, stripped[end:]
