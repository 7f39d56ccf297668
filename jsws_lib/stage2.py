"""Stage 2: SSNet-2, a stronger head, from pseudo labels (Section 3.4, Tables 5 and 6).

| setting | losses       | pseudo labels of | what it shows                              |
|---------|--------------|------------------|--------------------------------------------|
| SS      | L_s2         | S                | what a second stage makes of labels alone  |
| MS      | L_s2         | M                | a better teacher, a better student         |
| MM      | L_s1 + L_s2  | M                | the paper's SSNet                          |
| 2S      | L_s1         | nobody           | saliency alone, to see whether it suffers  |

`engine/labelling.py` runs the teacher over D_c before, `pseudo_labels.py` makes its maps
into labels. The head is `ssnet.DilatedHead`, the loop `training.train`.
"""

from pathlib import Path

from data_utils.categories import categories
from jsws_lib.config import SETTINGS, Profile, Recipe
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Loop, seed_everything, train


def train_stage2(
    setting: str,
    teacher: SSNet | None = None,
    labels: Path | None = None,
    *,
    profile: Profile,
    recipe: Recipe,
    seed: int = 0,
    loop: Loop | None = None,
) -> SSNet:
    """Train SSNet-2.

    Args:
        setting: SS, MS, MM or 2S.
        teacher: SSNet-1, whose backbone the student inherits if the recipe says so.
        labels: folder of the teacher's pseudo labels, for L_s2.
        profile, recipe, seed: settings; the seed is of weights, images and crops.
        loop: what surrounds the steps; afterwards it holds the history.

    Raises:
        JswsError: data, labels or weights are missing or broken, or a loss is not finite.
    """
    losses, names = SETTINGS[setting].losses, categories(profile.data / profile.voc)
    inherit = teacher is not None and recipe.stage2_init == "ssnet1"
    seed_everything(seed)
    student = build_ssnet(
        2,
        backbone=profile.backbone,
        size=profile.size,
        recipe=recipe,
        weights=None if inherit else profile.weights,
        categories=len(names),
    )
    if inherit:
        student.backbone.load_state_dict(teacher.backbone.state_dict())
    if recipe.stage2_class_loss and "L_s2" in losses:
        losses = ("L_c", *losses)
    given = {"profile": profile, "recipe": recipe, "seed": seed, "pseudo_labels": labels}
    train(student, losses, **given, loop=loop, title=f"{setting} ({' + '.join(losses)})")
    return student
