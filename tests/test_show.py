from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from summit_graph import show
from summit_graph.atlas.interface import (
    AttributionGraph,
    ClassRecord,
    Confusion,
    EdgeRecord,
    ExampleRecord,
    Neighbourhood,
    NeuronInClass,
    NeuronRecord,
    NeuronView,
    SimilarClass,
    Vote,
    compared,
)
from summit_graph.atlas.schema import LayerEntry
from summit_graph.atlas.summit import ImportReport, LeftOutFile
from summit_graph.network.check import Completeness, Source
from summit_graph.reporting import IngestReport, LeftOut, RankReport

LAYERS = (
    LayerEntry(0, "early", True, 4, 8, 8),
    LayerEntry(2, "middle", True, 4, 4, 4),
    LayerEntry(3, "late", True, 8, 2, 2),
)


def text(content: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(content)
    return "\n".join(line.rstrip() for line in captured.get().replace("\xa0", " ").splitlines())


def record(name: str = "tench", **changes: Any) -> ClassRecord:
    values: dict[str, Any] = {
        "index": 7,
        "name": name,
        "synset": None,
        "images": 40,
        "top1": 0.975,
        "top5": 1.0,
        "probability": None,
        "neurons": 5,
        "edges": 5,
        "mass": 0.075,
        "threshold": None,
        "converged": True,
        "unconnected": (),
    }
    return ClassRecord(**{**values, **changes})


def member(layer: str, channel: int, rank: int, count: int = 10) -> NeuronRecord:
    return NeuronRecord(f"{layer}/{channel}", layer, channel, 1 / rank, rank, count, count / 40)


def edge(source: str, target: str, count: int) -> EdgeRecord:
    return EdgeRecord(source, target, count, count / 40)


NEURONS = (
    member("late", 5, 1, 40),
    member("middle", 1, 2, 20),
    member("early", 0, 3, 1),
    member("middle", 2, 4, 5),
    member("late", 6, 5, 0),
)
EDGES = (
    edge("middle/2", "late/5", 39),
    edge("middle/1", "late/5", 30),
    edge("early/0", "middle/2", 12),
    edge("middle/1", "late/6", 9),
    edge("early/0", "late/5", 3),
)
GRAPH = AttributionGraph(record(), NEURONS, EDGES)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "-"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.9999, "99.9 %"),
        (0.0001, "0.1 %"),
        (0.978, "97.8 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_none(share: float | None, said: str) -> None:
    assert show.percent(share) == said


@pytest.mark.parametrize(("share", "full"), [(0, 0), (0.001, 1), (0.5, 5), (0.96, 10), (1, 10)])
def test_bars(share: float, full: int) -> None:
    assert show.bar(share) == "█" * full + "░" * (10 - full)


def test_control_characters_are_spelled_out() -> None:
    assert show.plain("a\x1b[31m\nWolf ü 狼") == "a\\x1b[31m\\nWolf ü 狼"


def test_the_headline_says_class_neurons_and_edges() -> None:
    lines = text(show.attribution_graph(GRAPH, LAYERS)).splitlines()
    assert lines[0] == '"tench" (class 7): 5 neurons in 3 layers matter most, joined by 5 edges.'
    assert lines[1].startswith("40 images; the model's first answer is right for 97.5 % of them")


def test_layers_go_from_the_answer_to_the_image_and_neurons_by_rank() -> None:
    said = text(show.attribution_graph(GRAPH, LAYERS, legend=False))
    rows = [line.split()[0] for line in said.splitlines() if line.startswith("  ") and "/" in line]
    assert rows[:5] == ["late/5", "late/6", "middle/1", "middle/2", "early/0"]
    heads = re.findall(r"^(\w+)  (\d of \d neurons)", said, re.MULTILINE)
    assert heads == [
        ("late", "2 of 8 neurons"),
        ("middle", "2 of 4 neurons"),
        ("early", "1 of 4 neurons"),
    ]


def test_a_row_says_how_often_it_is_active_and_what_feeds_it() -> None:
    said = text(show.attribution_graph(GRAPH, LAYERS)).splitlines()
    row = next(line for line in said if line.startswith("  late/5"))
    assert row.split("  ")[1:] == [
        "late/5",
        "",
        "█" * 10,
        "100 %",
        "middle/2 (39), middle/1 (30), early/0 (3)",
    ]
    first = next(line for line in said if line.startswith("  early/0"))
    assert first.endswith("the image")
    unfed = next(line for line in said if line.startswith("  middle/1"))
    assert unfed.endswith("-")


def test_more_than_three_sources_are_counted() -> None:
    neurons = (*(member("middle", channel, channel + 2) for channel in range(5)), NEURONS[0])
    edges = tuple(edge(f"middle/{channel}", "late/5", 9 - channel) for channel in range(5))
    said = text(show.attribution_graph(AttributionGraph(record(), neurons, edges), LAYERS))
    assert "middle/0 (9), middle/1 (8), middle/2 (7), +2" in said


def test_the_answer_is_fed_by_votes_those_of_the_graph_first() -> None:
    votes = [Vote("late/7", "late", 7, 40, 1.0), Vote("late/5", "late", 5, 8, 0.2)]
    said = text(show.attribution_graph(GRAPH, LAYERS, votes=votes))
    assert "late/5 (8); outside the graph: late/7 (40)" in said


def test_a_large_graph_shows_five_neurons_of_a_layer_and_how_many_more() -> None:
    neurons = tuple(member("late", channel, channel + 1) for channel in range(60))
    graph = AttributionGraph(record(), neurons, ())
    said = text(show.attribution_graph(graph, LAYERS))
    assert said.count("  late/") == 5
    assert "and 55 more" in said
    assert text(show.attribution_graph(graph, LAYERS, limit=70)).count("  late/") == 60
    small = AttributionGraph(record(), neurons[:50], ())
    assert text(show.attribution_graph(small, LAYERS)).count("  late/") == 50


def test_paths_step_back_to_the_strongest_source_from_the_neurons_with_most_votes() -> None:
    assert show.paths(GRAPH, LAYERS) == (
        ("early/0", "middle/2", "late/5"),
        ("middle/1", "late/6"),
    )
    votes = [Vote("late/6", "late", 6, 3, 0.1)]
    assert show.paths(GRAPH, LAYERS, votes)[0] == ("middle/1", "late/6")


def test_equal_sources_of_a_path_go_by_rank() -> None:
    edges = (edge("middle/2", "late/5", 9), edge("middle/1", "late/5", 9))
    graph = AttributionGraph(record(), NEURONS, edges)
    assert show.paths(graph, LAYERS) == (("middle/1", "late/5"),)


def test_there_are_at_most_three_paths_and_none_without_edges() -> None:
    neurons = (
        member("early", 0, 9),
        *(member("late", channel, channel + 1) for channel in range(5)),
    )
    edges = tuple(edge("early/0", f"late/{channel}", 4) for channel in range(5))
    assert len(show.paths(AttributionGraph(record(), neurons, edges), LAYERS)) == 3
    assert show.paths(AttributionGraph(record(), neurons, ()), LAYERS) == ()
    assert show.paths(AttributionGraph(record(), (), ()), LAYERS) == ()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["tench", "a class with a name " * 6, "狼" * 60])
def test_nothing_is_wider_than_the_terminal(width: int, name: str) -> None:
    long = "features.denseblock4.denselayer16.conv2.very.deep.inside"
    layers = (LayerEntry(0, long, True, 999, 8, 8), LayerEntry(1, f"{long}2", True, 999, 8, 8))
    neurons = (member(long, 100, 1), member(f"{long}2", 200, 2))
    edges = (edge(f"{long}/100", f"{long}2/200", 40),)
    graph = AttributionGraph(record(name), neurons, edges)
    other = AttributionGraph(record(f"{name}!"), neurons[:1], ())
    votes = [Vote(f"{long}2/200", f"{long}2", 200, 8, 0.2)]
    for content in (
        show.attribution_graph(
            graph,
            layers,
            votes=votes,
            similar=[SimilarClass(3, name, 0.5)] * 3,
            confusions=[Confusion(3, name, 2, 0.05), Confusion(-1, None, 1, 0.03)],
        ),
        show.comparison(compared(graph, other), layers),
    ):
        said = text(content, width)
        assert max(cell_len(line) for line in said.splitlines()) <= width
        assert "".join(said.split()).count("200") >= 1


def test_by_prediction_it_says_what_the_model_takes_images_for() -> None:
    said = text(
        show.attribution_graph(
            GRAPH, LAYERS, by_prediction=True, confusions=[Confusion(1, "goldfish", 4, 0.1)]
        )
    )
    assert "40 images that the model takes for it, rightly for 97.5 % of them." in said
    assert "Some of them are images of: goldfish (4)." in said


def test_without_labels_there_is_no_word_about_accuracy() -> None:
    graph = AttributionGraph(record(top1=None, top5=None), NEURONS, EDGES)
    assert "top-1" not in text(show.attribution_graph(graph, LAYERS))


def test_an_empty_graph_says_why() -> None:
    none = AttributionGraph(record(images=0, top1=None), (), ())
    assert "No image of this class was counted" in text(show.attribution_graph(none, LAYERS))
    empty = AttributionGraph(record(), (), ())
    assert "its graph is empty" in text(show.attribution_graph(empty, LAYERS))


def test_what_needs_care_is_said() -> None:
    changed = record(converged=False, unconnected=("middle",))
    said = text(show.attribution_graph(AttributionGraph(changed, NEURONS, EDGES), LAYERS))
    assert "did not converge" in said
    assert "No neuron of an earlier layer feeds one of these layers: middle." in said
    assert "converge" not in text(show.attribution_graph(GRAPH, LAYERS))


def test_the_legend_explains_every_word_that_is_used() -> None:
    said = text(show.attribution_graph(GRAPH, LAYERS))
    legend = said[said.index("How to read this") :]
    for word in ("layer", "neuron", "active in", "fed by", "matter most"):
        assert re.search(rf"^  {word}  ", legend, re.MULTILINE)
        assert word in said[: said.index("How to read this")]


def test_a_comparison_lists_shared_and_own_neurons_by_layer() -> None:
    other = AttributionGraph(
        record("goldfish", index=8), (member("late", 5, 1, 10), member("early", 3, 2)), ()
    )
    said = text(show.comparison(compared(GRAPH, other), LAYERS))
    assert said.startswith(
        '"tench" and "goldfish" share 1 neuron; 4 matter only for "tench", 1 only'
    )
    body = said[said.index("late\n") :].splitlines()
    assert [line.split(maxsplit=1)[1] for line in body if line.startswith("  both")] == [
        "late/5 (100 % | 25 %)"
    ]
    assert [line for line in body if not line.startswith(" ")] == ["late", "middle", "early"]
    assert body[-1].split() == ["only", "goldfish", "early/3", "(25", "%)"]


def test_a_neuron_says_its_classes_neighbours_and_examples() -> None:
    classes = tuple(
        NeuronInClass(index, f"class {index}", 0.01, index + 1, index == 0, 10, 0.25)
        for index in range(23)
    )
    around = Neighbourhood((edge("early/0", "middle/1", 12),), ())
    examples = [ExampleRecord(1, 4, "tench/4\x1b.jpg", 3.14159, 2, 3)]
    said = text(
        show.neuron(NeuronView("middle/1", "middle", 1, classes), examples, record(), around)
    )
    assert said.startswith("middle/1: in the attribution graph of 1 class, active in images of 23.")
    assert "and 3 more" in said
    assert "fed by  early/0 (12)" in said
    assert "feeds   -" in said
    assert "3.14  tench/4\\x1b.jpg" in said


def test_a_neuron_that_matters_to_no_class() -> None:
    said = text(show.neuron(NeuronView("middle/1", "middle", 1, ()), []))
    assert said == "middle/1: in the attribution graph of 0 classes, active in images of 0."


HEADER: dict[str, Any] = {
    "key": "toy-0",
    "model": {"name": "toy", "spec": "toy.py:toy", "weights": "as built"},
    "dataset": {"name": "made"},
    "identity": {
        "grouping": "label",
        "parameters": {"mass": 0.03, "k": 5, "examples": 10},
    },
    "ranking": {
        "mass": 0.1,
        "damping": 0.85,
        "sources": 3,
        "exclude": ["late/1"],
        "exclude_always_active": True,
    },
}


def test_info_names_model_images_ranking_and_classes() -> None:
    labelled = (*[0] * 9, 39)  # of a class's 40 images, one has no label and is not judged
    classes = tuple(
        record(f"class {index}", index=index, probability=labelled) for index in range(30)
    )
    graphs: Any = SimpleNamespace(classes=(*classes, record("none", images=0)), layers=LAYERS)
    statuses = {"ok": 1198, "truncated": 2}
    said = text(show.info(HEADER, "my.atlas", graphs, statuses))
    assert "my.atlas (toy-0)" in said
    assert "toy (toy.py:toy, weights: as built)" in said
    assert "made: 1,200 images (2 of them left out)" in said
    assert "truncated (2)" in said
    assert "30 with images, of 31" in said
    assert "top-1 97.5 %, top-5 100 % of 1,170 images" in said
    assert "early (4), middle (4), late (8)" in said
    assert (
        "mass 0.1, damping 0.85, 3 indirect sources, without late/1, without always active neurons"
        in " ".join(said.split())
    )
    assert "class 19 " in said
    assert "class 20 " not in said
    assert "and 10 more (--all)" in said
    assert "class 29 " in text(show.info(HEADER, "my.atlas", graphs, statuses, every_class=True))


def test_info_of_an_atlas_that_is_not_ranked() -> None:
    bare = record(neurons=None, edges=None, top1=None, top5=None)
    graphs: Any = SimpleNamespace(classes=(bare,), layers=LAYERS)
    header = {key: value for key, value in HEADER.items() if key != "ranking"}
    said = text(show.info(header, "my.atlas", graphs, {"ok": 40}))
    assert "not ranked yet: summit-graph rank" in said
    assert "left out" not in said
    assert "accuracy" not in said


# What is not known

UNKNOWN = record(images=None, top1=None, top5=None, mass=None, converged=None, unconnected=None)
PARTIAL = AttributionGraph(
    UNKNOWN,
    tuple(replace(neuron, share=None) for neuron in NEURONS),
    tuple(replace(edge, share=None) for edge in EDGES),
)


def test_a_graph_of_which_no_more_is_known_gives_numbers_of_images() -> None:
    said = text(
        show.attribution_graph(PARTIAL, LAYERS, votes=None, similar=None, confusions=None), 120
    )
    lines = said.splitlines()
    assert lines[1] == "How many images it has, and how the model does on them, is not known."
    assert re.search(r'^  "tench" +not known$', said, re.MULTILINE)
    assert re.search(r"^  late/5 +40 +middle/2 \(39\), middle/1 \(30\), early/0 \(3\)$", said, re.M)
    assert re.search(r"^  late/6 +0 +middle/1 \(9\)$", said, re.MULTILINE)
    assert "Nearest classes by activation: not known." in said
    assert "What its images are taken for: not known." in said
    assert "the number of the class's images in which it is among" in said
    assert "%" not in said
    assert "0 images" not in said
    assert "None" not in said


def test_an_empty_graph_of_which_no_more_is_known() -> None:
    said = text(show.attribution_graph(AttributionGraph(UNKNOWN, (), ()), LAYERS))
    assert "The published graph of this class has no neuron." in said
    assert "No image" not in said


def test_classes_without_known_images_are_compared_by_numbers() -> None:
    other = AttributionGraph(replace(UNKNOWN, name="wolf"), PARTIAL.neurons[:2], ())
    said = text(show.comparison(compared(PARTIAL, other), LAYERS), 120)
    assert "In brackets: the number of the class's images in which the neuron is active" in said
    assert "late/5 (40 | 40)" in said
    assert "late/6 (0)" in said
    assert "%" not in said


def test_a_neuron_of_which_no_more_is_known() -> None:
    view = NeuronView("late/5", "late", 5, (NeuronInClass(7, "tench", 1.0, 1, True, 40, None),))
    said = text(show.neuron(view, None, UNKNOWN, Neighbourhood(PARTIAL.edges[:1], ())))
    lines = said.splitlines()
    assert lines[0] == "late/5: in the attribution graph of 1 class."
    assert lines[1] == "What it does for classes whose graph it is not in is not known."
    assert re.search(r"^  tench \(7\) +40 +1  in its graph$", said, re.MULTILINE)
    assert 'For "tench" (in so many of its images)' in said
    assert re.search(r"^  fed by  middle/2 \(39\)$", said, re.MULTILINE)
    assert re.search(r"^  feeds   not known$", said, re.MULTILINE)
    assert lines[-1] == "Images that excite it most: not known."


def test_info_of_a_partial_atlas() -> None:
    graphs: Any = SimpleNamespace(classes=(UNKNOWN,), layers=LAYERS)
    header = {
        "key": "toy-0",
        "model": {"name": "toy", "spec": None, "weights": None},
        "dataset": {"name": "pictures"},
        "identity": {"grouping": None, "parameters": {}},
        "partial": "it lacks everything else",
    }
    said = text(show.info(header, "my.atlas", graphs, None))
    assert re.search(r"^images +pictures: not known which, or how many$", said, re.MULTILINE)
    for row in ("accuracy", "counting", "ranking"):
        assert re.search(rf"^{row} +not known$", said, re.MULTILINE)
    assert re.search(r"^classes +1 with a graph$", said, re.MULTILINE)
    assert re.search(r"^partial +it lacks everything else$", said, re.MULTILINE)
    assert re.search(r"^ +7  tench  not known  not known +5 +5$", said, re.MULTILINE)


def test_an_import_lists_the_files_that_were_left_out() -> None:
    left_out = tuple(LeftOutFile(f"a/ag-{n}.json", "it is not JSON") for n in range(12))
    values: dict[str, Any] = {
        "atlas": Path("my.atlas"),
        "key": "toy-0",
        "already": False,
        "classes": 3,
        "neurons": (4, 7.5, 11),
        "edges": (9, 9.0, 9),
        "influences": 5,
        "left_out": left_out,
    }
    said = text(show.imported(ImportReport(**values)))
    assert said.startswith(
        "my.atlas: 3 attribution graphs of 4 to 11 (mean 7.5) neurons and 9 edges."
    )
    assert "12 files left out:" in said
    assert said.count("it is not JSON") == 10
    assert "and 2 more" in said
    assert "already" not in said
    said = text(show.imported(ImportReport(**{**values, "already": True, "left_out": ()})))
    assert "It was there already, the same; nothing was written." in said
    assert "left out" not in said


RANKED = RankReport(3, 3, (), (), {}, {}, (), (4, 7.5, 11), (9, 9.0, 9))


def test_a_ranking_says_sizes_and_nothing_more_where_all_is_well() -> None:
    assert text(show.ranked(RANKED)) == (
        "3 attribution graphs of 4 to 11 (mean 7.5) neurons and 9 edges."
    )


def test_a_ranking_says_what_needs_a_look() -> None:
    report = RankReport(
        15,
        2,
        tuple(f"class {n}" for n in range(13)),
        ("wolf",),
        {"wolf": ("late",), "tench": ("late", "middle")},
        {"early": ("tench",), "late": ("tench", "wolf")},
        ("early/0",),
        (4, 7.5, 11),
        (9, 10.0, 12),
    )
    said = " ".join(text(show.ranked(report)).split())
    assert "Without a graph: class 0, class 1," in said
    assert "class 9 and 3 more." in said
    assert "Not converged: wolf." in said
    assert "late, middle in 2 classes: wolf, tench." in said
    assert "Not in the embedding of early, late, where no neuron is active" in said
    assert "for them: tench, wolf." in said
    assert "Active nearly always: early/0." in said


def test_an_ingest_lists_what_was_left_out() -> None:
    left_out = tuple(LeftOut(f"a/{n}.png", "truncated") for n in range(12))
    report = IngestReport(
        Path("my.atlas"), "toy-0", "toy", 100, 80, 50, 8, left_out, 2, 0.5, 0.75, 3, 2.0, 25.0, (),
        RANKED,
    )  # fmt: skip
    said = text(show.ingested(report))
    assert said.startswith("my.atlas: 100 images (50 new), 80 of them in 3 classes.")
    assert "right for 50.0 % of the labelled images (top-1)" in " ".join(said.split())
    assert "8 images belong to no class and count nowhere." in said
    assert "2 files among them: no images, passed over." in said
    assert "12 images left out:" in said
    assert said.count("truncated  a/") == 10
    assert "and 2 more" in said


def network() -> Any:
    layers = (
        SimpleNamespace(name="early", channels=4, height=8, width=8, chosen=True),
        SimpleNamespace(name="early/add", channels=4, height=8, width=8, chosen=False),
        SimpleNamespace(name="late", channels=8, height=2, width=2, chosen=True),
    )
    hops = (
        SimpleNamespace(source=0, target=1, mixers=("conv.a", "conv.b")),
        SimpleNamespace(source=1, target=2, mixers=()),
    )
    return SimpleNamespace(
        layers=layers, chosen=(layers[0], layers[2]), hops=hops, outputs=10, shape=(3, 16, 16)
    )


def test_layers_lists_shapes_hidden_layers_and_hops() -> None:
    said = text(show.layers(network(), "toy", None))
    assert said.startswith(
        "toy: 2 chosen layers with 12 neurons, 1 hidden layer, 2 hops, 10 outputs."
    )
    assert "3 × 16 × 16" in said
    assert re.search(r"^early/add +4 × 8 × 8 +hidden$", said, re.MULTILINE)
    assert re.search(r"^late +8 × 2 × 2$", said, re.MULTILINE)
    assert re.search(r"^early +→ +early/add +conv.a, conv.b$", said, re.MULTILINE)
    assert re.search(r"^early/add +→ +late +nothing: passed on", said, re.MULTILINE)
    assert "--layers" not in said


def test_layers_can_list_everything_that_can_be_chosen() -> None:
    choices: Any = [
        SimpleNamespace(name=name, channels=4, height=8, width=8) for name in ("early", "conv.a")
    ]
    said = text(show.layers(network(), "toy", choices))
    assert re.search(r"^early +4 × 8 × 8 +chosen$", said, re.MULTILINE)
    assert re.search(r"^conv.a +4 × 8 × 8$", said, re.MULTILINE)


def test_a_trace_that_is_right_or_wrong() -> None:
    good = [Completeness("late", 1e-7, 1.0, 8, 0)], [Source("early", 4, 4, 0)]
    said = text(show.trace_check(*good))
    assert said.startswith("The trace is right")
    assert re.search(r"^early +- +yes \(0 strays\)$", said, re.MULTILINE)
    assert re.search(r"^late +yes \(error 1\.0e-07\) +-$", said, re.MULTILINE)
    bad = [Completeness("late", 0.5, 1.0, 8, 2)], [Source("late", 4, 4, 1)]
    said = text(show.trace_check(*bad))
    assert said.startswith("The trace is wrong in 2 places.")
    assert re.search(
        r"^late +NO \(error 5\.0e-01, 2 channels not defined\) +NO \(1 stray\)$", said, re.M
    )
