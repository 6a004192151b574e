"""The contract of what comes in: what was heard on a platform, and how an adapter hands it over.

An adapter turns what its platform tells into `Heard` values and calls `hear` with each, in the order of each
conversation. When `hear` has returned, whatever becomes of it is durable: **only then** does the adapter acknowledge to
its platform. If `hear` raises, it does not acknowledge, and the platform tells again; what was heard twice is told
apart by `Heard.id`. An adapter decides nothing about who may speak: it says who spoke, the gate (`gate.py`) decides.

There are two ways in, and an adapter offers one or both:

- a `Listener` keeps a connection of its own (a socket, polling). Of several processes on a state one runs it.
- a `Receiver` is called by its platform: `POST /channels/NAME`, in whichever process the request comes to. It checks
  the signature itself, since the gateway's token is not asked for there.

What else a platform can do is said by an `Adapter`, never guessed: a part that is None is not there. `docs/channels.md`
shows how to write one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from holdfast.channel.channel import Channel, SendRequest, Sent
from holdfast.errors import InputError
from holdfast.inbound.route import Kind
from holdfast.outbox.mail import Mailbox


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message. It is fetched only if it is wanted.

    Args:
        media_type: as the platform says, such as "image/png"; empty: unknown.
        size_bytes: as the platform says; None: unknown.
        fetch: its bytes, at most as many as it is called with. Raises ChannelError: too large, or not to be had.
    """

    name: str
    media_type: str
    size_bytes: int | None
    fetch: Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, in the platform's own words.

    Args:
        id: names the message for good, within `account`: the same for each time that the platform tells of it.
        account: which of our accounts (bots, apps) heard it; empty: there is one.
        kind: "direct" (then `peer` is the person), "group" or "channel".
        peer, thread, guild, team: where it was said (`inbound/route.py`).
        target: where an answer goes, as the adapter's `send` takes it.
        sender: the id of who said it, which nobody can choose. sender_name: what people call them, for showing only.
        text: what was said, our own name taken out where it only addresses us.
        roles: what the platform says that the sender is there, such as "@member"; the gate's lists may name them.
        mentioned: it speaks to us: names us, or answers a message of ours.
        is_bot: a program said it, we ourselves among them.
        at_ms: when, in epoch milliseconds as the platform has it; 0: unknown.
    """

    id: str
    kind: Kind
    peer: str
    sender: str
    text: str
    target: str
    account: str = ""
    thread: str | None = None
    guild: str | None = None
    team: str | None = None
    sender_name: str = ""
    roles: tuple[str, ...] = ()
    mentioned: bool = False
    is_bot: bool = False
    attachments: tuple[Attachment, ...] = ()
    at_ms: int = 0


Outcome = Literal["taken", "duplicate", "ignored", "pairing", "full"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of it: "taken" (`input_id` answers it), "duplicate" (it was heard before), "ignored" (by the gate,
    with its `reason`), "pairing" (an unknown sender was sent a code), "full" (too much waits; its sender was told).

    An adapter acknowledges in each case.
    """

    outcome: Outcome
    input_id: str | None = None
    reason: str = ""


Hear = Callable[[Heard], Awaitable[Receipt]]
"""Hands something over. When it returns, what became of it is durable.

Raises:
    InputError: it cannot be a message at all (no peer, an id that is too long): log it, acknowledge it.
    anything else: it could not be stored. Do not acknowledge; the platform tells again.
"""


class Listener(Protocol):
    """Hears by a connection of its own."""

    @property
    def connected(self) -> bool:
        """Whether it hears at this moment: told to people, and nothing else."""
        ...

    async def listen(self, hear: Hear) -> None:
        """Hear until cancelled, reconnecting as the platform's protocol wants it.

        Raises:
            ChannelRefusedError: the platform does not let us in; `permanent` if people have to do something about it.
            anything else: the connection is lost. It is called again, after a pause that grows.

        Cancelled: the connection is closed when it returns.
        """
        ...


class Resumable(Protocol):
    """A listener that can go on where another one, of another process, has come to."""

    @property
    def position(self) -> str | None:
        """Up to where everything is stored, in words of its own, at most 2,000 characters; None: nowhere yet."""
        ...

    def resume_from(self, position: str) -> None:
        """Go on there, when `listen` is called next. One that cannot be read is as good as none."""
        ...


@dataclass(frozen=True, slots=True)
class Posted:
    """A request that came to `POST /channels/NAME`. `headers`: names in lower case. `at`: Unix time, in seconds."""

    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What it is answered."""

    status: int = 200
    body: str = ""
    media_type: str = "text/plain"


class Receiver(Protocol):
    """Hears by requests of its platform."""

    async def receive(self, posted: Posted, hear: Hear) -> Reply:
        """Check the signature, hand over what was said, and only then answer 2xx.

        A wrong signature is answered 401; the gateway counts those and stops listening to who sends too many. What
        `hear` raises goes through: the gateway answers 503, and the platform comes again.
        """
        ...


class Editor(Protocol):
    """Can replace the text of a message that was sent. So an answer can be shown while it is being written."""

    @property
    def edit_every_s(self) -> float:
        """The shortest pause between two edits of one message that the platform likes."""
        ...

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        """Make `request.labelled_text` the text of the message that `send` or `find` has named `reference`.

        The same edit again changes nothing. If `request.preview` is False, `find` says so from now on.

        Raises:
            as `Channel.send`; ChannelRefusedError with `permanent`: there is no such message any more.
        """
        ...

    async def remove(self, reference: str, target: str) -> None:
        """Take a message of ours away; one that is gone is none. Raises as `edit`."""
        ...


class Typing(Protocol):
    """Can show that somebody is writing."""

    @property
    def typing_lasts_s(self) -> float:
        """For how long the platform shows it after one call."""
        ...

    async def show_typing(self, target: str) -> None:
        """Show it. Raises ChannelError; nobody minds."""
        ...


class Reactions(Protocol):
    """Can put a small sign beside a message of somebody else."""

    async def react(self, target: str, message_id: str, sign: str) -> None:
        """Put `sign` (a name as the platform has it, such as "eyes") beside the message that was heard as `message_id`.

        Twice is once. Raises ChannelError; nobody minds.
        """
        ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """A platform, and what it can do: `channel` sends; each other part is there or None. One object may be several.

    Args:
        close: called once, when the gateway ends.
    """

    channel: Channel
    listener: Listener | None = None
    receiver: Receiver | None = None
    editor: Editor | None = None
    typing: Typing | None = None
    reactions: Reactions | None = None
    resumable: Resumable | None = None
    close: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """What the maker of an adapter gets.

    Args:
        name: of the channel, as routes and `[channels.NAME]` call it.
        options: keys of its own: of the table `[channels.NAME.KIND]`, or `[channels.NAME.options]` for a plugin.
        env: where secrets are looked up.
        mailbox: where a channel that has no platform keeps what it sends.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    mailbox: Mailbox | None = None

    def secret(self, option: str) -> str:
        """The value of the environment variable that an option names, so that no file holds a secret.

        Raises:
            InputError: the option or the variable is not set.
        """
        variable = self.options.get(option)
        if not isinstance(variable, str) or not variable:
            raise InputError(f"channels.{self.name}: {option} must name an environment variable")
        value = self.env.get(variable, "").strip()
        if not value:
            raise InputError(f"channels.{self.name}: the environment variable {variable} ({option}) is not set")
        return value


Make = Callable[[Setup], Adapter]
"""Makes an adapter; opens no connection. What an entry point of the group `holdfast.channels` names.

Raises:
    InputError: options or secrets are missing or wrong; the gateway does not start, and says so.
"""
