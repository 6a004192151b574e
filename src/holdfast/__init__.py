"""Holdfast: a runtime for long-lived AI agents that is honest about who owns a conversation.

    async with holdfast.open("./state") as hf:
        async with hf.turn("agent:main:main", wait_s=30) as turn:
            await turn.append(holdfast.user("hello"))
            async with turn.prompt_window() as window:
                answer = await call_any_model(await turn.context())
                window.finished(answer)
            await turn.append(holdfast.assistant(answer, model="demo/demo"))

Follow a message from top to bottom: `inbound`, `lane`, `turn`, `context`, `model`, `session`, `outbox`, `channel`. What
is promised is in the README; where it is kept, in `store`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.version import __version__

if TYPE_CHECKING:
    from holdfast.errors import (
        AllModelsFailedError,
        ChannelError,
        ChannelRefusedError,
        ConfigError,
        CoordinationError,
        DrainingError,
        HoldfastError,
        InputConflictError,
        InputError,
        InputTooLargeError,
        OwnershipLostError,
        ProviderError,
        ResourceError,
        SendUnknownError,
        SessionBusyError,
        SessionMovedError,
        SessionTakeoverError,
        SessionWriteLockLostError,
        SessionWriteLockStaleError,
        SessionWriteLockTimeoutError,
        SpendingLimitError,
        StateAwayError,
        StateVersionError,
        StoreStoppedError,
        TranscriptFormatError,
        TranscriptUnsettledError,
        TurnCancelledError,
        TurnLimitError,
        TurnStalledError,
        UnknownInputError,
        UnknownSessionError,
        WaitRingError,
    )
    from holdfast.inbound.child import Child, Refused
    from holdfast.inbound.event import Accepted, Duplicate, InboundEvent, LaneFull, Route
    from holdfast.kernel import Holdfast, Session
    from holdfast.opening import (
        open,  # noqa: A004  # `holdfast.open` is the name people look for
        open_reader,
    )
    from holdfast.outbox.message import Outcome
    from holdfast.session.entries import (
        assistant,
        custom,
        custom_message,
        label,
        mirror,
        model_change,
        session_info,
        tool_result,
        user,
    )
    from holdfast.session.fence import Verdict
    from holdfast.turn.turn import Turn

__all__ = [
    "Accepted",
    "AllModelsFailedError",
    "ChannelError",
    "ChannelRefusedError",
    "Child",
    "ConfigError",
    "CoordinationError",
    "DrainingError",
    "Duplicate",
    "Holdfast",
    "HoldfastError",
    "InboundEvent",
    "InputConflictError",
    "InputError",
    "InputTooLargeError",
    "LaneFull",
    "Outcome",
    "OwnershipLostError",
    "ProviderError",
    "Refused",
    "ResourceError",
    "Route",
    "SendUnknownError",
    "Session",
    "SessionBusyError",
    "SessionMovedError",
    "SessionTakeoverError",
    "SessionWriteLockLostError",
    "SessionWriteLockStaleError",
    "SessionWriteLockTimeoutError",
    "SpendingLimitError",
    "StateAwayError",
    "StateVersionError",
    "StoreStoppedError",
    "TranscriptFormatError",
    "TranscriptUnsettledError",
    "Turn",
    "TurnCancelledError",
    "TurnLimitError",
    "TurnStalledError",
    "UnknownInputError",
    "UnknownSessionError",
    "Verdict",
    "WaitRingError",
    "__version__",
    "assistant",
    "custom",
    "custom_message",
    "label",
    "mirror",
    "model_change",
    "open",
    "open_reader",
    "session_info",
    "tool_result",
    "user",
]

# Loaded when first asked for, so that `holdfast --version` and a program that needs only the errors pay for nothing
# else (asyncio, msgspec and SQLite are most of the 150 ms). tests/promises holds the three lists together.
_HOMES = {
    "holdfast.errors": (
        "AllModelsFailedError",
        "ChannelError",
        "ChannelRefusedError",
        "ConfigError",
        "CoordinationError",
        "DrainingError",
        "HoldfastError",
        "InputConflictError",
        "InputError",
        "InputTooLargeError",
        "OwnershipLostError",
        "ProviderError",
        "ResourceError",
        "SendUnknownError",
        "SessionBusyError",
        "SessionMovedError",
        "SessionTakeoverError",
        "SessionWriteLockLostError",
        "SessionWriteLockStaleError",
        "SessionWriteLockTimeoutError",
        "StateVersionError",
        "StateAwayError",
        "StoreStoppedError",
        "TranscriptFormatError",
        "TranscriptUnsettledError",
        "TurnCancelledError",
        "TurnStalledError",
        "SpendingLimitError",
        "TurnLimitError",
        "UnknownInputError",
        "UnknownSessionError",
        "WaitRingError",
    ),
    "holdfast.inbound.child": ("Child", "Refused"),
    "holdfast.inbound.event": ("Accepted", "Duplicate", "InboundEvent", "LaneFull", "Route"),
    "holdfast.kernel": ("Holdfast", "Session"),
    "holdfast.opening": ("open", "open_reader"),
    "holdfast.outbox.message": ("Outcome",),
    "holdfast.session.entries": (
        "assistant",
        "custom",
        "custom_message",
        "label",
        "mirror",
        "model_change",
        "session_info",
        "tool_result",
        "user",
    ),
    "holdfast.session.fence": ("Verdict",),
    "holdfast.turn.turn": ("Turn",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
