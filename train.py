"""The whole method, called on one page: `python train.py`, some ten minutes on two cores.

Each line calls the file of jsws_lib/ that is its idea; `jsws` in a terminal does the same
with resume points, several processes and results on disk.
"""

from pathlib import Path

from data_utils.embedded.mini import make_mini
from jsws_lib.config import Profile, Recipe, get_profile, get_recipe
from jsws_lib.engine.evaluation import evaluate
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.stage1 import train_stage1
from jsws_lib.stage2 import train_stage2


def main(profile: Profile, recipe: Recipe, labels: Path) -> dict[str, dict[str, float]]:
    """Train SSNet-1, label D_c with it, train SSNet-2; the measures of both.

    `labels` is the folder that gets the pseudo labels; empty, or of this very SSNet-1.
    """
    how = {"profile": profile, "recipe": recipe}
    ssnet1 = train_stage1("M", **how)  # L_c + L_s1
    make_pseudo_labels(ssnet1, **how, out=labels)  # suppressed, refined, argmax
    ssnet2 = train_stage2("MM", ssnet1, labels, **how)  # L_s1 + L_s2
    nets = {"M": ssnet1, "M-M": ssnet2}
    return {name: evaluate(net, **how).figures() for name, net in nets.items()}


if __name__ == "__main__":
    mini = get_profile("mini")  # or "laptop", "colab", "paper", with data=
    make_mini(mini.data)
    found = main(mini, get_recipe(), Path("runs/train.py/pseudo_labels"))
    for name, figures in found.items():
        print(f"{name:4}mIoU {figures['miou']:.3f}, MAE {figures['mae']:.3f}, ", end="")
        print(f"max F {figures['max_f']:.3f}")
