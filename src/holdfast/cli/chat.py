"""`holdfast chat`: a conversation at the terminal, answers as they are written."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from holdfast.cli.asking import ask
from holdfast.cli.output import for_people, print_json
from holdfast.cli.remote import Message
from holdfast.cli.send import print_answer
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.ids import nonce

ANSWER_S_MAX = 86_400.0
"""A person who waits stops waiting by Ctrl-C; a day is for forgotten terminals."""


class Screen:
    """Writes an answer as it grows. What was written turns out not to be the answer: says so, and writes it whole."""

    def __init__(self) -> None:
        self._shown = ""

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """One thing that happened in the turn."""
        if kind == "turn.delta":
            self._shown += data["text"]
            self._write(for_people(data["text"]))
        elif kind == "turn.model":
            self._end_line()
        elif kind == "turn.tool_call":
            self._end_line()
            self._write(for_people(f"[{data.get('name')} …]\n"))
        elif kind == "turn.discarded":
            self._end_line()
            self._write(for_people(f"[not the answer: {data.get('reason')}]\n"))

    def finish(self, shown: dict[str, Any]) -> None:
        """The settled input: whatever of its answer is not on the screen yet, and how it ended if not well."""
        written, self._shown = self._shown, ""
        if written and written == shown.get("answer"):
            self._write("\n")
            shown = shown | {"answer": None}
        elif written:
            self._write("\n")
        print_answer(shown, ANSWER_S_MAX)

    def _end_line(self) -> None:
        if self._shown:
            self._write("\n")
        self._shown = ""

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@click.command()
@click.argument("session", default="agent:main:main")
@click.option("--model", metavar="PROVIDER/MODEL", help="Model that answers [the agent's].")
@common_options
@pass_settings
def chat(settings: Settings, session: str, model: str | None) -> None:
    """Talk in SESSION [agent:main:main], line by line; end with Ctrl-D.

    Each line is stored before it is answered: after Ctrl-C it may still be, see `holdfast inputs`.
    """
    settings.stand_beside_openclaw()
    prompt = f"{session}> " if sys.stdin.isatty() else ""
    if prompt:
        import_module("readline")  # gives `input` its line editing
    while True:
        try:
            text = input(prompt)
        except EOFError:
            return
        if not text.strip():
            continue
        screen = Screen()
        watcher = None if settings.json else screen.take
        message = Message(session, text, nonce(), model=model)
        shown = ask(settings, message, wait=True, timeout_s=ANSWER_S_MAX, on_event=watcher)
        if settings.json:
            print_json(shown)
        else:
            screen.finish(shown)
