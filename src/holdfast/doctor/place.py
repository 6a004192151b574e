"""Checks of what is around a state: configuration, port, keys of model providers, and the models themselves. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.doctor.facts import StateFacts
from holdfast.doctor.finding import Finding


def find_bad_config(facts: StateFacts) -> Iterator[Finding]:
    """Every fault at once, and what should be known."""
    place = facts.place
    for fault in place.config_faults:
        yield Finding("config", fault.partition(":")[0], fault, "`holdfast config check` and `config show` tell more")
    for warning in place.config_warnings:
        yield Finding("config", warning.partition(":")[0], warning, level="remark")
    if place.open_secrets is not None:
        path, mode = place.open_secrets
        yield Finding(
            "config", path, f"{path} holds secrets and has mode {mode:04o}: other users of this machine may read them",
            f"chmod 600 {path}, or name variables instead (api_key_env)",
        )  # fmt: skip


def find_taken_port(facts: StateFacts) -> Iterator[Finding]:
    """The address of the gateway is free, or our own gateway is there."""
    port = facts.place.port
    if port is None:
        return
    if port.holder:
        yield Finding(
            "port", str(port.port), f"port {port.port} on {port.host} is taken by {port.holder}",
            "end it, or choose another (gateway.port); `holdfast up` would end with code 69",
        )  # fmt: skip
    elif port.refused:
        yield Finding(
            "port", port.host, f"nothing can listen on {port.host}: {port.refused}",
            "name an address of this machine (gateway.host)",
        )  # fmt: skip


def find_missing_keys(facts: StateFacts) -> Iterator[Finding]:
    """Each model that the configuration names has a key, where its provider wants one. Whether it is good, `--online`
    finds out.
    """
    for key, said in facts.place.keyless:
        yield Finding(
            "credentials", key, f"{key}: {said}", "a gateway that was started with the key in its environment has it",
        )  # fmt: skip


def find_silent_models(facts: StateFacts) -> Iterator[Finding]:
    """Each model that the configuration names answers."""
    for ref, said in facts.place.silent:
        yield Finding(
            "models", ref, f"{ref} does not answer: {said}",
            "see to its provider, key or base_url; `holdfast model status` shows what turns have met",
        )  # fmt: skip
