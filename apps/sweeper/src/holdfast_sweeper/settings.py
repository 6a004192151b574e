"""`sweeper.toml`: what the sweeper looks at, and how much it may do. By default it writes nothing at all."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from holdfast_sweeper.ladder import RANKS, Rank

May = Literal["comment", "react", "labels", "status", "branch", "merge"]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Exempt(_Table):
    """What is not reviewed by itself; somebody with write access may ask for it all the same, except by label.

    authors: logins, also with `*`. labels: an item that has one is left alone altogether.
    """

    authors: tuple[str, ...] = ("*[[]bot]",)
    labels: tuple[str, ...] = ("sweeper: skip",)
    drafts: bool = True
    lines_max: Count = 20_000


class Limits(_Table):
    """Reviews of an item and of all within an hour, commands of a person within an hour, writes within a minute."""

    reviews_per_item: Count = 12
    reviews: Count = 120
    commands_per_person: Count = 20
    writes_per_minute: Count = 60


class Merge(_Table):
    """What a merge takes besides GitHub's own rules. method: as GitHub names it."""

    method: Literal["merge", "squash", "rebase"] = "squash"
    rank_min: Rank = "gold shrimp"
    reviews_min: Count = 1
    checks_min: Count = 1
    proof: bool = True


class Settings(_Table):
    """The whole file.

    Args:
        repositories: "owner/repo", "owner/*" or "*"; others are not heard. may: what is written to GitHub; nothing by
        default. dry_run: nothing, whatever `may` says. model: address of an OpenAI-compatible server or a Holdfast
        gateway; empty: plain rules. issues: whether issues are reviewed, too. public_url: where this server can be
        reached by readers of a comment, for the picture; empty: none. self_approval: whoever asks may consent as well.
        programs: logins of programs that may give commands.
    """

    repositories: tuple[str, ...] = ()
    may: tuple[May, ...] = ()
    dry_run: bool = False
    issues: bool = True
    model: str = ""
    model_name: str = "default"
    public_url: str = ""
    status_context: Annotated[str, Field(min_length=1, max_length=100)] = "holdfast-sweeper/proof"
    self_approval: bool = False
    approval_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 1_800.0
    programs: tuple[str, ...] = ()
    exempt: Exempt = Exempt()
    limits: Limits = Limits()
    merge: Merge = Merge()

    @field_validator("repositories")
    @classmethod
    def _are_repositories(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for one in names:
            if one != "*" and not re.fullmatch(r"[^/\s]+/[^/\s]+", one):
                raise ValueError(f"{one[:100]!r} is no repository; write owner/repo, owner/* or *")
        return names

    def hears(self, repo: str) -> bool:
        """Whether a repository is one of ours."""
        return any(fnmatch.fnmatchcase(repo.lower(), one.lower()) for one in self.repositories)

    def allows(self, what: May) -> bool:
        return what in self.may and not self.dry_run


def load(path: Path | None) -> Settings:
    """The settings in a file; None: the defaults. Raises: ValueError: with every fault and its key."""
    if path is None:
        return Settings()
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as exc:
        raise ValueError(f"{path}: {exc.strerror}") from None
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path}: {exc}") from None
    except ValidationError as exc:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in exc.errors())
        raise ValueError(f"{path}: {faults}") from None


def reaches(rank: Rank, least: Rank) -> bool:
    """Whether a rank is at least another; one that does not apply never does."""
    return rank != RANKS[-1] and RANKS.index(rank) <= RANKS.index(least)
