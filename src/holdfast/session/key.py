"""Session keys: free text to people, encoded before they name a file.

    agent:<id>:main
    agent:<id>:<channel>:channel|direct|group:<peer>[:thread:<id>]     each also with :heartbeat at its end
    agent:<id>:cron:<job>
    agent:<id>:subagent:<child>
    hook:<id>

Whatever does not have one of these forms is a key all the same, of the agent `main`. Keys are compared byte for byte:
no folding of case, no Unicode normalisation.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice, product, zip_longest
from typing import Literal

from holdfast.errors import InputError

SessionType = Literal["direct", "group", "thread", "machine"]
KEY_BYTES_MAX = 512
DEFAULT_AGENT = "main"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # category Cc, all of it
_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PREFIX_CHARS_MAX = 60
GUESSES_MAX = 8192
_DIGEST_HEX = 40  # 160 bits: beyond anybody who can choose keys and would like two of them to meet


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A key taken apart.

    kind: "main", "chat" (with `channel`, `chat`, `peer`, `thread`), "cron" (`name` is the job), "subagent"
        (`name` is the child's), "hook" (`name` is its id) or "other".
    heartbeat: the key ends in `:heartbeat`; the other fields describe what stands before it.
    """

    text: str
    agent: str
    kind: str
    channel: str | None = None
    chat: str | None = None
    peer: str | None = None
    thread: str | None = None
    name: str | None = None
    heartbeat: bool = False

    @property
    def folder(self) -> str:
        """The agent's folder: lower case, so that it is the same one on every file system."""
        return self.agent.lower()


def validate_key(key: str) -> str:
    """The key itself, if it can be one.

    Raises:
        InputError: empty or blank, more than 512 bytes of UTF-8, control characters, or half a surrogate pair.
    """
    if not key.strip():
        raise InputError('a session key must not be empty; "agent:main:main" is the usual one')
    try:
        length = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise InputError(f"session key {_shown(key)} holds half a character (a lone surrogate); leave it out") from None
    if length > KEY_BYTES_MAX:
        raise InputError(
            f"a session key of {length} bytes is over the limit of {KEY_BYTES_MAX}: shorten it or use a digest"
        )
    if _CONTROL.search(key):
        raise InputError(f"session key {_shown(key)} holds control characters; leave them out")
    return key


def parse_key(key: str) -> SessionKey:
    """Take a valid key apart. A key of no known form has kind "other"; nothing is refused here but what is no key.

    Raises:
        InputError: see `validate_key`.
    """
    text = validate_key(key)
    body, heartbeat = (text.removesuffix(":heartbeat"), True) if text.endswith(":heartbeat") else (text, False)
    head, _, rest = body.partition(":")
    if head == "hook" and rest:
        return SessionKey(text, DEFAULT_AGENT, "hook", name=rest, heartbeat=heartbeat)
    agent, _, rest = rest.partition(":")
    if head != "agent" or not _AGENT_ID.fullmatch(agent) or not rest:
        return SessionKey(text, DEFAULT_AGENT, "other", heartbeat=heartbeat)
    if rest == "main":
        return SessionKey(text, agent, "main", heartbeat=heartbeat)
    channel, _, tail = rest.partition(":")
    if channel in ("cron", "subagent") and tail:
        return SessionKey(text, agent, channel, name=tail, heartbeat=heartbeat)
    chat, _, peer = tail.partition(":")
    if channel and chat in ("channel", "direct", "group") and peer:
        # Peers may hold colons themselves; the last ":thread:" is the one that counts.
        name, marker, thread = peer.rpartition(":thread:")
        if not (marker and name and thread):
            name, thread = peer, None
        return SessionKey(text, agent, "chat", channel, chat, name, thread, heartbeat=heartbeat)
    return SessionKey(text, agent, "other", heartbeat=heartbeat)


def type_of(key: str) -> SessionType:
    """What kind of session a key names, as policies tell them apart. Main sessions, and keys of no known form, are as
    direct messages; those of jobs, hooks, heartbeats and sub-agents are no people's.
    """
    parsed = parse_key(key)
    if parsed.heartbeat or parsed.kind in ("cron", "hook", "subagent"):
        return "machine"
    if parsed.thread is not None:
        return "thread"
    return "group" if parsed.chat in ("group", "channel") else "direct"


def file_stem(key: str) -> str:
    """A file name without its ending: what can be read of the key, and a digest of the whole of it.

    Different keys have different stems, also where case does not count. At most 101 characters of `[a-z0-9._-]`, first
    one a letter, a digit or `_`, never two dots in a row.

    Raises:
        InputError: see `validate_key`.
    """
    digest = hashlib.sha256(validate_key(key).encode("utf-8")).hexdigest()[:_DIGEST_HEX]
    readable = re.sub(r"[^a-z0-9._]+", "-", key.lower())
    readable = re.sub(r"\.{2,}", ".", readable).strip("-.")[:_PREFIX_CHARS_MAX].rstrip("-.")
    return f"{readable or 'key'}-{digest}"


def key_of_stem(stem: str) -> str | None:
    """The key that a file name was made of, where it can be read off it: what the digest confirms, and nothing else.

    In a name each dash may have been a colon, and each part in lower case may have been in upper case. Keys with many
    parts, or with other letters in them, are not found: None. Costs some milliseconds at most.
    """
    if not re.fullmatch(r"[a-z0-9._-]+", stem):
        return None  # no name of ours; and it may hold what no text does
    readable, _, digest = stem.rpartition("-")
    parts = [list(dict.fromkeys([part, part.upper(), part.capitalize()])) for part in readable.split("-")]
    joints = [(":", "-")] * (len(parts) - 1)
    words = ("".join(mixed) for mixed in product(*(one for pair in zip_longest(parts, joints) for one in pair if one)))
    for key in islice(words, GUESSES_MAX):
        if hashlib.sha256(key.encode("utf-8")).hexdigest()[:_DIGEST_HEX] == digest:
            return key
    return None


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 60 else key[:60] + "…")
