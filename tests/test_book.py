"""The course as a site: complete, whole, and readable without a network."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from jsws_lib.notebook import FIGURE_MIME
from jsws_lib.stamp import read_stamp

BUILDER = ("myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
missing = [name for name in BUILDER if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(missing), reason=f'needs pip install -e ".[book]": no {", ".join(missing)}'
)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5E"
    "rkJggg=="
)


class Page(HTMLParser):
    """The ids, references, pictures, formulas and text of one HTML file."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.refs, self.alts = path, set(), [], {}
        self.formulas, self.text, self.classes = [], "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = {name: value or "" for name, value in attrs}
        self.ids |= {attrs[name] for name in ("id", "name") if name in attrs}
        self.refs += [(tag, attrs[n]) for n in ("href", "src", "data") if n in attrs]
        classes = attrs.get("class", "").split()
        self.classes += classes
        if tag == "img" and "_images/" in attrs["src"]:
            self.alts[attrs["src"]] = attrs["alt"]
        if "math" in classes:
            self.formulas.append(tag)

    def handle_data(self, data):
        self.text += data


class Site:
    """A built site."""

    def __init__(self, folder):
        self.folder = folder = folder.resolve()
        pages = sorted(p for p in folder.rglob("*.html") if "_static" not in p.parts)
        self.pages = {p.relative_to(folder).as_posix(): Page(p) for p in pages}
        index = (folder / "searchindex.js").read_text(encoding="utf-8")
        self.index = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))

    def pages_with(self, word):
        found = self.index["terms"].get(word, [])
        numbers = found if isinstance(found, list) else [found]
        return {self.index["docnames"][n] for n in numbers}


def build(source, target, **settings):
    """Run Sphinx as `make book` does; every warning is an error."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SITE_")} | settings
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    command += ["-d", str(target / "doctrees"), ".", str(target / "book")]
    run = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not run.stderr
    return Site(target / "book")


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    return build(root, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def site_without_key(root, tmp_path_factory):
    return build(root, tmp_path_factory.mktemp("site"), SITE_KEY="0")


@pytest.fixture(scope="module")
def notebooks(root):
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    return {path.stem: nbformat.read(path, 4) for path in paths}


def markdown(notebook):
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def outputs(notebook, mime):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if mime in output.get("data", {}):
                yield output


def test_all_pages_are_there(site, root, notebooks):
    assert len(notebooks) == 8
    sources = [root / "README.md", *(root / "docs").glob("*.md")]
    for folder in ("notebooks", "notebooks/solutions"):
        sources += (root / folder).glob("*.ipynb")
    expected = {p.relative_to(root).with_suffix(".html").as_posix() for p in sources}
    assert expected | {"index.html", "search.html"} <= set(site.pages)
    for name in expected - {"README.html"}:
        links = [ref for _, ref in site.pages["index.html"].refs]
        assert name in links, f"the sidebar lacks {name}"


def test_figures_and_what_they_say(site, notebooks):
    for name, notebook in notebooks.items():
        page = site.pages[f"notebooks/{name}.html"]
        pictures = list(outputs(notebook, "image/png"))
        assert len(page.alts) >= len({p.data["image/png"] for p in pictures}) > 0
        assert all(page.alts.values())
        for picture in pictures:
            alt = picture.metadata.get("image/png", {}).get("alt")
            assert alt is None or alt in page.alts.values()
        for figure in outputs(notebook, FIGURE_MIME):
            assert figure.data["text/plain"] in page.text


def test_equations_come_from_this_site(site, notebooks):
    for name, notebook in notebooks.items():
        page = site.pages[f"notebooks/{name}.html"]
        text = re.sub(r"```.*?```|`[^`]*`", "", markdown(notebook), flags=re.S)
        displayed = re.findall(r"\$\$.*?\$\$", text, flags=re.S)
        assert page.formulas.count("div") == len(displayed)
        assert page.formulas.count("span") > 0
        assert "$$" not in page.text
        scripts = [ref for tag, ref in page.refs if tag == "script" and "mathjax" in ref]
        assert len(scripts) == 1 and not urlsplit(scripts[0]).netloc


def test_search_finds_what_only_notebook_4_says(site, notebooks):
    def words(notebook):
        return set(re.findall(r"\b[a-z]{7,}\b", markdown(notebook)))

    *_, four = (name for name in notebooks if name.startswith("04"))
    others = set().union(*(words(nb) for name, nb in notebooks.items() if name != four))
    rare = words(notebooks[four]) - others
    # Other words are in the index by their stems.
    found = [word for word in rare if site.pages_with(word) == {f"notebooks/{four}"}]
    assert found, sorted(rare)


def test_every_page_has_its_buttons(site, root, notebooks):
    for page in site.pages.values():
        assert "theme-switch-button" in page.classes, page.path
        assert "search-button-field" in page.classes, page.path
    for name in notebooks:
        refs = [ref for _, ref in site.pages[f"notebooks/{name}.html"].refs]
        # Nobody said where we are.
        assert not [ref for ref in refs if "colab.research" in ref]
        assert f"../_sources/notebooks/{name}.ipynb" in refs
        download = site.folder / "_sources" / "notebooks" / f"{name}.ipynb"
        assert download.read_bytes() == (root / f"notebooks/{name}.ipynb").read_bytes()


def broken(site):
    """List references to files or anchors that the site does not have."""
    found = []
    for name, page in site.pages.items():
        for _, ref in page.refs:
            url = urlsplit(ref)
            if url.scheme or url.netloc:
                continue
            target = (page.path.parent / unquote(url.path)).resolve()
            target = target if url.path else page.path
            if not target.is_file() or not target.is_relative_to(site.folder):
                found.append(f"{name}: {ref}")
            elif url.fragment and target.suffix == ".html":
                ids = site.pages[target.relative_to(site.folder).as_posix()].ids
                if unquote(url.fragment) not in ids:
                    found.append(f"{name}: {ref}")
    return found


def test_every_link_inside_the_site_leads_somewhere(site):
    assert not broken(site)


def test_no_page_loads_anything_from_elsewhere(site):
    for name, page in site.pages.items():
        for tag, ref in page.refs:
            url = urlsplit(ref)
            assert tag == "a" or not url.netloc and url.scheme in ("", "data"), (name, ref)
        source = page.path.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", source), name
    for style in site.folder.rglob("*.css"):
        loads = r"(url\(|@import)\s*[\"']?(https?:)?//"
        assert not re.search(loads, style.read_text(encoding="utf-8")), style


@pytest.fixture
def two_pages(root, tmp_path):
    """A project of one notebook and its solutions."""
    picture = new_output(
        "display_data",
        data={"image/png": PIXEL, "text/plain": "<Figure>"},
        metadata={"image/png": {"alt": 'A "cat" that <stands> out'}},
    )
    cells = [new_markdown_cell("# Solution\n\n[Back](../01_a.ipynb) to pondering.")]
    cells += [new_code_cell("draw()", outputs=[picture])]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    solution = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    question = new_notebook(cells=[new_markdown_cell("# Question\n\nWhy hesitate?")])
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    nbformat.write(question, tmp_path / "notebooks" / "01_a.ipynb")
    nbformat.write(solution, tmp_path / "notebooks" / "solutions" / "01_a.ipynb")
    (tmp_path / "README.md").write_text("# Two pages\n")
    shutil.copytree(root / "docs" / "_static", tmp_path / "docs" / "_static")
    shutil.copy(root / "docs" / "conf.py", tmp_path / "docs")
    return tmp_path


def test_solutions_and_alternative_texts(two_pages):
    """Of a book of two pages: what an image shows, and a part for solutions."""
    site = build(two_pages, two_pages / "build")
    page = site.pages["notebooks/solutions/01_a.html"]
    assert list(page.alts.values()) == ['A "cat" that <stands> out']
    assert "Solutions" in page.text and "Solutions" in site.pages["index.html"].text
    assert not broken(site)
    # A search finds the lesson, not what gives it away.
    assert site.pages_with("hesit") == {"notebooks/01_a"}
    assert not site.pages_with("ponder")


def test_a_repository_brings_the_colab_button(two_pages):
    address = "https://github.com/someone/course"
    site = build(two_pages, two_pages / "build", SITE_REPOSITORY=address)
    refs = [ref for _, ref in site.pages["notebooks/01_a.html"].refs]
    assert [ref for ref in refs if ref.startswith("https://colab")] == [
        "https://colab.research.google.com/github/someone/course/blob/"
        f"{read_stamp().tag}/notebooks/01_a.ipynb"
    ]


def test_without_the_key_nothing_leads_to_it(site, site_without_key, notebooks):
    bare = site_without_key
    assert not broken(bare)
    assert {name for name in site.pages if "solutions" not in name} == set(bare.pages)
    assert not [name for name in bare.index["docnames"] if "solutions" in name]
    assert not [p for p in bare.folder.rglob("*") if "solutions" in p.name]
    for name in notebooks:
        page = f"notebooks/{name}.html"
        sentence = "Solutions, and answers that tempt"
        assert sentence in site.pages[page].text and sentence not in bare.pages[page].text
        assert "under each task." in bare.pages[page].text  # what stands before it
        download = bare.folder / "_sources" / "notebooks" / f"{name}.ipynb"
        assert "solutions/" not in download.read_text(encoding="utf-8")
        assert len(nbformat.read(download, 4).cells) == len(notebooks[name].cells)


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("book KEY=0", "SITE_KEY=0 .venv/bin/python -m sphinx"),
        # Nothing of an earlier book, with its key, may stay.
        ("book", "rm -rf build/book build/book-doctrees"),
        # Links of notebooks lead to ../docs and ../README.md.
        ("lab", "--ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks"),
    ],
)
def test_make_hands_on_what_it_is_told(root, command, words):
    run = subprocess.run(["make", "--dry-run", *command.split()], cwd=root,
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0 and words in run.stdout, run.stdout + run.stderr


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(site):
    """Serve the site, as a search in the text of its pages needs."""
    handler = partial(Quiet, directory=site.folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(address):
    """Open a tab; afterwards, nothing must have failed or come from elsewhere."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser found: {', '.join(names)}")
    requests, errors = [], []
    with api.sync_playwright() as playwright:
        options = {"executable_path": browser, "args": ["--no-sandbox"]}
        chromium = playwright.chromium.launch(**options)
        tab = chromium.new_page(color_scheme="light")
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        yield tab
        chromium.close()
    assert not errors
    assert not [url for url in requests if not url.startswith((address, "data:"))]


@pytest.mark.browser
def test_formulas_dark_mode_and_search_in_a_browser(page, address):
    page.goto(f"{address}notebooks/04_losses.html")
    page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-container").count() == page.locator(".math").count()
    assert page.locator("mjx-merror").count() == 0

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    page.locator(".theme-switch-button:visible").click()
    page.locator(".theme-change-button[data-mode=dark]:visible").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert background() != light

    page.locator(".search-button-field:visible").first.click()
    page.keyboard.type("pseudo labels")
    page.keyboard.press("Enter")
    page.locator("#search-results li .context").first.wait_for()
    titles = page.locator("#search-results li > a").all_inner_texts()
    assert any("pseudo labels" in title for title in titles)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "notebooks/04_losses", "docs/recipe_study"])
def test_pages_fit_a_phone(page, address, name):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{address}{name}.html")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.browser
def test_wide_figures_keep_their_size_on_a_phone(page, address):
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{address}notebooks/03_saliency_aggregation.html")
    first = page.locator("div.cell_output img.wide").first  # the method, as boxes
    first.scroll_into_view_if_needed()
    assert first.evaluate("image => image.clientWidth") > 640
    scrolls = "image => image.parentElement.scrollWidth > image.parentElement.clientWidth"
    assert first.evaluate(scrolls)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.browser
def test_dark_pages_print_light_and_whole(page, address):
    page.goto(f"{address}notebooks/04_losses.html")
    page.evaluate("""document.documentElement.dataset.theme = "dark";
        window.colours = () => [document.body, document.querySelector("h2"),
            document.querySelector("pre")].map(e => {
                const style = getComputedStyle(e);
                return [style.backgroundColor, style.color].join();
            }).join();
        window.dark = colours();
        addEventListener("beforeprint", () => { window.printed = colours(); });""")
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark, printed = page.evaluate("[window.dark, window.printed]")
    page.evaluate('document.documentElement.dataset.theme = "light"')
    assert printed == page.evaluate("colours()") != dark
    page.emulate_media(media="print")
    for what in ("div.cell_input", "div.cell_output img", "div.cell_output pre"):
        style = "element => getComputedStyle(element).breakInside"
        assert page.locator(f".bd-content {what}").first.evaluate(style) == "avoid", what
    page.emulate_media(media="screen")
