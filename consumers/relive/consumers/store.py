"""The state store: what every backend promises.

A store keeps the tables of `relive.core.tail.Table`. It knows nothing of their content.
"""

from __future__ import annotations

from typing import Protocol

from relive.core.tail import Changes, KeyValues


class StateStore(KeyValues, Protocol):
    """Durable tables. `get` may be called from any thread; the rest from one at a time.

    Reads see what the last `commit` left. One process owns a store.
    """

    def commit(self, changes: Changes) -> None:
        """Make all changes durable, or none of them.

        Raises:
            StoreError: nothing was changed.
        """

    def close(self) -> None:
        """Release the store. Safe to call twice."""
