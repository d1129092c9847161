"""Which class of the atlas an image belongs to, and what the classes are called.

A source's labels are names of folders or the like; a model's outputs are numbers. A label finds
its output

1. as that number, where the source's labels are numbers (manifests and data sets);
2. by a classes file: as any value of a row but its index;
3. without one: by the category names that come with the weights (case aside, `_` as a blank);
4. else in sorted order, if there are exactly as many labels as outputs and no label is the
   category name of another output.

The class of an image is then its label's output, the predicted output, or the group that a
groups file puts its label's output in (docs/method.md, section 2).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from summit_graph.errors import ModelError, UsageError

Grouping = Literal["label", "prediction", "groups"]

_WNID = re.compile(r"n[0-9]{8}")
_SYNSET_COLUMNS = ("wnid", "synset")


@dataclass(frozen=True)
class ClassTable:
    """The classes of an atlas, and the ways that lead from an image to its class."""

    names: tuple[str, ...]
    """Readable, by class index."""
    synsets: tuple[str | None, ...]
    """WordNet ids such as n01440764, by class index."""
    class_of_output: tuple[int, ...]
    """By model output; -1: none."""
    grouping: Grouping
    output_by_label: Mapping[str, int]
    """The source's labels that have an output."""
    unmatched: tuple[str, ...] = ()
    """Labels without an output, which only happens by prediction: such images run unlabelled."""

    def output_of(self, label: str | None) -> int | None:
        """The model output that a source's label means; None without one."""
        return None if label is None else self.output_by_label.get(label)

    def classify(self, output_of_label: int | None, predicted: int) -> int:
        """The class of an image with this label's output (None: no label) and prediction, or -1."""
        output = predicted if self.grouping == "prediction" else output_of_label
        return -1 if output is None else self.class_of_output[output]

    def describe(self) -> dict[str, object]:
        """The classes as JSON values; two atlases count the same classes where these are equal.

        The labels are not among them, since a source may grow by a folder.
        """
        return {
            "grouping": self.grouping,
            "names": list(self.names),
            "synsets": list(self.synsets),
            "class_of_output": list(self.class_of_output),
        }


def class_table(
    labels: Sequence[str],
    outputs: int,
    categories: Sequence[str] | None,
    classes_file: Path | None,
    group_by: str,
    *,
    labels_are_outputs: bool,
) -> ClassTable:
    """The classes of a source's images under a model.

    `labels`: the source's distinct labels in plain string order. `outputs`: how many the model
    has. `categories`: the outputs' names as its weights give them. `group_by`: `label`,
    `prediction`, or the path of a groups file. `labels_are_outputs`: as the source says.

    By label and by prediction, the classes are the outputs; with a groups file they are its
    groups, in the order in which it first names them. An output's name is that of the classes
    file, else its category, else the label it has by sorted order, else its number.

    Raises:
        UsageError: a label has no output or several (not by prediction), there is no label where
            they are needed, or a file is malformed.
        ModelError: there are not as many categories as outputs.
    """
    if categories is not None and len(categories) != outputs:
        raise ModelError(
            f"The model has {outputs} outputs and {len(categories)} category names. Correct its "
            "'categories', or name the outputs with a classes file."
        )
    if group_by != "prediction" and not labels:
        raise UsageError(
            "The images have no labels. Put them into class folders, give a manifest with a column "
            "'label', or group by prediction."
        )
    rows = [] if classes_file is None else _class_rows(classes_file, outputs)
    output_by_label, unmatched = _outputs_by_label(
        labels, outputs, categories, classes_file, rows, labels_are_outputs, group_by
    )
    if group_by in ("label", "prediction"):
        names = [str(output) for output in range(outputs)]
        synsets: list[str | None] = [None] * outputs
        if classes_file is None and not labels_are_outputs and len(output_by_label) == outputs:
            for label, output in output_by_label.items():
                names[output] = label
                synsets[output] = label if _WNID.fullmatch(label) else None
        if categories is not None:
            names = list(categories)
        for row in reversed(rows):  # where an output has several rows, the first counts
            names[row.index], synsets[row.index] = row.name, row.synset
        return ClassTable(
            tuple(names),
            tuple(synsets),
            tuple(range(outputs)),
            "prediction" if group_by == "prediction" else "label",
            output_by_label,
            unmatched,
        )
    groups, class_of_output = _groups(Path(group_by), outputs)
    return ClassTable(
        groups, (None,) * len(groups), class_of_output, "groups", output_by_label, unmatched
    )


@dataclass(frozen=True)
class _ClassRow:
    """A line of a classes file."""

    line: int
    index: int
    name: str
    synset: str | None
    values: tuple[str, ...]
    """All fields but the index: what a label may be."""
    text: str


class _Names:
    """Outputs by name: as it is written, and by its folded form."""

    def __init__(self) -> None:
        self._exact: dict[str, set[int]] = {}
        self._folded: dict[str, set[int]] = {}

    def add(self, name: str, output: int) -> None:
        self._exact.setdefault(name, set()).add(output)
        self._folded.setdefault(_fold(name), set()).add(output)

    def outputs(self, label: str) -> tuple[int, ...]:
        """The outputs of that name; by its folded form where none is written so."""
        found = self._exact.get(label) or self._folded.get(_fold(label)) or ()
        return tuple(sorted(found))


def _fold(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _outputs_by_label(
    labels: Sequence[str],
    outputs: int,
    categories: Sequence[str] | None,
    classes_file: Path | None,
    rows: Sequence[_ClassRow],
    labels_are_outputs: bool,
    group_by: str,
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The output of each label, and the labels without one."""
    if labels_are_outputs:
        for label in labels:
            if int(label) >= outputs:
                raise UsageError(
                    f"The label {label} is the number of no output: the model has {outputs}, from "
                    "0 on. Correct the labels, or use names."
                )
        return {label: int(label) for label in labels}, ()
    names = _Names()
    if classes_file is not None:
        for row in rows:
            for value in row.values:
                names.add(value, row.index)
    else:
        for output, category in enumerate(categories or ()):
            names.add(category, output)
    found = {label: names.outputs(label) for label in labels}
    if (
        classes_file is None
        and not all(len(matches) == 1 for matches in found.values())
        and len(labels) == outputs
        and all(not found[label] or at in found[label] for at, label in enumerate(labels))
    ):
        return {label: at for at, label in enumerate(labels)}, ()
    several = [label for label in labels if len(found[label]) > 1]
    if several:
        raise UsageError(
            f"The label '{several[0]}' is the name of the outputs "
            f"{', '.join(map(str, found[several[0]]))}. Tell them apart with a classes file "
            f"in which folder names are unique:\n{_example(several[0], rows)}"
        )
    unmatched = tuple(label for label in labels if not found[label])
    if unmatched and group_by != "prediction":
        others = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        where = (
            "none of the model's category names"
            if classes_file is None
            else f"in no row of '{classes_file}'"
        )
        count = "" if classes_file else f", and {len(labels)} labels are not {outputs} outputs"
        raise UsageError(
            f"The label '{unmatched[0]}'{others} is {where}{count}. A classes file has "
            f"a row for each, such as:\n{_example(unmatched[0], rows)}"
        )
    return {label: matches[0] for label, matches in found.items() if matches}, unmatched


def _example(label: str, rows: Sequence[_ClassRow]) -> str:
    """The head and a line of a classes file: of the one in use, or of one for this label."""
    return rows[0].text if rows else f"index,folder,name\n0,{label},a readable name"


def _class_rows(path: Path, outputs: int) -> list[_ClassRow]:
    rows: list[_ClassRow] = []
    first: dict[int, _ClassRow] = {}
    for line, fields in _csv_rows(path, ("index", "name")):
        index = _output(fields["index"], outputs, path, line)
        synset = next((fields[column] for column in _SYNSET_COLUMNS if fields.get(column)), None)
        values = tuple(value for column, value in fields.items() if column != "index" and value)
        text = "\n".join(map(_csv_line, (fields, fields.values())))
        if not fields["name"]:
            raise UsageError(f"'{path}', line {line}: the name is empty.")
        row = _ClassRow(line, index, fields["name"], synset, values, text)
        known = first.setdefault(index, row)
        if known.name != row.name:
            raise UsageError(
                f"'{path}' names output {index} twice: '{known.name}' in line {known.line} and "
                f"'{row.name}' in line {line}. Keep one of them."
            )
        rows.append(row)
    return rows


def _csv_line(fields: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _groups(path: Path, outputs: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The groups' names, and the group of each output (-1: none)."""
    if not path.is_file():
        raise UsageError(
            f"Cannot group by '{path}': it is neither 'label' nor 'prediction', and no such file "
            "exists. A groups file has the columns index,group."
        )
    numbers: dict[str, int] = {}
    class_of_output = [-1] * outputs
    lines: dict[int, int] = {}
    for line, fields in _csv_rows(path, ("index", "group")):
        output = _output(fields["index"], outputs, path, line)
        group = fields["group"]
        if not group:
            raise UsageError(f"'{path}', line {line}: the group is empty.")
        number = numbers.setdefault(group, len(numbers))
        if class_of_output[output] not in (-1, number):
            raise UsageError(
                f"'{path}' puts output {output} in two groups: "
                f"'{list(numbers)[class_of_output[output]]}' in line {lines[output]} and '{group}' "
                f"in line {line}. An image has one class: keep one of them."
            )
        class_of_output[output] = number
        lines[output] = line
    return tuple(numbers), tuple(class_of_output)


def _output(text: str, outputs: int, path: Path, line: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"'{path}', line {line}: the index '{text}' is no whole number from 0 on.")
    if int(text) >= outputs:
        raise UsageError(
            f"'{path}', line {line}: there is no output {text}; the model has {outputs}, from 0 on."
        )
    return int(text)


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file that has these columns: (line, field by lower-case column)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip().casefold() for name in next(reader, [])]
            missing = [column for column in columns if column not in header]
            if missing or len(set(header)) < len(header):
                raise UsageError(
                    f"'{path}', line 1: the columns are {', '.join(header) or 'missing'}. It needs "
                    f"{' and '.join(columns)}, each once."
                )
            count = 0
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise UsageError(
                        f"'{path}', line {reader.line_num}: {len(fields)} fields in "
                        f"{len(header)} columns."
                    )
                count += 1
                values = (field.strip() for field in fields)
                yield reader.line_num, dict(zip(header, values, strict=True))
            if not count:
                raise UsageError(f"'{path}' has a head and no rows.")
    except OSError as error:
        raise UsageError(f"The file '{path}' cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"The file '{path}' is no CSV in UTF-8: {error}.") from error
