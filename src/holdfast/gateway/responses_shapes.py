"""OpenAI's Responses API as data: what a request asks for, what responses and their events look like. Pure.

A request is read as the chat request that says the same, so both APIs keep the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from holdfast.errors import InputError
from holdfast.gateway.openai_shapes import ChatRequest, Ending, read_chat
from holdfast.gateway.replies import Refusal
from holdfast.ids import derived_id

PREFIX = "resp_"
_SETTINGS = ("temperature", "top_p", "parallel_tool_calls", "user", "stream")
_UNSUPPORTED = {
    "background": "an answer that is not waited for is POST /api/sessions/{key}/messages",
    "conversation": "name the session with X-Holdfast-Session, or the last response with previous_response_id",
    "prompt": "stored prompts are not known here; send input and instructions",
}
_LEFT_OUT = ("reasoning", "item_reference")
"""Items that say nothing new: the session holds what they refer to."""


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """What a client asks for. `previous`: id of the input whose session it continues; None: none is named."""

    chat: ChatRequest
    previous: str | None
    instructions: str | None


def input_of(response_id: str) -> str:
    """The id of the input that a response answers."""
    return response_id.removeprefix(PREFIX)


def read_request(body: dict[str, Any]) -> ResponsesRequest:
    """A request for a response.

    Raises:
        InputError: malformed, or it asks for what a session cannot give; names the place. Unknown keys are let be.
    """
    for key, way_out in _UNSUPPORTED.items():
        if body.get(key):
            raise InputError(f"{key}: is not supported: {way_out}")
    previous, instructions = body.get("previous_response_id"), body.get("instructions")
    if previous is not None and (not isinstance(previous, str) or not previous.startswith(PREFIX)):
        raise InputError(f"previous_response_id: must be the id of a response ({PREFIX}…)")
    if instructions is not None and not isinstance(instructions, str):
        raise InputError("instructions: must be a string")
    messages, places = _messages(body.get("input"))
    if instructions:
        messages, places = [{"role": "system", "content": instructions}, *messages], ["instructions", *places]
    chat: dict[str, Any] = {key: body[key] for key in _SETTINGS if key in body}
    chat |= {"model": body["model"]} if "model" in body else {}
    chat |= {"messages": messages, "tools": _tools(body.get("tools"))}
    chat |= {"max_completion_tokens": body["max_output_tokens"]} if body.get("max_output_tokens") is not None else {}
    chat |= _more_settings(body)
    try:
        return ResponsesRequest(read_chat(chat), input_of(previous) if previous else None, instructions)
    except InputError as exc:
        raise InputError(_in_their_words(str(exc), places)) from exc


def _more_settings(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("reasoning", "text"):
        if not isinstance(body.get(key) or {}, dict):
            raise InputError(f"{key}: must be an object")
    effort = (body.get("reasoning") or {}).get("effort")
    found |= {"reasoning_effort": effort} if effort is not None else {}
    form = (body.get("text") or {}).get("format") or {}
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {name: form[name] for name in ("name", "description", "schema", "strict") if name in form}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif isinstance(form, dict) and form.get("type") == "json_object":
        found["response_format"] = {"type": "json_object"}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return found | ({"tool_choice": choice} if choice is not None else {})


def _tools(tools: Any) -> Any:
    """Function tools in the chat API's form; what is none is refused there."""
    if not isinstance(tools, list):
        return tools
    read: list[Any] = []
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise InputError(f"tools[{index}]: a tool of type {kind!r} is not run here; offer functions")
        read.append({"type": "function", "function": {name: tool[name] for name in tool if name != "type"}})
    return read


def _messages(given: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Chat messages of `input`, and of each the place it comes from. Items of one answer become one message."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}], ["input"]
    if not isinstance(given, list) or not given:
        raise InputError("input: must be text, or a list with at least one item")
    messages: list[dict[str, Any]] = []
    places: list[str] = []
    for index, item in enumerate(given):
        where = f"input[{index}]"
        message = _message(item, where)
        if message is None:
            continue
        if message["role"] == "assistant" and messages and messages[-1]["role"] == "assistant":
            messages[-1] = _joined(messages[-1], message)
        else:
            messages.append(message)
            places.append(where)
    return messages, places


def _message(item: Any, where: str) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        raise InputError(f"{where}: must be an object")
    kind = item.get("type") or "message"
    if kind in _LEFT_OUT:
        return None
    if kind == "message":
        return {"role": item.get("role"), "content": _content(item.get("content"), where)}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _content(item.get("output"), where)}
    raise InputError(f"{where}: an item of type {kind!r} is not supported")


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    raise InputError(f"{where}: a part of type {kind!r} is not supported; use input_text or input_image")


def _joined(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    said = [one["content"] for one in (first, then) if one["content"]]
    if len(said) == 2:
        parts = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in said]
        said = [[*parts[0], *parts[1]]]
    calls = [*first.get("tool_calls", ()), *then.get("tool_calls", ())]
    return {"role": "assistant", "content": said[0] if said else None} | ({"tool_calls": calls} if calls else {})


def _in_their_words(fault: str, places: list[str]) -> str:
    """A fault of a chat message, with the name its place has in a Responses request."""

    def place(match: re.Match[str]) -> str:
        at = int(match[1])
        return places[at] if at < len(places) else "input"

    return re.sub(r"^messages(?=:)", "input", re.sub(r"messages\[(\d+)\]", place, fault))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """One input's answer as a response object. Ids and times follow from the input, so a replay looks the same."""

    input_id: str
    model: str
    created_s: int
    previous: str | None = None
    instructions: str | None = None

    def body(self, status: str, output: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": f"{PREFIX}{self.input_id}", "object": "response", "created_at": self.created_s, "status": status,
            "error": None, "incomplete_details": None, "instructions": self.instructions, "metadata": {},
            "model": self.model, "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "temperature": None, "top_p": None, "text": {"format": {"type": "text"}}, "store": True, "usage": None,
            "previous_response_id": f"{PREFIX}{self.previous}" if self.previous else None,
        } | more  # fmt: skip

    def ended(self, ending: Ending, told: dict[str, Any]) -> dict[str, Any]:
        """The whole of it."""
        is_cut = ending.finish == "length"
        output = [self.message(ending.text, "incomplete" if is_cut else "completed")] if ending.text else []
        output += [self.call(call) for call in ending.tool_calls]
        more: dict[str, Any] = {"usage": _usage(ending.usage), **told}
        more |= {"model": ending.model} if ending.model else {}
        more |= {"incomplete_details": {"reason": "max_output_tokens"}} if is_cut else {}
        return self.body("incomplete" if is_cut else "completed", output, **more)

    def failed(self, code: str, message: str, status: str = "failed") -> dict[str, Any]:
        return self.body(status, [], error={"code": code, "message": message})

    def message(self, text: str, status: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        return {"type": "message", "id": self.message_id, "status": status, "role": "assistant", "content": content}

    @property
    def message_id(self) -> str:
        return f"msg_{self.input_id}"

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        """A function call from its chat form."""
        return {
            "type": "function_call", "id": f"fc_{derived_id('call', self.input_id, call['id'])}",
            "call_id": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"],
            "status": "completed",
        }  # fmt: skip


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": usage["prompt_tokens_details"]["cached_tokens"]},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


class ResponseEvents:
    """The events of one response, numbered. One per caller (`exchange.Presenter`)."""

    def __init__(self, response: ResponseShape) -> None:
        self._response = response
        self._number = 0
        self._said = ""
        self._is_open = False

    def opening(self) -> Iterator[bytes]:
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self._response.body("in_progress", []))

    def text(self, text: str) -> Iterator[bytes]:
        if not self._is_open:
            self._is_open = True
            item = self._response.message("", "in_progress") | {"content": []}
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._of_text("response.content_part.added", part=self._part(""))
        self._said += text
        yield self._of_text("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, ending: Ending, rest: str, told: dict[str, Any]) -> Iterator[bytes]:
        if rest:
            yield from self.text(rest)
        whole = self._response.ended(ending, told)
        items = whole["output"]
        if self._is_open:
            text = self._said
            yield self._of_text("response.output_text.done", text=text, logprobs=[])
            yield self._of_text("response.content_part.done", part=self._part(text))
            items = [self._response.message(text, "completed"), *(i for i in items if i["type"] != "message")]
            yield self._event("response.output_item.done", output_index=0, item=items[0])
        for index, item in enumerate(items):
            if item["type"] == "function_call":
                yield from self._call(index, item)
        kind = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
        yield self._event(kind, response=whole | {"output": items})

    def failing(self, refusal: Refusal) -> Iterator[bytes]:
        failed = self._response.failed(refusal.code or "server_error", refusal.message)
        yield self._event("response.failed", response=failed)

    def whole(self, ending: Ending, told: dict[str, Any]) -> dict[str, Any]:
        return self._response.ended(ending, told)

    def _call(self, index: int, item: dict[str, Any]) -> Iterator[bytes]:
        begun = item | {"arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=index, item=begun)
        about: dict[str, Any] = {"item_id": item["id"], "output_index": index}
        yield self._event("response.function_call_arguments.delta", **about, delta=item["arguments"])
        yield self._event(
            "response.function_call_arguments.done", **about, name=item["name"], arguments=item["arguments"]
        )
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _of_text(self, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=self._response.message_id, output_index=0, content_index=0, **more)

    @staticmethod
    def _part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _event(self, kind: str, **more: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **more}
        self._number += 1
        return f"event: {kind}\n".encode() + b"data: " + msgspec.json.encode(data) + b"\n\n"
