"""Labels find their outputs, outputs their classes, and what does not fit is said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summit_graph.errors import ModelError, UsageError
from summit_graph.images.classes import ClassTable, class_table

PETS = ("Siamese_cat", "crane", "great white shark", "crane")


def table(
    labels: Sequence[str],
    outputs: int = 4,
    categories: Sequence[str] | None = None,
    classes_file: Path | None = None,
    group_by: str = "label",
    labels_are_outputs: bool = False,
) -> ClassTable:
    return class_table(
        labels, outputs, categories, classes_file, group_by, labels_are_outputs=labels_are_outputs
    )


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def classes_file(tmp_path: Path) -> Path:
    return written(
        tmp_path / "classes.csv",
        "Index,wnid,name\n2,n00000002,cat\n0,n00000000,dog\n3,n00000003,crane\n1,n00000001,crane\n",
    )


# Without a classes file


def test_folder_names_are_category_names() -> None:
    classes = table(("Great_White  shark", "siamese cat"), categories=PETS)
    assert classes.output_of("siamese cat") == 0
    assert classes.output_of("Great_White  shark") == 2
    assert classes.output_of(None) is None
    assert classes.names == PETS
    assert classes.synsets == (None,) * 4
    assert classes.class_of_output == (0, 1, 2, 3)


def test_a_name_of_two_outputs_matters_only_where_a_folder_has_it() -> None:
    with pytest.raises(UsageError, match=r"'crane' is the name of the outputs 1, 3(.|\n)*index,"):
        table(("crane", "siamese cat"), categories=PETS)


def test_as_written_goes_before_folded() -> None:
    classes = table(("Polish", "polish"), outputs=3, categories=("polish", "Polish", "x"))
    assert [classes.output_of(label) for label in ("Polish", "polish")] == [1, 0]


def test_as_many_folders_as_outputs_are_taken_in_sorted_order() -> None:
    labels = ("n01440764", "n01443537", "x")
    classes = table(labels, outputs=3)
    assert [classes.output_of(label) for label in labels] == [0, 1, 2]
    assert classes.names == labels
    assert classes.synsets == ("n01440764", "n01443537", None)
    named = table(labels, outputs=3, categories=("tench", "goldfish", "shark"))
    assert [named.output_of(label) for label in labels] == [0, 1, 2]
    assert named.names == ("tench", "goldfish", "shark")
    assert named.synsets == ("n01440764", "n01443537", None)


def test_sorted_order_yields_to_a_folder_that_says_otherwise() -> None:
    with pytest.raises(UsageError, match="'lion' is none of the model's category names, and 3"):
        table(("ant", "lion", "zebra"), outputs=3, categories=("zebra", "cat", "ant"))
    classes = table(("crane", "n1", "n2", "n3"), categories=("crane", "a", "b", "crane"))
    assert classes.output_of("crane") == 0


def test_numbered_folders_are_names_like_others() -> None:
    labels = tuple(sorted(str(number) for number in range(11)))
    classes = table(labels, outputs=11)
    assert classes.output_of("10") == 2
    numbered = table(labels, outputs=11, labels_are_outputs=True)
    assert numbered.output_of("10") == 10
    assert numbered.names == tuple(str(number) for number in range(11))


def test_an_unmatched_folder_is_shown_with_a_line_of_a_classes_file() -> None:
    with pytest.raises(UsageError) as caught:
        table(("n00000002", "n00000005"))
    message = str(caught.value)
    assert "'n00000002' (and 1 more)" in message
    assert "2 labels are not 4 outputs" in message
    assert message.endswith("index,folder,name\n0,n00000002,a readable name")


def test_output_numbers_that_the_model_has_not() -> None:
    with pytest.raises(UsageError, match="label 4 is the number of no output: the model has 4"):
        table(("1", "4"), labels_are_outputs=True)


def test_categories_have_to_be_as_many_as_outputs() -> None:
    with pytest.raises(ModelError, match="4 outputs and 3 category names"):
        table(("a",), categories=("a", "b", "c"))


# With a classes file


def test_any_column_matches(classes_file: Path) -> None:
    classes = table(("cat", "n00000003"), classes_file=classes_file)
    assert classes.output_of("n00000003") == 3
    assert classes.output_of("cat") == 2
    assert classes.names == ("dog", "crane", "cat", "crane")
    assert classes.synsets == tuple(f"n0000000{output}" for output in range(4))


def test_the_files_names_go_before_the_categories(classes_file: Path) -> None:
    written(classes_file, "index,name\n1,one\n")
    classes = table(("one",), classes_file=classes_file, categories=("a", "b", "c", "d"))
    assert classes.names == ("a", "one", "c", "d")
    assert table(("one",), classes_file=classes_file).names == ("0", "one", "2", "3")
    with pytest.raises(UsageError, match=r"'a' is in no row of .*classes\.csv'"):
        table(("a",), classes_file=classes_file, categories=("a", "b", "c", "d"))


def test_two_folders_of_one_output(classes_file: Path) -> None:
    written(classes_file, "index,folder,name\n1,left,one\n1,right,one\n")
    classes = table(("left", "right"), classes_file=classes_file)
    assert [classes.output_of(label) for label in ("left", "right")] == [1, 1]


def test_an_unmatched_folder_is_shown_with_a_line_of_the_file(classes_file: Path) -> None:
    written(classes_file, 'index,wnid,name\n0,n00000000,"dog, pet"\n')
    with pytest.raises(UsageError) as caught:
        table(("n9",), classes_file=classes_file)
    assert "'n9' is in no row" in str(caught.value)
    assert str(caught.value).endswith('index,wnid,name\n0,n00000000,"dog, pet"')


def test_an_ambiguous_value_of_the_file(classes_file: Path) -> None:
    with pytest.raises(UsageError, match="'crane' is the name of the outputs 1, 3"):
        table(("crane",), classes_file=classes_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are missing. It needs index and name"),
        ("number,name\n", "the columns are number, name. It needs index and name"),
        ("index,name,name\n", "each once"),
        ("index,name\n", "has a head and no rows"),
        ("index,name\n0,a\n1\n", "line 3: 1 fields in 2 columns"),
        ("index,name\n0,a\n\nx,b\n", "line 4: the index 'x' is no whole number"),
        ("index,name\n-1,a\n", "line 2: the index '-1' is no whole number"),
        ("index,name\n²,a\n", "line 2: the index '²' is no whole number"),
        ("index,name\n4,a\n", "line 2: there is no output 4; the model has 4"),
        ("index,name\n0,\n", "line 2: the name is empty"),
        ("index,name\n1,a\n1,b\n", "output 1 twice: 'a' in line 2 and 'b' in line 3"),
        ('index,name\n0,"a\n', "no CSV"),
    ],
)
def test_a_faulty_classes_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        table(("a",), classes_file=written(tmp_path / "classes.csv", text))


def test_a_missing_classes_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv' cannot be read: No such file"):
        table(("a",), classes_file=tmp_path / "gone.csv")


# Groupings


def test_by_label() -> None:
    classes = table(("a", "b"), outputs=2)
    assert classes.grouping == "label"
    assert classes.classify(1, 0) == 1
    assert classes.classify(None, 0) == -1


def test_by_prediction() -> None:
    classes = table((), outputs=2, group_by="prediction")
    assert classes.grouping == "prediction"
    assert classes.classify(None, 1) == 1
    assert classes.classify(0, 1) == 1
    assert classes.names == ("0", "1")


def test_by_prediction_labels_may_mean_nothing_to_the_model() -> None:
    classes = table(("holiday", "siamese cat"), categories=PETS, group_by="prediction")
    assert classes.unmatched == ("holiday",)
    assert classes.output_of("holiday") is None
    assert classes.output_of("siamese cat") == 0


def test_by_groups(tmp_path: Path) -> None:
    groups = written(tmp_path / "groups.csv", "index,group\n3,bird\n0,pet\n1,bird\n1,bird\n")
    classes = table(("a", "b", "c", "d"), group_by=str(groups))
    assert classes.grouping == "groups"
    assert classes.names == ("bird", "pet")
    assert classes.synsets == (None, None)
    assert classes.class_of_output == (1, 0, -1, 0)
    assert [classes.classify(output, 0) for output in (0, 1, 2, 3, None)] == [1, 0, -1, 0, -1]
    assert classes.output_of("c") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "index,group\n1,bird\n0,pet\n1,pet\n",
            "output 1 in two groups: 'bird' in line 2 and 'pet' in line 4",
        ),
        ("index,group\n9,bird\n", "line 2: there is no output 9"),
        ("index,group\n1, \n", "line 2: the group is empty"),
        ("index,name\n1,bird\n", "It needs index and group"),
    ],
)
def test_a_faulty_groups_file(tmp_path: Path, text: str, message: str) -> None:
    groups = written(tmp_path / "groups.csv", text)
    with pytest.raises(UsageError, match=message):
        table(("a", "b", "c", "d"), group_by=str(groups))


def test_a_grouping_that_is_none() -> None:
    with pytest.raises(UsageError, match="neither 'label' nor 'prediction'"):
        table(("a", "b", "c", "d"), group_by="colour")


@pytest.mark.parametrize("group_by", ["label", "groups.csv"])
def test_labels_are_needed_except_by_prediction(group_by: str) -> None:
    with pytest.raises(UsageError, match="group by prediction"):
        table((), group_by=group_by)


def test_a_description_is_json_and_does_not_grow_with_the_source(classes_file: Path) -> None:
    some = table(("cat",), classes_file=classes_file).describe()
    more = table(("cat", "dog"), classes_file=classes_file).describe()
    assert some == more == json.loads(json.dumps(some))
    assert some != table(("cat",), classes_file=classes_file, group_by="prediction").describe()
    some = table(("siamese cat",), categories=PETS).describe()
    assert some == table(("great white shark",), categories=PETS).describe()


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.data())
def test_every_image_has_the_class_of_its_output(groups: list[str], data: st.DataObject) -> None:
    """A file with any grouping of any outputs, against a dictionary."""
    import tempfile

    outputs = len(groups) + 2
    chosen = data.draw(st.permutations(range(outputs)))[: len(groups)]
    lines = [f"{output},{group}" for output, group in zip(chosen, groups, strict=True)]
    labels = [str(output) for output in range(outputs)]
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "g.csv", "\n".join(["index,group", *lines]))
        classes = table(sorted(labels), outputs, group_by=str(path), labels_are_outputs=True)
    expected = dict(zip(chosen, groups, strict=True))
    for label in labels:
        output = classes.output_of(label)
        index = classes.classify(output, 0)
        assert (classes.names[index] if index >= 0 else None) == expected.get(int(label))


# ImageNet's own files


def test_imagenet_classes_and_groups(test_data: Path) -> None:
    classes_path, groups_path = (
        test_data / "imagenet-classes.csv",
        test_data / "imagenet-groups.csv",
    )
    folders = sorted(path.name for path in (test_data / "imagenet-sample").iterdir())
    classes = table(folders, 1000, classes_file=classes_path)
    assert classes.output_of("n01440764") == 0
    assert classes.names[0] == "tench"
    assert classes.synsets[0] == "n01440764"
    assert sorted(name for name, many in Counter(classes.names).items() if many > 1) == [
        "crane",
        "maillot",
    ]
    outputs = [classes.output_of(folder) for folder in folders]
    assert None not in outputs
    assert len(set(outputs)) == 900
    groups = table(folders, 1000, classes_file=classes_path, group_by=str(groups_path))
    assert len(groups.names) == 12
    assert groups.names[0] == "dog"
    assert sum(group >= 0 for group in groups.class_of_output) == 318
    assert sum(groups.classify(output, 0) >= 0 for output in outputs) == 283
    with pytest.raises(UsageError, match=r"'n01440764' .*900 labels are not 1000 outputs"):
        table(folders, 1000)
    with pytest.raises(UsageError, match="'crane' is the name of the outputs 134, 517"):
        table(("crane",), 1000, classes_file=classes_path)
