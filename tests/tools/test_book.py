"""The course as a site: complete, whole, and readable without a network."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from helpers import opened

from jsws_lib.course.frames import MIME as EXPLORER
from jsws_lib.course.measured import MIME
from tools.explorers import outputs
from tools.stamp import read_stamp
from tools.try_page import served

BUILDER = ("myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
missing = ", ".join(name for name in BUILDER if find_spec(name) is None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f'pip install -e ".[book]": no {missing}'),
]
HOST = "someone/course"


class Site:
    """A built site: its pages as trees, and what its search finds."""

    def __init__(self, folder):
        self.folder = folder = folder.resolve()
        paths = (p for p in folder.rglob("*.html") if "_static" not in p.parts)
        self.pages = {
            p.relative_to(folder).as_posix(): BeautifulSoup(p.read_bytes(), "html.parser")
            for p in paths
        }
        index = (folder / "searchindex.js").read_text(encoding="utf-8")
        self.index = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))

    def found_by_search(self):
        """The pages that some word finds."""
        found = self.index["terms"].values()
        lists = (numbers if isinstance(numbers, list) else [numbers] for numbers in found)
        return {self.index["docnames"][n] for numbers in lists for n in numbers}

    def refs(self, name):
        """(tag, address) of everything that a page refers to."""
        for tag in self.pages[name].find_all(True):
            yield from ((tag.name, tag[n]) for n in ("href", "src", "data") if tag.get(n))

    def alts(self, name):
        """What a page's own pictures say."""
        return [i["alt"] for i in self.pages[name]("img") if "_images/" in i["src"]]

    def broken(self):
        """References to files or anchors that the site does not have."""
        for name, page in self.pages.items():
            for _, ref in self.refs(name):
                url = urlsplit(ref)
                if url.scheme or url.netloc:
                    continue
                path = unquote(url.path) or Path(name).name
                target = (self.folder / name).parent.joinpath(path).resolve()
                found = target.is_file() and target.is_relative_to(self.folder)
                if found and url.fragment and target.suffix == ".html":
                    page = self.pages[target.relative_to(self.folder).as_posix()]
                    anchor = unquote(url.fragment)
                    found = page.find(id=anchor) or page.find("a", {"name": anchor})
                if not found:
                    yield f"{name}: {ref}"


def build(source, target, **settings):
    """Run Sphinx as `make book` does; every warning is an error."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SITE_")} | settings
    env["PYTHONPATH"] = str(source)  # tools/ is not installed
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    command += ["-d", str(target / "doctrees"), ".", str(target / "book")]
    run = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stdout + run.stderr
    return Site(target / "book")


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    return build(root, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def notebooks(root):
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    return {path.stem: nbformat.read(path, 4) for path in paths}


def test_all_pages_are_there_and_notebooks_to_download(site, root, notebooks):
    globs = ("README.md", "docs/*.md", "notebooks/**/*.ipynb")
    sources = [path.relative_to(root) for glob in globs for path in root.glob(glob)]
    expected = {path.with_suffix(".html").as_posix() for path in sources}
    assert expected | {"index.html", "search.html"} <= site.pages.keys()
    in_sidebar = {ref for _, ref in site.refs("index.html")}
    assert expected - {"README.html"} <= in_sidebar
    for name in notebooks:
        refs = [ref for _, ref in site.refs(f"notebooks/{name}.html")]
        assert f"../_sources/notebooks/{name}.ipynb" in refs
        download = site.folder / "_sources" / "notebooks" / f"{name}.ipynb"
        assert download.read_bytes() == (root / f"notebooks/{name}.ipynb").read_bytes()


def test_figures_and_equations(site, notebooks):
    for name, notebook in notebooks.items():
        page = site.pages[f"notebooks/{name}.html"]
        alts = site.alts(f"notebooks/{name}.html")
        pictures = [output for _, output in outputs(notebook, "image/png")]
        assert all(alts) and len(alts) >= len({p.data["image/png"] for p in pictures}) > 0
        said = (p.metadata.get("image/png", {}).get("alt") for p in pictures)
        assert set(filter(None, said)) <= set(alts)
        for _, number in outputs(notebook, MIME):
            assert number.data["text/plain"] in page.text
        texts = (c.source for c in notebook.cells if c.cell_type == "markdown")
        text = re.sub(r"```.*?```|`[^`]*`", "", "\n".join(texts), flags=re.S)
        displayed = re.findall(r"\$\$.*?\$\$", text, flags=re.S)
        assert len(page.select("div.math")) == len(displayed) and page.select("span.math")
        assert "$$" not in page.text


def test_every_link_inside_the_site_leads_somewhere(site):
    assert not list(site.broken())


def test_no_page_loads_anything_from_elsewhere(site):
    for name, page in site.pages.items():
        for tag, ref in site.refs(name):
            url = urlsplit(ref)
            assert tag == "a" or not url.netloc and url.scheme in ("", "data"), (name, ref)
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", str(page)), name
    for style in site.folder.rglob("*.css"):
        loads = r"(url\(|@import)\s*[\"']?(https?:)?//"
        assert not re.search(loads, style.read_text(encoding="utf-8")), style


def test_a_search_finds_lessons_not_what_gives_them_away(site, notebooks):
    found = site.found_by_search()
    assert {f"notebooks/{name}" for name in notebooks} <= found
    assert not [name for name in found if "solutions" in name]


def test_without_the_key_nothing_leads_to_it(site, root, notebooks, tmp_path):
    """And where the course is hosted, each notebook has a button that opens it in Colab."""
    bare = build(root, tmp_path, SITE_KEY="0", SITE_REPOSITORY=f"https://github.com/{HOST}")
    assert not list(bare.broken())
    assert {name for name in site.pages if "solutions" not in name} == set(bare.pages)
    assert not [name for name in bare.index["docnames"] if "solutions" in name]
    assert not [p for p in bare.folder.rglob("*") if "solutions" in p.name]
    colab = f"https://colab.research.google.com/github/{HOST}/blob"
    for name, notebook in notebooks.items():
        refs = [ref for _, ref in bare.refs(f"notebooks/{name}.html")]
        opens = f"{colab}/{read_stamp().tag}/notebooks/{name}.ipynb"
        assert [ref for ref in refs if ref.startswith(colab)] == [opens]
        if name == "00_start":
            continue
        with_key, without = (one.pages[f"notebooks/{name}.html"] for one in (site, bare))
        sentence = "Solutions, and answers that tempt"
        assert sentence in with_key.text and sentence not in without.text
        assert "under each task." in without.text  # what stands before it
        download = bare.folder / "_sources" / "notebooks" / f"{name}.ipynb"
        assert "solutions/" not in download.read_text(encoding="utf-8")
        assert len(nbformat.read(download, 4).cells) == len(notebook.cells)


# --- in a browser --------------------------------------------------------------------


@pytest.fixture
def address(site):
    """Serve the site, as a search in the text of its pages needs."""
    with served(site.folder) as address:
        yield address


@pytest.fixture
def page(chromium, address):
    with opened(chromium, address, color_scheme="light") as tab:
        yield tab


def test_formulas_and_search_in_a_browser(page, address):
    page.goto(f"{address}notebooks/04_losses.html")
    page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-container").count() == page.locator(".math").count()
    assert page.locator("mjx-merror").count() == 0

    page.locator(".search-button-field:visible").first.click()
    page.keyboard.type("pseudo labels")
    page.keyboard.press("Enter")
    page.locator("#search-results li .context").first.wait_for()
    titles = page.locator("#search-results li > a").all_inner_texts()
    assert any("pseudo labels" in title for title in titles)


def test_every_explorer_moves_without_a_kernel(page, address, site, notebooks):
    stored = {name: len(list(outputs(notebooks[name], EXPLORER))) for name in notebooks}
    assert any(stored.values())
    waiting = """!performance.getEntriesByType("resource").some(
        entry => entry.name.endsWith(".webp"))"""
    for name, count in stored.items():
        page.goto(f"{address}notebooks/{name}.html", wait_until="load")
        assert page.evaluate(waiting), "the page itself comes first"
        forms = page.locator("form.explorer:visible")
        assert forms.count() == count
        for form in forms.all():
            image, words = form.locator("img"), form.get_by_role("status")
            image.scroll_into_view_if_needed()
            image.evaluate("image => image.decode()")
            for control in form.locator("input, select").all():
                before = image.screenshot(), words.inner_text()
                move(control)
                after = image.screenshot(), words.inner_text()
                assert before[0] != after[0] and before[1] != after[1], (name, before[1])


def move(control):
    """To its other end, by keyboard."""
    kind, said = control.get_attribute("type"), control.get_attribute("aria-valuetext")
    other_end = "Home" if control.input_value() != "0" else "End"
    control.press("Space" if kind == "checkbox" else other_end)
    assert kind != "range" or control.get_attribute("aria-valuetext") != said


def test_the_site_is_small(site):
    assert sum(p.stat().st_size for p in site.folder.rglob("*") if p.is_file()) < 60e6


def test_pages_fit_a_phone_and_wide_figures_scroll(page, address):
    page.set_viewport_size({"width": 400, "height": 800})
    width = "document.documentElement.scrollWidth"
    for name in ("index", "docs/recipe_study", "notebooks/04_losses"):
        page.goto(f"{address}{name}.html")
        page.wait_for_load_state("networkidle")
        assert page.evaluate(width) <= 400, name
    first = page.locator("div.cell_output img.wide").first  # the method, as boxes
    first.scroll_into_view_if_needed()
    assert first.evaluate("image => image.clientWidth") > 640
    scrolls = "image => image.parentElement.scrollWidth > image.parentElement.clientWidth"
    assert first.evaluate(scrolls)
    assert page.evaluate(width) <= 400


def test_dark_pages_print_light_and_whole(page, address):
    page.goto(f"{address}notebooks/04_losses.html")
    page.evaluate("""document.documentElement.dataset.theme = "dark";
        const theme = () => document.documentElement.dataset.theme;
        window.during = [];
        addEventListener("beforeprint", () => during.push(theme()));""")
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    assert page.evaluate("during") == ["light"]
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    for what in ("div.cell_input", "div.cell_output img", "div.cell_output pre"):
        style = "element => getComputedStyle(element).breakInside"
        assert page.locator(f".bd-content {what}").first.evaluate(style) == "avoid", what
