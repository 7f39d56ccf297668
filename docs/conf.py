"""The course as a site: `make book` runs Sphinx from the top of the repository.

Every page is a file that reads well without Sphinx, too: README.md, which is also the
site's index.html, the notebooks with their stored outputs, and docs/*.md.
"""

import shutil

from myst_nb.core.render import NbElementRenderer
from sphinx.util.matching import patfilter

# Where the repository is hosted; the buttons that open a notebook in Colab start here.
REPOSITORY = "https://github.com/OWNER/ssnet-tutorial"

# What the sidebar lists. README.md opens the repository, too, and leaves this to us.
CONTENTS = {
    "The course": ["notebooks/*"],
    "Solutions": ["notebooks/solutions/*"],
    "Appendix": ["docs/*", "*"],
}

project = "SSNet, step by step"
author = "The SSNet tutorial authors"
copyright = author
language = "en"

root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "notebooks/solutions/*.ipynb"]
exclude_patterns = [".*", "build", "data", "runs"]
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # tables in outputs hold formulas
suppress_warnings = [
    "mystnb.unknown_mime_type",  # of a figure of `report`: its text is shown
    "myst.header",  # solutions repeat exercises, whose headings are of level 3
]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_use_index = False
html_theme_options = {
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "navbar_persistent": [],  # the sidebar has the search field
    "footer_content_items": ["copyright.html"],
}


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


def with_alt(render_image):
    """Let the renderer of outputs take an image's alternative text from its metadata."""

    def render(self, data):
        (image,) = render_image(self, data)
        metadata = data.output_metadata.get(data.mime_type, {})
        image["alt"] = metadata.get("alt", "What the code above draws")
        return [image]

    return render


def add_index(app, error):
    """Put the landing page where servers look for it."""
    if error is None:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app):
    """Connect the functions above."""
    NbElementRenderer.render_image = with_alt(NbElementRenderer.render_image)
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_index)
