"""A report of a tiny engine, and a Chromium to open it in."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from xllmc.compiler.commands.explain_command import steps
from xllmc.compiler.pipeline.replay import replay
from xllmc.compiler.report.explain import explain_html
from xllmc.runtime.artifact.reader import read_plan

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Opened:
    """A page, and what went wrong on it: messages of errors and warnings, and addresses it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def chosen(self, side: str = "after") -> str | None:
        """The value that the graph of a side has selected."""
        return self.page.get_attribute(f"#canvas-{side}", "data-selected")

    def boxes(self, side: str = "after") -> int:
        """Boxes that the graph of a side shows or would on scrolling; waits for the next frame."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return int(self.page.get_attribute(f"#canvas-{side}", "data-boxes") or 0)


OpenPage = Callable[..., Opened]


def write_explained(engine: Path, out: Path) -> Path:
    """The engine's report, with costs that are made up: every kernel's number, and a tenth more measured."""
    kernels = sorted({launch.kernel for function in read_plan(engine).functions for launch in function.launches})
    costs = {
        phase: {name: (scale * (i + 1), scale * (i + 1) * 1.1) for i, name in enumerate(kernels)}
        for phase, scale in (("decode", 1.0), ("prefill", 50.0))
    }
    explain_html(engine, steps(replay(engine)), costs, out)
    return out


@pytest.fixture(scope="session")
def explained(engine_dir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a qwen3 of two layers."""
    return write_explained(engine_dir("qwen3", "bf16"), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")  # while it is open, an event loop runs, and other tests have their own
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium here: none of {', '.join(CHROMIUM_NAMES)} is on PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, headless=True, args=[*CHROMIUM_FLAGS])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """(File, address after ``#``, further options of the context) to the opened page."""
    contexts = []

    def opened(path: Path, address: str = "", width: int = 1280, height: int = 800, **options) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        it = Opened(context.new_page())
        it.page.on("pageerror", lambda error: it.complaints.append(str(error)))
        it.page.on("console", lambda m: it.complaints.append(m.text) if m.type in ("error", "warning") else None)
        it.page.on("request", lambda request: it.requests.append(request.url.partition("#")[0]))
        it.page.goto(f"{path.as_uri()}#{address}")
        return it

    yield opened
    for context in contexts:
        context.close()
