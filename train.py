"""The whole method, called on one page: `python train.py`, some ten minutes on two cores.

Each line calls the file of jsws_lib/ that is its idea; the loop itself is in training.py.
`jsws` in a terminal does the same, and takes up what was interrupted.
"""

import shutil
from pathlib import Path

from data_utils.categories import categories
from data_utils.embedded.mini import make_mini
from jsws_lib.config import Profile, Recipe, get_profile, get_recipe
from jsws_lib.engine.checkpoints import describe, recipe_fields, save_weights
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.engine.loop import RunLoop
from jsws_lib.stage1 import train_stage1
from jsws_lib.stage2 import train_stage2


def main(profile: Profile, recipe: Recipe, out: Path) -> dict[str, dict[str, float]]:
    """Train SSNet-1, label D_c with it, train SSNet-2; the measures of both.

    The networks, for `jsws predict --checkpoint`, and the pseudo labels go to `out`.
    """
    how, labels = {"profile": profile, "recipe": recipe}, out / "pseudo_labels"
    ssnet1 = train_stage1("M", **how, loop=RunLoop())  # L_c + L_s1
    make_pseudo_labels(ssnet1, **how, out=labels)  # suppressed, refined, argmax
    ssnet2 = train_stage2("MM", ssnet1, labels, **how, loop=RunLoop())  # L_s1 + L_s2
    nets = {"M": ssnet1, "MM": ssnet2}
    about = {"profile": profile.name, "recipe": recipe_fields(recipe)}
    about["backbone"] = profile.backbone
    about["categories"] = categories(profile.data / profile.voc)
    for name, net in nets.items():
        story = describe(net, setting=name, **about)
        save_weights(out / f"{name}.safetensors", net, story)
    return {name: evaluate(net, **how).figures() for name, net in nets.items()}


if __name__ == "__main__":
    mini, out = get_profile("mini"), Path("runs/train.py")  # or "laptop", ..., with data=
    make_mini(mini.data)
    shutil.rmtree(out, ignore_errors=True)  # the run before, which had other labels
    for name, figures in main(mini, get_recipe(), out).items():
        print(f"{name:3}mIoU {figures['miou']:.3f}, MAE {figures['mae']:.3f}, ", end="")
        print(f"max F {figures['max_f']:.3f}")
