"""What OpenClaw knows of a session besides what was said: an entry of `sessions.json`, or of its newer database. Pure.

Source: the documented fields of OpenClaw 2026.5; who set a model's override, and in place of what, follows its rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.lane.queue import read_change
from holdfast.moving.conversation import PinWish

KNOWN = frozenset(
    (
        "sessionId", "sessionFile", "updatedAt", "createdAt", "sessionStartedAt", "lastInteractionAt", "displayName",
        "label", "subject", "providerOverride", "modelOverride", "modelOverrideSource",
        "modelOverrideFallbackOriginProvider", "modelOverrideFallbackOriginModel", "queueMode", "queueDebounceMs",
        "queueCap", "queueDrop",
    )
)  # fmt: skip
REPORTS = frozenset(
    (
        "modelProvider", "model", "inputTokens", "outputTokens", "totalTokens", "totalTokensFresh", "cacheRead",
        "cacheWrite", "contextTokens", "estimatedCostUsd", "compactionCount", "systemSent", "abortedLastRun", "status",
        "startedAt", "endedAt", "runtimeMs", "systemPromptReport", "skillsSnapshot", "fallbackNoticeSelectedModel",
        "fallbackNoticeActiveModel", "fallbackNoticeReason", "memoryFlushAt", "memoryFlushCompactionCount",
        "lastHeartbeatText", "lastHeartbeatSentAt", "agentHarnessId", "origin", "chatType", "channel", "groupId",
        "groupChannel", "space", "deliveryContext", "lastChannel", "lastTo", "lastAccountId", "lastThreadId", "route",
        "compactionCheckpoints", "delivery", "archivedAt", "usageFamilyKey", "usageFamilySessionIds",
        "pluginDebugEntries",
    )
)  # fmt: skip
"""What a run left behind for reports, or what the key says already: nothing is lost with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One such entry: `left` names the wishes in it that have no counterpart here."""

    session_id: str
    file: str | None
    title: str | None
    pin: PinWish | None
    queue: dict[str, Any]
    left: tuple[str, ...]


def read_entry(entry: Mapping[str, Any]) -> Entry:
    """Fields of a wrong type count as absent."""
    return Entry(
        session_id=_text(entry, "sessionId") or "",
        file=_text(entry, "sessionFile"),
        title=_text(entry, "displayName") or _text(entry, "label") or _text(entry, "subject"),
        pin=_pin(entry),
        queue=_queue(entry),
        left=tuple(sorted(name for name, value in entry.items() if name not in KNOWN | REPORTS and value is not None)),
    )


def _pin(entry: Mapping[str, Any]) -> PinWish | None:
    """An override without a source is a person's, unless it names the model that it stands in for."""
    model = _ref(_text(entry, "providerOverride"), _text(entry, "modelOverride"))
    origin = _ref(_text(entry, "modelOverrideFallbackOriginProvider"), _text(entry, "modelOverrideFallbackOriginModel"))
    source = _text(entry, "modelOverrideSource")
    if model is None:
        return None
    if source == "auto" or (source is None and origin is not None):
        return PinWish(model, "auto", origin) if origin is not None else None
    return PinWish(model, "user")


def _queue(entry: Mapping[str, Any]) -> dict[str, Any]:
    """As `/queue` takes them; what it does not take is left out."""
    debounce = entry.get("queueDebounceMs")
    words = [
        str(entry.get("queueMode")),
        f"debounce:{debounce}ms",
        f"cap:{entry.get('queueCap')}",
        f"drop:{entry.get('queueDrop')}",
    ]
    said: dict[str, Any] = {}
    for word in words:
        with suppress(InputError):
            said |= read_change([word])
    return said


def _ref(provider: str | None, model: str | None) -> str | None:
    if model is None:
        return None
    return f"{provider}/{model}" if provider else (model if "/" in model else None)


def _text(entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    return value.strip() if isinstance(value, str) and value.strip() else None
