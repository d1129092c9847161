"""The documents say what is so: examples run; files, links, options, sections and columns exist."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
METHOD = DOCS / "method.md"
DOCUMENTS = sorted((*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "notebooks" / "README.md"))
SOURCES = sorted((ROOT / "summit_graph").rglob("*.py"))
SECTIONS = range(1, 8)

# Hosts that the documents may lead to.
HOSTS = {"arxiv.org", "doi.org", "github.com", "keepachangelog.com", "semver.org"}

# A file or folder of this repository, as a document names it.
NAMED = re.compile(
    r"(?<![\w./-])((?:summit_graph|tests|docs|scripts|cypher|benchmarks|notebooks|docker|\.ci)"
    r"/[\w./-]*[\w/]|pyproject\.toml)"
)
CITED = re.compile(r"docs/method\.md, sections? (\d+(?:(?:, and |, | and | to )\d+)*)")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# An absolute path on somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|mnt|opt|srv|Users)(?:/|\b)")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|TBD|lorem ipsum)\b", re.IGNORECASE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


documents = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


# Examples -------------------------------------------------------------------------------------


def runnable(document: Path) -> list[tuple[int, str]]:
    """The blocks marked `python run`: the line each starts in, and its text."""
    text = document.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, block.start()) + 1, block[2])
        for block in FENCE.finditer(text)
        if block[1].split() == ["python", "run"]
    ]


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if runnable(path)], ids=name_of)
def test_examples_run(
    document: Path, demo_atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a document run in their order, as one program, beside the demo's atlas."""
    shutil.copytree(demo_atlas, tmp_path / "digits.atlas", symlinks=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    for line, block in runnable(document):
        code = compile("\n" * line + block, name_of(document), "exec", dont_inherit=True)
        exec(code, names)


def test_the_guides_have_examples() -> None:
    assert {"docs/atlas.md", "docs/python.md"} <= {name_of(d) for d in DOCUMENTS if runnable(d)}


# What the documents name ----------------------------------------------------------------------


@documents
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(NAMED.findall(document.read_text(encoding="utf-8")))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@documents
def test_functions_that_are_named_exist(document: Path) -> None:
    """A name in backticks that starts with an underscore is a function of the package."""
    named = set(re.findall(r"`(_[a-z]\w*)`", document.read_text(encoding="utf-8")))
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert sorted(name for name in named if f"def {name}(" not in code) == []


def slugs(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in headings}


@documents
def test_links_resolve(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        parts = urlsplit(link)
        if parts.scheme:
            if parts.scheme != "https" or parts.hostname not in HOSTS:
                broken.append(link)
            continue
        target = document if not parts.path else document.parent / parts.path
        if not target.exists() or (parts.fragment and parts.fragment not in slugs(target)):
            broken.append(link)
    assert broken == []


@documents
def test_addresses_are_of_known_hosts(document: Path) -> None:
    found = re.findall(r"https?://[^\s)>`\"']+", document.read_text(encoding="utf-8"))
    allowed = {*HOSTS, "localhost", "127.0.0.1"}
    assert sorted({urlsplit(address).hostname for address in found} - allowed) == []


@documents
def test_nothing_is_unfinished_or_of_one_machine(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert MACHINE_PATH.findall(text) + UNFINISHED.findall(text) == []


def test_options_that_the_guides_name_exist() -> None:
    from typer.main import get_command

    from summit_graph.cli import app

    options = {"--help"}
    commands = [get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            options |= {*parameter.opts, *parameter.secondary_opts}
    for document in DOCS.glob("*.md"):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", document.read_text("utf-8")))
        assert sorted(named - options) == [], name_of(document)


# Tables in the documents ----------------------------------------------------------------------


def table_rows(document: Path, columns: int) -> list[list[str]]:
    """The rows of a document's tables with so many columns."""
    lines = document.read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in rows if len(row) == columns]


def test_the_atlas_has_the_columns_that_its_guide_lists() -> None:
    from summit_graph.atlas.schema import ATLAS_TABLES, INTERNAL, KEYS

    listed = {name.strip("`"): text for name, text in table_rows(DOCS / "atlas.md", 2)}
    for name in set(ATLAS_TABLES) - INTERNAL:
        text = listed[name]
        assert tuple(re.findall(r"\*\*(\w+)\*\*", text)) == KEYS[name], name
        # Without what is in brackets the row is a list of names (and types of the first).
        bare = re.sub(r"\([^()]*\)|:.*| u?int\d+", "", text).replace("*", "")
        assert [word.strip() for word in bare.split(",")] == ATLAS_TABLES[name].names, name


def test_the_statuses_of_images_are_those_of_the_code() -> None:
    listed = {status.strip("`") for status, _ in table_rows(DOCS / "images.md", 2)}
    raised = set()
    for path in SOURCES:
        for call in re.findall(r"BadImage\(([^)]*)\)", path.read_text(encoding="utf-8")):
            raised |= {text.partition(":")[0] for text in re.findall(r'"([^"]*)"', call)}
    assert {text.partition(":")[0] for text in listed - {"status", "---"}} == raised


def test_the_defaults_of_the_method_are_those_of_the_code() -> None:
    from inspect import signature

    from summit_graph import Ranking, ingest

    rows = {row[3].strip("`"): row[2] for row in table_rows(METHOD, 4)}
    counting = signature(ingest).parameters
    ranking = Ranking()
    assert float(rows["--activation-mass"]) == counting["activation_mass"].default
    assert int(rows["--top-sources"]) == counting["top_sources"].default
    assert float(rows["--damping"]) == ranking.damping
    assert float(rows["--mass"]) == ranking.mass


# The method and the code that cites it --------------------------------------------------------


def sections() -> dict[int, str]:
    """The numbered sections of the method: number -> text."""
    parts = re.split(r"^## (\d+)\. ", METHOD.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def cited(text: str) -> Iterator[int]:
    """The sections of the method that a text cites; `4 to 6` are three."""
    unwrapped = re.sub(r"\s+", " ", text)
    for phrase in CITED.findall(unwrapped):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", phrase):
            yield from range(int(first), int(last or first) + 1)


def test_what_is_cited_is_read() -> None:
    assert list(cited("(docs/method.md,\n sections 2, 3 and 6)")) == [2, 3, 6]
    assert list(cited("docs/method.md, sections\n  4 to 6.")) == [4, 5, 6]
    assert list(cited("docs/method.md, section 12, and section 3")) == [12]


def test_the_method_has_its_sections() -> None:
    assert set(SECTIONS) <= set(sections())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_sections_that_code_cites_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert sorted(set(cited(text)) - set(sections())) == []
    assert text.count("docs/method.md") <= len(re.findall(r"docs/method\.md,\s+sections?\s", text))


@pytest.mark.parametrize("number", SECTIONS)
def test_a_section_and_its_files_name_each_other(number: int) -> None:
    """A section names files and tests; a file that it names cites it back."""
    named = {path for path in NAMED.findall(sections()[number]) if path.endswith(".py")}
    code = sorted(path for path in named if path.startswith("summit_graph/"))
    assert code
    assert any(path.startswith("tests/") for path in named)
    silent = [
        path for path in code if number not in cited((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert silent == []
