"""Batches come in order, beside the consumer, within bounds, and their faults are not lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from summit_graph.errors import ImageError, UsageError
from summit_graph.images.batches import Batch, BatchPlan, fingerprints, load_batches
from summit_graph.images.decoding import BadImage
from summit_graph.images.sources import Content, Item


class Numbers:
    """Image n is a 2 x 2 picture of shade n; some are bad, and some reads fail."""

    name = "numbers"
    passed_over: tuple[str, ...] = ()
    labels_are_outputs = False

    def __init__(self, bad: Sequence[int] = (), missing: Sequence[int] = ()) -> None:
        self.bad, self.missing = frozenset(bad), frozenset(missing)
        self.begun: list[int] = []
        self.gate: threading.Event | None = None

    def items(self) -> Sequence[Item]:
        return [item(number) for number in range(200)]

    def read(self, item: Item) -> Content:
        number = int(item.path)
        self.begun.append(number)
        if self.gate is not None:
            self.gate.wait(10)
        if number in self.missing:
            raise ImageError(f"The image '{item.path}' cannot be read.")
        if number in self.bad:
            return Content(3, "bad", b"bad")
        return Content(4, f"hash {number}", Image.new("L", (2, 2), number))


def item(number: int) -> Item:
    return Item(f"{number:03}", "", None)


def prepare(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.float32))[None]


def plans(*sizes: int, shard: Callable[[int], int] = lambda at: at) -> list[BatchPlan]:
    starts = np.cumsum([0, *sizes])
    return [
        BatchPlan(shard(at), tuple(item(int(start) + step) for step in range(size)))
        for at, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]


def loaded(source: Any, wanted: Sequence[BatchPlan], **options: Any) -> list[Batch]:
    return list(load_batches(source, wanted, prepare, 1, **options))


def image_threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("images", "fingerprints"))]


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 7), max_size=12),
    bad=st.sets(st.integers(0, 80)),
    workers=st.integers(1, 5),
    ahead=st.integers(1, 20),
)
def test_batches_are_the_plans(sizes: list[int], bad: set[int], workers: int, ahead: int) -> None:
    wanted = plans(*sizes)
    batches = loaded(Numbers(bad=tuple(bad)), wanted, workers=workers, ahead=ahead)
    assert [batch.shard for batch in batches] == [plan.shard for plan in wanted]
    for plan, batch in zip(wanted, batches, strict=True):
        good = [item for item in plan.items if int(item.path) not in bad]
        assert list(batch.items) == good
        assert [item for item, _ in batch.bad] == [i for i in plan.items if i not in good]
        assert {status for _, status in batch.bad} <= {"not an image"}
        assert batch.images.dtype == torch.float32
        assert len(batch.images) == len(good)
        if good:
            assert batch.images.shape == (len(good), 1, 2, 2)
            assert batch.images[:, 0, 0, 0].tolist() == [int(item.path) for item in good]


def test_a_batch_without_a_good_image() -> None:
    (batch,) = loaded(Numbers(bad=(0, 1)), plans(2))
    assert batch.images.shape == (0, 1, 0, 0)
    assert batch.bad == ((item(0), "not an image"), (item(1), "not an image"))


def test_a_picture_that_cannot_be_prepared_is_bad() -> None:
    def picky(image: Image.Image) -> Tensor:
        if image.getpixel((0, 0)) == 1:
            raise BadImage("too long and narrow")
        return prepare(image)

    (batch,) = load_batches(Numbers(), plans(3), picky, 1)
    assert batch.bad == ((item(1), "too long and narrow"),)
    assert [item.path for item in batch.items] == ["000", "002"]


def test_the_next_batches_are_loaded_while_one_is_worked_on() -> None:
    source = Numbers()
    batches = load_batches(source, plans(2, 2, 2, 2, 50), prepare, 1, workers=2, ahead=4)
    next(batches)
    deadline = time.monotonic() + 10
    while len(source.begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sorted(source.begun) == [0, 1, 2, 3]  # across shards, and no further than asked
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("ahead", "most"), [(1, 20), (10, 20), (11, 30), (35, 50)])
def test_no_more_is_under_way_than_asked_for(ahead: int, most: int) -> None:
    """In batches of 10: two batches, and whole ones up to `ahead` images and a batch."""
    source = Numbers()
    batches = load_batches(source, plans(*[10] * 20), prepare, 1, workers=4, ahead=ahead)
    for done, _ in enumerate(batches, start=1):
        time.sleep(0.002)
        assert len(source.begun) - 10 * (done - 1) <= most


def test_threads_work_side_by_side() -> None:
    source = Numbers()
    source.gate = threading.Event()
    batches = load_batches(source, plans(8), prepare, 1, workers=4)
    consumer = threading.Thread(target=lambda: list(batches))
    consumer.start()
    deadline = time.monotonic() + 10
    while len(source.begun) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    begun = len(source.begun)
    source.gate.set()
    consumer.join(10)
    assert begun == 4
    assert not image_threads()


def test_an_image_that_cannot_be_read_ends_it_in_its_place() -> None:
    batches = load_batches(Numbers(missing=(5,)), plans(3, 3, 3), prepare, 1)
    assert [item.path for item in next(batches).items] == ["000", "001", "002"]
    with pytest.raises(ImageError, match="'005' cannot be read"):
        next(batches)
    assert not image_threads()


def test_an_error_in_the_preparation_is_not_lost() -> None:
    def fails(_: Image.Image) -> Tensor:
        raise ZeroDivisionError("in the transform")

    with pytest.raises(ZeroDivisionError, match="in the transform"):
        list(load_batches(Numbers(), plans(3), fails, 1))
    assert not image_threads()


def test_an_error_in_the_plans_is_not_lost() -> None:
    def failing() -> Iterator[BatchPlan]:
        yield from plans(1)
        raise KeyError("plan")

    with pytest.raises(KeyError, match="plan"):
        list(load_batches(Numbers(), failing(), prepare, 1))
    assert not image_threads()


def test_closing_ends_the_threads_and_drops_what_waits() -> None:
    source = Numbers()
    batches = load_batches(source, plans(*[5] * 40), prepare, 1, workers=2, ahead=150)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not image_threads()
    begun = len(source.begun)
    time.sleep(0.02)
    assert len(source.begun) == begun < 200


def test_a_changed_image_is_named() -> None:
    expected = {item(number).path: f"hash {number}" for number in range(4)}
    assert len(loaded(Numbers(), plans(4), expected=expected)) == 1
    expected["002"] = "other"
    with pytest.raises(ImageError, match="'002' changed while it was being ingested"):
        loaded(Numbers(), plans(4), expected=expected)


class Tensors(Numbers):
    def read(self, item: Item) -> Content:
        side = 3 if item.path == "002" else 2
        return Content(1, "", torch.full((1, side, 2), float(item.path)))


def test_tensors_are_taken_as_they_are() -> None:
    (batch,) = loaded(Tensors(), plans(2))
    assert batch.images.tolist() == [[[[0, 0], [0, 0]]], [[[1, 1], [1, 1]]]]


def test_tensors_of_two_shapes_are_refused() -> None:
    with pytest.raises(ImageError, match=r"'002' has the shape \(1, 3, 2\), and '000' has"):
        loaded(Tensors(), plans(3))


@pytest.mark.parametrize("options", [{"workers": 0}, {"ahead": 0}])
def test_no_threads_or_nothing_ahead(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be at least 1"):
        load_batches(Numbers(), [], prepare, 1, **options)  # type: ignore[arg-type]


def test_fingerprints_are_in_order() -> None:
    items = Numbers().items()
    found = list(fingerprints(Numbers(bad=(3,)), items, workers=3))
    assert [fingerprint.item for fingerprint in found] == list(items)
    assert found[3] == (item(3), 3, "bad")
    assert found[4] == (item(4), 4, "hash 4")
    assert not image_threads()


def test_fingerprints_name_a_missing_image() -> None:
    with pytest.raises(ImageError, match="'150' cannot be read"):
        list(fingerprints(Numbers(missing=(150,)), Numbers().items()))
    assert not image_threads()
