"""The commands: they parse, call, and print; what they do is in the other modules.

Results go to standard output, progress, warnings and errors to standard error. Wrong use ends with
exit code 2, a failure with 1, an interruption with 130. Nothing heavy is imported before a command
runs, so that `--help` is there at once. The commands for Neo4j are in `cli_neo4j.py`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import summit_graph
from summit_graph import cli_neo4j, cli_pictures, options
from summit_graph.console import WIDEST, Command, Commands, print_json, print_text
from summit_graph.errors import AtlasError, SummitGraphError, UsageError

if TYPE_CHECKING:
    from summit_graph.atlas.atlas import Atlas
    from summit_graph.network.check import Completeness, Source
    from summit_graph.network.trace import Choice, Network
    from summit_graph.progress import LineProgress
    from summit_graph.rank.stage import Ranking

    _Tests = dict[str, tuple[Completeness | Source, ...]]

DEMO_MODEL = "summit_graph.network.digits:digits_cnn"
DEMO_ATLAS = Path("digits.atlas")
DEMO_CLASS = "three"


def _progress_with_torch() -> LineProgress:
    """Where the work reports itself; its first stage is what every such command begins with."""
    from summit_graph.progress import LineProgress

    progress = LineProgress()
    with progress.stage("loading PyTorch", None, "module"):
        import summit_graph.pipeline  # noqa: F401
    return progress


# The atlas and its parameters


def _ranking(
    mass: float,
    damping: float,
    sources: int | None,
    exclude: list[str] | None,
    exclude_always_active: bool,
) -> Ranking:
    from summit_graph.rank.stage import Ranking

    return Ranking(mass, damping, sources, tuple(exclude or ()), exclude_always_active)


def _opened(*named: Path | None) -> Atlas:
    folder = options.atlas_folder(*named)
    from summit_graph.atlas.atlas import Atlas

    return Atlas.open(folder)


# The commands

app = typer.Typer(
    cls=Commands,
    name="summit-graph",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
    epilog="Start with: summit-graph demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"summit-graph {summit_graph.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Where an error ends a command, print its traceback.")
    ] = False,
) -> None:
    """Which neurons does a network use for a class, and how do they feed each other?

    Reads images through an image classifier, counts what every neuron does for every class, and
    draws each class's attribution graph from it. The counts and graphs are kept in a folder, the
    atlas.
    """


@app.command(cls=Command)
def demo(atlas: options.DemoAtlas = DEMO_ATLAS, as_json: options.AsJson = False) -> None:
    """Show it all in half a minute, on a small network for digits.

    The network, which reads handwritten digits, and the images come with summit-graph. In the end
    there is an atlas, and a page to open.
    """
    place = next(path for path in (atlas, *atlas.absolute().parents) if path.exists())
    if not os.access(place, os.W_OK):
        raise AtlasError(
            f"{place.absolute()} cannot be written to. Keep the demo's atlas elsewhere: "
            "summit-graph demo --atlas DIR."
        )
    if not as_json:
        print_text(
            "A small network that reads handwritten digits, and 899 digits that it has not seen "
            "yet, both part of summit-graph. Every image passes the network once; what is counted "
            "is which neurons respond, and which ones excite which.",
            "",
        )
    progress = _progress_with_torch()
    from summit_graph import pipeline, visualisation

    report = pipeline.ingest(model=DEMO_MODEL, images="digits", atlas=atlas, progress=progress)
    features = visualisation.visualise(atlas, progress=progress)
    with _opened(atlas) as opened:
        pages = cli_pictures.pages(opened, cli_pictures.pages_folder(atlas))
        if as_json:
            document = {"ingest": asdict(report), "graph": _graph_json(opened, DEMO_CLASS)}
            print_json({**document, "features": asdict(features), "pages": asdict(pages)})
            return
    from summit_graph import show as texts

    print_text("", texts.ingested(report), "")
    _show_class(atlas, DEMO_CLASS, None)
    folder = shlex.quote(str(atlas))
    print_text(
        "",
        "To look at it, open this file in a browser:",
        *texts.commands(texts.plain(str(pages.index))),
        "",
        "Try next:",
        *texts.commands(
            f"summit-graph view {folder} --serve",
            f"summit-graph show eight --atlas {folder}",
            f"summit-graph show three --compare eight --atlas {folder}",
            f"summit-graph neuron conv3/22 --class three --atlas {folder}",
            f"summit-graph rank {folder} --mass 0.5",
            f"summit-graph export three --format dot --atlas {folder}",
        ),
        "in a graph database (pip install 'summit-graph[neo4j]'):",
        *texts.commands("summit-graph db up", f"summit-graph load {folder}"),
        "and with a network and images of your own:",
        *texts.commands(
            "summit-graph layers --model torchvision:resnet50",
            "summit-graph ingest PHOTOS -o photos.atlas \\",
            "    --model torchvision:resnet50 --weights DEFAULT",
        ),
    )


@app.command(cls=Command)
def ingest(
    images: options.Images,
    model: options.Model,
    atlas: options.AtlasToMake,
    weights: options.Weights = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    layers: options.Layers = None,
    classes_file: options.ClassesFile = None,
    group_by: options.GroupBy = "label",
    activation_mass: options.ActivationMass = 0.03,
    top_sources: options.TopSources = 5,
    examples: options.Examples = 10,
    per_class_examples: options.PerClassExamples = False,
    thumbnails: options.Thumbnails = None,
    strict: options.Strict = False,
    name: options.Name = None,
    mass: options.Mass = 0.075,
    damping: options.Damping = 0.85,
    sources: options.Sources = None,
    exclude: options.Exclude = None,
    exclude_always_active: options.ExcludeAlwaysActive = False,
    embedding: options.Embedding = True,
    device: options.Device = "auto",
    batch_size: options.BatchSize = 16,
    shard_size: options.ShardSize = 512,
    memory: options.Memory = None,
    tf32: options.TF32 = False,
    compact: options.Compact = False,
    workers: options.Workers = None,
    neo4j: options.ToNeo4j = False,
    uri: options.Uri = None,
    user: options.User = None,
    database: options.Database = None,
    home: options.LocalHome = None,
    as_json: options.AsJson = False,
) -> None:
    """Count images, rank every class: make an atlas or add to it.

    Every image passes the model once. A run that was cut off goes on where it stopped when the same
    command is given again.
    """
    size, budget = options.image_size(image_size), options.size_in_bytes(memory)
    means, stds = options.numbers("--mean", mean), options.numbers("--std", std)
    if neo4j:
        cli_neo4j.check_reached(uri, user, database, home)
    progress = _progress_with_torch()
    from summit_graph import pipeline

    report = pipeline.ingest(
        model=model,
        images=images,
        atlas=atlas,
        weights=weights,
        image_size=size,
        mean=means,
        std=stds,
        classes_file=classes_file,
        group_by=group_by,
        layers=options.patterns(layers),
        activation_mass=activation_mass,
        top_sources=top_sources,
        examples=examples,
        per_class_examples=per_class_examples,
        batch_size=batch_size,
        shard_size=shard_size,
        device=device,
        memory=budget,
        tf32=tf32,
        thumbnails=thumbnails,
        strict=strict,
        name=name,
        compact_shards=compact,
        ranking=_ranking(mass, damping, sources, exclude, exclude_always_active),
        embedding=embedding,
        workers=workers,
        progress=progress,
    )
    loaded = None
    if neo4j:
        loaded = cli_neo4j.load_over_bolt(atlas, uri=uri, user=user, database=database, home=home)
    if as_json:
        print_json({**asdict(report), **({"neo4j": asdict(loaded)} if loaded is not None else {})})
        return
    from summit_graph import show as texts

    folder = shlex.quote(str(atlas))
    following = (f"summit-graph info {folder}", f"summit-graph show CLASS --atlas {folder}")
    print_text(texts.ingested(report), "", "Next:", *texts.commands(*following))
    if loaded is not None:
        print_text("")
        cli_neo4j.print_loaded(loaded, uri, home)


@app.command(name="import-summit", cls=Command)
def import_summit(
    folder: options.PublishedFolder,
    atlas: options.ImportedAtlas,
    classes_file: options.ImportedClasses = None,
    strict: options.StrictImport = False,
    name: options.ImportedName = None,
    as_json: options.AsJson = False,
) -> None:
    """Make an atlas of the Summit authors' published graphs.

    They are attribution graphs of InceptionV1 on ImageNet. The atlas can be read and loaded;
    images, accuracy and all else that is not in the graphs is not known.
    """
    from summit_graph.atlas import summit
    from summit_graph.progress import LineProgress

    progress = LineProgress()
    files = summit.published_files(folder)
    with progress.stage("reading the graphs", len(files), "file") as stage:
        report = summit.import_summit(
            folder,
            atlas,
            classes_file=classes_file,
            strict=strict,
            name=name,
            version=summit_graph.__version__,
            warn=progress.warn,
            advance=stage.advance,
        )
    if as_json:
        print_json(asdict(report))
        return
    from summit_graph import show as texts

    place = shlex.quote(str(atlas))
    following = (f"summit-graph info {place}", f"summit-graph show CLASS --atlas {place}")
    print_text(texts.imported(report), "", "Next:", *texts.commands(*following))


@app.command(cls=Command)
def layers(
    model: options.Model,
    weights: options.Weights = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    chosen: options.Layers = None,
    every: options.AllChoices = False,
    check: options.Check = False,
    as_json: options.AsJson = False,
) -> None:
    """List a model's layers, their shapes, the hops between them.

    Layers that are not chosen but lie between chosen ones are hidden. No image is needed.
    """
    size = options.image_size(image_size)
    means, stds = options.numbers("--mean", mean), options.numbers("--std", std)
    progress = _progress_with_torch()
    import torch

    from summit_graph.network import check as checks
    from summit_graph.network.loading import load_model
    from summit_graph.network.trace import trace

    with progress.stage("tracing the model", None, "layer"):
        loaded = load_model(model, weights, size, means, stds)
        shape = loaded.preprocessing.shape
        network = trace(loaded.module, shape, options.patterns(chosen))
        everything = network.choices if every else None
    tests: _Tests = {}
    if check:
        with progress.stage("checking the trace", None, "layer"):
            images = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
            tests["completeness"] = checks.completeness(network, images)
            tests["source"] = checks.source(network, images[:1])
    if as_json:
        print_json(_network_json(network, loaded.name, everything, tests))
    else:
        from summit_graph import show as texts

        print_text(texts.layers(network, loaded.name, everything))
        if check:
            print_text("", texts.trace_check(tests["completeness"], tests["source"]))
    if not all(test.holds for found in tests.values() for test in found):
        raise SummitGraphError(
            f"the trace of {loaded.name} is wrong, so its graphs would be, too. Please report it, "
            "with the model."
        )


def _network_json(
    network: Network, name: str, everything: Sequence[Choice] | None, tests: _Tests
) -> dict[str, Any]:
    names = [layer.name for layer in network.layers]
    document: dict[str, Any] = {
        "model": name,
        "shape": network.shape,
        "outputs": network.outputs,
        "layers": [asdict(layer) for layer in network.layers],
        "hops": [
            {**asdict(hop), "source": names[hop.source], "target": names[hop.target]}
            for hop in network.hops
        ],
    }
    if everything is not None:
        document["choices"] = [asdict(choice) for choice in everything]
    for key, found in tests.items():
        document[key] = [{**asdict(test), "holds": test.holds} for test in found]
    return document


@app.command(cls=Command)
def rank(
    atlas: options.AtlasPlace = None,
    named: options.Atlas = None,
    mass: options.Mass = 0.075,
    damping: options.Damping = 0.85,
    sources: options.Sources = None,
    exclude: options.Exclude = None,
    exclude_always_active: options.ExcludeAlwaysActive = False,
    embedding: options.Embedding = True,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
) -> None:
    """Rank an atlas again, with other parameters.

    The images are not needed: their counts are in the atlas.
    """
    folder = options.atlas_folder(atlas, named)
    from summit_graph import reranking
    from summit_graph.progress import LineProgress

    report = reranking.rerank(
        folder,
        _ranking(mass, damping, sources, exclude, exclude_always_active),
        embedding=embedding,
        workers=workers,
        progress=LineProgress(),
    )
    if as_json:
        print_json(asdict(report))
        return
    from summit_graph import show as texts

    print_text(texts.ranked(report))


@app.command(cls=Command)
def merge(
    atlases: options.Atlases,
    output: options.MergedAtlas,
    allow_duplicates: options.AllowDuplicates = False,
    embedding: options.Embedding = True,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
) -> None:
    """Add up atlases of one model, counted alike, into a new one."""
    if len(atlases) < 2:
        raise UsageError("merging takes two atlases or more; one was given.")
    from summit_graph import reranking
    from summit_graph.progress import LineProgress

    report = reranking.merge(
        atlases,
        output,
        allow_duplicates=allow_duplicates,
        embedding=embedding,
        workers=workers,
        progress=LineProgress(),
    )
    if as_json:
        print_json(asdict(report))
        return
    from summit_graph import show as texts

    following = texts.commands(f"summit-graph info {shlex.quote(str(output))}")
    print_text(texts.ranked(report), "", "Next:", *following)


@app.command(cls=Command)
def info(
    atlas: options.AtlasPlace = None,
    named: options.Atlas = None,
    every: options.AllClasses = False,
    as_json: options.AsJson = False,
) -> None:
    """Say what an atlas holds: model, images, layers, classes."""
    with _opened(atlas, named) as opened:
        statuses = None
        if not opened.partial:
            column = opened.generation.table("images", columns=["status"]).column("status")
            statuses = dict(Counter(column.to_pylist()).most_common())
        if as_json:
            classes = [asdict(record) for record in opened.classes]
            print_json(
                {"path": opened.path, **opened.info(), "images": statuses, "classes": classes}
            )
            return
        from summit_graph import show as texts

        print_text(texts.info(opened.info(), str(opened.path), opened, statuses, every))


@app.command(cls=Command)
def show(
    name: options.ClassName,
    atlas: options.Atlas = None,
    neurons: options.Neurons = None,
    compare: options.Compare = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a class's attribution graph, or compare two of them."""
    if compare is not None:
        with _opened(atlas) as opened:
            found = opened.compare(name, compare)
            if as_json:
                print_json(asdict(found))
                return
            from summit_graph import show as texts

            print_text(texts.comparison(found, opened.layers))
    elif as_json:
        with _opened(atlas) as opened:
            print_json(_graph_json(opened, name))
    else:
        _show_class(atlas, name, neurons)


def _show_class(atlas: Path | None, name: str, limit: int | None) -> None:
    from summit_graph import show as texts

    with _opened(atlas) as opened:
        graph = opened.attribution_graph(name)
        index = graph.record.index
        print_text(
            texts.attribution_graph(
                graph,
                opened.layers,
                votes=None if opened.partial else opened.votes(index),
                similar=None if opened.partial else opened.similar(index, limit=3),
                confusions=None if opened.partial else opened.confusions(index),
                by_prediction=opened.generation.identity["grouping"] == "prediction",
                limit=limit,
            )
        )


def _graph_json(opened: Atlas, name: str) -> dict[str, Any]:
    from summit_graph.atlas.interface import summary

    graph = opened.attribution_graph(name)
    index = graph.record.index
    if opened.partial:
        return {**summary(graph), "votes": None, "similar": None, "confusions": None}
    return {
        **summary(graph),
        "votes": [asdict(vote) for vote in opened.votes(index)],
        "similar": [asdict(other) for other in opened.similar(index)],
        "confusions": [asdict(other) for other in opened.confusions(index)],
    }


@app.command(cls=Command)
def neuron(
    name: options.NeuronName,
    class_name: options.ForClass = None,
    atlas: options.Atlas = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the classes a neuron matters to, and what excites it."""
    with _opened(atlas) as opened:
        view = opened.neuron(name)
        examples = None if opened.partial else opened.examples(name)
        record = None if class_name is None else opened.find(class_name)
        around = None if record is None else opened.neighbours(name, record.index)
        if as_json:
            document: dict[str, Any] = asdict(view)
            document["examples"] = (
                None if examples is None else [asdict(example) for example in examples]
            )
            if record is not None and around is not None:
                document["neighbours"] = {"class": asdict(record), **asdict(around)}
            print_json(document)
            return
        from summit_graph import show as texts

        print_text(texts.neuron(view, examples, record, around))


@app.command(cls=Command)
def export(
    name: options.ClassName,
    atlas: options.Atlas = None,
    form: options.ExportFormat = None,
    output: options.ExportFile = None,
) -> None:
    """Write a class's attribution graph for another program."""
    ending = output.suffix.lower()[1:] if output is not None else ""
    known = options.Format.__members__
    chosen = form or known.get(ending, options.Format.json)
    with _opened(atlas) as opened:
        from summit_graph.atlas.export import export as exported

        graph = opened.attribution_graph(name)
        content = exported(graph, chosen.value).encode("utf-8", "backslashreplace")
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    output.write_bytes(content)
    typer.echo(
        f"{output}: {len(graph.neurons)} neurons and {len(graph.edges)} edges of "
        f"{graph.record.name!r}, as {chosen.value}.",
        err=True,
    )


app.command(cls=Command)(cli_pictures.features)
app.command(cls=Command)(cli_pictures.view)
app.add_typer(cli_neo4j.db, name="db")
app.command(cls=Command)(cli_neo4j.load)
app.command(cls=Command)(cli_neo4j.unload)
app.command(cls=Command)(cli_neo4j.query)


def main() -> None:
    """Run the command line; `--debug` may stand anywhere in it."""
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:end]:
        arguments.remove("--debug")
        arguments.insert(0, "--debug")
    app(args=arguments, prog_name="summit-graph")
