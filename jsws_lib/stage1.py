"""Stage 1: SSNet-1 from image labels and saliency masks (Section 3.4, Table 5).

| setting | losses       | what it shows                           |
|---------|--------------|-----------------------------------------|
| S       | L_c          | how far image labels alone go           |
| M       | L_c + L_s1   | what saliency masks of other images add |
"""

from data_utils.categories import categories
from jsws_lib.config import SETTINGS, Profile, Recipe
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Loop, seed_everything, train


def train_stage1(
    setting: str,
    *,
    profile: Profile,
    recipe: Recipe,
    seed: int = 0,
    loop: Loop | None = None,
) -> SSNet:
    """Train SSNet-1 on a pre-trained backbone.

    Args:
        setting: S or M, a key of `SETTINGS`.
        profile, recipe: settings.
        seed: of weights, images and crops.
        loop: what surrounds the steps; afterwards it holds the history.

    Raises:
        JswsError: data or weights are missing or broken, or a loss is not finite.
    """
    losses = SETTINGS[setting].losses
    seed_everything(seed)
    net = build_ssnet(
        1,
        backbone=profile.backbone,
        size=profile.size,
        recipe=recipe,
        weights=profile.weights,
        categories=len(categories(profile.data / profile.voc)),
    )
    title = f"{setting} ({' + '.join(losses)})"
    train(net, losses, profile=profile, recipe=recipe, seed=seed, loop=loop, title=title)
    return net
