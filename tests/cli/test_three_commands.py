"""From an empty folder to Table 5: the page's commands on archives laid out as the real."""

import hashlib
import json
import re
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy.io import savemat

from data_utils.real import download
from data_utils.voc import read_ids

SMALL = "--seeds 1 --jobs 1 --size 64 --batch 2 --steps 1,1 --backbone densenet_mini"
SMALL += " --set workers=0"


@pytest.fixture
def archives(small_world, tmp_path):
    """A folder of VOC 2012, SBD, DUTS-TR and ECSSD, each as its authors pack it."""
    data, out = small_world / "data", tmp_path / "archives"
    voc, sbd = data / "VOCdevkit/VOC2012", tmp_path / "benchmark_RELEASE"
    lists = voc / "ImageSets/Segmentation"
    ids, val = read_ids(lists / "train_aug.txt"), read_ids(lists / "val.txt")
    (tmp_path / "train.txt").write_text("\n".join(ids[:2]))
    (sbd / "dataset/cls").mkdir(parents=True)
    (sbd / "dataset/train.txt").write_text("\n".join(ids[1:]))
    (sbd / "dataset/val.txt").write_text("\n".join(val))
    for name in ids[1:]:
        cell = {"Segmentation": np.zeros((64, 64), np.uint8)}
        savemat(sbd / f"dataset/cls/{name}.mat", {"GTcls": cell})
    out.mkdir()
    with tarfile.open(out / "VOCtrainval_11-May-2012.tar", "w") as tar:
        for part in ("JPEGImages", "Annotations", "SegmentationClass"):
            tar.add(voc / part, f"VOCdevkit/VOC2012/{part}")
        for name, file in (("train", tmp_path / "train.txt"), ("val", lists / "val.txt")):
            tar.add(file, f"VOCdevkit/VOC2012/ImageSets/Segmentation/{name}.txt")
    with tarfile.open(out / "benchmark.tgz", "w:gz") as tar:
        tar.add(sbd, "benchmark_RELEASE")
    for name, root, folders in (
        ("DUTS-TR", data, ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask")),
        ("images", data / "ECSSD", ("images",)),
        ("ground_truth_mask", data / "ECSSD", ("ground_truth_mask",)),
    ):
        with zipfile.ZipFile(out / f"{name}.zip", "w") as zipped:
            for file in (file for folder in folders for file in (root / folder).iterdir()):
                zipped.write(file, file.relative_to(root))
    return out


@pytest.fixture
def served(archives, small_world, tmp_path, monkeypatch):
    """The library's own list of sources, each address at a server of this machine."""
    handler = partial(SimpleHTTPRequestHandler, directory=archives)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = download.SOURCES.read_text()
        here = f"http://127.0.0.1:{server.server_port}"
        text = re.sub(r'"https?://[^"]*/([^/"]+\.(?:tar|tgz|zip))"', rf'"{here}/\1"', text)
        for found in re.findall(r'^bytes = \d+\nmd5 = "\w+"|^md5 = "\w+"', text, re.M):
            name = "VOCtrainval_11-May-2012.tar" if "bytes" in found else "benchmark.tgz"
            packed = (archives / name).read_bytes()
            own = f'bytes = {len(packed)}\nmd5 = "{hashlib.md5(packed).hexdigest()}"'
            text = text.replace(found, own)
        for folder in re.findall(r'"([\w-]+/[\w/-]+)" = \d+', text):
            places = small_world / "data" / folder, tmp_path / folder
            count = next((len([*p.iterdir()]) for p in places if p.is_dir()), 1)
            text = re.sub(rf'"{folder}" = \d+', f'"{folder}" = {count}', text)
        manifest = tmp_path / "sources.toml"
        manifest.write_text(text)
        monkeypatch.setattr(download, "SOURCES", manifest)
        yield
        server.shutdown()


@pytest.mark.slow
def test_the_page_leads_from_an_empty_folder_to_table_5(served, jsws, tmp_path, root):
    page = (root / "docs/from_download_to_table.md").read_text()
    block = re.search(r"## In short\n.*?```sh\n(.*?)```", page, re.S)[1]
    commands = [line.removeprefix("jsws ") for line in block.splitlines()]
    assert [command.split()[0] for command in commands] == ["data", "ablate", "compare"]
    file = tmp_path / "ablation_paper.json"
    for command in commands:
        command = command.replace("DATA", str(tmp_path / "data"))
        command = command.replace("results/ablation_paper.json", str(file))
        more = f"{SMALL} --out {file}" if command.startswith("ablate") else ""
        result = jsws(command, more)
        assert result.status == 0, result
    train_aug = tmp_path / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt"
    assert len(read_ids(train_aug)) == 6
    settings = json.loads(file.read_text())["settings"]
    assert {"S", "M", "SS", "MS", "MM", "2S"} <= settings.keys()
    assert "63.3" in result.out and f"{100 * settings['MM']['miou'][0]:.1f}" in result.out
