"""Projected gradients: equal to a plain loop's, whatever is computed at once, and kept by image id."""

import numpy as np
import pytest
import torch

from cdlib.base import seeds
from cdlib.models import families, gradients
from cdlib.models.train import NotFinite

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = {
    "pixel": families.preset("unet_8x8") | {"noise_schedule": "linear"},
    "latent": {
        "family": "latent", "noise_schedule": "linear",
        "network": dict(
            sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4, mid_block_type=None,
        ),
    },
    "text_to_image": {
        "family": "text_to_image", "rank": 4, "prompt": "a cat", "guidance": 2.0,
        "network": dict(
            sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=8, norm_num_groups=4, layers_per_block=1,
            block_out_channels=(8, 16), attention_head_dim=2, mid_block_type=None,
            down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        ),
    },
}  # fmt: skip
IDS, TIMESTEPS = [7, 3, 11, 40, 5], [0, 250, 999]
every = pytest.mark.parametrize("kind", CONFIGS)


def normal(*shape, seed=0):
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(kind):
    """A model of a family whose trained parameters all have a gradient, and 5 prepared images for it."""
    model = families.new(CONFIGS[kind], 0)
    model.unet.eval()
    if kind == "text_to_image":  # new LoRA layers are zero, and so are the gradients behind them
        model.prompt = normal(1, 6, 8)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.1 * normal(*p.shape))
    x = normal(len(IDS), 1, *([2] if model.moments else []), *model.noise_shape(), seed=1)
    return model, x


def noise(model, image, t, of="training", seed=0):
    """The noise of one image at one timestep."""
    draw = torch.Generator().manual_seed(seeds.number(seed, f"noise of {of} image {image}", t))
    return torch.randn((1, *model.noise_shape()), generator=draw)


def gradient(model, loss):
    """The gradient of a loss by what is trained, flat, as any training step has it."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])


def looped(model, x, loss="simple"):
    """The mean gradient of each image, one image and one timestep at a time: float [n, P]."""
    rows = []
    for image, clean in zip(IDS, x[:, 0, 0] if model.moments else x[:, 0], strict=True):
        of_image = []
        for t in TIMESTEPS:
            eps, at = noise(model, image, t), torch.tensor([t])
            if loss == "simple":
                value = model.loss(clean[None], at, eps)
            else:
                value = (model.predict(model.forward_process.add_noise(clean[None], eps, at), at) ** 2).mean()
            of_image.append(gradient(model, value))
        rows.append(torch.stack(of_image).mean(0))
    return torch.stack(rows).numpy()


def found(model, x, **how):
    return gradients.features(model, x, IDS, **{"timesteps": TIMESTEPS, "k": None} | how)


def assert_same(a, b, tolerance=1e-5):
    """Equal up to a fraction of the largest entry."""
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


# What a feature is.


@every
@pytest.mark.parametrize("loss", ["simple", "square"])
def test_gradients_are_those_of_a_plain_loop(kind, loss):
    model, x = made(kind)
    expected = looped(model, x, loss)
    assert expected.shape == (5, model.n_parameters()) and (np.abs(expected).sum(1) > 0).all()
    assert_same(found(model, x, loss=loss), expected)


@every
@pytest.mark.parametrize("at_once", [(1, 1), (1, 3), (2, 1), (3, 2), (8, 8)])
def test_what_is_computed_at_once_changes_nothing(kind, at_once, monkeypatch):
    model, x = made(kind)
    expected = found(model, x, k=64)
    monkeypatch.setattr(gradients, "_at_once", lambda *_: at_once)
    assert_same(found(model, x, k=64), expected)


def test_features_belong_to_an_image_wherever_it_stands():
    model, x = made("pixel")
    expected = found(model, x, k=64)
    order = [4, 1, 0]
    some = gradients.features(model, x[order], [IDS[i] for i in order], timesteps=TIMESTEPS, k=64)
    assert_same(some, expected[order])


def test_the_loss_at_a_single_timestep_is_a_part_of_the_mean():
    model, x = made("pixel")
    parts = [found(model, x, k=64, timesteps=[t]) for t in TIMESTEPS]
    assert_same(np.mean(parts, 0), found(model, x, k=64))


def test_copies_under_one_id_have_one_feature_and_under_another_have_other_noise():
    model, x = made("pixel")
    one, same, other = gradients.features(model, x[[0, 0, 0]], [7, 7, 8], timesteps=TIMESTEPS, k=64)
    assert_same(one, same)
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


def test_generated_images_have_noise_of_their_own():
    model, x = made("pixel")
    generated = gradients.features(model, x[:1], IDS[:1], timesteps=[250], k=None, of="generated")
    loss = model.loss(x[0], torch.tensor([250]), noise(model, IDS[0], 250, of="generated"))
    assert_same(generated[0], gradient(model, loss).numpy())


def test_the_image_counts_and_not_its_mirror():
    model, x = made("pixel")
    np.testing.assert_array_equal(found(model, torch.cat([x, x.flip(-1)], 1)), found(model, x))


def test_the_mean_of_a_latent_counts_and_not_its_deviation():
    model, x = made("text_to_image")
    wider = x.clone()
    wider[:, :, 1] *= 2
    np.testing.assert_array_equal(found(model, wider), found(model, x))


def test_images_prepared_for_inference_can_be_used():
    model, x = made("pixel")
    with torch.inference_mode():
        prepared = x.clone()
    np.testing.assert_array_equal(found(model, prepared, k=64), found(model, x, k=64))


def test_the_model_and_the_random_state_stay_as_they_are():
    model, x = made("pixel")
    before, state = {n: p.clone() for n, p in model.state().items()}, torch.get_rng_state()
    found(model, x, k=64)
    assert all(torch.equal(p, before[n]) for n, p in model.state().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_timesteps_are_evenly_spaced():
    assert gradients.evenly(100) == list(range(0, 1000, 10))
    assert gradients.evenly(3) == [0, 333, 666]


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss='cube'.* write one of simple, square"):
        found(*made("pixel"), loss="cube")


def test_images_without_an_id_are_refused():
    model, x = made("pixel")
    with pytest.raises(ValueError, match="4 ids, 5 images"):
        gradients.features(model, x, IDS[:4])


def test_a_gradient_that_is_not_finite_is_not_returned():
    model, x = made("pixel")
    with pytest.raises(NotFinite):
        found(model, x * float("inf"))


# Memory.


def planned(kind, memory_bytes, n_timesteps=100):
    """What is computed at once within so much memory, of this model and with so many timesteps."""
    model, x = made(kind)
    network = gradients._Loss(model, "simple")
    weights = {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}
    clean = (x[:1, :, 0] if model.moments else x[:1]).expand(10**6, *[-1] * 4)
    return gradients._at_once(network, weights, clean, torch.arange(n_timesteps), memory_bytes)


@every
def test_more_memory_takes_first_more_timesteps_and_then_more_images(kind):
    assert planned(kind, 1) == (1, 1)
    plans = [planned(kind, 2**bits) for bits in range(20, 35)]
    assert plans == sorted(plans, key=lambda plan: (plan[0], plan[1]))
    assert plans[-1][0] > 1 and all(n_timesteps == 100 for n_images, n_timesteps in plans if n_images > 1)


def test_more_timesteps_at_once_leave_room_for_fewer_images():
    assert planned("pixel", 2**30, 10)[0] > planned("pixel", 2**30, 100)[0] > 1


# The projection.


def sketched(k, n_seeds=300):
    """Inner products of two fixed vectors after projection, by seed; the true one; and the error to expect of one seed."""
    a, b = normal(1, 3000, seed=1), normal(1, 3000, seed=2) + 0.3 * normal(1, 3000, seed=1)
    true = (a * b).sum().item()
    deviation = np.sqrt(((a**2).sum() * (b**2).sum() + true**2).item() / k)
    both = torch.cat([a, b])
    products = [torch.prod(gradients.project(both, k, seed), 0).sum().item() for seed in range(n_seeds)]
    return np.array(products), true, deviation


@pytest.mark.parametrize("k", [16, 64, 256])
def test_the_projection_is_unbiased_and_its_error_falls_as_one_over_root_k(k):
    products, true, deviation = sketched(k)
    assert abs(products.mean() - true) < 4 * deviation / np.sqrt(len(products))
    assert products.std() == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize("k", [1000, 1001, 4096])
def test_nothing_is_lost_when_there_is_room_for_every_parameter(k):
    g = normal(4, 1000).double()
    projected = gradients.project(g, k, 0)
    assert projected.shape == (4, k)
    torch.testing.assert_close(projected @ projected.T, g @ g.T)


def test_each_coordinate_goes_to_one_bucket_with_a_sign():
    matrix = gradients.project(torch.eye(1000), 64, 0)
    assert (matrix.abs().sum(1) == 1).all() and set(matrix.unique().tolist()) == {-1, 0, 1}
    assert set((matrix != 0).sum(0).tolist()) <= {15, 16}


def test_another_seed_is_another_projection():
    assert not torch.equal(gradients.project(torch.eye(100), 16, 0), gradients.project(torch.eye(100), 16, 1))


def test_features_are_projected_gradients():
    model, x = made("pixel")
    assert_same(found(model, x, k=64, seed=0), gradients.project(torch.from_numpy(looped(model, x)), 64, 0).numpy())


@pytest.mark.gpu
@every
def test_a_gpu_finds_the_same_features(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model, x = made(kind)
    expected = found(model, x, k=64)
    on_gpu = families.restore(CONFIGS[kind], model.state(), "cuda")
    if kind == "text_to_image":
        on_gpu.prompt = model.prompt.to("cuda")
    assert_same(found(on_gpu, x, k=64), expected, 1e-2)


# Journey-TRAK.


def test_the_journey_ends_in_the_drawn_image():
    model, _ = made("pixel")
    clean, timesteps = gradients.journey(model, [4, 2], 5)
    assert clean.shape == (2, 5, 1, 8, 8) and timesteps == [800, 600, 400, 200, 0]
    assert clean.abs().max() == 1  # as the solver has it, of pixels
    drawn = ((clean[:, -1].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(drawn, model.draw([4, 2], 5))


@pytest.mark.parametrize("kind", ["pixel", "latent"])
def test_the_journey_is_what_the_solver_says_that_the_clean_image_is(kind):
    model, _ = made(kind)
    clean, _ = gradients.journey(model, [4, 2], 5)
    solver, x = model.solver(5), model.initial_noise([4, 2])
    with torch.no_grad():
        for k, t in enumerate(solver.timesteps):
            step = solver.step(model.guided(x, t), t, x)
            torch.testing.assert_close(clean[:, k], step.pred_original_sample, rtol=1e-4, atol=1e-4)
            x = step.prev_sample


def test_the_journey_of_a_known_model_is_known():
    """A network that predicts no noise sees the clean image as x / sqrt(signal), which for x of one generation is one image."""
    model, _ = made("latent")
    model.predict = lambda noisy, timesteps: torch.zeros_like(noisy)
    clean, timesteps = gradients.journey(model, [0], 4)
    signal = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[timesteps[0]]
    torch.testing.assert_close(clean, (model.initial_noise([0]) / signal**0.5)[:, None].expand_as(clean), rtol=1e-4, atol=1e-4)


def test_a_timestep_that_the_solver_visits_twice_counts_once():
    model, _ = made("text_to_image")
    model.negative = torch.zeros_like(model.prompt)
    clean, timesteps = gradients.journey(model, [0, 1], 6)
    assert clean.shape == (2, 6, 4, 8, 8) and timesteps == sorted(set(timesteps), reverse=True)


@pytest.mark.parametrize("at_once", [(1, 3), (1, 2), (2, 2)])
def test_journey_features_are_the_mean_over_the_steps(at_once, monkeypatch):
    model, _ = made("pixel")
    monkeypatch.setattr(gradients, "_at_once", lambda *_: at_once)
    clean, timesteps = gradients.journey(model, [4, 2], 3)
    expected = [
        torch.stack(
            [
                gradient(model, model.loss(x[None], torch.tensor([t]), noise(model, index, t, of="generated")))
                for x, t in zip(images, timesteps, strict=True)
            ]
        ).mean(0)
        for index, images in zip([4, 2], clean, strict=True)
    ]
    assert_same(gradients.journey_features(model, [4, 2], 3, k=None), torch.stack(expected).numpy())
