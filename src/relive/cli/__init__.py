"""The `relive` command."""
