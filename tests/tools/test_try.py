"""try.html in a real browser: it answers as PyTorch does, and survives what it is given."""

import io
import json
import mimetypes

import numpy as np
import pytest
import torch
from helpers import opened
from PIL import Image

from data_utils.embedded.mini import render
from data_utils.errors import JswsError
from data_utils.pictures import read_image
from jsws_lib.engine.checkpoints import load_ssnet
from jsws_lib.inference import predict
from tools import try_page

# --- what cannot be built --------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "npm is not installed"),
        ("echo getaddrinfo failed >&2; exit 1", "getaddrinfo failed.*go online"),
        ('echo > "$5/onnxruntime-web.tgz"', "another onnxruntime.* than the one pinned"),
    ],
)
def test_what_npm_does_not_give_is_one_sentence(script, words, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755 if script else 0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(try_page, "CACHE", tmp_path / "parts")
    with pytest.raises(JswsError, match=words):
        try_page.build(tmp_path / "site")
    assert not (tmp_path / "site" / "try.html").exists()
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
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    file = {"name": name, "mimeType": kind, "buffer": content}
    tab.locator("#file").set_input_files([file])


RESIZED = """(size) => {
    const { canvas } = picture, { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height);
    return [...resized(pixels, size)];
}"""


def answer(tab):
    """H, v and S of the page, flat."""
    found = tab.evaluate("[shown.result.H, shown.result.v, shown.S].map((a) => [...a])")
    return [np.array(values, np.float32) for values in found]


def pictures():
    """Twenty of many sizes and proportions, for the resizing: drawings and noise."""
    rng = np.random.default_rng(0)
    for k in range(20):
        scene = Image.fromarray(render(0, "val", k, size=96).image)
        wide, high = (int(side) for side in rng.integers(60, 420, 2))
        picture = scene.resize((wide, high), Image.Resampling.BICUBIC)
        noise = rng.integers(-20, 21, (high, wide, 3))
        yield Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ["mini_S", "mini_M", "mini_MM", "photos_MM"])
def test_the_page_answers_as_pytorch_does(tab, name):
    net, _ = load_ssnet(name)
    kind = "photograph" if name.startswith("photos") else "drawing"
    tab.locator(f"#kinds input[value={kind}]").check()
    worst, same = [], []
    for k, picture in enumerate(pictures()):
        give(tab, f"{k}.png", as_file("PNG", picture))
        done(tab)
        if kind == "drawing":
            tab.locator(f"#networks input[value={name}]").check()
        square = np.reshape(tab.evaluate(RESIZED, net.size), (3, net.size, net.size))
        small = picture.resize((net.size, net.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(small).transpose(2, 0, 1).copy()
        assert (square == pixels).all()
        with torch.inference_mode():
            out = net(torch.from_numpy(pixels)[None])
        wanted = [w[0].numpy() for w in (out.probs, out.class_saliency, out.sal_map)]
        found = answer(tab)
        pairs = zip(found, wanted, strict=True)
        worst.append([np.abs(f - w.ravel()).max() for f, w in pairs])
        masks = [h.reshape(wanted[0].shape).argmax(0) for h in (found[0], wanted[0])]
        same.append((masks[0] == masks[1]).mean())
    assert len(worst) == 20 and np.max(worst) < 1e-3 and min(same) > 0.995


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


SCENE = Image.fromarray(render(0, "val", 5, size=192).image).crop((0, 0, 192, 120))


def as_file(kind, picture=SCENE, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def grey(*size):
    return as_file("PNG", Image.new("L", size))


def turned():
    exif = Image.Exif()
    exif[274] = 6  # a quarter to the right
    return as_file("JPEG", quality=90, exif=exif)


def clear():
    picture = SCENE.copy()
    picture.putalpha(Image.linear_gradient("L").resize(SCENE.size))
    return as_file("PNG", picture)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
GIVEN = {  # a file's name: what makes it; what the page says, or the size it looks at
    "letter.txt": (lambda: b"Dear reader", "letter.txt is no picture"),
    "cut.png": (lambda: as_file("PNG")[:30], "cut.png is no picture"),
    "empty.jpg": (lambda: b"", "0 bytes"),
    "large.png": (lambda: grey(10_000, 10_000), "100 megapixels"),
    "IMG_1.HEIC": (lambda: HEIC, "HEIC"),
    "wide.png": (lambda: grey(20_000, 10), [16_384, 8]),
    "dot.png": (lambda: as_file("PNG", Image.new("RGB", (1, 1), "teal")), [1, 1]),
    "print.jpg": (lambda: as_file("JPEG", SCENE.convert("CMYK")), [192, 120]),
    "turned.jpg": (turned, [120, 192]),
    "clear.png": (clear, [192, 120]),
}


@pytest.mark.parametrize("name", GIVEN)
def test_odd_files_are_read_as_python_does_or_get_a_sentence(tab, name, tmp_path):
    make, wanted = GIVEN[name]
    tab.locator("#kinds input[value=drawing]").check()
    said, content = tab.locator("#problem"), make()
    give(tab, name, content)
    if isinstance(wanted, str):
        said.filter(has_text=wanted).wait_for()
        assert said.inner_text().count(". ") == 0 and said.get_attribute("role") == "alert"
    else:
        done(tab)
        assert not said.is_visible()
        assert tab.evaluate("[picture.canvas.width, picture.canvas.height]") == wanted
        width, height = tab.evaluate("[$('mask').width, $('mask').height]")
        assert max(width, height) >= 160 and 0.25 <= width / height <= 4
        (tmp_path / name).write_bytes(content)
        right = predict(load_ssnet("mini_MM")[0], read_image(tmp_path / name)).probs
        same = answer(tab)[0].reshape(right.shape).argmax(0) == right.argmax(0)
        assert same.mean() > 0.995  # decoders round differently
    give(tab, "good.png", as_file("PNG"))
    done(tab)
    assert not said.is_visible() and tab.evaluate("shown.S.some((s) => s > 0.5)")


BROKEN = {"mini_M.onnx": ("missing", "cut", "garbled"), "ort-wasm.gz": ("cut", "garbled")}
BROKEN["ort.js"] = ("missing",)


@pytest.mark.parametrize(("part", "fault"), [(p, f) for p in BROKEN for f in BROKEN[p]])
def test_a_part_that_does_not_come_whole_is_asked_for_again(tab, site, part, fault):
    whole = (site / "try" / part).read_bytes()
    cut, garbled = whole[: len(whole) // 2], whole[:20] + bytes(len(whole) - 20)
    answers = {"missing": {"status": 404}, "cut": {"body": cut}}
    answers["garbled"] = {"body": garbled}
    tab.route(f"**/{part}", lambda route: route.fulfill(**answers[fault]))
    said = tab.locator("#problem", has_text=part)
    tab.locator("#examples button").first.click()
    said.wait_for()
    assert said.inner_text().count(". ") == 0
    tab.unroute(f"**/{part}")
    tab.locator("#examples button").first.click()
    done(tab)
    assert not said.is_visible()


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


def test_what_it_says_where_it_cannot_work(chromium, site, address):
    page = chromium.new_page()
    page.goto((site / "try.html").as_uri())
    page.locator("#problem", has_text="python -m http.server").wait_for()
    page.close()
    for lack in ("delete globalThis.WebAssembly", "WebAssembly.validate = () => false"):
        page = chromium.new_page()
        page.add_init_script(lack)
        page.goto(f"{address}try.html")
        page.locator("#problem", has_text="WebAssembly and SIMD").wait_for()
        assert not page.locator("#main").is_visible()
        page.close()


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
