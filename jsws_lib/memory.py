"""What a training step needs of the memory: `python -m jsws_lib.memory`, `jsws doctor`.

A step holds the weights, their gradients and Adam's two moments whatever the batch, and
for each image what its backward pass will look at again. Of both sets only one is in
memory at a time, so the larger batch counts.
"""

import json
from math import ceil

import torch
from accelerate.utils.memory import should_reduce_batch_size
from tqdm.auto import tqdm

from data_utils.categories import categories
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from data_utils.parallel import process_share
from data_utils.voc import NUM_CLASSES
from jsws_lib.config import PROFILES, ROOT, STEADY, Profile, Recipe
from jsws_lib.devices import make_accelerator, pick_device
from jsws_lib.runs import SETTINGS
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import Objective, make_optimiser

FILE = ROOT / "results" / "memory.json"
TRAINED = {1: "M", 2: "MM"}  # the setting of each stage that is measured
GB = 1e9


class Kept:
    """Counts the bytes that autograd keeps for backward passes, at their peak.

    A context manager; `peak` is the result. A tensor that several operations keep counts
    once, and weights do not count.
    """

    def __init__(self, net: torch.nn.Module):
        self.own = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self.peak, self.alive, self.holders = 0, 0, {}

    def __enter__(self) -> "Kept":
        counter = self

        class Holder:
            def __init__(self, tensor):
                self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
                if counter.holders.setdefault(self.key, 0) == 0:
                    counter._add(self, 1)
                counter.holders[self.key] += 1

            def __del__(self):
                counter.holders[self.key] -= 1
                if counter.holders[self.key] == 0:
                    counter._add(self, -1)

        self.hooks = torch.autograd.graph.saved_tensors_hooks(Holder, lambda h: h.tensor)
        self.hooks.__enter__()
        return self

    def _add(self, holder, sign: int):
        if holder.key not in self.own:
            self.alive += sign * holder.tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.alive)

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


def random_batches(stage: int, images: int, size: int, *, device="cpu",
                   categories: int = NUM_CLASSES) -> list[dict]:  # fmt: skip
    """A batch of D_c and one of D_s with noise for images.

    Args:
        stage: 2 has pseudo labels as well.
        images: in each.
        size: px.
        device: where they are.
        categories: C.
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


def _objective(stage: int, profile: Profile, recipe: Recipe, device) -> Objective:
    net = build_ssnet(stage, backbone=profile.backbone, size=profile.size, recipe=recipe,
                      weights=None, categories=_count(profile))  # fmt: skip
    net.backbone.checkpointing = profile.checkpointing
    net.to(device, memory_format=torch.channels_last).train()
    return Objective(net, SETTINGS[TRAINED[stage]].losses, recipe)


def _count(profile: Profile) -> int:
    return len(categories(profile.data / profile.voc))


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
    counts = [ceil(n / profile.accumulate)
              for n in (profile.batch_class, profile.batch_saliency)]  # fmt: skip
    step = fixed + max(n * one for n, one in zip(counts, each, strict=True))
    return {"fixed": fixed, "per_image": max(each), "step": step}


def parts_that_fit(stage: int, profile: Profile, recipe: Recipe = STEADY) -> int:
    """The smallest number of parts of a batch with which a step fits on this device.

    One step of random weights on noise is tried, in halves, quarters, ...

    Raises:
        JswsError: not even one image fits.
    """
    device = pick_device()
    largest = max(profile.batch_class, profile.batch_saliency) // process_share()[1]
    parts = 1
    while parts <= largest:
        try:
            _one_step(stage, profile, recipe, ceil(largest / parts))
            return parts
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        parts *= 2
    raise JswsError(f"not even one image of {profile.size} px fits into the memory of "
                    f"{device}: ask for a smaller --size, or for --checkpointing")


def _one_step(stage: int, profile: Profile, recipe: Recipe, images: int):
    engine = make_accelerator(profile.precision)
    objective = _objective(stage, profile, recipe, engine.device)
    optimiser = make_optimiser(objective.net, profile.schedules[stage - 1],
                               sam_rate=recipe.sam_rate)  # fmt: skip
    for batch in random_batches(stage, images, profile.size, device=engine.device,
                                categories=_count(profile)):  # fmt: skip
        with engine.autocast():
            loss = sum(objective(batch).values())
        loss.backward()
    optimiser.step()


def measure() -> dict:
    """Measure both stages of every profile and write `results/memory.json`."""
    rows = {}
    for name, profile in tqdm(PROFILES.items(), desc="memory"):
        rows[name] = {str(stage): step_bytes(stage, profile) for stage in (1, 2)}
    result = {"torch": torch.__version__, "profiles": rows}
    write_bytes(FILE, (json.dumps(result, indent=1) + "\n").encode())
    return result


def table(result: dict) -> str:
    """What a step of each profile needs, as Markdown."""
    lines = ["| profile | batch | weights, gradients, moments | each image | a step |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, stages in result["profiles"].items():
        need = max(stages.values(), key=lambda row: row["step"])
        figures = [f"{need[key] / GB:.2f} GB" for key in ("fixed", "per_image", "step")]
        lines.append(f"| `{name}` | {PROFILES[name].batch_saliency} | "
                     f"{' | '.join(figures)} |")  # fmt: skip
    lines += ["", "*One process, float32; the larger of the two stages.*"]
    return "\n".join(lines)


if __name__ == "__main__":
    from jsws_lib.results import insert

    found = table(measure())
    for page in (ROOT / "README.md", ROOT / "docs" / "many_gpus.md"):
        text = insert(page.read_text(encoding="utf-8"), found, "memory")
        write_bytes(page, text.encode())
    print(found)
