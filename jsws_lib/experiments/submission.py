"""The archive for the PASCAL VOC evaluation server, checked before it leaves.

Nobody but the server has the masks of VOC's test set (Table 4), it answers a few times a
week, and a wrong file costs one of them. So every file is looked at here first.
"""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from data_utils.errors import JswsError
from data_utils.files import whole
from data_utils.pictures import category_names, open_picture
from data_utils.voc import NUM_CLASSES, VOC_CLASSES, palette, read_ids

# comp6: segmentation, with training data beside VOC's (saliency masks, pre-training).
LAYOUT = "results/VOC2012/Segmentation/comp6_test_cls"
COUNT = 1_456  # images of VOC 2012's test set
NEXT = """\
Next: log in at the PASCAL VOC evaluation server (host.robots.ox.ac.uk:8080), choose
VOC2012, Segmentation, comp6, and upload the archive. The form asks for the method's name
and a description of at least 500 characters; say there that image labels and saliency
masks were used, no pixel annotation of VOC. The answer is Table 4's row."""


def pack(pred_dir: Path | str, voc: Path | str, out: Path | str) -> int:
    """Check `<id>.png` of every test image, write them as one archive, and count them.

    Args:
        pred_dir: folder of indexed PNGs, as `jsws predict --plain` writes them.
        voc: a `VOC2012` folder; its list and the sizes of its images are the measure.
        out: `.tgz` or `.tar.gz`; appears whole or not at all, the same bytes each time.

    Raises:
        JswsError: the list is not the server's; predictions are missing or left over; a
            file is not an indexed PNG in VOC's colours, has another size than its image,
            or a value above 20. All faults are counted, the first ten named. Or the
            archive cannot be written.
    """
    pred_dir, voc, out = Path(pred_dir), Path(voc), Path(out)
    if not out.name.endswith((".tgz", ".tar.gz")):
        raise JswsError(f"{out}: the server takes .tgz or .tar.gz; name the archive so")
    images = voc / "JPEGImages"
    ids = read_ids(voc / "ImageSets/Segmentation/test.txt", image_dir=images)
    if len(ids) != COUNT:
        raise JswsError(
            f"test.txt names {len(ids):,} images, the server expects {COUNT:,}; take the "
            "list of VOC 2012's test archive"
        )
    if not pred_dir.is_dir():
        raise JswsError(f"{pred_dir}: no such folder; `jsws predict --plain` makes it")
    found, wanted = {p.name for p in pred_dir.iterdir()}, {f"{i}.png" for i in ids}
    faults = [f"{name}: missing" for name in sorted(wanted - found)]
    faults += [f"{name}: no test image has that name" for name in sorted(found - wanted)]
    for i in tqdm(ids, desc="checking", unit="file", leave=False):
        if (path := pred_dir / f"{i}.png").name in found:
            faults += [f"{i}.png: {what}" for what in _faults(path, images / f"{i}.jpg")]
    if faults:
        more = [f"and {len(faults) - 10:,} more"] if len(faults) > 10 else []
        first = f"{pred_dir} cannot be submitted, {len(faults):,} faults:"
        raise JswsError("\n  ".join([first, *faults[:10], *more]))
    _write(out, [(f"{LAYOUT}/{i}.png", pred_dir / f"{i}.png") for i in ids])
    return len(ids)


def _faults(path: Path, image: Path) -> list[str]:
    """What the server would stumble over in one file."""
    try:
        prediction = open_picture(path)
        names = category_names(prediction, path)
    except JswsError:
        return ["cannot be decoded; predict it again"]
    if prediction.format != "PNG" or prediction.mode != "P":
        return [f"is {prediction.format}, mode {prediction.mode}, not an indexed PNG (P)"]
    faults = []
    values, colours = np.asarray(prediction), prediction.getpalette()[: 3 * 21]
    if values.max() > NUM_CLASSES:
        faults.append(f"holds the value {values.max()}, the largest is {NUM_CLASSES}")
    if names not in ((), VOC_CLASSES[1:]):
        faults.append("its numbers are not VOC's: predict it with --numbers voc")
    if colours != palette()[:21].ravel().tolist():
        faults.append("its palette is not VOC's: are its numbers categories?")
    try:
        (w, h), (mw, mh) = open_picture(image).size, prediction.size
    except JswsError:
        return [*faults, f"its image {image} cannot be read; copy it again"]
    if (w, h) != (mw, mh):
        faults.append(f"is {mw} x {mh} px, its image {w} x {h} px")
    return faults


def _write(out: Path, members: list[tuple[str, Path]]):
    with (
        whole(out) as temporary,
        open(temporary, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, path in tqdm(members, desc="packing", unit="file", leave=False):
            data = path.read_bytes()
            info = tarfile.TarInfo(name)  # no owner, no date: always the same
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
