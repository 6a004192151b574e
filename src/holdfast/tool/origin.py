"""Where a turn comes from in the end, and who may answer its questions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from holdfast.lane.queue import USER_LANE
from holdfast.session.key import parse_key
from holdfast.tool.policy import Caller, Policy, is_trusted

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast

PARENTS_MAX = 8
"""More than sub-agents may be deep (`subagents.depth_max`)."""


async def top_of(hf: Holdfast, session: str) -> tuple[str, str | None]:
    """The conversation that a session's task comes from in the end, and where the answer to that goes: of a sub-agent,
    that of its parent, and so on. Any other session is its own, and the route is None.
    """
    route: str | None = None
    for _ in range(PARENTS_MAX):
        key = parse_key(session)
        child = await hf.store.child(f"child_{key.name}") if key.kind == "subagent" else None
        if child is None:
            break
        session, route = child.parent_session, child.route
    return session, route


@dataclass(frozen=True, slots=True)
class Approvers:
    """Who may answer questions by a command in a chat.

    Args:
        policy: a conversation that it trusts answers its own.
        sessions: from these, questions of all conversations are answered: keys, or patterns with `*`.
    """

    policy: Policy = field(default_factory=Policy)
    sessions: tuple[str, ...] = ()

    def may_answer(self, session: str, keys: Collection[str], top: str) -> bool:
        """Whether somebody who speaks in `session` may answer a question of conversation `top`.

        Args:
            keys: all keys of the speaker's conversation.
        """
        if any(fnmatchcase(session, one) for one in self.sessions):
            return True
        key = parse_key(session)
        speaker = Caller(key.agent, USER_LANE, key.channel or "", session)
        return (top == session or top in keys) and is_trusted(self.policy, speaker)
