"""Every setting, in plain frozen dataclasses.

A `Profile` says how large and how long: data, backbone, size, steps, optimiser. A
`Recipe` says which reading of the paper: where the text leaves a choice, or where the
authors' released code departs from it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import get_args

from data_utils.errors import JswsError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Schedule:
    """Optimiser and learning rate over one training stage."""

    optimiser: str = "adam"  # Section 4.1; or "adamw"
    lr: float = 1e-4  # Section 4.1: initial learning rate
    betas: tuple[float, float] = (0.9, 0.999)  # unstated; Adam's own defaults
    weight_decay: float = 0.0  # unstated
    kind: str = "step"  # "step": lr * decay ** (step // every); or "onecycle"
    decay: float = 0.5  # Section 4.1, "decrease by 0.5" read as halving
    every: int = 1000  # Section 4.1, steps
    reset_moments: bool = False  # restart Adam at each decay


CHOICES = {
    "class_evidence": ("mean_probs", "logits", "odds"),
    "saliency_reading": ("bce", "background", "nll_probs"),
    "upsample": ("logits", "probs"),
    "stage2_init": ("ssnet1", "imagenet"),
    "suppress": ("probs", "logits"),
}


@dataclass(frozen=True)
class Recipe:
    """One reading of the method. Defaults are the recommended reading, `steady`."""

    name: str = "steady"
    # t-hat of Eq. 2: "mean_probs" (spatial mean of H), "logits" or "odds"; see losses.py.
    class_evidence: str = "logits"
    evidence_share: float = 0.5  # of the positions, the highest, that "logits" averages
    class_weight: float = 1.25  # factor on L_c
    # L_s1: "bce" (Eq. 3), "background" or "nll_probs"; see losses.py.
    saliency_reading: str = "bce"
    upsample: str = "logits"  # then softmax; "probs": softmax first (Section 3.2)
    trainable_deconv: bool = False
    sam_init_std: float | None = None  # None: PyTorch's default
    # Learning rate of the SAM's k x k kernel, in units of 1/k of the others'; None: the
    # same as theirs. Adam moves every weight by about the learning rate, however small
    # the gradient, and a score sums over k^2 positions: at the common rate v jumps to 0
    # or 1 in the first steps, and a sigmoid that far out learns no more.
    sam_rate: float | None = 1.0
    stage1_stride: int = 8  # Section 3.2
    final_relu: bool = True  # unstated; behind DenseNet's last batch norm, as pre-trained
    skips: bool = False  # FCN-8s skip connections in stage 1
    stage2_init: str = "ssnet1"  # unstated; backbone from stage 1, or "imagenet"
    stage2_class_loss: bool = False  # add L_c to stage 2
    flip: bool = True  # unstated; mirror images left-right
    rotate: float = 0.0  # degrees, largest rotation either way
    suppress: str = "probs"  # what image labels multiply (Section 3.4), or "logits"
    crf: str = "readme"  # key of crf.CRF_PRESETS; parameters unstated
    leaky_labels: bool = False  # labels from the cropped pixel mask instead of the XML
    schedules: tuple[Schedule, Schedule] | None = None  # overrides the profile's

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise JswsError(f"recipe {self.name}: {name} is '{value}'; choose from "
                                f"{', '.join(allowed)}")  # fmt: skip
        if not 0 < self.evidence_share <= 1:
            raise JswsError(f"recipe {self.name}: evidence_share {self.evidence_share} is "
                            "no share of the positions, above 0 and at most 1")  # fmt: skip


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


PRECISIONS = ("float32", "bf16", "fp16", "auto")


@dataclass(frozen=True)
class Profile:
    """One scale of the experiment. Defaults are Section 4.1, the profile `paper`."""

    name: str = "paper"
    backbone: str = "densenet169"
    weights: str = "default"  # of the backbone: its pre-training, or a local file
    size: int = 256  # px, side of the square network input
    crop: float = 0.9  # of each side, random, then resized to `size`
    steps: tuple[int, int] = (10_000, 10_000)  # stage 1, stage 2
    batch_class: int = 16  # per data set; the paper's 16 may also mean both together
    batch_saliency: int = 16
    schedules: tuple[Schedule, Schedule] = (Schedule(), Schedule())
    crf_scale: float = 1.0  # shrinks the CRF's spatial ranges with the picture
    workers: int = 4  # data-loading processes
    cache: str = "none"  # of decoded pictures: "none", "memory" or "decoded" (a file)
    precision: str = "float32"  # of products: or "bf16", "fp16", "auto"; see devices.py
    accumulate: int = 1  # parts of a batch that go through the network one by one
    checkpointing: bool = False  # keep fewer activations, compute them twice
    compile: bool = False  # torch.compile network and losses
    voc: str = "VOCdevkit/VOC2012"  # under the data root
    train_list: str = "train_aug"  # in ImageSets/Segmentation
    val_list: str = "val"
    saliency_images: str = "DUTS-TR/DUTS-TR-Image"
    saliency_masks: str = "DUTS-TR/DUTS-TR-Mask"
    saliency_list: str | None = None  # file of ids; None: every image
    test_images: str = "ECSSD/images"
    test_masks: str = "ECSSD/ground_truth_mask"
    test_list: str | None = None
    data: Path = field(default=ROOT / "data" / "real")

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise JswsError(f"profile {self.name}: precision is '{self.precision}'; choose "
                            f"from {', '.join(PRECISIONS)}")  # fmt: skip
        if self.accumulate < 1:
            raise JswsError(f"profile {self.name}: accumulate is {self.accumulate}; a "
                            "batch has 1 part or more")  # fmt: skip


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
    ),
    # Real data, one 15 GB card, hours.
    "colab": Profile("colab", steps=(4000, 4000), batch_class=8, batch_saliency=8,
                     schedules=(Schedule(every=400), Schedule(every=400)), workers=2,
                     cache="decoded", precision="auto"),
    "paper": Profile(cache="decoded", precision="auto"),
}  # fmt: skip


def get_profile(name: str | None = None, **changes) -> Profile:
    """Look a profile up by name, `$JSWS_PROFILE`, or `mini`; then apply `changes`.

    `$JSWS_DATA` replaces the data root. A change of None leaves the field as it is.

    Raises:
        JswsError: no such profile.
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


def recipe_changes(texts: Sequence[str]) -> dict:
    """Read `FIELD=VALUE` as changes for `get_recipe`, for instance `class_evidence=odds`.

    Raises:
        JswsError: no such field, or a value that the field cannot take.
    """
    kinds = {field.name: str(field.type) if get_args(field.type) else field.type.__name__
             for field in fields(Recipe)}  # fmt: skip
    del kinds["name"], kinds["schedules"]
    changes = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or name not in kinds:
            raise JswsError(f"'{text}' is no FIELD=VALUE of a recipe; the fields are "
                            f"{', '.join(kinds)}")  # fmt: skip
        kind = kinds[name]
        try:
            if kind == "bool":
                changes[name] = {"true": True, "false": False}[value.lower()]
            elif "None" in kind and value.lower() == "none":
                changes[name] = None
            elif "float" in kind or "int" in kind:
                changes[name] = (int if kind == "int" else float)(value)
            else:
                changes[name] = value
        except (KeyError, ValueError):
            raise JswsError(f"'{text}': {name} is a {kind}") from None
    return changes


def get_recipe(name: str | None = None, /, **changes) -> Recipe:
    """Look a recipe up by name (default `steady`); then apply `changes`.

    A changed recipe is called so, unless it is given a name: `steady+crf=deeplab`.

    Raises:
        JswsError: no such recipe.
    """
    name = name or STEADY.name
    if name not in RECIPES:
        raise JswsError(f"unknown recipe '{name}'; choose from {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    own = [f"{key}={value}" for key, value in changes.items()
           if getattr(recipe, key, None) != value]  # fmt: skip
    return replace(recipe, **{"name": "+".join([name, *own]), **changes})
