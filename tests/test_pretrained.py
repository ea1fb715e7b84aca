"""Pretrained parts: a local copy is used when it is whole, a file when it is the pinned one, and otherwise told in one line."""

import dataclasses
import hashlib
import json
import re
import urllib.error

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    VQModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cdlib.base.errors import Refused
from cdlib.models import pretrained

HUB = [name for name, part in pretrained.PARTS.items() if not part.is_file]
FILES = [name for name, part in pretrained.PARTS.items() if part.is_file]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network and empty caches; returns the folder of the hub's cache."""

    def unreachable(url, *_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    return tmp_path / "hub"


def put(folder, files):
    """Write small files; a pattern becomes one file that it matches."""
    for file in files:
        path = folder / file.replace("*", "vocab.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    return folder


def pin(monkeypatch, name, data):
    """Pin a part to other bytes."""
    monkeypatch.setitem(pretrained.PARTS, name, dataclasses.replace(pretrained.PARTS[name], pin=hashlib.sha256(data).hexdigest()))


def tokenizer():
    """A tokenizer of single letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=8)


@pytest.mark.parametrize("name", HUB)
def test_a_folder_is_pinned_by_a_revision(name):
    assert re.fullmatch("[0-9a-f]{40}", pretrained.PARTS[name].pin)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_pinned_by_its_sha256(name):
    assert re.fullmatch("[0-9a-f]{64}", pretrained.PARTS[name].pin)


def test_the_pin_of_inception_is_the_one_in_its_name():
    part = pretrained.PARTS["inception"]
    assert part.files == (f"inception_v3_google-{part.pin[:8]}.pth",)


def test_weights_are_safetensors_or_the_two_pinned_files():
    weights = {file for part in pretrained.PARTS.values() for file in part.files if not file.endswith((".json", "/*"))}
    assert {file for file in weights if not file.endswith(".safetensors")} == {
        pretrained.PARTS[name].files[0] for name in ("inception", "aesthetic")
    }


def test_every_part_has_its_own_parameter():
    assert len({part.parameter for part in pretrained.PARTS.values()}) == len(pretrained.PARTS)


@pytest.mark.parametrize("name", pretrained.PARTS)
def test_without_a_network_the_refusal_says_what_where_and_how(name, offline):
    part = pretrained.PARTS[name]
    with pytest.raises(Refused) as refusal:
        pretrained.find(name, {part.parameter: ""})
    text = str(refusal.value)
    assert "\n" not in text
    for wanted in (part.what, part.source, part.pin, part.licence, part.parameter, f"{part.megabytes:g} MB", *part.files):
        assert wanted in text


@pytest.mark.parametrize("name", HUB)
def test_a_cached_copy_needs_no_network(name, offline):
    part = pretrained.PARTS[name]
    snapshot = offline / f"models--{part.source.replace('/', '--')}" / "snapshots" / part.pin
    put(snapshot, part.files)
    assert pretrained.find(name, {}).samefile(snapshot)


def test_a_cached_copy_with_pickled_weights_only_is_refused(offline):
    part = pretrained.PARTS["vqvae"]
    snapshot = offline / "models--CompVis--ldm-celebahq-256" / "snapshots" / part.pin
    put(snapshot, [file.replace(".safetensors", ".bin") for file in part.files])
    with pytest.raises(Refused, match=r"vqvae/diffusion_pytorch_model.safetensors is missing.* \.bin .*vqvae_path"):
        pretrained.find("vqvae", {})


@pytest.mark.parametrize("name", FILES)
def test_a_cached_file_is_used_when_it_is_the_pinned_one(name, offline, tmp_path, monkeypatch):
    file = put(tmp_path / "torch" / "hub" / "checkpoints", pretrained.PARTS[name].files) / pretrained.PARTS[name].files[0]
    pin(monkeypatch, name, file.read_bytes())
    assert pretrained.find(name, {}) == file


@pytest.mark.parametrize(("name", "file"), [(name, file) for name in HUB for file in pretrained.PARTS[name].files])
def test_a_missing_file_is_named(name, file, tmp_path):
    part = pretrained.PARTS[name]
    put(tmp_path, [other for other in part.files if other != file])
    with pytest.raises(Refused, match=re.escape(f"{part.parameter}: {tmp_path}: {file} is missing")):
        pretrained.find(name, {part.parameter: str(tmp_path)})


@pytest.mark.parametrize("name", pretrained.PARTS)
def test_a_path_that_is_not_there_is_named(name, tmp_path):
    part = pretrained.PARTS[name]
    with pytest.raises(Refused, match=re.escape(f"{part.parameter}: {tmp_path / 'gone'}: there is no")):
        pretrained.find(name, {part.parameter: str(tmp_path / "gone")})


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_found_by_its_path_or_its_folder(name, tmp_path, monkeypatch):
    part = pretrained.PARTS[name]
    file = put(tmp_path, part.files) / part.files[0]
    pin(monkeypatch, name, file.read_bytes())
    assert pretrained.find(name, {part.parameter: str(file)}) == pretrained.find(name, {part.parameter: str(tmp_path)}) == file


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    part = pretrained.PARTS[name]
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was read"))
    file = put(tmp_path, part.files) / part.files[0]
    with pytest.raises(Refused, match=f"sha256 is {hashlib.sha256(file.read_bytes()).hexdigest()}, must be {part.pin}"):
        pretrained.find(name, {part.parameter: str(file)})


def test_a_path_is_relative_to_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr("cdlib.base.paths.root", lambda: tmp_path)
    put(tmp_path / "parts" / "blip", pretrained.PARTS["blip_vqa"].files)
    assert pretrained.find("blip_vqa", {"blip_path": "parts/blip"}) == tmp_path / "parts" / "blip"


def test_the_digest_tells_names_and_bytes(tmp_path):
    digests = {pretrained.digest(put(tmp_path, ["config.json"]))}
    digests.add(pretrained.digest(put(tmp_path, ["model.safetensors"])))
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    digests.add(pretrained.digest(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "renamed.safetensors")
    digests.add(pretrained.digest(tmp_path))
    assert len(digests) == 4


def test_what_a_part_does_not_need_does_not_change_its_digest(tmp_path):
    before = pretrained.digest(put(tmp_path, pretrained.PARTS["vqvae"].files), "vqvae")
    put(tmp_path, ["unet/diffusion_pytorch_model.safetensors", "README.md"])
    assert pretrained.digest(tmp_path, "vqvae") == before != pretrained.digest(tmp_path)


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    file = put(tmp_path, ["head.pth"]) / "head.pth"
    assert pretrained.digest(file) == hashlib.sha256(b"head.pth").hexdigest()


def test_a_vqvae_saved_by_diffusers_is_found_and_loads(tmp_path):
    saved = VQModel(block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=16)
    saved.save_pretrained(tmp_path / "vqvae")
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False).save_pretrained(tmp_path / "scheduler")
    path = pretrained.find("vqvae", {"vqvae_path": str(tmp_path)})
    loaded = VQModel.from_pretrained(path, subfolder="vqvae", use_safetensors=True, local_files_only=True)
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert DDIMScheduler.from_pretrained(path, subfolder="scheduler").config.beta_schedule == "scaled_linear"


def test_a_stable_diffusion_saved_by_diffusers_is_found_and_loads(tmp_path):
    tokens = tokenizer()
    ids = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id}
    saved = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokens),
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=8,
                **ids,
            )
        ),
        tokenizer=tokens,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8,),
            norm_num_groups=4,
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
        ),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    saved.save_pretrained(tmp_path)
    # As on the hub: what the parts are is listed with a safety checker, whose files are not fetched.
    index = json.loads((tmp_path / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    path = pretrained.find("minisd", {"minisd_path": str(tmp_path)})
    loaded = StableDiffusionPipeline.from_pretrained(
        path,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    before, after = saved.unet.state_dict().values(), loaded.unet.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert loaded.tokenizer("abc").input_ids == tokens("abc").input_ids
