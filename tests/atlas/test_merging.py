from __future__ import annotations

import random
from pathlib import Path

import pytest
from atlas import made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.features import Feature, FeatureStore, read_features
from summit_graph.atlas.files import FolderLock
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.merging import common_ranking, merge_atlases
from summit_graph.atlas.schema import ATLAS_TABLES
from summit_graph.atlas.store import Store
from summit_graph.atlas.tables import build_tables, compact
from summit_graph.errors import AtlasError, UsageError


def files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not file.is_symlink() and file.name != ".lock"
    }


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 2), min_size=3, max_size=40), st.integers(0, 9))
def test_parts_merged_in_any_order_are_the_whole(
    tmp_path_factory, parts: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    images = made.images(len(parts))
    paths = []
    for part in range(3):
        own = [image for image, owner in zip(images, parts, strict=True) if owner == part]
        if own:
            paths.append(made.atlas(folder / f"part{part}", own, ranked=False))
    if len(paths) < 2:
        return
    merge_atlases(paths, folder / "one").close()
    random.Random(seed).shuffle(paths)
    merge_atlases(paths, folder / "other").close()
    assert files(folder / "one") == files(folder / "other")
    made.atlas(folder / "whole", images, ranked=False)
    assert made.tables(folder / "one") == made.tables(folder / "whole")
    merge_atlases(paths[1:] + paths[:1], folder / "third").close()
    if len(paths) == 3:
        merge_atlases(paths[:2], folder / "two").close()
        merge_atlases([paths[2], folder / "two"], folder / "nested").close()
        assert files(folder / "nested") == files(folder / "one")


def test_a_merged_atlas_is_ranked_and_added_to_like_any_other(tmp_path: Path) -> None:
    images = made.images(30)
    paths = [
        made.atlas(tmp_path / "a", images[:9]),
        made.atlas(tmp_path / "b", images[9:20], dataset={"name": "other"}, key="toy-1"),
    ]
    with merge_atlases(paths, tmp_path / "c") as store:
        assert store.path == tmp_path / "c"
        assert not (tmp_path / "c" / "ranks.parquet").exists()
        made.rank(store)
        store.plan(images)
        made.count(store)
        build_tables(store)
        made.rank(store)
    with Atlas.open(tmp_path / "c") as atlas:
        info = atlas.info()
        assert info["dataset"] == {"name": "made + other"}
        assert info["key"].startswith("toy-")
        assert info["key"] not in ("toy-0", "toy-1")
    made.atlas(tmp_path / "whole", images)
    assert made.tables(tmp_path / "c") == made.tables(tmp_path / "whole")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_folded_atlases_are_merged(tmp_path: Path) -> None:
    images = made.images(30)
    paths = [
        made.atlas(tmp_path / "a", images[:13], ranked=False),
        made.atlas(tmp_path / "b", images[13:], ranked=False),
    ]
    for path in paths:
        with Store.open_for_writing(path) as store:
            compact(store)
    merge_atlases(paths, tmp_path / "c").close()
    made.atlas(tmp_path / "whole", images, ranked=False)
    assert made.tables(tmp_path / "c") == made.tables(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_hash": "bb"}, 'weights_hash is "aaa.*" in the one and "bb" in the other'),
        (
            {"parameters": {**made.description().parameters, "k": 4}},
            "parameters.k is 5 in the one and 4 in the other",
        ),
        ({"preprocessing": {"size": [8, 8]}}, "preprocessing.mean is .* and nothing in the other"),
        ({"classes": made.CLASSES[1:]}, r"classes\[0\].index is 0 in the one and 2 in the other"),
        ({"layers": (made.LAYERS[0]._replace(chosen=False), *made.LAYERS[1:])}, "chosen is true"),
    ],
)
def test_other_counts_are_not_added(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    images = made.images(12)
    paths = [
        made.atlas(tmp_path / "a", images[:6], ranked=False),
        made.atlas(tmp_path / "b", images[6:], ranked=False, **changes),
    ]
    with pytest.raises(AtlasError, match=message):
        merge_atlases(paths, tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_images_in_several_are_refused_unless_allowed(tmp_path: Path) -> None:
    images = made.images(12)
    paths = [
        made.atlas(tmp_path / "a", images[:8], ranked=False),
        made.atlas(tmp_path / "b", images[3:], ranked=False),
    ]
    with pytest.raises(AtlasError, match=r"5 images are in several .*a/0003.png of .*; and 2 more"):
        merge_atlases(paths, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    doubled = {}
    for name, order in (("c", paths), ("d", paths[::-1])):
        with merge_atlases(order, tmp_path / name, allow_duplicates=True) as store:
            doubled[name] = made.tables(store.path)
            compact(store)
            build_tables(store)
            assert made.tables(store.path) == doubled[name]
            assert store.plan(images) == []
    assert doubled["c"] == doubled["d"]
    once = made.sums(images[:8])["activations"], made.sums(images[3:])["activations"]
    total: dict[tuple[int, ...], int] = {}
    for rows in once:
        for *key, count in rows:
            total[tuple(key)] = total.get(tuple(key), 0) + count
    rows = made.rows(doubled["c"]["activations"])
    assert rows == [(*key, count) for key, count in sorted(total.items())]
    assert doubled["c"]["images"].num_rows == 17
    for name, table in doubled["c"].items():
        assert table.schema.equals(ATLAS_TABLES[name])


def test_one_path_with_two_contents_stays_two_images(tmp_path: Path) -> None:
    images = made.images(6)
    other = [image._replace(hash=f"{at:060x}beef") for at, image in enumerate(images)]
    paths = [
        made.atlas(tmp_path / "a", images, ranked=False),
        made.atlas(tmp_path / "b", other, ranked=False),
    ]
    with merge_atlases(paths, tmp_path / "c") as store:
        before = made.tables(store.path)
        pairs = [row[1:4:2] for row in made.rows(before["images"])]
        assert pairs == sorted((image.path, image.hash) for image in images + other)
        compact(store)
        build_tables(store)
        assert made.tables(store.path) == before
        with pytest.raises(AtlasError, match=r"its content changed"):
            store.plan(images)


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "a", made.images(6))
    with Store.create(tmp_path / "b", made.description()) as store:
        store.plan(made.images(6, start=6))
        with pytest.raises(AtlasError, match=r"in use"):
            merge_atlases([path, store.path], tmp_path / "c")
    with pytest.raises(AtlasError, match=r"not finished: 3 of its 3 shards are not counted yet"):
        merge_atlases([path, tmp_path / "b"], tmp_path / "c")
    with pytest.raises(UsageError, match=r"two atlases or more"):
        merge_atlases([path], tmp_path / "c")
    with pytest.raises(AtlasError, match=r"no such folder"):
        merge_atlases([path, tmp_path / "x"], tmp_path / "c")
    with pytest.raises(AtlasError, match=r"is there already"):
        merge_atlases([path, path], tmp_path / "b")
    with pytest.raises(AtlasError, match=r"6 images are in several"):
        merge_atlases([path, path], tmp_path / "c")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a", "b"]


def test_leftovers_of_a_killed_merge_are_removed(tmp_path: Path) -> None:
    paths = [
        made.atlas(tmp_path / "a", made.images(4), ranked=False),
        made.atlas(tmp_path / "b", made.images(4, start=4), ranked=False),
    ]
    leftover = tmp_path / ".c.tmp-1-dead"
    leftover.mkdir()
    lock = FolderLock(leftover)
    with pytest.raises(AtlasError, match=r"in use"):
        merge_atlases(paths, tmp_path / "c")
    lock.release()
    merge_atlases(paths, tmp_path / "c").close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a", "b", "c"]


def test_common_ranking(tmp_path: Path) -> None:
    paths = [made.atlas(tmp_path / name, made.images(4)) for name in ("a", "b")]
    assert common_ranking(paths) == {"mass": 0.075}
    with Store.open_for_writing(paths[0]) as store:
        store.replace_tables({}, {"ranking": {"mass": 0.1}})
    assert common_ranking(paths) is None
    assert Generation.current(paths[0]).has("ranks")


def feature(channel: int, variant: int, seed: int) -> Feature:
    return Feature(
        layer=0,
        channel=channel,
        variant=variant,
        file=f"0-{channel}-{variant}.webp",
        activation=2.0,
        best_example=None,
        steps=8,
        size=16,
        seed=seed,
    )


def test_feature_visualisations_come_along(tmp_path: Path) -> None:
    """Of neuron 1 two have pictures: those of one come. Of neuron 3 a file is missing."""
    images = made.images(20)
    paths = [
        made.atlas(tmp_path / "a", images[:9]),
        made.atlas(tmp_path / "b", images[9:]),
        made.atlas(tmp_path / "c", made.images(6, start=30)),
    ]
    for seed, (path, channels) in enumerate(zip(paths, ((0, 1), (1, 2, 3)), strict=False)):
        with FeatureStore(path) as store:
            store.put(
                (feature(channel, variant, seed), f"{seed} {channel} {variant}".encode())
                for channel in channels
                for variant in (0, 1)
            )
    (paths[1] / "features" / "0-3-1.webp").unlink()
    merge_atlases(paths, tmp_path / "one").close()
    merge_atlases(paths[::-1], tmp_path / "other").close()
    assert files(tmp_path / "one") == files(tmp_path / "other")
    found = read_features(tmp_path / "one")
    assert set(found) == {(0, 0), (0, 1), (0, 2)}
    for own in found.values():
        assert [each.variant for each in own] == [0, 1]
        for each in own:
            content = (tmp_path / "one" / "features" / each.file).read_text()
            assert content == f"{each.seed} {each.channel} {each.variant}"
    paths[:2] = [made.atlas(tmp_path / "d", made.images(3, start=50))]
    merge_atlases(paths, tmp_path / "no").close()
    assert not (tmp_path / "no" / "features").exists()
