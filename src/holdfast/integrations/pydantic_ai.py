"""pydantic-ai: conversations in sessions, and runs as turns.

    assistant = own(agent, hf)                                          # any agent of pydantic-ai's
    result = await assistant.run("hello", conversation_id="ada")        # a turn of "agent:main:pydantic-ai:direct:ada"

`own` is all that most programs need. `SessionConversations` is the store behind it, for code that loads and saves
conversations itself; `WindowModel` asks any model inside a prompt window.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pydantic
from pydantic_ai import messages as pm
from pydantic_ai.agent import AbstractAgent, AgentRun, WrapperAgent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.models import KnownModelName, Model, ModelRequestParameters, StreamedResponse, infer_model
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.usage import UsageLimits

from holdfast.clock import epoch_ms
from holdfast.errors import InputError
from holdfast.integrations.keeping import WAIT_S, data_of, keep, kept, newest, next_step, show, turn_now, writing
from holdfast.kernel import Holdfast
from holdfast.model.client import zero_usage
from holdfast.session.lines import Line
from holdfast.turn.owned import key_of
from holdfast.turn.turn import Turn

if TYPE_CHECKING:
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import RunContext

SAVE_TYPE = "pydantic-ai:save"
SESSION = "agent:main:pydantic-ai:direct:{id}"
REQUESTS_MAX = 50  # pydantic-ai's own default, for one run
ENTRIES_KNOWN_MAX = 100_000

Deps = TypeVar("Deps")
Output = TypeVar("Output")
_RECORD = pydantic.TypeAdapter(ConversationRecord)


class SessionConversations(ConversationStore):
    """Conversations of pydantic-ai, each in the transcript of a session of its own.

    A save is one line of the transcript, written by the owner of the conversation: inside a turn (`own`) by that, else
    in a short one. The revision of a conversation is that of the newest such line; it is compared while the
    conversation is owned, so of two saves of the same revision exactly one succeeds, in whatever processes. A fork
    copies the entries that it shares, so that each transcript can be read, archived and thrown away by itself.

    A conversation that is deleted no longer loads or lists. Its messages stay in the transcript until the session is
    archived and the archive deleted (`holdfast sessions`).

    Args:
        session: the key of a conversation's session; ends in `{id}`, which stands for the conversation's id.
        wait_s: how long a save waits for somebody else's turn.

    Raises (besides `ConversationConflict`): SessionBusyError: not ours within `wait_s`; nothing was saved, try again.
        InputTooLargeError: one save is over 16 MiB. OwnershipLostError: the turn around it was lost.
    """

    def __init__(self, hf: Holdfast, *, session: str = SESSION, wait_s: float = WAIT_S) -> None:
        if not session.endswith("{id}"):
            raise InputError(f"session {session!r} has to end in {{id}}, by which conversations are listed")
        self._hf = hf
        self._session = session
        self._wait_s = wait_s
        self._where: OrderedDict[str, str] = OrderedDict()  # entry id to session, of what was read lately

    def session_of(self, conversation_id: str) -> str:
        """The key of a conversation's session."""
        return key_of(self._session, {"id": conversation_id})

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        return await self._record_in(self.session_of(conversation_id))

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """Reads the end of each transcript: a list of thousands takes its time."""
        found: list[ConversationRecord] = []
        for view in await self._hf.sessions(prefix=self._session.removesuffix("{id}"), limit=100_000):
            record = await self._record_in(view.key)
            if record is not None and self.session_of(record.conversation_id) == view.key:
                found.append(record)
        found = [record for record in found if scope is None or record.scope == scope]
        return sorted(found, key=lambda record: record.updated_at, reverse=True)[:limit]

    async def write_record(
        self, record: ConversationRecord, *, new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:  # fmt: skip
        """One line with the record and its new entries, after the messages in it that the transcript does not show yet.

        Cancelled: it is saved whole or not at all.
        """
        session = self.session_of(record.conversation_id)
        borrowed = await self._borrowed(record, new_entries)
        async with writing(self._hf, session, wait_s=self._wait_s) as turn:
            stored = await self._record_in(session)
            if (stored.revision if stored is not None else None) != expected_revision:
                raise ConversationConflict(record.conversation_id)
            known = {entry.id for entry in [*borrowed, *new_entries]}
            if record.head_id is not None and record.head_id not in known:
                known |= set(await self._entries_in(session))
                if record.head_id not in known:
                    raise ConversationConflict(record.conversation_id)
            await show(turn, (said for entry in [*borrowed, *new_entries] for said in to_v3(entry.message)))
            entries = [_entry_out(entry) for entry in [*borrowed, *new_entries]]
            data = {"record": _RECORD.dump_python(record, mode="json"), "entries": entries}
            await keep(turn, SAVE_TYPE, data)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        session = self.session_of(conversation_id)
        async with writing(self._hf, session, wait_s=self._wait_s) as turn:
            stored = await self._record_in(session)
            if stored is None or stored.revision != expected_revision:
                raise ConversationConflict(conversation_id)
            await keep(turn, SAVE_TYPE, {"record": None, "entries": []})

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        session = await self._session_with(entry_id)
        return (await self._entries_in(session))[entry_id]

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        if head_id is None or limit == 0:
            return []
        entries = await self._entries_in(await self._session_with(head_id))
        history: list[ConversationEntry] = []
        at: str | None = head_id
        while at is not None and (limit is None or len(history) < limit):
            history.append(entries[at])
            at = entries[at].parent_id
        return history[::-1]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _record_in(self, session: str) -> ConversationRecord | None:
        line = await newest(self._hf, session, SAVE_TYPE)
        record = data_of(line)["record"] if line is not None else None
        if record is None:
            return None
        read = _RECORD.validate_python(record)
        self._remember([*read.branches, *([read.head_id] if read.head_id else [])], session)
        return read

    async def _entries_in(self, session: str) -> dict[str, ConversationEntry]:
        saved = await kept(self._hf, session, SAVE_TYPE)
        found = {entry.id: entry for entry in _entries_of(saved)}
        self._remember(found, session)
        return found

    async def _borrowed(
        self, record: ConversationRecord, new_entries: Sequence[ConversationEntry]
    ) -> list[ConversationEntry]:
        """What a fork shares with the conversation that it comes from: it gets copies."""
        if record.forked_from is None or record.forked_at is None or new_entries:
            return []
        if await self.read_record(record.conversation_id) is not None:
            return []
        source = self.session_of(record.forked_from)
        entries = await self._entries_in(source)
        if await self.read_record(record.forked_from) is None or record.forked_at not in entries:
            raise ConversationConflict(record.conversation_id)  # it was deleted meanwhile
        return await self.read_history(record.forked_at)

    async def _session_with(self, entry_id: str) -> str:
        """Where an entry lies. One that was not read lately is looked for in every conversation.

        Raises: LookupError: nowhere.
        """
        known = self._where.get(entry_id)
        if known is not None:
            return known
        for view in await self._hf.sessions(prefix=self._session.removesuffix("{id}"), limit=100_000):
            if entry_id in await self._entries_in(view.key):
                return view.key
        raise LookupError(f"no entry {entry_id!r}")

    def _remember(self, entries: Iterable[str], session: str) -> None:
        for entry in entries:
            self._where[entry] = session
            self._where.move_to_end(entry)
        while len(self._where) > ENTRIES_KNOWN_MAX:
            self._where.popitem(last=False)


def _entry_out(entry: ConversationEntry) -> dict[str, Any]:
    [message] = pm.ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")
    return {"id": entry.id, "parent": entry.parent_id, "kind": entry.kind, "message": message}


def _entries_of(saves: Iterable[Line]) -> Iterable[ConversationEntry]:
    """Those of a conversation that was deleted and begun anew are its own again: ids never repeat."""
    for save in saves:
        for entry in data_of(save)["entries"]:
            [message] = pm.ModelMessagesTypeAdapter.validate_python([entry["message"]])
            yield ConversationEntry(id=entry["id"], parent_id=entry["parent"], message=message, kind=entry["kind"])


# ── messages for everybody else ──────────────────────────────────────────────────────────────────────────────────────


def to_v3(message: pm.ModelMessage) -> list[dict[str, Any]]:
    """What a message says, as the transcript's own messages. Instructions and system prompts are not conversation."""
    if isinstance(message, pm.ModelResponse):
        return _answer(message)
    return [said for part in message.parts for said in _asked(part)]


def _asked(part: pm.ModelRequestPart) -> list[dict[str, Any]]:
    match part:
        case pm.UserPromptPart():
            content = _user_content(part.content)
            return [{"role": "user", "content": content, "timestamp": epoch_ms(part.timestamp)}] if content else []
        case pm.ToolReturnPart():
            return [_result(part, part.tool_name, part.model_response_str(), is_error=False)]
        case pm.RetryPromptPart() if part.tool_name is not None:
            return [_result(part, part.tool_name, part.model_response(), is_error=True)]
        case pm.RetryPromptPart():
            said = [_text(part.model_response())]
            return [{"role": "user", "content": said, "timestamp": epoch_ms(part.timestamp)}]
        case _:
            return []


def _user_content(content: str | Sequence[pm.UserContent]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [_text(content)] if content else []
    parts: list[dict[str, Any]] = []
    for item in content:
        if isinstance(item, str):
            parts += [_text(item)] if item else []
        elif isinstance(item, pm.BinaryContent) and item.is_image:
            parts.append({"type": "image", "data": item.base64, "mimeType": item.media_type})
        elif not isinstance(item, pm.CachePoint):
            parts.append(_text(f"[{getattr(item, 'kind', type(item).__name__)}]"))  # its own form has all of it
    return parts


def _answer(response: pm.ModelResponse) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for part in response.parts:
        match part:
            case pm.TextPart() if part.content:
                content.append(_text(part.content))
            case pm.ThinkingPart() if part.content:
                content.append({"type": "thinking", "thinking": part.content})
            case pm.ToolCallPart():
                call = {"id": part.tool_call_id, "name": part.tool_name, "arguments": part.args_as_dict()}
                content.append({"type": "toolCall", **call})
            case _:
                pass
    if not content:
        return []
    calls = any(part["type"] == "toolCall" for part in content)
    stop = "toolUse" if calls else "length" if response.finish_reason == "length" else "stop"
    usage = zero_usage()
    usage.update(input=response.usage.input_tokens, output=response.usage.output_tokens)
    usage["totalTokens"] = response.usage.total_tokens
    return [
        {
            "role": "assistant", "content": content, "api": "pydantic-ai",
            "provider": response.provider_name or "pydantic-ai", "model": response.model_name or "unknown",
            "usage": usage, "stopReason": stop, "timestamp": epoch_ms(response.timestamp),
        }
    ]  # fmt: skip


def _result(part: pm.ToolReturnPart | pm.RetryPromptPart, name: str, text: str, *, is_error: bool) -> dict[str, Any]:
    content = [_text(text)] if text else []
    result = {"role": "toolResult", "toolCallId": part.tool_call_id, "toolName": name, "content": content}
    return {**result, "isError": is_error, "timestamp": epoch_ms(part.timestamp)}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


# ── the model, in a prompt window ────────────────────────────────────────────────────────────────────────────────────


class WindowModel(WrapperModel):
    """Asks the wrapped model inside a prompt window of the turn it runs in; outside of any turn it changes nothing.

    Before it is asked, what is new of the request (the question, tools' results) is written to the transcript; its
    answer is written afterwards, and one that calls tools is on disk before the first of them starts. The turn's story
    (`holdfast why`) tells of each call when it began and how it ended.

    Raises: SessionTakeoverError: the conversation was lost while the model was asked. A finished answer is kept.
    """

    def __init__(self, wrapped: Model | KnownModelName | str, hf: Holdfast) -> None:
        super().__init__(wrapped)
        self._hf = hf

    async def request(
        self, messages: list[pm.ModelMessage], model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> pm.ModelResponse:  # fmt: skip
        turn = turn_now(self._hf)
        if turn is None:
            return await super().request(messages, model_settings, model_request_parameters)
        await self._begin(turn, messages)
        async with self._told(turn), turn.prompt_window() as window:
            response = await super().request(messages, model_settings, model_request_parameters)
            self._finished(window, response)
        await show(turn, to_v3(response))
        return response

    @asynccontextmanager
    async def request_stream(
        self, messages: list[pm.ModelMessage], model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters, run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:  # fmt: skip
        turn = turn_now(self._hf)
        if turn is None:
            async with super().request_stream(messages, model_settings, model_request_parameters, run_context) as one:
                yield one
            return
        await self._begin(turn, messages)
        async with self._told(turn), turn.prompt_window() as window:
            async with super().request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as streamed:
                yield streamed
            response = streamed.get()
            self._finished(window, response)
        await show(turn, to_v3(response))

    async def _begin(self, turn: Turn, messages: list[pm.ModelMessage]) -> None:
        await turn.check()
        if messages and isinstance(messages[-1], pm.ModelRequest):
            await show(turn, to_v3(messages[-1]))

    @asynccontextmanager
    async def _told(self, turn: Turn) -> AsyncGenerator[None]:
        """The call in the turn's story."""
        turn.begins("model", self.model_id)
        turn.note("turn.model", model=self.model_id, step=next_step(turn))
        try:
            yield
        except BaseException as failed:
            turn.note("turn.discarded", reason=type(failed).__name__)
            raise
        turn.note("turn.answer", model=self.model_id, finish="stop")

    @staticmethod
    def _finished(window: Any, response: pm.ModelResponse) -> None:
        answer = _answer(response)
        if answer and answer[0]["stopReason"] != "toolUse":
            window.finished(answer[0])


# ── an agent whose runs are turns ────────────────────────────────────────────────────────────────────────────────────


class OwnedAgent(WrapperAgent[Deps, Output]):
    """An agent each of whose runs owns its conversation: made by `own`."""

    def __init__(
        self, wrapped: AbstractAgent[Deps, Output], hf: Holdfast, *, conversations: SessionConversations,
        lane: str, wait_s: float,
    ) -> None:  # fmt: skip
        super().__init__(wrapped)
        self.conversations = conversations
        self._hf = hf
        self._lane = lane
        self._wait_s = wait_s

    def iter(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[AgentRun[Deps, Any]]:
        """One run, inside a turn; `run`, `run_stream` and their kin go through here.

        `conversation_id` names the conversation (without it: "main"). History is read from the session, so
        `conversation` and `message_history` are refused. A limit of requests counts from the beginning of the run.

        Raises: SessionBusyError: not ours within `wait_s`. SessionTakeoverError: lost meanwhile.
        """
        return self._iter(*args, **kwargs)

    @asynccontextmanager
    async def _iter(self, *args: Any, **kwargs: Any) -> AsyncGenerator[AgentRun[Deps, Any]]:
        if kwargs.get("message_history") is not None or kwargs.get("conversation") is not None:
            raise InputError("an owned agent reads its history from the session: give conversation_id alone")
        id = kwargs.pop("conversation_id", None) or "main"
        session = self.conversations.session_of(id)
        async with self._hf.turn(session, lane=self._lane, wait_s=self._wait_s):
            conversation = await self.conversations.load(id) or Conversation(conversation_id=id)
            model = WindowModel(infer_model(kwargs.pop("model", None) or self._own_model()), self._hf)
            limits = kwargs.pop("usage_limits", None) or UsageLimits(request_limit=REQUESTS_MAX)
            if limits.request_limit is not None:
                already = conversation.usage.requests
                limits = dataclasses.replace(limits, request_limit=limits.request_limit + already)
            kwargs.update(conversation=conversation, model=model, usage_limits=limits, message_history=None)
            async with super().iter(*args, **kwargs) as run:
                yield cast("AgentRun[Deps, Any]", run)
            if run.result is not None:
                await self.conversations.save(run.result)

    def _own_model(self) -> Model | str:
        if self.model is None:
            raise InputError("this agent has no model: give it one, or `model=` to its run")
        return self.model


def own(
    agent: AbstractAgent[Deps, Output], hf: Holdfast, *, session: str = SESSION, lane: str = "main",
    wait_s: float = WAIT_S,
) -> OwnedAgent[Deps, Output]:  # fmt: skip
    """The agent, each run of which is a turn: `await own(agent, hf).run("hello", conversation_id="ada")`.

    A run reads the conversation, asks its model in a prompt window, and saves, all while it owns the session; the next,
    in whatever process, waits for it and sees what was said. A run that fails leaves what was said in the transcript,
    for people and other lanes, and the conversation as it was.

    Args:
        session: the key of a conversation's session, ending in `{id}`.
        lane, wait_s: as in `Holdfast.turn`.
    """
    conversations = SessionConversations(hf, session=session, wait_s=wait_s)
    return OwnedAgent(agent, hf, conversations=conversations, lane=lane, wait_s=wait_s)
