"""`[gateway.login]`: browsers that are let in without the token (`docs/web-chat.md`)."""

from __future__ import annotations

from pydantic import Field

from holdfast.config.section import Section


class LoginConfig(Section):
    """Browsers, which log in with the token once and hold a cookie from then on."""

    hours: float = Field(
        default=12.0, gt=0, le=720, description="For how long a browser stays logged in, whatever it does meanwhile."
    )
    secure: bool = Field(
        default=False,
        description="The cookie is sent over TLS alone: for a gateway behind a proxy that speaks TLS to browsers.",
    )
