from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from atlas import made
from hypothesis import given
from hypothesis import strategies as st

from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    COUNTED,
    INTERNAL,
    KEYS,
    ClassEntry,
    Description,
    LayerEntry,
    checked,
    default_key,
    first_difference,
    first_unsorted,
)
from summit_graph.errors import AtlasError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_keys_are_the_columns_up_to_the_first_measure() -> None:
    assert set(KEYS) == set(ATLAS_TABLES)
    for name, schema in ATLAS_TABLES.items():
        assert tuple(schema.names[: len(KEYS[name])]) == KEYS[name]
    assert {*COUNTED, *INTERNAL} <= set(ATLAS_TABLES)


@given(JSON, JSON)
def test_first_difference_is_found_exactly_where_values_differ(
    first: object, second: object
) -> None:
    same = repr(first) == repr(second) or (first == second and _types(first) == _types(second))
    assert (first_difference(first, second) is None) == same
    assert first_difference(first, first) is None


def _types(value: object) -> object:
    if isinstance(value, dict):
        return {key: _types(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_types(inner) for inner in value]
    return isinstance(value, bool)


def test_first_difference_names_the_place_and_both_values() -> None:
    first = {"parameters": {"mass": 0.03}, "classes": [{"name": "a"}, {"name": "b"}]}
    second = {"parameters": {"mass": 0.03}, "classes": [{"name": "a"}, {"name": "c"}]}
    assert first_difference(first, second) == ("classes[1].name", '"b"', '"c"')
    second = {"parameters": {"mass": 0.03, "k": 5}, "classes": first["classes"]}
    assert first_difference(first, second) == ("parameters.k", "nothing", "5")
    assert first_difference({"a": [1]}, {"a": [1, 2]}) == ("the length of a", "1", "2")


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), max_size=12))
def test_first_unsorted_is_the_first_key_that_does_not_rise(keys: list[tuple[int, int]]) -> None:
    columns = [np.array([key[place] for key in keys], dtype=np.int64) for place in (0, 1)]
    wrong = [row for row in range(1, len(keys)) if keys[row] <= keys[row - 1]]
    assert first_unsorted(columns) == (wrong[0] if wrong else None)


def test_checked_takes_what_fits_and_refuses_what_does_not() -> None:
    schema = ATLAS_TABLES["confusions"]
    given_table = pa.table({"count": [3], "class": [1], "predicted": [2]})
    assert checked("confusions", given_table, schema).schema == schema
    with pytest.raises(AtlasError, match=r"'confusions' has the columns class, count; it needs"):
        checked("confusions", given_table.select(["class", "count"]), schema)
    with pytest.raises(AtlasError, match=r"does not fit its columns"):
        checked("confusions", given_table.set_column(0, "count", pa.array([2**40])), schema)


def test_a_description_comes_back_from_its_header() -> None:
    description = made.description(name="mine", version="1.2")
    again = Description.of_header(description.header())
    assert again == Description(
        **{**vars(description), "preprocessing": {"size": [8, 8], "mean": [0.5]}}
    )
    assert again.header() == description.header()


def test_the_default_key_follows_what_decides_the_counts_and_nothing_else() -> None:
    first, second = made.description(), made.description(name="other", version="9")
    assert default_key("a b/c", first.identity, "d") == default_key("a b/c", second.identity, "d")
    key = default_key("a b/c", first.identity, "d")
    assert key.startswith("a-b-c-")
    assert len(key) == len("a-b-c-") + 8
    others = [
        default_key("a b/c", made.description(grouping="prediction").identity, "d"),
        default_key("a b/c", made.description(weights_hash="bb").identity, "d"),
        default_key("a b/c", first.identity, "e"),
    ]
    assert len({key, *others}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grouping": "colour"}, "by 'label' or 'prediction', not by 'colour'"),
        (
            {"classes": (ClassEntry(1, "a", None, ()), ClassEntry(1, "b", None, ()))},
            "rising, distinct indices",
        ),
        (
            {"classes": (ClassEntry(0, "a", None, (4,)), ClassEntry(1, "b", None, (4,)))},
            "output 4 of the model is in two classes, 'a' and 'b'",
        ),
        ({"parameters": {"shard_size": 0, "batch_size": 1}}, "'shard_size' has to be a whole num"),
        ({"parameters": {"shard_size": 4}}, "'batch_size' has to be a whole number"),
        ({"layers": (LayerEntry(1, "a", True, 1, 1, 1),)}, "'a' has number 1 in place 0"),
    ],
)
def test_a_description_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        made.description(**changes)


def test_a_description_is_plain_json() -> None:
    with pytest.raises(AtlasError, match=r"plain JSON"):
        made.description(preprocessing={"mean": float("nan")}).header()
    with pytest.raises(AtlasError, match=r"plain JSON"):
        made.description(preprocessing={"path": object()}).header()
