"""`[channels]`: the platforms, who may speak there, and how answers are shown (`docs/channels.md`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from holdfast.channel.gate import DmPolicy, GateRules, GroupPolicy
from holdfast.channel.web_words import OWNER
from holdfast.config.github import TRUSTED, GitHubConfig
from holdfast.config.section import FrozenMap, Positive, Section, VariableName

GITHUB, WEB = "github", "web"
"""The web chat, which is there without a table."""
Streaming = Literal["off", "partial", "block"]
Option = bool | int | float | str | Annotated[tuple[str, ...], Field(strict=False)]

Names = Annotated[tuple[str, ...], Field(strict=False)]


class SlackConfig(Section):
    """A Slack app (`docs/slack.md`)."""

    bot_token_env: VariableName = Field(
        default="SLACK_BOT_TOKEN", description="Environment variable with the bot token (`xoxb-…`)."
    )
    app_token_env: VariableName = Field(
        default="SLACK_APP_TOKEN",
        description="Environment variable with the app token (`xapp-…`), for `socket`.",
    )
    signing_secret_env: VariableName = Field(
        default="SLACK_SIGNING_SECRET", description="Environment variable with the signing secret, for `http`."
    )
    mode: Literal["socket", "http"] = Field(
        default="socket",
        description="How messages come in: `socket`: by a connection of ours, nothing has to be reachable from "
        "outside; `http`: Slack calls `POST /channels/NAME`.",
    )
    reply_in_thread: Literal["always", "in_threads", "never"] = Field(
        default="always",
        description="Where answers in channels go: `always` into a thread under the message, which is a conversation "
        "of its own; `in_threads` only where the message stands in one; `never`.",
    )
    dm_threads: bool = Field(
        default=False, description="Whether threads in direct messages are conversations of their own."
    )
    api_url: str | None = Field(
        default=None, description="Address of the Web API, for a proxy or GovSlack. Unset: Slack's own."
    )


class DiscordConfig(Section):
    """A Discord bot (`docs/discord.md`)."""

    token_env: VariableName = Field(
        default="DISCORD_BOT_TOKEN", description="Environment variable with the bot's token."
    )
    reply_in_thread: Literal["always", "in_threads"] = Field(
        default="in_threads",
        description="Where answers in channels go: `always` into a thread under the message, which is a conversation "
        "of its own; `in_threads` only where the message stands in one, else into the channel.",
    )
    message_content: bool = Field(
        default=True,
        description="Whether the bot asks to read everything that is said in its channels (Message Content Intent). "
        "False: it hears only what names it, and direct messages.",
    )
    api_url: str | None = Field(default=None, description="Address of the API, for a proxy. Unset: Discord's own.")


class TelegramConfig(Section):
    """A Telegram bot (`docs/telegram.md`)."""

    token_env: VariableName = Field(
        default="TELEGRAM_BOT_TOKEN", description="Environment variable with the bot's token."
    )
    api_url: str | None = Field(
        default=None, description="Address of the Bot API, for a server of your own. Unset: Telegram's."
    )


_DISCORD_ID = re.compile(r"[0-9*]+")
_GITHUB_REPO = re.compile(r"[a-z0-9*-]+/[a-z0-9._*-]+|\*")


class ChannelConfig(Section):
    """One platform. The NAME is how routes call it: `NAME:target`."""

    kind: str | None = Field(
        default=None,
        description="Which adapter: `slack`, `discord`, `github`, `telegram`, `web`, or an entry point of the "
        "group `holdfast.channels`. Unset: NAME.",
    )
    enabled: bool = Field(default=True, description="False: as if the table were not there.")
    dm: DmPolicy = Field(
        default="pairing",
        description="Direct messages: `pairing`: from `allow_from`, and from others once you have approved their code; "
        "`allow`: from `allow_from` alone; `open`: from everybody; `closed`: from nobody.",
    )
    allow_from: Names = Field(default=(), description="Senders that may write directly: ids, or patterns with `*`.")
    groups: GroupPolicy = Field(
        default="allow",
        description="Groups and channels that are listened to: `allow`: those of `allow_groups`; `open`: all that the "
        "bot is in; `closed`: none.",
    )
    allow_groups: Names = Field(default=(), description="Groups and channels: ids, or patterns with `*`.")
    group_senders: Names = Field(
        default=(),
        description="Who may speak to it in groups: ids, or patterns with `*`. Empty: whoever is in them. On GitHub "
        "also what somebody is to a repository, and empty there is `@owner`, `@member`, `@collaborator`.",
    )
    mention: bool = Field(
        default=True,
        description="In groups only what names the bot, answers it, or stands in a thread in which it was spoken to.",
    )
    bots: bool = Field(default=False, description="Whether other bots are listened to. Two that answer each other do "
                       "not stop.")  # fmt: skip
    streaming: Streaming | None = Field(
        default=None,
        description="How an answer is shown while it is written: `off`: when it is done; `partial`: one message that "
        "is edited as it grows; `block`: the same, by paragraphs that are done. What a platform cannot is `off`. "
        "Unset: `off`, in the web chat `partial`.",
    )
    typing: bool = Field(default=True, description="Whether it shows that it is writing, where the platform can.")
    reaction: str | None = Field(
        default=None, description="A sign beside each message that was taken, such as `eyes`. Unset: none."
    )
    attachments_max: Annotated[int, Field(ge=0, le=20)] = Field(
        default=4, description="Files of one message that are read. 0: none."
    )
    attachment_mib_max: Positive = Field(default=5, le=8, description="MiB of one file; larger ones are only named.")
    slack: SlackConfig | None = None
    discord: DiscordConfig | None = None
    telegram: TelegramConfig | None = None
    github: GitHubConfig | None = None
    options: FrozenMap[Option] = Field(
        default_factory=dict, validate_default=True, description="What a plugin's adapter wants to know."
    )

    @property
    def is_open(self) -> bool:
        """Whether anybody may write directly, so that writing alone makes nobody trusted."""
        return self.dm == "open" or any(set(one) <= {"*"} for one in self.allow_from)

    def listens(self, name: str) -> bool:
        """Whether a connection of ours is kept, as far as the configuration can tell."""
        if (self.kind or name) == "slack":
            return (self.slack or SlackConfig()).mode == "socket"
        return (self.kind or name) not in (WEB, GITHUB)

    def is_web(self, name: str) -> bool:
        """Whether it is the web chat."""
        return (self.kind or name) == WEB

    def shown_as(self, name: str) -> Streaming:
        """How answers are shown while they are written."""
        return self.streaming or ("partial" if self.is_web(name) else "off")

    def rules(self, name: str) -> GateRules:
        """Who may speak, as the gate takes it. Whoever is logged in has shown the token; on GitHub all may comment."""
        allow_from = (*self.allow_from, OWNER) if self.is_web(name) else self.allow_from
        senders = self.group_senders or (TRUSTED if (self.kind or name) == GITHUB else ())
        return GateRules(self.dm, allow_from, self.groups, self.allow_groups, senders, self.mention, self.bots)

    def adapter_options(self, kind: str) -> dict[str, Any]:
        """What the adapter's maker gets: its own table with its defaults, or `options`."""
        tables = {"slack": SlackConfig, "discord": DiscordConfig, "github": GitHubConfig, "telegram": TelegramConfig}
        if kind not in tables:
            return dict(self.options)
        return (getattr(self, kind) or tables[kind]()).model_dump()


def check_channels(channels: Mapping[str, ChannelConfig]) -> list[str]:
    """Faults of the tables of channels, each with its key's path."""
    faults: list[str] = []
    bots: dict[str, str] = {}
    for name, one in channels.items():
        if one.enabled and (one.kind or name) == GITHUB:
            faults += [
                f"channels.{name}.allow_groups: {given!r} names no repository: owner/repo, in small letters, or owner/*"
                for given in one.allow_groups
                if not _GITHUB_REPO.fullmatch(given)
            ]
        if not one.enabled or (one.kind or name) != "discord":
            continue
        for key in ("allow_from", "allow_groups", "group_senders"):
            faults += [
                f"channels.{name}.{key}: {given!r} is no id of Discord's, which is a number (Developer Mode, Copy ID)"
                for given in getattr(one, key)
                if not _DISCORD_ID.fullmatch(given)
            ]
        token_env = (one.discord or DiscordConfig()).token_env
        other = bots.setdefault(token_env, name)
        if other != name:
            faults.append(
                f"channels.{name}.discord.token_env: {token_env} is the bot of channels.{other} already, so that each "
                "message would be answered twice"
            )
    return faults
