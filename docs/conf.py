"""How Sphinx builds the site: `python -m pip install -e ".[docs]" && python -m sphinx -W docs build/site`."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import imgclf

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for reference_pages.py

project = "imgclf"
author = "the authors of imgclf"
version = release = imgclf.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["stories/results"]
html_extra_path = ["extra"]  # samples of the product's own pages, which docs/gallery.py makes
html_theme = "sphinx_book_theme"
html_title = "imgclf"
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # else the theme below this one puts a second search field above the page
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a story runs again when its code has changed
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True

default_role = "literal"  # `x` in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False


def show_code(app: Sphinx, what: str, name: str, symbol: object, options: object, lines: list[str]) -> None:
    """Makes a code block of what a docstring indents below a paragraph; what follows a section's title, such as Args:, is none."""
    del app, what, name, symbol, options
    places = [n for n in range(2, len(lines)) if lines[n].startswith("    ") and not lines[n - 1] and lines[n - 2][:1].strip()]
    for place in reversed(places):
        lines[place:place] = [".. code-block:: python", ""]


def setup(app: Sphinx) -> None:
    import reference_pages

    app.connect("autodoc-process-docstring", show_code, priority=400)  # before napoleon, which reads sections

    app.connect("builder-inited", lambda app: reference_pages.write(Path(app.srcdir) / "reference"))
