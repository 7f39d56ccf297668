"""README's table and picture, rendered from what was measured; nothing typed by hand.

`python -m jsws_lib.results` rewrites both from `checkpoints/`.
"""

import json

import matplotlib
import numpy as np

from data_utils.datasets import read_class_mask, read_image
from data_utils.files import write_bytes
from data_utils.voc import read_ids
from jsws_lib.checkpoints import SHIPPED, load_ssnet, shipped
from jsws_lib.config import ROOT, get_profile
from jsws_lib.drawing import gallery
from jsws_lib.inference import predict

START, END = "<!-- results:", "<!-- end of results -->"
# Tables 5 and 6 of the paper: mIoU on VOC 2012 val, (MAE, max F) on ECSSD.
PAPER = {
    "S": {"miou": 33.1},
    "M": {"miou": 57.1},
    "MM": {"miou": 63.3, "mae": 0.047, "max_f": 0.912,
           "mae_crf": 0.045, "max_f_crf": 0.919},
}  # fmt: skip
ROWS = {
    "S": "S: SSNet-1, labels alone",
    "M": "M: SSNet-1, labels + saliency",
    "MM": "MM: SSNet-2 on M's pseudo labels + saliency",
}
GLANCE = (3, 5, 9, 13, 18)  # images of val, chosen for variety before looking at results


def table() -> str:
    """The Markdown table of the shipped checkpoints beside the paper."""
    files = json.loads((SHIPPED / "manifest.json").read_text())["files"]
    lines = [
        "| network | mIoU, % | paper | MAE / max *F* | paper | the two after CRF | paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for setting, name in ROWS.items():
        ours, theirs = files[f"mini_{setting}.safetensors"]["figures"], PAPER[setting]
        cells = [name, f"{100 * ours['miou']:.1f}", f"{theirs['miou']:.1f}"]
        for pair in (("mae", "max_f"), ("mae_crf", "max_f_crf")):
            cells += [_show(ours, *pair), _show(theirs, *pair)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _show(figures: dict[str, float], *names: str) -> str:
    if names[0] not in figures:
        return "–"
    return " / ".join(f"{figures[name]:.3f}" for name in names)


def insert(text: str, block: str) -> str:
    """Replace what stands between README's results markers."""
    head, rest = text.split(START)
    comment, rest = rest.split("\n", 1)
    return f"{head}{START}{comment}\n{block}\n{END}{rest.split(END)[1]}"


def glance():
    """Draw README's picture: image, truth, S, M, MM and the saliency of MM."""
    profile = get_profile("mini")
    voc = profile.data / profile.voc
    ids = read_ids(voc / "ImageSets" / "Segmentation" / "val.txt")
    ids = [ids[k] for k in GLANCE]
    images = [read_image(voc / "JPEGImages" / f"{i}.jpg") for i in ids]
    masks = [voc / "SegmentationClass" / f"{i}.png" for i in ids]
    truth = [np.asarray(read_class_mask(mask)) for mask in masks]
    columns = [[np.asarray(image) for image in images], truth]
    for setting in ROWS:
        net, _ = load_ssnet(shipped(f"mini_{setting}"))
        predictions = list(predict(net, images))
        columns.append([p.segmentation for p in predictions])
    columns.append([p.sal_map for p in predictions])
    titles = ("image", "truth", "S: labels alone", "M: + saliency", "MM: stage 2",
              "saliency of MM")  # fmt: skip
    return gallery(list(zip(*columns, strict=True)), titles=titles, size=1.5)


def main():
    """Rewrite README's table and docs/glance.png."""
    readme = ROOT / "README.md"
    text = insert(readme.read_text(), table())
    write_bytes(readme, text.encode())
    (ROOT / "docs").mkdir(exist_ok=True)
    glance().savefig(ROOT / "docs" / "glance.png", dpi=110)


if __name__ == "__main__":
    matplotlib.use("agg")
    main()
