"""Holdfast: a runtime for long-lived AI agents that is honest about who owns a conversation.

    async with holdfast.open("./state") as hf:
        async with hf.turn("agent:main:main", wait_s=30) as turn:
            await turn.append(holdfast.user("hello"))
            async with turn.prompt_window() as window:
                answer = await call_any_model(await turn.context())
                window.finished(answer)
            await turn.append(holdfast.assistant(answer, model="demo/demo"))

Follow a message from top to bottom: `inbound`, `lane`, `turn`, `context`, `model`, `session`, `outbox`, `channel`. What is
promised is in the README; where it is kept, in `store`.
"""

from holdfast.errors import (
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
    SessionBusyError,
    SessionTakeoverError,
    SessionWriteLockTimeoutError,
    StateVersionError,
    StoreStoppedError,
    TranscriptFormatError,
    TranscriptUnsettledError,
    TurnCancelledError,
    TurnLimitError,
    UnknownInputError,
    UnknownSessionError,
    WaitRingError,
)
from holdfast.inbound.event import Accepted, Duplicate, InboundEvent, LaneFull, Route
from holdfast.kernel import Holdfast, Session
from holdfast.opening import open  # noqa: A004  # `holdfast.open` is the name people look for
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

__version__ = "0.1.0"

__all__ = [
    "Accepted",
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
    "ResourceError",
    "Route",
    "Session",
    "SessionBusyError",
    "SessionTakeoverError",
    "SessionWriteLockTimeoutError",
    "StateVersionError",
    "StoreStoppedError",
    "TranscriptFormatError",
    "TranscriptUnsettledError",
    "Turn",
    "TurnCancelledError",
    "TurnLimitError",
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
    "session_info",
    "tool_result",
    "user",
]
