"""What the conversation of an item holds of it: one line, written anew at the end of each turn. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from holdfast_sweeper.facts import Facts
from holdfast_sweeper.plan import Memory
from holdfast_sweeper.render import Note

KEPT, DRAFTED = "sweeper.memory", "sweeper.draft"
NOT_ARMED = ("", 0, "")
NOTES_MAX, REVIEWS_MAX = 5, 200


@dataclass(frozen=True, slots=True)
class Said:
    """What became of a command. input: whose turn it was; is_over: nothing more will be said about it."""

    word: str
    by: str
    said: str
    input: str
    is_over: bool = True

    @property
    def note(self) -> Note:
        return Note(self.word, self.by, self.said)


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything that is remembered of an item.

    Args:
        digest: of the facts of the newest review; head: their commit. draft, model, at, note: that review's.
        report: as it was shown. status: what our commit status says, as "commit state". said: of commands, newest last.
        stopped: digest of the facts at which somebody has said stop. armed: who has asked for a merge that waits for
        checks: login, number, and the commit it is for. Others: `plan.Memory`.
    """

    comment: int = 0
    digest: str = ""
    head: str = ""
    draft: Mapping[str, Any] | None = None
    model: str = ""
    at: str = ""
    note: str = ""
    report: str = ""
    status: str = ""
    proof_head: str = ""
    proof_body: str = ""
    stopped: str = ""
    has_hatched: bool = False
    armed: tuple[str, int, str] = NOT_ARMED
    reviews: tuple[float, ...] = ()
    said: tuple[Said, ...] = ()

    @property
    def memory(self) -> Memory:
        """As the plan asks for it."""
        return Memory(self.comment, self.digest, self.proof_head, self.proof_body, self.reviews)

    def with_said(self, word: str, by: str, said: str, input_id: str, *, is_over: bool = True) -> Kept:
        """With news of a command; of one that was told of already, instead of that."""
        others = [one for one in self.said if one.input != input_id]
        return replace(self, said=(*others, Said(word, by, said, input_id, is_over))[-NOTES_MAX:])

    def without_running(self, input_id: str) -> Kept:
        """What other turns were about to do, they do no more: an item has one turn at a time."""
        ended = tuple(
            one if one.is_over or one.input == input_id else replace(one, said="ended by what came after", is_over=True)
            for one in self.said
        )
        return replace(self, said=ended)

    def is_of(self, facts: Facts) -> bool:
        """Whether the review is of the item as it is now."""
        return self.draft is not None and self.digest == facts.digest

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        told["reviews"] = list(self.reviews[-REVIEWS_MAX:])
        told["said"] = [{one.name: getattr(said, one.name) for one in fields(said)} for said in self.said]
        return told

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Kept:
        """What is not known of it is left at its default."""
        known: dict[str, Any] = {one.name: told[one.name] for one in fields(cls) if one.name in told}
        known["said"] = tuple(Said(**one) for one in known.get("said", ()))
        known["reviews"] = tuple(known.get("reviews", ()))
        known["armed"] = tuple(known.get("armed", NOT_ARMED))
        return cls(**known)


def kept_of(entries: Iterable[Mapping[str, Any]]) -> Kept:
    """The newest memory among lines of a conversation; each as its JSON."""
    found: Mapping[str, Any] | None = None
    for one in entries:
        if one.get("customType") == KEPT and isinstance(one.get("data"), dict):
            found = one["data"]
    return Kept() if found is None else Kept.from_json(found)


def drafted(entries: Sequence[Mapping[str, Any]], key: str) -> Mapping[str, Any] | None:
    """What a model has answered for `key` in an earlier attempt; None: nothing."""
    for one in reversed(entries):
        data = one.get("data")
        if one.get("customType") == DRAFTED and isinstance(data, dict) and data.get("key") == key:
            return data
    return None
