"""Latent diffusion and LoRA on Stable Diffusion: what is frozen, what is trained, what is drawn, and what of it is kept."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel, VQModel
from diffusers.models.attention_processor import Attention
from diffusers.training_utils import EMAModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cdlib import store
from cdlib.base import params
from cdlib.base.errors import Refused
from cdlib.data import datasets
from cdlib.data.design import Wanted
from cdlib.measure import properties, utility
from cdlib.models import bases, families, pretrained, prune, sample, stages
from cdlib.models.families import latent
from cdlib.models.procedures import Recipe
from cdlib.models.train import train
from cdlib.store import measured

pytestmark = pytest.mark.usefixtures("one_thread")
RNG = np.random.default_rng(0)
IMAGES = {
    "pixel": RNG.integers(0, 256, (6, 1, 8, 8), np.uint8),
    "latent": RNG.integers(0, 256, (6, 3, 32, 32), np.uint8),
    "text_to_image": RNG.integers(0, 256, (6, 3, 32, 32), np.uint8),
}
CONDITIONAL = dict(
    sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=8, norm_num_groups=4, layers_per_block=1,
    block_out_channels=(8, 16), attention_head_dim=2, mid_block_type=None,
    down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
)  # fmt: skip
CONFIGS = {
    "pixel": families.preset("unet_8x8") | {"noise_schedule": "linear"},
    "latent": {
        "family": "latent",
        "noise_schedule": "linear",
        "network": dict(
            sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4, mid_block_type=None,
        ),
    },
    "text_to_image": {"family": "text_to_image", "rank": 4, "prompt": "a cat", "guidance": 2.0, "network": CONDITIONAL},
}  # fmt: skip
RECIPE = Recipe(steps=3, lr=1e-2, schedule="constant", batch_size=4)
LENGTH = 9  # tokens of a prompt
SCALING = 0.7  # of the latents of the tiny Stable Diffusion
BETAS = {
    "linear": torch.linspace(1e-4, 0.02, 1000),
    "scaled_linear": torch.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2,
    "stable diffusion": torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
}
every = pytest.mark.parametrize("kind", CONFIGS)
encoded = pytest.mark.parametrize("kind", ["latent", "text_to_image"])


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """Folders of the tiny frozen parts, with random weights. Not to be changed."""
    folder = tmp_path_factory.mktemp("parts")
    save_vqvae(folder / "latent", seed=0)
    save_stable_diffusion(folder / "text_to_image")
    return {"pixel": None, "latent": folder / "latent", "text_to_image": folder / "text_to_image"}


def autoencoder(kind, **more):
    """Images 3 x 32 x 32 <-> latents of 8 x 8."""
    blocks = dict(block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4, sample_size=32)
    return kind(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, **blocks, **more)


def save_vqvae(folder, seed):
    """A VQ-VAE of 8 codes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder(VQModel, latent_channels=3, num_vq_embeddings=8).save_pretrained(folder / "vqvae")


def save_stable_diffusion(folder):
    """A base model with a tokenizer of single letters: a = 0 .. z = 25, the same at a word's end 26 .. 51, begin 52, end 53."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = CLIPTextConfig(
        vocab_size=54, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "vae": autoencoder(AutoencoderKL, latent_channels=4, scaling_factor=SCALING),
            "unet": UNet2DConditionModel(**CONDITIONAL),
            "text_encoder": CLIPTextModel(text),
            "tokenizer": CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=LENGTH),
            "scheduler": PNDMScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
            ),
        }
    for name, part in made.items():
        part.save_pretrained(folder / name)


def new(kind, parts, seed=0, **changes):
    """A model of a family, as it is before any training."""
    return families.new(CONFIGS[kind] | changes, seed, "cpu", parts[kind])


def trained(kind, parts, recipe=RECIPE, **changes):
    """A model of a family after a few steps, and what training left beside it."""
    model = new(kind, parts, **changes)
    return model, train(model, model.prepare(IMAGES[kind]), recipe, 0)


def drawn(model, n=5, steps=3, batch=5):
    """Images of a model, as integers to be subtracted."""
    return sample.draw(model, n, steps, batch).astype(int)


def same(a, b):
    """Whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def copied(state):
    """A state that stays when the model goes on."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def noise(*shape, seed=0):
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scaled(images):
    """Pixels in [-1, 1]."""
    return torch.as_tensor(images).float() / 127.5 - 1


def read(part, parts):
    """A part of the tiny Stable Diffusion, read by the library that wrote it."""
    kinds = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
    return kinds[part].from_pretrained(parts["text_to_image"] / part).eval().requires_grad_(False)


def vqvae(parts):
    """The tiny VQ-VAE, read by the library that wrote it."""
    return VQModel.from_pretrained(parts["latent"] / "vqvae").eval().requires_grad_(False)


# The sizes of the paper.


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("unet_8x8", 118_289),
        ("ddpm_32x32", 35_746_307),
        ("ldm_8x8", 294_171),
        ("ldm_64x64", 274_056_163),
        # A transformer block of width c and prompts of width p has 14 c + 2 p inputs and outputs of projections.
        ("painter_lora", 16 * (3 * (14 * 32 + 2 * 32) + 4 * (14 * 64 + 2 * 32))),
        ("minisd_lora", 256 * (5 * (14 * 320 + 2 * 768) + 5 * (14 * 640 + 2 * 768) + 6 * (14 * 1280 + 2 * 768))),
        ("minisd_lora", 51_019_776),
    ],
)
def test_the_presets_have_their_sizes(name, parameters):
    with torch.device("meta"):  # shapes without numbers: Stable Diffusion has 860 million
        assert families.new(families.preset(name) | {"noise_schedule": "linear"}, 0, "meta").n_parameters() == parameters


@pytest.fixture(scope="module")
def paper():
    """The paper's latent U-Net, half of it pruned; the biases of q, k and v number their rows."""
    model = families.new(families.preset("ldm_64x64") | {"noise_schedule": "linear"}, 0)
    with torch.no_grad():
        for attention in attentions(model):
            for layer in (attention.to_q, attention.to_k, attention.to_v):
                layer.bias.copy_(torch.arange(len(layer.bias)))
    model.prune(0.5)
    return model


def attentions(model):
    """The attention layers of a model."""
    return [module for module in model.unet.modules() if isinstance(module, Attention)]


def test_the_papers_latent_network_shrinks_to_the_papers_size(paper):
    assert paper.n_parameters() == 70_926_419


def test_attention_keeps_its_heads_and_each_loses_as_many_dimensions(paper):
    found = attentions(paper)
    assert len(found) == 16 and {a.heads for a in found} == {14, 21, 28}
    for attention in found:
        assert attention.to_q.out_features == attention.heads * 16
        for layer in (attention.to_q, attention.to_k, attention.to_v):
            of_head = layer.bias.detach().long() // 32
            assert torch.bincount(of_head).tolist() == [16] * attention.heads
            assert (of_head.diff() >= 0).all()
        assert torch.equal(attention.to_q.bias, attention.to_k.bias)


# What is frozen and what is trained.


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_an_untrained_lora_draws_exactly_what_the_base_model_draws(parts, guidance):
    model = new("text_to_image", parts, guidance=guidance)
    images = drawn(model)
    model.unet = read("unet", parts)
    np.testing.assert_array_equal(drawn(model), images)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_drawing_is_what_the_pipeline_of_diffusers_does(parts, guidance):
    model, _ = trained("text_to_image", parts, guidance=guidance)
    folder = parts["text_to_image"]
    pipeline = StableDiffusionPipeline(
        vae=read("vae", parts),
        unet=model.unet,
        text_encoder=read("text_encoder", parts),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=PNDMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    start = model.initial_noise(range(3))
    how = dict(latents=start, num_inference_steps=5, guidance_scale=guidance, num_images_per_prompt=3, output_type="np")
    expected = pipeline("a cat", height=32, width=32, **how).images.transpose(0, 3, 1, 2) * 255
    assert np.abs(drawn(model, 3, steps=5) - expected).max() <= 1


def test_drawing_latents_is_ddim_without_added_noise_or_clipping(parts):
    model = new("latent", parts, noise_schedule="scaled_linear")
    x, kept = 3 * model.initial_noise(range(3)), torch.cumprod(1 - BETAS["scaled_linear"], 0)
    model.initial_noise = lambda indices: x  # so large that clipping would show
    with torch.no_grad():
        y = x
        for now, then in ((500, kept[0]), (0, torch.tensor(1.0))):
            predicted = model.unet(y, torch.tensor(now)).sample
            clean = (y - (1 - kept[now]).sqrt() * predicted) / kept[now].sqrt()
            y = then.sqrt() * clean + (1 - then).sqrt() * predicted
        assert y.abs().max() > 2
        expected = ((vqvae(parts).decode(y).sample.clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.abs(drawn(model, 3, steps=2) - expected).max() <= 1


def test_only_lora_is_trained_and_the_base_model_stays_bit_for_bit(parts):
    model, _ = trained("text_to_image", parts)
    base, start = read("unet", parts).state_dict(), new("text_to_image", parts).state()
    after = {name.replace(".base_layer", ""): t for name, t in model.unet.state_dict().items() if ".lora_" not in name}
    assert same(after, base)
    assert same(model.vae.state_dict(), read("vae", parts).state_dict())
    assert start.keys() == model.state().keys() and not any(torch.equal(start[k], t) for k, t in model.state().items())
    assert sum(t.numel() for t in model.state().values()) == model.n_parameters() == sum(p.numel() for p in model.parameters())


def test_all_of_the_unet_is_trained_and_the_vqvae_stays_bit_for_bit(parts):
    model, _ = trained("latent", parts)
    start = new("latent", parts).state()
    assert not any(torch.equal(start[name], tensor) for name, tensor in model.state().items())
    assert same(model.autoencoder.state_dict(), vqvae(parts).state_dict())


def test_training_on_latents_needs_no_vqvae(parts, tmp_path):
    x = new("latent", parts).prepare(IMAGES["latent"])
    train(new("latent", {"latent": tmp_path / "nothing here"}), x, RECIPE, 0)


@encoded
def test_the_same_seed_gives_the_same_weights_and_disturbs_no_other_draw(kind, parts):
    before = torch.get_rng_state()
    a, b, c = (new(kind, parts, seed).state() for seed in (0, 0, 1))
    assert same(a, b) and not same(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@encoded
def test_training_twice_with_a_seed_gives_the_same_bits_whatever_was_drawn_between(kind, parts):
    (a, kept), before = trained(kind, parts), torch.get_rng_state()
    torch.randn(3)
    b, again = trained(kind, parts)
    assert same(a.state(), b.state())
    np.testing.assert_array_equal(kept.losses, again.losses)
    torch.set_rng_state(before)
    trained(kind, parts)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_images_depend_on_their_index_and_not_on_the_batch(kind, parts):
    model, _ = trained(kind, parts)
    whole = drawn(model, 5, batch=5)
    for batch in (1, 2, 100):
        assert np.abs(drawn(model, 4, batch=batch) - whole[:4]).max() <= 1
    assert len(np.unique(whole, axis=0)) == 5


@encoded
def test_the_loss_is_equation_1_on_latents(kind, parts):
    model = new(kind, parts)
    x, added = noise(2, 6, *model.noise_shape())
    t = torch.tensor([0, 1, 10, 100, 500, 999])
    betas = BETAS["linear" if kind == "latent" else "stable diffusion"]
    kept = torch.cumprod(1 - betas, 0)[t].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * x + (1 - kept).sqrt() * added
    prompt = () if kind == "latent" else (embedded(parts)[0].expand(6, -1, -1),)
    predicted = model.unet(noisy, t, *prompt).sample
    assert model.loss(x, t, added).item() == pytest.approx(((added - predicted) ** 2).mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["pixel", "latent"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_noise_schedules_are_those_of_ho_and_of_rombach(kind, schedule, parts):
    model = new(kind, parts, noise_schedule=schedule)
    for scheduler in (model.forward_process, model.solver(5)):
        torch.testing.assert_close(scheduler.betas, BETAS[schedule])


def test_noise_is_added_by_the_base_models_own_schedule(parts):
    model = new("text_to_image", parts)
    for scheduler in (model.forward_process, model.solver(5)):
        torch.testing.assert_close(scheduler.betas, BETAS["stable diffusion"])


# What is kept of a model.


@every
def test_a_pruned_model_is_saved_and_loaded_bit_for_bit(kind, parts, tmp_path):
    model, _ = trained(kind, parts)
    before = model.n_parameters()
    model.prune(0.5)
    train(model, model.prepare(IMAGES[kind]), RECIPE, 1)
    about = families.save(model, tmp_path / "m.safetensors", {})
    found = families.load(tmp_path / "m.safetensors", "cpu", parts[kind])
    assert about["parameters"] == found.n_parameters() == model.n_parameters() < 0.6 * before
    assert same(found.state(), model.state())
    np.testing.assert_array_equal(drawn(found), drawn(model))


@every
def test_training_goes_on_from_a_saved_average_and_its_raw_weights_to_the_same_bits(kind, parts, tmp_path):
    recipe, model = replace(RECIPE, ema="continued"), new(kind, parts)
    model.prune(0.3)
    x, average = model.prepare(IMAGES[kind]), EMAModel(model.parameters(), decay=recipe.ema_decay)
    kept = train(model, x, recipe, 0, average)
    families.save(model, tmp_path / "m.safetensors", {"recipe": recipe.as_dict(), "ema_step": kept.ema_step}, kept.raw)

    averaged = families.load(tmp_path / "m.safetensors", "cpu", parts[kind])
    found, again = families.continuing(tmp_path / "m.safetensors", "cpu", parts[kind])
    assert same(averaged.state(), model.state()) and same(found.state(), kept.raw) and not same(found.state(), model.state())
    assert again.optimization_step == 3
    model.load_state(kept.raw)
    on, on_again = train(model, x, recipe, 1, average), train(found, x, recipe, 1, again)
    assert same(found.state(), model.state()) and same(on.raw, on_again.raw)
    np.testing.assert_array_equal(on.losses, on_again.losses)
    assert on.ema_step == on_again.ema_step == 6


# LoRA, pruned by rank.


def matrices(layers, seed=0):
    """LoRA matrices of layers (name -> r, in, out), normal."""
    shapes = {f"{name}.lora_A.weight": (r, n_in) for name, (r, n_in, _) in layers.items()}
    shapes |= {f"{name}.lora_B.weight": (n_out, r) for name, (r, _, n_out) in layers.items()}
    return {name: noise(*shape, seed=seed + k) for k, (name, shape) in enumerate(shapes.items())}


def pairs(tensors):
    """The pairs of each layer as bytes, in their order: name -> list."""
    layers = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith("lora_A.weight")]
    both = {name: (tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"].T) for name in layers}
    return {name: [torch.cat([x, y]).numpy().tobytes() for x, y in zip(a, b, strict=True)] for name, (a, b) in both.items()}


def size(tensors):
    """How many numbers there are."""
    return sum(tensor.numel() for tensor in tensors.values())


def test_of_lora_the_pairs_of_least_relative_magnitude_go():
    weak, strong = torch.tensor([[1.0, 0], [3, 0]]), torch.tensor([[10.0, 0], [20, 0]])
    tensors = {"x.lora_A.weight": weak, "x.lora_B.weight": weak.T, "y.lora_A.weight": strong, "y.lora_B.weight": strong.T}
    # Squared norms 1 and 9 over their mean 5, 100 and 400 over 250: in this order 0.2, 0.4, 1.6, 1.8.
    assert pairs(prune.lora(tensors, 0.2)) == {"x": pairs(tensors)["x"][1:], "y": pairs(tensors)["y"]}
    assert pairs(prune.lora(tensors, 0.5)) == {"x": pairs(tensors)["x"][1:], "y": pairs(tensors)["y"][1:]}
    assert pairs(prune.lora(tensors, 0.7)) == {"x": pairs(tensors)["x"][1:]}


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8])
def test_pruned_lora_is_that_of_brute_force(ratio):
    layers = {"one": (3, 2, 5), "two": (2, 7, 4), "three": (3, 1, 1)}
    tensors = matrices(layers)
    whole = pairs(tensors)
    norms = {name: [float((np.frombuffer(pair, np.float32).astype(float) ** 2).sum()) for pair in whole[name]] for name in whole}
    kept = [(norm / np.mean(norms[name]), name, i) for name in whole for i, norm in enumerate(norms[name])]
    while sum(layers[name][1] + layers[name][2] for _, name, _ in kept) > (1 - ratio) * size(tensors):
        kept.remove(min(kept))
    found = pairs(prune.lora(tensors, ratio))
    expected = {name: [whole[name][i] for _, of, i in sorted(kept, key=lambda row: row[2]) if of == name] for name in whole}
    assert found == {name: rows for name, rows in expected.items() if rows}


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.37, 0.5, 0.9])
def test_pruning_of_lora_keeps_at_most_what_it_should_and_hardly_less(ratio):
    tensors = matrices({"one": (16, 20, 30), "two": (16, 40, 30), "three": (16, 10, 10)})
    left, limit = size(prune.lora(tensors, ratio)), (1 - ratio) * size(tensors)
    assert limit - 70 < left <= limit
    assert ratio or same(prune.lora(tensors, 0.0), tensors)


@pytest.mark.parametrize(("ratio", "layers_go"), [(0.3, False), (0.9, True)])
def test_the_pairs_that_remain_do_what_they_did(ratio, layers_go, parts):
    model, _ = trained("text_to_image", parts)
    before = copied(model.state())
    kept = pairs(prune.lora(before, ratio))
    assert (len(kept) < len(pairs(before))) == layers_go
    zeroed = copied(before)
    for name, rows in pairs(before).items():
        for i in [i for i, row in enumerate(rows) if row not in kept.get(name, [])]:
            zeroed[f"{name}.lora_A.weight"][i] = 0
            zeroed[f"{name}.lora_B.weight"][:, i] = 0
    x, t = noise(2, *model.noise_shape()), torch.tensor(300)
    with torch.no_grad():
        whole = model.predict(x, t)
        model.load_state(zeroed)
        expected = model.predict(x, t)
        model.load_state(before)
        model.prune(ratio)
        assert pairs(model.state()) == kept
        torch.testing.assert_close(model.predict(x, t), expected, atol=1e-5, rtol=1e-5)
    assert (whole - expected).abs().max() > 1e-3


# Latents, moments, prompts.


def test_latents_are_those_of_the_vqvae_before_quantisation(parts):
    vae, x = vqvae(parts), scaled(IMAGES["latent"])
    found = new("latent", parts).prepare(IMAGES["latent"])
    assert found.shape == (6, 1, 3, 8, 8)
    torch.testing.assert_close(found[:, 0], vae.quant_conv(vae.encoder(x)))
    assert (found[:, 0] - vae.quantize(found[:, 0])[0]).abs().max() > 0.01


def test_decoding_takes_the_nearest_codes(parts):
    vae, latents = vqvae(parts), 0.1 * noise(6, 3, 8, 8)
    codes = vae.quantize.embedding.weight
    nearest = torch.cdist(latents.movedim(1, -1).flatten(0, 2), codes).argmin(1)
    quantised = codes[nearest].view(6, 8, 8, 3).movedim(-1, 1)
    assert len(nearest.unique()) > 1
    with torch.no_grad():
        torch.testing.assert_close(new("latent", parts).decode(latents), vae.decoder(vae.post_quant_conv(quantised)))


def test_moments_are_mean_and_deviation_of_the_latent_times_the_scaling_factor(parts):
    found = new("text_to_image", parts).prepare(IMAGES["text_to_image"])
    posterior = read("vae", parts).encode(scaled(IMAGES["text_to_image"])).latent_dist
    assert found.shape == (6, 1, 2, 4, 8, 8)
    torch.testing.assert_close(found[:, 0, 0], SCALING * posterior.mean)
    torch.testing.assert_close(found[:, 0, 1], SCALING * posterior.std)


def test_a_batch_is_drawn_with_these_moments(parts):
    model, n = new("text_to_image", parts), 4000
    mean, std = 3 * noise(4, 2, 2), noise(4, 2, 2, seed=1).abs() + 0.1
    x = model.batch(torch.stack([mean, std]).expand(n, -1, -1, -1, -1), torch.Generator().manual_seed(0))
    assert (((x.mean(0) - mean) / std).abs() < 5 / n**0.5).all()
    assert ((x.std(0) / std - 1).abs() < 5 / (2 * n) ** 0.5).all()
    assert torch.equal(model.batch(torch.stack([mean, 0 * std])[None], torch.Generator())[0], mean)


def test_latents_become_images_by_the_decoder_of_the_base_model(parts):
    latents = noise(3, 4, 8, 8)
    with torch.no_grad():
        expected = read("vae", parts).decode(latents / SCALING).sample
        torch.testing.assert_close(new("text_to_image", parts).decode(latents), expected)


@every
def test_flipped_images_have_two_views_of_which_the_second_is_of_the_mirrored_image(kind, parts):
    model, images = new(kind, parts), IMAGES[kind]
    views = model.prepare(images, True)
    assert views.shape[1] == 2 and model.prepare(images).shape[1] == 1
    torch.testing.assert_close(views[:, :1], model.prepare(images))
    torch.testing.assert_close(views[:, 1:], model.prepare(images[..., ::-1].copy()))


def embedded(parts):
    """Embeddings of "a cat" and of nothing, from token numbers written out: float [1, 9, 8] each."""
    tokens = torch.tensor([[52, 26, 2, 0, 45, 53, 53, 53, 53], [52, *[53] * 8]])
    with torch.no_grad():
        return read("text_encoder", parts)(tokens)[0].split(1)


def test_prompts_are_padded_to_the_tokenizers_length_and_embedded(parts):
    model = new("text_to_image", parts)
    for found, expected in zip((model.prompt, model.negative), embedded(parts), strict=True):
        assert found.shape == (1, LENGTH, 8)
        torch.testing.assert_close(found, expected)


def test_a_guidance_of_1_is_none(parts):
    model, x, t = trained("text_to_image", parts, guidance=1.0)[0], noise(2, 4, 8, 8), torch.tensor(300)
    with torch.no_grad():
        assert torch.equal(model.guided(x, t), model.unet(x, t, embedded(parts)[0].expand(2, -1, -1)).sample)


def test_guidance_goes_from_the_empty_prompt_past_the_runs_own(parts):
    model, x, t = trained("text_to_image", parts, guidance=7.5)[0], noise(2, 4, 8, 8), torch.tensor(300)
    with torch.no_grad():
        positive, negative = (model.unet(x, t, prompt.expand(2, -1, -1)).sample for prompt in embedded(parts))
        assert (positive - negative).abs().max() > 1e-3
        torch.testing.assert_close(model.guided(x, t), negative + 7.5 * (positive - negative))


# The inputs that a run keeps.


IDS = [11, 3, 8, 7]  # of 12 images, those that were given
KEPT = {"horizontal_flip": False}


@pytest.fixture
def given(monkeypatch):
    """A dataset of 12 images, 4 of them given, in place of the run's; what `Latent.prepare` is called with is counted."""

    class Given:
        images = np.random.default_rng(1).integers(0, 256, (12, 3, 32, 32), np.uint8)
        n_prepared = 0

    def count(model, images, flip=False):
        Given.n_prepared += 1
        return prepare(model, images, flip)

    prepare = latent.Latent.prepare
    table = pd.DataFrame({"image": IDS, "contributor": list("abab"), "class": "x"})
    monkeypatch.setattr(stages, "dataset", lambda params: datasets.Dataset(Given.images, table))
    monkeypatch.setattr(latent.Latent, "prepare", count)
    return Given


def reopened():
    """Forget what this process has read, as another process would know nothing of it."""
    stages._inputs.cache_clear()


def inputs_of(parts, folder, ids, values=KEPT, digest="data"):
    """The run's inputs of some images, for the VQ-VAE in parts."""
    model = new("latent", parts, frozen_digest=pretrained.digest(parts["latent"]))
    return stages.inputs(folder, values, model, digest, np.array(ids))


def test_inputs_are_rows_by_image_id_in_the_order_asked_for(parts, given, tmp_path):
    by_hand = new("latent", parts).prepare(given.images)
    for ids in ([3], [7, 8, 11], [11, 3], [8, 8, 3]):
        torch.testing.assert_close(inputs_of(parts, tmp_path, ids), by_hand[ids])


def test_inputs_are_computed_once_for_all_images_and_kept(parts, given, tmp_path):
    first = inputs_of(parts, tmp_path, [3, 7])
    inputs_of(parts, tmp_path, [8, 11])
    reopened()
    assert torch.equal(inputs_of(parts, tmp_path, [3, 7]), first)
    assert given.n_prepared == 1


def test_inputs_of_pixels_are_not_kept(given, tmp_path):
    given.images = np.random.default_rng(1).integers(0, 256, (12, 1, 8, 8), np.uint8)
    model = new("pixel", {"pixel": None})
    x = stages.inputs(tmp_path, KEPT, model, "data", np.array([7, 3]))
    assert torch.equal(x[:, 0], scaled(given.images[[7, 3]]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: data[:100], lambda data: b"", lambda data: data[:-9] + b"\x07" + data[-8:]]
)
def test_inputs_that_are_not_what_was_written_are_named_and_computed_again(parts, given, tmp_path, spoil):
    before, file = inputs_of(parts, tmp_path, IDS), tmp_path / "models" / "inputs.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.warns(UserWarning, match=f"^{file}: changed since it was written; made again"):
        assert torch.equal(inputs_of(parts, tmp_path, IDS), before)
    assert given.n_prepared == 2


def test_inputs_are_computed_again_when_images_are_flipped(parts, given, tmp_path):
    inputs_of(parts, tmp_path, IDS)
    assert inputs_of(parts, tmp_path, IDS, {"horizontal_flip": True}).shape == (4, 2, 3, 8, 8)
    assert given.n_prepared == 2


def test_inputs_are_computed_again_from_another_dataset(parts, given, tmp_path):
    before = inputs_of(parts, tmp_path, IDS)
    given.images = 255 - given.images
    after = inputs_of(parts, tmp_path, IDS, digest="other data")
    assert given.n_prepared == 2
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, new("latent", parts).prepare(given.images[IDS]))


def test_inputs_are_computed_again_by_another_frozen_part(parts, given, tmp_path):
    before, other = inputs_of(parts, tmp_path, IDS), {"latent": tmp_path / "other"}
    save_vqvae(other["latent"], seed=1)
    after = inputs_of(other, tmp_path, IDS)
    assert given.n_prepared == 2
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, new("latent", other).prepare(given.images[IDS]))


# The runs of the laptop.


SMALL = {
    "name": "small",
    "executor": "serial",
    "device": "cpu",
    "side_px": 32,
    "train_steps": 3,
    "batch_size": 4,
    "prune_steps": 3,
    "finetune_steps": 3,
    "finetune_lr": 0.1,
    "n_images": 4,
    "sampling_steps": 2,
    "property": "aesthetic_score",
    "feature": "colourfulness",
    "pruning_ratio": 0.5,
    "embedding": "pooled_pixels",
    "fid_embedding": "pooled_pixels",
    "compared": ["D-TRAK"],
}
LAPTOP = {
    "latent": {"dataset": "faces", "n_contributors": 5, "model": "ldm_8x8"},
    "text_to_image": {"dataset": "painters", "n_contributors": 5, "model": "painter_lora"},
}
BASE = {"latent": "faces_vqvae", "text_to_image": "painters_base"}


def run_of(kind):
    """A run of the laptop's settings that takes no time."""
    return store.Run("03_prune", params.check(SMALL | LAPTOP[kind], "small"))


@encoded
def test_each_procedure_starts_from_its_model_and_what_nobody_gives_changes_nothing(kind, parts, scratch):
    run = run_of(kind)
    shutil.copytree(parts[kind], run.folder / "models" / BASE[kind])
    full, sparse = stages.full(run), stages.sparse(run)
    assert sparse["parameters"] < 0.6 * full["parameters"]
    untrained = families.new(stages.config(run.folder, run.params), 0, "cpu", stages.frozen(run.folder, run.params))
    starts = {"retrain": untrained} | {
        procedure: stages.load(run.folder, run.params, name)
        for procedure, name in (("finetune", "full"), ("sparse_finetune", "sparse"))
    }
    values = {}
    for procedure, model in starts.items():
        table = utility.measure(run, Wanted("ends", procedure, np.array([[0] * 5, [1] * 5], bool), np.array([0, 0])))
        values[procedure] = table.aesthetic_score.tolist()
        score = properties.named("aesthetic_score").per_image(run.folder, run.params, sample.draw(model, 4, 2, 256))
        np.testing.assert_array_equal(run.measured.arrays(table.key[0])["aesthetic_score/score"], score["score"])
        assert run.measured.read(table.key[0])["spec"]["model"]["frozen_digest"] == pretrained.digest(parts[kind])
    assert values["retrain"][1] == values["finetune"][0]  # retrained with everybody, by the seed of the full model
    assert len(set(sum(values.values(), []))) == 5


def test_what_is_frozen_is_nothing_or_made_by_the_run_or_pretrained(parts, scratch, tiny, monkeypatch):
    assert stages.frozen(scratch, tiny) is None
    assert stages.frozen(scratch, tiny | {"model": "ldm_8x8"}) == scratch / "models" / "faces_vqvae"
    monkeypatch.setattr(pretrained, "find", lambda name, params: (name, params["vqvae_path"]))
    assert stages.frozen(scratch, tiny | {"model": "ldm_64x64", "vqvae_path": "mine"}) == ("vqvae", "mine")


def test_another_frozen_part_is_another_configuration_and_a_missing_one_is_refused(parts, scratch):
    run = run_of("latent")
    with pytest.raises(Refused, match="faces_vqvae: not there; run the notebook that makes it: 02_train$"):
        stages.config(run.folder, run.params)
    shutil.copytree(parts["latent"], run.folder / "models" / "faces_vqvae")
    before = stages.config(run.folder, run.params)
    assert before == families.preset("ldm_8x8") | {
        "noise_schedule": "linear",
        "frozen_digest": pretrained.digest(parts["latent"]),
    }
    save_vqvae(run.folder / "models" / "faces_vqvae", seed=1)
    assert stages.config(run.folder, run.params) != before


def test_a_run_makes_its_base_once(parts, scratch, monkeypatch):
    run, made = run_of("latent"), []

    def make(name, folder, progress):
        made.append(name)
        shutil.copytree(parts["latent"], folder)

    monkeypatch.setattr(bases, "make", make)
    shown = [stages.base(run), stages.base(run)]
    assert made == ["faces_vqvae"]
    assert shown == [{"frozen": "faces_vqvae", "digest": pretrained.digest(parts["latent"])}] * 2


@pytest.fixture
def short(monkeypatch):
    """Bases in two steps for each of their networks, on few images."""
    images = bases.faces.load({"n_contributors": 5, "assignment_seed": 0})
    monkeypatch.setattr(bases.faces, "load", lambda params: images)
    for name, value in (("AUTOENCODER_STEPS", 2), ("UNET_STEPS", 2), ("N_IMAGES", 32)):
        monkeypatch.setattr(bases, name, value)


def made(name, folder):
    """A base, made in a folder, and how often it told of a step."""
    steps = []
    bases.make(name, folder, lambda: steps.append(None))
    return len(steps)


def test_the_vqvae_that_a_run_makes_has_latents_of_mean_square_1_and_loads(short, tmp_path):
    assert made("faces_vqvae", tmp_path / "base") == 2
    model = families.new(families.preset("ldm_8x8") | {"noise_schedule": "linear"}, 0, "cpu", tmp_path / "base")
    images = bases.faces.load({})[0][:256]
    assert model.prepare(images).pow(2).mean().item() == pytest.approx(1, rel=1e-4)
    assert drawn(model).shape == (5, 3, 32, 32)


def test_the_base_that_a_run_makes_has_latents_of_deviation_1_and_loads(short, tmp_path):
    assert made("painters_base", tmp_path / "base") == 4
    model = families.new(families.preset("painter_lora") | {"noise_schedule": "linear"}, 0, "cpu", tmp_path / "base")
    means = model.prepare(bases.painters.others(32, bases.OTHERS))[:, 0, 0]
    assert means.std().item() == pytest.approx(1, rel=1e-4)
    assert model.prompt.shape == (1, bases.PROMPT_LENGTH, 32)
    assert drawn(model).shape == (5, 3, 32, 32)


@encoded
def test_a_base_is_made_to_the_same_bits_and_disturbs_no_other_draw(kind, short, tmp_path):
    before = torch.get_rng_state()
    made(BASE[kind], tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    made(BASE[kind], tmp_path / "two")
    assert pretrained.digest(tmp_path / "one") == pretrained.digest(tmp_path / "two")


def test_a_base_is_there_whole_or_not_at_all(short, tmp_path, monkeypatch):
    def killed(self, folder, **how):
        save(self, folder, **how)
        raise KeyboardInterrupt

    save, folder = VQModel.save_pretrained, tmp_path / "models" / "base"
    with monkeypatch.context() as patch:
        patch.setattr(VQModel, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            made("faces_vqvae", folder)
        assert not folder.exists()
    made("faces_vqvae", folder)
    whole = pretrained.digest(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["base"]
    with monkeypatch.context() as patch:
        patch.setattr(VQModel, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            made("faces_vqvae", folder)
    assert pretrained.digest(folder) == whole


@encoded
def test_the_images_that_are_kept_are_those_that_were_drawn(kind, parts, tmp_path):
    images, kept = sample.draw(new(kind, parts), 4, 2, 256), measured.Measured(tmp_path)
    kept.write({"procedure": "x"}, {}, {"images": images, "turned": images.T}, 0.0, 0.0)
    found = kept.arrays(kept.key({"procedure": "x"}))
    np.testing.assert_array_equal(found["images"], images)
    np.testing.assert_array_equal(found["turned"], images.T)


@every
def test_one_image_alone_can_be_trained_on(kind, parts):
    assert len(trained(kind, parts, replace(RECIPE, batch_size=5, epochs=1))[1].losses) == 2


def test_a_ratio_that_leaves_no_pair_of_lora_is_refused(parts):
    with pytest.raises(Refused, match="^pruning_ratio: 0.999: leaves nothing"):
        new("text_to_image", parts).prune(0.999)


def test_a_vqvae_that_was_changed_is_read_again(parts, tmp_path):
    folder = {"latent": tmp_path / "vqvae of mine"}
    shutil.copytree(parts["latent"], folder["latent"])
    digest = pretrained.digest(folder["latent"])
    before = new("latent", folder, frozen_digest=digest).prepare(IMAGES["latent"])
    save_vqvae(folder["latent"], seed=1)
    after = new("latent", folder, frozen_digest=pretrained.digest(folder["latent"])).prepare(IMAGES["latent"])
    assert (after - before).abs().max() > 1e-3


@encoded
def test_a_model_is_refused_with_another_frozen_part_than_it_was_trained_with(kind, parts, scratch):
    run = run_of(kind)
    place = run.folder / "models" / BASE[kind]
    shutil.copytree(parts[kind], place)
    stages.full(run)
    weights = next(place.rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for load in (stages.load, stages.started):
        with pytest.raises(Refused, match=f"^{stages.path(run.folder, 'full')}: .*{BASE[kind]}"):
            load(run.folder, run.params, "full")
