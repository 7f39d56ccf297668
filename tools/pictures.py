"""The pictures of README and docs/: `python -m tools.pictures` draws them anew."""

import io
import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from data_utils.files import write_bytes
from data_utils.pictures import read_class_mask, read_image
from data_utils.voc import VOID, read_ids
from jsws_lib.config import ROOT, get_profile
from jsws_lib.course.figures.common import (
    SHORT,
    draw_image,
    draw_map,
    draw_segmentation,
    gallery,
    overlay,
)
from jsws_lib.engine import film
from jsws_lib.engine.checkpoints import SHIPPED, load_ssnet, shipped
from jsws_lib.experiments import results
from jsws_lib.inference import predict
from jsws_lib.metrics import ConfusionMatrix

DPI = 110
BETTER = 0.25  # of the held-out images with two categories: better than the one explained


def _held_out() -> list[tuple]:
    """The image and the truth of each scene of val."""
    profile = get_profile("mini")
    voc = profile.data / profile.voc
    return [
        (
            read_image(voc / "JPEGImages" / f"{name}.jpg"),
            np.asarray(read_class_mask(voc / "SegmentationClass" / f"{name}.png")),
        )
        for name in read_ids(voc / "ImageSets" / "Segmentation" / "val.txt")
    ]


def _explained(net) -> tuple:
    """The scene of val with two categories that so many of its kind are better than."""
    scores = []
    for image, truth in _held_out():
        if len(set(np.unique(truth)) - {0, VOID}) == 2:
            matrix = ConfusionMatrix(absent="target")
            matrix.update(truth, predict(net, image).segmentation)
            scores.append((matrix.compute().miou, image, truth))
    scores.sort(key=lambda scored: scored[0])
    return scores[int(len(scores) * (1 - BETTER))][1:]


def method():
    """Draw SSNet's equation on one image: the sum of v_i H_i against the saliency mask.

    Above S, which saw labels alone and whose SAM nobody trained; below M.
    """
    nets = {setting: load_ssnet(shipped(f"mini_{setting}"))[0] for setting in ("S", "M")}
    image, truth = _explained(nets["M"])
    fig = plt.figure(figsize=(9.9, 3.1))
    grid = fig.add_gridspec(
        2, 8, left=0.005, right=0.995, top=0.84, bottom=0.01, wspace=0.32, hspace=0.55
    )
    draw_image(fig.add_subplot(grid[0, 0]), image, title="image")
    draw_segmentation(fig.add_subplot(grid[1, 0]), truth, title="truth, withheld")
    stages = (("S", "labels alone"), ("M", "labels and saliency together"))
    for row, (setting, words) in enumerate(stages):
        found = predict(nets[setting], image)
        probs, v = found.probs, found.class_saliency
        present = set(np.unique(truth)) - {0, VOID}
        others = [k for k in probs[1:].mean((1, 2)).argsort()[::-1] + 1 if k not in present]
        maps = [*sorted(present), *others][:3]
        axes = [fig.add_subplot(grid[row, column]) for column in range(1, 8)]
        draw_map(axes[0], probs[0], title="$H_0$ background")
        for ax, k in zip(axes[1:4], maps, strict=True):
            draw_map(ax, probs[k], title=f"$H$ {SHORT[k]}, $v$ = {v[k - 1]:.2f}")
        draw_map(axes[4], found.sal_map, title="$S$ = Σ $v_i H_i$")
        draw_map(axes[5], (truth > 0) & (truth != VOID), title="saliency mask")
        draw_segmentation(axes[6], found.segmentation, title="largest $H_i$")
        place = axes[0].get_position()
        fig.text(place.x0, place.y1 + 0.095, words, fontweight="bold")
        for ax, sign in zip(axes[1:6], ("", "+", "+ ...", "=", "↔"), strict=True):
            ax.text(-0.16, 0.5, sign, transform=ax.transAxes, ha="center", va="center")
    return fig


# The shipped networks in the picture.
SHOWN = {"S": "S: labels alone", "M": "M: + saliency", "MM": "MM: stage 2"}
GLANCE = (3, 5, 9, 13, 18)  # images of val, chosen for variety before looking at results


def glance():
    """Draw README's picture: image, truth, S, M, MM and the saliency of MM."""
    scenes = _held_out()
    images, truth = zip(*(scenes[k] for k in GLANCE), strict=True)
    columns = [[np.asarray(image) for image in images], truth]
    for setting in SHOWN:
        net, _ = load_ssnet(shipped(f"mini_{setting}"))
        predictions = list(predict(net, images))
        columns.append([p.segmentation for p in predictions])
    columns.append([p.sal_map for p in predictions])
    titles = ("image", "truth", *SHOWN.values(), "saliency of MM")
    return gallery(list(zip(*columns, strict=True)), titles=titles, size=1.5)


def photographs():
    """Draw what the shipped network makes of photographs that anybody may show."""
    net, story = load_ssnet("photos")
    names = ["", *story["categories"]]
    fig, axes = plt.subplots(
        1, 6, figsize=(9.9, 1.55), layout="constrained", width_ratios=(3, 3, 3, 2, 2, 2)
    )
    for pixels, row in ((data.chelsea(), axes[:3]), (data.astronaut(), axes[3:])):
        found = predict(net, Image.fromarray(pixels))
        draw_image(row[0], pixels, title="photograph")
        over = {"image": pixels, "names": names}
        draw_segmentation(row[1], found.segmentation, title="categories", **over)
        draw_map(row[2], found.sal_map, title="saliency $S$")
    return fig


ACTORS, CELL, MARGIN = (0, 1, 3, 4, 6, 7), 104, 112  # of the animation; px


def sharpening() -> bytes:
    """README's animation, a GIF: S and M on six held-out images while they train."""
    films = {name: film.load(SHIPPED / f"mini_{name}_film.npz") for name in ("S", "M")}
    font = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 12)
    width = MARGIN + CELL * len(ACTORS)
    frames = []
    for k, step in enumerate(films["M"].steps):
        canvas = Image.new("RGB", (width, 3 * CELL + 22), "white")
        draw = ImageDraw.Draw(canvas)
        rows = {"images": films["M"].images}
        for name, words in (("S", "S:\nlabels alone"), ("M", "M: labels\nand saliency")):
            rows[words] = [*map(overlay, films[name].images, films[name].segmentation[k])]
        for row, (words, pictures) in enumerate(rows.items()):
            draw.text((6, row * CELL + CELL // 2 - 14), words, "black", font)
            for column, actor in enumerate(ACTORS):
                picture = Image.fromarray(pictures[actor]).resize((CELL - 4, CELL - 4))
                canvas.paste(picture, (MARGIN + column * CELL, row * CELL + 2))
        done = step / films["M"].steps[-1]
        draw.text((6, 3 * CELL + 3), f"step {step}", "black", font)
        left, top, length = MARGIN, 3 * CELL + 7, width - MARGIN - 6
        draw.rectangle((left, top, left + length, top + 7), outline="gray")
        draw.rectangle((left, top, left + round(length * done), top + 7), fill="gray")
        frames.append(canvas.quantize(64, dither=Image.Dither.NONE))
    file, times = io.BytesIO(), [500] * (len(frames) - 1) + [2500]
    options = {"save_all": True, "duration": times, "loop": 0}
    frames[0].save(file, "GIF", append_images=frames[1:], **options)
    return file.getvalue()


def figures() -> dict[str, plt.Figure]:
    """All that are no animation, by the name of their file."""
    result = json.loads(results.MINI.read_text())
    return {
        "method": method(),
        "glance": glance(),
        "photographs": photographs(),
        "ablation": results.ablation_chart(result),
        "suppression": results.suppression_chart(result),
    }


def main():
    """Draw them all."""
    for name, figure in figures().items():
        figure.savefig(ROOT / "docs" / f"{name}.png", dpi=DPI)
    write_bytes(ROOT / "docs/sharpening.gif", sharpening())


if __name__ == "__main__":
    matplotlib.use("agg")
    main()
