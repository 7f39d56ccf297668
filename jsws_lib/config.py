"""Everything that can be set, in plain frozen dataclasses.

A `Profile` says how large and how long: data, backbone, size, steps, optimizer. A
`Recipe` says which reading of the paper: where the text leaves a choice, or where the
authors' released code departs from it. A `Setting` is a column of Tables 5 and 6.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from data_utils.errors import JswsError
from data_utils.fields import CACHES, check, field

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Schedule:
    """Optimizer and learning rate over one training stage."""

    optimizer: str = field("adam", "Section 4.1: Adam", ("adam", "adamw"))
    lr: float = field(1e-4, "(peak) learning rate; Section 4.1", "(0, inf)")
    betas: tuple[float, float] = field(
        (0.9, 0.999), "of the optimizer; unstated, Adam's own defaults", "[0, 1)"
    )
    weight_decay: float = field(0.0, "unstated", "[0, inf)")
    kind: str = field(
        "step", "`step`: lr x decay ^ (step // every); or one cycle", ("step", "onecycle")
    )
    decay: float = field(0.5, 'Section 4.1, "decrease by 0.5" read as halving', "(0, 1]")
    every: int = field(1000, "steps between decays; Section 4.1", "[1, inf)")
    reset_moments: bool = field(False, "restart Adam at each decay")

    __post_init__ = check


@dataclass(frozen=True)
class Recipe:
    """One reading of the method. Defaults are the recommended reading, `steady`."""

    name: str = "steady"
    class_evidence: str = field(
        "logits",
        "t-hat of Eq. 2, the evidence for a category (losses.py)",
        ("mean_probs", "logits", "odds"),
    )
    evidence_share: float = field(
        0.5, "of the positions, the highest, that `logits` averages", "(0, 1]"
    )
    class_weight: float = field(1.25, "factor on L_c", "[0, inf)")
    saliency_reading: str = field(
        "bce", "L_s1: `bce` is Eq. 3 (losses.py)", ("bce", "background", "nll_probs")
    )
    upsample: str = field(
        "logits", "then softmax; `probs`: softmax first (Section 3.2)", ("logits", "probs")
    )
    trainable_deconv: bool = field(False, "learn the upsampling; else bilinear")
    sam_init_std: float | None = field(
        None, "of the SAM's first weights; none: PyTorch's default", "[0, inf)"
    )
    # Adam moves every weight by about lr, however small the gradient, and a score sums over
    # k x k positions. If all moves agree, as in the first steps, it shifts by about k^2 lr,
    # and v jumps to 0 or 1, from where little moves it; if their signs are mixed, by about
    # k lr. Dividing by k is a compromise.
    sam_rate: float | None = field(
        1.0, "learning rate of the SAM, in 1/k of the others'; none: as theirs", "(0, inf)"
    )
    stage1_stride: int = field(8, "of the features of stage 1; Section 3.2", (8, 16))
    stage2_stride: int = field(8, "of the features of stage 2; Section 3.2", (8, 16))
    final_relu: bool = field(
        True, "behind DenseNet's last batch norm, as pre-trained; unstated"
    )
    skips: bool = field(False, "FCN-8s skip connections in stage 1")
    mirror: bool = field(False, "in use: the mean with the mirror image (ssnet.py)")
    stage2_init: str = field(
        "ssnet1", "where stage 2 has its backbone from; unstated", ("ssnet1", "imagenet")
    )
    stage2_class_loss: bool = field(False, "add L_c to stage 2")
    flip: bool = field(True, "mirror images left-right at random; unstated")
    rotate: float = field(0.0, "degrees, largest rotation either way", "[0, 180]")
    suppress: str = field(
        "probs",
        "what the image labels multiply (Section 3.4); `cam`: class activation maps",
        ("probs", "logits", "cam"),
    )
    crf: str = field(
        "readme",
        "CRF preset (crf.py); parameters unstated",
        ("readme", "seam", "irn", "deeplab", "oaa"),
    )
    leaky_labels: bool = field(
        False, "labels from cropped pixel masks: leaks the truth, for comparison only"
    )
    schedules: tuple[Schedule, Schedule] | None = field(None, "instead of the profile's")

    __post_init__ = check


STEADY = Recipe()
# The SAM as fast as the rest; the background kept in its channel by asking for it.
ANCHORED = Recipe(name="anchored", saliency_reading="background", sam_rate=None)
PAPER = Recipe(
    name="paper",
    class_evidence="mean_probs",
    class_weight=1.0,
    saliency_reading="bce",
    upsample="probs",
    sam_rate=None,
    stage2_init="imagenet",
    flip=False,
)
# Not reproduced: the second classification head, batches of 8 + 8 and 4 + 4 (set the
# profile's), ten augmented copies per pseudo label, masks resized bicubically, truncated
# saliency maps, and the choice of the best checkpoint on val. The start of stage 2 and
# the CRF preset are our choice.
JSWS2020 = Recipe(
    name="jsws2020",
    class_evidence="logits",
    evidence_share=1.0,
    class_weight=1.0,
    saliency_reading="nll_probs",
    upsample="logits",
    trainable_deconv=True,
    sam_init_std=0.02,
    sam_rate=None,
    stage1_stride=16,
    skips=True,
    stage2_init="imagenet",
    stage2_class_loss=True,
    rotate=10.0,
    suppress="logits",
    schedules=(
        Schedule(betas=(0.95, 0.999), decay=0.1, every=2000, reset_moments=True),
        Schedule(lr=5e-6, betas=(0.95, 0.999), every=3000, reset_moments=True),
    ),
)
RECIPES = {r.name: r for r in (STEADY, ANCHORED, PAPER, JSWS2020)}


@dataclass(frozen=True)
class Profile:
    """One scale of the experiment. Defaults are Section 4.1, the profile `paper`."""

    name: str = "paper"
    backbone: str = field(
        "densenet169",
        "densenet169, vgg16, efficientnet_lite0, densenet_mini (backbones.py)",
    )
    weights: str = field("default", "of the backbone: its pre-training, or a local file")
    size: int = field(256, "px, side of the square network input", range(8, 4097, 8))
    crop: float = field(0.9, "of each side, at random, then resized to `size`", "(0, 1]")
    steps: tuple[int, int] = field(
        (10_000, 10_000), "training steps of stage 1 and stage 2", "[1, 1e9]"
    )
    # The paper's 16 may also mean both sets together.
    batch_class: int = field(16, "images a step from the labelled set", "[1, 65536]")
    batch_saliency: int = field(16, "images a step from the saliency set", "[1, 65536]")
    schedules: tuple[Schedule, Schedule] = field(
        (Schedule(), Schedule()), "of stage 1 and stage 2"
    )
    crf_scale: float = field(
        1.0, "factor on the CRF's bilateral sxy, made for photographs of 500 px", "(0, inf)"
    )
    workers: int = field(4, "data-loading processes", "[0, 1024]")
    cache: str = field(
        "none",
        "of decoded pictures; `decoded`: a file beside the data, if nothing is rotated",
        CACHES,
    )
    precision: str = field(
        "float32",
        "of products; `auto`: bf16 or else fp16 on a GPU (devices.py)",
        ("float32", "bf16", "fp16", "auto"),
    )
    accumulate: int = field(
        1, "parts of a batch that go through the network one by one", "[1, 65536]"
    )
    checkpointing: bool = field(False, "keep fewer activations, compute them twice")
    compile: bool = field(False, "torch.compile network and losses")
    validate_every: int = field(
        500, "steps from one look at validation images to the next; 0: none", "[0, inf)"
    )
    voc: str = field("VOCdevkit/VOC2012", "VOC folder, under the data root or absolute")
    train_list: str = field("train_aug", "id list in ImageSets/Segmentation")
    val_list: str = field("val", "the same, to measure on")
    saliency_images: str = field("DUTS-TR/DUTS-TR-Image", "saliency pictures to train on")
    saliency_masks: str = field("DUTS-TR/DUTS-TR-Mask", "their masks")
    saliency_list: str | None = field(None, "file of their ids; none: every picture")
    test_images: str = field("ECSSD/images", "saliency pictures `<id>.jpg` to measure on")
    test_masks: str = field("ECSSD/ground_truth_mask", "their masks `<id>.png`")
    test_list: str | None = field(None, "file of their ids; none: every picture")
    data: Path = field(ROOT / "data" / "real", "data root; `--data` or $JSWS_DATA")

    __post_init__ = check


def _onecycle(lr: float) -> Schedule:
    return Schedule("adamw", lr, weight_decay=1e-4, kind="onecycle")


PROFILES = {
    # Embedded data, two CPU cores, minutes.
    "mini": Profile(
        "mini",
        backbone="densenet_mini",
        size=96,
        steps=(1200, 500),
        schedules=(_onecycle(4e-3), _onecycle(2e-3)),
        crf_scale=96 / 500,
        workers=0,
        cache="memory",
        validate_every=0,
        data=ROOT / "data" / "mini",
    ),
    # Real data on a CPU, an hour or two; features from a pip package.
    "laptop": Profile(
        "laptop",
        backbone="efficientnet_lite0",
        size=128,
        steps=(300, 150),
        batch_class=8,
        batch_saliency=8,
        schedules=(_onecycle(8e-4), _onecycle(5e-4)),
        workers=0,
        validate_every=100,
    ),
    # Real data, one 15 GB card, hours.
    "colab": Profile(
        "colab",
        steps=(4000, 4000),
        batch_class=8,
        batch_saliency=8,
        schedules=(Schedule(every=400), Schedule(every=400)),
        workers=2,
        cache="decoded",
        precision="auto",
    ),
    "paper": Profile(cache="decoded", precision="auto"),
}


# Section 4.4: what Tables 5 and 6 compare.
@dataclass(frozen=True)
class Setting:
    """One trained variant: a column of Tables 5 and 6, a row of README's table."""

    stage: int
    losses: tuple[str, ...]
    teacher: str | None = None  # the setting whose pseudo labels L_s2 uses


SETTINGS = {
    "S": Setting(1, ("L_c",)),
    "M": Setting(1, ("L_c", "L_s1")),
    "SS": Setting(2, ("L_s2",), "S"),
    "MS": Setting(2, ("L_s2",), "M"),
    "MM": Setting(2, ("L_s1", "L_s2"), "M"),
    "2S": Setting(2, ("L_s1",)),
}


def get_profile(name: str | None = None, **changes) -> Profile:
    """Look a profile up by name, `$JSWS_PROFILE`, or `mini`; then apply `changes`.

    `$JSWS_DATA` replaces the data root. A change of None leaves the field as it is.

    Raises:
        JswsError: no such profile, or a value that its field does not take.
    """
    name = name or os.environ.get("JSWS_PROFILE") or "mini"
    if name not in PROFILES:
        raise JswsError(f"unknown profile '{name}'; choose from {', '.join(PROFILES)}")
    changes = {key: value for key, value in changes.items() if value is not None}
    if os.environ.get("JSWS_DATA"):
        changes.setdefault("data", Path(os.environ["JSWS_DATA"]))
    profile = PROFILES[name]
    if "data" in changes and profile.cache == "memory":
        changes.setdefault("cache", "none")  # photographs would fill the memory
    return replace(profile, **changes)


def get_recipe(name: str | None = None, /, **changes) -> Recipe:
    """Look a recipe up by name (default `steady`); then apply `changes`.

    A changed recipe is called so, unless it is given a name: `steady+crf=deeplab`.

    Raises:
        JswsError: no such recipe, or a value that its field does not take.
    """
    name = name or STEADY.name
    if name not in RECIPES:
        raise JswsError(f"unknown recipe '{name}'; choose from {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    own = [
        f"{key}={value}"
        for key, value in changes.items()
        if getattr(recipe, key, None) != value
    ]
    return replace(recipe, **{"name": "+".join([name, *own]), **changes})
