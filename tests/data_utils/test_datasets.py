"""The training sets: aligned crops, weak labels only, one clear error per bad file."""

import numpy as np
import pytest
from helpers import refuses
from PIL import Image

from data_utils.datasets import Augmentation, ClassificationSet, SaliencySet, saliency_pairs
from data_utils.pictures import read_image
from data_utils.voc import image_labels, read_ids, write_palette_png

PLAIN = Augmentation(64, crop=1.0, flip=False)


@pytest.fixture
def voc(own_data):
    return own_data / "VOCdevkit/VOC2012"


def first(voc):
    return read_ids(voc / "ImageSets/Segmentation/train_aug.txt")[0]


def every(data):
    return [data[k, k] for k in range(len(data))]


# --- what a sample is ----------------------------------------------------------------


def test_class_samples(mini_data):
    voc = mini_data / "VOCdevkit/VOC2012"
    data = ClassificationSet(voc, augmentation=Augmentation(48))
    sample = data[3, 0]
    assert len(data) == 24 and set(sample) == {"index", "image", "labels"}
    assert sample["index"] == 3
    assert sample["image"].shape == (3, 48, 48)
    assert str(sample["image"].dtype) == "torch.uint8"
    xml = voc / "Annotations" / f"{data.ids[3]}.xml"
    np.testing.assert_array_equal(sample["labels"], image_labels(xml))


def test_saliency_samples(mini_data):
    duts = mini_data / "DUTS-TR"
    images, masks = duts / "DUTS-TR-Image", duts / "DUTS-TR-Mask"
    data = SaliencySet(images, masks, augmentation=PLAIN)
    assert len(data) == 24
    image, mask = data[5, 0]["image"], data[5, 0]["sal_mask"]
    path, mask_path = data.pairs[5]
    np.testing.assert_array_equal(image.permute(1, 2, 0), read_image(path))
    np.testing.assert_array_equal(mask, np.asarray(Image.open(mask_path)) > 127)
    ids = [data.pairs[k][0].stem for k in (2, 7)]
    some = SaliencySet(images, masks, augmentation=PLAIN, ids=ids)
    assert [p.stem for p, _ in some.pairs] == ids


def test_a_draw_fixes_the_crop(mini_data):
    voc = mini_data / "VOCdevkit/VOC2012"
    data = ClassificationSet(voc, augmentation=Augmentation(64))
    images = [data[0, k]["image"] for k in (0, 0, 1)]
    assert images[0].equal(images[1]) and not images[0].equal(images[2])
    other = ClassificationSet(voc, augmentation=Augmentation(64), seed=1)
    assert not other[0, 0]["image"].equal(images[0])


# --- augmentation --------------------------------------------------------------------


def scene(size=200):
    """A painted box: white in the image, 1 in the mask."""
    mask = np.zeros((size, size), np.uint8)
    mask[60:110, 90:160] = 1
    image = np.repeat(mask[..., None] * np.uint8(255), 3, 2)
    return Image.fromarray(image), Image.fromarray(mask)


@pytest.mark.parametrize("rotate", [0.0, 10.0])
def test_image_and_mask_stay_aligned(rotate):
    augmentation = Augmentation(100, rotate=rotate)
    lefts = []
    for k in range(20):
        image, mask = augmentation(np.random.default_rng(k), *scene())
        image, mask = image.float().mean(0).numpy() / 255, mask.numpy()
        inside = mask != 255
        wrong = np.abs(image - (mask == 1))[inside] > 0.75
        assert wrong.mean() < 0.01  # half a pixel of edge at most
        lefts.append(np.nonzero(mask == 1)[1].min())
        assert set(np.unique(mask)) <= ({0, 1, 255} if rotate else {0, 1})
    assert len(set(lefts)) > 5


def test_crop_is_nine_tenths_somewhere_inside():
    size = 200
    ramp = np.tile(np.arange(size, dtype=np.uint8), (size, 1))
    picture = Image.fromarray(np.dstack([ramp, ramp.T, ramp]))
    augmentation = Augmentation(180, crop=0.9, flip=False)
    corners = []
    for k in range(40):
        (image,) = augmentation(np.random.default_rng(k), picture)
        x, y = image[0, 90].float(), image[1, :, 90].float()
        for axis in (x, y):  # 180 of 200 px, at their own scale
            assert axis[-1] - axis[0] == pytest.approx(179, abs=1)
        corners.append((x[0].item(), y[0].item()))
    for axis in np.array(corners).T:
        assert axis.min() >= 0 and axis.max() <= 20
        assert axis.max() - axis.min() > 10


def test_flip_mirrors_half_of_the_draws():
    image, mask = scene()
    both = [Augmentation(200, crop=1.0, flip=flip) for flip in (False, True)]
    plain, mirrored = (
        [one(np.random.default_rng(k), image, mask) for k in range(40)] for one in both
    )
    flips = [not a[1].equal(b[1]) for a, b in zip(plain, mirrored, strict=True)]
    assert 10 < sum(flips) < 30
    at = flips.index(True)
    assert mirrored[at][1].equal(plain[at][1].flip(-1))


# --- weak labels ---------------------------------------------------------------------


def test_leaky_labels_come_from_the_mask_and_change_nothing_else(voc):
    ids = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")
    for name in ids:
        mask = np.zeros((64, 64), np.uint8)
        mask[10:30, 10:30] = 7
        mask[40:44] = 255  # void is no category
        write_palette_png(voc / "SegmentationClass" / f"{name}.png", mask)
    honest = ClassificationSet(voc, augmentation=PLAIN)
    leaky = ClassificationSet(voc, augmentation=PLAIN, leaky_labels=True)
    pairs = list(zip(every(honest), every(leaky), strict=True))
    for a, b in pairs:
        assert a["image"].equal(b["image"]) and set(a) == set(b)
        assert b["labels"].nonzero().flatten().tolist() == [6]
    assert any(not a["labels"].equal(b["labels"]) for a, b in pairs)


def test_pseudo_labels_are_cropped_with_their_image(voc, tmp_path):
    ids = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")
    for name in ids:
        bright = np.asarray(read_image(voc / f"JPEGImages/{name}.jpg")).mean(2) > 128
        write_palette_png(tmp_path / f"{name}.png", bright.astype(np.uint8) * 9)
    data = ClassificationSet(voc, augmentation=Augmentation(64), pseudo_labels=tmp_path)
    agree = []
    for sample in every(data):
        assert sample["pseudo_label"].dtype.is_floating_point is False
        bright = sample["image"].float().mean(0) > 128
        agree.append(((sample["pseudo_label"] == 9) == bright).float().mean())
    assert np.mean(agree) > 0.9


# --- bad files -----------------------------------------------------------------------


def test_missing_files(own_data):
    voc = own_data / "VOCdevkit/VOC2012"
    data = ClassificationSet(voc, augmentation=PLAIN, pseudo_labels=own_data)
    refuses(f"no picture at .*{first(voc)}.png", lambda: data[0, 0])
    images, masks = (own_data / "DUTS-TR" / f"DUTS-TR-{k}" for k in ("Image", "Mask"))
    name = sorted(images.glob("*.jpg"))[0].stem
    (masks / f"{name}.png").unlink()
    refuses(rf"1 masks are missing.*{name}\.png", saliency_pairs, images, masks)
    words = r"nobody\.jpg is listed but missing"
    refuses(words, saliency_pairs, images, masks, ids=["nobody"])
    refuses("no picture in .*nowhere", saliency_pairs, own_data / "nowhere", masks)


def test_the_cache_decodes_each_picture_once(voc):
    data = ClassificationSet(voc, augmentation=Augmentation(64), cache="memory")
    before = data[0, 0]["image"]
    (voc / f"JPEGImages/{first(voc)}.jpg").unlink()
    assert data[0, 0]["image"].equal(before)
