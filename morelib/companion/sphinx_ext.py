"""Sphinx extension of the book: it serves its own JavaScript, so that a page asks no other host for anything.

plotly.min.js and anywidget come from the installed Python packages. MathJax, RequireJS and the static widget
manager come from npm (`book/package.json`, installed by `morelib.companion.book`). Where npm's folder is
missing their CDN addresses stay, and the build says so.
"""

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

from morelib.companion.plotly_mime import MARKER as PLOTLY_MARKER

logger = logging.getLogger(__name__)

VENDOR = "morelib"  # folder below _static of the built book
SIMULATOR_MARKER = "router-simulator"
# What is taken from npm: path below node_modules -> name below _static/morelib. The `full` MathJax holds every
# TeX extension; the smaller one fetches some of them when a page first uses \boldsymbol.
MANAGER = "@jupyter-widgets/html-manager/dist"
NPM_FILES = {
    "mathjax/es5/tex-svg-full.js": "tex-svg-full.js",
    "requirejs/require.js": "require.js",
    f"{MANAGER}/embed-amd.js": "embed-amd.js",
}
# (package, path inside it): files that the installed Python packages ship.
PACKAGE_FILES = {
    "plotly.min.js": ("plotly", "package_data/plotly.min.js"),
    "anywidget.js": ("anywidget", "nbextension/index.js"),
    "figures.js": ("morelib.companion", "figures.js"),
    "widgets_boot.js": ("morelib.companion", "widgets_boot.js"),
    "router_simulator.js": ("morelib.companion", "router_simulator.js"),
    "router.css": ("morelib.companion", "router.css"),
}


def npm_files(book: Path) -> dict[str, Path]:
    """Name below _static/morelib -> file below `book`/node_modules; empty unless all of them are there."""
    modules = book / "node_modules"
    found = {name: modules / path for path, name in NPM_FILES.items()}
    if not all(path.is_file() for path in found.values()):
        return {}
    # Icon fonts that the widget manager's style sheet asks for, below its own address.
    return found | {f"{MANAGER}/{font.name}": font for font in sorted((modules / MANAGER).glob("*.woff2"))}


def use_local_javascript(app: Sphinx, config: Config) -> None:
    """Point MathJax and the widget manager at local files; leave the CDN addresses where npm is absent."""
    boot: dict[str, dict[str, str]] = {f"{VENDOR}/widgets_boot.js": {}}
    if npm_files(Path(app.srcdir)):
        config.mathjax_path = f"{VENDOR}/tex-svg-full.js"
        config.nb_ipywidgets_js = {
            f"{VENDOR}/require.js": {},
            **boot,
            f"{VENDOR}/embed-amd.js": {"data-jupyter-widgets-cdn": "no-cdn/"},
        }
        return
    logger.info("morelib: book/node_modules is missing; MathJax and widgets are linked from a CDN")
    require, manager = config.nb_ipywidgets_js.items()
    config.nb_ipywidgets_js = dict([require, *boot.items(), manager])


def copy_javascript(app: Sphinx) -> None:
    """Copy every vendored file into the build."""
    if app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / VENDOR
    (target / MANAGER).mkdir(parents=True, exist_ok=True)
    for name, source in npm_files(Path(app.srcdir)).items():
        shutil.copyfile(source, target / name)
    for name, (package, path) in PACKAGE_FILES.items():
        with as_file(files(package).joinpath(path)) as source:
            shutil.copyfile(source, target / name)


def add_page_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load plotly (4 MB) and the simulator only on the pages that hold one."""
    if doctree is None:
        return
    raw = "".join(node.astext() for node in doctree.findall(nodes.raw))
    if PLOTLY_MARKER in raw:
        # Before RequireJS (500, on pages with a widget), behind which plotly would register as an AMD module.
        app.add_js_file(f"{VENDOR}/plotly.min.js", priority=400)
        app.add_js_file(f"{VENDOR}/figures.js", priority=401)
    if SIMULATOR_MARKER in raw:
        app.add_js_file(f"{VENDOR}/router_simulator.js", priority=402)
        app.add_css_file(f"{VENDOR}/router.css")


def drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Leave out Thebe, which Jupyter Book always adds: it names a CDN, runs nothing and throws on every page."""
    scripts = context["script_files"]
    text = [f"{script.filename} {script.attributes.get('body', '')}".lower() for script in scripts]
    scripts[:] = [script for script, words in zip(scripts, text, strict=True) if "thebe" not in words]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    # After MyST-NB has registered its settings, before it reads them (builder-inited, priority 500).
    app.connect("config-inited", use_local_javascript)
    app.connect("builder-inited", copy_javascript)
    app.connect("html-page-context", add_page_scripts)
    app.connect("html-page-context", drop_thebe, priority=900)  # after sphinx-thebe has added its scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
