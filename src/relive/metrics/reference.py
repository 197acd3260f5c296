"""The tables of docs/metrics.md, made of the catalogue."""

from __future__ import annotations

from itertools import groupby

from relive.metrics.catalogue import CATALOGUE, Metric


def reference() -> str:
    """A table for each kind of source, as Markdown."""
    parts = []
    for source, metrics in groupby(
        sorted(CATALOGUE, key=lambda m: _ORDER.index(m.source)), key=lambda m: m.source
    ):
        title = source[0].upper() + source[1:]
        parts.append(
            f"\n## {title}\n\n| metric | type | meaning | what to do |\n|---|---|---|---|\n"
        )
        parts += [_line(metric) for metric in metrics]
    return "".join(parts)


_ORDER = list(dict.fromkeys(metric.source for metric in CATALOGUE))


def _line(metric: Metric) -> str:
    labels = "".join(f" `{label}`" for label in metric.labels)
    by = f" by{labels}" if labels else ""
    cells = (f"`{metric.name}`{by}", metric.kind, metric.meaning, metric.action or "–")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
