"""LoRA, and the Stable Diffusion that it is on, trained before: taken as diffusers takes them, or refused in one line."""

import json
import shutil

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cdlib.base import params
from cdlib.base.errors import Refused
from cdlib.models import bases, families, stages
from cdlib.models.families import ready
from cdlib.models.families.presets import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")
CHAIN = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
TARGETS = ["to_k", "to_out.0", "to_q", "to_v"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a small Stable Diffusion as diffusers saves it. Not to be changed."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    tokenizer, encoder = bases._text()
    kinds = dict(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3)
    vae = AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=4, sample_size=32, latent_channels=4, **kinds)
    unet = UNet2DConditionModel(**PRESETS["painter_lora"]["network"])
    parts = dict(
        vae=vae, unet=unet, text_encoder=encoder, tokenizer=tokenizer, scheduler=PNDMScheduler(skip_prk_steps=True, **CHAIN)
    )
    pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def base(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "base")


@pytest.fixture
def given(base, tmp_path):
    """Parameters of a run that takes both, and a function that saves LoRA as diffusers does, never zero."""
    values = {"model": "minisd_lora", "minisd_path": str(base), "full_path": str(tmp_path / "lora"), "device": "cpu"}
    values |= {"dataset": "artbench", "side_px": 256}

    def save(**config):
        unet = UNet2DConditionModel.from_pretrained(base / "unet")
        unet.add_adapter(LoraConfig(**{"r": 8, "lora_alpha": 8, "target_modules": TARGETS, "init_lora_weights": False} | config))
        StableDiffusionPipeline.save_lora_weights(
            tmp_path / "lora",
            unet_lora_layers={name: t.contiguous() for name, t in get_peft_model_state_dict(unet).items()},
            unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
        )

    save()
    needs = ("feature", "embedding")  # none that is pretrained
    return {**params.defaults(), **dict.fromkeys(needs, "pooled_pixels"), **values}, save


def line(values, tmp_path):
    """What a run with these parameters is refused with."""
    with pytest.raises(Refused) as error:
        stages.needed(tmp_path / "run", values)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(change):
    """What changes the tensors of saved LoRA; names have no prefix."""

    def spoil(save, file):
        found = {name.removeprefix("unet."): tensor for name, tensor in load_file(file).items()}
        with safe_open(file, "pt") as kept:
            about = kept.metadata()
        change(found)
        save_file({name if name[:4] == "text" else f"unet.{name}": t for name, t in found.items()}, file, about)

    return spoil


def again(**config):
    return lambda save, file: save(**config)


FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.lora_"
BAD_LORA = {
    "q and v": (again(target_modules=["to_q", "to_v"]), "LoRA on to_q, to_v only: must be on to_k, to_out.0, to_q, to_v"),
    "convolutions": (
        again(target_modules=[*TARGETS, "conv1"]),
        "down_blocks.0.resnets.0.conv1.lora_A.weight (16 such): convolutional LoRA: must be on the attention's linear layers",
    ),
    "a text encoder's": (
        changed(lambda t: t.update({"text_encoder.layer.q_proj.lora_A.weight": torch.ones(8, 8)})),
        "text_encoder.layer.q_proj.lora_A.weight (1 such): LoRA of a text encoder, which is frozen here",
    ),
    "an alpha of its own": (changed(lambda t: t.update({"mid.alpha": torch.ones(1)})), "mid.alpha (1 such): no LoRA matrix"),
    "a layer misnamed": (
        changed(lambda t: t.update({"a.to_k.lora_A.weight": t.pop(FIRST + "A.weight")})),
        "2 tensors differ from the network's, the first: a.to_k.lora_A.weight: (8, 32): must be none",
    ),
    "a layer less": (
        changed(lambda t: [t.pop(FIRST + f"{matrix}.weight") for matrix in "AB"]),
        f"2 tensors differ from the network's, the first: {FIRST}A.weight: none: must be (8, 32)",
    ),
    "layers more": (
        again(target_modules=[*TARGETS, "ff.net.2"]),
        "14 tensors differ from the network's, the first: down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2.lora_A.weight",
    ),
    "another width": (
        changed(lambda t: t.update({FIRST + "A.weight": torch.ones(8, 31)})),
        f"1 tensors differ from the network's, the first: {FIRST}A.weight: (8, 31): must be (8, 32)",
    ),
    "two ranks": (again(rank_pattern={"to_q": 4}, alpha_pattern={"to_q": 4}), "LoRA with alpha_pattern: must have one alpha"),
    "another scale": (again(use_rslora=True), "LoRA with use_rslora: must have one alpha, and a scale of alpha / r"),
    "magnitudes": (again(use_dora=True), "LoRA with use_dora"),
    "no numbers": (changed(lambda t: [tensor.mul_(torch.nan) for tensor in t.values()]), "its loss fails: ValueError: it is nan"),
    "an alpha beside it": (
        lambda save, file: (file.parent / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 32})),
        "adapter_config.json has lora_alpha 32: must be r, 8",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), BAD_LORA.values(), ids=BAD_LORA)
def test_lora_that_would_be_taken_in_part_or_for_another_is_refused(given, tmp_path, spoil, said):
    values, save = given
    spoil(save, tmp_path / "lora" / ready.LORA[0])
    found = line(values, tmp_path)
    assert found.startswith(f"full_path: {tmp_path}/lora/{ready.LORA[0]}: ") and said in found


@pytest.mark.parametrize("alpha", [3, 8, 32])
def test_lora_does_what_diffusers_makes_of_it_whatever_its_alpha(given, base, tmp_path, alpha):
    values, save = given
    save(lora_alpha=alpha)
    assert stages.needed(tmp_path / "run", values) == base
    config = stages.config(tmp_path / "run", values)
    model = families.restore(config, ready.tensors(values), "cpu", base)
    assert config["rank"] == 8 and len(families.new(config, 0, "cpu", base).state()) == len(model.state())
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(tmp_path / "lora")
    x, t = model.initial_noise([0]), torch.tensor(400)
    with torch.no_grad():
        theirs = pipeline.unet(x, t, encoder_hidden_states=model.prompt).sample
        pipeline.disable_lora()
        without = pipeline.unet(x, t, encoder_hidden_states=model.prompt).sample
        torch.testing.assert_close(model.predict(x, t), theirs, rtol=1e-3, atol=1e-4)
    assert (theirs - without).abs().max() > 0.01


def scheduler(kind, **settings):
    return lambda folder: getattr(diffusers, kind)(**settings).save_pretrained(folder / "scheduler")


def rewritten(file, **changes):
    return lambda folder: (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))


BAD_BASE = {
    "predicts the image": (scheduler("DDIMScheduler", prediction_type="sample"), "prediction_type: 'sample': must be epsilon or"),
    "zero SNR": (scheduler("DDIMScheduler", rescale_betas_zero_snr=True), "rescale_betas_zero_snr: True: must be False"),
    "500 timesteps": (scheduler("PNDMScheduler", num_train_timesteps=500), "num_train_timesteps: 500: must be 1000"),
    "trained betas": (scheduler("PNDMScheduler", trained_betas=[0.01] * 1000), "trained_betas: [0.01, 0.01, 0.01"),
    "flow matching": (scheduler("FlowMatchEulerDiscreteScheduler"), "FlowMatchEulerDiscreteScheduler has no alphas_cumprod"),
    "EDM": (scheduler("EDMDPMSolverMultistepScheduler"), "EDMDPMSolverMultistepScheduler has no alphas_cumprod"),
    "a schedule that PNDM reads otherwise": (
        rewritten("scheduler/scheduler_config.json", _class_name="LCMScheduler", beta_start=None),
        "LCMScheduler has no alphas_cumprod",
    ),
    "a U-Net that takes more than a prompt": (
        lambda f: UNet2DConditionModel(**PRESETS["painter_lora"]["network"], num_class_embeds=3).save_pretrained(f / "unet"),
        "its loss fails: ValueError: class_labels should be provided",
    ),
    "no size": (rewritten("unet/config.json", sample_size=None), "its loss fails: TypeError"),
    "a U-Net to fill in": (
        lambda f: UNet2DConditionModel(**PRESETS["painter_lora"]["network"] | {"in_channels": 9}).save_pretrained(f / "unet"),
        "its loss fails",
    ),
    "an encoder of other widths": (rewritten("unet/config.json", cross_attention_dim=16), "making its network fails"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD_BASE.values(), ids=BAD_BASE)
def test_a_base_model_that_cannot_be_trained_on_or_was_trained_otherwise_is_refused(given, base, tmp_path, spoil, said):
    spoil(base)
    found = line({**given[0], "full_path": ""}, tmp_path)
    assert found.startswith(f"minisd_path: {base}") and said in found


def test_a_base_model_of_velocities_is_trained_and_drawn_as_diffusers_does(given, base, tmp_path):
    values, _ = given
    scheduler("PNDMScheduler", prediction_type="v_prediction", skip_prk_steps=True, **CHAIN)(base)
    stages.needed(tmp_path / "run", values)
    model = families.restore(stages.config(tmp_path / "run", values), ready.tensors(values), "cpu", base)
    x, t = model.initial_noise(range(3)), torch.tensor([0, 400, 999])
    kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[t].view(-1, 1, 1, 1)
    noise = torch.randn_like(x)
    with torch.no_grad():
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * x
        predicted = model.unet(kept.sqrt() * x + (1 - kept).sqrt() * noise, t, model.prompt.expand(3, -1, -1)).sample
        assert model.loss(x, t, noise).item() == pytest.approx((predicted - velocity).square().mean().item(), rel=1e-4)
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path / "lora")
    how = dict(latents=x, num_inference_steps=5, guidance_scale=7.5, num_images_per_prompt=3, output_type="np")
    expected = pipeline(model.config["prompt"], height=32, width=32, **how).images.transpose(0, 3, 1, 2) * 255
    assert abs(model.draw(range(3), 5).numpy() - expected).max() <= 1


@pytest.mark.parametrize("steps", [4, 15, 100, 500, 1000])
def test_no_step_is_past_the_end_of_the_chain(saved, steps):
    solver = families.new(families.preset("minisd_lora") | {"rank": 2}, 0, "cpu", saved).solver(steps)
    own = PNDMScheduler(skip_prk_steps=True, **CHAIN)
    own.set_timesteps(steps)
    assert solver.timesteps.max() == min(999, own.timesteps.max()) and (steps == 1000 or solver.timesteps.equal(own.timesteps))
    x = torch.ones(1, 4, 2, 2)
    for t in solver.timesteps:
        x = solver.step(torch.zeros_like(x), t, x).prev_sample
    assert x.isfinite().all()
