"""pydantic-ai's model of Google, with cached contents. Imports the SDK; loaded with the first request.

The library can name a cached content in a request and makes none; what a content holds has to be taken out of the
request, which is done here, where the request has Google's own form.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pydantic_ai.models.google import GoogleModel, GoogleModelSettings

from holdfast.model.google_cache import Beginning, CachedRequest, Kept, choose, newest_question
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import ModelRequestParameters

log = logging.getLogger("holdfast.model")
MAKING_S = 30.0
"""Longer than that nobody waits for a content to be made; the request goes without."""
REFUSED_MS = 600_000
"""A key that may not make any is not asked to for so long: accounts without payment have none."""

cached_request: ContextVar[CachedRequest | None] = ContextVar("cached_request", default=None)
"""That of the request which this task is sending."""


class CachingGoogleModel(GoogleModel):
    """Sends the beginning of a request as a cached content where there is one for it."""

    refused_until_ms = 0

    async def _build_content_and_config(
        self, messages: list[ModelMessage], model_settings: GoogleModelSettings,
        model_request_parameters: ModelRequestParameters,
    ) -> Any:  # fmt: skip
        contents, config = await super()._build_content_and_config(messages, model_settings, model_request_parameters)
        request = cached_request.get()
        if request is None or request.without:
            return contents, config
        plain, whole = cast("list[Any]", contents), cast("dict[str, Any]", config)
        kept = await self._kept_for(request, plain, whole)
        if kept is None:
            return contents, config
        request.used = kept
        whole |= {"cached_content": kept.name, "system_instruction": None, "tools": None, "tool_config": None}
        return contents[kept.contents :], config

    async def _kept_for(self, request: CachedRequest, contents: list[Any], config: dict[str, Any]) -> Kept | None:
        """The content to send it with, made or renewed if need be."""
        now_ms, model = request.kept.now_ms(), self.model_name
        at = newest_question(contents)
        old = await request.kept.newest(model, request.key)
        begins = _beginning(model, config, contents, at)
        held = None if old is None or old.contents > at else _beginning(model, config, contents, old.contents)
        same = old is not None and held is not None and held.digest == old.digest
        rest = begins.chars - held.chars if held is not None else 0
        what = choose(old, begins, same, rest_chars=rest, goes_on=request.goes_on, now_ms=now_ms,
                      settings=request.settings)  # fmt: skip
        if what == "renew" and old is not None:
            what = "use" if (old := await self._renewed(request, old, now_ms)) is not None else "make"
        made = None
        if what == "make" and now_ms >= self.refused_until_ms:
            made = await self._made(request, contents[:at], config, begins, now_ms)
        if old is not None and (made is not None or not same):
            await self._drop(request, old)
            if made is None:
                await request.kept.note(replace(old, dropped=True))
        if made is not None:
            return made
        return old if what in ("use", "make") and same else None

    async def _made(
        self, request: CachedRequest, contents: list[Any], config: dict[str, Any], begins: Beginning, now_ms: int
    ) -> Kept | None:
        own = {name: config.get(name) for name in ("system_instruction", "tools", "tool_config")}
        own = {name: value for name, value in own.items() if value is not None}
        wanted: Any = {**own, "contents": contents or None, "ttl": f"{request.settings.ttl_s}s"}
        try:
            async with asyncio.timeout(MAKING_S):
                found = await self.client.aio.caches.create(model=self.model_name, config=wanted)
        except Exception as refused:  # noqa: BLE001  # whatever it is, the request does without
            self.refused_until_ms = now_ms + REFUSED_MS
            log.warning("%s: no cached content could be made, none is tried for %d min: %s", self.model_name,
                        REFUSED_MS // 60_000, on_one_line(str(refused))[:200])  # fmt: skip
            return None
        if not found.name:
            return None
        counted = found.usage_metadata.total_token_count if found.usage_metadata is not None else None
        request.written += counted or 0
        kept = Kept(found.name, self.model_name, request.key, begins.digest, begins.contents, begins.chars,
                    now_ms + request.settings.ttl_s * 1000)  # fmt: skip
        await request.kept.note(kept)
        return kept

    async def _renewed(self, request: CachedRequest, kept: Kept, now_ms: int) -> Kept | None:
        """The same for its whole time again; None: it is not there any more."""
        try:
            async with asyncio.timeout(MAKING_S):
                await self.client.aio.caches.update(name=kept.name, config={"ttl": f"{request.settings.ttl_s}s"})
        except Exception:  # noqa: BLE001  # as above
            await request.kept.note(replace(kept, dropped=True))
            return None
        again = replace(kept, expires_at_ms=now_ms + request.settings.ttl_s * 1000)
        await request.kept.note(again)
        return again

    async def _drop(self, request: CachedRequest, kept: Kept) -> None:
        """Nobody uses it any more. One that cannot be deleted ends by itself."""
        if request.kept.now_ms() < kept.expires_at_ms:
            try:
                async with asyncio.timeout(MAKING_S):
                    await self.client.aio.caches.delete(name=kept.name)
            except Exception as failed:  # noqa: BLE001  # as above
                log.info("a cached content was not deleted and ends by itself: %s", type(failed).__name__)


def _beginning(model: str, config: dict[str, Any], contents: list[Any], at: int) -> Beginning:
    own = [model, config.get("system_instruction"), config.get("tools"), config.get("tool_config"), contents[:at]]
    text = json.dumps(own, default=_plain, sort_keys=True)
    return Beginning(hashlib.sha256(text.encode()).hexdigest(), at, len(text))


def _plain(value: Any) -> Any:
    """What JSON has no form for: bytes of images by their digest, enumerations and models by what they say."""
    if isinstance(value, bytes):
        return base64.b64encode(hashlib.sha256(value).digest()).decode()
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else str(value)
