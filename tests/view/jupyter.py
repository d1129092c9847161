"""One Jupyter server and one browser for all tests that run notebooks where people run them.

JupyterLab, Notebook 7 and Voilà come from the same server, on this machine alone. What a page asks
of any other address is refused and noted, and so is what its console says went wrong.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

STARTS_WITHIN = 60.0
"""Seconds."""

KERNEL = 60_000
"""Milliseconds that a notebook may take to run."""


@dataclass
class Visit:
    """A page of a notebook in the browser. foreign: addresses it asked elsewhere; errors: said."""

    page: Any
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def wait(self, script: str, timeout: int = KERNEL, argument: Any = None) -> None:
        """Until a JavaScript function of `argument` gives something true."""
        try:
            self.page.wait_for_function(script, arg=argument, timeout=timeout)
        except Exception as error:
            error.add_note(f"the console says {self.errors}; the page reads:")
            error.add_note(self.page.inner_text("body")[-3000:])
            raise


@dataclass
class Jupyter:
    """The running server. notebooks: the folder it serves; url: ends without a slash."""

    notebooks: Path
    url: str
    token: str
    browser: Any

    def write(self, name: str, *cells: str) -> str:
        """A notebook of code cells; returns its name."""
        import nbformat

        v4 = nbformat.v4
        notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.notebooks / name)
        return name

    @contextmanager
    def lab(self, name: str, **size: int) -> Iterator[Visit]:
        """A notebook opened in JupyterLab, its cells running."""
        with self._visit(f"/lab/workspaces/{secrets.token_hex(4)}/tree/{name}", **size) as visit:
            self._run_all(visit)
            yield visit

    @contextmanager
    def notebook(self, name: str, **size: int) -> Iterator[Visit]:
        """A notebook opened in Notebook 7, its cells running."""
        with self._visit(f"/notebooks/{name}", **size) as visit:
            self._run_all(visit)
            yield visit

    @contextmanager
    def voila(self, name: str, **size: int) -> Iterator[Visit]:
        """A notebook as Voilà serves it: run, and without its code."""
        with self._visit(f"/voila/render/{name}", **size) as visit:
            yield visit

    @contextmanager
    def _visit(self, path: str, width: int = 1280, height: int = 900) -> Iterator[Visit]:
        with ExitStack() as stack:
            context = self.browser.new_context(
                viewport={"width": width, "height": height}, accept_downloads=True
            )
            stack.callback(context.close)
            visit = Visit(context.new_page())

            def at_home(route: Any) -> None:
                address = route.request.url
                if address.startswith(self.url):
                    route.continue_()
                else:
                    visit.foreign.append(address)
                    route.abort()

            context.route("http*://**/*", at_home)
            visit.page.on(
                "console",
                lambda said: visit.errors.append(said.text) if said.type == "error" else None,
            )
            visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
            separator = "&" if "?" in path else "?"
            visit.page.goto(f"{self.url}{path}{separator}token={self.token}", timeout=KERNEL)
            yield visit

    def _run_all(self, visit: Visit) -> None:
        app = "window.jupyterapp"
        visit.wait(
            f"() => {app}?.shell?.currentWidget?.content?.model?.cells?.length > 0"
            f" && {app}.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'"
        )
        visit.page.evaluate(f"() => {{ {app}.commands.execute('notebook:run-all-cells'); }}")


@pytest.fixture(scope="session")
def jupyter(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """The Jupyter server, in the tests' browser, until the tests are done."""
    # Not on top: conftest itself imports this module.
    from conftest import optional_package

    for package in ("jupyterlab", "notebook", "voila", "ipycytoscape"):
        optional_package(package)
    folder = tmp_path_factory.mktemp("jupyter")
    with _server(folder) as (url, token):
        yield Jupyter(folder / "notebooks", url, token, browser)


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, str]]:
    """A server with nothing of this user's own settings; its address and token."""
    (folder / "notebooks").mkdir()
    quiet = folder / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    settings = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(settings))
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
        f"--ServerApp.root_dir={folder / 'notebooks'}",
        f"--IdentityProvider.token={token}",
        "--LabApp.extension_manager=readonly",
        "--LabApp.expose_app_in_browser=True",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    log = folder / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, env=environment, stdout=written, stderr=written, cwd=folder
        )
    try:
        yield _address(process, folder / "runtime", log), token
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Where the server answers, as its runtime file says."""
    file = runtime / f"jpserver-{process.pid}.json"
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if file.exists() and (text := file.read_text()).strip().endswith("}"):
            return f"http://127.0.0.1:{json.loads(text)['port']}"
        time.sleep(0.1)
    raise AssertionError(f"Jupyter did not start:\n{log.read_text(errors='replace')[-4000:]}")
