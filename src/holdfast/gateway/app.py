"""The one place that knows all parts: from a configuration to a handle, models, a worker and an HTTP application."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.channel.channel import Channel
from holdfast.channel.console import ConsoleChannel
from holdfast.channel.listening import Adapter
from holdfast.channel.webhook import WebhookChannel
from holdfast.clock import Clock
from holdfast.context.system_prompt import FILES, SystemPrompt, build
from holdfast.errors import ResourceError
from holdfast.gateway.channels import as_adapters, exchange_hearings, make_platforms, run_listening, run_showing
from holdfast.gateway.generations import Generation, Generations
from holdfast.gateway.heartbeat_files import read_heartbeat_file
from holdfast.gateway.listening import Listening
from holdfast.gateway.tools import make_tools, redactor_of, run_background, run_servers
from holdfast.inbound.announcement import with_announcements
from holdfast.inbound.children import Children, with_child_ends
from holdfast.inbound.cron import job_of
from holdfast.inbound.freshness import ResetPolicy
from holdfast.inbound.timer import CRON
from holdfast.inbound.timers import Timers
from holdfast.kernel import Holdfast
from holdfast.lane.worker import Worker
from holdfast.model import catalog
from holdfast.model.caching import Caching
from holdfast.model.client import ModelClient
from holdfast.model.clients import ModelClients
from holdfast.model.prices import Prices
from holdfast.node_dir import node_dir
from holdfast.opening import open as open_state
from holdfast.outbox.delivery import Courier
from holdfast.outbox.showing import Showing
from holdfast.recovery.upkeep import Upkeep
from holdfast.recovery.watchdog import Watchdog
from holdfast.session.key import parse_key, type_of
from holdfast.store.views import InputView
from holdfast.tool.background import Background
from holdfast.tool.prompt_files import PromptFiles
from holdfast.tool.redact import Redactor
from holdfast.tool.respond import with_heartbeat_responses
from holdfast.tool.servers import Servers
from holdfast.turn.commands import Commands
from holdfast.turn.fresh_start import with_fresh_starts
from holdfast.turn.metering import Metering
from holdfast.turn.resets import with_resets
from holdfast.turn.runner import AgentSettings, Runner, TurnLimits
from holdfast.turn.tools import Tool

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from holdfast.config import Config
    from holdfast.gateway.reloading import Reloading, Reread
    from holdfast.observe.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Parts:
    """What stands in for the usual parts: tests, and programs that bring tools or models of their own.

    models: clients by provider name. tools: over the built-in ones. channels: besides the console. adapters: by
    the name of a channel of the configuration, in place of what its kind makes. env: where keys are looked up.
    """

    clock: Clock | None = None
    models: Mapping[str, ModelClient] = field(default_factory=dict)
    tools: Iterable[Tool] = ()
    channels: Iterable[Channel | Adapter] = ()
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


log = logging.getLogger("holdfast.gateway")
USUAL = Parts()
COURIER_STOP_S = 5.0  # what is cut off while it is being sent may have to be sent again with a label


@asynccontextmanager
async def open_handle(
    config: Config, state: str | os.PathLike[str], *, kind: str, parts: Parts = USUAL
) -> AsyncIterator[Holdfast]:
    """The state, opened as the configuration says.

    Args:
        kind: what this process is, for people: "gateway" or "cli".

    Raises:
        as `holdfast.open`.
    """
    async with open_state(
        state,
        fence_mode=config.session.fence_mode,
        clock=parts.clock,
        limits=config.limits(),
        acquire_timeout_ms=config.session.write_lock.acquire_timeout_ms,
        max_hold_ms=config.session.write_lock.max_hold_ms,
        lock_protocol=config.session.lock_protocol,
        stale_ms=config.session.write_lock.stale_ms,
        beat_s=config.turn.beat_s,
        beat_term_s=config.turn.beat_term_s,
        turn_max_s=config.turn.max_s,
        keep_days=config.turn.keep_days,
        kind=kind,
        watch=config.recovery.settings(),
    ) as hf:
        use_in_handle(hf, config)
        yield hf


def use_in_handle(hf: Holdfast, config: Config) -> None:
    """What a handle takes of a configuration at any time."""
    hf.spawn_limits = config.spawn_limits()
    hf.queue_for = lambda event: config.queue.settings(event.route.channel if event.route is not None else None)
    hf.watch = config.recovery.settings()
    hf.store.use_limits(config.limits())


@asynccontextmanager
async def open_worker(
    hf: Holdfast,
    config: Config,
    *,
    parts: Parts = USUAL,
    redactor: Redactor | None = None,
    channels: Collection[str] | None = None,
    background: Background | None = None,
    servers: Servers | None = None,
) -> AsyncIterator[tuple[Worker, Generations]]:
    """A worker that runs accepted inputs as the configuration says; not started yet. Model connections end with it.

    Args:
        redactor, channels, background: as of `make_tools`. servers: of more tools, ended by whoever made them.
    """
    redactor = redactor or redactor_of(config, parts)
    hf.redact = redactor.text
    first = make_generation(
        hf, config, parts, redactor=redactor, channels=channels, background=background, servers=servers
    )
    async with aclosing(Generations(first)) as generations:
        hf.commands = first.commands
        yield Worker(hf, first.run, limits=config.limits(), fence_mode_for=_fence_modes(config)), generations


def make_generation(
    hf: Holdfast,
    config: Config,
    parts: Parts,
    *,
    redactor: Redactor,
    channels: Collection[str] | None,
    background: Background | None,
    servers: Servers | None,
) -> Generation:
    """How turns are run, as the configuration says. Nothing of it counts yet.

    Raises:
        InputError: a function or plugin of the configuration cannot be loaded.
    """
    models = ModelClients(config.models.settings(), env=parts.env, clock=hf.clock, instead=parts.models)
    agents, prompt_files = agents_of(config, hf.state), PromptFiles()

    def model_of(session: str) -> str:
        return agents(session).model

    tools = make_tools(
        hf, config, parts, model_of=model_of, channels=channels, background=background, redactor=redactor
    )

    async def system_prompt_of(session: str) -> SystemPrompt:
        agent = agents(session)
        return build(session, await prompt_files(agent.workspace, agent.prompt_files), before=agent.system)

    commands = Commands(
        hf, model_of=model_of, check_model=models.client_for, approvers=tools.approvers,
        system_prompt_of=system_prompt_of,
    )  # fmt: skip
    if servers is not None:
        servers.reserve(tool.spec.name for tool in tools.toolbox)
    runner = Runner(
        hf,
        commands=commands,
        client_for=models,
        agent_for=agents,
        toolbox=tools.toolbox,
        gate=tools.gate,
        limits=limits_of(config),
        context_window=models.context_window,
        compaction=config.compaction.settings(),
        prompt_files=prompt_files,
        metering=metering_of(config),
        more_tools=servers.tools_for if servers is not None else None,
        caching=Caching(config.prompt_caching.settings(), models.api_of),
    )
    run_input = with_heartbeat_responses(with_child_ends(runner.run))
    run_input = with_resets(hf, run_input, _reset_policies(config))
    return Generation(models, commands, with_announcements(with_fresh_starts(hf, run_input)))


def metering_of(config: Config) -> Metering:
    """What counting model calls needs, as configured."""
    prices = Prices({ref: one.price() for ref, one in config.prices.items()}, config.models.settings())
    return Metering(prices, config.spending.limits())


def _fence_modes(config: Config) -> Callable[[str], str | None]:
    return lambda session: config.agent(parse_key(session).agent).fence_mode


def _reset_policies(config: Config) -> Callable[[str], ResetPolicy]:
    return lambda session: config.reset_policy(parse_key(session).agent, type_of(session))


def limits_of(config: Config) -> TurnLimits:
    """What ends a turn."""
    turn = config.turn
    return TurnLimits(turn.steps_max, turn.tool_seconds_max, turn.output_bytes_max, turn.silence_s)


def agents_of(config: Config, state: str) -> Callable[[str], AgentSettings]:
    """How the agent behind a session key answers."""
    folder = node_dir(state)

    def agent_for(session: str) -> AgentSettings:
        key = parse_key(session)
        agent = config.agent(key.agent)
        return AgentSettings(
            agent.model or config.models.default,
            agent.fallbacks or (),
            agent.system_prompt,
            agent.failover or config.models.failover,
            config.models.retry_s,
            config.models.notices,
            config.models.notice_route,
            agent.tools,
            agent.workspace or str(folder / "agents" / key.folder / "workspace"),
            FILES if agent.prompt_files is None else agent.prompt_files,
            agent.silence_s,
        )

    return agent_for


async def run_until_settled(
    hf: Holdfast, config: Config, input_id: str, *, timeout_s: float | None = None, parts: Parts = USUAL
) -> InputView:
    """Run inputs in this process until `input_id` is settled, by us or by anybody; its view then, or after `timeout_s`.

    What waits before it in its session is run first. Turns of other sessions that were begun meanwhile get the drain
    time of the configuration, then go back to their place in line.

    Raises:
        UnknownInputError: no such input. StoreStoppedError: the ledger failed.
    """
    async with (
        run_servers(hf, config, parts) as servers,
        open_worker(hf, config, parts=parts, servers=servers) as (worker, _),
    ):
        working = asyncio.create_task(worker.run(), name="worker")
        settled = asyncio.create_task(hf.wait_input(input_id, timeout_s), name=f"wait for {input_id}")
        try:
            await asyncio.wait({working, settled}, return_when=asyncio.FIRST_COMPLETED)
            if not settled.done():
                await working  # it ended by itself: its error says why
            view = await settled
            await worker.stop(config.gateway.drain_s if view.settled else 0.0)
            return view if view.settled else await hf.input(input_id)  # by now it is back in its place in line
        finally:
            settled.cancel()
            await _end(worker, working)
            await asyncio.gather(settled, return_exceptions=True)


@asynccontextmanager
async def run_courier(
    hf: Holdfast, config: Config, adapters: Iterable[Adapter], showing: Showing
) -> AsyncIterator[Courier]:
    """Deliver to the console and to `adapters` until left; what is being sent then gets some seconds to arrive."""
    adapters = list(adapters)
    every = [ConsoleChannel(), WebhookChannel(_addresses(hf)), *(one.channel for one in adapters)]
    editors = {one.channel.name: one.editor for one in adapters if one.editor is not None}
    courier = Courier(hf, every, stale_s=config.outbox.stale_hours * 3600, editors=editors, showing=showing)
    delivering = asyncio.create_task(courier.run(), name="courier")
    try:
        yield courier
    finally:
        await courier.stop(COURIER_STOP_S)
        await asyncio.gather(delivering, return_exceptions=True)  # it fails only with the store, as the worker does


def _addresses(hf: Holdfast) -> Callable[[str], Awaitable[str | None]]:
    """Where the results of a cron job are posted, as its definition says at that moment."""

    async def address_of(timer_id: str) -> str | None:
        timers = {timer.id: timer for timer in await hf.store.timers(kind=CRON)}
        return job_of(timers[timer_id]).url if timer_id in timers else None

    return address_of


@asynccontextmanager
async def run_timers(hf: Holdfast, config: Config) -> AsyncIterator[Timers]:
    """Fire the timers of the configuration and of the state until left."""
    from holdfast.config.timers import heartbeats_of, jobs_of

    timers = Timers(
        hf, jobs=jobs_of(config), heartbeats=heartbeats_of(config, node_dir(hf.state)), read_file=read_heartbeat_file
    )
    firing = asyncio.create_task(timers.run(), name="timers")
    try:
        yield timers
    finally:
        timers.stop()
        await asyncio.gather(firing, return_exceptions=True)  # it fails only with the store, as the worker does


@asynccontextmanager
async def run_children(hf: Holdfast, config: Config) -> AsyncIterator[Children]:
    """Bring the ends of sub-agents to their parents until left."""
    children = Children(hf, archive_after_s=config.subagents.archive_after_s)
    watching = asyncio.create_task(children.run(), name="children")
    try:
        yield children
    finally:
        children.stop()
        await asyncio.gather(watching, return_exceptions=True)  # it fails only with the store, as the worker does


@asynccontextmanager
async def run_watchdog(hf: Holdfast) -> AsyncIterator[None]:
    """Look after turns that stand still, in whatever process, until left."""
    watching = asyncio.create_task(Watchdog(hf).run(), name="watchdog")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@asynccontextmanager
async def run_upkeep(hf: Holdfast, config: Config) -> AsyncIterator[Upkeep]:
    """See to conversations as a whole until left: archives that somebody left half done, and retention."""
    upkeep = Upkeep(hf, config.retention.limits(), config.retention.mode)
    keeping = asyncio.create_task(upkeep.run(), name="upkeep")
    try:
        yield upkeep
    finally:
        upkeep.stop()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)  # it fails only with the store, as the worker does


async def _end(worker: Worker, working: asyncio.Task[None]) -> None:
    """Interrupt what runs and let the worker's loop end; then what that loop may have begun in its last look."""
    await worker.stop(0.0)
    await asyncio.gather(working, return_exceptions=True)
    await worker.stop(0.0)


class Gateway:
    """A running gateway without its socket.

    Attributes:
        hf: the handle.
        app: the ASGI application.
        worker, working: what runs the inputs, and its task, which ends by itself only if the store has failed.
        servers: of tools; None: the configuration names none.
        metrics: what it counts.
        reloading: takes a changed configuration.
    """

    def __init__(
        self, hf: Holdfast, app: ASGIApp, worker: Worker, working: asyncio.Task[None],
        loops: tuple[Listening, Timers, Children], courier: Courier, closing: asyncio.Event,
        metrics: Metrics, reloading: Reloading, servers: Servers | None = None,
    ) -> None:  # fmt: skip
        self.hf = hf
        self._loops = loops
        self._courier = courier
        self.app = app
        self.working = working
        self.worker = worker
        self._closing = closing
        self.servers = servers
        self.metrics = metrics
        self.reloading = reloading

    async def drain(self, budget_s: float) -> None:
        """Take no new input; give running turns `budget_s`, then put their inputs back in line; send callers away.

        Whose messages wait meanwhile is told, once, that they are answered after the restart. Cancelled or called again
        with less: the shorter time counts. The application goes on answering what it can.
        """
        self.hf.drain()
        for loop in self._loops:
            loop.stop()
        told = await self._tell_of_draining()
        await self.worker.stop(budget_s)
        told += await self._tell_of_draining()  # those that were put back
        if told:
            await self._courier.catch_up(COURIER_STOP_S)
        self._closing.set()

    async def _tell_of_draining(self) -> int:
        try:
            told = await self.hf.store.tell_of_draining()
        except ResourceError as exc:
            log.warning("nobody was told of the restart: %s", exc)
            return 0
        if told:
            self.hf.answers_arrived.set()
        return told


@asynccontextmanager
async def build_gateway(
    config: Config, hf: Holdfast, *, token: str, host: str, parts: Parts = USUAL, reread: Reread | None = None
) -> AsyncIterator[Gateway]:
    """Start the worker and the courier and make the application. Leaving stops the worker at once.

    Args:
        token: the bearer token of the application.
        host: the address it will listen on; callers may address it by this name and, on loopback, by localhost.
        reread: reads the configuration again; None: it came from nowhere that could be read.
    """
    from holdfast.config.timers import heartbeats_of, jobs_of
    from holdfast.gateway.channels_api import doors_of
    from holdfast.gateway.guard import LOOPBACK_NAMES  # the web framework, which `run_until_settled` does without
    from holdfast.gateway.hook_rules import hook_rules
    from holdfast.gateway.hooks_api import Hooks
    from holdfast.gateway.http import create_app
    from holdfast.gateway.log import hide
    from holdfast.gateway.login import Logins
    from holdfast.gateway.openai_api import Models
    from holdfast.gateway.reloading import Reloading
    from holdfast.gateway.secret_values import secrets_of
    from holdfast.gateway.tokens import Tokens, read_tokens
    from holdfast.observe.metrics import Metrics

    platforms = make_platforms(hf, config, parts.env, parts.adapters)
    adapters = [*as_adapters(parts.channels), *(one.adapter for one in platforms.values())]
    channels = {ConsoleChannel.usual_name, *(one.channel.name for one in adapters)}
    redactor = redactor_of(config, parts, hf.state, token)
    metrics = Metrics(hf)
    async with (
        hearing(hf, metrics),
        run_showing(hf, platforms) as showing,  # ends last: the courier waits for what it has under way
        run_courier(hf, config, adapters, showing) as courier,
        run_background(hf, redactor) as background,
        run_servers(hf, config, parts) as servers,
        open_worker(
            hf, config, parts=parts, redactor=redactor, channels=channels, background=background, servers=servers
        ) as (worker, generations),
        run_timers(hf, config) as timers,
        run_children(hf, config) as children,
        run_watchdog(hf),
        run_upkeep(hf, config) as upkeep,
        run_listening(hf, platforms) as listening,
    ):
        closing = asyncio.Event()
        names = Models(model_names(config), check=lambda ref: generations.now.models.client_for(ref))
        hosts = {*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host} if is_loopback(config, host) else None
        login = config.gateway.login
        tokens = Tokens(read_tokens(config, parts.env, own=token))
        logins = Logins(hf, tokens=tokens, lifetime_s=login.hours * 3600, secure=login.secure)
        rules = hook_rules(config, parts.env, token=token, channels=channels)
        hooks = Hooks(hf, rules) if rules is not None else None
        reloading = Reloading(hf, config, reread)

        async def apply(found: Config) -> None:
            fresh = make_generation(
                hf, found, parts, redactor=redactor, channels=channels, background=background, servers=servers
            )
            known = read_tokens(found, parts.env, own=token)
            ruled = hook_rules(found, parts.env, token=token, channels=channels) if hooks is not None else None
            secrets = secrets_of(found, parts.env)
            redactor.learn(secrets)
            hide(secrets)
            new_jobs = jobs_of(found), heartbeats_of(found, node_dir(hf.state))

            def take() -> None:
                """Nothing of this fails, and nothing comes between: a turn begins with all of it, or with none."""
                use_in_handle(hf, found)
                hf.commands = fresh.commands
                worker.exchange(fresh.run, limits=found.limits(), fence_mode_for=_fence_modes(found))
                tokens.exchange(known)
                names.names = model_names(found)
                timers.exchange(*new_jobs)
                upkeep.exchange(found.retention.limits(), found.retention.mode)
                exchange_hearings(platforms, found)
                if hooks is not None and ruled is not None:
                    hooks.exchange(ruled)

            await generations.exchange(fresh, take)

        reloading.apply = apply
        app = create_app(hf, tokens=tokens, models=names, hosts=hosts, closing=closing, channels=channels, hooks=hooks,
                         routing=lambda: reloading.config.routing(), limits=lambda: reloading.config.retention.limits(),
                         reloading=reloading,
                         doors=doors_of(platforms), logins=logins, metrics=metrics,
                         security_contact=config.gateway.security_contact)  # fmt: skip
        working = asyncio.create_task(worker.run(), name="worker")
        try:
            yield Gateway(
                hf, app, worker, working, (listening, timers, children), courier, closing, metrics, reloading, servers
            )
        finally:
            await _end(worker, working)


@asynccontextmanager
async def hearing(hf: Holdfast, metrics: Metrics) -> AsyncIterator[None]:
    """Count and, where the environment asks for it, trace what happens, until left."""
    from holdfast.observe.tracing import tracing

    with metrics.hear(), tracing(hf):
        yield


def is_loopback(config: Config, host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    return config.gateway.model_copy(update={"host": host}).is_loopback


def model_names(config: Config) -> list[str]:
    """What `/v1/models` lists: agents, and every model that the configuration names."""
    agents = [config.agent(name) for name in config.agents]
    refs = [config.models.default, *config.models.fallbacks]
    refs += [ref for agent in agents for ref in (agent.model or "", *(agent.fallbacks or ()))]
    names = [f"holdfast/{name}" for name in config.agents]
    demo = f"{catalog.DEMO}/demo"
    return list(dict.fromkeys([*names, *(ref for ref in refs if ref), demo]))
