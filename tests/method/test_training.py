"""Training: schedules, learning, determinism, and what it must refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import network, refuses, same, state

from data_utils.datasets import Augmentation, ClassificationSet, Draws, batches
from jsws_lib.config import JSWS2020, PAPER, PROFILES, SETTINGS, STEADY, Schedule
from jsws_lib.losses import class_loss, saliency_loss
from jsws_lib.stage1 import train_stage1
from jsws_lib.stage2 import train_stage2
from jsws_lib.training import (
    Loop,
    draw,
    learning_rate,
    make_optimizer,
    set_rate,
    to_device,
    train,
    training_sets,
)


def test_settings_are_the_columns_of_tables_5_and_6():
    found = {k: (s.stage, set(s.losses), s.teacher) for k, s in SETTINGS.items()}
    assert found == {
        "S": (1, {"L_c"}, None),
        "M": (1, {"L_c", "L_s1"}, None),
        "SS": (2, {"L_s2"}, "S"),
        "MS": (2, {"L_s2"}, "M"),
        "MM": (2, {"L_s1", "L_s2"}, "M"),
        "2S": (2, {"L_s1"}, None),
    }


def test_profile_paper_is_section_4_1():
    paper = PROFILES["paper"]
    assert (paper.backbone, paper.size, paper.crop) == ("densenet169", 256, 0.9)
    assert (paper.steps, paper.batch_class) == ((10_000, 10_000), 16)
    assert all(s.optimizer == "adam" and s.lr == 1e-4 for s in paper.schedules)
    reading = PAPER.class_evidence, PAPER.saliency_reading, PAPER.upsample
    assert reading == ("mean_probs", "bce", "probs")


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(), {0: 1e-4, 999: 1e-4, 1000: 5e-5, 9999: 1e-4 / 2**9}),
        (JSWS2020.schedules[0], {0: 1e-4, 1999: 1e-4, 2000: 1e-5, 4000: 1e-6}),
        (JSWS2020.schedules[1], {0: 5e-6, 2999: 5e-6, 3000: 2.5e-6}),
    ],
)
def test_staircases_of_the_paper_and_of_the_released_code(schedule, rates):
    found = {step: learning_rate(schedule, step, 10_000) for step in rates}
    assert found == pytest.approx(rates, rel=1e-9)
    assert schedule.betas[0] == (0.9 if schedule == Schedule() else 0.95)


def test_onecycle_rises_to_its_peak_and_falls_towards_zero():
    schedule = Schedule(kind="onecycle", lr=2.0)
    rates = [learning_rate(schedule, k, 100) for k in range(100)]
    peak = int(np.argmax(rates))
    assert max(rates) == 2.0 and 0 < peak < 30
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[15:]) < 0).all()
    assert 0 < rates[-1] < 0.01
    assert learning_rate(schedule, 0, 1) == 2.0


@pytest.mark.parametrize(
    ("kind", "reset", "step", "kept"),
    [
        ("step", True, 4, False),
        ("step", True, 5, True),  # no decay there
        ("step", False, 4, True),
        ("onecycle", True, 4, True),
    ],
)
def test_moments_start_again_only_at_decays_of_a_recipe_that_says_so(
    kind, reset, step, kept
):
    net, schedule = network(), Schedule(kind=kind, every=2, reset_moments=reset)
    optimizer = make_optimizer(net, schedule)
    optimizer.state[net.sn.head.weight] = {"step": step}
    set_rate(optimizer, schedule, step, 8)
    assert bool(optimizer.state) == kept


@pytest.mark.parametrize(
    "asked",
    [{"precision": "bf16"}, {"accumulate": 2}, {"checkpointing": True}, {"compile": True}],
    ids=str,
)
def test_the_plain_loop_refuses_what_it_would_not_do(tiny, asked):
    how = {"profile": replace(tiny, **asked), "recipe": STEADY}
    refuses("give train.* a jsws_lib.engine.loop.RunLoop", train, network(), (), **how)


def test_three_steps_by_hand(tiny):
    """M in plain PyTorch: two backward passes a step, and the SAM at a rate of its own."""
    losses, schedule = ("L_c", "L_s1"), Schedule(lr=1e-3, every=2)
    recipe = replace(STEADY, sam_rate=2.0, class_weight=0.5)
    profile = replace(tiny, schedules=(schedule, schedule))
    net, plain = network(), network().train().to(memory_format=torch.channels_last)
    history = train(net, losses, profile=profile, recipe=recipe, steps=3)

    sets = training_sets(losses, profile, recipe)
    streams = [draw(one, profile, 3) for one in sets]
    sam = list(plain.sam.parameters())
    rest = [*plain.backbone.parameters(), *plain.sn.parameters()]
    adam = torch.optim.Adam([{"params": rest}, {"params": sam}], betas=schedule.betas)
    for rate, record in zip((1e-3, 1e-3, 5e-4), history, strict=True):
        adam.zero_grad()
        of_classes, of_saliency = (to_device(next(s), torch.device("cpu")) for s in streams)
        reading = {"reading": recipe.class_evidence, "share": recipe.evidence_share}
        l_c = 0.5 * class_loss(plain(of_classes["image"]), of_classes["labels"], **reading)
        l_c.backward()
        out = plain(of_saliency["image"])
        l_s1 = saliency_loss(out, of_saliency["sal_mask"], reading=recipe.saliency_reading)
        l_s1.backward()
        for group, scale in zip(adam.param_groups, (1, 2 / 8), strict=True):
            group["lr"] = scale * rate  # the SAM's kernel is 8 x 8
        adam.step()
        found = record["lr"], record["L_c"], record["L_s1"]
        assert found == pytest.approx((rate, l_c.item(), l_s1.item()), rel=1e-4)
    for key, value in state(plain).items():
        torch.testing.assert_close(state(net)[key], value, rtol=1e-3, atol=1e-4)
    # Or image k of one set would always meet image k of the other.
    assert sets[0].seed != sets[1].seed


@pytest.mark.parametrize("init", ["ssnet1", "imagenet"])
def test_where_a_student_starts(tiny, pseudo, init):
    teacher = network(seed=3)
    with torch.no_grad():
        teacher.backbone.features.conv0.weight.add_(1)
    still = replace(tiny, schedules=(Schedule(lr=1e-30),) * 2, steps=(1, 1))
    recipe = replace(STEADY, stage2_init=init)
    student = train_stage2("MM", teacher, pseudo, profile=still, recipe=recipe)
    its, own = (net.backbone.features.conv0.weight for net in (teacher, student))
    assert torch.equal(its, own) == (init == "ssnet1")


def test_a_few_steps_lower_the_loss(tiny, pseudo):
    losses, net = SETTINGS["MM"].losses, network(2)
    how = {"profile": replace(tiny, crop=1.0), "recipe": replace(STEADY, flip=False)}
    history = train(net, losses, **how, steps=12, pseudo_labels=pseudo)
    assert not net.training
    assert [r["step"] for r in history] == list(range(12))
    for name in losses:
        values = [r[name] for r in history]
        assert np.mean(values[-3:]) < np.mean(values[:3])


@pytest.mark.parametrize("recipe", [PAPER, JSWS2020], ids=lambda r: r.name)
def test_other_recipes_train(tiny, pseudo, recipe):
    first, second = Loop(), Loop()
    how = {"profile": replace(tiny, steps=(2, 2)), "recipe": recipe}
    train_stage1("M", **how, loop=first)
    train_stage2("MM", labels=pseudo, **how, loop=second)
    added = {"L_c"} if recipe is JSWS2020 else set()
    assert first.history[0].keys() == {"step", "lr", "L_c", "L_s1"}
    assert second.history[0].keys() == {"step", "lr", "L_s1", "L_s2"} | added
    schedules = recipe.schedules or tiny.schedules
    for loop, schedule in zip((first, second), schedules, strict=True):
        assert loop.history[0]["lr"] == learning_rate(schedule, 0, 2)


def test_leaky_labels_do_need_the_masks(tiny):
    recipe = replace(STEADY, leaky_labels=True)
    words = "24 of 24 are missing, .*SegmentationClass.* purpose"
    refuses(words, train, network(), ("L_c",), profile=tiny, recipe=recipe, steps=1)


def test_the_same_seed_gives_the_same_weights(tiny):
    def run(seed, of_weights):
        net = network(seed=of_weights)
        how = {"profile": tiny, "recipe": STEADY, "seed": seed, "steps": 3}
        return train(net, ("L_c", "L_s1"), **how), state(net)

    history, weights = run(0, 0)
    again, same_weights = run(0, 0)
    assert history == again and same(weights, same_weights)
    assert history[0] != run(1, 0)[0][0]  # of other images
    assert history[0] != run(0, 1)[0][0]


def test_draws_are_whole_permutations_and_can_start_anywhere():
    walk = list(Draws(7, start=0, stop=21, seed=3))
    assert [draw for _, draw in walk] == list(range(21))
    epochs = [[i for i, _ in walk[k : k + 7]] for k in (0, 7, 14)]
    assert all(sorted(e) == list(range(7)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(Draws(7, start=5, stop=16, seed=3)) == walk[5:16]
    assert list(Draws(7, start=0, stop=21, seed=4)) != walk


def test_batches_do_not_depend_on_workers_or_the_cache(tiny):
    def stream(workers=0, cache="none", start=0):
        how = {"augmentation": Augmentation(32), "cache": cache}
        data = ClassificationSet(tiny.data / tiny.voc, **how)
        made = batches(data, 4, steps=8, start=start, seed=5, workers=workers)
        return [batch["image"] for batch in made]

    expected = stream()
    for other in (stream(workers=2), stream(cache="memory")):
        assert len(other) == 8 and all(map(torch.equal, other, expected))
    assert torch.equal(stream(start=6)[0], expected[6])
    # The second pass over the 24 images crops them anew.
    assert not torch.equal(expected[0], expected[6])


def test_a_loader_process_reports_one_line(tiny, own_data):
    for photo in (own_data / tiny.voc / "JPEGImages").glob("*.jpg"):
        photo.write_bytes(photo.read_bytes()[:600])
    how = {"profile": replace(tiny, data=own_data, workers=1), "recipe": STEADY}
    refuses(r"\.jpg cannot be decoded", train, network(), ("L_c",), **how)
