"""The configuration: whether it can be read, and whether all of it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from relive.cli.diagnosis.finding import Finding, ok, problem, warning
from relive.config import BufferConfig
from relive.environment import unknown_variables
from relive.errors import InvalidConfig
from relive.index_service.rpc_tls import server_credentials
from relive.index_service.rpc_tokens import Tokens, token_from


def look_at_environment() -> Iterator[Finding]:
    """Variables that look like settings and are none."""
    name = "environment"
    unknown = unknown_variables(os.environ)
    for variable, meant in unknown.items():
        if meant is not None:
            yield problem(
                name,
                f"{variable} is no setting; {meant} is",
                f"rename {variable} to {meant}, or unset it; services refuse to start with it",
            )
        else:
            yield warning(name, f"{variable} names no setting, and is ignored", f"unset {variable}")
    if not unknown:
        yield ok(name, "every RELIVE_… variable is known")


def look_at_settings(file: Path | None) -> tuple[BufferConfig | None, list[Finding]]:
    """The configuration, or None where it is of no use."""
    name = "configuration"
    try:
        config = BufferConfig.load(file)
    except InvalidConfig as error:
        return None, [problem(name, str(error), f"correct {error.field}")]
    found = []
    try:
        security = config.server_security()
        if security.tls is not None:
            server_credentials(security.tls)
        if security.tokens_file is not None:
            Tokens(security.tokens_file)
        if config.token_file is not None:
            token_from(config.token_file)
    except InvalidConfig as error:
        found.append(problem("security", str(error), f"correct {error.field}"))
    said = ", ".join(sorted(config.model_fields_set)) or "nothing; defaults hold"
    return config, [ok(name, f"set explicitly: {said}"), *found]
