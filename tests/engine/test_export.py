"""An exported network answers as PyTorch does, without this repository."""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import network, refuses, stored
from PIL import Image

from jsws_lib.config import ROOT, STEADY
from jsws_lib.engine.checkpoints import load_ssnet, recipe_fields
from jsws_lib.engine.export import export

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module", params=[1, 2])
def checkpoint(request, tmp_path_factory):
    recipe = replace(STEADY, mirror=True)  # as photos_MM's
    net, path = network(request.param, recipe), tmp_path_factory.mktemp("net") / "net"
    return stored(path, net, recipe=recipe_fields(recipe))


def answer(checkpoint, images):
    with torch.inference_mode():
        out = load_ssnet(checkpoint)[0](torch.from_numpy(images))
    return [part.numpy() for part in (out.probs, out.class_saliency, out.sal_map)]


@pytest.mark.slow
@pytest.mark.parametrize(("half", "most"), [(False, 1e-5), (True, 1e-3)])
def test_onnx(checkpoint, tmp_path, half, most):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    known = export(checkpoint, tmp_path / "net.onnx", half=half)
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["categories"]) == known["categories"] and said["size"] == "64"
    for images in (IMAGES, IMAGES[:1]):
        found = session.run(["H", "v", "S"], {"image": images})
        wanted = answer(checkpoint, images)
        for theirs, ours in zip(found, wanted, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=most)
        assert wanted[0].std() > most
    file = (tmp_path / "net.onnx").read_bytes()
    assert (len(file) < 0.6 * checkpoint.stat().st_size) == half
    assert str(ROOT).encode() not in file


def test_another_kind_of_file_is_refused(checkpoint, tmp_path):
    refuses("a.h5: name a file that ends in .onnx", export, checkpoint, tmp_path / "a.h5")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_ten_lines_of_the_page(root, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    text = (root / "docs" / "export.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    export("mini_S", "ssnet.onnx", half=True)
    Image.new("RGB", (70, 50), "teal").save("picture.jpg")
    exec(code, {})
    shares = ast.literal_eval(capsys.readouterr().out)
    assert sum(shares.values()) == pytest.approx(1)
