"""The options of the commands, each declared once: its name, its help, and what its text means.

A command's signature names the types below; `cli.py`, `cli_pictures.py` and `cli_neo4j.py` have the
commands. Numbers
that are out of range and texts that mean nothing end with exit code 2 and say what would be right.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from summit_graph.errors import AtlasError, UsageError

ATLAS_VARIABLE = "SUMMIT_GRAPH_ATLAS"

_MODEL, _COUNTING, _RANKING, _RUNNING = "Model", "Counting", "Ranking", "Running"
_NEO4J, _BULK = "Neo4j", "Bulk"
_PAGES, _FIGURE = "Pages", "One class, for papers and slides"
_AS_TRAINED = "what the weights were trained with"
_BYTES = {
    "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_LEAST_MEMORY = 64 * 2**20


def _option(name: str, metavar: str, group: str, text: str, without: str = "", **more: Any) -> Any:
    """An option in a group of the help; `without`: what happens without it, in words."""
    return typer.Option(
        *name.split(),
        metavar=metavar or None,
        rich_help_panel=group or None,
        help=text,
        show_default=without or True,
        **more,
    )


def _argument(metavar: str, text: str, without: str = "") -> Any:
    return typer.Argument(metavar=metavar, help=text, show_default=without or True)


def _share(value: float) -> float:
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{value:g} is not in the range above 0 and up to 1.")
    return value


def _below_one(value: float) -> float:
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{value:g} is not in the range from 0 to below 1.")
    return value


class Format(StrEnum):
    """What `export` writes; as `atlas.export.FORMATS`."""

    json = "json"
    csv = "csv"
    graphml = "graphml"
    gexf = "gexf"
    dot = "dot"


class Edges(StrEnum):
    """Which edges `load` writes; as `graphdb.rows.EDGES`."""

    graph = "graph"
    attribution = "attribution"


class PictureFormat(StrEnum):
    """What `features` writes; as `atlas.features.FORMATS`."""

    webp = "webp"
    png = "png"


class BulkFormat(StrEnum):
    """What `load --bulk` writes for the import; as `graphdb.bulk.FORMATS`."""

    csv = "csv"
    parquet = "parquet"


# Arguments

Images = Annotated[
    str,
    _argument(
        "IMAGES",
        "A folder, a manifest (.csv, .parquet), a data set (module:attribute or "
        "file.py:attribute), or 'digits'.",
    ),
]
AtlasPlace = Annotated[Path | None, _argument("ATLAS", "The atlas's folder.", "as --atlas")]
PublishedFolder = Annotated[
    Path, _argument("FOLDER", "The folder of ag-<class index>.json, or one that holds it.")
]
Atlases = Annotated[list[Path], _argument("ATLAS", "Two or more atlases, in any order.")]
ClassName = Annotated[
    str, _argument("CLASS", "A class: its name, a part of it, its index or its synset.")
]
NeuronName = Annotated[str, _argument("NEURON", "A neuron: layer/channel, as `show` lists them.")]

# What a command reads and writes

Atlas = Annotated[
    Path | None,
    _option(
        "--atlas",
        "DIR",
        "",
        "The atlas's folder.",
        "the only atlas in this folder",
        envvar=ATLAS_VARIABLE,
    ),
]
AtlasToMake = Annotated[
    Path,
    _option(
        "--atlas -o",
        "DIR",
        "",
        "The atlas's folder; if it is there, images that are new to it are added.",
        envvar=ATLAS_VARIABLE,
    ),
]
DemoAtlas = Annotated[Path, _option("--atlas -o", "DIR", "", "Where its atlas is kept.")]
MergedAtlas = Annotated[
    Path, _option("--output -o", "DIR", "", "The new atlas's folder; it must not be there yet.")
]
ImportedAtlas = Annotated[
    Path,
    _option("--atlas -o", "DIR", "", "The new atlas's folder; it must not be there yet."),
]
AsJson = Annotated[
    bool, _option("--json", "", "", "Print one JSON document, for a program to read.")
]

# The model

Model = Annotated[
    str,
    _option(
        "--model",
        "SPEC",
        _MODEL,
        "torchvision:NAME, timm:NAME, module:callable or file.py:callable.",
    ),
]
Weights = Annotated[
    str | None,
    _option(
        "--weights",
        "FILE|NAME",
        _MODEL,
        "A state dict (.pt, .pth, .safetensors), or weights that the library knows: DEFAULT.",
        "random, or as the callable builds it",
    ),
]
ImageSize = Annotated[
    str | None,
    _option(
        "--image-size",
        "PIXELS|HxW",
        _MODEL,
        "Size of the image that the model gets.",
        _AS_TRAINED,
    ),
]
Mean = Annotated[
    str | None,
    _option(
        "--mean", "A,B,C", _MODEL, "Mean of each channel, for values from 0 to 1.", _AS_TRAINED
    ),
]
Std = Annotated[
    str | None,
    _option("--std", "A,B,C", _MODEL, "Standard deviation of each channel.", _AS_TRAINED),
]
Layers = Annotated[
    list[str] | None,
    _option(
        "--layers",
        "NAMES",
        _MODEL,
        "Layers whose channels are the neurons: names or globs, separated by commas; may be given "
        "several times.",
        "the network's blocks",
    ),
]
AllChoices = Annotated[
    bool, _option("--all", "", "", "List everything that --layers can name, too.")
]
Check = Annotated[
    bool,
    _option(
        "--check",
        "",
        "",
        "Test on two random images that each layer is the sum of its terms, and that neurons "
        "reach only what they are traced to.",
    ),
]

# Counting

ClassesFile = Annotated[
    Path | None,
    _option(
        "--classes",
        "FILE",
        _COUNTING,
        "Names (and synsets) of the model's outputs.",
        "those of the weights",
    ),
]
GroupBy = Annotated[
    str,
    _option(
        "--group-by",
        "BY",
        _COUNTING,
        "What an image's class is: its `label`, the model's `prediction`, or groups of outputs "
        "from a file.",
    ),
]
ActivationMass = Annotated[
    float,
    _option(
        "--activation-mass",
        "SHARE",
        _COUNTING,
        "Active are the neurons that hold this share of a layer's activation.",
        callback=_share,
    ),
]
TopSources = Annotated[
    int,
    _option(
        "--top-sources",
        "N",
        _COUNTING,
        "How many sources of a neuron are counted in each image.",
        min=1,
    ),
]
Examples = Annotated[
    int,
    _option(
        "--examples",
        "N",
        _COUNTING,
        "How many images that excite it most are kept for each neuron.",
        min=0,
    ),
]
PerClassExamples = Annotated[
    bool, _option("--per-class-examples", "", _COUNTING, "Keep them for each class, too.")
]
Thumbnails = Annotated[
    bool | None,
    _option(
        "--thumbnails/--no-thumbnails",
        "",
        _COUNTING,
        "Keep small pictures of those images in the atlas, or no picture at all.",
        "as before; of a new atlas, keep them",
    ),
]
Strict = Annotated[
    bool,
    _option(
        "--strict",
        "",
        _COUNTING,
        "Stop at the first image that cannot be read; else it is left out and reported.",
    ),
]
Name = Annotated[
    str | None,
    _option(
        "--name",
        "KEY",
        _COUNTING,
        "The atlas's key.",
        "the model's name and a hash of what is counted",
    ),
]

# Ranking

Embedding = Annotated[
    bool,
    _option(
        "--embedding/--no-embedding",
        "",
        _RANKING,
        "Place the classes in the plane, layer by layer, which takes some seconds.",
    ),
]
Mass = Annotated[
    float,
    _option(
        "--mass",
        "SHARE",
        _RANKING,
        "Share of the PageRank that a class's graph holds: the more, the larger the graph.",
        callback=_share,
    ),
]
Damping = Annotated[
    float,
    _option(
        "--damping",
        "SHARE",
        _RANKING,
        "PageRank's damping: the more, the more the edges count against the activations.",
        callback=_below_one,
    ),
]
Sources = Annotated[
    int | None,
    _option(
        "--sources",
        "N",
        _RANKING,
        "Indirect sources kept of each neuron.",
        "the mean number of its layer's direct ones",
        min=0,
    ),
]
Exclude = Annotated[
    list[str] | None,
    _option(
        "--exclude",
        "NEURON",
        _RANKING,
        "A neuron to leave out, layer/channel or a glob; may be given several times.",
    ),
]
ExcludeAlwaysActive = Annotated[
    bool,
    _option(
        "--exclude-always-active",
        "",
        _RANKING,
        "Leave out the neurons that are active in nearly all images of nearly all classes.",
    ),
]

# Running

Device = Annotated[
    str,
    _option(
        "--device",
        "NAME",
        _RUNNING,
        "Where the model runs: auto, cpu, cuda, mps; cuda:1 is the second GPU.",
    ),
]
BatchSize = Annotated[
    int, _option("--batch-size", "N", _RUNNING, "Images in one forward pass.", min=1)
]
ShardSize = Annotated[
    int, _option("--shard-size", "N", _RUNNING, "Images after which counts are saved.", min=1)
]
Memory = Annotated[
    str | None,
    _option(
        "--memory",
        "SIZE",
        _RUNNING,
        "What temporary tensors and tables may take: 4GB, 512MB.",
        "a quarter of what is free",
    ),
]
TF32 = Annotated[
    bool,
    _option(
        "--tf32",
        "",
        _RUNNING,
        "Let a GPU round to TF32: faster, and close decisions may differ.",
    ),
]
Compact = Annotated[
    bool,
    _option("--compact", "", _RUNNING, "At the end, fold the saved counts into one part."),
]
Workers = Annotated[
    int | None,
    _option(
        "--workers",
        "N",
        _RUNNING,
        "Threads that read images, and processes that rank.",
        "one a processor",
        min=1,
    ),
]

# Merging, importing, reading, exporting

AllowDuplicates = Annotated[
    bool,
    _option(
        "--allow-duplicates",
        "",
        "",
        "Count an image that is in several of them as often as it is; else that is an error.",
    ),
]
ImportedClasses = Annotated[
    Path | None,
    _option(
        "--classes", "FILE", "", "Names (and synsets) of the classes.", "names from torchvision"
    ),
]
StrictImport = Annotated[
    bool,
    _option(
        "--strict",
        "",
        "",
        "Stop at the first file that is not of the published form; else it is left out and "
        "reported.",
    ),
]
ImportedName = Annotated[
    str | None, _option("--name", "KEY", "", "The atlas's key.", "InceptionV1 and a hash")
]
AllClasses = Annotated[bool, _option("--all", "", "", "List all classes.")]
Neurons = Annotated[
    int | None,
    _option(
        "--neurons",
        "N",
        "",
        "Neurons shown of each layer, the highest in rank.",
        "all of a graph of up to 50, else 5",
        min=1,
    ),
]
Compare = Annotated[
    str | None,
    _option(
        "--compare",
        "OTHER",
        "",
        "Show which neurons the class shares with another one instead.",
    ),
]
ForClass = Annotated[
    str | None,
    _option("--class", "CLASS", "", "Show its strongest sources and targets for this class, too."),
]
ExportFormat = Annotated[
    Format | None,
    _option("--format", "", "", "What to write.", "by the ending of --output, else json"),
]
ExportFile = Annotated[
    Path | None, _option("--output -o", "FILE", "", "The file to write.", "standard output")
]


# Pictures

AtlasModel = Annotated[
    str | None,
    _option("--model", "SPEC", _MODEL, "Where the model is.", "what the atlas was counted with"),
]
AtlasWeights = Annotated[
    str | None,
    _option("--weights", "FILE|NAME", _MODEL, "Its weights.", "what the atlas was counted with"),
]
PicturedNeurons = Annotated[
    list[str] | None,
    _option(
        "--neuron",
        "NAME",
        "",
        "Neurons to picture, layer/channel, or a glob; may be given several times.",
        "those of the attribution graphs",
    ),
]
EveryNeuron = Annotated[bool, _option("--all", "", "", "All neurons of the chosen layers.")]
Steps = Annotated[
    int, _option("--steps", "N", "", "Steps of optimisation: more are clearer.", min=1)
]
PictureSize = Annotated[
    int | None,
    _option(
        "--size", "PIXELS", "", "Longer side of a picture.", "as the network's input, at most 128"
    ),
]
Diverse = Annotated[
    int, _option("--diverse", "N", "", "Different pictures of each neuron, besides the one.", min=0)
]
PictureFiles = Annotated[PictureFormat, _option("--format", "", "", "Of the files.")]
PictureBatch = Annotated[
    int | None,
    _option(
        "--batch-size", "N", _RUNNING, "Neurons at a time.", "what suits device and size", min=1
    ),
]
Seed = Annotated[int, _option("--seed", "N", "", "The same one gives the same pictures.")]
PagesFolder = Annotated[
    Path | None,
    _option("--out -o", "DIR", _PAGES, "The folder to write.", "NAME.pages beside NAME.atlas"),
]
Open = Annotated[bool, _option("--open", "", _PAGES, "Open them in a browser.")]
Serve = Annotated[
    bool, _option("--serve", "", _PAGES, "Serve them on 127.0.0.1 until it is interrupted.")
]
ServedPort = Annotated[
    int, _option("--port", "PORT", _PAGES, "Where to serve them.", "a free one", min=0, max=65535)
]
ShowExamples = Annotated[
    bool,
    _option(
        "--examples/--no-examples",
        "",
        _PAGES,
        "Put in pictures and paths of single images.",
    ),
]
ViewedClass = Annotated[
    str | None, _option("--class", "CLASS", "", "The class to show first.", "one with most images")
]
ViewedCompare = Annotated[
    list[str] | None,
    _option("--compare", "OTHER", "", "Show another class beside it; may be given three times."),
]
Least = Annotated[
    float,
    _option(
        "--least",
        "SHARE",
        _FIGURE,
        "Leave out edges below this share of the largest count.",
        min=0.0,
        max=1.0,
    ),
]
Svg = Annotated[Path | None, _option("--svg", "FILE", _FIGURE, "Write its graph as SVG.")]
Png = Annotated[Path | None, _option("--png", "FILE", _FIGURE, "Write its graph as PNG.")]
Pdf = Annotated[Path | None, _option("--pdf", "FILE", _FIGURE, "Write its graph as PDF.")]
# Neo4j

Home = Annotated[
    Path | None,
    _option("--home", "DIR", "", "The server's folder.", "in your folder for programs' data"),
]
LocalHome = Annotated[
    Path | None,
    _option(
        "--home", "DIR", _NEO4J, "The local server's folder.", "in your folder for programs' data"
    ),
]
BoltPort = Annotated[
    int | None,
    _option(
        "--bolt-port",
        "PORT",
        "",
        "Where programs reach it.",
        "the one it had, else 7687 or a free one",
        min=1,
        max=65535,
    ),
]
HTTPPort = Annotated[
    int | None,
    _option(
        "--http-port",
        "PORT",
        "",
        "Where Neo4j Browser is.",
        "the one it had, else 7474 or a free one",
        min=1,
        max=65535,
    ),
]
Heap = Annotated[
    str | None,
    _option("--heap", "SIZE", "", "Memory for its Java heap: 2g.", "what it had, else 1g"),
]
ShowPassword = Annotated[
    bool, _option("--show-password", "", "", "Show the password, on a terminal only.")
]
Yes = Annotated[bool, _option("--yes", "", "", "Do not ask.")]
Uri = Annotated[
    str | None,
    _option(
        "--uri",
        "ADDRESS",
        _NEO4J,
        "Another Neo4j: neo4j+s://example.org, bolt://127.0.0.1:7687.",
        "NEO4J_URI, else the local server",
    ),
]
User = Annotated[
    str | None,
    _option("--user", "NAME", _NEO4J, "Who asks.", "NEO4J_USERNAME, else neo4j"),
]
Database = Annotated[
    str | None,
    _option("--database", "NAME", _NEO4J, "Which of its databases.", "the user's own"),
]
LoadedEdges = Annotated[
    Edges,
    _option(
        "--edges",
        "",
        "",
        "All edges of every class's graph, so that Cypher can rank, or those of the attribution "
        "graphs alone.",
    ),
]
Replace = Annotated[
    bool,
    _option("--replace", "", "", "Put it in the place of another model of the same name, too."),
]
Batch = Annotated[
    int | None,
    _option("--batch", "ROWS", "", "Rows in a transaction.", "as measured to be fast", min=1),
]
Bulk = Annotated[
    bool,
    _option(
        "--bulk", "", _BULK, "Import into the empty local database with neo4j-admin: for millions."
    ),
]
PrepareOnly = Annotated[
    Path | None,
    _option(
        "--prepare-only",
        "DIR",
        _BULK,
        "Only write the files for the import, and print the command for another server.",
        "",
    ),
]
BulkFiles = Annotated[BulkFormat, _option("--format", "", _BULK, "Of the files.")]
ModelKey = Annotated[str, _argument("MODEL", "The model's key, as `query models` lists it.")]
ToNeo4j = Annotated[
    bool, _option("--neo4j", "", _NEO4J, "Load the atlas into Neo4j at the end, too.")
]
QueryName = Annotated[str | None, _argument("NAME", "The query.", "list the queries")]
QueryModel = Annotated[
    str | None, _option("--model", "MODEL", "", "The model's key.", "the only one")
]
Parameters = Annotated[
    list[str] | None,
    _option("--param -p", "NAME=VALUE", "", "A parameter, once for each: class=three.", "none"),
]
LogLines = Annotated[int, _option("--lines", "N", "", "How many lines.", min=1)]
AsCsv = Annotated[bool, _option("--csv", "", "", "Print CSV.")]
AsText = Annotated[
    bool, _option("--text", "", "", "Print the query's text, to paste into Neo4j Browser.")
]


# What the texts mean


def image_size(text: str | None) -> int | tuple[int, int] | None:
    """Pixels of `--image-size`: `224`, or (height, width) of `240x320`. Raises: UsageError."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise UsageError(
            f"--image-size is {text!r}; it has to be a number of pixels, 224, or HEIGHTxWIDTH, "
            "240x320."
        )
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers between the commas of `--mean` or `--std`. Raises: UsageError."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} is {text!r}; it has to be a number for each channel, separated by commas: "
            "0.485,0.456,0.406."
        ) from None


def size_in_bytes(text: str | None, option: str = "--memory") -> int | None:
    """Bytes of an option: `4GB`, `512MiB`, `1.5 GB`; at least 64 MiB. Raises: UsageError."""
    if text is None:
        return None
    number = text.strip().rstrip("BbIiKkMmGgTt").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = int(float(number) * _BYTES[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(
            f"{option} is {text!r}; it has to be a number with its unit: 4GB, 512MB or 1.5GiB."
        ) from None
    if size < _LEAST_MEMORY:
        raise UsageError(f"{option} is {text!r}; it has to be at least 64MiB.")
    return size


def patterns(given: list[str] | None) -> list[str] | None:
    """The names and globs of one or several `--layers`."""
    if not given:
        return None
    return [part.strip() for text in given for part in text.split(",") if part.strip()]


def atlas_folder(*named: Path | None) -> Path:
    """The first folder that was named, else the only atlas here. Raises: UsageError."""
    for path in named:
        if path is not None:
            return path
    from summit_graph.atlas.generation import locate

    found = []
    inside = (path for path in Path().iterdir() if path.is_dir() and path.name[0] != ".")
    for folder in (Path(), *sorted(inside)):
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
