"""`[channels.NAME.github]` (`docs/github.md`)."""

from __future__ import annotations

from pydantic import Field

from holdfast.config.section import Section, VariableName

TRUSTED = ("@owner", "@member", "@collaborator")
"""Who may speak if nobody says otherwise: on a public repository anybody can comment."""


class GitHubConfig(Section):
    """An account of GitHub (`docs/github.md`)."""

    token_env: VariableName = Field(
        default="GITHUB_TOKEN", description="Environment variable with the token of the account that comments."
    )
    webhook_secret_env: VariableName = Field(
        default="GITHUB_WEBHOOK_SECRET", description="Environment variable with the secret of the webhook."
    )
    login: str | None = Field(
        default=None, description="The account's name, by which it is mentioned. Unset: GitHub is asked once."
    )
    one_comment: bool = Field(
        default=False,
        description="One comment per issue or pull request, which becomes the newest answer, instead of one for each.",
    )
    mentions: bool = Field(
        default=False, description="Whether answers notify whom they name with `@`: people, and teams of hundreds."
    )
    api_url: str | None = Field(
        default=None, description="Address of the API, for GitHub Enterprise. Unset: GitHub's own."
    )
