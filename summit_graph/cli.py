"""The commands: they parse, call, and print; what they do is in the other modules.

Results go to standard output, progress, warnings and errors to standard error. Wrong use ends with
exit code 2, a failure with 1, an interruption with 130. Nothing heavy is imported before a command
runs, so that `--help` is there at once.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import traceback
from collections import Counter
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import summit_graph
from summit_graph.errors import SummitGraphError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from summit_graph.atlas.atlas import Atlas
    from summit_graph.network.loading import LoadedModel
    from summit_graph.pipeline import Ranking
    from summit_graph.progress import LineProgress

ATLAS_VARIABLE = "SUMMIT_GRAPH_ATLAS"
DEMO_MODEL = "summit_graph.network.digits:digits_cnn"
DEMO_ATLAS = Path("digits.atlas")
DEMO_CLASS = "three"

_WIDEST = 100
_INTERRUPTED = 130
_RESUMABLE = ("ingest", "demo")
_ASCII = {"█": "#", "░": ".", "→": "->", "×": "x", "…": "..."}
_BYTES = {
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_LEAST_MEMORY = 64 * 2**20


class Format(str, Enum):
    """What `export` writes; as `atlas.export.FORMATS`."""

    json = "json"
    csv = "csv"
    graphml = "graphml"
    gexf = "gexf"
    dot = "dot"


# How a command ends, and how it is explained


class Commands(TyperGroup):
    """The commands, with the one place where errors become messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _let_go_of_output()
            raise typer.Exit(1) from None
        except (Exception, KeyboardInterrupt) as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            code, message = _told(error, ctx.invoked_subcommand)
            typer.echo(f"Error: {message}", err=True)
            raise typer.Exit(code) from None
        return result


class Command(TyperCommand):
    """A command whose help lists its options in groups."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line's parts, required arguments without braces."""
        return [
            piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and ungrouped options first, then each group under a head of its own."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                argument = param.param_type_name == "argument"
                head = getattr(param, "rich_help_panel", None) or "Options"
                groups.setdefault("Arguments" if argument else head, []).append(record)
        for head, records in groups.items():
            if records:
                with formatter.section(head):
                    formatter.write_dl(records)


def _told(error: BaseException, command: str | None) -> tuple[int, str]:
    """Exit code and message of what ended a command."""
    if isinstance(error, SummitGraphError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        kept = "Finished shards are kept: the same command goes on from there."
        return _INTERRUPTED, f"stopped. {kept}" if command in _RESUMABLE else "stopped."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 1, "the memory is used up. Try a smaller --batch-size, --memory or --workers."
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return 1, f"{error.strerror}{place}. Check the path, its permissions and the free space."
    name, text = type(error).__name__, str(error).strip().partition("\n")[0]
    return 1, (
        f"{name}{f': {text}' if text else ''}. This was not foreseen; to see where it happened, "
        "run the same command again with --debug."
    )


def _let_go_of_output() -> None:
    """Nobody reads standard output any more: what is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# What is printed


def _print(*parts: RenderableType) -> None:
    """Rich renderables to standard output: with colours on a terminal, else as plain text."""
    from rich.console import Console, Group

    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(Group(*parts), width=min(console.width, _WIDEST))
    text = captured.get().replace("\N{NO-BREAK SPACE}", " ")
    if not console.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("summit-graph", _in_ascii)
        sys.stdout.reconfigure(errors="summit-graph")
    sys.stdout.write(text)
    sys.stdout.flush()


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What an output that is not UTF-8 gets in place of a character that it does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(
        _ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        for letter in letters
    ), error.end


def _print_json(document: Any) -> None:
    """One JSON document, in ASCII, to standard output."""
    text = json.dumps(document, indent=2, allow_nan=False, default=os.fspath)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _progress() -> LineProgress:
    from summit_graph.progress import LineProgress

    return LineProgress()


# Options that several commands have


def _share(value: float) -> float:
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{value:g} is not in the range above 0 and up to 1.")
    return value


def _damping(value: float) -> float:
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{value:g} is not in the range from 0 to below 1.")
    return value


_MODEL, _COUNTING, _RANKING, _RUNNING = "Model", "Counting", "Ranking", "Running"

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="SPEC",
        rich_help_panel=_MODEL,
        help="torchvision:NAME, timm:NAME, module:callable or file.py:callable.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|NAME",
        rich_help_panel=_MODEL,
        help="A state dict (.pt, .pth, .safetensors), or weights that the library knows: DEFAULT.",
        show_default="random, or as the callable builds it",
    ),
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="PIXELS|HxW",
        rich_help_panel=_MODEL,
        help="Size of the image that the model gets.",
        show_default="what the weights were trained with",
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="A,B,C",
        rich_help_panel=_MODEL,
        help="Mean of each channel, for values from 0 to 1.",
        show_default="what the weights were trained with",
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="A,B,C",
        rich_help_panel=_MODEL,
        help="Standard deviation of each channel.",
        show_default="what the weights were trained with",
    ),
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="NAMES",
        rich_help_panel=_MODEL,
        help="Layers whose channels are the neurons: names or globs, separated by commas; may be "
        "given several times.",
        show_default="the network's blocks",
    ),
]
MassOption = Annotated[
    float,
    typer.Option(
        "--mass",
        metavar="SHARE",
        rich_help_panel=_RANKING,
        callback=_share,
        help="Share of the PageRank that a class's graph holds: the more, the larger the graph.",
    ),
]
DampingOption = Annotated[
    float,
    typer.Option(
        "--damping",
        metavar="SHARE",
        rich_help_panel=_RANKING,
        callback=_damping,
        help="PageRank's damping: the more, the more the edges count against the activations.",
    ),
]
SourcesOption = Annotated[
    int | None,
    typer.Option(
        "--sources",
        metavar="N",
        min=0,
        rich_help_panel=_RANKING,
        help="Indirect sources kept of each neuron.",
        show_default="the mean number of its layer's direct ones",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="NEURON",
        rich_help_panel=_RANKING,
        help="A neuron to leave out, layer/channel or a glob; may be given several times.",
    ),
]
ExcludeAlwaysActiveOption = Annotated[
    bool,
    typer.Option(
        "--exclude-always-active",
        rich_help_panel=_RANKING,
        help="Leave out the neurons that are active in nearly all images of nearly all classes.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        rich_help_panel=_RUNNING,
        help="Threads that read images, and processes that rank.",
        show_default="one a processor",
    ),
]
AtlasOption = Annotated[
    Path | None,
    typer.Option(
        "--atlas",
        metavar="DIR",
        envvar=ATLAS_VARIABLE,
        help="The atlas.",
        show_default="the only one in this folder",
    ),
]
AtlasArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="ATLAS",
        help="The atlas's folder.",
        show_default="as --atlas",
    ),
]
ClassArgument = Annotated[
    str,
    typer.Argument(
        metavar="CLASS", help="A class: its name, a part of it, its index or its synset."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, for a program to read.")
]


def _image_size(text: str | None) -> int | tuple[int, int] | None:
    """`224`, or `HEIGHTxWIDTH`."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise UsageError(
            f"--image-size is {text!r}; it has to be a number of pixels, 224, or HEIGHTxWIDTH, "
            "240x320."
        )
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} is {text!r}; it has to be a number for each channel, separated by commas: "
            "0.485,0.456,0.406."
        ) from None


def _bytes(text: str | None) -> int | None:
    """A size with its unit: `4GB`, `512MiB`, `1.5 GB`."""
    if text is None:
        return None
    number = text.strip().rstrip("BbIiKkMmGgTt").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = int(float(number) * _BYTES[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(
            f"--memory is {text!r}; it has to be a number with its unit: 4GB, 512MB or 1.5GiB."
        ) from None
    if size < _LEAST_MEMORY:
        raise UsageError(f"--memory is {text!r}; it must be at least 64MiB.")
    return size


def _patterns(given: list[str] | None) -> list[str] | None:
    """Layers' names from one or several options."""
    if not given:
        return None
    return [part.strip() for text in given for part in text.split(",") if part.strip()]


def _ranking(
    mass: float,
    damping: float,
    sources: int | None,
    exclude: list[str] | None,
    exclude_always_active: bool,
) -> Ranking:
    from summit_graph.pipeline import Ranking

    return Ranking(mass, damping, sources, tuple(exclude or ()), exclude_always_active)


def _atlas_folder(*named: Path | None) -> Path:
    """The first folder that was named, else the only atlas here."""
    for path in named:
        if path is not None:
            return path
    from summit_graph.atlas.generation import locate
    from summit_graph.errors import AtlasError

    found = []
    for folder in (Path(), *sorted(path for path in Path().iterdir() if path.is_dir())):
        try:
            locate(folder)
        except AtlasError:
            continue
        found.append(folder)
    if len(found) == 1:
        return found[0]
    how = f"Name one with --atlas DIR, or in the variable {ATLAS_VARIABLE}"
    if found:
        names = ", ".join(str(folder) for folder in found)
        raise UsageError(f"there are {len(found)} atlases here: {names}. {how}.")
    raise UsageError(
        f"there is no atlas here. {how}; `summit-graph ingest` makes one, `summit-graph demo` a "
        "small one in a few seconds."
    )


def _opened(*named: Path | None) -> Atlas:
    folder = _atlas_folder(*named)
    from summit_graph.atlas.atlas import Atlas

    return Atlas.open(folder)


# The commands

app = typer.Typer(
    cls=Commands,
    name="summit-graph",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
    epilog="Start with: summit-graph demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"summit-graph {summit_graph.__version__}")
        raise typer.Exit


@app.callback()
def options(
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
def demo(
    atlas: Annotated[
        Path, typer.Option("--atlas", "-o", metavar="DIR", help="Where its atlas is kept.")
    ] = DEMO_ATLAS,
    as_json: JsonOption = False,
) -> None:
    """Show it all in a few seconds, on a small network for digits.

    The network, which reads handwritten digits, and the images come with summit-graph.
    """
    progress = _progress()
    if not as_json:
        _print(
            "A small network that reads handwritten digits, and 899 digits that it has not seen "
            "yet, both part of summit-graph. Every image passes the network once; what is counted "
            "is which neurons respond, and which ones excite which.",
            "",
        )
    with progress.stage("loading PyTorch", None, "module"):
        from summit_graph import pipeline
    report = pipeline.ingest(model=DEMO_MODEL, images="digits", atlas=atlas, progress=progress)
    if as_json:
        with _opened(atlas) as opened:
            _print_json({"ingest": asdict(report), "graph": _graph_json(opened, DEMO_CLASS)})
        return
    from summit_graph import show as texts

    _print("", texts.ingested(report), "")
    _show_class(atlas, DEMO_CLASS, None)
    folder = _quoted(atlas)
    _print(
        "",
        "Try next:",
        *texts.commands(
            f"summit-graph show eight --atlas {folder}",
            f"summit-graph show three --compare eight --atlas {folder}",
            f"summit-graph neuron conv3/22 --class three --atlas {folder}",
            f"summit-graph rank {folder} --mass 0.5",
            f"summit-graph export three --format dot --atlas {folder}",
        ),
        "and with a network and images of your own:",
        *texts.commands(
            "summit-graph layers --model torchvision:resnet50",
            "summit-graph ingest PHOTOS -o photos.atlas \\",
            "    --model torchvision:resnet50 --weights DEFAULT",
        ),
    )


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


@app.command(cls=Command)
def ingest(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            help="A folder, a manifest (.csv, .parquet), a data set (module:attribute or "
            "file.py:attribute), or 'digits'.",
        ),
    ],
    model: ModelOption,
    atlas: Annotated[
        Path,
        typer.Option(
            "--atlas",
            "-o",
            metavar="DIR",
            envvar=ATLAS_VARIABLE,
            help="The atlas's folder; if it is there, images that are new to it are added.",
        ),
    ],
    as_json: JsonOption = False,
    weights: WeightsOption = None,
    image_size: ImageSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layers: LayersOption = None,
    classes_file: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            rich_help_panel=_COUNTING,
            help="Names (and synsets) of the model's outputs.",
            show_default="those of the weights",
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by",
            metavar="label|prediction|FILE",
            rich_help_panel=_COUNTING,
            help="What an image's class is: its label, what the model takes it for, or groups of "
            "outputs from a file.",
        ),
    ] = "label",
    activation_mass: Annotated[
        float,
        typer.Option(
            "--activation-mass",
            metavar="SHARE",
            rich_help_panel=_COUNTING,
            callback=_share,
            help="Active are the neurons that hold this share of a layer's activation.",
        ),
    ] = 0.03,
    top_sources: Annotated[
        int,
        typer.Option(
            "--top-sources",
            metavar="N",
            min=1,
            rich_help_panel=_COUNTING,
            help="How many sources of a neuron are counted in each image.",
        ),
    ] = 5,
    examples: Annotated[
        int,
        typer.Option(
            "--examples",
            metavar="N",
            min=0,
            rich_help_panel=_COUNTING,
            help="How many images that excite it most are kept for each neuron.",
        ),
    ] = 10,
    per_class_examples: Annotated[
        bool,
        typer.Option(
            "--per-class-examples",
            rich_help_panel=_COUNTING,
            help="Keep them for each class, too.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=_COUNTING,
            help="Stop at the first image that cannot be read; else it is left out and reported.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="KEY",
            rich_help_panel=_COUNTING,
            help="The atlas's key.",
            show_default="the model's name and a hash of what is counted",
        ),
    ] = None,
    mass: MassOption = 0.075,
    damping: DampingOption = 0.85,
    sources: SourcesOption = None,
    exclude: ExcludeOption = None,
    exclude_always_active: ExcludeAlwaysActiveOption = False,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="auto|cpu|cuda|mps",
            rich_help_panel=_RUNNING,
            help="Where the model runs; cuda:1 for the second GPU.",
        ),
    ] = "auto",
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=1,
            rich_help_panel=_RUNNING,
            help="Images in one forward pass.",
        ),
    ] = 16,
    shard_size: Annotated[
        int,
        typer.Option(
            "--shard-size",
            metavar="N",
            min=1,
            rich_help_panel=_RUNNING,
            help="Images after which the counts are saved.",
        ),
    ] = 512,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            rich_help_panel=_RUNNING,
            help="What temporary tensors and tables may take: 4GB, 512MB.",
            show_default="a quarter of what is free",
        ),
    ] = None,
    tf32: Annotated[
        bool,
        typer.Option(
            "--tf32",
            rich_help_panel=_RUNNING,
            help="Let a GPU round to TF32: faster, and close decisions may differ.",
        ),
    ] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            rich_help_panel=_RUNNING,
            help="At the end, fold the saved counts into one part.",
        ),
    ] = False,
    workers: WorkersOption = None,
) -> None:
    """Count images and rank every class: make an atlas, or add to it.

    Every image passes the model once. A run that was cut off goes on where it stopped when the same command is given again.
    """
    size, means, stds = _image_size(image_size), _numbers("--mean", mean), _numbers("--std", std)
    budget = _bytes(memory)
    progress = _progress()
    with progress.stage("loading PyTorch", None, "module"):
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
        layers=_patterns(layers),
        activation_mass=activation_mass,
        top_sources=top_sources,
        examples=examples,
        per_class_examples=per_class_examples,
        batch_size=batch_size,
        shard_size=shard_size,
        device=device,
        memory=budget,
        tf32=tf32,
        strict=strict,
        name=name,
        compact_shards=compact,
        ranking=_ranking(mass, damping, sources, exclude, exclude_always_active),
        workers=workers,
        progress=progress,
    )
    if as_json:
        _print_json(asdict(report))
        return
    from summit_graph import show as texts

    folder = _quoted(atlas)
    _print(
        texts.ingested(report),
        "",
        "Next:",
        *texts.commands(f"summit-graph info {folder}", f"summit-graph show CLASS --atlas {folder}"),
    )


@app.command(cls=Command)
def layers(
    model: ModelOption,
    weights: WeightsOption = None,
    image_size: ImageSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    patterns: LayersOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="List everything that --layers can name, too.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Test on two random images that each layer is the sum of its terms, and that "
            "neurons reach only what they are traced to.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List a model's layers, their shapes, and the hops between them.

    Layers that are not chosen but lie between chosen ones are hidden. No image is needed.
    """
    size, means, stds = _image_size(image_size), _numbers("--mean", mean), _numbers("--std", std)
    progress = _progress()
    with progress.stage("loading PyTorch", None, "module"):
        import torch

        from summit_graph.network import check as checks
        from summit_graph.network.loading import load_model
        from summit_graph.network.trace import choices, trace
    with progress.stage("tracing the model", None, "layer"):
        loaded: LoadedModel = load_model(model, weights, size, means, stds)
        shape = loaded.preprocessing.shape
        network = trace(loaded.module, shape, _patterns(patterns))
        everything = choices(loaded.module, shape) if every else None
    complete: tuple[checks.Completeness, ...] = ()
    traced: tuple[checks.Source, ...] = ()
    if check:
        with progress.stage("checking the trace", None, "layer"):
            images = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
            complete = checks.completeness(network, images)
            traced = checks.source(network, images[:1])
    if as_json:
        document: dict[str, Any] = {
            "model": loaded.name,
            "shape": shape,
            "outputs": network.outputs,
            "layers": [asdict(layer) for layer in network.layers],
            "hops": [
                {
                    "number": hop.number,
                    "source": network.layers[hop.source].name,
                    "target": network.layers[hop.target].name,
                    "mixers": hop.mixers,
                }
                for hop in network.hops
            ],
        }
        if everything is not None:
            document["choices"] = [asdict(choice) for choice in everything]
        if check:
            document["completeness"] = [{**asdict(t), "holds": t.holds} for t in complete]
            document["source"] = [{**asdict(t), "holds": t.holds} for t in traced]
        _print_json(document)
    else:
        from summit_graph import show as texts

        _print(texts.layers(network, loaded.name, everything))
        if check:
            _print("", texts.trace_check(complete, traced))
    if not all(test.holds for test in (*complete, *traced)):
        raise SummitGraphError(
            f"the trace of {loaded.name} is wrong, so its graphs would be, too. Please report it, "
            "with the model."
        )


@app.command(cls=Command)
def rank(
    atlas: AtlasArgument = None,
    named: AtlasOption = None,
    mass: MassOption = 0.075,
    damping: DampingOption = 0.85,
    sources: SourcesOption = None,
    exclude: ExcludeOption = None,
    exclude_always_active: ExcludeAlwaysActiveOption = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank an atlas again, with other parameters.

    The images are not needed: their counts are in the atlas.
    """
    folder = _atlas_folder(atlas, named)
    progress = _progress()
    with progress.stage("loading PyTorch", None, "module"):
        from summit_graph import pipeline
    report = pipeline.rerank(
        folder,
        _ranking(mass, damping, sources, exclude, exclude_always_active),
        workers=workers,
        progress=progress,
    )
    if as_json:
        _print_json(asdict(report))
        return
    from summit_graph import show as texts

    _print(texts.ranked(report))


@app.command(cls=Command)
def merge(
    atlases: Annotated[
        list[Path], typer.Argument(metavar="ATLAS...", help="Two or more atlases, in any order.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="The new atlas; it must not exist."),
    ],
    allow_duplicates: Annotated[
        bool,
        typer.Option(
            "--allow-duplicates",
            help="Count an image that is in several of them as often as it is; else that is an "
            "error.",
        ),
    ] = False,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add up atlases of one model, counted alike, into a new one."""
    if len(atlases) < 2:
        raise UsageError("to merge takes two atlases or more; one was given.")
    progress = _progress()
    with progress.stage("loading PyTorch", None, "module"):
        from summit_graph import pipeline
    report = pipeline.merge(
        atlases, output, allow_duplicates=allow_duplicates, workers=workers, progress=progress
    )
    if as_json:
        _print_json(asdict(report))
        return
    from summit_graph import show as texts

    _print(
        texts.ranked(report), "", "Next:", *texts.commands(f"summit-graph info {_quoted(output)}")
    )


@app.command(cls=Command)
def info(
    atlas: AtlasArgument = None,
    named: AtlasOption = None,
    every: Annotated[bool, typer.Option("--all", help="List all classes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what an atlas holds: model, images, layers, classes."""
    with _opened(atlas, named) as opened:
        column = opened.generation.table("images", columns=["status"]).column("status")
        statuses = dict(Counter(column.to_pylist()).most_common())
        if as_json:
            _print_json(
                {
                    "path": opened.path,
                    **opened.info(),
                    "images": statuses,
                    "classes": [asdict(record) for record in opened.classes],
                }
            )
            return
        from summit_graph import show as texts

        _print(texts.info(opened.info(), str(opened.path), opened, statuses, every))


@app.command(cls=Command)
def show(
    name: ClassArgument,
    atlas: AtlasOption = None,
    neurons: Annotated[
        int | None,
        typer.Option(
            "--neurons",
            metavar="N",
            min=1,
            help="Neurons shown of each layer, the highest in rank.",
            show_default="all of a graph of up to 50, else 5",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="OTHER",
            help="Show instead which neurons the class shares with another one.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a class's attribution graph, or compare it with another's."""
    if compare is not None:
        with _opened(atlas) as opened:
            found = opened.compare(name, compare)
            if as_json:
                _print_json(asdict(found))
                return
            from summit_graph import show as texts

            _print(texts.comparison(found, opened.layers))
    elif as_json:
        with _opened(atlas) as opened:
            _print_json(_graph_json(opened, name))
    else:
        _show_class(atlas, name, neurons)


def _show_class(atlas: Path | None, name: str, limit: int | None) -> None:
    from summit_graph import show as texts

    with _opened(atlas) as opened:
        graph = opened.attribution_graph(name)
        index = graph.record.index
        _print(
            texts.attribution_graph(
                graph,
                opened.layers,
                votes=opened.votes(index),
                similar=opened.similar(index, limit=3),
                confusions=opened.confusions(index),
                by_prediction=opened.generation.identity["grouping"] == "prediction",
                limit=limit,
            )
        )


def _graph_json(opened: Atlas, name: str) -> dict[str, Any]:
    from summit_graph.atlas.interface import summary

    graph = opened.attribution_graph(name)
    index = graph.record.index
    return {
        **summary(graph),
        "votes": [asdict(vote) for vote in opened.votes(index)],
        "similar": [asdict(other) for other in opened.similar(index)],
        "confusions": [asdict(other) for other in opened.confusions(index)],
    }


@app.command(cls=Command)
def neuron(
    name: Annotated[
        str, typer.Argument(metavar="NEURON", help="A neuron: layer/channel, as `show` lists them.")
    ],
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Show its strongest sources and targets for this class, too.",
        ),
    ] = None,
    atlas: AtlasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which classes a neuron matters to, and what excites it."""
    with _opened(atlas) as opened:
        view, examples = opened.neuron(name), opened.examples(name)
        record = None if class_name is None else opened.find(class_name)
        around = None if record is None else opened.neighbours(name, record.index)
        if as_json:
            document: dict[str, Any] = asdict(view)
            document["examples"] = [asdict(example) for example in examples]
            if record is not None and around is not None:
                document["neighbours"] = {"class": asdict(record), **asdict(around)}
            _print_json(document)
            return
        from summit_graph import show as texts

        _print(texts.neuron(view, examples, record, around))


@app.command(cls=Command)
def export(
    name: ClassArgument,
    atlas: AtlasOption = None,
    format: Annotated[  # noqa: A002
        Format | None,
        typer.Option(
            "--format", help="What to write.", show_default="by the ending of --output, else json"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to.", show_default="standard output"
        ),
    ] = None,
) -> None:
    """Write a class's attribution graph for another program."""
    ending = output.suffix.lower()[1:] if output is not None else ""
    chosen = format or (Format(ending) if ending in Format.__members__ else Format.json)
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


def main() -> None:
    """Run the command line; `--debug` may stand anywhere in it."""
    arguments = sys.argv[1:]
    options_end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:options_end]:
        arguments.remove("--debug")
        arguments.insert(0, "--debug")
    app(args=arguments, prog_name="summit-graph")
