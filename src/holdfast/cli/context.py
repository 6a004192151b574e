"""`holdfast context`: what the model of a session is shown, and what of it costs how much. Never writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from holdfast.cli.lists import read
from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.context.system_prompt import PromptFile
    from holdfast.session.lines import Line


@dataclass(frozen=True, slots=True)
class Shown:
    """What the next turn of a session begins with, its own message aside.

    Args:
        window: tokens that the model takes. room: those that a request may hold.
        system_tokens, tokens: estimates, or the provider's own count where there is one.
        lines: on the active branch; `messages`: what is shown of them. is_compacted: a summary stands before them.
        files: those that stand before the conversation.
    """

    session: str
    model: str
    window: int
    room: int
    system_tokens: int
    tokens: int
    messages: int
    lines: int
    is_compacted: bool
    files: tuple[PromptFile, ...]


@click.command()
@click.argument("session")
@common_options
@pass_settings
def context(settings: Settings, session: str) -> None:
    """Tell what the model of SESSION is shown: the files that stand before the conversation, each with its size and
    whether it was cut, and how much of the conversation there is room for.

    As of now and by this configuration; a gateway may have been started with another one.
    """
    found = _shown(settings, session)
    if settings.json:
        print_json(found)
        return
    print_text(on_one_line(f"session {found.session}"))
    print_text(f"model: {found.model}, {found.window} tokens, {found.room} of them for a request")
    beginning = "a summary and what came after it" if found.is_compacted else "from its beginning"
    print_text(f"conversation: {found.messages} messages of {found.lines} lines ({beginning}), {found.tokens} tokens")
    print_text(f"before it: {found.system_tokens} tokens")
    for one in found.files:
        print_text(on_one_line(f"  {one.in_words}"))


def _shown(settings: Settings, session: str) -> Shown:
    from holdfast.context.budget import count_tokens, text_tokens
    from holdfast.context.plan import is_compaction, plan
    from holdfast.context.system_prompt import build
    from holdfast.gateway.app import agents_of
    from holdfast.model import catalog
    from holdfast.session.branch import active_branch
    from holdfast.tool.prompt_files import PromptFiles

    config = settings.load().config
    agent = agents_of(config, settings.existing_state())(session)
    lines: Sequence[Line] = active_branch(read(settings, lambda hf: hf.session(session).lines())).lines
    files = asyncio.run(PromptFiles()(agent.workspace, agent.prompt_files))
    prompt = build(session, files, before=agent.system)
    planned = plan(lines)
    window = catalog.context_window(agent.model, config.models.settings())
    return Shown(
        session, agent.model, window, config.compaction.settings().budget(window).room,
        text_tokens(prompt.text or ""), count_tokens(planned.messages), len(planned.messages), len(lines),
        any(is_compaction(line) for line in lines), prompt.files,
    )  # fmt: skip
