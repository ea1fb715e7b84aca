"""A model that was trained before is taken as it is, or refused in one line."""

import json

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from cdlib import bench, done, families, figures, machine, names, plan, properties, sample, stages, store, train, utilities
from cdlib import params as parameters
from cdlib.errors import Refused
from cdlib.families import pixel, ready
from cdlib.families.presets import PRESETS

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
    everybody, nobody = plan.ends(given.params)
    [row] = utilities.measure(given, everybody).to_dict("records")
    with machine.one_thread():
        model = stages.load(given.folder, given.params, "full")
        images = sample.draw(model, given["n_images"], given["sampling_steps"], given["sample_batch"], given["precision"])
        own = names.properties(given.params)[given["property"]]
        seen = properties.named(own["property"]).per_image(given.folder, own, images)
    assert (given.measured.arrays(row["key"])["images"] == images).all()
    assert row[own["property"]] == properties.named(own["property"]).value(own, seen)
    for procedure in ("retrain", "sparse_finetune"):
        assert utilities.context(given, procedure)["model"]["network"]["block_out_channels"] == [24, 48]
    assert len(utilities.measure(given, nobody)) == 1


def test_other_weights_make_another_full_model_and_undo_the_notebook_that_took_them(given, folder):
    before = stages.full(given)["digest"], *(done.inputs(n, given.params) for n in ("01_contributors", "02_train"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in weights(folder).items()}, file)
    after = stages.full(given)["digest"], *(done.inputs(n, given.params) for n in ("01_contributors", "02_train"))
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, False]


def test_the_plan_counts_the_given_network_and_no_training_of_it(given):
    assert bench.models(given.params)[0].n_parameters() == sum(p.numel() for p in UNet2DModel(**NETWORK).parameters())
    assert plan.n_planned(given.params)["given"] == 1


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
    "an option that there is not": (lambda f: rewrite(f / "unet/config.json", fame=1), "makes no UNet2DModel"),
    "other sizes": (lambda f: rewrite(f / "unet/config.json", block_out_channels=[16, 32]), "not what its config.json says"),
    "a tensor less": (
        lambda f: drop(f / "unet/diffusion_pytorch_model.safetensors"),
        "1 tensors differ, the first: conv_in",
    ),
    "another schedule": (
        lambda f: rewrite(f / "scheduler/scheduler_config.json", beta_schedule="squaredcos_cap_v2"),
        "beta_schedule: 'squaredcos_cap_v2': noise_schedule: linear has 'linear'",
    ),
    "another target": (
        lambda f: rewrite(f / "scheduler/scheduler_config.json", prediction_type="v_prediction"),
        "prediction_type: 'v_prediction'",
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


@pytest.fixture
def lora(tmp_path):
    """LoRA of rank 3 on a small U-Net, under the names that diffusers writes; and the configuration of a preset of rank 16."""
    config = families.preset("painter_lora")
    made = families.new(config | {"rank": 3}, 0)
    save_file({f"unet.{name}": t.contiguous() + 1 for name, t in made.state().items()}, tmp_path / ready.LORA[0])
    return tmp_path, config


def test_lora_weights_bring_their_rank(lora):
    folder, config = lora
    given = {"model": "painter_lora", "full_path": str(folder), "noise_schedule": "linear"}
    ready.check(given)
    assert ready.config(given) == {"rank": 3}
    restored = families.restore(config | ready.config(given), ready.tensors(given)).state()
    kept = load_file(folder / ready.LORA[0])
    assert {f"unet.{name}": t.tolist() for name, t in restored.items()} == {name: t.tolist() for name, t in kept.items()}


def test_lora_of_other_networks_is_refused(lora):
    folder, _ = lora
    kept = load_file(folder / ready.LORA[0])
    save_file(kept | {"text_encoder.layer.alpha": torch.ones(1)}, folder / ready.LORA[0])
    with pytest.raises(Refused, match=r"text_encoder.layer.alpha is no LoRA matrix of the U-Net"):
        ready.check({"model": "painter_lora", "full_path": str(folder), "noise_schedule": "linear"})
