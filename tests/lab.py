"""JupyterLab as a learner meets it: `make lab`, driven through a browser."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nbformat
import psutil
from browser import PATIENCE
from playwright.sync_api import TimeoutError

from conftest import listening
from helpers.services import HOST
from helpers.workspace import REPOSITORY, Workspace, create_home


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[Workspace, str]]:
    """`make lab` on a home of its own, of a user who never started it: the home, and the printed address.

    At the end the user presses Ctrl-C and confirms, and nothing is left.
    """
    home = create_home(folder / "a home")
    user = {"HOME": str(folder), "BROWSER": "true", "WORKSHOP_HOME": str(home.home)}
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG"))}
    command, log = [sys.executable, "-m", "workshop.commands", "lab"], folder / "log"
    keyboard, terminal = pty.openpty()  # without a terminal, JupyterLab does not ask before it ends
    with log.open("w") as output:
        pipes = {"stdin": terminal, "stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
        door = subprocess.Popen(command, cwd=REPOSITORY, env=bare | user, **pipes)
    try:
        for _ in range(3000):  # ten minutes
            found = re.findall(r"http://127\.0\.0\.1:\d+/lab/tree/\S+\?token=\w+", log.read_text())
            if found and listening(door.pid):
                break
            assert door.poll() is None, log.read_text()
            time.sleep(0.2)
        assert {socket.laddr.ip for socket in listening(door.pid)} == {HOST}
        yield home, found[0]
        kernels = psutil.Process(door.pid).children(recursive=True)
        os.write(keyboard, b"y\n")  # the answer to the question that Ctrl-C leads to
        os.killpg(door.pid, signal.SIGINT)
        door.wait(120)
        assert "Shutdown confirmed" in log.read_text()
        assert psutil.wait_procs(kernels, timeout=60)[1] == [], "a kernel goes on after JupyterLab has ended"
    finally:
        if door.poll() is None:
            for process in [*psutil.Process(door.pid).children(recursive=True), door]:
                process.terminate()
            door.wait(20)
        os.close(keyboard)
        os.close(terminal)


class Tab:
    """A notebook in a tab of the browser, used by its menus and keys."""

    def __init__(self, browser, home: Workspace, address: str, name: str, root: Path = REPOSITORY):
        self.server, self.token = re.match(r"(http://[^/]+)/.*token=(\w+)", address).groups()
        self.path = home.path / "notebooks" / name
        root = os.path.commonpath([root, home.path])
        self.place = self.path.relative_to(root).as_posix()
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(PATIENCE)
        self.page.goto(f"{self.server}/lab/tree/{quote(self.place)}?token={self.token}")
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        self.wait()

    def menu(self, title: str, entry: str) -> None:
        """Choose an entry. Until the page knows that a notebook is in front, its menus have other ones."""
        found = self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$"))
        for _ in range(100):
            self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{title}$")).click()
            with contextlib.suppress(TimeoutError):
                found.wait_for(timeout=3000)
                break
            self.page.keyboard.press("Escape")
        found.click()  # once: a second time would run the cells again

    def _state(self) -> str | None:
        with urllib.request.urlopen(f"{self.server}/api/sessions?token={self.token}", timeout=60) as answer:
            states = {session["path"]: session["kernel"]["execution_state"] for session in json.load(answer)}
        return states.get(self.place)

    def wait(self, seconds: float = 1800) -> None:
        """Until the kernel has had nothing to do for a moment: between two cells it is idle, too."""
        until, idle = time.monotonic() + seconds, 0
        while idle < 6:
            assert time.monotonic() < until, f"the kernel of {self.path.stem} is still {self._state()}"
            time.sleep(0.25)
            idle = idle + 1 if self._state() == "idle" else 0

    def cells(self) -> list:
        """The code cells as saved now."""
        before = self.path.stat().st_mtime_ns
        for turn in range(1200):
            # Again and again: JupyterLab drops the command while an earlier save is under way.
            if turn % 60 == 0:
                self.menu("File", "Save Notebook")
            if self.path.stat().st_mtime_ns > before:
                with contextlib.suppress(nbformat.reader.NotJSONError):  # in the middle of writing
                    cells = nbformat.read(self.path, as_version=4).cells
                    return [cell for cell in cells if cell.cell_type == "code"]
            time.sleep(0.05)
        raise AssertionError(f"{self.path.name} was not saved")

    def errors(self) -> list[str]:
        outputs = [output for cell in self.cells() for output in cell.outputs]
        return [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]

    def open_heading(self, text: str) -> None:
        """Go there by the table of contents."""
        contents = self.page.locator(".jp-TableOfContents")
        if not contents.is_visible():
            self.page.locator('li[data-id="table-of-contents"]').click()
        contents.locator(".jp-tocItem-content", has_text=text).click()

    def edit(self, first_line: str, source: str) -> None:
        """Replace a cell's code, by its first line, and run it."""
        cell = self.page.locator(".jp-CodeCell", has=self.page.locator(".cm-content", has_text=first_line))
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")
