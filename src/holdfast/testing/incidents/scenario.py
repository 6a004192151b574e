"""The file format of incidents: what a step and a fact may be, and reading a file of them.

A word that is not in the vocabulary of the runner is an error of the file, never a pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from holdfast.errors import InputError
from holdfast.testing.incidents.words import FACTS, VERBS

FORMAT = 1


class ScenarioError(InputError):
    """The scenario says something that the runner does not understand. Mend the scenario."""


class Step(msgspec.Struct, frozen=True):
    """Something that happens: a verb and what it needs."""

    verb: str
    args: dict[str, Any] = {}


class Expectation(msgspec.Struct, frozen=True):
    """Something that must hold at the end."""

    fact: str
    args: dict[str, Any] = {}

    def __str__(self) -> str:
        return " ".join([self.fact, *(f"{name}={value}" for name, value in self.args.items())])


class Incident(msgspec.Struct, frozen=True):
    """One scenario. Fields for people (threads, symptom, …) are not read."""

    id: str
    family: str
    steps: tuple[Step, ...]
    expected: tuple[Expectation, ...]
    setup: tuple[Step, ...] = ()

    @property
    def all_steps(self) -> tuple[Step, ...]:
        return (*self.setup, *self.steps)


class IncidentFile(msgspec.Struct, frozen=True):
    format: int
    incidents: tuple[Incident, ...]


def load_incidents(path: Path) -> list[Incident]:
    """Read and check a file of incidents.

    Raises:
        ScenarioError: not such a file, or a verb or fact that does not exist; names the incident.
        OSError: the file cannot be read.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=IncidentFile)
    except msgspec.DecodeError as wrong:
        raise ScenarioError(f"{path} is not a file of incidents: {wrong}") from wrong
    if file.format != FORMAT:
        raise ScenarioError(f"{path} has format {file.format}; this release reads {FORMAT}")
    seen: set[str] = set()
    for incident in file.incidents:
        if incident.id in seen:
            raise ScenarioError(f"{path}: two incidents are called {incident.id!r}")
        seen.add(incident.id)
        check_words(incident)
    return [_with_texts(incident) for incident in file.incidents]


def _with_texts(incident: Incident) -> Incident:
    """Texts as texts, also those that look like numbers."""
    steps = [Step(one.verb, _text_args(one.args)) for one in incident.steps]
    expected = [Expectation(one.fact, _text_args(one.args)) for one in incident.expected]
    return msgspec.structs.replace(incident, steps=tuple(steps), expected=tuple(expected))


def _text_args(args: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if name in ("text", "id") else value for name, value in args.items()}


def check_words(incident: Incident) -> None:
    """Raises ScenarioError for a verb, a fact or an argument that does not exist, and for an incident without facts."""
    for step in incident.all_steps:
        _check(incident.id, "verb", step.verb, step.args, VERBS)
    for expectation in incident.expected:
        _check(incident.id, "fact", expectation.fact, expectation.args, FACTS)
    if not incident.expected:
        raise ScenarioError(f"{incident.id}: expects nothing, so it could not fail")


def _check(incident: str, what: str, word: str, args: dict[str, Any], known: dict[str, str]) -> None:
    if word not in known:
        raise ScenarioError(f"{incident}: unknown {what} {word!r}; there are: {', '.join(known)}")
    unknown = sorted(set(args) - set(known[word].split()))
    if unknown:
        raise ScenarioError(f"{incident}: {what} {word} has no {', '.join(unknown)}; it has: {known[word]}")
