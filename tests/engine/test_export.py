"""An exported network answers as PyTorch does, without this repository."""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import network, stored
from PIL import Image

from data_utils.errors import JswsError
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


def differ(found, wanted):
    assert [np.shape(f) for f in found] == [w.shape for w in wanted]
    return max(np.abs(np.asarray(f) - w).max() for f, w in zip(found, wanted, strict=True))


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
        assert differ(found, wanted) < most < wanted[0].std()
    file = (tmp_path / "net.onnx").read_bytes()
    assert (len(file) < 0.6 * checkpoint.stat().st_size) == half
    assert str(ROOT).encode() not in file


@pytest.mark.slow
def test_torch_export(checkpoint, tmp_path):
    known = export(checkpoint, tmp_path / "net.pt2")
    notes = {"ssnet.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=notes).module()
    assert json.loads(notes["ssnet.json"]) == known
    assert str(ROOT).encode() not in (tmp_path / "net.pt2").read_bytes()  # is stored
    for images in (IMAGES, IMAGES[:1]):
        with torch.inference_mode():
            found = program(torch.from_numpy(images))
        assert differ(found, answer(checkpoint, images)) < 1e-5


def test_what_cannot_be_written(checkpoint, tmp_path):
    for name, half, words in (("a.h5", False, ".onnx or .pt2"), ("a.pt2", True, "--half")):
        with pytest.raises(JswsError, match=words):
            export(checkpoint, tmp_path / name, half=half)
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
