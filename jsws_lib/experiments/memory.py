"""What a training step needs of the memory: `python -m jsws_lib.experiments.memory`.

A step holds the weights, their gradients and Adam's two moments whatever the batch, and
for each image what its backward pass will look at again. Of both sets only one is in
memory at a time, so the larger batch counts.
"""

import weakref
from collections import Counter
from math import ceil

import torch
from accelerate.utils import find_executable_batch_size
from torch.autograd.graph import saved_tensors_hooks
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.parallel import process_share
from data_utils.voc import NUM_CLASSES
from jsws_lib.config import PROFILES, SETTINGS, STEADY, Profile, Recipe
from jsws_lib.engine.devices import make_accelerator, pick_device, recompute_stages
from jsws_lib.experiments.ablation import RESULTS, store
from jsws_lib.ssnet import SSNet, build_ssnet
from jsws_lib.training import Objective, make_optimizer

FILE = RESULTS / "memory.json"
TRAINED = {1: "M", 2: "MM"}  # the setting of each stage that is measured
GB = 1e9


class Kept(saved_tensors_hooks):
    """Counts the bytes that autograd keeps for backward passes, at their peak.

    A context manager; `peak` is the result. A tensor that several operations keep counts
    once, and weights do not count.
    """

    class Holder:
        """What autograd holds in place of a tensor; it can be watched."""

        def __init__(self, tensor: torch.Tensor):
            self.tensor = tensor

    def __init__(self, net: torch.nn.Module):
        super().__init__(self._pack, lambda holder: holder.tensor)
        self.own = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self.peak, self.alive, self.holders = 0, 0, Counter()

    def __enter__(self) -> "Kept":
        super().__enter__()
        return self

    def _pack(self, tensor: torch.Tensor) -> Holder:
        holder, storage = self.Holder(tensor), tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            place = (storage.data_ptr(), storage.nbytes())
            self._count(*place, 1)
            weakref.finalize(holder, self._count, *place, -1)
        return holder

    def _count(self, address: int, size: int, change: int):
        before = self.holders[address]
        self.holders[address] += change
        self.alive += size * (bool(before + change) - bool(before))
        self.peak = max(self.peak, self.alive)


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


def _objective(stage: int, profile: Profile, recipe: Recipe, device) -> Objective:
    net = random_network(stage, profile, recipe)
    recompute_stages(net, profile.checkpointing)
    net.to(device, memory_format=torch.channels_last).train()
    return Objective(net, SETTINGS[TRAINED[stage]].losses, recipe)


def step_bytes(stage: int, profile: Profile, recipe: Recipe = STEADY) -> dict[str, int]:
    """Measure a step on the CPU, in float32, with one image and with two.

    Returns:
        `fixed` bytes of weights, gradients and moments, `per_image` of the set that keeps
        more, and `step` at the profile's batch and parts, in one process.
    """
    objective = _objective(stage, profile, recipe, "cpu")
    fixed = 16 * sum(p.numel() for p in objective.parameters())
    kept = {}
    for images in (1, 2):
        batches = random_batches(stage, images, profile.size, categories=_count(profile))
        for which, batch in enumerate(batches):
            with Kept(objective) as counter:
                sum(objective(batch).values()).backward()
            kept[which, images] = counter.peak
    each = [kept[which, 2] - kept[which, 1] for which in (0, 1)]
    batches = (profile.batch_class, profile.batch_saliency)
    parts = [ceil(images / profile.accumulate) for images in batches]
    step = fixed + max(n * one for n, one in zip(parts, each, strict=True))
    return {"fixed": fixed, "per_image": max(each), "step": step}


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
    objective = _objective(stage, profile, recipe, engine.device)
    schedule = profile.schedules[stage - 1]
    optimizer = make_optimizer(objective.net, schedule, sam_rate=recipe.sam_rate)
    place = {"device": engine.device, "categories": _count(profile)}
    for batch in random_batches(stage, images, profile.size, **place):
        with engine.autocast():
            loss = sum(objective(batch).values())
        loss.backward()
    optimizer.step()


def measure() -> dict:
    """Measure both stages of every profile and write `results/memory.json`."""
    rows = {}
    for name, profile in tqdm(PROFILES.items(), desc="memory"):
        rows[name] = {str(stage): step_bytes(stage, profile) for stage in (1, 2)}
    result = {"torch": torch.__version__, "profiles": rows}
    store(result, FILE)
    return result


def table(result: dict) -> str:
    """What a step of each profile needs, as Markdown."""
    from jsws_lib.experiments.results import markdown  # brings Matplotlib

    rows = []
    for name, stages in result["profiles"].items():
        need = max(stages.values(), key=lambda row: row["step"])
        figures = [f"{need[key] / GB:.2f} GB" for key in ("fixed", "per_image", "step")]
        rows.append([f"`{name}`", str(PROFILES[name].batch_saliency), *figures])
    head = ("profile", "batch", "weights, gradients, moments", "each image", "a step")
    note = "*One process, float32; the larger of the two stages.*"
    return f"{markdown(head, rows, 'lrrrr')}\n\n{note}"


if __name__ == "__main__":
    print(table(measure()))
