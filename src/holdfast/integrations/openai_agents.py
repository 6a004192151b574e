"""openai-agents: sessions in transcripts, and runs as turns.

    assistant = own(agent, hf)                                     # any agent of openai-agents
    result = await assistant.run("hello", session_id="ada")        # a turn of "agent:main:openai-agents:direct:ada"

`own` is all that most programs need. `TranscriptSession` is the session behind it, for code that calls `Runner.run`
itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from agents import RunHooks, Runner  # pyright: ignore[reportMissingImports]  # an environment of its own

from holdfast.errors import InputError
from holdfast.integrations.keeping import WAIT_S, data_of, keep, kept, next_step, show, turn_now, writing
from holdfast.kernel import Holdfast
from holdfast.model.client import zero_usage
from holdfast.session.lines import Line
from holdfast.session.prompt_window import PromptWindow
from holdfast.turn.owned import key_of
from holdfast.turn.turn import Turn

if TYPE_CHECKING:
    from agents import Agent, RunResult, RunResultStreaming, SessionSettings  # pyright: ignore[reportMissingImports]

SAVE_TYPE = "openai-agents:save"
SESSION = "agent:main:openai-agents:direct:{id}"

Item = dict[str, Any]
"""One item of openai-agents', in its own form (`TResponseInputItem`)."""
Compact = Callable[[list[Item]], Awaitable[Sequence[Item] | None]]
"""Gives what is to stand for all these items; None: they are to stay."""


class TranscriptSession:
    """A session of openai-agents', in the transcript of a session of ours.

    Each call that changes something is one line of the transcript, written by the owner of the conversation: inside a
    turn (`own`) by that, else in a short one. What several calls of one run add stands together, whatever other runs
    have added between them: each answer behind its own question. Nothing that was added is lost.

    A run that nobody owns becomes visible to people and other lanes with its answer; until then its question stands in
    openai-agents' own form only.

    Args:
        session_id: which conversation.
        session: the key of its session; ends in `{id}`.
        compact: makes the history shorter; called when a response of the model was saved, as the compaction of
            openai-agents is. What comes meanwhile stays behind what it gives.
        wait_s: how long a change waits for somebody else's turn.

    Raises (from each method): SessionBusyError: not ours within `wait_s`; nothing was changed. InputTooLargeError: one
        change is over 16 MiB. OwnershipLostError: the turn around it was lost.
    """

    def __init__(
        self, session_id: str, hf: Holdfast, *, session: str = SESSION, compact: Compact | None = None,
        session_settings: SessionSettings | None = None, wait_s: float = WAIT_S,
    ) -> None:  # fmt: skip
        self.session_id = session_id
        self.session_settings = session_settings
        self.key = key_of(session, {"id": session_id})
        self._hf = hf
        self._wait_s = wait_s
        self._compact = compact
        self._runs: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        if compact is not None:
            self.run_compaction = self._run_compaction  # by this name openai-agents finds out that there is one

    async def get_items(self, limit: int | None = None, *, wrapper: Any = None) -> list[Item]:  # noqa: ARG002  # they are part of the protocol
        """The newest `limit` items, oldest first; None: as many as the settings say, else all."""
        limit = limit if limit is not None else getattr(self.session_settings, "limit", None)
        items = [entry.item for entry in await self._entries()]
        return items if limit is None else items[-limit:] if limit > 0 else []

    async def add_items(self, items: list[Item], *, wrapper: Any = None) -> None:
        """Cancelled: all of them are added or none."""
        if not items:
            return
        around = turn_now(self._hf, self.key)
        run = around.id if around is not None else self._run_of(wrapper)
        async with writing(self._hf, self.key, wait_s=self._wait_s) as turn:
            waiting = _unshown(await self._entries(), run)
            is_shown = around is not None or run is None or any(item.get("role") != "user" for item in items)
            if is_shown:
                await show(turn, to_v3([*waiting, *items]))
            await keep(turn, SAVE_TYPE, {"do": "add", "run": run, "shown": is_shown, "items": items})

    async def pop_item(self, *, wrapper: Any = None) -> Item | None:  # noqa: ARG002  # they are part of the protocol
        """Take the last item away. The transcript keeps its line; it is no longer part of this session."""
        async with writing(self._hf, self.key, wait_s=self._wait_s) as turn:
            entries = await self._entries()
            if not entries:
                return None
            await keep(turn, SAVE_TYPE, {"do": "pop"})
            return entries[-1].item

    async def clear_session(self, *, wrapper: Any = None) -> None:  # noqa: ARG002  # they are part of the protocol
        """Begin anew. The lines stay in the transcript until its session is archived and the archive deleted."""
        async with writing(self._hf, self.key, wait_s=self._wait_s) as turn:
            await keep(turn, SAVE_TYPE, {"do": "clear"})

    async def _run_compaction(self, args: Any = None, *, wrapper: Any = None) -> None:  # noqa: ARG002  # they are part of the protocol
        """Ask `compact`, outside of any lock, and put what it gives in the place of what it was given."""
        assert self._compact is not None
        saves = await kept(self._hf, self.key, SAVE_TYPE)
        given = [entry.item for entry in _entries_of(saves)]
        shorter = await self._compact(given) if given else None
        if shorter is None:
            return
        async with writing(self._hf, self.key, wait_s=self._wait_s) as turn:
            await keep(turn, SAVE_TYPE, {"do": "compact", "upto": saves[-1].id, "items": list(shorter)})

    async def _entries(self) -> list[_Entry]:
        return _entries_of(await kept(self._hf, self.key, SAVE_TYPE))

    def _run_of(self, wrapper: Any) -> str | None:
        """A name for the run that openai-agents names by an object; None: the call is not one of a run."""
        return None if wrapper is None else self._runs.setdefault(wrapper, uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class _Entry:
    item: Item
    run: str | None
    shown: bool
    line: int
    """The number of its save."""


def _entries_of(saves: Iterable[Line]) -> list[_Entry]:
    """What the session holds, by its saves."""
    entries: list[_Entry] = []
    numbers: dict[str | None, int] = {}
    for number, line in enumerate(saves):
        numbers[line.id] = number
        save = data_of(line)
        match save["do"]:
            case "add":
                new = [_Entry(item, save["run"], save["shown"], number) for item in save["items"]]
                at = _place(entries, save["run"])
                entries[at:at] = new
            case "pop":
                del entries[-1:]
            case "clear":
                entries = []
            case "compact":
                upto = numbers.get(save["upto"], -1)
                instead = [_Entry(item, None, True, upto) for item in save["items"]]
                entries = [*instead, *(entry for entry in entries if entry.line > upto)]
            case other:
                raise InputError(f"this session was written by a newer release: {other!r}")
    return entries


def _place(entries: Sequence[_Entry], run: str | None) -> int:
    """Behind what the same run has added before; else at the end."""
    if run is not None:
        for index in range(len(entries) - 1, -1, -1):
            if entries[index].run == run:
                return index + 1
    return len(entries)


def _unshown(entries: Iterable[_Entry], run: str | None) -> list[Item]:
    """What a run has added that only openai-agents has seen so far, up to its last part that everybody has."""
    found: list[Item] = []
    for entry in entries:
        if run is not None and entry.run == run:
            found = [] if entry.shown else [*found, entry.item]
    return found


# ── messages for everybody else ──────────────────────────────────────────────────────────────────────────────────────


def to_v3(items: Iterable[Item]) -> list[Item]:
    """What the items say, as the transcript's own messages; what stands between two others is one answer."""
    said: list[Item] = []
    answer: list[Item] = []
    names: dict[str, str] = {}

    def close() -> None:
        if answer:
            said.append(_answer(list(answer)))
            answer.clear()

    for item in items:
        kind = item.get("type", "message")
        if kind == "message" and item.get("role") == "assistant":
            answer += _texts(item.get("content"))
        elif kind == "reasoning":
            texts = [part.get("text", "") for part in item.get("summary") or ()]
            answer += [{"type": "thinking", "thinking": text} for text in texts if text]
        elif kind == "function_call":
            names[item["call_id"]] = item["name"]
            call = {"id": item["call_id"], "name": item["name"], "arguments": _arguments(item.get("arguments"))}
            answer.append({"type": "toolCall", **call})
        elif kind == "function_call_output":
            close()
            about = {"toolCallId": item["call_id"], "toolName": names.get(item["call_id"], "tool")}
            content = _texts(item.get("output"))
            said.append({"role": "toolResult", **about, "content": content, "isError": False})
        elif kind == "message" and item.get("role") == "user":
            close()
            content = _texts(item.get("content"))
            said += [{"role": "user", "content": content}] if content else []
    close()
    return said


def _answer(content: list[Item]) -> Item:
    calls = any(part["type"] == "toolCall" for part in content)
    about = {"api": "openai-agents", "provider": "openai-agents", "model": "any", "usage": zero_usage()}
    return {"role": "assistant", "content": content, **about, "stopReason": "toolUse" if calls else "stop"}


def _texts(content: Any) -> list[Item]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    texts: list[str] = []
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        kind = str(part.get("type", "item"))
        texts.append(str(part.get("text") or part.get("refusal") or ("" if kind.endswith("text") else f"[{kind}]")))
    return [{"type": "text", "text": text} for text in texts if text]


def _arguments(written: Any) -> Any:
    """What a model wrote as arguments: an object, or, where it is none, the text under `text`."""
    try:
        read = json.loads(written or "{}")
    except (TypeError, ValueError):
        return {"text": str(written)}
    return read if isinstance(read, dict) else {"text": str(written)}


# ── agents whose runs are turns ──────────────────────────────────────────────────────────────────────────────────────


class OwnedAgent:
    """An agent each of whose runs owns its conversation: made by `own`."""

    def __init__(
        self, agent: Agent[Any], hf: Holdfast, *, session: str, compact: Compact | None, lane: str, wait_s: float
    ) -> None:
        self.agent = agent
        self._hf = hf
        self._session = session
        self._compact = compact
        self._lane = lane
        self._wait_s = wait_s

    def session(self, session_id: str = "main") -> TranscriptSession:
        """The session of a conversation, as openai-agents takes it."""
        make = TranscriptSession
        return make(session_id, self._hf, session=self._session, compact=self._compact, wait_s=self._wait_s)

    async def run(self, input: Any, *, session_id: str = "main", **options: Any) -> RunResult:  # noqa: A002  # its name
        """`Runner.run` inside a turn; `options` are its own, but for `session`.

        Raises: SessionBusyError: not ours within `wait_s`. SessionTakeoverError: lost meanwhile; a finished answer is
        kept. What the run raises.
        """
        async with self._owned(session_id, options) as given:
            return await Runner.run(self.agent, input, **given)

    @asynccontextmanager
    async def run_streamed(
        self, input: Any, *, session_id: str = "main", **options: Any  # noqa: A002  # its name
    ) -> AsyncIterator[RunResultStreaming]:  # fmt: skip
        """`Runner.run_streamed` inside a turn, which ends with the block. A run that is left half-way is cancelled."""
        async with self._owned(session_id, options) as given:
            result = Runner.run_streamed(self.agent, input, **given)
            try:
                yield result
            finally:
                if not result.is_complete:
                    result.cancel()
                async for _ in result.stream_events():
                    pass  # the end of the run: what it still had to save is saved, and what it raises comes out

    @asynccontextmanager
    async def _owned(self, session_id: str, options: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        if "session" in options:
            raise InputError("an owned agent has its session already: give session_id")
        session = self.session(session_id)
        async with self._hf.turn(session.key, lane=self._lane, wait_s=self._wait_s) as turn:
            windows = _Windows(turn, options.pop("hooks", None))
            try:
                yield {**options, "session": session, "hooks": windows}
            finally:
                windows.leave()


def own(
    agent: Agent[Any], hf: Holdfast, *, session: str = SESSION, compact: Compact | None = None, lane: str = "main",
    wait_s: float = WAIT_S,
) -> OwnedAgent:  # fmt: skip
    """The agent, each run of which is a turn: `await own(agent, hf).run("hello", session_id="ada")`.

    A run reads the conversation, asks its models in prompt windows, and saves, all while it owns the session; the next,
    in whatever process, waits for it and sees what was said.

    Args:
        session: the key of a conversation's session, ending in `{id}`.
        compact: see `TranscriptSession`.
        lane, wait_s: as in `Holdfast.turn`.
    """
    return OwnedAgent(agent, hf, session=session, compact=compact, lane=lane, wait_s=wait_s)


class _Windows(RunHooks):  # pyright: ignore[reportUntypedBaseClass]
    """Each call of a model in a prompt window of the turn; the caller's own hooks are called as well."""

    def __init__(self, turn: Turn, theirs: Any) -> None:
        self._turn = turn
        self._theirs = theirs if theirs is not None else RunHooks()
        self._window: PromptWindow | None = None

    async def on_llm_start(self, context: Any, agent: Any, system_prompt: str | None, input_items: Any) -> None:
        await self._turn.check()
        await self._theirs.on_llm_start(context, agent, system_prompt, input_items)
        self.leave()
        self._turn.begins("model", str(agent.name))
        self._turn.note("turn.model", model=str(agent.name), step=next_step(self._turn))
        self._window = await self._turn.prompt_window().__aenter__()

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        window, self._window = self._window, None
        said = to_v3(response.to_input_items())
        has_calls = any(one.get("stopReason") == "toolUse" for one in said)
        if window is not None:
            if said and not has_calls:
                window.finished(said[-1])
            await window.__aexit__(None, None, None)
        self._turn.note("turn.answer", model=str(agent.name), finish="toolUse" if has_calls else "stop")
        if has_calls:
            await show(self._turn, said)  # on disk before the first tool starts
        await self._theirs.on_llm_end(context, agent, response)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        await self._turn.check()
        await self._theirs.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        await self._theirs.on_tool_end(context, agent, tool, result)

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        await self._theirs.on_agent_start(context, agent)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        await self._theirs.on_agent_end(context, agent, output)

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        await self._theirs.on_handoff(context, from_agent, to_agent)

    def leave(self) -> None:
        """A call that failed has no end of its own."""
        if self._window is not None:
            self._turn.windows.discard(self._window)
            self._turn.note("turn.discarded", reason="failed")
            self._window = None
