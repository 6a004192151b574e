"""Google's cached contents: what is kept, for whom and how long, and what to do about it for a request. Pure.

Google keeps what it is told to keep under a name, for a time that is paid for by the hour. A session has one such
content for a model and a key: the tools, the system prompt, and the conversation up to the newest question. It is made
once a conversation goes on (there is an answer no older than its time to live) and is long enough; used as long as the
request begins with it; renewed in the second half of its time; made anew when what has come since is as long as what it
holds; and dropped when another one has taken its place or the request begins otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

GOOGLE_CACHE_TYPE = "holdfast:google_cache"
"""customType of a line that says what is kept. It is metadata: no model sees it, and no fence takes it for a turn."""
CHARS_PER_TOKEN = 4
SAFETY_S = 10.0
"""One that ends within that is not used any more."""


@dataclass(frozen=True, slots=True)
class GoogleCaching:
    """What is configured. `ttl_s`: time to live; `tokens_min`: a shorter beginning is not kept."""

    ttl_s: int = 300
    tokens_min: int = 4_096


@dataclass(frozen=True, slots=True)
class Kept:
    """One cached content.

    Args:
        key: id of the credential that made it, and alone may use it.
        digest: of what it holds. contents: how many messages of the conversation that is. chars: its length.
        dropped: it is there no more.
    """

    name: str
    model: str
    key: str
    digest: str
    contents: int
    chars: int
    expires_at_ms: int
    dropped: bool = False

    def data(self) -> dict[str, Any]:
        """As it stands in a transcript."""
        return asdict(self)


def kept_from(data: Any) -> Kept | None:
    """What a line says; None for one that somebody else has written in another form."""
    try:
        found = Kept(**data)
    except TypeError:
        return None
    texts = (found.name, found.model, found.key, found.digest)
    counts = (found.contents, found.chars, found.expires_at_ms)
    return found if all(isinstance(one, str) for one in texts) and all(type(one) is int for one in counts) else None


class KeptContents(Protocol):
    """What a session has at Google (`turn/kept_contents.py`)."""

    def now_ms(self) -> int: ...

    async def newest(self, model: str, key: str, /) -> Kept | None:
        """The content that was made last for this model with this key, if it has not been dropped."""
        ...

    async def note(self, kept: Kept, /) -> None:
        """Remember it, for all processes. What cannot be written is forgotten, and ends by itself."""
        ...


@dataclass(slots=True)
class CachedRequest:
    """A request that may use a cached content.

    Args:
        goes_on: of the conversation, see `choose`. used: the content that it was sent with. written: tokens of one that
            was made for it.
    """

    kept: KeptContents
    settings: GoogleCaching
    key: str
    goes_on: bool
    without: bool = False
    used: Kept | None = None
    written: int = 0


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a request could have kept: `digest` and `chars` of it, and of how many contents of the conversation."""

    digest: str
    contents: int
    chars: int


What = Literal["use", "renew", "make", "nothing"]


def choose(
    kept: Kept | None, begins: Beginning, same: bool, *, rest_chars: int, goes_on: bool, now_ms: int,
    settings: GoogleCaching,
) -> What:  # fmt: skip
    """What to do for a request.

    Args:
        kept: the newest content of its model and key.
        begins: what the request could have kept now.
        same: the request begins with what `kept` holds.
        rest_chars: what of `begins` comes after that.
        goes_on: there is an answer that is no older than the time to live.
    """
    if kept is not None and same and kept.expires_at_ms - now_ms > SAFETY_S * 1000:
        if goes_on and rest_chars >= kept.chars:
            return "make"
        return "renew" if (kept.expires_at_ms - now_ms) * 2 < settings.ttl_s * 1000 else "use"
    is_long = begins.chars >= settings.tokens_min * CHARS_PER_TOKEN
    return "make" if goes_on and is_long else "nothing"


def newest_question(contents: Sequence[Any]) -> int:
    """Where the newest question begins: a user's content that answers no call. 0: there is none behind an answer."""
    for at in range(len(contents) - 1, 0, -1):
        one = contents[at]
        is_answer = any("function_response" in part for part in one.get("parts") or ())
        if one.get("role") == "user" and contents[at - 1].get("role") == "model" and not is_answer:
            return at
    return 0
