"""Training: schedules, learning, determinism, and what it must refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import network, refuses, same, state

from data_utils.datasets import Augmentation, ClassificationSet, Draws, batches
from jsws_lib import training
from jsws_lib.config import JSWS2020, PAPER, PROFILES, SETTINGS, STEADY, Schedule
from jsws_lib.losses import class_loss, saliency_loss
from jsws_lib.stage2 import train_stage2
from jsws_lib.training import Loop, draw, learning_rate, to_device, train, training_sets


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


@pytest.mark.parametrize("reset", [True, False])
def test_moments_start_again_only_where_the_recipe_says_so(tiny, monkeypatch, reset):
    made, seen, make = [], [], training.make_optimizer
    monkeypatch.setattr(
        training, "make_optimizer", lambda *a, **k: made.append(make(*a, **k)) or made[-1]
    )
    schedule = Schedule(every=2, reset_moments=reset)
    profile = replace(tiny, schedules=(schedule, schedule))

    def look(step, net, record):
        moments = made[-1].state[net.sn.head.weight]
        seen.append((int(moments["step"]), record["lr"]))

    train(network(), ("L_c",), profile=profile, recipe=STEADY, loop=Loop(on_step=look))
    assert [n for n, _ in seen] == ([1, 2, 1, 2] if reset else [1, 2, 3, 4])
    assert [lr for _, lr in seen] == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5])


def test_one_cycle_has_no_decay_to_start_again_at():
    net = network()
    schedule = Schedule(kind="onecycle", every=2, reset_moments=True)
    optimizer = training.make_optimizer(net, schedule)
    optimizer.state[net.sn.head.weight] = {"step": 2}
    training.set_rate(optimizer, schedule, 2, 4)
    assert optimizer.state


@pytest.mark.parametrize(
    "asked",
    [{"precision": "bf16"}, {"accumulate": 2}, {"checkpointing": True}, {"compile": True}],
    ids=str,
)
def test_the_plain_loop_refuses_what_it_would_not_do(tiny, asked):
    words, profile = "give train.* a jsws_lib.engine.loop.RunLoop", replace(tiny, **asked)
    refuses(words, train, network(), ("L_c",), profile=profile, recipe=STEADY)


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
    teacher, at_start = network(seed=3), {}
    with torch.no_grad():
        teacher.backbone.features.conv0.weight.add_(1)

    def look(step, net, record):
        at_start[step] = net.backbone.features.conv0.weight.detach().clone()

    still = replace(tiny, schedules=(Schedule(lr=1e-30),) * 2, steps=(1, 1))
    recipe = replace(STEADY, stage2_init=init)
    settings = {"profile": still, "recipe": recipe, "loop": Loop(on_step=look)}
    train_stage2("MM", teacher, pseudo, **settings)
    its = teacher.backbone.features.conv0.weight
    assert torch.equal(at_start[0], its) == (init == "ssnet1")


@pytest.mark.parametrize("setting", ["S", "M", "MM", "2S"])
def test_a_few_steps_lower_the_loss(tiny, pseudo, setting):
    plan = SETTINGS[setting]
    profile = replace(tiny, crop=1.0)
    recipe = replace(STEADY, flip=False)
    net = network(plan.stage)
    before = state(net)
    history = train(
        net, plan.losses, profile=profile, recipe=recipe, steps=12, pseudo_labels=pseudo
    )
    assert not net.training
    assert [r["step"] for r in history] == list(range(12))
    assert set(history[0]) == {"step", "lr", *plan.losses}
    for name in plan.losses:
        first, last = (
            np.mean([r[name] for r in part]) for part in (history[:3], history[-3:])
        )
        assert last < first
    after = state(net)
    key = "backbone.features.conv0.weight"
    assert not torch.equal(before[key], after[key])
    # Without L_s1 the SAM has no gradient.
    moved = not torch.equal(before["sam.conv.weight"], after["sam.conv.weight"])
    assert moved or "L_s1" not in plan.losses


@pytest.mark.parametrize("recipe", [PAPER, JSWS2020], ids=lambda r: r.name)
def test_other_recipes_train(tiny, pseudo, recipe):
    first, second = Loop(), Loop()
    settings = {"profile": replace(tiny, steps=(2, 2)), "recipe": recipe}
    train(network(1, recipe), ("L_c", "L_s1"), **settings, loop=first)
    train_stage2("MM", labels=pseudo, **settings, loop=second)
    added = {"L_c"} if recipe is JSWS2020 else set()
    for loop, losses in ((first, {"L_c", "L_s1"}), (second, {"L_s1", "L_s2"} | added)):
        assert set(loop.history[-1]) == {"step", "lr", *losses}
        assert all(np.isfinite(list(r.values())).all() for r in loop.history)
    schedules = recipe.schedules or tiny.schedules
    rates = [loop.history[0]["lr"] for loop in (first, second)]
    assert rates == [learning_rate(schedule, 0, 2) for schedule in schedules]


def test_leaky_labels_do_need_the_masks(tiny):
    recipe = replace(STEADY, leaky_labels=True)
    words = r"24 of 24 are missing, .*SegmentationClass.* purpose"
    refuses(words, train, network(), ("L_c",), profile=tiny, recipe=recipe, steps=1)


def test_a_loss_that_is_not_finite_stops_training(tiny):
    net = network()
    with torch.no_grad():
        net.sn.head.bias[3] = torch.nan
    words = "loss is nan at step 0.*learning rate"
    refuses(words, train, net, ("L_c",), profile=tiny, recipe=STEADY)


def test_the_same_seed_gives_the_same_weights(tiny):
    def run(seed):
        net = network(seed=seed)
        kwargs = dict(profile=tiny, recipe=STEADY, seed=seed, steps=3)
        return state(net), train(net, ("L_c", "L_s1"), **kwargs), state(net)

    start, history, end = run(0)
    again = run(0)
    assert same(start, again[0]) and history == again[1] and same(end, again[2])
    assert not same(end, run(1)[2])
    kwargs = dict(profile=tiny, recipe=STEADY, steps=1)
    one, two = (train(network(), ("L_c",), seed=seed, **kwargs) for seed in (0, 1))
    assert one != two  # the images alone, from the same weights


def test_draws_are_whole_permutations_and_can_start_anywhere():
    walk = list(Draws(7, start=0, stop=21, seed=3))
    assert [draw for _, draw in walk] == list(range(21))
    epochs = [[i for i, _ in walk[k : k + 7]] for k in (0, 7, 14)]
    assert all(sorted(e) == list(range(7)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(Draws(7, start=5, stop=16, seed=3)) == walk[5:16]
    assert list(Draws(7, start=0, stop=21, seed=4)) != walk


def test_batches_do_not_depend_on_workers_or_the_cache(tiny):
    voc = tiny.data / tiny.voc

    def stream(workers=0, cache="none", start=0):
        data = ClassificationSet(voc, augmentation=Augmentation(32), cache=cache)
        run = dict(steps=8, start=start, seed=5, workers=workers)
        return list(batches(data, 4, **run))

    expected = stream()
    assert len(expected) == 8
    for other in (stream(workers=2), stream(cache="memory")):
        for a, b in zip(expected, other, strict=True):
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["labels"], b["labels"])
    assert torch.equal(stream(start=6)[0]["image"], expected[6]["image"])
    # The second pass over the 24 images crops them anew.
    assert not torch.equal(expected[0]["image"], expected[6]["image"])


def test_a_loader_process_reports_one_line(tiny, own_data):
    for photo in (own_data / tiny.voc / "JPEGImages").glob("*.jpg"):
        photo.write_bytes(photo.read_bytes()[:600])
    broken = replace(tiny, data=own_data, workers=1)
    words = r"\.jpg cannot be decoded"
    refuses(words, train, network(), ("L_c",), profile=broken, recipe=STEADY, steps=1)
