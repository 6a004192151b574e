"""Slack's Web API: one request per call, and what became of it in the words of the contract (`channel.py`).

The client of slack-sdk, with its own retries turned off: what is tried again, and when, is the outbox's. An answer with
`ok` says that it was done, one with an `error` that it was not, but for errors in the middle of the work.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from holdfast.errors import ChannelError, ChannelRefusedError, SendUnknownError

SLACK_URL = "https://slack.com/api/"
REQUEST_S = 20.0
"""Longest request."""
PERMANENT = frozenset({
    "access_denied", "account_inactive", "as_user_not_supported", "cannot_dm_bot", "cannot_reply_to_message",
    "cant_delete_message", "cant_update_message", "channel_not_found", "channel_type_not_supported",
    "edit_window_closed", "ekm_access_denied", "enterprise_is_restricted", "invalid_arguments", "invalid_auth",
    "invalid_blocks", "invalid_cursor", "invalid_metadata_format", "invalid_metadata_schema", "is_archived",
    "is_inactive", "message_not_found", "messages_tab_disabled", "metadata_must_be_sent_from_app",
    "metadata_too_large", "method_deprecated", "missing_scope", "msg_too_long", "no_dual_broadcast_content_update",
    "no_permission", "no_text", "not_allowed_token_type", "not_authed", "not_in_channel", "org_login_required",
    "restricted_action", "restricted_action_non_threadable_channel", "restricted_action_read_only_channel",
    "restricted_action_thread_locked", "restricted_action_thread_only_channel", "thread_not_found", "token_expired",
    "token_revoked", "two_factor_setup_required", "user_disabled", "user_not_found", "user_not_visible",
    "users_not_found",
})  # fmt: skip
"""Errors that trying again does not help against: somebody has to do something first."""
UNKNOWN = frozenset({"fatal_error", "internal_error", "service_unavailable"})
"""After these something may have been done all the same, as Slack's reference says."""
LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
log = logging.getLogger("holdfast.channels.slack")


class SlackWeb:
    """Calls methods with one token. Opens no connection before the first call; `close` ends all.

    Args:
        url: of the API. env: where a proxy is looked up (`HTTPS_PROXY`).
    """

    def __init__(self, token: str, url: str | None, env: Mapping[str, str]) -> None:
        self._token = token
        self._url = url or SLACK_URL
        self.proxy = (env.get("HTTPS_PROXY") or env.get("https_proxy")) if self._url.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None
        self._client: AsyncWebClient | None = None

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Do something, such as `chat.postMessage`; its answer.

        Raises:
            ChannelRefusedError: it was not done. SendUnknownError: nobody knows.

        Cancelled: the connection is closed; whether it was done is unknown.
        """
        return await self._request(method, "json", arguments)

    async def read(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask for something, such as `conversations.history`; raises as `call`."""
        return await self._request(method, "params", arguments)

    async def open_socket(self, app_token: str) -> str:
        """The address of a new socket for an app; raises as `call`."""
        answer = await self._request("apps.connections.open", "json", {}, token=app_token)
        return str(answer.get("url", ""))

    async def download(self, url: str, bytes_max: int) -> bytes:
        """A file of a message. The token is sent to Slack alone, wherever an address leads.

        Raises:
            ChannelError: it is larger, or cannot be had.
        """
        if not self._is_slack(url):
            raise ChannelError(f"the file is not on Slack but on {urlsplit(url).hostname}")
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self._open().get(url, headers=headers, proxy=self.proxy, allow_redirects=False) as answer:
                if answer.status != 200 or answer.content_type == "text/html":  # a page that asks to log in
                    raise ChannelError(f"Slack gave no file (status {answer.status}); does the app have files:read?")
                content = bytearray()
                async for chunk in answer.content.iter_chunked(65_536):
                    content += chunk
                    if len(content) > bytes_max:
                        raise ChannelError(f"the file is larger than {bytes_max} bytes")
                return bytes(content)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise ChannelError(f"Slack gave no file: {type(exc).__name__}") from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def client(self) -> AsyncWebClient:
        """slack-sdk's own, on our connections."""
        if self._client is None:
            self._client = AsyncWebClient(
                self._token, base_url=self._url, session=self._open(), retry_handlers=[], logger=quiet_logger()
            )
            self._client.proxy = self.proxy  # else it looks in the environment of the process
        return self._client

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S))
        return self._session

    def _is_slack(self, url: str) -> bool:
        parts, ours = urlsplit(url), urlsplit(self._url)
        host = parts.hostname or ""
        is_theirs = parts.scheme == "https" and (host == "slack.com" or host.endswith(".slack.com"))
        return is_theirs or (parts.scheme, parts.netloc) == (ours.scheme, ours.netloc)

    async def _request(
        self, method: str, how: str, arguments: dict[str, Any], token: str | None = None
    ) -> dict[str, Any]:
        given = {name: value for name, value in {**arguments, "token": token}.items() if value is not None}
        try:
            client = self.client()
            if how == "params":
                answer = await client.api_call(method, http_verb="GET", params=given)
            else:
                answer = await client.api_call(method, json=given)
        except SlackApiError as exc:
            raise _told(method, exc.response) from exc
        except aiohttp.ClientConnectorError as exc:  # nothing has gone out
            raise ChannelRefusedError(f"no connection to Slack: {type(exc).__name__}") from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise SendUnknownError(f"the connection to Slack broke in {method}: {type(exc).__name__}") from exc
        return answer.data if isinstance(answer.data, dict) else {}


def _told(method: str, response: Any) -> ChannelError:
    """What an answer without `ok` means. `response`: slack-sdk's, or aiohttp's where there was no JSON in it."""
    status = getattr(response, "status_code", None) or getattr(response, "status", 0)
    data = getattr(response, "data", None)
    error = str(data.get("error", ""))[:100] if isinstance(data, dict) else ""
    words = f"{method}: {error or f'status {status}'}"
    if status == 429 or error in LIMITED:
        wanted = str(response.headers.get("Retry-After", ""))
        is_number = wanted.isascii() and wanted.isdigit()
        return ChannelRefusedError(words, retry_after_s=float(wanted) if is_number else None)
    if status >= 500 or error in UNKNOWN or (status == 200 and not error):
        return SendUnknownError(words)
    if error == "missing_scope" and isinstance(data, dict) and data.get("needed"):
        words += f" (needed: {str(data['needed'])[:100]})"
    return ChannelRefusedError(words, permanent=error in PERMANENT)


def quiet_logger() -> logging.Logger:
    """For slack-sdk, whose lines may hold what users wrote, and addresses that are secrets. What matters is raised."""
    logger = logging.getLogger("holdfast.channels.slack.sdk")
    logger.setLevel(logging.CRITICAL + 1)
    return logger
