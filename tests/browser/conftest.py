"""A real JupyterLab in a real Chromium: one server for the run, one page for each notebook."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parent.parent.parent
INSTALL = "the browser tests need Chromium: apt-get install chromium, brew install chromium, …"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The browser: `S2S_CHROMIUM`, or the first that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("S2S_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def pytest_collection_modifyitems(items):
    """Whole notebooks first: they take the longest, and no worker should be left with one."""
    items.sort(key=lambda item: item.path != Path(__file__).with_name("test_notebooks.py"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab on a copy of the notebooks; gives its folder, its address and its token."""
    folder = tmp_path_factory.mktemp("lab")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "notebooks" / "figures", folder / "figures")
    # Notebook 08 reads what the benchmarks found.
    shutil.copytree(ROOT / "benchmarks" / "results", folder.parent / "benchmarks" / "results")
    settings = tmp_path_factory.mktemp("settings")
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "overrides.json").write_text(
        json.dumps({"@jupyterlab/apputils-extension:notification": quiet})
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = secrets.token_hex(16), folder.parent / "lab.log"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        f"--LabApp.app_settings_dir={settings}",
        "--LabApp.expose_app_in_browser=True",
        # Asked to end, a kernel with a widget's page waits for half of this before it is told to.
        "--KernelManager.shutdown_wait_time=0.2",
    ]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), JUPYTER_PREFER_ENV_PATH="1")
    # Its own settings, not those of whoever runs the tests: a dark theme, say.
    environment |= {"JUPYTER_CONFIG_DIR": str(settings), "JUPYTERLAB_SETTINGS_DIR": str(settings)}
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=1)
            break
        except OSError:
            if server.poll() is not None:
                pytest.fail(f"JupyterLab ended: {log.read_text('utf-8')[-2000:]}")
            time.sleep(0.5)
    yield folder, address, token
    server.terminate()
    server.wait(timeout=20)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a head."""
    if chromium() is None:
        # An automatic run must not be green because nothing was tested.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(INSTALL)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=chromium(),
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 800},
        )
        context.set_default_timeout(30_000)
        yield context
        context.close()


class Lab:
    """One notebook, open in JupyterLab. `errors` has what the page complained of."""

    def __init__(self, page, address: str, token: str, name: str):
        self.page, self.errors, self.name = page, [], name
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: message.type == "error" and self.errors.append(message.text),
        )
        page.goto(f"{address}/lab/tree/{name}?token={token}&reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        # Sooner, and JupyterLab would ask for a kernel.
        page.wait_for_selector("text=/\\| Idle$/", timeout=60_000)

    def run_all(self, seconds: float = 300) -> None:
        """Run every cell and wait for the kernel; an output that is a traceback fails the test."""
        self.page.click(".lm-MenuBar-itemLabel >> text='Run'")
        self.page.click("[data-command='runmenu:run-all']")
        self.page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputArea-prompt")];
                return document.querySelector("[data-mime-type='application/vnd.jupyter.error']")
                    || prompts.length && prompts.every((p) => /\\[\\d+\\]/.test(p.textContent));
            }""",
            timeout=seconds * 1000,
        )
        errors = self.page.locator("[data-mime-type='application/vnd.jupyter.error']")
        assert errors.count() == 0, errors.first.inner_text()

    def widget(self, name: str, number: int = 0):
        """The widget of this class name, such as "label-smoothing", scrolled into view."""
        found = self.page.locator(f".s2s-{name}").nth(number)
        found.wait_for(state="attached", timeout=60_000)
        found.scroll_into_view_if_needed()
        return found

    def python(self, code: str) -> str:
        """Run a line in the open notebook's kernel, in a new last cell, and give what it prints."""
        page = self.page
        # Beside its text, which ends the editing of cells: in the middle there may be a widget. No
        # Escape, for the widget that has the focus knows that key as well.
        page.locator(".jp-NotebookPanel .jp-Cell").last.click(position={"x": 40, "y": 10})
        page.keyboard.press("b")
        page.keyboard.press("Enter")
        page.keyboard.insert_text(code)
        page.keyboard.press("Control+Enter")
        last = page.locator(".jp-NotebookPanel .jp-CodeCell").last
        last.locator(".jp-InputArea-prompt", has_text="]:").wait_for()
        done = "all => /\\[\\d+\\]/.test(all.at(-1).textContent)"
        page.wait_for_function(
            f"({done})([...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')])"
        )
        return last.locator(".jp-OutputArea").inner_text().strip()

    def dark(self, on: bool) -> None:
        """JupyterLab's dark or light theme."""
        name = "JupyterLab Dark" if on else "JupyterLab Light"
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            name,
        )
        self.page.wait_for_function(
            f"document.body.dataset.jpThemeLight === '{'false' if on else 'true'}'"
        )

    def picture(self, element, path) -> None:
        """A screenshot of the widget with what stands around it, for human eyes."""
        element.scroll_into_view_if_needed()
        self.page.wait_for_timeout(200)
        self.page.screenshot(path=path)

    def milliseconds(self, act: str, change: str, element) -> float:
        """The time from the event that the JavaScript `act` makes until the first change that the
        JavaScript `change` sees is on the screen, both called with the widget's element."""
        return element.evaluate(
            f"""(el) => new Promise((done, fail) => {{
                const act = {act}, change = {change}, before = JSON.stringify(change(el));
                const start = performance.now();
                const painted = () => setTimeout(() => done(performance.now() - start));
                const look = () => {{
                    if (JSON.stringify(change(el)) !== before) requestAnimationFrame(painted);
                    else if (performance.now() - start > 20000) fail(new Error("no change"));
                    else requestAnimationFrame(look);
                }};
                act(el);
                look();
            }})"""
        )


@pytest.fixture
def open_lab(browser, lab):  # in this order: no server where there is no browser
    """open_lab(name) opens a notebook of the course; open_lab(name, cells) one of these cells.

    `without`: a regular expression; cells in which it is found are left out, such as trainings that
    no widget needs. The notebooks' own test runs them all.
    """
    folder, address, token = lab
    pages = []

    def opened(name: str, cells: list[str] | None = None, without: str | None = None) -> Lab:
        if without is not None:
            notebook = nbformat.read(folder / name, 4)
            kept = [cell for cell in notebook.cells if not re.search(without, cell.source)]
            assert len(kept) < len(notebook.cells)
            notebook.cells = kept
            nbformat.write(notebook, folder / name)
        if cells is not None:
            notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
            notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
            nbformat.write(notebook, folder / name)
        pages.append(page := browser.new_page())
        return Lab(page, address, token, name)

    yield opened
    for page in pages:
        page.close()
    # A kernel for each notebook would fill the memory.
    ask = urllib.request.Request(f"{address}/api/sessions?token={token}")
    for session in json.load(urllib.request.urlopen(ask)):
        urllib.request.urlopen(
            urllib.request.Request(
                f"{address}/api/sessions/{session['id']}?token={token}", method="DELETE"
            )
        )
