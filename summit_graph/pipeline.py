"""The main job: from a model and images to every class's attribution graph.

1. Load the model and trace it (`network/`).
2. List the images, match their labels to the model's outputs (`images/`), and plan shards
   (`atlas/`).
3. Count each shard that is not counted yet: one forward pass per batch shows all layers and all
   hops (`aggregate/`). A finished shard is on disk, so a run that is cut off goes on from there.
4. Make the tables from the shards (`atlas/`), rank every class (`rank/`), compare the classes
   (`explain/`), and put all tables in place together.
5. Keep a small picture of each image that is a dataset example of a neuron, as the network saw it,
   unless the atlas is to have none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import torch
from scipy.stats import binomtest

import summit_graph
from summit_graph.aggregate.counts import Counter, Counts
from summit_graph.atlas import thumbnails as small_pictures
from summit_graph.atlas.schema import (
    ClassEntry,
    Description,
    HopEntry,
    LayerEntry,
    ReceptiveField,
    default_key,
)
from summit_graph.atlas.store import ImageEntry, Store
from summit_graph.atlas.tables import build_tables, compact, field_rows
from summit_graph.errors import ImageError, UsageError
from summit_graph.images.batches import Batch, BatchPlan, fingerprints, load_batches, threads
from summit_graph.images.classes import ClassTable, class_table
from summit_graph.images.decoding import decode
from summit_graph.images.sources import Item, Source, labels_of, open_source
from summit_graph.network.devices import device_named, exact
from summit_graph.network.loading import LoadedModel, load_model
from summit_graph.network.preprocessing import picture
from summit_graph.network.receptive import receptive_fields
from summit_graph.network.trace import Network, trace
from summit_graph.rank.stage import Ranking
from summit_graph.reporting import IngestReport, LeftOut, Progress, RankReport, Reports
from summit_graph.reranking import embed_store, rank_store, summarised

# An accuracy counts as above chance where guessing would reach it less than once in a hundred.
_CHANCE = 0.01


def ingest(
    *,
    model: str | LoadedModel,
    images: str | Path | Source,
    atlas: str | Path,
    weights: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes_file: str | Path | None = None,
    group_by: str = "label",
    layers: Sequence[str] | None = None,
    activation_mass: float = 0.03,
    top_sources: int = 5,
    examples: int = 10,
    per_class_examples: bool = False,
    batch_size: int = 16,
    shard_size: int = 512,
    device: str = "auto",
    memory: int | None = None,
    tf32: bool = False,
    strict: bool = False,
    name: str | None = None,
    compact_shards: bool = False,
    ranking: Ranking | None = None,
    embedding: bool = True,
    thumbnails: bool | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Count images through a model and rank every class: make an atlas, or add to one.

    Images that the atlas knows already are not counted again; a run that was cut off goes on where
    it stopped.

    Args:
        model: `torchvision:NAME`, `timm:NAME`, `module:callable`, `file.py:callable`, or a model
            loaded before.
        images: a folder, a manifest, a data set's import path, `digits`, or a source.
        atlas: the atlas's folder.
        weights, image_size, mean, std: as for `network.loading.load_model`.
        classes_file, group_by: as for `images.classes.class_table`.
        layers: names or globs of the layers; None for the default ones.
        activation_mass: the share of a layer's activation that active neurons hold, in (0, 1].
        top_sources: how many sources of a neuron are counted per image, at least 1.
        examples: how many images are kept for each neuron, at least 0.
        per_class_examples: keep them for each class too.
        batch_size, shard_size: images in a forward pass, and in a unit of work.
        device: `auto`, `cpu`, `cuda` (or `cuda:1`), `mps`.
        memory: bytes that temporary tensors and table building may take; None for what is free.
        tf32: let CUDA round inputs of products to TF32, which is faster and no longer exact.
        strict: stop at the first image that cannot be read.
        name: the atlas's key; by default one made of the model and a hash of what it counts.
        compact_shards: fold finished shards into one at the end.
        ranking: how classes are ranked; None for the defaults.
        embedding: make the embedding of the classes, which takes some seconds.
        thumbnails: keep small pictures of the images that excite neurons most; False leaves every
            picture out of the atlas, and removes those that are there. None: what the atlas was
            told before; a new one keeps them.
        workers: threads that decode, and processes that rank; None for one a processor.
        progress: where to report; None is silent.

    Raises:
        UsageError: parameters are out of range, labels or layers match nothing.
        ModelError, UnsupportedNetwork: the model cannot be loaded or traced.
        ImageError: the images cannot be listed, or with `strict` read.
        AtlasError: the folder is no atlas of this model, layers and parameters, is in use, or
            cannot be written; known images changed or are gone.
    """
    for option, value, least in (
        ("top_sources", top_sources, 1),
        ("examples", examples, 0),
        ("batch_size", batch_size, 1),
        ("shard_size", shard_size, 1),
        ("workers", workers if workers is not None else 1, 1),
        ("memory", memory if memory is not None else 1 << 28, 1 << 26),
    ):
        if value < least:
            raise UsageError(f"{option} is {value}; it must be at least {least}")
    if not 0 < activation_mass <= 1:
        raise UsageError(f"activation_mass is {activation_mass}; it must be above 0, at most 1")
    ranking = ranking or Ranking()
    reports = Reports(progress)
    where = device_named(device)

    with reports.stage("tracing the model", None, "layer") as stage:
        loaded = (
            model
            if isinstance(model, LoadedModel)
            else load_model(model, weights, image_size, mean, std)
        )
        network = trace(loaded.module.to(where), loaded.preprocessing.shape, layers)
        hidden = len(network.layers) - len(network.chosen)
        stage.note(
            f"{loaded.name}: {len(network.chosen)} layers, {hidden} hidden ones, "
            f"{len(network.hops)} hops"
        )
    if loaded.weights == "random":
        reports.warn(
            f"{loaded.name} has random weights: what follows says nothing about a trained network. "
            "Give --weights."
        )

    source = open_source(str(images)) if isinstance(images, (str, Path)) else images
    with reports.stage("listing the images", None, "image") as stage:
        items = source.items()
        table = class_table(
            labels_of(items),
            network.outputs,
            loaded.categories,
            None if classes_file is None else Path(classes_file),
            str(group_by),
            labels_are_outputs=source.labels_are_outputs,
        )
        stage.note(f"{len(items):,} in {source.name}, {len(source.passed_over):,} other files")
    if table.unmatched:
        reports.warn(
            f"{len(table.unmatched)} labels match no output of the model, {table.unmatched[0]!r} "
            "among them: their images are counted by prediction and have no accuracy."
        )
    with reports.stage("reading what is new", len(items), "image") as stage:
        entries = []
        for found in fingerprints(source, items, workers):
            item = found.item
            label = table.output_of(item.label)
            entries.append(ImageEntry(item.path, item.folder, label, found.size, found.hash))
            stage.advance()

    parameters: dict[str, object] = {
        "mass": activation_mass,
        "k": top_sources,
        "examples": examples,
        "per_class_examples": per_class_examples,
        "batch_size": batch_size,
        "shard_size": shard_size,
        "tf32": tf32,
        "shape": list(loaded.preprocessing.shape),
    }
    description = _description(
        loaded, network, source, table, parameters, name, thumbnails is not False
    )
    budget = memory if memory is not None else _free_memory(where)
    with Store.open_or_create(atlas, description) as store:
        pending = store.plan(entries)
        _choose_thumbnails(store, thumbnails)
        started = time.perf_counter()
        new = 0
        if pending:
            counter = Counter(
                network,
                mass=activation_mass,
                k=top_sources,
                examples=examples,
                per_class_examples=per_class_examples,
                by_prediction=table.grouping == "prediction",
                memory=budget,
            )
            with exact(tf32):
                new = _count(
                    store, pending, counter, loaded, source, items, table, where, workers, strict,
                    reports,
                )  # fmt: skip
        seconds = time.perf_counter() - started if pending else 0.0
        if compact_shards:
            with reports.stage("folding shards into one", None, "shard"):
                compact(store, memory=budget)
        if not store.up_to_date():
            with reports.stage("making the tables", None, "table"):
                build_tables(store, memory=budget, fields=_fields(network))
        elif not store.generation.has("receptive_fields"):
            store.replace_tables({"receptive_fields": field_rows(_fields(network))})
        if pending or store.header.get("ranking") != ranking.describe():
            ranked = rank_store(store, ranking, workers, reports, embedding)
        else:
            if embedding and not store.generation.has("embedding"):
                embed_store(store, reports)
            ranked = summarised(store.generation)
        if store.header.get("thumbnails", True):
            _make_thumbnails(store, loaded, source, items, workers, reports)
        return _report(store, loaded, source, table, network, new, seconds, reports, ranked)


def _free_memory(device: torch.device) -> int:
    """A share of what is free: bytes for temporary tensors and for making tables."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(max(1 << 28, min(free, psutil.virtual_memory().available) // 4))
    return int(max(1 << 28, min(4 << 30, psutil.virtual_memory().available // 4)))


def _description(
    loaded: LoadedModel,
    network: Network,
    source: Source,
    table: ClassTable,
    parameters: dict[str, object],
    name: str | None,
    thumbnails: bool,
) -> Description:
    outputs: dict[int, list[int]] = {}
    for output, class_ in enumerate(table.class_of_output):
        outputs.setdefault(class_, []).append(output)
    description = Description(
        key="",
        model={"name": loaded.name, "spec": loaded.spec, "weights": loaded.weights},
        weights_hash=loaded.weights_hash,
        dataset={"name": source.name},
        layers=[
            LayerEntry(n.number, n.name, n.chosen, n.channels, n.height, n.width)
            for n in network.layers
        ],
        hops=[HopEntry(h.number, h.source, h.target, h.mixers) for h in network.hops],
        classes=[
            ClassEntry(index, class_name, table.synsets[index], tuple(outputs.get(index, ())))
            for index, class_name in enumerate(table.names)
        ],
        grouping="prediction" if table.grouping == "prediction" else "label",
        parameters=parameters,
        preprocessing=loaded.preprocessing.describe(),
        name=name,
        version=summit_graph.__version__,
        thumbnails=thumbnails,
    )
    key = name or default_key(loaded.name, description.identity, source.name)
    return Description(**{**vars(description), "key": key})


def _count(
    store: Store,
    pending: Sequence[int],
    counter: Counter,
    loaded: LoadedModel,
    source: Source,
    items: Sequence[Item],
    table: ClassTable,
    device: torch.device,
    workers: int | None,
    strict: bool,
    reports: Progress,
) -> int:
    """Count the pending shards; returns how many images they hold."""
    by_path = {item.path: item for item in items}
    shards = [store.shard(number) for number in pending]
    plans = [
        BatchPlan(shard.number, tuple(by_path[entry.path] for entry in batch))
        for shard in shards
        for batch in shard.batches
    ]
    entries = {entry.path: entry for shard in shards for entry in shard.images}
    total = len(entries)
    bad: list[tuple[Item, str]] = []
    left_out = 0
    with reports.stage("counting", total, "image") as stage:
        batches = load_batches(
            source,
            plans,
            loaded.preprocessing,
            loaded.preprocessing.shape[0],
            workers=workers,
            expected={path: entry.hash for path, entry in entries.items()},
        )
        try:
            for number, batch in enumerate(batches):
                if batch.bad and strict:
                    item, status = batch.bad[0]
                    raise ImageError(
                        f"{item.path}: {status}. Mend or remove it, or leave out --strict."
                    )
                bad.extend(batch.bad)
                left_out += len(batch.bad)
                if batch.items:
                    _require_shape(batch.images, loaded)
                    _count_batch(counter, batch, table, device)
                last = number + 1 == len(plans) or plans[number + 1].shard != batch.shard
                if last:
                    store.write_shard(
                        batch.shard, _shard_tables(counter.counts(), bad, entries, table)
                    )
                    bad = []
                stage.advance(len(batch.items) + len(batch.bad))
        finally:
            batches.close()  # type: ignore[attr-defined]
        if left_out:
            stage.note(f"{left_out:,} left out")
    return total


def _count_batch(counter: Counter, batch: Batch, table: ClassTable, device: torch.device) -> None:
    """Count a batch; images that are known to have no class are only run."""
    labels = [table.output_of(item.label) for item in batch.items]
    by_prediction = table.grouping == "prediction"
    in_class = [by_prediction or table.classify(label, -1) >= 0 for label in labels]
    for counted in (True, False):
        some = [n for n, has in enumerate(in_class) if has == counted]
        if not some:
            continue
        images = batch.images[some].to(device)
        paths, own = [batch.items[n].path for n in some], [labels[n] for n in some]
        if counted:
            counter.add(images, paths, own, table.classify)
        else:
            counter.add_unclassed(images, paths, own)


def _require_shape(images: torch.Tensor, loaded: LoadedModel) -> None:
    if tuple(images.shape[1:]) != loaded.preprocessing.shape:
        raise ImageError(
            f"the images come as {tuple(images.shape[1:])} (channels, height, width); the model "
            f"takes {loaded.preprocessing.shape}. Change the data set or --image-size."
        )


def _shard_tables(
    counts: Counts,
    bad: Sequence[tuple[Item, str]],
    entries: dict[str, ImageEntry],
    table: ClassTable,
) -> dict[str, pa.Table]:
    """What a shard's folder holds: its counts, and a row for each of its images."""
    rows = counts.images.to_pylist()
    for row in rows:
        row["status"] = "ok"
    rows += [
        {"path": item.path, "label": table.output_of(item.label), "status": status}
        for item, status in bad
    ]
    for row in rows:
        row["size"], row["hash"] = entries[row["path"]].size, entries[row["path"]].hash
    rows.sort(key=lambda row: str(row["path"]))
    types = {
        "path": pa.string(), "size": pa.int64(), "hash": pa.string(), "label": pa.int32(),
        "class": pa.int32(), "predicted": pa.int32(), "probability": pa.float32(),
        "label_rank": pa.int32(), "status": pa.string(),
    }  # fmt: skip
    images = pa.table(
        {key: pa.array([row.get(key) for row in rows], kind) for key, kind in types.items()}
    )
    return {
        "images": images,
        "activations": counts.activations,
        "influences": counts.influences,
        "votes": counts.votes,
        "examples": counts.examples,
    }


def _fields(network: Network) -> list[ReceptiveField]:
    """The receptive fields of the chosen layers, as the atlas holds them."""
    return [ReceptiveField(number, *field) for number, field in receptive_fields(network).items()]


def _choose_thumbnails(store: Store, wanted: bool | None) -> None:
    """Writes down whether the atlas is to have thumbnails; removes them where it is not."""
    before = bool(store.header.get("thumbnails", True))
    keep = before if wanted is None else wanted
    if keep != before:
        store.replace_tables({}, {"thumbnails": keep})
    if not keep:
        small_pictures.remove(store.path)


def _make_thumbnails(
    store: Store,
    loaded: LoadedModel,
    source: Source,
    items: Sequence[Item],
    workers: int | None,
    reports: Reports,
) -> None:
    """Make the thumbnails that are not there yet, in threads; the rest of the atlas is finished.

    An image whose content is no longer what was counted, or that cannot be read any more, has none.
    """
    wanted = small_pictures.wanted(store.generation)
    small_pictures.prune(store.path, wanted)
    missing = small_pictures.missing(store.path, wanted)
    if not missing:
        return
    by_path = {item.path: item for item in items}

    def make(content_hash: str, path: str) -> str | None:
        try:
            content = source.read(by_path[path])
            if content.hash != content_hash:
                return "its content is no longer what was counted"
            image = content.image
            if isinstance(image, bytes):
                image = decode(image, loaded.preprocessing.shape[0])
            seen = image if isinstance(image, torch.Tensor) else loaded.preprocessing(image)
        except ImageError as error:
            return str(error)
        file = small_pictures.encoded(picture(loaded.preprocessing, seen))
        small_pictures.write(store.path, content_hash, file)
        return None

    left_out: list[str] = []
    with reports.stage("making thumbnails", len(missing), "image") as stage:
        count = workers or threads()
        waiting = iter(missing.items())
        under_way: deque[tuple[str, Future[str | None]]] = deque()
        pool = ThreadPoolExecutor(count, thread_name_prefix="thumbnails")
        try:
            while True:
                while len(under_way) < 8 * count and (entry := next(waiting, None)) is not None:
                    under_way.append((entry[1], pool.submit(make, *entry)))
                if not under_way:
                    break
                path, made = under_way.popleft()
                if reason := made.result():
                    left_out.append(f"{path} ({reason})")
                stage.advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        small_pictures.settle(store.path)
        if left_out:
            stage.note(f"{len(left_out):,} left out")
    if left_out:
        reports.warn(
            f"{len(left_out)} images have no thumbnail: {', '.join(left_out[:3])}"
            f"{', …' if len(left_out) > 3 else ''}. Run the same command again for them."
        )


def _report(
    store: Store,
    loaded: LoadedModel,
    source: Source,
    table: ClassTable,
    network: Network,
    new: int,
    seconds: float,
    reports: Reports,
    ranked: RankReport,
) -> IngestReport:
    images = store.generation.table(
        "images", columns=["path", "class", "label_rank", "status"]
    ).to_pydict()
    ok = [status == "ok" for status in images["status"]]
    left_out = tuple(
        LeftOut(path, status)
        for path, status in zip(images["path"], images["status"], strict=True)
        if status != "ok"
    )
    ranks = [rank for rank in images["label_rank"] if rank is not None]
    best = sum(rank == 1 for rank in ranks)
    top1 = best / len(ranks) if ranks else None
    if ranks and best < len(ranks):
        chance = binomtest(best, len(ranks), 1 / network.outputs, alternative="greater").pvalue
        if chance > _CHANCE:
            reports.warn(
                f"top-1 is {best / len(ranks):.1%} over {len(ranks):,} images, not above chance "
                f"({1 / network.outputs:.1%}): check the weights, the preprocessing and how labels "
                "are matched to outputs (--classes)."
            )
    if ok and not any(ok):
        reports.warn("none of the images could be read, so nothing is counted.")
    without = sum(o and c is None for o, c in zip(ok, images["class"], strict=True))
    return IngestReport(
        atlas=Path(store.path),
        key=store.header["key"],
        model=loaded.name,
        images=len(ok),
        counted=sum(ok) - without,
        new=new,
        without_class=without,
        left_out=left_out,
        passed_over=len(source.passed_over),
        top1=top1,
        top5=sum(rank <= 5 for rank in ranks) / len(ranks) if ranks else None,
        classes=ranked.classes,
        seconds=seconds,
        images_per_second=new / seconds if seconds else 0.0,
        warnings=tuple(reports.messages),
        ranking=ranked,
    )
