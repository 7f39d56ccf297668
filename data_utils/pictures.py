"""Pictures and masks from disk: one reader of each kind, the same for every command.

Pictures come upright, as viewers show them (EXIF). What cannot be read as it was meant is
refused in one sentence that names the file and says what to do: a wrong mask in silence
would only show in worse figures.
"""

import io
import json
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_utils.errors import JswsError
from data_utils.voc import NAMES_KEY, VOC_CLASSES, VOID, palette

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # in either case
GREY = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # modes that may hold grey values
COLOUR = (*GREY, "CMYK", "YCbCr")
DIM = 4096  # of 65,536: a 16-bit picture that stays below holds 8 or 12 bits
BLACK = (
    "{} has 16 bits a {}, but no value above {} of 65,535: it would be read as black; "
    "save it with 8 bits, 0 to 255"
)
LAYOUT = "stored as"  # key under which a picture's `info` has the layout of its pixels


def list_pictures(folder: Path | str) -> dict[str, Path]:
    """The pictures of a folder by stem, sorted by name; empty if there are none.

    Files of other kinds are passed over and named in a warning, hidden ones (`._a.png` of
    a Mac) without a word.

    Raises:
        JswsError: no such folder, or two files whose names differ in suffix or case only.
    """
    if not Path(folder).is_dir():
        raise JswsError(f"{folder}: no such folder")
    found, seen, others = {}, {}, []
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES:
            others += [] if path.is_dir() else [path.name]
            continue
        same = seen.setdefault(key(path.name), path)
        if same is not path:
            raise JswsError(
                f"{path} and {same.name} have the same name but for suffix and case; keep "
                "only one, or rename one"
            )
        found[path.stem] = path
    if others:
        names = ", ".join(others[:3] + ["..."] * (len(others) > 3))
        words = f"{folder}: passed over {names}; read are {', '.join(SUFFIXES)}"
        warnings.warn(words, stacklevel=2)
    return found


def key(name: str) -> str:
    """What pairs a picture with its masks: the name without suffix, in lower case."""
    path = Path(name)
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return unicodedata.normalize("NFC", stem).casefold()


def open_picture(path: Path | str | io.BytesIO) -> Image.Image:
    """Open and decode a picture, in the mode it is stored in, upright.

    Raises:
        JswsError: no such file, not a whole picture, or several in one file.
    """
    try:
        given = isinstance(path, io.BytesIO)  # an upload
        if not given and not Path(path).is_file():  # a pipe or a device may never end
            raise FileNotFoundError
        with Image.open(path) as picture:
            pages = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            layout = picture.tile[0][3] if picture.tile else ""
            picture.info[LAYOUT] = str(layout[0] if isinstance(layout, tuple) else layout)
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
    except FileNotFoundError:
        raise JswsError(f"no picture at {path}") from None
    except Exception as error:  # whatever the bytes provoke
        raise JswsError(
            f"{path} cannot be decoded ({error}); download or copy it again"
        ) from None
    if pages > 1:
        raise JswsError(f"{path} holds {pages} pictures; save the one you mean by itself")
    return picture


def read_image(path: Path | str | io.BytesIO) -> Image.Image:
    """Read an RGB picture; what is transparent shows white, 16 bits become 8.

    Raises:
        JswsError: as `open_picture` does, or pixels that are no 8-bit or 16-bit colours.
    """
    picture = _eight_bits(open_picture(path), path)
    if picture.mode not in COLOUR:
        raise JswsError(f"{path} is of mode {picture.mode}; save it as 8-bit RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def read_saliency_map(path: Path | str) -> Image.Image:
    """Read grey values as a picture of mode L, black 0 to white 255.

    Raises:
        JswsError: as `open_picture` does; a picture in colour or transparent in places; or
            pixels that are no 8-bit or 16-bit grey.
    """
    picture = _eight_bits(open_picture(path), path)
    if picture.mode not in GREY:
        raise JswsError(f"{path} is of mode {picture.mode}; save it as 8-bit grey")
    if picture.has_transparency_data and picture.convert("RGBA").getextrema()[3][0] < 255:
        raise JswsError(
            f"{path} is transparent in places, and what is salient may stand there: save "
            "it in black and white, without transparency"
        )
    if picture.mode not in ("1", "L"):
        values = np.asarray(picture.convert("RGB"), np.int16)
        if (np.ptp(values, axis=2) > 8).any():  # JPEG colours grey a little
            raise JswsError(
                f"{path} is in colour, as masks of categories are; a saliency mask is "
                "white on what is salient and black elsewhere"
            )
    return picture.convert("L")


def read_saliency_mask(path: Path | str, *, graded: bool = False) -> Image.Image:
    """Read Y as a picture of mode L with values 0 and 1, or 0 to 255 if `graded`.

    Masks in the wild are 1-bit, 0/1, 0/255 or grey; half of full scale decides.

    Raises:
        JswsError: as `read_saliency_map` does, or values that look like numbers of
            categories: nothing as bright as half of full scale; or one to three values
            below it on an area, and white, as void is, on no more than four times that.
            Two values or more that `_grades` calls grades look like none: those of up to
            twelve people start at 21, and VOC's categories end at 20.
    """
    mask = read_saliency_map(path)
    counts = np.array(mask.histogram())
    values = np.flatnonzero(counts)
    if values.max() <= 1:
        return mask.point([0] + [255 if graded else 1] * 255)
    middle = values[(values > 0) & (values < VOID)]
    few = 0 < len(middle) <= 3 and middle.max() < 128
    noise = len(middle) > 1 and middle.max() <= 4  # of compression, beside black
    thin = counts[VOID] < 4 * counts[middle].sum()  # white is but a border
    if (values.max() < 128 or few and thin and not noise) and not _grades(values):
        known = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise JswsError(
            f"{path} holds the values {known}, as masks of categories do; a saliency mask "
            "holds 255 on what is salient and 0 elsewhere"
        )
    return mask if graded else mask.point([0] * 128 + [1] * 128)


def _grades(values: np.ndarray) -> bool:
    """Whether grey values, more than one beside black, are how many of 2 to 12 agreed.

    That is k/n of 255, rounded or cut off, as in PASCAL-S, where twelve people chose.
    """
    for step in (255 / n for n in range(2, 13)):
        grades = np.round(values / step)  # each of them one value
        off = values - grades * step
        if len({*grades}) == len(values) and -1 < off.min() and off.max() < 0.51:
            return np.count_nonzero(values) > 1
    return False


def read_class_mask(
    path: Path | str, *, names: Sequence[str] = VOC_CLASSES[1:]
) -> Image.Image:
    """Read a label picture as mode L: 0, the numbers 1 to C of `names`, or 255 (void).

    A mask that says itself which categories it numbers, as those do that are written here,
    is renumbered; of any other its numbers are taken for those of `names`.

    Raises:
        JswsError: as `open_picture` does; RGB or JPEG instead of indexed; grey of less than
            8 bits, whose values Pillow stretches; colours of VOC that belong to other
            numbers, as an editor leaves them; a value no category has, or a category that
            is none of `names`.
    """
    picture = open_picture(path)
    if picture.mode not in ("P", "L"):
        raise JswsError(
            f"{path} is a {picture.mode} picture, expected an indexed (P) or grey (L) "
            "one that stores category numbers"
        )
    if picture.format in ("JPEG", "MPO"):
        raise JswsError(f"{path} is a JPEG, which changes numbers; save such masks as PNG")
    if picture.mode == "L" and any(bits in picture.info[LAYOUT] for bits in (";2", ";4")):
        raise JswsError(f"{path} has less than 8 bits a pixel; save it with 8, or indexed")
    own = category_names(picture, path) or tuple(names)
    there = [value for value, n in enumerate(picture.histogram()) if n]
    if moved := _moved(picture, there):
        raise JswsError(
            f"{path} shows {moved[0]} in VOC's colour of {moved[1]}, as masks do whose "
            "palette was changed; save it with VOC's palette, or as 8-bit grey"
        )
    if wrong := [value for value in there if len(own) < value < VOID]:
        raise JswsError(
            f"{path} holds the value {wrong[0]}; a VOC mask holds 0 to {len(own)} and "
            f"{VOID}"
        )
    shown = {own[value - 1] for value in there if 0 < value < VOID}
    if unknown := sorted(shown.difference(names)):
        raise JswsError(
            f"{path} shows {unknown[0]!r}, which is none of the {len(names)} categories "
            "here; take masks of these categories"
        )
    return Image.fromarray(renumbering(own, names)[np.asarray(picture)])


def _moved(picture: Image.Image, there: Sequence[int]) -> tuple[int, int] | None:
    """The first value whose colour is VOC's of another, where all colours are VOC's."""
    if picture.mode != "P":
        return None
    number = {tuple(c): k for k, c in reversed([*enumerate(palette().tolist())])}
    colours = np.array(picture.getpalette("RGB")).reshape(-1, 3).tolist()
    known = [(v, number.get(tuple(colours[v]))) for v in there if v < len(colours)]
    if any(k is None or len(VOC_CLASSES) <= k < VOID for _, k in known):
        return None  # colours of somebody else
    return next(((v, k) for v, k in known if v != k), None)


def category_names(picture: Image.Image, path: Path | str) -> tuple[str, ...]:
    """The categories that a mask says it numbers from 1 on; () if it does not say.

    Raises:
        JswsError: what it says is damaged.
    """
    text = picture.info.get(NAMES_KEY, "[]")
    try:
        names = json.loads(text)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    except (TypeError, ValueError, RecursionError):
        pass
    raise JswsError(f"{path}: its note of categories is damaged; predict it again")


def renumbering(own: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """What each number of categories `own` is among `names`, (256,) uint8; 0 if nothing."""
    table = np.zeros(256, np.uint8)
    number = {name: k for k, name in enumerate(names, 1)}
    table[1 : len(own) + 1] = [number.get(name, 0) for name in own]
    table[VOID] = VOID
    return table


def same_size(image: Image.Image, mask: Image.Image, mask_path: Path):
    """Raise JswsError unless mask and image have the same size."""
    if image.size != mask.size:
        (w, h), (mw, mh) = image.size, mask.size
        raise JswsError(
            f"{mask_path} is {mw} x {mh} px but its image is {w} x {h} px; a mask must "
            "have its image's size"
        )


def _eight_bits(picture: Image.Image, path: Path | str) -> Image.Image:
    """A grey picture of 16 bits with 8: white stays white. Others as they are."""
    if ";16" in picture.info[LAYOUT] and picture.mode in ("RGB", "RGBA"):  # read as 8
        top = max(high for _, high in picture.getextrema()[:3])
        if 0 < top < DIM // 256 or not top and "A" not in picture.mode:
            raise JswsError(BLACK.format(path, "colour", 256 * top + 255))
    older = picture.mode == "I" and picture.format == "PNG"  # as Pillow below 11 says it
    if not (picture.mode.startswith("I;16") or older):
        return picture
    values = np.asarray(picture).astype(np.uint32)
    if 0 < values.max() < DIM:
        raise JswsError(BLACK.format(path, "pixel", values.max()))
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
