"""Figures as files: pages of pictures side by side, and the charts of the measures."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from data_utils.categories import NOTE, categories, voc_of
from data_utils.errors import JswsError
from data_utils.files import check_place, write_bytes
from data_utils.pictures import (
    list_pictures,
    read_class_mask,
    read_image,
    read_saliency_map,
    same_size,
)
from data_utils.voc import VOC_CLASSES
from jsws_lib.course.figures.common import (
    SHORT,
    draw_confusion,
    draw_iou,
    draw_precision_recall,
    gallery,
)
from jsws_lib.engine.checkpoints import load_ssnet
from jsws_lib.engine.devices import pick_device
from jsws_lib.inference import predict
from jsws_lib.metrics import ConfusionMatrix, SaliencyScores, f_measure

FORMATS = (".png", ".pdf", ".svg")
ROWS = 8  # a page
LITERAL = {"text.parse_math": False}  # a name may hold a $


def check_format(path: Path | str):
    """Raise JswsError unless the suffix is one of `FORMATS`."""
    if Path(path).suffix not in FORMATS:
        raise JswsError(f"{path}: name a figure {', '.join(FORMATS)}")


def save_figure(fig: Figure, path: Path | str) -> Path:
    """Write a figure, whole or not at all; its suffix is checked as `check_format` does."""
    path = Path(path)
    check_format(path)
    file = io.BytesIO()
    fig.savefig(file, format=path.suffix[1:], dpi=130)
    return write_bytes(path, file.getvalue())


@rc_context(LITERAL)
def confusion_page(matrix: ConfusionMatrix) -> Figure:
    """The confusion matrix, and the IoU of each category."""
    scores = matrix.compute()
    fig = Figure(figsize=(8.5, 10), layout="constrained")
    top, bottom = fig.subplots(2, 1, height_ratios=(3, 1))
    own = _short(matrix.names or VOC_CLASSES)
    shown = draw_confusion(
        top, matrix.matrix, names=own, title="what became of the true pixels"
    )
    fig.colorbar(shown, ax=top, shrink=0.8, label="share of the row")
    draw_iou(
        bottom, {f"mIoU {scores.miou:.3f} (absent: {scores.absent})": scores.iou}, names=own
    )
    return fig


@rc_context(LITERAL)
def saliency_page(scores: SaliencyScores, *, name: str) -> Figure:
    """Precision over recall, and F over the threshold, of a whole set."""
    fig = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = fig.subplots(1, 2)
    draw_precision_recall(left, {name: (scores.precision, scores.recall)})
    if len(scores.f_curve) > 1:  # a threshold of its own for each map draws no curve
        grey = np.linspace(0, 1, len(scores.f_curve))
        right.plot(grey, scores.f_curve, label=f"F, at most {scores.max_f:.3f}")
        right.plot(grey, scores.precision, "--", label="precision")
        right.plot(grey, scores.recall, ":", label="recall")
        right.set(xlabel="threshold", ylim=(0, 1.02))
        right.legend(frameon=False, fontsize=8)
    else:
        f = float(f_measure(scores.precision, scores.recall)[0])
        left.plot(scores.recall, scores.precision, "o", label=f"F {f:.3f}")
        right.set_axis_off()
    right.spines[["top", "right"]].set_visible(False)
    fig.suptitle(str(scores), fontsize=10)
    return fig


@rc_context(LITERAL)
def write_pages(
    images: Path,
    ids: Sequence[str],
    variants: dict[str, Path],
    out: Path,
    *,
    masks: Path | None = None,
    kind: str = "segmentation",
) -> list[Path]:
    """Write picture, truth and predictions side by side, a row an image.

    With S against M and MM it is Figures 1 and 5, with one network Figure 4, with folders
    of other methods' saliency maps Figure 3.

    Args:
        images, ids: folder of pictures, and which of them, a row each, in this order.
        variants: by title, a checkpoint or a folder of predicted `<id>.png`.
        out: the page; of several, which are returned, `<stem>_01`, `<stem>_02`, ...
        masks: folder of true `<id>.png` of that kind, for a column of truth.
        kind: "segmentation" or "saliency".

    Raises:
        JswsError: a picture, mask or prediction is missing, broken or of another size.
    """
    check_format(out)
    check_place(out)
    found = list_pictures(images)
    pictures = {i: read_image(found.get(i, images / f"{i}.jpg")) for i in ids}
    if not pictures:
        raise JswsError(f"no picture in {images}, or the id list is empty")
    names = ("background", *_categories(images, variants.values()))
    titles, columns = ["image"], [[*map(np.asarray, pictures.values())]]
    if masks:
        titles.append("ground truth")
        columns.append(_read(masks, kind, pictures, names))
    for title, source in variants.items():
        read = _read if source.is_dir() else _predicted
        titles.append(title)
        columns.append(read(source, kind, pictures, names))
    grid = list(zip(*columns, strict=True))
    files = []
    for k, start in enumerate(range(0, len(grid), ROWS), 1):
        path = out if len(grid) <= ROWS else out.with_stem(f"{out.stem}_{k:02d}")
        fig = gallery(grid[start : start + ROWS], titles=titles, names=_short(names))
        files.append(save_figure(fig, path))
        plt.close(fig)  # pyplot keeps it else
    return files


def _short(names: Sequence[str]) -> Sequence[str]:
    """VOC's names shortened, others as they are."""
    return SHORT if tuple(names) == VOC_CLASSES else names


def _categories(images: Path, sources: Iterable[Path]) -> Sequence[str]:
    """Those of the pictures' data set if it has a note of them, or of the first network."""
    voc = voc_of(images)
    networks = [] if (voc / NOTE).is_file() else [s for s in sources if not s.is_dir()]
    return load_ssnet(networks[0])[1]["categories"] if networks else categories(voc)


def _predicted(
    file: Path, kind: str, pictures: dict, names: Sequence[str]
) -> list[np.ndarray]:
    """What a network predicts."""
    net, _ = load_ssnet(file, expect={"categories": names[1:]}, device=pick_device())
    stream = predict(net, pictures.values())
    bar = tqdm(stream, total=len(pictures), desc=file.name, leave=False)
    return [one.sal_map if kind == "saliency" else one.segmentation for one in bar]


def _read(
    folder: Path, kind: str, pictures: dict, names: Sequence[str]
) -> list[np.ndarray]:
    """Categories as uint8, saliency as float in [0, 1]: `gallery` draws by the type."""
    found = []
    for i, picture in pictures.items():
        path, classes = folder / f"{i}.png", kind == "segmentation"
        one = read_class_mask(path, names=names[1:]) if classes else read_saliency_map(path)
        same_size(picture, one, path)
        found.append(np.asarray(one) if classes else np.asarray(one) / 255)
    return found
