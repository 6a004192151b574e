"""What a state in a database does not do in this release: conversations are not archived there, nothing is thrown away.

Loops that look after such things find nothing to do; whoever asks for one is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.errors import InputError


def _nothing(result: Any) -> Callable[..., Awaitable[Any]]:
    async def found(*_: object, **__: object) -> Any:
        return result

    return found


def _refused(what: str) -> Callable[..., Awaitable[Any]]:
    async def refuse(*_: object, **__: object) -> Any:
        raise InputError(f"{what} is not possible yet with a state in a database; use a state directory for it")

    return refuse


class Lacking:
    """The rest of `LifeStore` and `StoryStore` (`store/protocol.py`)."""

    tidy = _nothing(0)
    finish_deletions = _nothing(0)
    finish_archives = _nothing(0)
    begin_chore = _nothing(False)
    retained = _refused("retention")
    archive = _refused("archiving a conversation")
    check_archive = _refused("restoring an archive")
    restore = _refused("restoring an archive")
    delete_archive = _refused("deleting an archive")
    set_title = _refused("setting a title")
    note_read = _refused("noting what was read")
