"""langgraph: threads in sessions, and runs of a graph as turns.

    saver = SessionSaver(hf)
    graph = own(builder.compile(checkpointer=saver), saver)
    await graph.ainvoke({"messages": [("user", "hello")]}, {"configurable": {"thread_id": "ada"}})

`own` is all that most programs need. The saver alone refuses a checkpoint whose parent is no longer the newest one,
where those that langgraph ships let the last writer win.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, get_checkpoint_id, get_checkpoint_metadata
from langgraph.checkpoint.memory import InMemorySaver

from holdfast.errors import CoordinationError, InputError
from holdfast.integrations.keeping import WAIT_S, data_of, keep, kept, show, writing
from holdfast.kernel import Holdfast
from holdfast.model.client import zero_usage
from holdfast.turn.owned import key_of
from holdfast.turn.turn import Turn

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol

SAVE_TYPE = "langgraph:save"
SESSION = "agent:main:langgraph:direct:{id}"
THREADS_KEPT_MAX = 100
FORKS_KNOWN_MAX = 1000
T = TypeVar("T")


class StaleCheckpointError(CoordinationError):
    """A checkpoint came whose parent is no longer the newest of its thread: somebody else has gone on from there.
    Nothing was saved; run again, from what the thread holds now, or own the run (`own`).
    """

    def __init__(self, thread: str, parent: str | None, newest: str) -> None:
        self.thread = thread
        self.parent = parent
        self.newest = newest
        super().__init__(
            f"thread {thread!r} has moved on: its newest checkpoint is {newest}, not {parent}; nothing was saved. Run "
            f"it again, or give its runs an owner (holdfast.integrations.langgraph.own)"
        )


class SessionSaver(BaseCheckpointSaver[str]):
    """Checkpoints and pending writes of a thread, as lines of the transcript of a session of its own.

    Make it inside the event loop in which `hf` was opened. Its synchronous methods are for other threads of the
    process; on the loop's own thread they would wait for themselves and raise InputError.

    A checkpoint is saved by the owner of the session: inside a turn (`own`) by that, else in a short one. Its parent is
    compared with the newest checkpoint while the session is owned. Going on from an older checkpoint is a fork, and
    allowed, once that checkpoint was asked for by its id.

    Deleting a thread, or some of its checkpoints, hides them; their bytes stay in the transcript until the session is
    archived and the archive deleted (`holdfast sessions`).

    Args:
        session: the key of a thread's session; ends in `{id}`, which stands for the thread's id.
        on_stale: "refuse": raise StaleCheckpointError. "fork": save it beside the newest one, whose place it takes, as
            langgraph's own savers do; nothing of the other is lost, but the thread goes on without it.
        wait_s: how long a save waits for somebody else's turn.

    Raises (besides): SessionBusyError, OwnershipLostError, ResourceError: nothing was saved.
    """

    def __init__(
        self, hf: Holdfast, *, session: str = SESSION, on_stale: Literal["refuse", "fork"] = "refuse",
        wait_s: float = WAIT_S, serde: SerializerProtocol | None = None,
    ) -> None:  # fmt: skip
        super().__init__(serde=serde)
        if not session.endswith("{id}"):
            raise InputError(f"session {session!r} has to end in {{id}}, by which threads are listed")
        self.hf = hf
        self._session = session
        self._on_stale = on_stale
        self._wait_s = wait_s
        self._loop = asyncio.get_running_loop()
        self._threads: OrderedDict[str, _Thread] = OrderedDict()
        self._forks: OrderedDict[tuple[str, str, str], None] = OrderedDict()  # (thread, ns, checkpoint) asked for by id

    def session_of(self, thread_id: str) -> str:
        """The key of a thread's session."""
        return key_of(self._session, {"id": thread_id})

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, ns = _named(config)
        thread = await self._thread(thread_id)
        asked = get_checkpoint_id(config)
        if asked is None:
            newest = thread.newest.get(ns)
            return None if newest is None else thread.image.get_tuple(_config(thread_id, ns, newest))
        if asked != thread.newest.get(ns):
            self._forks[(thread_id, ns, asked)] = None
            if len(self._forks) > FORKS_KNOWN_MAX:
                self._forks.popitem(last=False)
        return thread.image.get_tuple(config)

    async def alist(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None,  # noqa: A002  # langgraph's name
        before: RunnableConfig | None = None, limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:  # fmt: skip
        """Newest first. Without a config: of all threads, each of which is read whole."""
        ids = [_named(config)[0]] if config is not None else await self._thread_ids()
        for id in ids:
            if limit is not None and limit <= 0:
                return
            thread = await self._thread(id)
            one = config if config is not None else cast("RunnableConfig", {"configurable": {"thread_id": id}})
            for found in thread.image.list(one, filter=filter, before=before, limit=limit):
                limit = None if limit is None else limit - 1
                yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        thread_id, ns = _named(config)
        thread = await self._thread(thread_id)
        if get_checkpoint_id(config) is None and ns in thread.newest:
            config = _config(thread_id, ns, thread.newest[ns])
        return thread.image.get_delta_channel_history(config=config, channels=channels)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:  # fmt: skip
        """Raises: StaleCheckpointError. Cancelled: it is saved whole or not at all."""
        thread_id, ns = _named(config)
        parent, session = get_checkpoint_id(config), self.session_of(thread_id)
        bare: dict[str, Any] = {**checkpoint}
        values: dict[str, Any] = bare.pop("channel_values")
        async with writing(self.hf, session, wait_s=self._wait_s) as turn:
            thread = await self._thread(thread_id)
            newest = thread.newest.get(ns)
            is_fork = self._on_stale == "fork" or (thread_id, ns, parent or "") in self._forks
            if newest not in (None, parent) and not is_fork:
                raise StaleCheckpointError(thread_id, parent, newest or "")
            if ns == "" and "messages" in new_versions:
                await show(turn, _news(values.get("messages"), thread.messages(parent)))
            blobs = [
                [channel, version, *(self._out(values[channel]) if channel in values else ("empty", ""))]
                for channel, version in new_versions.items()
            ]
            described = get_checkpoint_metadata(config, metadata)
            await keep(
                turn,
                SAVE_TYPE,
                {
                    "do": "put", "ns": ns, "id": checkpoint["id"], "parent": parent, "blobs": blobs,
                    "checkpoint": self._out(bare), "metadata": self._out(described), "run": described.get("run_id"),
                },
            )  # fmt: skip
        return _config(thread_id, ns, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread_id, ns = _named(config)
        async with writing(self.hf, self.session_of(thread_id), wait_s=self._wait_s) as turn:
            told = [[channel, *self._out(value)] for channel, value in writes]
            id = get_checkpoint_id(config)
            data = {"do": "writes", "ns": ns, "id": id, "task": task_id, "path": task_path, "writes": told}
            await keep(turn, SAVE_TYPE, data)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._order(thread_id, {"do": "delete"})

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Looks through all threads."""
        for thread_id in await self._thread_ids():
            thread = await self._thread(thread_id)
            if set(run_ids) & set(thread.runs.values()):
                await self._order(thread_id, {"do": "delete runs", "runs": list(run_ids)})

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """All checkpoints and writes, at the end of what the other thread holds."""
        saves = [data_of(line) for line in await kept(self.hf, self.session_of(source_thread_id), SAVE_TYPE)]
        if saves:
            await self._order(target_thread_id, *saves)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """ "keep_latest" hides all but the newest checkpoint of each namespace, "delete" the whole thread."""
        if strategy not in ("keep_latest", "delete"):
            raise InputError(f'strategy is "keep_latest" or "delete", not {strategy!r}')
        for thread_id in thread_ids:
            await self._order(thread_id, {"do": "prune" if strategy == "keep_latest" else "delete"})

    def get_next_version(self, current: str | None, channel: None) -> str:
        return InMemorySaver.get_next_version(cast("InMemorySaver", self), current, channel)

    # ── from other threads ───────────────────────────────────────────────────────────────────────────────────────────

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._run(self.aget_tuple(config))

    def list(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None,  # noqa: A002  # langgraph's name
        before: RunnableConfig | None = None, limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:  # fmt: skip
        async def all_of() -> Sequence[CheckpointTuple]:
            return [found async for found in self.alist(config, filter=filter, before=before, limit=limit)]

        yield from self._run(all_of())

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._run(self.aget_delta_channel_history(config=config, channels=channels))

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:  # fmt: skip
        return self._run(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._run(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._run(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._run(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._run(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._run(self.aprune(thread_ids, strategy=strategy))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise InputError("this thread runs the loop that would do it: use ainvoke, aget_state and their kin here")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _order(self, thread_id: str, *orders: dict[str, Any]) -> None:
        session = self.session_of(thread_id)
        async with writing(self.hf, session, wait_s=self._wait_s) as turn:
            for order in orders:
                await keep(turn, SAVE_TYPE, order)

    async def _thread(self, thread_id: str) -> _Thread:
        """The thread as it is now; of what was read before only what is new is taken in."""
        session = self.session_of(thread_id)
        lines = await kept(self.hf, session, SAVE_TYPE)
        known = self._threads.get(session)
        if known is None or lines[: len(known.lines)][-1:] != known.lines[-1:]:
            known = _Thread(thread_id, self.serde)  # never seen, or its session was begun anew
        for line in lines[len(known.lines) :]:
            known.take_in(data_of(line))
            known.lines.append(line)
        self._threads[session] = known
        self._threads.move_to_end(session)
        if len(self._threads) > THREADS_KEPT_MAX:
            self._threads.popitem(last=False)
        return known

    async def _thread_ids(self) -> Sequence[str]:
        prefix = self._session.removesuffix("{id}")
        found = [view.key for view in await self.hf.sessions(prefix=prefix, limit=100_000)]
        return [_plain(key.removeprefix(prefix)) for key in found]

    def _out(self, value: Any) -> tuple[str, str]:
        kind, data = self.serde.dumps_typed(value)
        return kind, b64encode(data).decode()


class _Thread:
    """One thread as its saves, taken in one after the other, have left it."""

    def __init__(self, thread_id: str, serde: SerializerProtocol) -> None:
        self.id = thread_id
        self.image = InMemorySaver(serde=serde)
        self.lines: list[Any] = []
        self.newest: dict[str, str] = {}
        self.runs: dict[tuple[str, str], str] = {}

    def take_in(self, save: dict[str, Any]) -> None:
        match save["do"]:
            case "put":
                self._put(save)
            case "writes":
                self._write(save)
            case "delete":
                for ns in list(self.newest):
                    self._forget(ns, lambda _: True)
            case "delete runs":
                for ns in list(self.newest):
                    self._forget(ns, lambda id, ns=ns: self.runs.get((ns, id)) in save["runs"])
            case "prune":
                for ns in list(self.newest):
                    self._forget(ns, lambda id, ns=ns: id != self.newest[ns])
            case _:
                raise InputError(f"thread {self.id!r} was written by a newer release: {save['do']!r}")

    def messages(self, checkpoint: str | None) -> Any:
        """What the channel "messages" holds at a checkpoint."""
        found = self.image.get_tuple(_config(self.id, "", checkpoint)) if checkpoint is not None else None
        return found.checkpoint["channel_values"].get("messages") if found is not None else None

    def _put(self, save: dict[str, Any]) -> None:
        ns, id = save["ns"], save["id"]
        for channel, version, kind, data in save["blobs"]:
            self.image.blobs[(self.id, ns, channel, version)] = (kind, b64decode(data))
        made = (_typed(save["checkpoint"]), _typed(save["metadata"]), save["parent"])
        self.image.storage[self.id][ns][id] = made
        self.newest[ns] = id
        if save["run"] is not None:
            self.runs[(ns, id)] = save["run"]

    def _write(self, save: dict[str, Any]) -> None:
        of_task = _config(self.id, save["ns"], save["id"])
        loads = self.image.serde.loads_typed
        writes = [(channel, loads(_typed((kind, data)))) for channel, kind, data in save["writes"]]
        self.image.put_writes(of_task, writes, save["task"], save["path"])

    def _forget(self, ns: str, is_gone: Any) -> None:
        kept_ones = self.image.storage[self.id][ns]
        for id in [id for id in kept_ones if is_gone(id)]:
            del kept_ones[id]
            self.image.writes.pop((self.id, ns, id), None)
            self.runs.pop((ns, id), None)
        if not kept_ones:
            self.newest.pop(ns, None)
            del self.image.storage[self.id][ns]
        elif self.newest[ns] not in kept_ones:
            self.newest[ns] = next(reversed(kept_ones))  # in the order in which they were put


def _typed(pair: Sequence[str]) -> tuple[str, bytes]:
    return pair[0], b64decode(pair[1])


def _named(config: RunnableConfig) -> tuple[str, str]:
    named = config.get("configurable", {})
    return str(named["thread_id"]), named.get("checkpoint_ns", "")


def _config(thread_id: str, ns: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint}}


def _plain(id: str) -> str:
    """What `key_of` has encoded."""
    from urllib.parse import unquote

    return unquote(id)


# ── messages for everybody else ──────────────────────────────────────────────────────────────────────────────────────


def _news(now: Any, before: Any) -> list[dict[str, Any]]:
    """What the list of messages holds that it did not hold before, as the transcript's own messages."""
    if not isinstance(now, list):
        return []
    known = (
        {message.id for message in before if isinstance(message, BaseMessage)} if isinstance(before, list) else set()
    )
    new = [message for message in now if isinstance(message, BaseMessage) and message.id not in known]
    return [said for message in new if (said := _said(message)) is not None]


def _said(message: BaseMessage) -> dict[str, Any] | None:
    text = message.text
    content: list[dict[str, Any]] = [{"type": "text", "text": str(text)}] if text else []
    if isinstance(message, HumanMessage):
        return {"role": "user", "content": content} if content else None
    if isinstance(message, ToolMessage):
        about = {"toolCallId": message.tool_call_id, "toolName": message.name or "tool"}
        return {"role": "toolResult", **about, "content": content, "isError": message.status == "error"}
    if not isinstance(message, AIMessage):
        return None
    calls = [
        {"type": "toolCall", "id": call["id"] or "", "name": call["name"], "arguments": call["args"]}
        for call in message.tool_calls
    ]
    if not content and not calls:
        return None
    about = {"api": "langgraph", "provider": "langgraph", "model": message.response_metadata.get("model_name", "any")}
    stop = "toolUse" if calls else "stop"
    return {"role": "assistant", "content": [*content, *calls], **about, "usage": zero_usage(), "stopReason": stop}


# ── graphs whose runs are turns ──────────────────────────────────────────────────────────────────────────────────────


class OwnedGraph:
    """A compiled graph each of whose runs owns its thread: made by `own`. What is not here is the graph's own."""

    def __init__(self, graph: Any, saver: SessionSaver, *, lane: str, wait_s: float) -> None:
        self.graph = graph
        self._saver = saver
        self._lane = lane
        self._wait_s = wait_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graph, name)

    async def ainvoke(self, value: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """One run, inside a turn of its thread.

        Raises: SessionBusyError: not ours within `wait_s`. SessionTakeoverError: lost meanwhile. What the graph raises.
        """
        async with self._turn(config):
            return await self.graph.ainvoke(value, config, **kwargs)

    async def abatch(
        self, values: Sequence[Any], config: RunnableConfig | Sequence[RunnableConfig] | None = None, *,
        return_exceptions: bool = False, **kwargs: Any,
    ) -> Sequence[Any]:  # fmt: skip
        """A run for each value, those of one thread one after the other, in no order that is promised."""
        configs = config if isinstance(config, Sequence) else [config] * len(values)
        runs = [self.ainvoke(value, one, **kwargs) for value, one in zip(values, configs, strict=True)]
        return await asyncio.gather(*runs, return_exceptions=return_exceptions)

    async def astream(self, value: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncGenerator[Any]:
        """The same, streamed. One that is left half-way owns its thread until it is closed (`contextlib.aclosing`)."""
        async with self._turn(config):
            async for piece in self.graph.astream(value, config, **kwargs):
                yield piece

    async def astream_events(
        self, value: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any]:  # fmt: skip
        """As `astream`, with the events of everything inside."""
        async with self._turn(config):
            async for event in self.graph.astream_events(value, config, **kwargs):
                yield event

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> OwnedGraph:
        """The graph with a configuration of its own, owned like this one."""
        return OwnedGraph(
            self.graph.with_config(config, **kwargs), self._saver, lane=self._lane, wait_s=self._wait_s
        )  # fmt: skip

    async def aupdate_state(self, config: RunnableConfig, values: Any, *args: Any, **kwargs: Any) -> RunnableConfig:
        """A change of the state from outside, in a turn of its own."""
        async with self._turn(config):
            return await self.graph.aupdate_state(config, values, *args, **kwargs)

    async def abulk_update_state(self, config: RunnableConfig, supersteps: Any, **kwargs: Any) -> RunnableConfig:
        """Several such changes, in one turn."""
        async with self._turn(config):
            return await self.graph.abulk_update_state(config, supersteps, **kwargs)

    @asynccontextmanager
    async def _turn(self, config: RunnableConfig | None) -> AsyncIterator[Turn]:
        named = {**(self.graph.config or {}).get("configurable", {}), **(config or {}).get("configurable", {})}
        if "thread_id" not in named:
            raise InputError('a run needs a thread: {"configurable": {"thread_id": …}}')
        session = self._saver.session_of(str(named["thread_id"]))
        async with self._saver.hf.turn(session, lane=self._lane, wait_s=self._wait_s) as turn:
            yield turn


def own(graph: Any, saver: SessionSaver, *, lane: str = "main", wait_s: float = WAIT_S) -> OwnedGraph:
    """The graph, each run of which is a turn: the next, in whatever process, waits for it and begins where it ended.

    Args:
        graph: compiled with `checkpointer=saver`.
        lane, wait_s: as in `Holdfast.turn`.

    Raises: InputError: it was compiled with another checkpointer.
    """
    if getattr(graph, "checkpointer", None) is not saver:
        raise InputError("compile the graph with this saver: builder.compile(checkpointer=saver)")
    return OwnedGraph(graph, saver, lane=lane, wait_s=wait_s)
