"""Environment variables that look like settings and are none."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping

from relive.config import ENV_PREFIX, BufferConfig
from relive.errors import InvalidConfig

_log = logging.getLogger(__name__)

# Of the compose file and of tests. Kafka's are refused by name where they are read, if unknown.
_NOT_SETTINGS = frozenset({"IMAGE", "PORT"})
_NOT_SETTINGS_PREFIXES = ("TEST_", "FAULTS", "KAFKA_")

# Of two names, how much has to be the same for one to be a slip for the other.
_NEAR = 0.8


def unknown_variables(names: Iterable[str]) -> Mapping[str, str | None]:
    """Variables that name no setting, each with the one that was probably meant, or None.

    Args:
        names: of all variables.
    """
    known = [name.upper() for name in BufferConfig.model_fields]
    unknown: dict[str, str | None] = {}
    for variable in sorted(names):
        name = variable.upper().removeprefix(ENV_PREFIX)
        if name == variable.upper() or name in known or name in _NOT_SETTINGS:
            continue
        if name.startswith(_NOT_SETTINGS_PREFIXES):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        unknown[variable] = ENV_PREFIX + near[0] if near else None
    return unknown


def check_environment(names: Iterable[str]) -> None:
    """Refuse what is probably a setting misspelt; warn of other variables that name none.

    Not all are refused: an orchestrator may set variables of its own, such as those that
    Kubernetes makes of a service called `relive`.

    Raises:
        InvalidConfig: names the variable, and the one that was probably meant; never the value.
    """
    unknown = unknown_variables(names)
    for variable, meant in unknown.items():
        if meant is not None:
            raise InvalidConfig(
                variable, variable, f"is no setting; {meant} is: rename or unset it"
            )
    for variable in unknown:
        _log.warning("%s names no setting, and is ignored", variable)
