"""Folders, manifests and data sets list and read the same images, and say what is wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from summit_graph.errors import ImageError, UsageError
from summit_graph.images.sources import (
    DatasetSource,
    FolderSource,
    Item,
    ManifestSource,
    attribute,
    labels_of,
    open_source,
)


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(path)
    return path


# Folders


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for name in ("dog/b.PNG", "dog/a.jpeg", "cat/in/deep.webp", "top.bmp", "cat2/x.tif"):
        picture(root / name)
    for name in ("dog/notes.txt", ".hidden.png", "dog/.cache/x.png", "Thumbs.db"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    source = open_source(str(root))
    assert source.name == "pets"
    assert list(source.items()) == [
        Item("cat/in/deep.webp", "cat/in", "cat"),
        Item("cat2/x.tif", "cat2", "cat2"),
        Item("dog/a.jpeg", "dog", "dog"),
        Item("dog/b.PNG", "dog", "dog"),
        Item("top.bmp", "", None),
    ]
    assert source.passed_over == (".hidden.png", "Thumbs.db", "dog/.cache/", "dog/notes.txt")
    assert labels_of(source.items()) == ("cat", "cat2", "dog")
    assert not source.labels_are_outputs


def test_a_folder_is_read_by_content(tmp_path: Path) -> None:
    path = picture(tmp_path / "a" / "x.png")
    source = FolderSource(tmp_path)
    content = source.read(source.items()[0])
    assert content.image == path.read_bytes()
    assert content.size == path.stat().st_size
    assert content.hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_paths_are_sorted_as_plain_strings(tmp_path: Path) -> None:
    for name in ("b/1.png", "b-x/1.png", "a.png", "B/1.png", "b/10.png", "b/2.png"):
        picture(tmp_path / name)
    paths = [item.path for item in FolderSource(tmp_path).items()]
    assert paths == sorted(paths)
    assert paths[0] == "B/1.png"


def test_links(tmp_path: Path) -> None:
    real = picture(tmp_path / "store" / "x.png")
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (root / "a" / "linked.png").symlink_to(real)
    (root / "b").symlink_to(tmp_path / "store", target_is_directory=True)
    source = FolderSource(root)
    assert [item.path for item in source.items()] == ["a/linked.png", "b/x.png"]
    assert source.read(source.items()[0]).image == real.read_bytes()
    real.unlink()
    broken = FolderSource(root)
    assert [item.path for item in broken.items()] == ["a/linked.png"]
    with pytest.raises(ImageError, match=r"a/linked\.png.*No such file"):
        broken.read(broken.items()[0])


def test_a_folder_that_contains_itself(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ImageError, match="'a/again' contains itself"):
        FolderSource(tmp_path).items()


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no image here")
    with pytest.raises(ImageError, match=r"No image in the folder .* among 1 other files"):
        FolderSource(tmp_path).items()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):
        pass
    with pytest.raises(ImageError, match=r"xff\.png.*Rename"):
        FolderSource(tmp_path).items()


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe.png")
    source = FolderSource(tmp_path)
    assert [item.path for item in source.items()] == ["x.png"]
    assert source.passed_over == ("pipe.png",)


def test_a_folder_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "x.png")
    source = FolderSource(tmp_path)
    assert pickle.loads(pickle.dumps(source)).items() == source.items()


# Manifests


def manifest(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_csv_manifest(tmp_path: Path) -> None:
    inside = picture(tmp_path / "in" / "a.png")
    outside = picture(tmp_path / "elsewhere" / "b.png", 9)
    (tmp_path / "set").mkdir()
    inside = picture(tmp_path / "set" / "in" / "a.png")
    lines = f"label,path,note\ncat,in/a.png,x\n,{outside},y\n"
    source = open_source(str(manifest(tmp_path / "set" / "mine.csv", lines)))
    assert source.name == "mine"
    assert list(source.items()) == sorted(
        [
            Item("in/a.png", "in", "cat"),
            Item(outside.as_posix(), outside.parent.as_posix(), None),
        ]
    )
    contents = {item.path: source.read(item).image for item in source.items()}
    assert contents == {
        "in/a.png": inside.read_bytes(),
        outside.as_posix(): outside.read_bytes(),
    }
    assert not source.labels_are_outputs


def test_a_manifest_without_labels_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfpath\r\n./x/../a.png\r\n")
    assert list(ManifestSource(tmp_path / "m.csv").items()) == [Item("a.png", "", None)]


def test_whole_numbers_are_model_outputs(tmp_path: Path) -> None:
    numbers = manifest(tmp_path / "n.csv", "path,label\na.png,7\nb.png,\nc.png,0\n")
    assert ManifestSource(numbers).labels_are_outputs
    assert [item.label for item in ManifestSource(numbers).items()] == ["7", None, "0"]
    names = manifest(tmp_path / "m.csv", "path,label\na.png,7\nb.png,cat\n")
    assert not ManifestSource(names).labels_are_outputs
    padded = manifest(tmp_path / "p.csv", "path,label\na.png,007\n")
    assert not ManifestSource(padded).labels_are_outputs


@pytest.mark.parametrize("labels", [["cat", None], [3, None]])
def test_a_parquet_manifest(tmp_path: Path, labels: list[Any]) -> None:
    table = pa.table({"label": labels, "path": ["z.png", "a.png"]})
    pq.write_table(table, tmp_path / "m.parquet")
    source = open_source(str(tmp_path / "m.parquet"))
    assert list(source.items()) == [Item("a.png", "", None), Item("z.png", "", str(labels[0]))]
    assert source.labels_are_outputs == (labels[0] == 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", r"no column 'path'. It has: file, label"),
        ("", r"no column 'path'. It has: none"),
        ("path\n", "has no rows"),
        ("path,label\na.png,1\nb/../a.png,2\n", "'a.png' twice: line 2 and line 3"),
        ("path,label\n,1\n", "line 2: the path is empty"),
        ("path\n../a.png\n", "lies outside the manifest's folder"),
        ("path\nx/../../a.png\n", "lies outside the manifest's folder"),
        ("path\na.png,b\n", "line 2: more fields than columns"),
        ('path\n"a.png\n', "is no CSV"),
    ],
)
def test_a_faulty_csv_manifest(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((UsageError, ImageError), match=message):
        ManifestSource(manifest(tmp_path / "m.csv", text))


def test_the_same_image_by_two_paths_is_found(tmp_path: Path) -> None:
    lines = f"path\na.png\n{tmp_path}/a.png\n"
    with pytest.raises(UsageError, match="twice"):
        ManifestSource(manifest(tmp_path / "m.csv", lines))


def test_a_faulty_parquet_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match="no readable Parquet"):
        ManifestSource(tmp_path / "m.parquet")
    pq.write_table(pa.table({"path": ["a.png"], "label": [0.5]}), tmp_path / "f.parquet")
    with pytest.raises(UsageError, match="fractions"):
        ManifestSource(tmp_path / "f.parquet")
    pq.write_table(pa.table({"file": ["a.png"]}), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match="no column 'path'"):
        ManifestSource(tmp_path / "c.parquet")
    with pytest.raises(UsageError, match="no such file"):
        open_source(str(tmp_path / "none.parquet"))
    with pytest.raises(UsageError, match=r"none\.csv.*No such file"):
        open_source(str(tmp_path / "none.csv"))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    source = ManifestSource(manifest(tmp_path / "m.csv", "path\ngone.png\n"))
    with pytest.raises(ImageError, match=r"'gone\.png' cannot be read"):
        source.read(source.items()[0])


names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"), min_size=1
).filter(lambda name: name.strip() == name and name not in (".", ".."))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, names), min_size=1, unique_by=lambda row: row[0]))
def test_csv_and_parquet_manifests_are_equal(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    import csv

    with (tmp_path / "m.csv").open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([("path", "label"), *rows])
    columns = {"path": [row[0] for row in rows], "label": [row[1] for row in rows]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    items = ManifestSource(tmp_path / "m.csv").items()
    assert items == ManifestSource(tmp_path / "m.parquet").items()
    assert {(item.path, item.label) for item in items} == set(rows)
    assert [item.path for item in items] == sorted(item.path for item in items)


# Data sets


class Plain:
    """(image, label) pairs."""

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index]


def gray(shade: int) -> Image.Image:
    return Image.new("L", (4, 4), shade)


def test_a_data_set_of_pictures_and_numbers() -> None:
    source = DatasetSource(Plain([(gray(1), 3), (gray(2), np.int64(0)), (gray(3), None)]), "set")
    assert list(source.items()) == [
        Item("00000000", "", "3"),
        Item("00000001", "", "0"),
        Item("00000002", "", None),
    ]
    assert source.labels_are_outputs
    contents = [source.read(item) for item in source.items()]
    assert contents[0].image is source._dataset.pairs[0][0]
    assert contents[0].size == 16
    assert len({content.hash for content in contents}) == 3
    again = DatasetSource(Plain([(gray(1), 3)]), "set")
    assert again.read(again.items()[0]).hash == contents[0].hash


def test_names_tensors_arrays_and_images_alone() -> None:
    tensor = torch.arange(12.0).reshape(3, 2, 2)
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    source = DatasetSource(Plain([(tensor, "cat"), (array, "dog"), array[:, :, :1]]), "set")
    assert not source.labels_are_outputs
    assert [item.label for item in source.items()] == ["cat", "dog", None]
    first, second, third = (source.read(item).image for item in source.items())
    assert isinstance(first, torch.Tensor)
    assert torch.equal(first, tensor)
    assert np.array_equal(np.asarray(second), array)
    assert np.array_equal(np.asarray(third), array[:, :, 0])


def test_the_hash_tells_shapes_and_palettes_apart() -> None:
    zeros = [torch.zeros(1, 2, 3), torch.zeros(1, 3, 2)]
    red, blue = Image.new("P", (2, 2)), Image.new("P", (2, 2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    source = DatasetSource(Plain([*zeros, red, blue]), "set")
    assert len({source.read(item).hash for item in source.items()}) == 4


def test_targets_spare_the_images() -> None:
    class Listed(Plain):
        targets = torch.tensor([1, 0])

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("no image is needed to list them")

    source = DatasetSource(Listed([None, None]), "set")
    assert [item.label for item in source.items()] == ["1", "0"]


def test_faulty_data_sets() -> None:
    with pytest.raises(UsageError, match="no data set with a length"):
        DatasetSource(iter([1]), "stream")
    with pytest.raises(ImageError, match="is empty"):
        DatasetSource(Plain([]), "set").items()
    with pytest.raises(ImageError, match="numbers and names"):
        DatasetSource(Plain([(gray(1), 3), (gray(1), "cat")]), "set")
    with pytest.raises(ImageError, match="has a list as its label"):
        DatasetSource(Plain([(gray(1), [1, 2])]), "set")
    source = DatasetSource(Plain([torch.zeros(2, 2, 2, dtype=torch.uint8)]), "set")
    with pytest.raises(ImageError, match=r"is a Tensor torch\.uint8 \(2, 2, 2\)"):
        source.read(source.items()[0])


def test_a_data_set_that_changes_or_fails() -> None:
    pairs = [(gray(1), 3)]
    source = DatasetSource(Plain(pairs), "set")
    pairs[0] = (gray(1), 4)
    with pytest.raises(ImageError, match="now has the label 4, and had '3'"):
        source.read(source.items()[0])
    pairs.clear()
    with pytest.raises(ImageError, match="no item 00000000: IndexError"):
        source.read(source.items()[0])


# By import path

FILE = """
from dataclasses import dataclass
from beside import SHADE

@dataclass
class Ones:
    shade: int = SHADE
    def __len__(self):
        return 2
    def __getitem__(self, index):
        import numpy
        return numpy.full((2, 2, 3), self.shade, dtype=numpy.uint8), index

def build():
    from beside_too import KIND
    return KIND()

ready = Ones(9)
broken = 1 / 1

def failing():
    raise RuntimeError("no disk")
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("SHADE = 7\n")
    (tmp_path / "beside_too.py").write_text("KIND = dict\n")
    path = tmp_path / "sets.py"
    path.write_text(FILE)
    return path


def test_a_data_set_in_a_file(user_file: Path) -> None:
    before = list(sys.path)
    for name, shade in (("ready", 9), ("Ones", 7)):
        source = open_source(f"{user_file}:{name}")
        assert source.name == name
        image = source.read(source.items()[1]).image
        assert np.asarray(image).max() == shade
    with pytest.raises(ImageError, match="is empty"):
        open_source(f"{user_file}:build").items()
    assert sys.path == before


def test_a_data_set_in_a_module(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(user_file.parent))
    assert len(open_source("sets:ready").items()) == 2
    assert attribute("sets:Ones.__len__") is attribute("sets:Ones").__len__


def test_faulty_import_paths(user_file: Path) -> None:
    for spec, message in [
        (f"{user_file}:none", "has no 'none'. It has: Ones, SHADE, broken, build"),
        (f"{user_file}:failing", "called without arguments, fails: RuntimeError: no disk"),
        (f"{user_file}:SHADE", "no data set with a length"),
        (f"{user_file.parent}/gone.py:x", "There is no file"),
        ("no_such_package.part:x", "no module 'no_such_package.part'"),
        (f"{user_file}:", "neither module:attribute nor"),
        ("nothing-here", "No images at 'nothing-here'"),
    ]:
        with pytest.raises(UsageError, match=message):
            open_source(spec)
    user_file.write_text("import no_such_part\n")
    with pytest.raises(UsageError, match="ModuleNotFoundError: No module named 'no_such_part'"):
        open_source(f"{user_file}:x")
