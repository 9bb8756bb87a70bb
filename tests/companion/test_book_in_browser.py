"""The built book as a reader meets it: in a headless browser, with every request to another host blocked."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import papermill
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright

from morelib.companion.book import build_book, prepare_javascript, toc_files
from morelib.companion.reproduce import Outcome

ROOT = Path(__file__).parents[2]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
TEXT = """# Title

See {eq}`eq-6` and {cite:p}`e2evarnet`.

$$
\\boldsymbol k = F S x
$$ (eq-demo)

So {eq}`eq-demo`."""
PLOTLY = """import plotly.graph_objects as go
curves = [go.Scatter(y=[1, 3, 2]), go.Scatter(y=[2, 2, 2], visible=False)]
steps = [dict(method="update", args=[{"visible": [shown, not shown]}]) for shown in (True, False)]
go.Figure(curves, {"sliders": [{"steps": steps}]})"""
WIDGETS = ["from morelib.companion.widgets import RouterSimulator, router_frames\nrouter_frames()"]
WIDGETS += ["RouterSimulator()"]
CELLS = {"chapters/03_router": WIDGETS, "chapters/05_training": [PLOTLY]}
DRAWN = "[...document.querySelectorAll('.math')].every(math => math.querySelector('mjx-container svg'))"
FIGURES_DRAWN = (
    "[...document.querySelectorAll('.morelib-plotly')].every(box => box.querySelector('.main-svg'))"
)
# The widget manager puts each view beside the script element that asks for it.
VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]'
WIDGETS_DRAWN = (
    f"[...document.querySelectorAll('{VIEW}')].every(view => view.parentNode.querySelector('.lm-Widget'))"
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: the book cannot be opened")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a book with the real pages and small executed chapters: widgets in 3, a figure in 5."""
    if (reason := prepare_javascript(ROOT / "book")) is not None:
        pytest.skip(f"the book links a CDN, because {reason}")
    root = tmp_path_factory.mktemp("root")
    book = root / "book"
    ignored = shutil.ignore_patterns("_build", "chapters", "node_modules")
    shutil.copytree(ROOT / "book", book, ignore=ignored)
    (book / "node_modules").symlink_to(ROOT / "book" / "node_modules")
    (book / "chapters").mkdir()
    for page in toc_files(book):
        if page.startswith("chapters/"):
            notebook = nbformat.v4.new_notebook()
            notebook.metadata.kernelspec = {
                "name": "python3",
                "display_name": "Python 3",
                "language": "python",
            }
            notebook.cells = [nbformat.v4.new_markdown_cell(TEXT.replace("eq-demo", f"eq-{Path(page).name}"))]
            notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in CELLS.get(page, [])]
            final = str(book / f"{page}.ipynb")
            nbformat.write(notebook, final)
            if page in CELLS:
                papermill.execute_notebook(final, final, progress_bar=False)
    return build_book(root).parent


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def addresses(html: Path) -> Iterator[dict[str, str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"http": f"http://127.0.0.1:{server.server_port}", "file": html.as_uri()}
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Reader:
    """A page that lets nothing out, and remembers what was tried and what went wrong."""

    def __init__(self, browser: Browser, base: str) -> None:
        self.base = base
        self.blocked: list[str] = []
        self.errors: list[str] = []
        self.page: Page = browser.new_page()
        self.page.set_default_timeout(15_000)
        self.page.route("**/*", self._route)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)

    def _route(self, route: Route) -> None:
        if route.request.url.startswith((self.base, "data:", "blob:")):
            route.continue_()
        else:
            self.blocked.append(route.request.url)
            route.abort()

    def _console(self, message: ConsoleMessage) -> None:
        # Not every error: the theme preloads an icon font, which browsers refuse to pages opened from a file.
        if message.type == "error" and "404" in message.text:
            self.errors.append(message.text)

    def open(self, name: str) -> Page:
        self.page.goto(f"{self.base}/{name}.html", wait_until="load")
        return self.page


@pytest.fixture(params=["http", "file"])
def reader(browser: Browser, addresses: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Reader]:
    reader = Reader(browser, addresses[request.param])
    yield reader
    reader.page.close()
    assert reader.blocked == []
    assert reader.errors == []


def test_every_page_is_reached_draws_its_formulas_and_fits_a_phone(reader: Reader) -> None:
    reader.open("index")
    reader.page.wait_for_selector(".bd-sidebar-primary")
    sidebar = reader.page.locator(".bd-sidebar-primary a.reference.internal")
    links = sidebar.evaluate_all("links => links.map(link => link.href)")
    pages = {link.split("#")[0].removeprefix(f"{reader.base}/").removesuffix(".html") for link in links}
    assert pages >= set(toc_files(ROOT / "book")) - {"index"}
    for name in sorted(pages | {"index"}):
        page = reader.open(name)
        page.wait_for_function(DRAWN)
        assert page.locator(".math").count() > 0 or name in {"limits", "bibliography"}
        assert page.locator("mjx-merror").count() == 0
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is wider than a phone"
        page.set_viewport_size({"width": 1280, "height": 900})


def test_equations_keep_the_numbers_of_the_paper(reader: Reader) -> None:
    page = reader.open("notation")
    assert page.locator(".eqno").all_inner_texts() == [f"({number})" for number in range(1, 9)]
    page = reader.open("chapters/03_router")
    assert page.locator(".eqno").all_inner_texts() == ["(3.1)"]
    assert page.get_by_role("link", name="Eq. 6").get_attribute("href") == "../notation.html#equation-eq-6"


def test_plotly_slider_changes_the_figure(reader: Reader) -> None:
    page = reader.open("chapters/05_training")
    page.wait_for_selector(".morelib-plotly .slider-rail-touch-rect")
    curve = page.locator(".morelib-plotly .scatterlayer .js-line").first
    before = curve.get_attribute("d")
    slider = page.locator(".morelib-plotly .slider-rail-touch-rect")
    slider.scroll_into_view_if_needed()
    rail = slider.bounding_box()
    assert rail is not None
    page.mouse.click(rail["x"] + rail["width"] - 2, rail["y"] + rail["height"] / 2)
    page.wait_for_function(
        "before => document.querySelector('.js-line').getAttribute('d') !== before", arg=before
    )


def test_frames_answer_without_a_kernel(reader: Reader) -> None:
    page = reader.open("chapters/03_router")
    page.wait_for_selector(".routing-frame")
    sentence = page.locator(".routing-frame p:visible")
    before = sentence.inner_text()
    assert "τ = 0:" in before
    handle = page.locator(".router-panel .noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    page.get_by_text("τ = 0.01:").wait_for(state="visible")
    assert sentence.count() == 1


@pytest.mark.parametrize("name", ["simulator", "chapters/03_router"])
def test_simulator_answers_as_a_script_and_as_a_widget(reader: Reader, name: str) -> None:
    page = reader.open(name)
    page.wait_for_selector(".router-simulator svg")
    before = page.locator(".rs-charts").inner_html()
    assert page.locator(".rs-charts figure:first-child rect").count() == 4
    slider = page.locator(".router-simulator input[name=experts]")
    slider.focus()
    slider.press("ArrowRight")
    assert page.locator(".rs-charts figure:first-child rect").count() == 5
    assert page.locator(".rs-charts").inner_html() != before


def test_search_finds_a_word(reader: Reader) -> None:
    page = reader.page
    page.goto(f"{reader.base}/search.html?q=phantom")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() > 0
    # Sphinx fetches the pages found for their summaries, which browsers refuse between files. Titles are there.
    page.goto("about:blank")  # behind which no refusal comes late
    reader.errors[:] = [error for error in reader.errors if error != "Failed to fetch"]


def test_the_book_of_all_notebooks_draws_everything_and_asks_no_other_host(
    browser: Browser, smoke: tuple[list[Outcome], Path]
) -> None:
    built = smoke[1].parent
    if not (built / "_static" / "morelib" / "embed-amd.js").is_file():
        pytest.skip("the book in book/_build/html was built without npm and links a CDN")
    reader = Reader(browser, built.as_uri())
    for name in toc_files(ROOT / "book"):
        page = reader.open(name)
        page.wait_for_function(DRAWN)
        page.wait_for_function(FIGURES_DRAWN)
        page.wait_for_function(WIDGETS_DRAWN)
    reader.page.close()
    assert reader.blocked == []
    assert reader.errors == []
