"""Pages hold what the atlas answers, whatever names hold; they replace nothing but pages."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from atlas import made as small
from PIL import Image
from view import made
from view.conftest import pages

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.files import FolderLock
from summit_graph.atlas.schema import ClassEntry
from summit_graph.atlas.store import Store
from summit_graph.errors import AtlasError, UsageError
from summit_graph.explain.pictures import Pictures
from summit_graph.view.page_data import CLASSES_OF_NEURON
from summit_graph.view.pages import PagesReport, write_pages

_CALL = re.compile(r'summitData\("([a-z0-9-]+)", (.*)\);\n', re.DOTALL)


def data(folder: Path, key: str) -> Any:
    """What a script hands to the page under a key."""
    found = _CALL.fullmatch((folder / "data" / f"{key}.js").read_text(encoding="ascii"))
    assert found is not None
    assert found[1] == key
    return json.loads(found[2])


@pytest.fixture(scope="module", params=["demo", "lite", "published", "thousand"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Atlas, Path]]:
    """An atlas and its pages."""
    name = "pictured" if request.param == "demo" else request.param
    with Atlas.open(request.getfixturevalue(f"{name}_atlas")) as atlas:
        yield atlas, request.getfixturevalue(f"{request.param}_pages")


def chosen(atlas: Atlas) -> list[int]:
    """Some classes, the peculiar ones of the made atlas among them."""
    found = [record.index for record in atlas.classes]
    return [*found[:10], *found[20::97], found[-1]]


def test_the_overview_has_what_the_atlas_says_of_its_classes(both: tuple[Atlas, Path]) -> None:
    atlas, folder = both
    overview = data(folder, "overview")
    columns = overview["classes"]
    for name in ("index", "name", "synset", "images", "top1", "top5"):
        known = [getattr(record, name) for record in atlas.classes]
        if name.startswith("top"):
            known = [value and float(f"{value:.6g}") for value in known]
        assert columns[name] == known
    for name in ("neurons", "edges"):
        assert columns[name] == [getattr(record, name) or 0 for record in atlas.classes]
    bins = [record.probability and list(record.probability) for record in atlas.classes]
    assert columns["probability"] == bins
    layers = [(layer["name"], layer["channels"], layer["height"]) for layer in overview["layers"]]
    assert layers == [(layer.name, layer.channels, layer.height) for layer in atlas.layers]
    assert overview["images"] == (
        None if atlas.partial else sum(record.images or 0 for record in atlas.classes)
    )
    first = atlas.find(overview["start"])
    assert first.neurons
    assert (first.images or 0) == max(
        record.images or 0 for record in atlas.classes if record.neurons
    )
    assert overview["hasSimilarity"] == overview["hasExamples"] == (not atlas.partial)


def test_the_overall_accuracy_counts_each_image_once(
    demo_atlas: Path, demo_pages: Path, published_pages: Path
) -> None:
    with Atlas.open(demo_atlas) as atlas:
        ranks = atlas.images.column("label_rank").to_pylist()
    overview = data(demo_pages, "overview")
    assert overview["top1"] == pytest.approx(ranks.count(1) / len(ranks), rel=1e-5)
    assert overview["top5"] == pytest.approx(
        sum(rank <= 5 for rank in ranks) / len(ranks), rel=1e-5
    )
    assert data(published_pages, "overview")["top1"] is None


def test_a_class_has_the_attribution_graph_that_the_atlas_has(both: tuple[Atlas, Path]) -> None:
    atlas, folder = both
    layers = [layer.name for layer in atlas.layers]
    for index in chosen(atlas):
        graph, told = atlas.attribution_graph(index), data(folder, f"class-{index}")
        assert told["index"] == index
        names = [f"{layers[neuron['layer']]}/{neuron['channel']}" for neuron in told["neurons"]]
        assert names == [neuron.name for neuron in graph.neurons]
        for neuron, known in zip(told["neurons"], graph.neurons, strict=True):
            assert (neuron["rank"], neuron["count"]) == (known.rank, known.count)
            assert neuron["pagerank"] == pytest.approx(known.pagerank, rel=1e-5)
            assert neuron["share"] == (known.share and pytest.approx(known.share, rel=1e-5))
        edges = [(names[source], names[target], count) for source, target, count in told["edges"]]
        assert edges == [(edge.source, edge.target, edge.count) for edge in graph.edges]


def test_a_class_has_its_neighbours_confusions_and_votes(both: tuple[Atlas, Path]) -> None:
    atlas, folder = both
    layers = [layer.name for layer in atlas.layers]
    for index in chosen(atlas):
        told = data(folder, f"class-{index}")
        votes = [neuron["votes"] for neuron in told["neurons"]]
        if atlas.partial:
            assert told["similar"] is told["confusions"] is None
            assert votes == [None] * len(votes)
            continue
        for layer, near in zip(
            [None, *layers], [told["similar"]["overall"], *told["similar"]["layers"]], strict=True
        ):
            known = atlas.similar(index, layer, limit=50)
            assert [other for other, _ in near] == [similar.index for similar in known]
            cosines = [similar.cosine for similar in known]
            assert [cosine for _, cosine in near] == pytest.approx(cosines, rel=1e-4)
        known = [[confusion.index, confusion.count] for confusion in atlas.confusions(index)]
        assert told["confusions"] == known
        counts = {vote.name: vote.count for vote in atlas.votes(index)}
        names = [f"{layers[neuron['layer']]}/{neuron['channel']}" for neuron in told["neurons"]]
        assert votes == [counts.get(name, 0) for name in names]


def test_a_neuron_has_its_classes_and_examples(both: tuple[Atlas, Path]) -> None:
    atlas, folder = both
    layers = [layer.name for layer in atlas.layers]
    for index in chosen(atlas)[:3]:
        for neuron in data(folder, f"class-{index}")["neurons"][:8]:
            name = f"{layers[neuron['layer']]}/{neuron['channel']}"
            known = [found for found in atlas.neuron(name).classes if found.selected]
            assert neuron["classesTotal"] == len(known)
            assert neuron["classes"] == [
                [found.index, found.rank, found.count] for found in known[:CLASSES_OF_NEURON]
            ]
            examples = [] if atlas.partial else atlas.examples(name)
            assert [
                (example["path"], example["row"], example["column"])
                for example in neuron["examples"]
            ] == [(example.path, example.row, example.column) for example in examples]
            assert [example["activation"] for example in neuron["examples"]] == pytest.approx(
                [example.activation for example in examples], rel=1e-5
            )


def test_the_overview_names_the_most_frequent_confusions_with_classes(
    thousand_atlas: Path, thousand_pages: Path
) -> None:
    columns = data(thousand_pages, "overview")["classes"]
    with Atlas.open(thousand_atlas) as atlas:
        for index in (1, 2, 999):
            known = [found for found in atlas.confusions(index) if found.index >= 0]
            told = columns["confused"][columns["index"].index(index)]
            assert told == [[found.index, found.count] for found in known[:3]]


def test_the_embedding_keeps_its_form_in_every_layer(
    thousand_atlas: Path, thousand_pages: Path
) -> None:
    """One shift and one scale for all layers and both axes, into -1 to 1."""
    told = data(thousand_pages, "embedding")["layers"]
    with Atlas.open(thousand_atlas) as atlas:
        table = atlas.generation.table("embedding")
        assert [layer["layer"] for layer in told] == list(range(len(atlas.layers)))
        numbers = [layer.number for layer in atlas.layers]
    known = {(row["layer"], row["class"]): (row["x"], row["y"]) for row in table.to_pylist()}
    found = {
        (numbers[layer["layer"]], index): (x, y)
        for layer in told
        for index, x, y in layer["points"]
    }
    assert found.keys() == known.keys()
    assert {tuple(layer["missing"]) for layer in told} == {(made.WITHOUT_IMAGE,)}
    largest = [max(abs(point[axis]) for point in found.values()) for axis in (0, 1)]
    assert max(largest) == 1
    keys = list(known)
    for axis in (0, 1):
        low, high = (extreme(keys, key=lambda key: known[key][axis]) for extreme in (min, max))
        scale = (found[high][axis] - found[low][axis]) / (known[high][axis] - known[low][axis])
        for key in keys[::101]:
            place = found[low][axis] + scale * (known[key][axis] - known[low][axis])
            assert found[key][axis] == pytest.approx(place, abs=2e-4)
        if axis == 0:
            first = scale
    assert scale == pytest.approx(first, rel=1e-3)


def test_scripts_are_ascii_and_hold_no_markup_whatever_names_hold(thousand_pages: Path) -> None:
    for file in (thousand_pages / "data").iterdir():
        text = file.read_bytes()
        assert b"<" not in text
        assert max(text) < 128
        assert text.count(b"\n") == 1
    names = data(thousand_pages, "overview")["classes"]["name"]
    assert [name for name in names if name in made.HOSTILE.values()] == list(made.HOSTILE.values())


def test_a_class_is_found_by_its_index_alone(thousand_pages: Path) -> None:
    """No file is called by a name of the data."""
    files = {file.name for file in (thousand_pages / "data").iterdir()}
    assert files == {"overview.js", "embedding.js"} | {
        f"class-{index}.js" for index in made.indices()
    }


def test_the_page_itself_comes_along_as_it_is(demo_pages: Path) -> None:
    page = Path(__file__).parents[2] / "summit_graph" / "view" / "page"
    names = {file.name for file in page.iterdir() if file.is_file()}
    assert {"index.html", "page.css"} < names
    for name in names:
        assert (demo_pages / name).read_bytes() == (page / name).read_bytes()
    assert {path.name for path in demo_pages.iterdir()} == {
        *names, "data", "pictures", "pages.json"
    }  # fmt: skip


def test_each_neuron_has_the_pictures_that_the_atlas_has(
    pictured_atlas: Path, demo_pages: Path
) -> None:
    """The demo's are 8 x 8: they are enlarged, each of their pixels a square."""
    assert data(demo_pages, "overview")["hasFeatures"] is True
    with Atlas.open(pictured_atlas) as atlas:
        pictures = Pictures(atlas)
        layers = [layer.name for layer in atlas.layers]
        for neuron in data(demo_pages, "class-8")["neurons"]:
            name, file = (
                f"{start}{neuron['channel']}"
                for start in (f"{layers[neuron['layer']]}/", f"{neuron['layer']}-")
            )
            assert (neuron["feature"], neuron["diverse"], neuron["patches"]) == (True, 2, True)
            content = pictures.feature(name)
            assert content is not None
            kind, _, coded = data(demo_pages, f"feature-{file}").partition(",")
            assert kind == "data:image/webp;base64"
            shown, original = pixels(base64.b64decode(coded)), pixels(content)
            assert original.shape == (8, 8, 3)
            assert np.array_equal(shown, original.repeat(6, axis=0).repeat(6, axis=1))
            diverse = pixels((demo_pages / "pictures" / f"{file}-diverse.webp").read_bytes())
            assert diverse.shape == (96, 192, 3)
            for at, content in enumerate(pictures.diverse(name)):
                tile = diverse[6::12, 96 * at + 6 : 96 * (at + 1) : 12]
                assert np.abs(tile.astype(int) - pixels(content)).max() < 40
            strip = pixels((demo_pages / "pictures" / f"{file}-examples.webp").read_bytes())
            assert strip.shape == (96, 96 * len(neuron["examples"]), 3)
            for at, patch in enumerate(pictures.patches(name)):
                assert patch.example.path == neuron["examples"][at]["path"]
                whole = pixels(patch.webp).mean()
                tile = strip[:, 96 * at : 96 * (at + 1)]
                seen = tile[tile.sum(axis=2) > 0].mean() if whole else 0
                assert seen >= whole - 12


def pixels(content: bytes) -> npt.NDArray[np.uint8]:
    """(height, width, 3) values of a picture's file."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_examples_without_thumbnails_are_named_without_pictures(
    demo_atlas: Path, tmp_path: Path
) -> None:
    atlas = Path(shutil.copytree(demo_atlas, tmp_path / "digits.atlas", symlinks=True))
    shutil.rmtree(atlas / "thumbnails")
    folder = pages(atlas, tmp_path / "pages")
    neuron = data(folder, "class-8")["neurons"][0]
    assert (neuron["feature"], neuron["diverse"], neuron["patches"]) == (False, 0, False)
    assert len(neuron["examples"]) == 10
    assert not list((folder / "pictures").iterdir())
    overview = data(folder, "overview")
    assert (overview["hasFeatures"], overview["hasExamples"]) == (False, True)


def test_a_picture_that_cannot_be_read_is_named(pictured_atlas: Path, tmp_path: Path) -> None:
    atlas = Path(shutil.copytree(pictured_atlas, tmp_path / "digits.atlas", symlinks=True))
    with Atlas.open(atlas) as opened:
        neuron = opened.attribution_graph(8).neurons[0]
        layer = next(found.number for found in opened.layers if found.name == neuron.layer)
    (atlas / "features" / f"{layer}-{neuron.channel}-0.webp").write_bytes(b"damaged")
    with pytest.raises(AtlasError, match=f"{neuron.name} cannot be read"):
        pages(atlas, tmp_path / "pages")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.atlas"]


def test_without_examples_nothing_of_single_images_is_in_the_pages(
    demo_atlas: Path, tmp_path: Path
) -> None:
    folder = pages(demo_atlas, tmp_path / "pages", examples=False)
    with Atlas.open(demo_atlas) as atlas:
        paths = atlas.images.column("path").to_pylist()
    written = "".join(file.read_text() for file in (folder / "data").iterdir())
    assert not [path for path in paths if path in written]
    assert not list((folder / "pictures").glob("*-examples.webp"))
    assert data(folder, "overview")["hasExamples"] is False
    assert {neuron["rank"] for neuron in data(folder, "class-3")["neurons"]} == set(range(1, 10))


def test_the_report_says_what_was_written(demo_atlas: Path, tmp_path: Path) -> None:
    with Atlas.open(demo_atlas) as atlas:
        report = write_pages(atlas, tmp_path / "new" / "pages")
        neurons = {
            neuron.name
            for record in atlas.classes
            for neuron in atlas.attribution_graph(record.index).neurons
        }
    assert isinstance(report, PagesReport)
    assert report.folder == tmp_path / "new" / "pages"
    assert report.index == report.folder / "index.html"
    assert (report.classes, report.without_graph, report.neurons) == (10, 0, len(neurons))
    files = [file for file in report.folder.rglob("*") if file.is_file()]
    assert report.bytes == sum(file.stat().st_size for file in files)
    assert [path.name for path in report.folder.parent.iterdir()] == ["pages"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.atlas(tmp_path_factory.mktemp("toy") / "toy.atlas", small.images(40))


def test_pages_replace_pages(toy: Path, tmp_path: Path) -> None:
    folder = pages(toy, tmp_path / "pages")
    (folder / "data" / "class-77.js").write_text("of a class that was there once")
    (folder / "index.html").write_text("of an older version")
    (folder / ".DS_Store").write_text("of the file manager")
    pages(toy, folder)
    assert not (folder / "data" / "class-77.js").exists()
    assert (folder / "index.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pages"]


def test_an_empty_folder_and_a_link_to_one_are_filled(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    pages(toy, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "index.html").is_file()


@pytest.mark.parametrize(
    "name", ["notes.html", "data/own.js", "pictures/cat.jpg", ".git/config", "data/class-x.js"]
)
def test_pages_with_a_file_of_the_users_are_left_alone(
    toy: Path, tmp_path: Path, name: str
) -> None:
    folder = pages(toy, tmp_path / "pages")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UsageError, match=re.escape(name.removesuffix("/config"))):
        pages(toy, folder)
    assert sorted(folder.rglob("*")) == before
    assert (folder / name).read_text() == "mine"


def test_other_folders_and_files_are_left_alone(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "index.html").write_text("mine")
    with pytest.raises(UsageError, match="not written as pages"):
        pages(toy, other)
    with pytest.raises(UsageError, match="no folder"):
        pages(toy, other / "index.html")
    with pytest.raises(UsageError, match="not written as pages"):
        pages(toy, toy)
    (other / "pages.json").write_text("{}")
    with pytest.raises(UsageError, match="not written as pages"):
        pages(toy, other)
    assert (other / "index.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pages(toy, tmp_path / "pages")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rename = os.rename
    refused = []

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == folder and not refused:
            refused.append(target)
            raise PermissionError(13, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(AtlasError, match="could not write"):
        pages(toy, folder)
    assert refused
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pages"]


def test_two_runs_do_not_write_the_same_pages(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / ".pages.tmp-1-abc"
    other.mkdir()
    lock = FolderLock(other)
    with pytest.raises(UsageError, match="another run is writing"):
        pages(toy, tmp_path / "pages")
    lock.release()
    assert (other / ".lock").exists()


def test_what_a_killed_run_left_is_removed(toy: Path, tmp_path: Path) -> None:
    left = tmp_path / ".pages.tmp-1-abc"
    left.mkdir()
    (left / "index.html").write_text("half")
    pages(toy, tmp_path / "pages")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pages"]


def test_an_atlas_that_is_not_ranked_has_no_pages(tmp_path: Path) -> None:
    atlas = small.atlas(tmp_path / "toy.atlas", small.images(40), ranked=False)
    with pytest.raises(AtlasError, match="summit-graph rank"):
        pages(atlas, tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


def test_an_atlas_without_similarity_and_embedding(tmp_path: Path) -> None:
    atlas = small.atlas(tmp_path / "toy.atlas", small.images(40))
    kept = set(small.tables(atlas)) - {"similarity", "embedding"}
    with Store.open_for_writing(atlas) as store, store.draft(kept) as draft:
        draft.publish()
    folder = pages(atlas, tmp_path / "pages")
    overview = data(folder, "overview")
    assert (overview["hasSimilarity"], overview["hasEmbedding"]) == (False, False)
    assert not (folder / "data" / "embedding.js").exists()
    assert data(folder, "class-0")["similar"] is None


def test_a_name_that_hides_in_the_description_is_kept(tmp_path: Path) -> None:
    """Model, data set and layers have names, too."""
    name = "</script><img src=x onerror=alert(1)>\u2028"
    atlas = small.atlas(
        tmp_path / "toy.atlas",
        small.images(40),
        model={"name": name},
        dataset={"name": name},
        layers=[layer._replace(name=f"{name}{layer.number}") for layer in small.LAYERS],
        classes=[ClassEntry(entry.index, name, name, entry.outputs) for entry in small.CLASSES],
    )
    folder = pages(atlas, tmp_path / "pages")
    overview = data(folder, "overview")
    assert b"<" not in (folder / "data" / "overview.js").read_bytes()
    assert overview["model"]["name"] == overview["dataset"] == name
    assert [layer["name"] for layer in overview["layers"]] == [f"{name}{at}" for at in (0, 2, 3)]
    assert set(overview["classes"]["name"]) == {name}


def test_pages_can_be_copied_and_replaced_elsewhere(toy: Path, tmp_path: Path) -> None:
    folder = pages(toy, tmp_path / "pages")
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    pages(toy, copied)
    assert {path.name for path in copied.iterdir()} == {path.name for path in folder.iterdir()}
