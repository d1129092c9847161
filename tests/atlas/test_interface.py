from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summit_graph.atlas.interface import find_class
from summit_graph.atlas.schema import ClassEntry
from summit_graph.errors import UnknownClass

CLASSES = [
    ClassEntry(index, name, synset, ())
    for index, name, synset in [
        (0, "tench, Tinca tinca", "n01440764"),
        (1, "Crane", "n02012849"),
        (2, "crane", "n03126707"),
        (3, "tiger, Panthera tigris", "n02129604"),
        (4, "tiger cat", "n02123159"),
        (5, "tiger shark, Galeocerdo cuvieri", "n01491361"),
        (6, "9", None),
        (9, "café au lait", None),
        (10, "wolf", "n1"),
        (11, "white wolf", "n2"),
    ]
]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        (3, 3),
        ("white wolf", 11),
        ("WHITE WOLF", 11),
        (" white wolf ", 11),
        ("wolf", 10),
        ("white", 11),
        ("Crane", 1),
        ("crane", 2),
        ("tiger", 3),
        ("tinca TINCA", 0),
        ("shark", 5),
        ("n01491361", 5),
        ("N01491361", 5),
        ("11", 11),
        ("9", 6),
        (9, 9),
        ("cafe\u0301 AU lait", 9),
    ],
)
def test_a_class_is_found(name: str | int, index: int) -> None:
    assert find_class(CLASSES, name).index == index


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CRANE", r"'CRANE' fits 2 classes: 'Crane' \(1, n02012849\), 'crane' \(2, n03126707\)"),
        ("tig", r"'tig' fits 3 classes: 'tiger, Panthera tigris' .* Give the whole name, the ind"),
        ("whit wolff", r"no class fits 'whit wolff'. The nearest are 'white wolf' \(11, n2\)"),
        ("xyzzy", r"no class fits 'xyzzy'. There are 10, from 'tench"),
        ("", "no class fits ''"),
        ("  ", "no class fits"),
        (7, r"no class has the index 7; they go from 0 to 11. The nearest are '9' \(6\)"),
        ("77", "no class fits '77'"),
        (-1, "no class has the index -1"),
    ],
)
def test_a_class_is_not_found(name: str | int, message: str) -> None:
    with pytest.raises(UnknownClass, match=message):
        find_class(CLASSES, name)


def test_there_are_no_classes() -> None:
    with pytest.raises(UnknownClass, match=r"there are no classes"):
        find_class([], "wolf")


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True), st.data())
def test_a_whole_name_is_always_found(names: list[str], data: st.DataObject) -> None:
    classes = [ClassEntry(index, name, None, ()) for index, name in enumerate(names)]
    wanted = data.draw(st.sampled_from(classes))
    if wanted.name.strip():
        assert find_class(classes, wanted.name) == wanted
