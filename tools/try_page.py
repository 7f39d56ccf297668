"""The page on which anybody tries the networks: `python -m tools.try_page` serves it.

`build` writes try.html and the folder try/ beside it, which hold all that the page needs:
its own three files (docs/try), ONNX Runtime for browsers (one npm package, pinned by its
hash), the shipped networks, and example pictures. `make book` puts both into the site.
"""

import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image
from skimage import data

from data_utils.embedded.mini import render
from data_utils.errors import JswsError
from data_utils.files import sha256, write_bytes
from jsws_lib.config import ROOT, SETTINGS
from jsws_lib.engine import checkpoints
from jsws_lib.engine import export as exporter

SOURCE = ROOT / "docs" / "try"
CACHE = ROOT / "build" / "try_parts"  # what takes long and does not change
RUNTIME = "onnxruntime-web@1.30.0"
INTEGRITY = (  # sha512 of the package, as npm writes it
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
NEEDED = {  # name of ours: the package's
    "ort.js": "ort.wasm.min.js",
    "ort-wasm.js": "ort-wasm-simd-threaded.mjs",
    "ort-wasm.gz": "ort-wasm-simd-threaded.wasm",
}
NETWORKS = {  # of pictures of this kind; what the page says of them
    "mini_S": ("drawing", "S", "from names alone"),
    "mini_M": ("drawing", "M", "from names and from what stands out"),
    "mini_MM": ("drawing", "MM", "in a stronger form, from the answers of M as well"),
    "photos_MM": ("photograph", "MM", "from names and from what stands out, twice"),
}
DRAWINGS = {  # number of the held-out scene: what it shows
    5: "Drawing of a crying cat's head on a plain",
    9: "Drawing of a horse's head and a poodle",
    0: "Drawing of an old woman and an armchair",
    1: "Drawing of a sheep on a meadow",
    18: "Drawing of an aeroplane in a blue sky",
}
SPACED = {  # as people write what VOC writes in one word
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "TV set",
}
SIDE = 192  # px of a drawing
PHOTOGRAPHS = {  # of the package scikit-image: what it shows, and whose it is
    "chelsea": ("Photograph of a cat's face", "Stéfan van der Walt, CC0"),
    "astronaut": ("Photograph of the astronaut Eileen Collins", "NASA, public domain"),
}


def build(folder: Path, *, course: bool = False) -> Path:
    """Write try.html and try/ into a folder.

    Args:
        folder: of the site, or one of its own.
        course: the course's index.html stands beside it, to be linked.

    Returns:
        the page.

    Raises:
        JswsError: a package or npm is missing, npm is offline, or a file is not the one
            that is pinned.
    """
    parts = folder / "try"
    parts.mkdir(parents=True, exist_ok=True)
    first = _kept("ort.js", f"{RUNTIME} {INTEGRITY} {NEEDED}", _fetch_runtime)
    files, networks = [first.with_name(name) for name in NEEDED], []
    for name, (kind, label, words) in NETWORKS.items():
        checkpoint = checkpoints.find(name)
        key = f"{sha256(checkpoint)} {sha256(Path(exporter.__file__))}"
        export = partial(exporter.export, checkpoint, half=True)
        file = _kept(f"{name}.onnx", key, export)
        story = checkpoints.load_ssnet(checkpoint)[1]
        known = {"name": name, "file": file.name, "bytes": file.stat().st_size}
        known |= {"kind": kind, "label": label, "words": words, "size": story["size"]}
        known["categories"] = [SPACED.get(name, name) for name in story["categories"]]
        known["saliency"] = "L_s1" in SETTINGS[story["setting"]].losses
        networks.append(known)
        files.append(file)
    for file in files:
        shutil.copy(file, parts)
    size = sum((parts / name).stat().st_size for name in NEEDED)
    known = {"runtime": size, "networks": networks, "examples": _examples(parts)}
    write_bytes(parts / "page.json", json.dumps(known, indent=1).encode())
    for name in ("try.js", "try.css"):
        shutil.copy(SOURCE / name, parts)
    text = (SOURCE / "try.html").read_text(encoding="utf-8")
    if not course:
        text = text.replace('<a href="index.html"', '<a hidden href="index.html"')
    return write_bytes(folder / "try.html", text.encode())


def _kept(name: str, key: str, make: Callable) -> Path:
    """The file `name` of `CACHE`, made anew unless it was made from the same `key`."""
    path, note = CACHE / name, CACHE / f"{name}.made-from"
    if not path.is_file() or not note.is_file() or note.read_text() != key:
        note.unlink(missing_ok=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        make(path)
        write_bytes(note, key.encode())
    return path


def _fetch_runtime(path: Path):
    """Fetch the package and write what is `NEEDED` of it into the folder of `path`."""
    npm, why = shutil.which("npm"), "the program npm is not installed"
    with tempfile.TemporaryDirectory() as room:
        if npm:
            print(f"Fetching {RUNTIME} with npm ...", flush=True)
            command = [npm, "pack", RUNTIME, "--silent", "--pack-destination", room]
            done = subprocess.run(command, capture_output=True, text=True, cwd=room)
            why = f"npm could not fetch it ({' '.join(done.stderr.split())[:200]})"
        archives = [*Path(room).glob("*.tgz")]
        if not archives:
            raise JswsError(f"{RUNTIME} is needed, and {why}; install npm and go online")
        packed = archives[0].read_bytes()
    if base64.b64encode(hashlib.sha512(packed).digest()).decode() != INTEGRITY:
        raise JswsError(f"npm gave another {RUNTIME} than the one pinned in {__name__}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for own, theirs in NEEDED.items():
            content = archive.extractfile(f"package/dist/{theirs}").read()
            packs = own.endswith(".gz")  # a quarter; few servers would do it
            write_bytes(path.with_name(own), gzip.compress(content) if packs else content)


def _examples(folder: Path) -> list[dict]:
    """Write example pictures."""
    pictures, examples = {}, []
    for k, words in DRAWINGS.items():
        story = ("drawing", words, "drawn from OpenMoji, CC BY-SA 4.0")
        pictures[f"drawing_{k}"] = render(0, "val", k, size=SIDE).image, *story
    for name, (words, credit) in PHOTOGRAPHS.items():
        pictures[name] = getattr(data, name)(), "photograph", words, credit
    for name, (pixels, kind, words, credit) in pictures.items():
        file = f"{name}.jpg"
        Image.fromarray(pixels).save(folder / file, quality=90)
        examples.append({"file": file, "kind": kind, "words": words, "credit": credit})
    return examples


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder that a thread serves for a while."""
    with serve(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing of every file."""


def serve(folder: Path, port: int = 8000) -> ThreadingHTTPServer:
    """A server of a folder for this machine alone; port 0 takes a free one.

    Raises:
        JswsError: another program has the port.
    """
    try:
        handler = partial(_Handler, directory=str(folder))
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise JswsError(
            f"port {port} cannot be used ({error.strerror}); end what uses it"
        ) from None


if __name__ == "__main__":
    try:
        page = build(ROOT / "build" / "try")
        with serve(page.parent) as server:
            print(f"http://127.0.0.1:{server.server_port}/{page.name}; Ctrl-C ends it")
            server.serve_forever()
    except JswsError as error:
        sys.exit(f"try.html: {error}")
    except KeyboardInterrupt:
        pass
