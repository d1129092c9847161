"""The notebooks run, here and in a browser, and what is kept of them is fit to be shown."""

from __future__ import annotations

import base64
import copy
import importlib.util
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import optional_package
from PIL import Image
from view.jupyter import Jupyter, Visit
from view.test_jupyter import VOILA

from summit_graph.graphdb.connection import Connection, opened, read_session
from summit_graph.graphdb.load import unload
from summit_graph.graphdb.server import HOME_VARIABLE

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPT = ROOT / "scripts" / "run_notebooks.py"

WIDGETS = {"01": 2, "02": 2, "03": 3, "04": 1, "05": 1}
"""Widgets that each notebook shows."""

GRAPHS = {"01": 3, "02": 3, "03": 4, "04": 1, "05": 1}
"""Canvases that are drawn in them; an explorer has its map and its graph."""

# What the widgets have to answer, run after the last cell; prints what they say.
QUESTIONS = {
    "01": """
widget.neuron = "conv4/26"
explorer.class_index = atlas.find("eight").index
print(said(widget).count("conv4/26") > 0, "eight" in said(explorer))
""",
    "02": """
widget.neuron = dog.neurons[0].name
explorer.class_index = atlas.find("bird").index
print(said(widget).count(dog.neurons[0].name) > 0, "bird" in said(explorer))
""",
    "03": """
database = GraphDB.open(loaded.key)
widget = attribution_widget(database, "three")
widget.neuron = "conv4/26"
print(said(widget).count("conv4/26") > 0, len(drawn.graph.nodes) == 10)
""",
    "04": """
widget.neuron = "mixed5b/503"
print(said(widget).count("mixed5b/503") > 0, True)
""",
    "05": """
widget.neuron = "conv4/17"
print(said(widget).count("conv4/17") > 0, True)
""",
}

SAID = """
import ipywidgets

def said(widget):
    own = [widget.value] if isinstance(widget, ipywidgets.HTML) else []
    return " ".join(own + [said(child) for child in getattr(widget, "children", ())])
"""

LINK = re.compile(r"\]\(([^)\s]+)\)")
HOSTS = {"arxiv.org", "fredhohman.com", "github.com"}

# An absolute path on somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|mnt|opt|srv|Users)(?:/|\b)")

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`scripts/run_notebooks.py` as a module."""
    optional_package("nbclient")
    spec = importlib.util.spec_from_file_location("run_notebooks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> Any:
    return optional_package("nbformat").read(path, as_version=4)


def test_there_are_five() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


# What is kept ---------------------------------------------------------------------------------


@notebooks
def test_a_kept_notebook_is_clean(path: Path) -> None:
    """No widget, path or message of one machine, and nothing that differs from run to run."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 700_000
    assert MACHINE_PATH.findall(text) == []
    kept = read(path)
    assert set(kept.metadata) == {"kernelspec", "language_info"}
    assert kept.metadata.language_info == {"name": "python"}
    count = 0
    for cell in kept.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type != "code":
            continue
        count += 1
        assert cell.execution_count == count
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result")
            assert output.get("name", "stdout") == "stdout"
            assert set(output.get("data", {})) <= {"text/plain", "image/png"}


@notebooks
def test_a_picture_stands_beside_each_widget(path: Path) -> None:
    """A cell that ends with a widget has no output; a later one before the next has a picture."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    shown = [
        at
        for at, cell in enumerate(cells)
        if cell.source.splitlines()[-1] in ("widget", "explorer", "drawn")
    ]
    assert len(shown) == WIDGETS[path.stem[:2]]
    assert all("data" not in output for at in shown for output in cells[at].outputs), (
        "a widget was kept"
    )
    assert sum(has_picture(cell) for cell in cells) >= 1
    if path.stem[:2] != "02":
        for at in shown:
            assert any(has_picture(cell) for cell in cells[max(0, at - 1) : at + 2])


def has_picture(cell: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


@notebooks
def test_pictures_are_whole(path: Path) -> None:
    for cell in read(path).cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                with Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))) as picture:
                    assert min(picture.size) > 100


@notebooks
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of the repository, or to where the documents lead as well."""
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    links = [urlsplit(link) for text in texts for link in LINK.findall(text)]
    assert links
    for link in links:
        if link.scheme:
            assert link.hostname in HOSTS, link.geturl()
        else:
            assert (path.parent / link.path).exists(), link.geturl()


# They run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tour(jupyter: Jupyter, test_data: Path, neo4j_home: Path) -> Iterator[Path]:
    """A folder that the server of the tests serves: the notebooks and their data.

    What the kernels are told stands in a startup file of their own, with no secret in it.
    """
    folder = jupyter.notebooks / "tour"
    folder.mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, folder)
    (folder / "data").symlink_to(test_data)
    told = {"SUMMIT_GRAPH_NOTEBOOK_STEPS": "1", HOME_VARIABLE: str(neo4j_home)}
    startup = jupyter.notebooks.parent / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    file = startup / "10-tour.py"
    file.write_text(f"import os\nos.environ.update({told!r})\n")
    yield folder
    file.unlink()


@pytest.fixture(scope="module")
def photos_counted(tour: Path, lite_atlas: Path) -> None:
    """The atlas that 02 would make, so that it only has to look whether there is a new photo."""
    optional_package("efficientnet_lite_pytorch")
    shutil.copytree(lite_atlas, tour / "imagenet.atlas", symlinks=True)


@pytest.fixture(scope="module")
def database(connection: Connection) -> Iterator[None]:
    """The Neo4j of the tests; what a notebook loads is taken out again."""
    before = models(connection)
    yield
    for key in models(connection) - before:
        unload(key, connection)


def models(connection: Connection) -> set[str]:
    with opened(connection) as driver, read_session(driver, connection) as session:
        return {record["key"] for record in session.run("MATCH (m:Model) RETURN m.key AS key")}


@pytest.fixture(scope="module")
def environment(jupyter: Jupyter) -> dict[str, str]:
    """Of kernels without a browser: like the server's, with nothing of this user's settings."""
    folder = jupyter.notebooks.parent
    own = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    return {
        **own,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
    }


NEEDS = {"02": "photos_counted", "03": "database", "05": "database"}
"""Fixtures that notebooks need besides."""

CHAINS = (("01", "03", "05"), ("02", "04"))
"""Notebooks that use one atlas, one after the other; the chains run side by side."""


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tour: Path, environment: dict[str, str], script: ModuleType
) -> Iterator[dict[str, Future[Any]]]:
    """Each notebook that is to be tested, run from top to bottom, with questions at its end."""
    chosen = {
        item.callspec.params["path"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == RUNS
    }
    for path in chosen:
        if path.stem[:2] in NEEDS:
            request.getfixturevalue(NEEDS[path.stem[:2]])
    done: dict[str, Future[Any]] = {path.stem[:2]: Future() for path in chosen}

    def chain(numbers: Sequence[str]) -> None:
        for path in sorted(chosen):
            if path.stem[:2] not in numbers:
                continue
            notebook = read(path)
            questions = SAID + QUESTIONS[path.stem[:2]]
            notebook.cells.append(optional_package("nbformat").v4.new_code_cell(questions))
            try:
                done[path.stem[:2]].set_result(script.run(notebook, tour, environment))
            except Exception as error:
                done[path.stem[:2]].set_exception(error)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(CHAINS)) as pool:
        for name, value in environment.items():
            patch.setenv(name, value)
        for numbers in CHAINS:
            pool.submit(chain, numbers)
        yield done


RUNS = "test_it_runs_from_top_to_bottom"


@notebooks
def test_it_runs_from_top_to_bottom(
    path: Path, runs: dict[str, Future[Any]], script: ModuleType
) -> None:
    """No error, the texts that were kept, and widgets that answer."""
    fresh = copy.deepcopy(runs[path.stem[:2]].result(timeout=600))
    answers = fresh.cells.pop().outputs
    assert [output.get("text") for output in answers] == ["True True\n"]
    kept = read(path)
    for old, new in zip(kept.cells, script.cleaned(fresh).cells, strict=True):
        assert old.id == new.id
        if old.cell_type == "code":
            assert kinds(new) == kinds(old), new.source
            if "varies" not in old.metadata.get("tags", ()):
                assert texts(new) == texts(old), new.source


def kinds(cell: Any) -> list[tuple[str, ...]]:
    return [(output.output_type, *sorted(output.get("data", ()))) for output in cell.outputs]


def texts(cell: Any) -> list[str]:
    return [output.text for output in cell.outputs if output.output_type == "stream"]


# In a browser ---------------------------------------------------------------------------------

CELLS = "window.jupyterapp.shell.currentWidget.content.model.cells"
DONE = f"""
() => [...{CELLS}].filter((cell) => cell.type === 'code').every((cell) =>
      cell.executionCount !== null && cell.executionState !== 'running')
  && window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'
"""
ERRORS = f"""
() => [...{CELLS}].filter((cell) => cell.type === 'code')
  .flatMap((cell) => cell.sharedModel.getOutputs())
  .filter((output) => output.output_type === 'error' || output.name === 'stderr')
  .map((output) => JSON.stringify(output))
"""
SHUT_DOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
DRAWN = """
() => [...document.querySelectorAll('.custom-widget')]
  .map((element) => element._cyreg?.cy?.nodes().length ?? 0)
"""


@pytest.fixture(scope="module")
def whole(jupyter: Jupyter) -> None:
    """JupyterLab draws all cells of a notebook, not only those that are in sight."""
    settings = jupyter.notebooks.parent / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))


@pytest.mark.parametrize("numbers", [("01", "02"), ("03", "04", "05")], ids="+".join)
@pytest.mark.usefixtures("runs", "whole")
def test_it_runs_in_jupyterlab(numbers: tuple[str, ...], jupyter: Jupyter) -> None:
    """All cells run, no error shows, and each graph is drawn; some run side by side."""
    with ExitStack() as stack:
        visits = {
            path.stem[:2]: stack.enter_context(jupyter.lab(f"tour/{path.name}"))
            for path in NOTEBOOKS
            if path.stem[:2] in numbers
        }
        for number, visit in visits.items():
            visit.wait(DONE)
            assert visit.page.evaluate(ERRORS) == []
            wait_drawn(visit, GRAPHS[number])
            assert visit.foreign == []
            visit.page.evaluate(SHUT_DOWN)


def wait_drawn(visit: Visit, graphs: int) -> None:
    """Until so many canvases have their nodes."""
    visit.wait(
        f"(graphs) => {{ const drawn = ({DRAWN})();"
        " return drawn.length === graphs && drawn.every((nodes) => nodes > 3); }",
        argument=graphs,
    )


@pytest.mark.usefixtures("runs")
def test_voila_serves_the_first_one(jupyter: Jupyter) -> None:
    """Served as a page without code: the graph is drawn, and a click on a neuron is answered."""
    with jupyter.voila("tour/01-first-look.ipynb") as visit:
        wait_drawn(visit, GRAPHS["01"])
        page = visit.page
        assert page.locator("text=from summit_graph import").count() == 0
        click_a_neuron(visit)
        page.wait_for_function("() => document.body.innerText.includes('conv4/26')")
        assert [address for address in visit.foreign if not address.startswith(VOILA)] == []


def click_a_neuron(visit: Visit) -> None:
    """Clicks the neuron of the last layer in the first graph, with the mouse."""
    graph = visit.page.locator(".custom-widget").first
    graph.scroll_into_view_if_needed()
    place = graph.evaluate(
        """(element) => {
          const cy = element._cyreg.cy;
          const node = cy.nodes('[label = "26"]')[0].renderedPosition();
          const frame = element.getBoundingClientRect();
          return [frame.left + node.x, frame.top + node.y];
        }"""
    )
    visit.page.mouse.click(*place)
