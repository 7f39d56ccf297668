"""Procedural landscapes: skies, meadows, streets and rooms from 1/f textures.

Colours are float32 in 0..1 and may leave that range slightly; scenes clip them.
"""

from functools import cache
from typing import NamedTuple

import numpy as np


class Setting(NamedTuple):
    """A kind of place: colours above and below the horizon, and how rough they are."""

    above: str
    below: str
    horizon: tuple[float, float]  # range, as a fraction of the height
    stretch: float  # > 1: texture runs sideways, as on water
    contrast: float  # of the ground texture


SKY = "#7db7e8 #a9cdea #c9d8e2 #8fa6bd #f0c9a0 #5d93cf #d7c3cf"
EARTH = "#8a6f5a #5f7d78 #9a9350 #7c6a86 #b08968 #6b8c5f #a8626b"
SETTINGS = {
    "air": Setting(SKY, SKY, (1.0, 1.0), 2, 0.05),
    "water": Setting(SKY, "#2f6f92 #3d8a9c #4b7f96 #27566f", (0.2, 0.55), 5, 0.09),
    "meadow": Setting(SKY, "#6f9a42 #88a94a #557f3a #a3a657", (0.15, 0.5), 0.6, 0.1),
    "forest": Setting(
        "#31502f #49673a #5d6f3d #27402c", "#6a5a3c #55613a #7b6a49", (0.45, 0.75), 0.5, 0.1
    ),
    "street": Setting(
        "#b9a58e #a3aab0 #c4b7a6 #8d8f94 #c9d8e2",
        "#77777a #8b8883 #636569",
        (0.3, 0.6),
        2,
        0.06,
    ),
    "room": Setting(
        "#d9cdb8 #c8d0cc #bfae9a #cfc3cf #a9b7b0 #8d9aa6",
        "#a37c52 #8b6a4a #b79b7a #86807c",
        (0.5, 0.8),
        6,
        0.07,
    ),
    "dunes": Setting(SKY, "#d2b07a #c69a64 #dcc79a", (0.2, 0.5), 2.5, 0.07),
    "snow": Setting(SKY, "#e4eaf0 #d5dfe8 #c9d4de", (0.2, 0.5), 1.5, 0.05),
    "texture": Setting(EARTH, EARTH, (0.0, 0.0), 1, 0.1),
}
CLUTTER = {  # colours of what lies about
    "air": "#ffffff #e8edf2 #b8c6d4",
    "water": "#e5eff2 #5f6b66 #8a7f6d #2c5a48",
    "meadow": "#3f6b2c #7f8f3b #c9b03f #d9d4c3 #b85f6b #8a8272",
    "forest": "#24402a #4d7038 #8a6237 #b5773a #6d6a5c",
    "street": "#4b4d50 #b04a3c #d5b04a #e6e3dc #3f6b2c",
    "room": "#7a4b3a #4f6172 #b8862f #e3dccd #5c7d5a",
    "dunes": "#8f7a58 #6f7b4a #a7673f #e8dcc0",
    "snow": "#56665c #8b98a3 #3e5a48 #a9b6c1",
    "texture": "#d9cdb8 #3f4a50 #b5773a #6b8c5f #8d5a6b",
}


def rgb(colour: str) -> np.ndarray:
    """Return `#rrggbb` as (3,) float32 in 0..1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


def _pick(rng: np.random.Generator, colours: str) -> np.ndarray:
    """Return one of the colours, (3,), slightly shifted."""
    choice = colours.split()
    colour = rgb(choice[rng.integers(len(choice))])
    return np.clip(colour + rng.normal(0, 0.035, 3), 0, 1).astype(np.float32)


@cache
def _frequency(size: int, stretch: float) -> np.ndarray:
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(fy, fx * stretch)
    radius[0, 0] = np.inf  # no mean
    return radius * size


@cache
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return y (size, 1) and x (1, size), both 0..1, to be broadcast."""
    axis = np.linspace(0, 1, size, dtype=np.float32)
    return axis[:, None], axis[None]


def noise(
    rng: np.random.Generator, size: int, *, beta: float, stretch: float = 1.0
) -> np.ndarray:
    """Return a texture, (size, size) float32, with power 1/f^beta, mean 0 and std 1.

    Photographs have beta near 2; smaller is grainier. `stretch` > 1 draws it sideways.
    """
    spectrum = rng.standard_normal((2, size, size // 2 + 1))
    amplitude = _frequency(size, stretch) ** (-beta / 2)
    spectrum = (spectrum[0] + 1j * spectrum[1]) * amplitude
    texture = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    return texture / texture.std()


def _area(
    rng: np.random.Generator, size: int, colours: str, contrast: float, stretch: float
) -> np.ndarray:
    """Return a textured two-colour gradient, (size, size, 3)."""
    top, bottom = _pick(rng, colours), _pick(rng, colours)
    ramp = grid(size)[0] + 0.25 * noise(rng, size, beta=2.5, stretch=stretch)
    area = top + (bottom - top) * np.clip(ramp, 0, 1)[..., None]
    grain = noise(rng, size, beta=rng.uniform(1.2, 2.6), stretch=stretch)
    tint = 1 + rng.uniform(-0.15, 0.15, 3).astype(np.float32)
    return area + (contrast * rng.uniform(0.6, 1.4) * grain)[..., None] * tint


def _clutter(
    rng: np.random.Generator, image: np.ndarray, colours: str, horizon: float
) -> None:
    """Scatter stones, leaves and blobs over `image`; some outlined like a drawing."""
    size = len(image)
    y, x = grid(size)
    for _ in range(rng.integers(0, 9)):
        cy, cx = rng.uniform(min(horizon, 0.6), 1.05), rng.uniform(-0.05, 1.05)
        # things look larger near the lower edge
        radius = rng.uniform(0.015, 0.09) * (0.4 + cy)
        angle, slim = rng.uniform(0, np.pi), rng.uniform(0.35, 1)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        power = rng.choice([1.0, 2.0, 2.0, 4.0])  # diamond, ellipse, rounded block
        reach = np.abs(u / radius) ** power + np.abs(v / (radius * slim)) ** power
        reach **= 1 / power
        edge = 1.5 / (radius * slim * size)
        inside = np.clip((1 - reach) / edge + 0.5, 0, 1)[..., None]
        shade = 1 - 0.35 * np.clip(v / radius, -1, 1)
        colour = _pick(rng, colours) * shade[..., None]
        if rng.random() < 0.35:
            rim = np.clip((reach - 1) / edge + 1.5, 0, 1)[..., None]
            colour = colour * (1 - rim) + 0.1 * rim
        image += inside * rng.uniform(0.6, 1) * (colour - image)


def render_background(
    rng: np.random.Generator, size: int, *, place: str
) -> tuple[np.ndarray, float]:
    """Return a landscape, (size, size, 3) float32, and its horizon (0 = top)."""
    setting = SETTINGS[place]
    y, x = grid(size)
    horizon = rng.uniform(*setting.horizon)
    image = _area(rng, size, setting.above, 0.025, 2)
    if setting.above == SKY:
        clouds = noise(rng, size, beta=3, stretch=0.5)
        cover = np.clip(clouds - rng.uniform(0, 1.6), 0, 1) * rng.uniform(0.2, 0.8)
        image += cover[..., None] * (0.97 - image)
        if rng.random() < 0.5:  # hills or a far shore
            ridge = horizon - 0.05 - 0.07 * noise(rng, size, beta=3)[:1]
            far = _pick(rng, setting.below) * 0.5 + 0.5 * image.mean((0, 1))
            image = np.where((y > ridge)[..., None], far, image)
    elif place == "street":  # house fronts with windows
        columns = rng.integers(4, 10)
        house = rng.uniform(-0.12, 0.12, columns)[(x * (columns - 1)).astype(int)]
        panes = (np.sin(x * columns * 12) > 0.2) & (np.sin(y * 40) > 0.3)
        image += house[..., None] - 0.14 * panes[..., None] * rng.uniform(0, 1)
    elif rng.random() < 0.5:  # trunks in the forest, paper on the wall
        wave = np.sin(x * rng.uniform(15, 70) + 0.4 * noise(rng, size, beta=3)[:1])
        image += (rng.uniform(0.02, 0.09) * wave)[..., None]
    if horizon < 1:
        ground = _area(rng, size, setting.below, setting.contrast, setting.stretch)
        if place in ("street", "room") and rng.random() < 0.6:  # lanes, floor boards
            depth = np.maximum(y - horizon, 0.02)
            fan = (x - rng.uniform(0.2, 0.8)) / depth
            ground += (0.05 * (np.sin(fan * rng.uniform(4, 9)) > 0.9))[..., None]
        edge = horizon + rng.uniform(0, 0.02) * noise(rng, size, beta=2.5)[:1]
        image = np.where((y > edge)[..., None], ground, image)
    image = image.astype(np.float32)
    _clutter(rng, image, CLUTTER[place], horizon)
    return image, horizon
