"""What a session has at Google, as its transcript and this process know it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from holdfast.clock import epoch_ms
from holdfast.errors import HoldfastError
from holdfast.model.google_cache import GOOGLE_CACHE_TYPE, Kept, kept_from
from holdfast.session import entries as made

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.turn.turn import Turn

log = logging.getLogger("holdfast.model")


class SessionContents:
    """The cached contents of a turn's session. They stand in its transcript as metadata, so that other processes and
    later ones find them; behind a compaction none is found, and none could be used.
    """

    def __init__(self, hf: Holdfast, turn: Turn) -> None:
        self._hf = hf
        self._turn = turn
        self._noted: dict[tuple[str, str], Kept] = {}

    def now_ms(self) -> int:
        return epoch_ms(self._hf.clock.now())

    async def newest(self, model: str, key: str, /) -> Kept | None:
        """See `KeptContents`."""
        noted = self._noted.get((model, key))
        if noted is None:
            for line in reversed(await self._turn.branch()):
                if line.type == "custom" and line.custom_type == GOOGLE_CACHE_TYPE:
                    found = kept_from(line.value().get("data"))
                    if found is not None and (found.model, found.key) == (model, key):
                        noted = self._noted[model, key] = found
                        break
        return None if noted is None or noted.dropped else noted

    async def note(self, kept: Kept, /) -> None:
        """See `KeptContents`."""
        self._noted[kept.model, kept.key] = kept
        try:
            entry = made.custom(GOOGLE_CACHE_TYPE, kept.data(), visibility="audit")
            await self._hf.session(self._turn.session).append_metadata(entry)
        except HoldfastError as refused:
            log.info("a cached content is not noted, and is forgotten with this turn: %s", refused)
