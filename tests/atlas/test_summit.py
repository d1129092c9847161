from __future__ import annotations

import copy
import csv
import hashlib
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas import made
from atlas.published import LAYERS, class_file, content, write
from hypothesis import given, settings
from hypothesis import strategies as st

from summit_graph.atlas import summit
from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.merging import merge_atlases
from summit_graph.atlas.store import Store
from summit_graph.atlas.summit import ImportReport, import_summit, published_files, read_graph
from summit_graph.errors import AtlasError, UsageError
from summit_graph.reranking import rerank


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classes file, so that no test but one has to load torchvision for the names."""
    return class_file(tmp_path_factory.mktemp("names") / "classes.csv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "ag", {index: content(index) for index in (270, 3, 41)})


@pytest.fixture
def path(folder: Path, tmp_path: Path, names: Path) -> Path:
    """An import of three made graphs."""
    import_summit(folder, tmp_path / "made.atlas", classes_file=names)
    return tmp_path / "made.atlas"


def digests(path: Path) -> dict[str, str]:
    """What lies in a folder, by name; a link counts as what it leads to."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


# Everything that the authors published


@pytest.fixture(scope="module")
def published(
    test_data: Path, tmp_path_factory: pytest.TempPathFactory, names: Path
) -> tuple[Path, Path, ImportReport]:
    folder = test_data / "summit-published"
    path = tmp_path_factory.mktemp("published") / "published.atlas"
    return folder / "data" / "ag", path, import_summit(folder, path, classes_file=names)


def test_all_published_files_arrive(published: tuple[Path, Path, ImportReport]) -> None:
    """Added up over the files by code of its own: every neuron, edge, influence, count, rank."""
    folder, path, report = published
    neurons, edges, influences, sizes = [], [], [], []
    for file in folder.iterdir():
        index = int(file.name[3:-5])
        graph = json.loads(file.read_text())
        size = [0, 0]
        for layer, found in graph.items():
            at = LAYERS.index(layer)
            for neuron in found:
                size[0] += 1
                key = (index, layer, neuron["channel"])
                neurons.append((*key, neuron["count"], neuron["pagerank"]))
                for edge in neuron["prev_channels"]:
                    size[1] += 1
                    source = (LAYERS[at - 1], edge["prev_channel"])
                    edges.append((index, *source, *key[1:], edge["inf"]))
                for strong in neuron["attr_channels"]:
                    source = (f"{layer} mixer input", int(strong["prev_channel"]))
                    influences.append((index, *source, *key[1:], strong["inf"]))
        sizes.append((index, *size))
    assert len(sizes) == 900

    tables = made.tables(path)
    name = dict(made.rows(tables["layers"].select(["layer", "name"])))
    counts = {row[:3]: row[3] for row in made.rows(tables["activations"])}
    ranks = made.rows(tables["ranks"])
    assert sorted(neurons) == sorted(
        (index, name[layer], channel, counts.pop((index, layer, channel)), pagerank)
        for index, layer, channel, pagerank, _, _ in ranks
    )
    assert counts == {}
    assert sorted(edges) == sorted(
        (index, name[source_layer], source, name[target_layer], target, count)
        for index, source_layer, source, target_layer, target, count in made.rows(tables["edges"])
    )
    ends = {row[0]: (name[row[1]], name[row[2]]) for row in made.rows(tables["hops"])}
    assert sorted(influences) == sorted(
        (index, ends[hop][0], source, ends[hop][1], target, count)
        for index, hop, source, target, count in made.rows(tables["influences"])
    )
    selections = tables["selections"].select(["class", "neurons", "edges"])
    assert sorted(sizes) == made.rows(selections)

    for at, spread, expected in (
        (1, report.neurons, (33, 58.05, 91)),
        (2, report.edges, (61, 203.2, 506)),
    ):
        found = [size[at] for size in sizes]
        assert spread == (min(found), sum(found) / len(found), max(found))
        assert spread == pytest.approx(expected, abs=0.005)
    assert report.influences == len(influences)
    assert report.left_out == ()


def test_all_published_ranks_are_by_pagerank(published: tuple[Path, Path, ImportReport]) -> None:
    table = Generation.current(published[1]).table("ranks")
    index, pagerank, rank = (
        np.asarray(table.column(name)) for name in ("class", "pagerank", "rank")
    )
    for number in np.unique(index):
        own = index == number
        assert sorted(rank[own]) == list(range(1, own.sum() + 1))
        assert np.all(np.diff(pagerank[own][np.argsort(rank[own])]) <= 0)
    assert all(table.column("selected").to_pylist())


def test_published_indices_are_those_of_torchvision_and_the_classes_file(test_data: Path) -> None:
    found, synsets = summit.class_names(None)
    assert set(synsets) == {None}
    with (test_data / "imagenet-classes.csv").open(encoding="utf-8") as lines:
        rows = {int(row["index"]): row for row in csv.DictReader(lines)}
    assert found[270] == rows[270]["name"] == "white wolf"
    differ = {number for number, row in rows.items() if row["name"] != found[number]}
    # torchvision tells the two cranes and the two bathing suits apart.
    assert differ == {134, 639}
    assert len(set(found)) == len(rows) == 1000
    named, synsets = summit.class_names(test_data / "imagenet-classes.csv")
    assert (named[270], synsets[270]) == ("white wolf", "n02114548")


# What becomes of a file


def test_an_import_is_read_like_any_atlas(path: Path) -> None:
    graph = content(270)
    with Atlas.open(path) as atlas:
        assert [record.index for record in atlas.classes] == [3, 41, 270]
        assert atlas.find("n02114548").name == "white wolf"
        found = atlas.attribution_graph("white wolf")
    neurons = [neuron for layer in graph.values() for neuron in layer]
    neurons.sort(key=lambda neuron: -neuron["pagerank"])
    assert [(each.name, each.pagerank, each.count, each.rank) for each in found.neurons] == [
        (f"{each['layer']}/{each['channel']}", each["pagerank"], each["count"], rank)
        for rank, each in enumerate(neurons, 1)
    ]
    edges = Counter(
        (
            f"{LAYERS[LAYERS.index(each['layer']) - 1]}/{edge['prev_channel']}",
            f"{each['layer']}/{each['channel']}",
            edge["inf"],
        )
        for each in neurons
        for edge in each["prev_channels"]
    )
    assert Counter((edge.source, edge.target, edge.count) for edge in found.edges) == edges
    assert found.record.edges == sum(edges.values())


def test_equal_pageranks_are_ranked_by_layer_then_channel(tmp_path: Path, names: Path) -> None:
    graph = content()
    for layer in graph.values():
        for neuron in layer:
            neuron["pagerank"] = 0.01
    graph["mixed5b"][0]["pagerank"] = 0.5
    folder = write(tmp_path / "ag", {0: graph})
    import_summit(folder, tmp_path / "atlas", classes_file=names)
    with Atlas.open(tmp_path / "atlas") as atlas:
        ranked = [(each.layer, each.channel) for each in atlas.attribution_graph(0).neurons]
    assert ranked[0] == ("mixed5b", graph["mixed5b"][0]["channel"])
    places = [(LAYERS.index(layer), channel) for layer, channel in ranked[1:]]
    assert len(places) == 17
    assert places == sorted(places)


def test_layers_and_hops(path: Path) -> None:
    generation = Generation.current(path)
    chosen = [layer for layer in generation.layers if layer.chosen]
    assert [layer.name for layer in chosen] == LAYERS
    assert sum(layer.channels for layer in chosen) == 5484
    hidden = [layer for layer in generation.layers if not layer.chosen]
    assert [layer.name for layer in hidden] == [f"{name} mixer input" for name in LAYERS[1:]]
    assert [layer.channels for layer in hidden] == [layer.channels for layer in chosen[:-1]]
    assert [layer.number for layer in generation.layers] == list(range(17))
    name = {layer.number: layer.name for layer in generation.layers}
    assert [(name[hop.source], name[hop.target], hop.mixers) for hop in generation.hops] == [
        (f"{layer} mixer input", layer, None) for layer in LAYERS[1:]
    ]
    with Atlas.open(path) as atlas:
        assert [layer.name for layer in atlas.layers] == LAYERS


def test_what_the_files_lack_is_null(path: Path) -> None:
    header = json.loads((path / "atlas.json").read_text(encoding="utf-8"))
    assert header["complete"] is False
    assert header["partial"] == summit.PARTIAL
    identity = header["identity"]
    assert (identity["weights_hash"], identity["grouping"]) == (None, None)
    assert (identity["parameters"], identity["preprocessing"]) == ({}, {})
    assert {(layer["height"], layer["width"]) for layer in identity["layers"]} == {(None, None)}
    assert "ranking" not in header
    tables = made.tables(path)
    assert set(tables) == {
        "layers", "hops", "classes", "activations", "influences", "edges", "ranks", "selections",
    }  # fmt: skip
    for name, columns in {
        "layers": ("height", "width"),
        "hops": ("mixers",),
        "classes": ("images", "top1", "top5", "probability"),
        "selections": ("mass", "threshold", "iterations", "converged", "unconnected"),
    }.items():
        for column in columns:
            assert tables[name].column(column).null_count == tables[name].num_rows > 0
    with Atlas.open(path) as atlas:
        assert atlas.partial
        graph = atlas.attribution_graph(270)
        assert {neuron.share for neuron in graph.neurons} == {None}
        assert {edge.share for edge in graph.edges} == {None}
        shares = atlas.activations(270).column("share")
        assert shares.null_count == len(shares) == 18
        record = atlas.find(270)
        known = {"index": 270, "name": "white wolf", "synset": "n02114548", "neurons": 18}
        known["edges"] = len(graph.edges)
        assert {name: value for name, value in vars(record).items() if value is not None} == known
        view = atlas.neuron(graph.neurons[0].name)
        assert [(each.index, each.rank, each.share) for each in view.classes] == [(270, 1, None)]


def test_what_is_not_known_is_said_and_is_not_none(path: Path) -> None:
    with Atlas.open(path) as atlas:
        neuron = atlas.attribution_graph(270).neurons[0].name
        questions: tuple[Callable[[], object], ...] = (
            lambda: atlas.similar(270),
            lambda: atlas.similar(270, "mixed4a"),
            lambda: atlas.confusions(270),
            lambda: atlas.votes(270),
            lambda: atlas.examples(neuron),
            lambda: atlas.examples(neuron, 270),
            lambda: atlas.images,
        )
        for question in questions:
            with pytest.raises(AtlasError, match=r"are not known: the atlas was imported"):
                question()
        with pytest.raises(AtlasError, match=r"has no table 'votes': it holds attribution graphs"):
            atlas.generation.table("votes")


def test_a_neuron_that_is_active_in_no_image_is_in_the_graph(tmp_path: Path, names: Path) -> None:
    graph = content()
    graph["mixed5b"][0]["count"] = 0
    import_summit(write(tmp_path / "ag", {0: graph}), tmp_path / "atlas", classes_file=names)
    with Atlas.open(tmp_path / "atlas") as atlas:
        counts = {each.name: each.count for each in atlas.attribution_graph(0).neurons}
        assert counts[f"mixed5b/{graph['mixed5b'][0]['channel']}"] == 0
        assert len(counts) == 18
        assert min(atlas.activations(0).column("count").to_pylist()) > 0


# What cannot be done with it


def test_it_is_not_ranked_counted_into_or_merged(path: Path, tmp_path: Path) -> None:
    before = digests(path)
    with pytest.raises(AtlasError, match=r"neither counted into nor ranked: it holds attribution"):
        rerank(path)
    with pytest.raises(AtlasError, match=r"neither counted into nor ranked: it holds attribution"):
        Store.open_or_create(path, made.description())
    other = made.atlas(tmp_path / "other", made.images(8))
    for pair in ([path, other], [other, path], [path, path]):
        with pytest.raises(AtlasError, match=r"made.atlas cannot be added to another: it holds"):
            merge_atlases(pair, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert digests(path) == before


def test_an_atlas_that_is_only_planned_is_still_not_opened(tmp_path: Path) -> None:
    with (
        Store.create(tmp_path / "atlas", made.description()),
        pytest.raises(AtlasError, match=r"are not counted yet"),
    ):
        Atlas.open(tmp_path / "atlas")


# Where it is put


def test_the_same_files_give_the_same_tables(folder: Path, tmp_path: Path, names: Path) -> None:
    for name in ("first", "second"):
        import_summit(folder, tmp_path / name, classes_file=names, version=name)
    first, second = digests(tmp_path / "first"), digests(tmp_path / "second")
    parquet = [name for name in first if name.endswith(".parquet")]
    assert len(parquet) > 8
    assert {name: first[name] for name in parquet} == {name: second[name] for name in parquet}
    headers = [Generation.current(tmp_path / name).header for name in ("first", "second")]
    assert [header.pop("summit_graph") for header in headers] == ["first", "second"]
    assert headers[0] == headers[1]


def test_a_second_import_of_the_same_changes_nothing(folder: Path, path: Path, names: Path) -> None:
    before = digests(path), (path / "atlas.json").stat().st_mtime_ns
    report = import_summit(folder, path, classes_file=names, version="9")
    assert report.already
    assert (digests(path), (path / "atlas.json").stat().st_mtime_ns) == before


@pytest.mark.parametrize("change", ["count", "class", "name", "key"])
def test_another_import_is_not_overwritten(
    change: str, folder: Path, path: Path, tmp_path: Path, names: Path
) -> None:
    before = digests(path)
    if change == "count":
        graph = content(3)
        graph["mixed4a"][0]["count"] += 1
        write(folder, {3: graph})
    if change == "class":
        write(folder, {5: content(5)})
    if change == "name":
        text = names.read_text(encoding="utf-8").replace("white wolf", "arctic wolf")
        names = tmp_path / "other.csv"
        names.write_text(text, encoding="utf-8")
    with pytest.raises(AtlasError, match=r"holds another import, .*Nothing was changed"):
        import_summit(folder, path, classes_file=names, name="mine" if change == "key" else None)
    assert digests(path) == before


def test_what_is_something_else_is_not_touched(folder: Path, tmp_path: Path, names: Path) -> None:
    counted = made.atlas(tmp_path / "counted", made.images(8))
    before = digests(counted)
    with pytest.raises(AtlasError, match=r"is an atlas of other counts"):
        import_summit(folder, counted, classes_file=names)
    assert digests(counted) == before
    with pytest.raises(AtlasError, match=r"is there already"):
        import_summit(folder, folder, classes_file=names)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(AtlasError, match=r"is there already"):
        import_summit(folder, file, classes_file=names)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not import_summit(folder, empty, classes_file=names).already


def test_it_is_whole_or_absent(
    folder: Path, tmp_path: Path, names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "new" / "x.atlas"
    with monkeypatch.context() as patched:
        patched.setattr(Store, "replace_tables", full)
        with pytest.raises(KeyboardInterrupt):
            import_summit(folder, target, classes_file=names)
    assert list(target.parent.iterdir()) == []
    import_summit(folder, target, classes_file=names)
    assert [entry.name for entry in target.parent.iterdir()] == ["x.atlas"]


def test_the_key_is_of_the_classes_or_given(folder: Path, tmp_path: Path, names: Path) -> None:
    def key(place: str, **options: Any) -> str:
        report = import_summit(folder, tmp_path / place, classes_file=names, **options)
        assert Generation.current(tmp_path / place).header["key"] == report.key
        return report.key

    first = key("first")
    assert re.fullmatch(r"InceptionV1-[0-9a-f]{8}", first)
    assert key("named", name="summit") == "summit"
    write(folder, {5: content(5)})
    assert key("more") != first


# Where the files are


def test_the_folder_may_be_one_above(folder: Path, tmp_path: Path) -> None:
    places = [folder, folder.parent]
    (tmp_path / "deep").mkdir()
    shutil.copytree(folder, tmp_path / "deep" / "data" / "ag")
    for place in (*places, tmp_path / "deep", tmp_path / "deep" / "data"):
        found = [file.name for file in published_files(place)]
        assert found == ["ag-3.json", "ag-41.json", "ag-270.json"]


@pytest.mark.parametrize("place", ["nowhere", "empty", "others", "file"])
def test_no_published_graph_at_all(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "ag-x.json").write_text("{}")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(UsageError, match=r"there is no published graph in .* ag-<class index>"):
        import_summit(tmp_path / place, tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()


# Files that are not of the published form


def neuron_of(graph: dict[str, Any], layer: str = "mixed4b", number: int = 1) -> dict[str, Any]:
    return graph[layer][number]


def put(field: str, value: object, layer: str = "mixed4b") -> Callable[[dict[str, Any]], object]:
    return lambda graph: neuron_of(graph, layer).update({field: value})


def edges(*values: object, field: str = "prev_channels") -> Callable[[dict[str, Any]], object]:
    return lambda graph: neuron_of(graph).update({field: list(values)})


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "negative": (put("channel", -1), r"mixed4b, neuron 2: channel is -1; .* from 0 to 511$"),
    "too high": (put("channel", 508, "mixed4a"), r"mixed4a, neuron 2: channel is 508; .* to 507$"),
    "boolean": (put("channel", True), r"channel is true"),
    "text": (put("channel", "7"), r'channel is "7"'),
    "fraction": (put("count", 7.0), r"count is 7.0"),
    "less than none": (put("count", -3), r"count is -3"),
    "too many": (put("count", 2**31), r"count is 2147483648"),
    "nan": (put("pagerank", float("nan")), r"pagerank is NaN; it has to be from 0 to 1"),
    "infinite": (put("pagerank", float("inf")), r"pagerank is Infinity"),
    "above 1": (put("pagerank", 1.5), r"pagerank is 1.5"),
    "null": (put("pagerank", None), r"pagerank is null"),
    "true": (put("pagerank", True), r"pagerank is true"),
    "other layer": (put("layer", "mixed4c"), r'mixed4b, neuron 2: its layer is "mixed4c"'),
    "twice": (
        lambda graph: graph["mixed4b"].append(copy.deepcopy(neuron_of(graph))),
        r"mixed4b, neuron 3: channel \d+ is there twice",
    ),
    "missing field": (lambda graph: neuron_of(graph).pop("count"), r"neuron 2 lacks 'count'"),
    "more fields": (put("share", 0.5), r"neuron 2 has the unknown entry 'share'"),
    "missing layer": (lambda graph: graph.pop("mixed4a"), r"the file lacks 'mixed4a'"),
    "unknown layer": (lambda graph: graph.update(mixed6a=[]), r"the unknown entry 'mixed6a'"),
    "no list": (lambda graph: graph.update(mixed4a={}), r"mixed4a is {}; it has to be a list"),
    "no object": (lambda graph: graph["mixed4a"].append(5), r"neuron 3 is 5; it has to be an obj"),
    "no edges": (put("prev_channels", None), r"prev_channels is null; it has to be a list"),
    "edge from outside": (
        edges({"prev_channel": 201, "inf": 5}),
        r"mixed4b, neuron 2: an edge comes from mixed4a/201, which is not in the graph",
    ),
    "edge of no source": (edges({"inf": 5}), r"an entry of prev_channels lacks 'prev_channel'"),
    "edge as text": (
        edges({"prev_channel": "1", "inf": 5}),
        r'has the prev_channel "1"; .* to 507',
    ),
    "no edge": (edges(5), r"an entry of prev_channels is 5"),
    "empty edge": (
        lambda graph: neuron_of(graph).update(
            prev_channels=[{"prev_channel": graph["mixed4a"][0]["channel"], "inf": 0}]
        ),
        r"prev_channels has the inf 0; it has to be a whole number from 1 to",
    ),
    "edge twice": (
        lambda graph: neuron_of(graph).update(
            prev_channels=[{"prev_channel": graph["mixed4a"][0]["channel"], "inf": 5}] * 2
        ),
        r"prev_channels has channel \d+ twice",
    ),
    "first layer": (
        put("prev_channels", [{"prev_channel": 1, "inf": 1}], "mixed3a"),
        r"mixed3a, neuron 2: prev_channels is not empty, and there is no layer before",
    ),
    "first layer's mixer": (
        put("attr_channels", [{"prev_channel": "1", "inf": 1}], "mixed3a"),
        r"mixed3a, neuron 2: attr_channels is not empty",
    ),
    "influence as number": (
        edges({"prev_channel": 5, "inf": 5}, field="attr_channels"),
        r"attr_channels has the prev_channel 5; it has to be a channel as text",
    ),
    "influence too high": (
        edges({"prev_channel": "508", "inf": 5}, field="attr_channels"),
        r"attr_channels has the prev_channel 508; .* from 0 to 507",
    ),
    "influence below 0": (
        edges({"prev_channel": "-1", "inf": 5}, field="attr_channels"),
        r'attr_channels has the prev_channel "-1"',
    ),
    "influence twice": (
        edges(*[{"prev_channel": "5", "inf": 5}] * 2, field="attr_channels"),
        r"attr_channels has channel 5 twice",
    ),
    "influence of nothing": (
        edges({"prev_channel": "5", "inf": None}, field="attr_channels"),
        r"attr_channels has the inf null",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_graph_is_told(name: str, tmp_path: Path) -> None:
    change, told = MALFORMED[name]
    graph = content()
    change(graph)
    with pytest.raises(AtlasError, match=told):
        read_graph(write(tmp_path, {0: graph}) / "ag-0.json")


RAW: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"it is not JSON: Expecting value"),
    "cut": (json.dumps(content()).encode()[:2000], r"it is not JSON"),
    "bytes": (b'{"mixed4a": "\xff"}', r"it is not UTF-8 \(byte 13\)"),
    "utf-16": (json.dumps(content()).encode("utf-16"), r"it is not UTF-8"),
    "number": (b"5", r"the file is 5; it has to be an object"),
    "list": (b"[]", r"the file is \[\]"),
    "deep": (b"[" * 10**6, r"it is nested too deeply|it is not JSON"),
    "long": (b'{"mixed4a": ' + b"9" * 10**4 + b"}", r"it is not JSON: Exceeds the limit"),
    "same layer twice": (b'{"mixed4a": [], "mixed4a": []}', r"has two entries 'mixed4a'"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_file_that_is_no_graph_is_told(name: str, tmp_path: Path) -> None:
    content, told = RAW[name]
    (tmp_path / "ag-0.json").write_bytes(content)
    with pytest.raises(AtlasError, match=told):
        read_graph(tmp_path / "ag-0.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.randoms(use_true_random=False), JSON)
def test_whatever_is_in_a_file_it_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, draw: random.Random, value: object
) -> None:
    graph: Any = content()
    place = graph
    while True:
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], (dict, list)) or not place[key] or draw.random() < 0.1:
            break
        place = place[key]
    place[key] = value
    file = write(tmp_path_factory.getbasetemp() / "fuzzed", {0: graph}) / "ag-0.json"
    try:
        index, found = read_graph(file)
    except AtlasError:
        return
    assert index == 0
    assert len(found.neurons) == sum(map(len, graph.values()))


def test_malformed_files_are_named_and_the_others_imported(
    folder: Path, tmp_path: Path, names: Path
) -> None:
    bad = content(4)
    bad["mixed4b"][0]["count"] = -1
    write(folder, {4: bad, 1000: content(), 5: content()})
    (folder / "ag-007.json").write_text(json.dumps(content()))
    (folder / "notes.txt").write_text("mine")
    (folder / "ag-9.json").mkdir()
    (folder / "ag-5.json").write_text("{")
    (folder / ".hidden").write_text("not looked at")
    (folder / "folder").mkdir()
    warnings: list[str] = []
    seen: list[int] = []
    report = import_summit(
        folder,
        tmp_path / "atlas",
        classes_file=names,
        warn=warnings.append,
        advance=lambda: seen.append(1),
    )
    assert report.classes == 3
    assert [(Path(left.path).name, left.reason.partition(":")[0]) for left in report.left_out] == [
        ("ag-4.json", "mixed4b, neuron 1"),
        ("ag-5.json", "it is not JSON"),
        ("ag-9.json", "it cannot be read"),
        ("ag-1000.json", "class 1000 is none of the 1,000 of ImageNet"),
        ("ag-007.json", "it is not called ag-<class index>.json"),
        ("notes.txt", "it is not called ag-<class index>.json"),
    ]
    assert [warning.partition(" is left out: ")[0] for warning in warnings] == [
        left.path for left in report.left_out
    ]
    assert len(seen) == 9
    clean = write(tmp_path / "clean", {index: content(index) for index in (270, 3, 41)})
    import_summit(clean, tmp_path / "other", classes_file=names)
    first, second = made.tables(tmp_path / "atlas"), made.tables(tmp_path / "other")
    assert first == second


def test_strict_stops_at_a_malformed_file(folder: Path, tmp_path: Path, names: Path) -> None:
    (folder / "ag-41.json").write_text("{}")
    with pytest.raises(AtlasError, match=r"ag-41.json: the file lacks 'mixed3a'. Nothing was writ"):
        import_summit(folder, tmp_path / "new" / "atlas", classes_file=names, strict=True)
    assert not (tmp_path / "new").exists()


def test_no_file_that_can_be_read(tmp_path: Path, names: Path) -> None:
    write(tmp_path / "ag", {1: {}, 2: {}})
    with pytest.raises(AtlasError, match=r"none of the 2 files .*; ag-1.json: the file lacks"):
        import_summit(tmp_path, tmp_path / "atlas", classes_file=names)
    assert not (tmp_path / "atlas").exists()


def test_a_classes_file_may_name_some(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "classes.csv"
    file.write_text("index,name\n270,loup blanc\n", encoding="utf-8")
    import_summit(folder, tmp_path / "atlas", classes_file=file)
    with Atlas.open(tmp_path / "atlas") as atlas:
        assert [(each.name, each.synset) for each in atlas.classes] == [
            ("3", None), ("41", None), ("loup blanc", None),
        ]  # fmt: skip
    file.write_text("index,name\n1000,nothing\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"there is no output 1000"):
        import_summit(folder, tmp_path / "other", classes_file=file)
