"""What README shows of the course: the method at a glance, an animation, the notebooks."""

import base64
import io
import json
import math
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_utils.datasets import read_class_mask, read_image
from data_utils.files import write_bytes, write_png
from data_utils.voc import VOID, read_ids
from jsws_lib import film
from jsws_lib.checkpoints import SHIPPED, load_ssnet, shipped
from jsws_lib.config import ROOT, get_profile
from jsws_lib.inference import predict
from jsws_lib.metrics import ConfusionMatrix
from jsws_lib.pictures import (
    SHORT,
    draw_image,
    draw_map,
    draw_segmentation,
    gallery,
    overlay,
)
from jsws_lib.results import RESULTS, insert
from jsws_lib.stamp import read_stamp

BETTER = 0.25  # of the held-out images with two categories: better than the one explained


def _explained(net, voc: Path) -> str:
    """The image of val with two categories that so many of its kind are better than."""
    scores = {}
    for name in read_ids(voc / "ImageSets" / "Segmentation" / "val.txt"):
        truth = np.asarray(read_class_mask(voc / "SegmentationClass" / f"{name}.png"))
        if len(set(np.unique(truth)) - {0, VOID}) == 2:
            matrix = ConfusionMatrix(absent="target")
            found = predict(net, read_image(voc / "JPEGImages" / f"{name}.jpg"))
            matrix.update(truth, found.segmentation)
            scores[name] = matrix.compute().miou
    return sorted(scores, key=scores.get)[int(len(scores) * (1 - BETTER))]


def method():
    """Draw SSNet's equation on one image: the sum of v_i H_i against the saliency mask.

    Above S, which saw labels alone and whose SAM nobody trained; below M.
    """
    profile = get_profile("mini")
    voc = profile.data / profile.voc
    nets = {setting: load_ssnet(shipped(f"mini_{setting}"))[0] for setting in ("S", "M")}
    name = _explained(nets["M"], voc)
    image = read_image(voc / "JPEGImages" / f"{name}.jpg")
    truth = np.asarray(read_class_mask(voc / "SegmentationClass" / f"{name}.png"))
    fig = plt.figure(figsize=(9.9, 3.1))
    grid = fig.add_gridspec(2, 8, left=0.005, right=0.995, top=0.84, bottom=0.01,
                            wspace=0.32, hspace=0.55)  # fmt: skip
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


SHOWN = ("S", "M", "MM")  # in the picture, and the shipped networks
GLANCE = (3, 5, 9, 13, 18)  # images of val, chosen for variety before looking at results


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
    for setting in SHOWN:
        net, _ = load_ssnet(shipped(f"mini_{setting}"))
        predictions = list(predict(net, images))
        columns.append([p.segmentation for p in predictions])
    columns.append([p.sal_map for p in predictions])
    titles = ("image", "truth", "S: labels alone", "M: + saliency", "MM: stage 2",
              "saliency of MM")  # fmt: skip
    return gallery(list(zip(*columns, strict=True)), titles=titles, size=1.5)


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
            rows[words] = [overlay(image, segmentation) for image, segmentation in
                           zip(films[name].images, films[name].segmentation[k],
                               strict=True)]  # fmt: skip
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
    file = io.BytesIO()
    times = [500] * (len(frames) - 1) + [2500]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times,
                   loop=0)  # fmt: skip
    return file.getvalue()


class Lesson(NamedTuple):
    """A row of README's table of notebooks."""

    notebook: str
    title: str
    builds: str
    paper: str  # sections and tables
    picture: str  # cell whose first figure is shown

    @property
    def alt(self) -> str:
        """Words for who does not see the picture."""
        return f"A figure of notebook {self.title.replace(' ', ', ', 1)}"


LESSONS = (
    Lesson("01_data", "1 Data",
           "two data sets with two kinds of labels, and what neither says", "4.1", "c13"),
    Lesson("02_backbone", "2 Backbone",
           "a classifier that keeps its feature map large: stride and dilation", "3.2",
           "f03"),
    Lesson("03_saliency_aggregation", "3 Saliency aggregation",
           "scores *v* that turn category maps into one saliency map", "3.3", "e03"),
    Lesson("04_losses", "4 Losses",
           "*L_c*, *L_s1*, *L_s2* in log space, and the readings that fail", "3.4", "c30"),
    Lesson("05_stage1", "5 Stage 1", "SSNet-1 with labels alone and with saliency",
           "3.4, Table 5", "f02"),
    Lesson("06_pseudo_labels", "6 Pseudo labels",
           "suppression by image labels and a dense CRF", "3.4", "c19"),
    Lesson("07_stage2", "7 Stage 2", "SSNet-2, a student that beats its teacher",
           "3.2, Table 5", "c64"),
    Lesson("08_evaluation", "8 Evaluation",
           "mIoU, MAE and five protocols of the *F*-measure", "4, Tables 1 to 6", "c46"),
)  # fmt: skip
THUMB = (176, 110)  # px


def lessons_table() -> str:
    """README's table of notebooks, with the seconds of the last execution."""
    course, stamp = json.loads((RESULTS / "course.json").read_text()), read_stamp()
    lines = ["| notebook | | what you build | in the paper | CPU | |",
             "| --- | --- | --- | --- | ---: | --- |"]  # fmt: skip
    for one in LESSONS:
        path = f"notebooks/{one.notebook}.ipynb"
        seconds = 10 * math.ceil(course["seconds"][one.notebook] / 10)
        picture = f"![{one.alt}](docs/thumbs/{one.notebook}.png)"
        lines.append(f"| [{one.title}]({path}) | {picture} | {one.builds} | {one.paper} | "
                     f"{seconds} s | {stamp.badge(path)} |")  # fmt: skip
    lines += ["", f"*CPU: executing all cells on {course['cores']} cores, rounded up; your "
              "reading and the exercises take hours. Nobody has timed a T4.*"]  # fmt: skip
    return "\n".join(lines)


def thumbnail(lesson: Lesson) -> Image.Image:
    """The upper left of a figure that is stored in a notebook."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{lesson.notebook}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == lesson.picture)
    shown = (output.get("data", {}).get("image/png") for output in cell.outputs)
    data = next(picture for picture in shown if picture)
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    width = min(picture.width, picture.height * THUMB[0] // THUMB[1])
    height = min(picture.height, width * THUMB[1] // THUMB[0])
    return picture.crop((0, 0, width, height)).resize(THUMB, Image.Resampling.LANCZOS)


def write():
    """Rewrite README's table of notebooks, and the pictures it shows."""
    page = ROOT / "README.md"
    text = insert(page.read_text(encoding="utf-8"), lessons_table(), "notebooks")
    write_bytes(page, text.encode())
    for lesson in LESSONS:
        write_png(ROOT / "docs" / "thumbs" / f"{lesson.notebook}.png", thumbnail(lesson))
    method().savefig(ROOT / "docs" / "method.png", dpi=110)
    glance().savefig(ROOT / "docs" / "glance.png", dpi=110)
    write_bytes(ROOT / "docs" / "sharpening.gif", sharpening())
