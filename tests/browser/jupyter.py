"""A real JupyterLab for tests: started in a folder of its own, driven through its own commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.async_api import Locator, Page, expect

from kit.work import trust
from tests.kernels import SHORT, profile

ROOT = Path(__file__).parents[2]
SETTINGS = {
    # Cells that are off screen are not in the page otherwise, and a test could not see them.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
RAISED = "[...document.querySelectorAll('[data-mime-type=\"application/vnd.jupyter.stderr\"]')].map((e) => e.textContent.slice(-300))"
PROMPTS = "() => [...document.querySelectorAll('.jp-CodeCell')].map((c) => c.querySelector('.jp-InputPrompt').textContent.trim())"


class Lab:
    """JupyterLab at `url` (without its token), serving `folder`."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self.url, self.token, self.folder = url, token, folder

    async def open(self, page: Page, notebook: str) -> LabPage:
        """The notebook in a page, with its kernel up."""
        await page.goto(f"{self.url}/lab/tree/{notebook}?token={self.token}&reset")
        lab = LabPage(page)
        await lab.ready()
        return lab


class LabPage:
    """One notebook in one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def ready(self) -> None:
        """The notebook is drawn and its kernel is idle."""
        await self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        await self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000
        )

    async def command(self, name: str, **arguments: Any) -> None:
        """Run a command of JupyterLab's, as its menu does, without waiting for what it starts."""
        await self.page.evaluate("([name, args]) => { void window.jupyterapp.commands.execute(name, args); }", [name, arguments])

    async def prompts(self) -> list[str]:
        """The `[n]:` of each code cell."""
        found: list[str] = await self.page.evaluate(PROMPTS)
        return found

    async def run_all(self) -> None:
        """Run All Cells, and wait until each has its number (the kernel's idle state comes too early)."""
        await self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")  # and the stored numbers
        await self.command("runmenu:run-all")
        # A cell that waits or runs shows [*]; done, it has a number that it did not have before. Behind one that raised, none gets any.
        await self.page.wait_for_function(
            f"() => {{ const all = ({PROMPTS})(); return all.every((p) => /\\d/.test(p)) || (all.includes('[ ]:') && {RAISED}.length); }}",
            timeout=300_000,
        )
        assert "[ ]:" not in await self.prompts(), await self.page.evaluate(RAISED)

    async def run_first(self, count: int) -> None:
        """Run only the first code cells, one after the other."""
        await self.page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
        for done in range(1, count + 1):
            kind = ""
            while kind != "code":  # a cell of text is run too, and passed
                kind = await self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.type")
                await self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
            await self.page.wait_for_function(f"(done) => ({PROMPTS})()[done - 1] === `[${{done}}]:`", arg=done)

    async def errors(self) -> list[str]:
        """What cells printed as errors."""
        stderr = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
        return await stderr.all_inner_texts()

    async def restart(self) -> None:
        """Restart the kernel and wait until it is back."""
        await self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        await self.ready()

    async def begin(self, source: str) -> None:
        """Run code in a new cell at the end, without waiting for it."""
        await self.page.evaluate(
            """(source) => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                const model = notebook.model.sharedModel;
                model.insertCell(model.cells.length, { cell_type: "code", source });
                notebook.activeCellIndex = notebook.widgets.length - 1;
                void window.jupyterapp.commands.execute("notebook:run-cell");
            }""",
            source,
        )

    async def last_prompt(self) -> str:
        return (await self.prompts())[-1]

    # ---- the panel in it ----

    @property
    def panel(self) -> Locator:
        """The last one."""
        return self.page.locator(".kit:not(.kit-faults)").last

    async def connected(self) -> None:
        await expect(self.panel.locator(".kit-state")).to_have_attribute("data-phase", "open", timeout=60_000)

    async def ask(self, text: str) -> None:
        """Type a prompt into the panel, as a person does."""
        await self.panel.locator("textarea").first.fill(text)
        await self.panel.locator("textarea").first.press("Enter")

    # ---- the end ----

    async def close(self) -> None:
        """End its kernel, and leave."""
        await self.page.evaluate("() => window.jupyterapp.shell.currentWidget?.sessionContext.shutdown()")
        await self.page.close()

    async def save(self) -> None:
        await self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")


@asynccontextmanager
async def jupyterlab(folder: Path, *, theme: str = "JupyterLab Light") -> AsyncIterator[Lab]:
    """JupyterLab on copies of the notebooks in `folder`; its own settings, its own token, loopback only."""
    work, home = folder / "work", folder / "home"
    shutil.copytree(ROOT / "notebooks", work)
    (home / "data").mkdir(parents=True)
    trust(work.rglob("*.ipynb"), home / "data")
    for name, settings in {**SETTINGS, "@jupyterlab/apputils-extension/themes": {"theme": theme}}.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with TemporaryDirectory(prefix="lab-", dir=SHORT, ignore_cleanup_errors=True) as short:
        sockets = Path(short)
        env = {
            **os.environ,
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(sockets),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "IPYTHONDIR": profile(sockets),
        }
        options = ["--no-browser", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={work}"]
        options += ["--LabApp.expose_app_in_browser=True", "--KernelManager.transport=ipc"]
        root = ["--allow-root"] if os.name == "posix" and os.geteuid() == 0 else []
        command = [sys.executable, "-m", "jupyterlab", *options, *root]
        with (folder / "jupyter.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, env=env, stdout=log, stderr=log, cwd=work, start_new_session=True)
        try:
            server = await listening(sockets, process, folder / "jupyter.log")
            yield Lab(server["url"].rstrip("/"), server["token"], work)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def listening(runtime: Path, process: asyncio.subprocess.Process, log: Path) -> dict[str, str]:
    """What the server writes about itself once it listens; raises RuntimeError with its log where it ended instead."""
    while process.returncode is None:
        if server := _written(runtime):
            return server
        await asyncio.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start: see {log}")


def _written(runtime: Path) -> dict[str, str] | None:
    """The server's own file, once it is whole."""
    for path in runtime.glob("jpserver-*.json"):
        with suppress(ValueError):
            server: dict[str, str] = json.loads(path.read_text())
            return server
    return None
