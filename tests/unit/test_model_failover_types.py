"""What the failover loop cannot be given. The type checker refuses it too: the ignores below are errors of their own
as soon as they are not needed (`reportUnnecessaryTypeIgnoreComment`).
"""

from __future__ import annotations

import pytest

from holdfast.errors import SessionBusyError
from holdfast.model.failover import ProviderFailure
from holdfast.model.failure import FailureClass


def test_a_coordination_error_is_no_failure_of_a_provider() -> None:
    busy = SessionBusyError("s", 1.0, "somebody")
    with pytest.raises(TypeError, match="no failure of a model"):
        ProviderFailure(busy, FailureClass(None, False, ""), "")  # pyright: ignore[reportArgumentType]  # the point


def test_neither_is_a_class_of_coordination() -> None:
    from holdfast.errors import ProviderError

    with pytest.raises(TypeError, match="no failure of a model"):
        ProviderFailure(ProviderError("x"), FailureClass(None, True, "type SessionTakeoverError"), "")
