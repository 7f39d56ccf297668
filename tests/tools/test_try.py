"""try.html in a real browser: it answers as PyTorch does, and survives what it is given."""

import base64
import io
import json
import shutil
import zlib

import numpy as np
import pytest
from helpers import opened
from PIL import Image

from data_utils.embedded.mini import render
from data_utils.errors import JswsError
from data_utils.pictures import read_image
from jsws_lib.engine.checkpoints import load_ssnet
from jsws_lib.inference import predict
from tools import try_page

# --- what cannot be built --------------------------------------------------------------


@pytest.fixture
def nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(try_page, "CACHE", tmp_path / "parts")


def npm(folder, monkeypatch, script):
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_without_npm_or_a_network_one_sentence_says_so(nothing_kept, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(JswsError, match="npm is not installed"):
        try_page.build(tmp_path / "site")
    monkeypatch.undo()
    monkeypatch.setattr(try_page, "CACHE", tmp_path / "parts")
    npm(tmp_path / "offline", monkeypatch, "echo getaddrinfo failed >&2; exit 1")
    with pytest.raises(JswsError, match="getaddrinfo failed.*go online"):
        try_page.build(tmp_path / "site")
    assert not (tmp_path / "site" / "try.html").exists()


def test_another_package_than_the_pinned_is_refused(nothing_kept, tmp_path, monkeypatch):
    npm(tmp_path / "other", monkeypatch, 'echo other > "$5/onnxruntime-web.tgz"')
    with pytest.raises(JswsError, match="another onnxruntime-web.* than the one pinned"):
        try_page.build(tmp_path / "site")
    assert not [*tmp_path.glob("parts/*")]


# --- in a browser ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("onnxscript")
    try:
        return try_page.build(tmp_path_factory.mktemp("site")).parent
    except JswsError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def address(site):
    with try_page.served(site) as address:
        yield address


@pytest.fixture
def tab(chromium, address):
    view = {"width": 400, "height": 800}
    with opened(chromium, address, viewport=view, color_scheme="dark") as tab:
        tab.goto(f"{address}try.html")
        tab.locator("#main").wait_for()
        yield tab


def done(tab):
    tab.wait_for_function(
        "document.getElementById('status').textContent.startsWith('Done')"
    )


def give(tab, name, content):
    tab.evaluate("document.getElementById('status').textContent = ''")
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    tab.locator("#file").set_input_files([file])


def as_png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


RESIZED = """(size) => {
    const { canvas } = picture, { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height);
    return [...resized(pixels, size)];
}"""
ANSWER = """() => [shown.result.H, shown.result.v, shown.S].map((a) => {
    const bytes = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
    let text = "";
    for (let k = 0; k < bytes.length; k += 4096)
        text += String.fromCharCode(...bytes.subarray(k, k + 4096));
    return btoa(text);
})"""


def pictures():
    """Twenty of many sizes and proportions, for the resizing: drawings and noise."""
    rng = np.random.default_rng(0)
    for k in range(20):
        scene = Image.fromarray(render(0, "val", k, size=96).image)
        wide, high = (int(side) for side in rng.integers(60, 420, 2))
        picture = scene.resize((wide, high), Image.Resampling.BICUBIC)
        noise = rng.integers(-20, 21, (high, wide, 3))
        yield Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", ["mini_S", "mini_M", "mini_MM", "photos_MM"])
def test_the_page_answers_as_pytorch_does(tab, name):
    net, _ = load_ssnet(name)
    kind = "photograph" if name.startswith("photos") else "drawing"
    tab.locator(f"#kinds input[value={kind}]").check()
    worst, spread, same = 0, [], []
    for k, picture in enumerate(pictures()):
        give(tab, f"{k}.png", as_png(picture))
        done(tab)
        if kind == "drawing":
            tab.locator(f"#networks input[value={name}]").check()
        found = [np.frombuffer(base64.b64decode(x), "f4") for x in tab.evaluate(ANSWER)]
        wanted = predict(net, picture)
        square = np.reshape(tab.evaluate(RESIZED, net.size), (3, net.size, net.size))
        small = picture.resize((net.size, net.size), Image.Resampling.BILINEAR)
        assert np.abs(square - np.asarray(small, int).transpose(2, 0, 1)).max() <= 1
        worst = max(worst, np.abs(found[1] - wanted.class_saliency).max())
        spread.append(wanted.probs.std())
        masks = [h.reshape(wanted.probs.shape).argmax(0) for h in (found[0], wanted.probs)]
        same.append((masks[0] == masks[1]).mean())
    # The weights are float16: masks are held, and v.
    assert min(spread) > 1e-2 and np.mean(same) > 0.995 and worst < 0.01, (same, worst)


@pytest.mark.slow
@pytest.mark.browser
def test_jpegs_upright_and_transparent_pictures_are_read_as_python_reads_them(
    tab, tmp_path
):
    net, _ = load_ssnet("mini_MM")
    scene = Image.fromarray(render(0, "val", 5, size=192).image).crop((0, 0, 192, 120))
    turned, clear = Image.Exif(), scene.copy()
    turned[274] = 6  # a quarter to the right
    scene.save(tmp_path / "a.jpg", quality=90, exif=turned)
    clear.putalpha(Image.linear_gradient("L").resize(scene.size))
    clear.save(tmp_path / "b.png")
    tab.locator("#kinds input[value=drawing]").check()
    for name in ("a.jpg", "b.png"):
        give(tab, name, (tmp_path / name).read_bytes())
        done(tab)
        probs = np.frombuffer(base64.b64decode(tab.evaluate(ANSWER)[0]), "f4")
        picture = read_image(tmp_path / name)
        size = tab.evaluate("[picture.canvas.width, picture.canvas.height]")
        assert tuple(size) == picture.size
        wanted = predict(net, picture).probs
        same = probs.reshape(wanted.shape).argmax(0) == wanted.argmax(0)
        assert same.mean() > 0.995, name  # decoders round differently


@pytest.mark.slow
@pytest.mark.browser
def test_sliders_by_keyboard_change_s_and_the_reset_brings_it_back(tab):
    tab.locator("#examples button").first.click()
    done(tab)
    before = tab.evaluate("[...shown.S]")
    assert np.allclose(before, tab.evaluate("[...shown.result.S]"), atol=1e-5)
    first = tab.locator("#maps input").first
    first.focus()
    tab.keyboard.press("Home")
    after, k = tab.evaluate("[...shown.S]"), int(first.get_attribute("id")[1:])
    H = np.reshape(tab.evaluate("[...shown.result.H]"), (21, -1))
    v = np.array(tab.evaluate("[...shown.result.v]"))
    assert np.allclose(np.subtract(before, after), v[k] * H[k + 1], atol=1e-5)
    assert np.ptp(H[k + 1]) > 0.5
    tab.locator("#reset").click()
    assert tab.evaluate("[...shown.S]") == before


def huge(width, height):
    """A PNG of so many grey pixels, in a few hundred kilobytes."""

    def chunk(kind, data):
        body = kind + data
        size, check = len(data), zlib.crc32(body)
        return size.to_bytes(4, "big") + body + check.to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    data = zlib.compress(bytes(width + 1) * height)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.slow
@pytest.mark.browser
def test_bad_pictures_get_a_sentence_and_the_page_goes_on(tab):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    for name, content, words in (
        ("letter.txt", b"Dear reader", "letter.txt is no picture"),
        ("cut.png", as_png(Image.new("RGB", (40, 40)))[:30], "cut.png is no picture"),
        ("empty.jpg", b"", "0 bytes"),
        ("large.png", huge(10_000, 10_000), "100 megapixels"),
        ("IMG_1.HEIC", heic, "HEIC"),
    ):
        give(tab, name, content)
        said = tab.locator("#problem")
        said.filter(has_text=words).wait_for()
        assert said.inner_text().count(". ") == 0 and said.get_attribute("role") == "alert"
        give(tab, "good.png", as_png(Image.new("RGB", (50, 40), "teal")))
        done(tab)
        assert not said.is_visible()


@pytest.mark.slow
@pytest.mark.browser
def test_a_phone_a_keyboard_and_a_screen_reader(tab):
    tab.locator("#examples button").last.focus()
    tab.keyboard.press("Enter")
    done(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    kinds = "canvas, img, input, button, progress"
    unnamed = """(kinds) => [...document.querySelectorAll(kinds)]
        .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.alt || e.textContent.trim()
            || e.labels?.length)
            && !e.querySelector("img[alt]")).map((e) => e.outerHTML)"""
    assert tab.evaluate(unnamed, kinds) == []
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2')].map(h => h.tagName)")
    assert levels == ["H1", "H2", "H2", "H2"]
    tab.locator("#camera").click()
    tab.wait_for_function("document.querySelector('video').videoWidth > 0")
    tab.evaluate("document.getElementById('status').textContent = ''")
    tab.locator("#take").click()
    done(tab)
    assert tab.evaluate("document.querySelector('video').srcObject.active") is False


@pytest.mark.slow
@pytest.mark.browser
def test_what_it_says_where_it_cannot_work(chromium, site, address):
    page = chromium.new_page()
    page.goto((site / "try.html").as_uri())
    page.locator("#problem", has_text="python -m http.server").wait_for()
    page.close()
    page = chromium.new_page()
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(f"{address}try.html")
    page.locator("#problem", has_text="WebAssembly").wait_for()
    assert not page.locator("#main").is_visible()
    page.close()


@pytest.mark.slow
@pytest.mark.browser
def test_little_is_loaded_and_late(chromium, site, address):
    known = json.loads((site / "try" / "page.json").read_text())
    drawings = [n["bytes"] for n in known["networks"] if n["kind"] == "drawing"]
    assert len(drawings) == 3 and known["runtime"] + sum(drawings) < 20e6
    page, asked = chromium.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}try.html")
    page.locator("#main").wait_for()
    assert not [url for url in asked if ".onnx" in url or "ort" in url]
    page.locator("#examples button").first.click()
    done(page)
    assert sum(url.endswith(".onnx") for url in asked) == 3  # not the photographs'
    page.close()
