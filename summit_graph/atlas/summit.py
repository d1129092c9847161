"""Imports the attribution graphs that the authors of Summit published, as an atlas of their own.

1. They are of InceptionV1 and ImageNet, one file a class, `ag-<class index>.json`: an object that
   maps each layer to its neurons, `{"layer", "channel", "count", "pagerank", "prev_channels":
   [{"prev_channel", "inf"}], "attr_channels": [{"prev_channel", "inf"}]}`.
2. `prev_channels` are the edges from neurons of the layer before, and go to the table `edges`.
   `attr_channels` are the neuron's strongest influences, up to three, numbered (as text) by the
   input of its own mixer, which for the 3×3 and 5×5 branches is a bottleneck: they go to
   `influences`, under a hop from a hidden layer called `<layer> mixer input`.
3. Neurons are ranked by PageRank, equal ones by layer, then channel; all are selected. What the
   files do not say is null, and a table of which they say nothing is not made: images, accuracy,
   examples, votes, similarity, hash of the weights, parameters, sizes of maps, the mass, and all
   that is outside of the graphs.
4. A file that is not of this form is left out whole and named, or ends the import. The atlas is
   made under a temporary name beside its own and renamed, so it is whole or absent.

The same files give the same tables. Source: docs/atlas.md, "Published graphs"; what the numbers
mean: docs/method.md, sections 2 to 5, and the differences from the authors named there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from summit_graph.atlas import generation as generations
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.schema import (
    ATLAS_TABLES,
    ClassEntry,
    Description,
    HopEntry,
    LayerEntry,
    default_key,
)
from summit_graph.atlas.store import made_whole, require_free
from summit_graph.errors import AtlasError, UsageError
from summit_graph.images.classes import class_table

CHANNELS = {
    "mixed3a": 256,
    "mixed3b": 480,
    "mixed4a": 508,
    "mixed4b": 512,
    "mixed4c": 512,
    "mixed4d": 528,
    "mixed4e": 832,
    "mixed5a": 832,
    "mixed5b": 1024,
}
"""The layers of the published graphs, in the order of the forward pass, and their channels."""

CLASSES = 1000
"""Outputs of the network that the graphs are of: the classes of ImageNet."""

PARTIAL = (
    "it holds attribution graphs that were published without the images and the counts behind them"
)
"""What `atlas.json` says of an import under `partial`."""

_LAYERS = tuple(CHANNELS)
_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
_FILE = re.compile(r"ag-(0|[1-9][0-9]*)\.json")
_FOLDERS = (Path(), Path("ag"), Path("data", "ag"))
_NEURON = frozenset({"layer", "channel", "count", "pagerank", "prev_channels", "attr_channels"})
_SOURCE = frozenset({"prev_channel", "inf"})
_MOST = 2**31
"""Counts are stored in 32 bits and stay below this."""


@dataclass(frozen=True)
class LeftOutFile:
    """A file that was not imported, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        atlas, key: which atlas.
        already: the same atlas was there before, and nothing was written.
        classes: how many graphs it holds.
        neurons, edges: least, mean and largest number over the graphs.
        influences: rows of strongest influences that came along.
        left_out: files that are not of the published form.
    """

    atlas: Path
    key: str
    already: bool
    classes: int
    neurons: tuple[int, float, int]
    edges: tuple[int, float, int]
    influences: int
    left_out: tuple[LeftOutFile, ...]


class PublishedGraph(NamedTuple):
    """One file: layers are places in `CHANNELS`, from 0.

    neurons: (layer, channel, count, pagerank), by rank. edges: (layer of the target, source,
    target, count), the source in the layer before. influences: likewise, the source a channel of
    the mixer's input.
    """

    neurons: tuple[tuple[int, int, int, float], ...]
    edges: tuple[tuple[int, int, int, int], ...]
    influences: tuple[tuple[int, int, int, int], ...]


def published_files(folder: str | Path) -> list[Path]:
    """All files beside the published graphs in a folder, in its `ag` or in its `data/ag`.

    Graphs come first, by class, then files of other names. Hidden files and folders are passed
    over.
    Raises: UsageError if there is no graph in any of the three.
    """
    for inner in _FOLDERS:
        place = Path(folder) / inner
        if not place.is_dir():
            continue
        entries = [path for path in place.iterdir() if not path.name.startswith(".")]
        if any(_FILE.fullmatch(path.name) for path in entries):
            found = [path for path in entries if _FILE.fullmatch(path.name) or not path.is_dir()]
            return sorted(found, key=_order)
    raise UsageError(
        f"there is no published graph in {folder}, its 'ag' or its 'data/ag': they are called "
        "ag-<class index>.json. Name the folder that holds them."
    )


def _order(path: Path) -> tuple[bool, int, str]:
    name = _FILE.fullmatch(path.name)
    return (name is None, int(name[1]) if name else 0, path.name)


class _Malformed(Exception):
    """A file is not of the published form; the text says in what."""


def read_graph(path: Path) -> tuple[int, PublishedGraph]:
    """The class index and the graph of a published file.

    Raises: AtlasError that says in what it is not of the published form, without naming it.
    """
    try:
        name = _FILE.fullmatch(path.name)
        if not name:
            raise _Malformed("it is not called ag-<class index>.json")
        if len(name[1]) > 3:
            raise _Malformed(f"class {name[1]} is none of the {CLASSES:,} of ImageNet")
        try:
            text = path.read_bytes().decode("utf-8")
            content = json.loads(text, object_pairs_hook=_object)
        except OSError as error:
            raise _Malformed(f"it cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise _Malformed(f"it is not UTF-8 (byte {error.start})") from error
        except ValueError as error:
            raise _Malformed(f"it is not JSON: {error}") from error
        return int(name[1]), _graph(content)
    except RecursionError as error:
        raise AtlasError("it is nested too deeply") from error
    except _Malformed as error:
        raise AtlasError(str(error)) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Malformed(f"an object in it has two entries {twice!r}")
    return found


def _graph(content: Any) -> PublishedGraph:
    _entries(content, frozenset(_LAYERS), "the file")
    neurons: list[tuple[int, int, int, float]] = []
    edges: list[tuple[int, int, int, int]] = []
    influences: list[tuple[int, int, int, int]] = []
    before: set[int] = set()
    for place, layer in enumerate(_LAYERS):
        here: set[int] = set()
        for number, neuron in enumerate(_list(content[layer], layer)):
            where = f"{layer}, neuron {number + 1}"
            _entries(neuron, _NEURON, where)
            if neuron["layer"] != layer:
                raise _Malformed(f"{where}: its layer is {_short(neuron['layer'])}")
            channel = _whole(neuron["channel"], 0, CHANNELS[layer], where, "channel")
            if channel in here:
                raise _Malformed(f"{where}: channel {channel} is there twice")
            here.add(channel)
            count = _whole(neuron["count"], 0, _MOST, where, "count")
            neurons.append((place, channel, count, _pagerank(neuron["pagerank"], where)))
            for source, weight in _sources(neuron, "prev_channels", place, where, int):
                if source not in before:
                    raise _Malformed(
                        f"{where}: an edge comes from {_LAYERS[place - 1]}/{source}, which is not "
                        "in the graph"
                    )
                edges.append((place, source, channel, weight))
            for source, weight in _sources(neuron, "attr_channels", place, where, str):
                influences.append((place, source, channel, weight))
        before = here
    neurons.sort(key=lambda found: (-found[3], found[0], found[1]))
    return PublishedGraph(tuple(neurons), tuple(edges), tuple(influences))


def _sources(
    neuron: Mapping[str, Any], field: str, place: int, where: str, kind: type
) -> list[tuple[int, int]]:
    """The channels and counts of `prev_channels` or `attr_channels`; kind: of the channel."""
    sources = _list(neuron[field], f"{where}: {field}")
    if sources and not place:
        raise _Malformed(f"{where}: {field} is not empty, and there is no layer before")
    found: dict[int, int] = {}
    for source in sources:
        _entries(source, _SOURCE, f"{where}: an entry of {field}")
        channel = source["prev_channel"]
        if kind is str:
            if not (isinstance(channel, str) and _NUMBER.fullmatch(channel)):
                raise _Malformed(
                    f"{where}: {field} has the prev_channel {_short(channel)}; it has to be a "
                    "channel as text"
                )
            channel = int(channel)
        limit = CHANNELS[_LAYERS[place - 1]]
        channel = _whole(channel, 0, limit, where, f"{field} has the prev_channel", "")
        if channel in found:
            raise _Malformed(f"{where}: {field} has channel {channel} twice")
        found[channel] = _whole(source["inf"], 1, _MOST, where, f"{field} has the inf", "")
    return list(found.items())


def _entries(value: Any, wanted: frozenset[str], where: str) -> None:
    if not isinstance(value, dict):
        raise _Malformed(f"{where} is {_short(value)}; it has to be an object")
    if value.keys() != wanted:
        missing, unknown = sorted(wanted - value.keys()), sorted(value.keys() - wanted)
        what = f"lacks {missing[0]!r}" if missing else f"has the unknown entry {unknown[0]!r}"
        raise _Malformed(f"{where} {what}")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Malformed(f"{where} is {_short(value)}; it has to be a list")
    return value


def _whole(value: Any, least: int, limit: int, where: str, name: str, verb: str = "is") -> int:
    if type(value) is not int or not least <= value < limit:
        what = " ".join(part for part in (name, verb, _short(value)) if part)
        raise _Malformed(
            f"{where}: {what}; it has to be a whole number from {least} to {limit - 1}"
        )
    return value


def _pagerank(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _Malformed(f"{where}: pagerank is {_short(value)}; it has to be from 0 to 1")
    return float(value)


def _short(value: Any, length: int = 40) -> str:
    text = json.dumps(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def class_names(classes_file: Path | None) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """The names and synsets of ImageNet's classes, by index.

    classes_file: a CSV file with the columns index and name, and wnid or synset if it has one; an
    index that it lacks is its own name. None: the names that torchvision gives the outputs of
    GoogLeNet, which is InceptionV1 and has them in the same order, and no synsets.
    Raises: UsageError if the file is malformed.
    """
    categories: Sequence[str] | None = None
    if classes_file is None:
        from torchvision.models import GoogLeNet_Weights

        categories = GoogLeNet_Weights.IMAGENET1K_V1.meta["categories"]
    found = class_table(
        (), CLASSES, categories, classes_file, "prediction", labels_are_outputs=False
    )
    return found.names, found.synsets


def import_summit(
    folder: str | Path,
    atlas: str | Path,
    *,
    classes_file: Path | None = None,
    strict: bool = False,
    name: str | None = None,
    version: str = "",
    warn: Callable[[str], None] | None = None,
    advance: Callable[[], None] | None = None,
) -> ImportReport:
    """Makes an atlas of the attribution graphs that the Summit authors published.

    folder: as `published_files` takes it. atlas: a folder that is not there yet; where the same
    atlas is there, nothing is done. classes_file: as `class_names` takes it. strict: stop at the
    first file that is not of the published form; else it is left out. name: the atlas's key.
    version: of summit-graph, to be written down. warn: told of each file left out. advance: called
    after each file.

    Raises: UsageError if there is no published graph, or the classes file is malformed; AtlasError
    if a file is not of the published form (`strict`, or none is), if something else is at `atlas`,
    or if it cannot be written; nothing is written then.
    """
    target = Path(atlas)
    present = Generation.current(target) if generations.exists(target) else None
    if present is None:
        require_free(target)
    elif not present.partial:
        raise AtlasError(
            f"{target} is an atlas of other counts: choose another folder for the imported one."
        )
    files = published_files(folder)
    names, synsets = class_names(classes_file)
    graphs: dict[int, PublishedGraph] = {}
    left_out: list[LeftOutFile] = []
    for path in files:
        try:
            index, graph = read_graph(path)
            graphs[index] = graph
        except AtlasError as error:
            if strict:
                raise AtlasError(
                    f"{path}: {error}. Nothing was written. Correct or remove the file, or import "
                    "without --strict, which leaves it out."
                ) from error
            left_out.append(LeftOutFile(str(path), str(error)))
            if warn is not None:
                warn(f"{path} is left out: {error}.")
        if advance is not None:
            advance()
    if not graphs:
        raise AtlasError(
            f"none of the {len(files)} files in {files[0].parent} is a published graph; "
            f"{files[0].name}: {left_out[0].reason}."
        )
    description = _description(
        [ClassEntry(index, names[index], synsets[index], (index,)) for index in graphs],
        name,
        version,
    )
    tables = _tables(description, graphs)
    if present is None:
        with made_whole(target, description) as store, store:
            store.replace_tables(tables)
    elif not _same(present, description, tables):
        raise AtlasError(
            f"{target} holds another import, of other files or class names, or under another "
            "key: choose another folder for this one. Nothing was changed."
        )
    return ImportReport(
        atlas=target,
        key=description.key,
        already=present is not None,
        classes=len(graphs),
        neurons=_spread([len(graph.neurons) for graph in graphs.values()]),
        edges=_spread([len(graph.edges) for graph in graphs.values()]),
        influences=tables["influences"].num_rows,
        left_out=tuple(left_out),
    )


def _spread(numbers: Sequence[int]) -> tuple[int, float, int]:
    return (min(numbers), sum(numbers) / len(numbers), max(numbers))


def _same(present: Generation, description: Description, tables: Mapping[str, pa.Table]) -> bool:
    """Whether an atlas is what an import would make, whatever version of this package made it."""
    wanted = {**description.header(), "complete": False}
    header = {**present.header, "summit_graph": wanted["summit_graph"]}
    return (
        header == wanted
        and set(present.tables()) == set(tables)
        and all(present.table(name).equals(table) for name, table in tables.items())
    )


def _layer(place: int) -> int:
    """The number of a layer: between two of them lies the mixer input of the later one."""
    return 2 * place


def _hop(place: int) -> int:
    """The number of the hop from the mixer input of a layer to it."""
    return place - 1


def _description(classes: Sequence[ClassEntry], name: str | None, version: str) -> Description:
    layers: list[LayerEntry] = []
    for place, (layer, channels) in enumerate(CHANNELS.items()):
        if place:
            # Its widest is that of the 1×1 branch: the layer before. Bottlenecks are narrower.
            width = CHANNELS[_LAYERS[place - 1]]
            layers.append(LayerEntry(len(layers), f"{layer} mixer input", False, width, None, None))
        layers.append(LayerEntry(_layer(place), layer, True, channels, None, None))
    description = Description(
        key="",
        model={"name": "InceptionV1", "spec": None, "weights": None},
        weights_hash=None,
        dataset={"name": "ImageNet"},
        layers=layers,
        hops=[
            HopEntry(_hop(place), _layer(place) - 1, _layer(place), None)
            for place in range(1, len(CHANNELS))
        ],
        classes=classes,
        grouping=None,
        parameters={},
        preprocessing={},
        name=name,
        version=version,
        partial=PARTIAL,
    )
    key = name or default_key("InceptionV1", description.identity, "ImageNet")
    return Description(**{**vars(description), "key": key})


def _tables(description: Description, graphs: Mapping[int, PublishedGraph]) -> dict[str, pa.Table]:
    rows: dict[str, list[tuple[Any, ...]]] = {
        "layers": [tuple(layer) for layer in description.layers],
        "hops": [tuple(hop) for hop in description.hops],
        "classes": [
            (entry.index, entry.name, entry.synset, *[None] * 4) for entry in description.classes
        ],
        "activations": [],
        "influences": [],
        "edges": [],
        "ranks": [],
        "selections": [],
    }
    for index, graph in graphs.items():
        ranked = enumerate(graph.neurons, 1)
        for rank, (place, channel, count, pagerank) in sorted(ranked, key=itemgetter(1)):
            layer = _layer(place)
            rows["ranks"].append((index, layer, channel, pagerank, rank, True))
            if count:
                rows["activations"].append((index, layer, channel, count))
        for place, source, target, count in sorted(graph.edges):
            before = _layer(place - 1)
            rows["edges"].append((index, before, source, _layer(place), target, count))
        for place, source, target, count in sorted(graph.influences):
            rows["influences"].append((index, _hop(place), source, target, count))
        size = (len(graph.neurons), len(graph.edges))
        rows["selections"].append((index, None, None, *size, None, None, None))
    return {name: _table(name, found) for name, found in rows.items()}


def _table(name: str, rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    schema = ATLAS_TABLES[name]
    columns = list(zip(*rows, strict=True)) or [() for _ in schema.names]
    return pa.table(
        [pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )
