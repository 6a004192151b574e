"""Transcript messages (version 3) as pydantic-ai's, and its answers as transcript content.

Imports pydantic-ai; loaded with the first request.

Ids of tool calls are kept as long as every provider accepts them. Signatures and encrypted thinking go back only to the
provider they came from; thinking of another one is left out, for it would be read as something that was said.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_ai import messages as pm

from holdfast.context.conversions import Conversions
from holdfast.errors import InputError
from holdfast.ids import derived_id
from holdfast.model import catalog
from holdfast.model.catalog import ALIASES, ModelTarget
from holdfast.model.client import SIGN, Piece, TextDelta, ThinkingDelta, zero_usage

if TYPE_CHECKING:
    from pydantic_ai.usage import RequestUsage

log = logging.getLogger(__name__)

REDACTED_IDS = {catalog.ANTHROPIC: "redacted_thinking", catalog.BEDROCK: "redacted_content"}

# Fields in which compatible servers stream thinking and take it back; kept as the signature of a thinking part.
THINKING_FIELDS = frozenset({"reasoning", "reasoning_content"})

# The narrowest rule of all providers: Anthropic's alphabet, OpenAI's length.
_WIRE_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


def to_model_messages(
    messages: Sequence[dict[str, Any]], target: ModelTarget, system_name: str, kept: Conversions | None = None
) -> list[pm.ModelMessage]:
    """The context as requests and responses; neighbouring user messages and tool results share one request.

    Args:
        system_name: pydantic-ai's name of the provider that is asked; marks what may be sent back to it.
        kept: what was made of the session's messages before.

    Raises:
        InputError: a message that is not for a model: its role, a field that is missing, an image that is not base64.
    """

    def one_of(number: int, message: dict[str, Any]) -> pm.ModelMessage:
        try:
            return _response(message, target, system_name) if message["role"] == "assistant" else _request(message)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"message {number} of the context is malformed: {error!r}") from error

    form = (target.provider, target.api, system_name)
    made: list[pm.ModelMessage] = (kept or Conversions()).converted(messages, form, one_of)
    return _joined(made)


def _joined(made: Iterable[pm.ModelMessage]) -> list[pm.ModelMessage]:
    """Neighbouring requests in one, answers without anything that is sent left out. What is given is not changed."""
    out: list[pm.ModelMessage] = []
    for one in made:
        previous = out[-1] if out else None
        if isinstance(one, pm.ModelRequest) and isinstance(previous, pm.ModelRequest):
            out[-1] = pm.ModelRequest(parts=[*previous.parts, *one.parts])
        elif one.parts:
            out.append(one)
    return out


def to_content(parts: Iterable[pm.ModelResponsePart], target: ModelTarget, *, cut: bool) -> list[dict[str, Any]]:
    """An answer's parts as transcript content.

    Args:
        cut: the answer was cut at its length limit; a call whose arguments broke off is left out.

    Arguments that are no JSON object otherwise become `{"INVALID_JSON": text}`, which the tool's own check refuses, so
    that the model sees its mistake.
    """
    content: list[dict[str, Any]] = []
    for part in parts:
        match part:
            case pm.TextPart():
                if part.content:
                    content.append({"type": "text", "text": part.content, **_signed("textSignature", part, target)})
            case pm.ThinkingPart():
                content.append(_thinking(part, target))
            case pm.ToolCallPart():
                arguments = part.args_as_dict()
                if cut and "INVALID_JSON" in arguments:
                    continue
                call = {"type": "toolCall", "id": part.tool_call_id, "name": part.tool_name, "arguments": arguments}
                content.append({**call, **_signed("thoughtSignature", part, target)})
            case _:
                log.warning("%s: left out a part of kind %s, which transcripts cannot hold", target.ref, part.part_kind)
    return content


def to_delta(event: object) -> Piece:
    """What an event of a stream adds to what can be seen; a sign of life if that is nothing."""
    if type(event) is pm.PartDeltaEvent:  # nearly all of them are that: asked first, and once
        delta = event.delta
        if type(delta) is pm.TextPartDelta and delta.content_delta:
            return TextDelta(delta.content_delta)
        if type(delta) is pm.ThinkingPartDelta and delta.content_delta:
            return ThinkingDelta(delta.content_delta)
        return SIGN
    match event:
        case pm.PartStartEvent(part=pm.TextPart(content=text)) if text:
            return TextDelta(text)
        case pm.PartStartEvent(part=pm.ThinkingPart(content=text)) if text:
            return ThinkingDelta(text)
        case _:
            return SIGN


def to_usage(usage: RequestUsage) -> dict[str, Any]:
    """Token counts in the transcript's form: `input` is what was read neither from nor into the cache."""
    out = zero_usage()
    out["cacheRead"] = usage.cache_read_tokens
    out["cacheWrite"] = usage.cache_write_tokens
    out["input"] = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
    out["output"] = usage.output_tokens
    thought = usage.details.get("reasoning_tokens") or usage.details.get("thoughts_tokens") or 0
    if thought:
        out["reasoning"] = thought  # a part of `output`
    out["totalTokens"] = out["input"] + out["output"] + out["cacheRead"] + out["cacheWrite"]
    return out


def wire_id(call_id: str) -> str:
    """A tool call's id as every provider accepts it: itself, or a stand-in that follows from it alone."""
    if _WIRE_ID.fullmatch(call_id):
        return call_id
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', call_id)[:20]}_{derived_id('call', call_id)[:16]}"


# ── towards the provider ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an old answer came from, as seen by the provider that is asked now: `own` is what it said itself."""

    own: bool
    name: str
    api: str

    def signed(self, signature: object) -> dict[str, Any]:
        """The fields that carry a part's signature back; none for another provider, and only Google signs all parts."""
        if not signature or not self.own or self.api != catalog.GOOGLE:
            return {}
        return {"provider_name": self.name, "provider_details": {"thought_signature": signature}}


def _request(message: Mapping[str, Any]) -> pm.ModelRequest:
    role = message["role"]
    if role == "user":
        return pm.ModelRequest([pm.UserPromptPart(_said(message["content"]))])
    if role != "toolResult":
        raise InputError(f"a message with role {role!r} is not for a model; plan the context first")
    result = pm.ToolReturnPart(
        tool_name=message["toolName"],
        content=_result(message["content"]),
        tool_call_id=wire_id(message["toolCallId"]),
        outcome="failed" if message.get("isError") else "success",
    )
    return pm.ModelRequest([result])


def _response(message: Mapping[str, Any], target: ModelTarget, system_name: str) -> pm.ModelResponse:
    own = _same_provider(message.get("provider"), target)
    origin = _Origin(own, system_name if own else str(message.get("provider") or "unknown"), target.api)
    content: Any = message.get("content") or []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = [part for said in content if (part := _old_part(said, origin)) is not None]
    return pm.ModelResponse(parts=parts, provider_name=origin.name, model_name=message.get("model"))


def _old_part(part: Mapping[str, Any], origin: _Origin) -> pm.ModelResponsePart | None:
    """One part of an old answer; None for what is not sent: empty text, and thinking that cannot go back."""
    match part.get("type"):
        case "text" if part["text"].strip():
            return pm.TextPart(part["text"], **origin.signed(part.get("textSignature")))
        case "toolCall":
            signed = origin.signed(part.get("thoughtSignature"))
            arguments: dict[str, Any] = part.get("arguments") or {}
            return pm.ToolCallPart(part["name"], arguments, wire_id(str(part["id"])), **signed)
        case "thinking" if origin.own and _goes_back(part.get("thinkingSignature"), origin):
            return _old_thinking(str(part.get("thinking", "")), part["thinkingSignature"], part, origin)
        case _:
            return None


def _goes_back(signature: object, origin: _Origin) -> bool:
    return signature in THINKING_FIELDS if origin.api == catalog.OPENAI else bool(signature)


def _old_thinking(text: str, signature: str, part: Mapping[str, Any], origin: _Origin) -> pm.ThinkingPart:
    if origin.api == catalog.OPENAI:
        return pm.ThinkingPart(text, id=signature, provider_name=origin.name)
    if origin.api == catalog.GOOGLE:
        return pm.ThinkingPart(text, **origin.signed(signature))
    redacted = REDACTED_IDS[origin.api] if part.get("redacted") else None
    return pm.ThinkingPart("" if redacted else text, id=redacted, signature=signature, provider_name=origin.name)


def _same_provider(provider: object, target: ModelTarget) -> bool:
    name = str(provider or "")
    return ALIASES.get(name, name) == ALIASES.get(target.provider, target.provider)


def _said(content: object) -> str | list[pm.UserContent]:
    if isinstance(content, str):
        return content
    return [_image(part) if part.get("type") == "image" else str(part.get("text", "")) for part in _parts(content)]


def _result(content: object) -> str | list[str | pm.BinaryContent]:
    if isinstance(content, str):
        return content
    parts = _parts(content)
    text = "\n".join(str(part.get("text", "")) for part in parts if part.get("type") != "image")
    images = [_image(part) for part in parts if part.get("type") == "image"]
    return [text, *images] if images else text


def _parts(content: object) -> list[Mapping[str, Any]]:
    if not isinstance(content, list):
        raise InputError(f"message content must be text or a list of parts, not {type(content).__name__}")
    return content


def _image(part: Mapping[str, Any]) -> pm.BinaryContent:
    try:
        data = base64.b64decode(part["data"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise InputError("an image part holds no base64 data") from error
    return pm.BinaryContent(data=data, media_type=str(part.get("mimeType", "image/png")))


# ── back from the provider ───────────────────────────────────────────────────────────────────────────────────────────


def _thinking(part: pm.ThinkingPart, target: ModelTarget) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "thinking", "thinking": part.content}
    if target.api == catalog.OPENAI:
        if part.id in THINKING_FIELDS:
            out["thinkingSignature"] = part.id
        return out
    if part.signature:
        out["thinkingSignature"] = part.signature
    if part.id in REDACTED_IDS.values():
        out["redacted"] = True
    return {**out, **_signed("thinkingSignature", part, target)}


def _signed(key: str, part: pm.TextPart | pm.ThinkingPart | pm.ToolCallPart, target: ModelTarget) -> dict[str, Any]:
    signature = (part.provider_details or {}).get("thought_signature") if target.api == catalog.GOOGLE else None
    return {key: signature} if signature else {}
