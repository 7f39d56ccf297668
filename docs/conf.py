"""The course as a site: `make book` runs Sphinx from the top of the repository.

Every page is a file that reads well without Sphinx, too: README.md, which is also the
site's index.html, the notebooks with their stored outputs, and docs/*.md.
"""

import io
import json
import os
import shutil
from base64 import b64decode
from pathlib import Path

from docutils import nodes
from myst_nb.core.render import NbElementRenderer
from PIL import Image
from sphinx.util.matching import patfilter

from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.course.from_solutions import page_without_key
from tools import try_page
from tools.explorers import WIDE, put_forms
from tools.stamp import PLACEHOLDER, read_stamp, without_badge

# Where the repository is hosted: what `make stamp` was told, or $SITE_REPOSITORY, as
# https://github.com/NAME/PROJECT. If it is known, every notebook has a button that opens
# it in Colab.
STAMP = read_stamp()
REPOSITORY = os.environ.get("SITE_REPOSITORY", "")
if not REPOSITORY and STAMP.repository != PLACEHOLDER:
    REPOSITORY = f"https://github.com/{STAMP.repository}"
# `make book KEY=0` leaves the solutions out, and each sentence that points to them.
KEY = os.environ.get("SITE_KEY", "1") != "0"
SOLUTIONS = "notebooks/solutions"

# What the sidebar lists. README.md opens the repository, too, and leaves this to us.
CONTENTS = {
    "The course": ["notebooks/*"],
    "Extras": ["notebooks/extras/*"],
    "Solutions": [f"{SOLUTIONS}/*"],
    "Appendix": ["docs/*", "*"],
}

project = "SSNet, step by step"
author = "The SSNet tutorial authors"
copyright = author
language = "en"

root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "notebooks/*/*.ipynb"]
exclude_patterns = [".*", "**/.*", "build", "data", "runs"] + ([] if KEY else [SOLUTIONS])
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # tables in outputs hold formulas
suppress_warnings = [
    "mystnb.unknown_mime_type",  # of a figure of `report`: its text is shown
    "misc.highlighting_failure",  # of the first cell, which holds lines for a shell
    "myst.header",  # solutions repeat exercises, whose headings are of level 3
]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
templates_path = ["_templates"]
html_sidebars = {
    "**": ["navbar-logo.html", "search-button-field.html", "try_link.html"]
    + ["sbt-sidebar-nav.html"]
}
html_css_files = ["book.css"]
html_js_files = ["print.js", ("explorer.js", {"defer": "defer"})]
html_use_index = False
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has the search field
    "footer_content_items": ["copyright.html"],
}
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": STAMP.tag,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }


def leave_out_key(app, docname, source):
    """Take the sentences that point to the solutions out of a page."""
    if not KEY:
        source[0] = page_without_key(source[0])


def leave_out_badge(app, docname, source):
    """Take badges out: their picture is on the net, and the site has a button."""
    if source[0].startswith("{"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"][:1]:
            text = without_badge("".join(cell["source"]))
            cell["source"] = text.splitlines(keepends=True)
        source[0] = json.dumps(notebook)
    else:
        source[0] = without_badge(source[0])


def add_explorers(app, docname, source):
    """Give the explorers of a notebook controls that need no kernel."""
    if source[0].startswith("{"):
        notebook, folder = json.loads(source[0]), Path(docname).parent
        for name in put_forms(notebook):
            picture = (app.srcdir / folder / name).read_bytes()
            write_bytes(app.outdir / folder / name, picture)
        source[0] = json.dumps(notebook)


def add_contents(app, docname, source):
    """Append the lists of pages to the landing page, as far as there are such pages."""
    if docname == root_doc:
        pages = app.env.found_docs - {docname}
        for caption, globs in CONTENTS.items():
            globs = [glob for glob in globs if patfilter(pages, glob)]
            if globs:
                options = [":hidden:", ":glob:", f":caption: {caption}", ""]
                lines = ["", "```{toctree}", *options, *globs, "```", ""]
                source[0] += "\n".join(lines)


def keep_from_search(app, doctree):
    """Whoever searches the site finds the lesson, not its solutions."""
    docname = app.env.docname
    if docname.startswith(f"{SOLUTIONS}/"):
        app.env.metadata[docname]["nosearch"] = True


def with_alt(render_image):
    """Let the renderer of outputs take an image's alternative text from its metadata.

    Wide pictures get a class of their own, by which `book.css` lets them scroll.
    """

    def render(self, data):
        (image,) = render_image(self, data)
        metadata = data.output_metadata.get(data.mime_type, {})
        image["alt"] = metadata.get("alt", "What the code above draws")
        if data.mime_type == "image/png":
            with Image.open(io.BytesIO(b64decode(data.content))) as picture:
                image["classes"] += ["wide"] if picture.width >= WIDE else []
        return [image]

    return render


def leave_key_out_of_downloads(app, error):
    """Do for the sources that pages offer what `leave_out_key` does for the pages."""
    if error is None and not KEY:
        for path in (app.outdir / "_sources").rglob("*.*"):
            text = page_without_key(path.read_text(encoding="utf-8"))
            path.write_text(text, encoding="utf-8")


def add_try_page(app):
    """Write try.html and link it in every sidebar, or say why it is left out."""
    if app.builder.format == "html":
        try:
            try_page.build(app.outdir, course=True)
            app.config.html_context["try_page"] = "try.html"
        except JswsError as error:
            print(f"try.html is left out of the site: {error}", flush=True)


def link_try_page(app, doctree, docname):
    """Lead from notebooks to the page itself; elsewhere they lead to how it is started."""
    if docname.startswith("notebooks/") and "try_page" in app.config.html_context:
        for link in doctree.findall(nodes.reference):
            if link.get("refuri", "").endswith("export.html#in-a-browser"):
                link["refuri"] = f"{'../' * docname.count('/')}try.html"


def add_index(app, error):
    """Put the landing page where servers look for it."""
    if error is None:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def leave_out_unused(app, error):
    """Take out what the theme and MathJax bring for others: maps and unused bundles."""
    if error is None:
        static = app.outdir / "_static"
        used = Path(app.config.mathjax_path).name
        bundles = {*static.glob("mathjax/*-chtml*.js"), *static.glob("mathjax/*-svg*.js")}
        bundles -= {static / "mathjax" / used}
        for path in {*static.rglob("*.map"), *bundles, static / "mathjax" / "node-main.js"}:
            path.unlink(missing_ok=True)


def setup(app):
    """Connect the functions above."""
    NbElementRenderer.render_image = with_alt(NbElementRenderer.render_image)
    app.connect("source-read", leave_out_key)
    app.connect("source-read", leave_out_badge)
    app.connect("source-read", add_explorers)
    app.connect("source-read", add_contents)
    app.connect("builder-inited", add_try_page)
    app.connect("doctree-read", keep_from_search)
    app.connect("doctree-resolved", link_try_page)
    app.connect("build-finished", add_index)
    app.connect("build-finished", leave_out_unused)
    app.connect("build-finished", leave_key_out_of_downloads)
