"""Scenes for the embedded data: drawings over procedural landscapes, with exact masks.

Every function takes a NumPy `Generator` and draws from nothing else, so a scene is a
function of its seed. Colours are float32 in 0..1 until the last step.
"""

import colorsys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from data_utils.embedded.landscapes import SETTINGS, grid, noise, render_background, rgb
from data_utils.embedded.openmoji import (
    CATEGORIES,
    OUTSIDE_DRAWINGS,
    drawings,
    render_glyph,
)
from data_utils.voc import NUM_CLASSES, VOC_CLASSES

RARELY_SALIENT = ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor")
MIN_VISIBLE = 24  # pixels at 96 px; an object that shows less is not drawn at all


class Item(NamedTuple):
    """One visible object: category, character, visible pixels, salient or not."""

    category: str
    character: str
    visible: int
    salient: bool


class Scene(NamedTuple):
    """An image and everything that is known about it (H = W = size)."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    class_mask: np.ndarray  # (H, W) uint8, 0..20; 0 where the object is not VOC's
    saliency_mask: np.ndarray  # (H, W) bool
    labels: np.ndarray  # (20,) float32 multi-hot
    items: tuple[Item, ...]  # from the back to the front


# --- objects -------------------------------------------------------------------------

FLYING = ("aeroplane", "bird", "balloon", "bat", "bee", "butterfly", "kite")

# OpenMoji's people are yellow: give them skin and hair. Only ratios matter, so dark,
# anti-aliased pixels at the outlines follow their neighbours.
SKIN_YELLOW, HAIR_ORANGE = rgb("#fcea2b"), rgb("#f1b31c")
SKIN = ("#fadcbc", "#f0c8a0", "#debb90", "#c19a65", "#a57939", "#7d5433", "#6a462f")
HAIR = ("#2b2320", "#4a3020", "#7b4b26", "#a5662d", "#c99545", "#8d8782")


def _humanise(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colour, -1, 0)
    golden = (blue < 0.45 * red) & (red > 0.2)
    skin = golden & (np.abs(green - 0.93 * red) < 0.09 * red)
    hair = golden & (np.abs(green - 0.74 * red) < 0.09 * red)
    tone = rng.integers(len(SKIN))
    # dark skin goes with dark hair in most of the world
    shade = rng.integers(len(HAIR) if tone < 3 else 2)
    new_skin, new_hair = rgb(SKIN[tone]), rgb(HAIR[shade])
    colour = np.where(skin[..., None], colour * new_skin / SKIN_YELLOW, colour)
    return np.where(hair[..., None], colour * new_hair / HAIR_ORANGE, colour)


# The YIQ basis: rotating its last two axes turns the hue.
HUE_AXES = np.array([colorsys.rgb_to_yiq(*row) for row in np.eye(3)], np.float32).T


def _recolour(rng: np.random.Generator, category: str, colour: np.ndarray) -> np.ndarray:
    if category == "person":
        colour = _humanise(rng, colour)
    turn = rng.normal(0, 0.12)  # radians; enough to tell twins apart, never misleading
    saturation, brightness = rng.uniform(0.75, 1.1), rng.uniform(0.86, 1.12)
    c, s = saturation * np.cos(turn), saturation * np.sin(turn)
    twist = np.array([[1, 0, 0], [0, c, -s], [0, s, c]], np.float32)
    matrix = np.linalg.inv(HUE_AXES) @ twist @ HUE_AXES
    # black outlines are lifted a little: photographs have none
    return 0.07 + 0.93 * brightness * (colour @ matrix.T.astype(np.float32))


class _Layer(NamedTuple):
    category: str
    character: str
    colour: np.ndarray  # (size, size, 3)
    alpha: np.ndarray  # (size, size)
    bottom: float  # lower edge, fraction of the height
    salient: bool

    @property
    def mask(self) -> np.ndarray:
        return self.alpha >= 0.5


def _layer(
    rng: np.random.Generator,
    size: int,
    category: str,
    character: str,
    side: float,
    centre: tuple[float, float],
    *,
    light: float,
    salient: bool = False,
) -> _Layer:
    """Return a posed, recoloured and lit drawing; `side` is its longer side / size."""
    glyph = render_glyph(character)
    if rng.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    spread = 20 if category in FLYING else 9
    angle = float(np.clip(rng.normal(0, spread), -35, 35))
    glyph = glyph.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    glyph = glyph.crop(glyph.getbbox())
    scale = side * size / max(glyph.size)
    squeeze = rng.uniform(0.88, 1.12)
    width = max(1, round(glyph.width * scale * min(1, squeeze)))
    height = max(1, round(glyph.height * scale * min(1, 1 / squeeze)))
    glyph = glyph.resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(glyph, np.float32) / 255
    colour = _recolour(rng, category, pixels[..., :3])
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    shade = rng.uniform(0.08, 0.24) * (x * np.cos(light) + y * np.sin(light))
    rough = noise(rng, max(width, height), beta=2)[:height, :width]
    shade += rng.uniform(0.02, 0.09) * rough
    colour = colour * (1 + shade)[..., None]

    top = round(centre[0] * size - height / 2)
    left = round(centre[1] * size - width / 2)
    rows = np.arange(max(0, top), min(size, top + height))
    cols = np.arange(max(0, left), min(size, left + width))
    canvas = np.zeros((size, size, 4), np.float32)
    lit = np.concatenate([colour, pixels[..., 3:]], axis=2)
    canvas[np.ix_(rows, cols)] = lit[np.ix_(rows - top, cols - left)]
    foot = (top + height) / size
    return _Layer(category, character, canvas[..., :3], canvas[..., 3], foot, salient)


def _shadow(alpha: np.ndarray, radius: float, right: int, down: int) -> np.ndarray:
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(radius))
    moved = (1, 0, -right, 0, 1, -down)
    image = image.transform(image.size, Image.Transform.AFFINE, moved)
    return np.asarray(image, np.float32)[..., None] / 255


def _visible(layers: list[_Layer], size: int) -> list[tuple[_Layer, np.ndarray]]:
    """Return the layers worth drawing, back to front, with their visible pixels.

    A layer that shows too little is left out altogether, so that the image, its mask
    and its labels never disagree.
    """
    least = MIN_VISIBLE * (size / 96) ** 2
    while True:
        covered = np.zeros((size, size), bool)
        shown = []
        for layer in reversed(layers):
            shown.append((layer, layer.mask & ~covered))
            covered |= layer.mask
        shown.reverse()
        for layer, seen in shown:
            if seen.sum() < max(least, 0.3 * layer.mask.sum()):
                layers = [other for other in layers if other is not layer]
                break
        else:
            return shown


def _compose(
    rng: np.random.Generator, background: np.ndarray, layers: list[_Layer], light: float
) -> Scene:
    size = len(background)
    shown, image, items = _visible(layers, size), background, []
    class_mask = np.zeros((size, size), np.uint8)
    saliency_mask = np.zeros((size, size), bool)
    labels = np.zeros(NUM_CLASSES, np.float32)
    reach, strength = rng.uniform(0.01, 0.04) * size, rng.uniform(0.2, 0.5)
    # light points from the scene to the lamp: shadows fall the other way
    right, down = round(-reach * np.cos(light)), round(-reach * np.sin(light)) + 1
    for layer, seen in shown:
        image = image * (1 - strength * _shadow(layer.alpha, 0.022 * size, right, down))
        image = image + layer.alpha[..., None] * (layer.colour - image)
        if layer.category in VOC_CLASSES:
            index = VOC_CLASSES.index(layer.category)
            labels[index - 1] = 1
            class_mask[seen] = index
        saliency_mask[seen] = layer.salient
        visible = int(seen.sum())
        items.append(Item(layer.category, layer.character, visible, layer.salient))
    image = _photograph(rng, image, light)
    return Scene(image, class_mask, saliency_mask, labels, tuple(items))


def _photograph(rng: np.random.Generator, image: np.ndarray, light: float) -> np.ndarray:
    """Light, tint, blur and grain: (H, W, 3) float in 0..1 becomes uint8."""
    size = len(image)
    y, x = grid(size)
    glow = rng.uniform(0, 0.2) * ((x - 0.5) * np.cos(light) + (y - 0.5) * np.sin(light))
    patches = rng.uniform(0, 0.06) * noise(rng, size, beta=3)
    tint = 1 + rng.normal(0, 0.035, 3)
    image = image * (1 + glow + patches)[..., None] * (tint * rng.uniform(0.9, 1.15))
    image = np.clip(image, 0, 1) * 255
    blurred = Image.fromarray(image.astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(rng.uniform(0, 0.007) * size)
    )
    grain = rng.normal(0, rng.uniform(1, 6), image.shape)
    return np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8)


# --- the three kinds of scene --------------------------------------------------------


class Kind(NamedTuple):
    """A category: its images in VOC, where it is seen, and which others beside it.

    As in photographs, places hint at categories, which tempts a network that knows only
    image labels to learn the place.
    """

    images: int
    places: str
    partners: str


KINDS = {
    "aeroplane": Kind(590, "air street", "person car"),
    "bicycle": Kind(504, "street forest", "person car"),
    "bird": Kind(705, "air forest meadow water", "boat person"),
    "boat": Kind(468, "water", "person bird"),
    "bottle": Kind(714, "room", "person diningtable chair"),
    "bus": Kind(393, "street", "car person"),
    "car": Kind(1150, "street dunes", "person bus motorbike"),
    "cat": Kind(1005, "room meadow", "sofa chair pottedplant"),
    "chair": Kind(1228, "room", "person diningtable tvmonitor pottedplant"),
    "cow": Kind(267, "meadow", "person sheep"),
    "diningtable": Kind(613, "room", "chair person bottle"),
    "dog": Kind(1188, "meadow room snow", "person sofa cat"),
    "horse": Kind(445, "meadow dunes", "person dog"),
    "motorbike": Kind(492, "street dunes", "person car"),
    "person": Kind(
        4155, "street room meadow snow", "bottle chair car horse bicycle motorbike dog"
    ),
    "pottedplant": Kind(522, "room", "chair sofa person"),
    "sheep": Kind(300, "meadow snow", "dog person"),
    "sofa": Kind(649, "room", "person cat tvmonitor"),
    "train": Kind(503, "street forest", "person"),
    "tvmonitor": Kind(567, "room", "chair sofa person"),
}
# Square-rooted, people stay common and cows stay learnable.
_roots = np.sqrt([kind.images for kind in KINDS.values()])
FREQUENCY = _roots / _roots.sum()


def _one_of(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]


def _place(rng: np.random.Generator, category: str) -> str:
    if category in KINDS and rng.random() < 0.7:
        return _one_of(rng, KINDS[category].places.split())
    return _one_of(rng, tuple(SETTINGS))


def _height(rng: np.random.Generator, category: str, side: float, horizon: float) -> float:
    """Return where an object's centre goes: on the ground, or in the air."""
    if category in FLYING or horizon in (0, 1) or rng.random() < 0.15:
        return rng.uniform(0.35, 0.65)
    foot = rng.uniform(max(horizon + 0.08, side * 0.8, 0.55), 1.0)
    return foot - side * 0.42


def class_scene(
    rng: np.random.Generator, size: int = 96, *, held_out: bool = False
) -> Scene:
    """Render one to three VOC objects; about a third of the scenes has two labels.

    `held_out` also uses the drawings kept back for validation.
    """
    first = VOC_CLASSES[1 + rng.choice(NUM_CLASSES, p=FREQUENCY)]
    count = rng.choice([1, 2, 3], p=[0.53, 0.33, 0.14])
    categories = [first]
    for _ in range(count - 1):
        same = rng.random() < 0.33
        categories.append(first if same else _one_of(rng, KINDS[first].partners.split()))
    background, horizon = render_background(rng, size, place=_place(rng, first))
    light = rng.uniform(-np.pi, 0)  # the lamp hangs above
    layer = partial(_layer, rng, size, light=light)
    slots = rng.permutation(count)
    layers = []
    for category, slot in zip(categories, slots, strict=True):
        side = rng.uniform(0.45, 0.75) if count == 1 else rng.uniform(0.32, 0.6)
        cx = (slot + 0.5) / count + rng.normal(0, 0.13 / count)
        if count == 1:
            cx = rng.uniform(side * 0.45, 1 - side * 0.45)
        character = _one_of(rng, drawings(category, held_out=held_out))
        cy = _height(rng, category, side, horizon)
        layers.append(layer(category, character, side, (cy, cx)))
    layers.sort(key=lambda one: one.bottom)  # nearer the lower edge: nearer to us
    return _compose(rng, background, layers, light)


def saliency_scene(rng: np.random.Generator, size: int = 96) -> Scene:
    """Render one or two large central salient objects, VOC's or not.

    Half of the scenes also hold one to three that are not salient: small, near the
    border, mostly RARELY_SALIENT. The saliency mask is 0 there.
    """
    voc = np.array([0.08 if c in RARELY_SALIENT else 1.0 for c in VOC_CLASSES[1:]])
    count = 1 + (rng.random() < 0.3)
    categories = []
    for _ in range(count):
        if rng.random() < 0.5:
            categories.append(VOC_CLASSES[1 + rng.choice(20, p=voc / voc.sum())])
        else:
            categories.append(_one_of(rng, tuple(OUTSIDE_DRAWINGS)))
    background, _ = render_background(rng, size, place=_place(rng, categories[0]))
    light = rng.uniform(-np.pi, 0)
    layer, layers = partial(_layer, rng, size, light=light), []
    for _ in range(rng.integers(1, 4) if rng.random() < 0.5 else 0):
        known = rng.random() < 0.85
        category = _one_of(rng, RARELY_SALIENT if known else CATEGORIES)
        along, depth = rng.uniform(0.08, 0.92), rng.uniform(0.07, 0.16)
        depth = depth if rng.random() < 0.5 else 1 - depth
        centre = (along, depth) if rng.random() < 0.65 else (depth, along)
        character = _one_of(rng, drawings(category))
        layers.append(layer(category, character, rng.uniform(0.19, 0.32), centre))
    for i, category in enumerate(categories):
        side = rng.uniform(0.45, 0.75) if count == 1 else rng.uniform(0.38, 0.56)
        cx = 0.5 + (i - (count - 1) / 2) * 0.36 + rng.normal(0, 0.05)
        cy = 0.5 + rng.normal(0, 0.06)
        character = _one_of(rng, drawings(category))
        layers.append(layer(category, character, side, (cy, cx), salient=True))
    return _compose(rng, background, layers, light)


def single_object(rng: np.random.Generator, size: int = 64) -> tuple[np.ndarray, int]:
    """Render one drawing that fills the image: (size, size, 3) uint8 and its category.

    The category indexes CATEGORIES; VOC's held-out drawings never appear.
    """
    target = int(rng.integers(len(CATEGORIES)))
    category = CATEGORIES[target]
    background, _ = render_background(rng, size, place=_place(rng, category))
    light = rng.uniform(-np.pi, 0)
    centre = tuple(0.5 + rng.normal(0, 0.06, 2))
    character = _one_of(rng, drawings(category))
    side = rng.uniform(0.45, 0.95)
    layer = _layer(rng, size, category, character, side, centre, light=light, salient=True)
    return _compose(rng, background, [layer], light).image, target
