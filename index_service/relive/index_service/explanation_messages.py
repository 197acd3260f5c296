"""Messages of explanations, in both directions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from relive.core.explanation import ExplainedItem, Explanation, KnownOutcome, UseNow
from relive.core.priority_factors import PriorityFactors
from relive.schemas import index_pb2 as pb

_FACTORS = tuple(pb.PriorityFactors.DESCRIPTOR.fields_by_name)
_USE = tuple(pb.UseNow.DESCRIPTOR.fields_by_name)


def explain_reply(found: Explanation | None, basis: Any) -> Any:
    """The reply to the question; None where the answer is still being made."""
    reply = pb.ExplainReply(basis=basis)
    if found is None:
        return reply
    message = reply.explanation
    message.now = found.now
    if found.kind is not None:
        message.kind = found.kind
    if found.seed is not None:
        message.seed = found.seed
    message.positions.update(found.positions)
    for item in found.items:
        added = message.items.add(id=item.id)
        if item.score is not None:
            added.score = item.score
        for name in ("then", "outcome", "now"):
            part = getattr(item, name)
            if part is not None:
                known = {n: value for n, value in asdict(part).items() if value is not None}
                getattr(added, name).CopyFrom(_CLASSES[name](**known))
    return reply


_CLASSES = {"then": pb.PriorityFactors, "outcome": pb.KnownOutcome, "now": pb.UseNow}


def explanation_of(retrieval_id: str, reply: Any) -> Explanation | None:
    """The explanation in a reply; None if it is still being made."""
    if not reply.HasField("explanation"):
        return None
    message = reply.explanation
    return Explanation(
        retrieval_id,
        _given(message, "kind"),
        _given(message, "seed"),
        message.now,
        dict(message.positions),
        tuple(map(_item, message.items)),
    )


def _item(message: Any) -> ExplainedItem:
    then, outcome, now = (_given(message, name) for name in ("then", "outcome", "now"))
    return ExplainedItem(
        message.id,
        _given(message, "score"),
        then and PriorityFactors(**{name: _value(then, name) for name in _FACTORS}),
        outcome and KnownOutcome(outcome.success, _given(outcome, "reward"), outcome.revision),
        now and UseNow(**{name: getattr(now, name) for name in _USE}),
    )


def _value(message: Any, name: str) -> Any:
    return _given(message, name) if name == "given" else getattr(message, name)


def _given(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None
