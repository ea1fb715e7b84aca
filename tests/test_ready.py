"""A network that was trained before is taken as it is, or refused in one line."""

import json

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from cdlib import store
from cdlib.base import machine, registry
from cdlib.base import params as parameters
from cdlib.base.errors import Refused
from cdlib.cli import bench
from cdlib.data import design
from cdlib.measure import properties, utility
from cdlib.models import gradients, sample, stages, train
from cdlib.models.families import pixel
from cdlib.models.families.presets import PRESETS
from cdlib.show import figures
from cdlib.store import completion

# Another network than the preset's: wider.
NETWORK = {**PRESETS["unet_8x8"]["network"], "block_out_channels": (24, 48)}


@pytest.fixture
def folder(tmp_path):
    """A pipeline as diffusers saves it."""
    torch.manual_seed(1)
    pipeline = DDPMPipeline(unet=UNet2DModel(**NETWORK), scheduler=DDPMScheduler(**pixel.SCHEDULES["linear"]))
    pipeline.save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def given(run, folder):
    """A run that takes it; its classifier is there."""
    return store.Run("02_train", run.params | {"full_path": str(folder)})


def weights(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_the_given_weights_become_the_full_model_without_training(given, folder, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *a, **k: pytest.fail("trained"))
    stages.base(given)
    about = stages.full(given)
    full = stages.load(given.folder, given.params, "full")
    assert {name: tensor.tolist() for name, tensor in full.state().items()} == {n: t.tolist() for n, t in weights(folder).items()}
    assert about["parameters"] == sum(tensor.numel() for tensor in weights(folder).values())
    assert (about["losses"], about["train_seconds"]) == ([], 0.0)
    assert figures.curve(about["losses"]).png.startswith(b"\x89PNG")
    assert stages.full(given) == about


def test_everybodys_value_is_the_given_models_own_and_nobody_and_coalitions_have_its_network(given, folder):
    full, sparse = stages.full(given), stages.sparse(given)
    assert sparse["config"]["network"] == full["config"]["network"] and sparse["parameters"] < full["parameters"]
    everybody, nobody = design.ends(given.params)
    [row] = utility.measure(given, everybody).to_dict("records")
    with machine.one_thread():
        model = stages.load(given.folder, given.params, "full")
        images = sample.draw(model, given["n_images"], given["sampling_steps"], given["sample_batch"], given["precision"])
        own = registry.properties(given.params)[given["property"]]
        seen = properties.named(own["property"]).per_image(given.folder, own, images)
    assert (given.measured.arrays(row["key"])["images"] == images).all()
    assert row[own["property"]] == properties.named(own["property"]).value(own, seen)
    for procedure in ("retrain", "sparse_finetune"):
        assert utility.context(given, procedure)["model"]["network"]["block_out_channels"] == [24, 48]
    assert len(utility.measure(given, nobody)) == 1


def test_other_weights_make_another_full_model_and_undo_the_notebook_that_took_them(given, folder):
    before = stages.full(given)["digest"], *(completion.inputs(n, given.params) for n in ("01_contributors", "02_train"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in weights(folder).items()}, file)
    after = stages.full(given)["digest"], *(completion.inputs(n, given.params) for n in ("01_contributors", "02_train"))
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, False]


def test_the_plan_counts_the_given_network_and_no_training_of_it(given):
    assert bench.models(given.params)[0].n_parameters() == sum(p.numel() for p in UNet2DModel(**NETWORK).parameters())
    assert design.n_planned(given.params)["given"] == 1


def rewrite(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def drop(file):
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file)


BAD = {
    "no folder": (lambda f: f.rename(f.parent / "elsewhere"), "there is no {folder}/unet/config.json: must be the folder of a"),
    "weights that are no safetensors": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").rename(f / "unet/diffusion_pytorch_model.bin"),
        "there is no {folder}/unet/diffusion_pytorch_model.safetensors",
    ),
    "weights cut off": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 99),
        "diffusion_pytorch_model.safetensors: cannot be read",
    ),
    "no JSON": (lambda f: (f / "unet/config.json").write_text("{"), "unet/config.json: cannot be read"),
    "another kind": (
        lambda f: rewrite(f / "unet/config.json", _class_name="UNet2DConditionModel"),
        "a UNet2DConditionModel: must be a UNet2DModel",
    ),
    "an option that there is not": (lambda f: rewrite(f / "unet/config.json", fame=1), "making its network fails: TypeError"),
    "other sizes": (
        lambda f: rewrite(f / "unet/config.json", block_out_channels=[16, 32]),
        "83 tensors differ from the network's, the first: conv_in.bias: (24,): must be (16,)",
    ),
    "a tensor less": (
        lambda f: drop(f / "unet/diffusion_pytorch_model.safetensors"),
        "1 tensors differ from the network's, the first: conv_in.weight: none: must be (24, 1, 3, 3)",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_bad_folder_is_refused_in_one_line_before_any_work(given, folder, spoil, said):
    spoil(folder)
    with pytest.raises(Refused) as error:
        stages.needed(given.folder, given.params)
    line = str(error.value)
    assert line.startswith("full_path: ") and said.format(folder=folder) in line and "\n" not in line


def test_images_of_another_size_are_refused_before_the_model_is_kept(run, folder):
    rewrite(folder / "unet/config.json", sample_size=16)
    given = store.Run("02_train", run.params | {"full_path": str(folder)})
    before = stages.path(given.folder, "full").read_bytes()
    with pytest.raises(Refused, match=r"side_px: 8: images of digits give \(1, 8, 8\), and unet_8x8 takes \(1, 16, 16\)"):
        stages.full(given)
    assert stages.path(given.folder, "full").read_bytes() == before


def test_an_average_that_was_not_given_cannot_be_continued():
    with pytest.raises(Refused, match="ema: continued: full_path has no average to continue"):
        parameters.check({"full_path": "models/mine", "ema": "continued"}, "mine")


# Networks and noise processes, as diffusers saves them.


def scheduler(kind, **settings):
    """What saves a scheduler of diffusers into a pipeline's folder."""
    return lambda folder: getattr(diffusers, kind)(**settings).save_pretrained(folder / "scheduler")


def network(**changes):
    """What saves another network into a pipeline's folder."""
    return lambda folder: UNet2DModel(**{**NETWORK, **changes}).save_pretrained(folder / "unet")


def told(**changes):
    return lambda folder: rewrite(folder / "unet/config.json", **changes)


def broken(folder):
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: tensor * torch.nan for name, tensor in load_file(file).items()}, file)


OTHERS = {
    "scale and shift": (network(resnet_time_scale_shift="scale_shift"), "resnet_time_scale_shift: scale_shift: must be default"),
    "classes": (network(num_class_embeds=3), "num_class_embeds: 3: must be None: it draws by class"),
    "timesteps as classes": (network(class_embed_type="timestep"), "class_embed_type: timestep: must be None"),
    "a list of sizes": (told(sample_size=[8, 8]), "sample_size: [8, 8]: must be a whole number"),
    "no size": (told(sample_size=None), "sample_size: None: must be a whole number"),
    "a learned variance": (
        network(out_channels=2),
        "out_channels: 2: must be 1: as in_channels: it predicts more",
    ),
    "weights that are no numbers": (broken, "its loss fails: ValueError: it is nan"),
    "a network that cannot run": (
        network(time_embedding_type="learned", num_train_timesteps=500),
        "its loss fails: IndexError: index out of range",
    ),
    "predicts the image": (
        scheduler("DDPMScheduler", prediction_type="sample"),
        "prediction_type: 'sample': must be epsilon or",
    ),
    "zero SNR": (
        scheduler("DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True),
        "rescale_betas_zero_snr: True: must be False",
    ),
    "500 timesteps": (scheduler("DDPMScheduler", num_train_timesteps=500), "num_train_timesteps: 500: must be 1000"),
    "trained betas": (scheduler("DDPMScheduler", trained_betas=[0.01] * 1000), "trained_betas: [0.01, 0.01, 0.01"),
    "flow matching": (
        scheduler("FlowMatchEulerDiscreteScheduler"),
        "FlowMatchEulerDiscreteScheduler has no alphas_cumprod",
    ),
    "flow sigmas": (
        scheduler("UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction"),
        "prediction_type: 'flow_prediction': must be epsilon or v_prediction",
    ),
    "EDM": (
        scheduler("EDMEulerScheduler"),
        "has no alphas_cumprod: must be one that adds noise in 1,000 steps",
    ),
    "continuous time": (scheduler("EulerDiscreteScheduler", timestep_type="continuous"), "timestep_type: 'continuous': must be"),
    "a kind that there is not": (
        lambda f: rewrite(f / "scheduler/scheduler_config.json", _class_name="Fame"),
        "Fame has no",
    ),
    "another end": (
        scheduler("DDPMScheduler", beta_start=1e-4, beta_end=0.01),
        "beta_end 0.01: alphas_cumprod is 0.4895 at t = 369: must be 0.2465, as with noise_schedule: linear",
    ),
    "a cosine": (scheduler("DDPMScheduler", beta_schedule="squaredcos_cap_v2"), "beta_schedule squaredcos_cap_v2, beta_start"),
}


@pytest.mark.parametrize(("spoil", "said"), OTHERS.values(), ids=OTHERS)
def test_what_cannot_be_trained_on_or_was_trained_otherwise_is_refused_with_the_reason(given, folder, spoil, said):
    test_a_bad_folder_is_refused_in_one_line_before_any_work(given, folder, spoil, said)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_the_same_noise_process_is_taken_whatever_sampler_it_was_saved_with(given, folder, kind):
    scheduler(kind, **pixel.SCHEDULES["linear"])(folder)
    assert stages.needed(given.folder, given.params) is None


def test_networks_that_go_down_by_residual_blocks_are_pruned_and_trained(given, folder):
    network(down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"))(folder)
    stages.needed(given.folder, given.params)
    assert stages.full(given)["parameters"] > stages.sparse(given)["parameters"]


def test_a_model_of_velocities_is_trained_and_drawn_as_diffusers_does_and_so_are_the_retrained(given, folder):
    scheduler("DDPMScheduler", prediction_type="v_prediction", **pixel.SCHEDULES["linear"])(folder)
    stages.needed(given.folder, given.params)
    stages.full(given)
    model = stages.load(given.folder, given.params, "full")
    assert utility.context(given, "retrain")["model"]["prediction_type"] == "v_prediction"
    unet, solver = UNet2DModel.from_pretrained(folder / "unet"), DDIMScheduler.from_pretrained(folder / "scheduler")
    x, t = model.initial_noise(range(3)), torch.tensor([0, 400, 999])
    kept, noise = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1), torch.randn_like(x)
    with torch.no_grad():
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * x
        predicted = unet(kept.sqrt() * x + (1 - kept).sqrt() * noise, t).sample
        assert model.loss(x, t, noise).item() == pytest.approx((predicted - velocity).square().mean().item(), rel=1e-4)
        clean, timesteps = gradients.journey(model, range(3), 5)
        solver.set_timesteps(5)
        for k, t in enumerate(solver.timesteps):
            step = solver.step(unet(x, t).sample, t, x)
            torch.testing.assert_close(clean[:, k], step.pred_original_sample, rtol=1e-4, atol=1e-4)
            x = step.prev_sample
    assert timesteps == solver.timesteps.tolist()
    assert (model.draw(range(3), 5) - ((x.clamp(-1, 1) + 1) * 127.5)).abs().max() <= 0.51
