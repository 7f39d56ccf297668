"""Batches and networks of noise, and how many parts of a batch fit into the memory."""

import torch
from accelerate.utils import find_executable_batch_size

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.parallel import process_share
from data_utils.voc import NUM_CLASSES
from jsws_lib.config import SETTINGS, STEADY, Profile, Recipe
from jsws_lib.engine.devices import make_accelerator, pick_device, recompute_stages
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Objective, make_optimizer

TRAINED = {1: "M", 2: "MM"}  # the setting of each stage that is tried


def random_batches(
    stage: int, images: int, size: int, *, device="cpu", categories: int = NUM_CLASSES
) -> list[dict]:
    """A batch of D_c and one of D_s with noise for images, `images` of `size` px in each.

    Stage 2 has pseudo labels as well.
    """

    def noise():
        image = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
        return image.to(device, memory_format=torch.channels_last)

    mask = torch.zeros(images, size, size, dtype=torch.uint8, device=device)
    mask[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    labels = torch.zeros(images, categories, device=device)
    labels[:, 0] = 1
    on_classes = {"image": noise(), "labels": labels}
    if stage == 2:
        on_classes["pseudo_label"] = mask.long()
    return [on_classes, {"image": noise(), "sal_mask": mask}]


def random_network(stage: int, p: Profile, recipe: Recipe) -> SSNet:
    """A profile's network with random weights, with outputs for the data's categories."""
    how = {"backbone": p.backbone, "size": p.size, "categories": _count(p)}
    return build_ssnet(stage, **how, recipe=recipe, weights=None)


def _count(p: Profile) -> int:
    return len(categories(p.data / p.voc))


def parts_that_fit(stage: int, profile: Profile, recipe: Recipe = STEADY) -> int:
    """The smallest number of parts of a batch with which a step fits on this device.

    One step of random weights on noise is tried.

    Raises:
        JswsError: not even the smallest parts fit.
    """
    sets = (profile.batch_class, profile.batch_saliency)
    counts = [max(1, images // process_share()[1]) for images in sets]
    equal = [n for n in range(1, 1 + max(counts)) if not any(m % n for m in counts)]
    rest = iter(equal)

    def attempt(parts: int) -> int:
        _one_step(stage, profile, recipe, max(counts) // parts)
        return parts

    search = find_executable_batch_size(attempt, next(rest), lambda: next(rest, 0))
    try:
        return search()
    except RuntimeError as error:
        if "reached zero" not in str(error):
            raise
        raise JswsError(
            f"not even {max(counts) // equal[-1]} image(s) of {profile.size} px fit into "
            f"the memory of {pick_device()}: ask for a smaller --size, or --set "
            "checkpointing=true"
        ) from None


def _one_step(stage: int, profile: Profile, recipe: Recipe, images: int):
    """As in `engine.loop`, which would turn a full memory into words."""
    engine = make_accelerator(profile.precision)
    net = random_network(stage, profile, recipe)
    recompute_stages(net, profile.checkpointing)
    net.to(engine.device, memory_format=torch.channels_last).train()
    objective = Objective(net, SETTINGS[TRAINED[stage]].losses, recipe)
    schedule = profile.schedules[stage - 1]
    optimizer = make_optimizer(net, schedule, sam_rate=recipe.sam_rate)
    place = {"device": engine.device, "categories": _count(profile)}
    for batch in random_batches(stage, images, profile.size, **place):
        with engine.autocast():
            loss = sum(objective(batch).values())
        loss.backward()
    optimizer.step()
