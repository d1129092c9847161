"""Images are read, checked, decoded and prepared in threads, ahead of the model.

1. Batches are planned beforehand: each lies in one shard and lists its items.
2. Threads read an image, compare its hash, decode it and prepare it as the network wants it.
3. At least the next batch, and as many further ones as hold `ahead` images, are under way while
   the consumer works on the current one; shards are no boundary for this.
4. Batches come in the order of the plans. What could not be decoded is in `Batch.bad`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from summit_graph.errors import ImageError, UsageError
from summit_graph.images.decoding import BadImage, as_pixels, decode
from summit_graph.images.sources import Item, Source


class BatchPlan(NamedTuple):
    """Which images a batch is to hold, and the shard it belongs to."""

    shard: int
    items: tuple[Item, ...]


class Batch(NamedTuple):
    """The images of a plan as the network takes them."""

    shard: int
    images: Tensor
    """(B', C, H, W), float32: the images that could be decoded; (0, C, 0, 0) if there is none."""
    items: tuple[Item, ...]
    """Those images, in the plan's order."""
    bad: tuple[tuple[Item, str], ...]
    """The others, each with its status (`BadImage.status`)."""


class Fingerprint(NamedTuple):
    """What an image is recognised by."""

    item: Item
    size: int
    hash: str


def threads() -> int:
    """How many threads read and decode unless the user says: one a processor, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        return min(16, len(os.sched_getaffinity(0)))
    return min(16, os.cpu_count() or 1)


def load_batches(
    source: Source,
    plans: Iterable[BatchPlan],
    prepare: Callable[[Image.Image], Tensor],
    channels: int,
    workers: int | None = None,
    ahead: int = 256,
    expected: Mapping[str, str] | None = None,
) -> Iterator[Batch]:
    """The batches of the plans, in their order, loaded ahead of the consumer.

    `prepare` maps a picture (mode `RGB` for 3 `channels`, `L` for 1) to a float32 tensor
    (C, H, W); tensors of a data set are taken as they are. `workers`: threads, by default
    `threads()`. `ahead`: images. `expected`: the hash of every image, by path, if none may have
    changed. Closing the iterator ends the threads.

    Raises:
        ImageError: an image cannot be read, is not the one that was expected, or has a shape
            unlike the others of its batch.
        UsageError: `workers` or `ahead` is below 1.
    """
    if (workers is not None and workers < 1) or ahead < 1:
        raise UsageError(f"{workers} threads and {ahead} images ahead: each must be at least 1.")
    return _batches(source, plans, prepare, channels, workers or threads(), ahead, expected)


def _batches(
    source: Source,
    plans: Iterable[BatchPlan],
    prepare: Callable[[Image.Image], Tensor],
    channels: int,
    workers: int,
    ahead: int,
    expected: Mapping[str, str] | None,
) -> Iterator[Batch]:
    def load(item: Item) -> Tensor | str:
        return _loaded(source, item, prepare, channels, expected)

    waiting = iter(plans)
    under_way: deque[tuple[BatchPlan, list[Future[Tensor | str]]]] = deque()
    images_under_way = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        while True:
            while len(under_way) < 2 or images_under_way < ahead:
                plan = next(waiting, None)
                if plan is None:
                    break
                under_way.append((plan, [pool.submit(load, item) for item in plan.items]))
                images_under_way += len(plan.items)
            if not under_way:
                return
            plan, futures = under_way.popleft()
            results = [future.result() for future in futures]
            images_under_way -= len(results)
            batch = _batch(plan, results, channels)
            del futures, results  # the consumer may work long; the batch has a copy
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _loaded(
    source: Source,
    item: Item,
    prepare: Callable[[Image.Image], Tensor],
    channels: int,
    expected: Mapping[str, str] | None,
) -> Tensor | str:
    """One image as the network takes it, or the status that says why not."""
    content = source.read(item)
    if expected is not None and expected[item.path] != content.hash:
        raise ImageError(
            f"The image '{item.path}' changed while it was being ingested: its content is not "
            "what it was when the work was planned. Put the old file back, or start a new atlas. "
            "(A data set must give the same image each time: no random transforms.)"
        )
    try:
        if isinstance(content.image, bytes):
            return prepare(decode(content.image, channels))
        if isinstance(content.image, Image.Image):
            return prepare(as_pixels(content.image, channels))
    except BadImage as bad:
        return bad.status
    return content.image


def _batch(plan: BatchPlan, results: list[Tensor | str], channels: int) -> Batch:
    images: list[Tensor] = []
    items: list[Item] = []
    bad: list[tuple[Item, str]] = []
    for item, result in zip(plan.items, results, strict=True):
        if isinstance(result, str):
            bad.append((item, result))
            continue
        if images and result.shape != images[0].shape:
            raise ImageError(
                f"The image '{item.path}' has the shape {tuple(result.shape)}, and "
                f"'{items[0].path}' has {tuple(images[0].shape)}. All must have one shape."
            )
        images.append(result)
        items.append(item)
    stacked = torch.stack(images) if images else torch.empty((0, channels, 0, 0))
    return Batch(plan.shard, stacked, tuple(items), tuple(bad))


def fingerprints(
    source: Source, items: Iterable[Item], workers: int | None = None
) -> Iterator[Fingerprint]:
    """Size and hash of each image, in the order of `items`, read in threads.

    Raises:
        ImageError: an image is missing or cannot be read.
    """

    def fingerprint(item: Item) -> Fingerprint:
        content = source.read(item)
        return Fingerprint(item, content.size, content.hash)

    count = workers or threads()
    waiting = iter(items)
    under_way: deque[Future[Fingerprint]] = deque()
    pool = ThreadPoolExecutor(count, thread_name_prefix="fingerprints")
    try:
        while True:
            while len(under_way) < 8 * count:
                item = next(waiting, None)
                if item is None:
                    break
                under_way.append(pool.submit(fingerprint, item))
            if not under_way:
                return
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
