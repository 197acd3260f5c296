import enum
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.document import MAX_DEPTH, check_json, from_json, to_json
from relive.errors import InvalidExperience

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
DOCUMENTS = st.recursive(
    LEAVES, lambda d: st.lists(d, max_size=4) | st.dictionaries(st.text(max_size=5), d, max_size=4)
)


def nested(depth: int) -> Any:
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"": value}
    return value


@given(DOCUMENTS)
def test_documents_come_back_equal_with_their_types(document: Any) -> None:
    text = to_json("metadata", document)
    # repr tells 1 from 1.0 and True, and -0.0 from 0.0.
    assert repr(from_json(text)) == repr(document)
    check_json("metadata", text, object)


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: "a"},
        {"a": (1,)},
        {"a", "b"},
        b"bytes",
        math.nan,
        [math.inf],
        {"a": [-math.inf]},
        np.float32(1.0),
        np.float64(1.0),
        np.int64(1),
        np.zeros(2),
        np.bool_(True),
        Colour.RED,
        2**64,
        -(2**63) - 1,
        "\ud800",
        {"\udfff": 1},
        object(),
        1j,
        nested(MAX_DEPTH + 1),
    ],
)
def test_what_would_not_come_back_the_same_is_refused(value: Any) -> None:
    with pytest.raises(InvalidExperience) as refused:
        to_json("metadata", value)
    assert refused.value.field == "metadata"


def test_nesting_up_to_the_limit_comes_back() -> None:
    assert from_json(to_json("metadata", nested(MAX_DEPTH))) == nested(MAX_DEPTH)


def test_a_document_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidExperience, match="nested deeper"):
        to_json("metadata", loop)


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", "nan", "1e999", '"\\ud800"', "[" * 70 + "]" * 70]
)
def test_text_that_to_json_never_writes_is_refused(text: str) -> None:
    with pytest.raises(InvalidExperience):
        check_json("metadata", text, object)


def test_a_document_of_another_kind_is_refused() -> None:
    check_json("metadata", "{}", dict)
    with pytest.raises(InvalidExperience, match="must be a JSON dict"):
        check_json("metadata", "[]", dict)
