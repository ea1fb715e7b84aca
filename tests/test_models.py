"""Models: the loss and the sampler are the paper's equations, the loop keeps its recipe, and a model is kept bit for bit."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cdlib.base import params, paths
from cdlib.base.errors import NotFinite, Refused, Untrained
from cdlib.data.datasets.digits import images_and_classes
from cdlib.models import families, procedures, sample
from cdlib.models.procedures import Recipe
from cdlib.models.train import train
from cdlib.store import cache

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = families.preset("unet_8x8") | {"noise_schedule": "linear"}
IMAGES = images_and_classes()[0][:40]
VIEWS = families.new(SMALL, 0).prepare(IMAGES)
RECIPE = Recipe(steps=4, lr=1e-3, schedule="constant", batch_size=8)


class Slope:
    """A model of one weight w whose loss is w times the next of some slopes; it remembers what it was trained on.

    With a constant slope, Adam moves the weight by exactly the learning rate.
    """

    device = "cpu"

    def __init__(self, *slopes):
        self.unet, self.slopes, self.seen = nn.Linear(1, 1, bias=False), slopes, []
        nn.init.ones_(self.unet.weight)

    def parameters(self):
        return list(self.unet.parameters())

    def batch(self, x, draw):
        return x

    def state(self):
        return self.unet.state_dict()

    def idle_loss(self, x):
        return 1.0

    def loss(self, x, timesteps, noise):
        output = self.unet(torch.ones(1, 1))
        self.seen.append((x, timesteps, output.dtype))
        return self.slopes[(len(self.seen) - 1) % len(self.slopes)] * output.float().sum()


def moves(recipe, slopes=(0.5,)):
    """By how much each step of a recipe lowers the weight of a Slope."""
    model, weights = Slope(*slopes), [1.0]
    train(model, VIEWS, recipe, seed=0, progress=lambda: weights.append(model.unet.weight.item()))
    return -np.diff(weights)


def trained(recipe=RECIPE, seed=0, start=None):
    """A small U-Net after training, and what training left beside it."""
    model = start or families.new(SMALL, 0)
    return model, train(model, VIEWS, recipe, seed)


def flat(state):
    """All weights in one vector."""
    return torch.cat([tensor.flatten() for tensor in state.values()])


def same(a, b):
    """Whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def average_by_hand(weights, start=None, seen=0, cap=0.9999):
    """Average of the weights after each step: decay (1 + k) / (10 + k), and none at the very first."""
    average = start
    for k, weight in enumerate(weights, seen):
        decay = min((1 + k) / (10 + k), cap) if k else 0.0
        average = weight if average is None else decay * average + (1 - decay) * weight
    return average


@pytest.mark.parametrize(("name", "parameters"), [("unet_8x8", 118_289), ("ddpm_32x32", 35_746_307)])
def test_the_presets_have_their_sizes(name, parameters):
    assert families.new(families.preset(name) | {"noise_schedule": "linear"}, 0).n_parameters() == parameters


def test_the_same_seed_gives_the_same_weights_and_disturbs_no_other_draw():
    before = torch.get_rng_state()
    a, b, c = (families.new(SMALL, seed).state() for seed in (0, 0, 1))
    assert same(a, b) and not same(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_equation_1():
    model = families.new(SMALL, 0)
    x, noise = torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    t = torch.tensor([0, 1, 10, 100, 500, 999])
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
    predicted = model.unet(kept.sqrt() * x + (1 - kept).sqrt() * noise, t).sample
    assert model.loss(x, t, noise).item() == pytest.approx(((noise - predicted) ** 2).mean().item(), rel=1e-5)


def test_images_span_minus_one_to_one_inside():
    prepared = families.new(SMALL, 0).prepare(np.array([[[[0, 255]]]], np.uint8))
    assert prepared.flatten().tolist() == [-1, 1]


def test_noise_belongs_to_the_image_and_not_to_the_batch():
    model = families.new(SMALL, 0)
    noise = model.initial_noise(range(6))
    assert torch.equal(model.initial_noise([3, 5]), noise[[3, 5]])
    assert torch.equal(families.new(SMALL, 1).initial_noise(range(6)), noise)
    assert len(noise.flatten().unique()) == noise.numel()


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_images_do_not_depend_on_the_batch_or_their_number(batch):
    model = families.new(SMALL, 0)
    whole = sample.draw(model, 10, steps=3, batch=10).astype(int)
    assert np.abs(sample.draw(model, 9, steps=3, batch=batch) - whole[:9]).max() <= 1


def test_drawing_is_ddim_without_added_noise():
    model, (x, *_) = families.new(SMALL, 0), [families.new(SMALL, 0).initial_noise(range(3))]
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    with torch.no_grad():
        for now, then in ((500, kept[0]), (0, torch.tensor(1.0))):
            noise = model.unet(x, torch.tensor(now)).sample
            image = ((x - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()).clamp(-1, 1)
            noise = (x - kept[now].sqrt() * image) / (1 - kept[now]).sqrt()
            x = then.sqrt() * image + (1 - then).sqrt() * noise
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round().numpy()
    drawn = sample.draw(model, 3, steps=2, batch=3)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (3, 1, 8, 8))
    assert np.abs(drawn - expected).max() <= 1


def test_training_twice_with_a_seed_gives_the_same_bits():
    (a, kept_a), (b, kept_b), (c, _) = trained(), trained(), trained(seed=1)
    assert same(a.state(), b.state()) and not same(a.state(), c.state())
    np.testing.assert_array_equal(kept_a.losses, kept_b.losses)
    assert kept_a.losses.shape == (4,)


def test_training_lowers_the_loss():
    losses = trained(replace(RECIPE, steps=60, lr=4e-3, batch_size=32))[1].losses
    assert losses[-10:].mean() < 0.5 * losses[:5].mean()


def test_a_loss_that_is_not_finite_names_its_step():
    with pytest.raises(NotFinite, match="the loss of step 2 of 4 is not finite"):
        train(Slope(1.0, float("nan")), VIEWS, RECIPE, 0)


def loses(value, steps=40, ascend=False):
    """What training returns whose loss is a constant."""
    return train(Slope(value), VIEWS, replace(RECIPE, steps=steps, lr=1e-9), 0, ascend=ascend).losses


@pytest.mark.parametrize("value", [1.0, 0.95, 30.0])
def test_a_training_that_ends_where_predicting_nothing_does_is_refused(value):
    with pytest.raises(Untrained, match=rf"ends at {value:.2f} \(mean of the last 4 of 40 steps\).* lower .* \(1e-09\)"):
        loses(value)


@pytest.mark.parametrize("lr", [1e-8, 10.0])
def test_a_network_that_learned_nothing_or_diverged_is_refused(lr):
    with pytest.raises(NotFinite, match="the loss ends at|not finite"):
        trained(replace(RECIPE, steps=40, lr=lr, batch_size=8))


def test_a_learned_model_and_few_steps_and_ascent_are_not_refused():
    assert len(loses(0.85)) == 40 and len(loses(1.0, steps=39)) == 39 and len(loses(30.0, ascend=True)) == 40


def test_one_bad_step_near_the_end_is_not_refused():
    model = Slope(*[0.2] * 59, 3.0)
    assert train(model, VIEWS, replace(RECIPE, steps=60, lr=1e-9), 0).losses[-1] == pytest.approx(3)


def test_a_constant_rate_stays_after_its_warm_up():
    assert moves(replace(RECIPE, steps=5, warmup_steps=2)) == pytest.approx([0, 5e-4, 1e-3, 1e-3, 1e-3], abs=1e-6)


def test_a_cosine_rate_falls_from_its_peak_to_nothing():
    cosine = 1e-3 * (1 + np.cos(np.pi * np.arange(8) / 8)) / 2
    assert moves(replace(RECIPE, steps=8, schedule="cosine")) == pytest.approx(cosine, abs=1e-6)
    warm = moves(replace(RECIPE, steps=10, schedule="cosine", warmup_steps=2))
    assert warm == pytest.approx([0, 5e-4, *cosine], abs=1e-6)


def test_a_warm_up_longer_than_the_training_ends_on_its_way_up():
    assert moves(replace(RECIPE, steps=200, schedule="cosine", warmup_steps=500)) == pytest.approx(
        1e-3 * np.arange(200) / 500, abs=1e-6
    )


def test_released_fine_tuning_has_the_rates_of_the_first_200_of_500_warm_up_steps():
    recipe = procedures.recipe(params.load(paths.root() / "params" / "artbench_released.yaml"), "finetune")
    same = {"lr": recipe.lr, "schedule": recipe.schedule, "warmup_steps": recipe.warmup_steps, "steps": recipe.steps}
    assert moves(replace(RECIPE, **same)) == pytest.approx(3e-4 * np.arange(200) / 500, abs=1e-7)


def test_one_cycle_rises_for_30_percent_of_the_steps_and_ends_near_nothing():
    rates = moves(replace(RECIPE, steps=100, schedule="one_cycle"))
    peak = rates.argmax()
    assert 25 <= peak <= 35
    assert rates.max() == pytest.approx(1e-3, rel=0.05)
    assert rates[0] == pytest.approx(1e-3 / 25, rel=0.02)
    assert rates[-1] < 1e-6
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 1e-7).all()


def test_weight_decay_shrinks_the_weight_itself_with_adamw_only():
    decayed = {kind: moves(replace(RECIPE, steps=1, optimizer=kind, weight_decay=0.5))[0] for kind in ("adam", "adamw")}
    assert decayed == pytest.approx({"adam": 1e-3, "adamw": 1.5e-3}, rel=1e-3)


def test_clipping_makes_a_hundredfold_slope_count_once():
    assert moves(replace(RECIPE, steps=2), slopes=(1, 100)) == pytest.approx([1e-3, 1e-3], rel=1e-3)
    wild = ((0.1 * 0.9 + 10) / 0.19) / ((0.001 * 0.999 + 10) / 0.001999) ** 0.5
    assert moves(replace(RECIPE, steps=2, grad_clip=0), slopes=(1, 100)) == pytest.approx([1e-3, 1e-3 * wild], rel=1e-3)


@pytest.mark.parametrize("batch_size", [8, 7])
def test_antithetic_timesteps_come_in_pairs_that_sum_to_999(batch_size):
    model = Slope(1.0)
    train(model, VIEWS, replace(RECIPE, timesteps="antithetic", batch_size=batch_size), 0)
    for _, t, _ in model.seen:
        assert len(t) == batch_size
        assert (t[: batch_size // 2] + t[-(batch_size // 2) :] == 999).all()


def test_uniform_timesteps_fill_their_range_evenly():
    model = Slope(1.0)
    train(model, VIEWS, replace(RECIPE, steps=1, batch_size=4000), 0)
    t = model.seen[0][1]
    assert 0 <= t.min() < 10 and 990 <= t.max() <= 999
    assert t.float().mean() == pytest.approx(499.5, abs=20)


@pytest.mark.parametrize("flip", [False, True])
def test_half_of_the_images_are_mirrored_when_asked(flip):
    model, image = Slope(1.0), np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    x = families.new(SMALL, 0).prepare(image, flip)
    train(model, x, replace(RECIPE, steps=1, batch_size=400, horizontal_flip=flip), 0)
    batch, upright = model.seen[0][0], torch.as_tensor(image[0]).float() / 127.5 - 1
    mirrored = (batch == upright.flip(-1)).all((1, 2, 3))
    assert torch.equal(batch[~mirrored], upright.expand(int((~mirrored).sum()), -1, -1, -1))
    assert mirrored.float().mean() == pytest.approx(0.5 if flip else 0, abs=0.1)


def test_every_image_is_drawn_about_equally_often():
    model, images = Slope(1.0), torch.arange(10.0).view(10, 1, 1, 1, 1)
    train(model, images, replace(RECIPE, steps=1, batch_size=4000), 0)
    assert (torch.bincount(model.seen[0][0].flatten().int(), minlength=10) / 400).tolist() == pytest.approx([1] * 10, abs=0.2)


def test_in_an_epoch_every_image_is_seen_once_and_in_a_new_order():
    model, images = Slope(1.0), torch.arange(21.0).view(21, 1, 1, 1, 1)
    kept = train(model, images, replace(RECIPE, epochs=2, batch_size=8, steps=99), 0)
    seen = [batch.flatten().tolist() for batch, *_ in model.seen]
    assert [len(batch) for batch in seen] == [8, 8, 5, 8, 8, 5]
    assert len(kept.losses) == 6
    first, second = sum(seen[:3], []), sum(seen[3:], [])
    assert sorted(first) == sorted(second) == list(range(21)) and first != second


def test_epochs_decide_the_steps_and_the_rate_spans_them():
    recipe = replace(RECIPE, epochs=2, batch_size=9, steps=99, schedule="cosine")
    assert recipe.n_steps(len(VIEWS)) == 10
    assert replace(recipe, epochs=0).n_steps(len(VIEWS)) == 99
    assert moves(recipe) == pytest.approx(1e-3 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2, abs=1e-6)


@pytest.mark.parametrize("recipe", [replace(RECIPE, timesteps="antithetic"), replace(RECIPE, epochs=1)], ids=["steps", "epochs"])
def test_every_random_number_is_drawn_on_the_models_device_by_a_generator_of_the_trainings_own(recipe):
    drawn = []

    class Draws(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (torch.randn, torch.randint, torch.randperm, torch.rand):
                drawn.append((function.__name__, str(kwargs["device"]), kwargs["generator"] is not None))
            return function(*args, **(kwargs or {}))

    model = Slope(1.0)
    model.device = "cpu:0"  # of the CPU's two names the one that nothing takes by default
    before = torch.get_rng_state()
    with Draws():
        train(model, torch.cat([VIEWS, VIEWS], 1), recipe, 0)
    assert {name for name, *_ in drawn} == {"randn", "randint"} | ({"randperm"} if recipe.epochs else set())
    assert {(device, own) for _, device, own in drawn} == {("cpu:0", True)}
    assert torch.equal(torch.get_rng_state(), before)


def test_adam_of_8_bits_without_its_package_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(Refused, match="^optimizer: 'adam_8bit': needs bitsandbytes: .*, or write adam$"):
        train(Slope(1.0), VIEWS, replace(RECIPE, optimizer="adam_8bit"), 0)


def test_adam_of_8_bits_is_that_of_its_package_with_the_recipes_rate_and_decay(monkeypatch):
    calls = []

    def adam(parameters, **how):
        calls.append(how)
        return torch.optim.Adam(parameters, **how)

    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(Adam8bit=adam)))
    recipe = replace(RECIPE, optimizer="adam_8bit", weight_decay=0.25)
    np.testing.assert_allclose(moves(recipe), moves(replace(recipe, optimizer="adam")), rtol=1e-4)
    assert calls == [{"lr": 1e-3, "weight_decay": 0.25}]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_networks_output(precision, dtype):
    model = Slope(1.0)
    train(model, VIEWS, replace(RECIPE, precision=precision), 0)
    assert {seen[2] for seen in model.seen} == {dtype}


def test_bf16_trains_and_draws_nearly_the_same():
    (full, a), (half, b) = trained(), trained(replace(RECIPE, precision="bf16"))
    np.testing.assert_allclose(a.losses, b.losses, rtol=0.03)
    assert full.state()["conv_in.weight"].dtype == half.state()["conv_in.weight"].dtype == torch.float32
    drawn = [sample.draw(full, 8, 2, 8, precision).astype(int) for precision in ("fp32", "bf16")]
    assert 0 < np.abs(drawn[0] - drawn[1]).mean() < 3


def test_without_an_average_nothing_is_kept_behind():
    _, kept = trained()
    assert (kept.raw, kept.ema_step) == ({}, 0)


@pytest.mark.parametrize("cap", [0.9999, 0.15])
def test_a_fresh_average_is_that_of_the_weights_after_each_step(cap):
    after = [flat(trained(replace(RECIPE, steps=k))[0].state()) for k in (1, 2, 3, 4)]
    model, kept = trained(replace(RECIPE, ema="fresh", ema_decay=cap))
    torch.testing.assert_close(flat(model.state()), average_by_hand(after, cap=cap))
    assert torch.equal(flat(kept.raw), after[-1])
    assert kept.ema_step == 4


def test_a_continued_average_goes_on_from_the_saved_counter_and_raw_weights(tmp_path):
    recipe = replace(RECIPE, ema="continued")
    start, kept = trained(recipe)
    families.save(start, tmp_path / "m.safetensors", {"recipe": recipe.as_dict(), "ema_step": kept.ema_step}, kept.raw)

    model, average = families.continuing(tmp_path / "m.safetensors")
    assert same(model.state(), kept.raw)
    assert average.optimization_step == 4
    after = []
    for k in (1, 2):
        raw, _ = families.continuing(tmp_path / "m.safetensors")
        after.append(flat(trained(replace(RECIPE, steps=k), start=raw)[0].state()))
    went_on = train(model, VIEWS, replace(recipe, steps=2), 0, average)
    torch.testing.assert_close(flat(model.state()), average_by_hand(after, start=flat(start.state()), seen=4))
    assert torch.equal(flat(went_on.raw), after[-1])
    assert went_on.ema_step == 6


def test_a_model_without_an_average_has_none_to_continue(tmp_path):
    model, _ = trained()
    families.save(model, tmp_path / "m.safetensors", {})
    found, average = families.continuing(tmp_path / "m.safetensors")
    assert average is None and same(found.state(), model.state())


def test_a_saved_model_comes_back_bit_for_bit(tmp_path):
    model, _ = trained()
    about = families.save(model, tmp_path / "m.safetensors", {"seed": 3})
    assert cache.get(tmp_path / "m.safetensors") == json.loads(json.dumps(about))
    assert (about["seed"], about["parameters"]) == (3, 118_289)
    found = families.load(tmp_path / "m.safetensors")
    assert same(found.state(), model.state())
    np.testing.assert_array_equal(sample.draw(found, 4, 2, 4), sample.draw(model, 4, 2, 4))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
    ],
    ids=["cut short", "one byte changed", "no weights", "never finished"],
)
def test_a_saved_model_that_is_not_whole_is_refused(tmp_path, spoil):
    path = tmp_path / "m.safetensors"
    families.save(families.new(SMALL, 0), path, {})
    spoil(path)
    for load in (families.load, families.continuing):
        with pytest.raises(Refused, match=f"^{path}: (missing|changed since it was written); run the notebook that makes it"):
            load(path)
