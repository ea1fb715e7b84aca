"""Features: each is what its library computes by hand, whatever the batch; and the numpy ones are known numbers."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import models
from transformers import BlipConfig, BlipForQuestionAnswering, BlipImageProcessor

from cdlib.base.errors import Refused
from cdlib.measure import features
from cdlib.models import pretrained

pytestmark = pytest.mark.usefixtures("one_thread")
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 48), dtype=np.uint8)
WITHOUT_WEIGHTS = ["colourfulness", "pooled_pixels"]


def pillow(images):
    """Pictures of uint8 [n, 3, H, W]."""
    return [Image.fromarray(image) for image in images.transpose(0, 2, 3, 1)]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A tiny model for visual question answering in the hub's layout: its folder and itself."""
    folder = tmp_path_factory.mktemp("blip")
    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = BlipConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        text_config={**tower, "encoder_hidden_size": 32, "vocab_size": 99, "bos_token_id": 1, "sep_token_id": 2},
    )
    model = BlipForQuestionAnswering(config).eval()
    for weight in model.vision_model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # so that images differ
    model.save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP in open_clip's layout, whose configuration forgets QuickGELU: its folder and itself, which does not."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CLIP, quick_gelu=True).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {}}))
    return folder, model


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A random Inception v3 as torchvision's file: its path and itself."""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.manual_seed(0)
    model = models.inception_v3(weights=None, init_weights=False).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    torch.nn.init.normal_(model.fc.weight, std=0.3)  # so that images differ
    torch.save(model.state_dict(), path)
    return path, model


@pytest.fixture
def params(blip, clip, inception, tmp_path, monkeypatch):
    """Parameters that name a local copy of every part; the two files are pinned to their bytes."""
    head = tmp_path / "head.pth"
    torch.save({"weight": torch.linspace(-1, 1, 16)[None], "bias": torch.tensor([5.0])}, head)
    for name, path in {"inception": inception[0], "aesthetic": head}.items():
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        monkeypatch.setitem(pretrained.PARTS, name, dataclasses.replace(pretrained.PARTS[name], pin=sha256))
    paths = {"blip": blip[0], "clip_b32": clip[0], "clip_l14": clip[0], "inception": inception[0], "aesthetic": head}
    return {f"{name}_path": str(path) for name, path in paths.items()}


@torch.inference_mode()
def clip_by_hand(model, images):
    transform = open_clip.image_transform(32, is_train=False)
    embeddings = model.encode_image(torch.stack([transform(image) for image in pillow(images)]))
    return (embeddings / embeddings.norm(dim=1, keepdim=True)).numpy()


def test_importing_features_does_not_import_torch():
    code = "import sys, cdlib.measure.features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", features.FEATURES)
def test_a_feature_does_not_depend_on_the_batch(name, params):
    feature = features.FEATURES[name](params, "cpu")
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)
    alone, pairs = (dataclasses.replace(feature, batch_size=size)(images) for size in (1, 2))
    assert alone.dtype == np.float32 and len(alone) == len(images)
    np.testing.assert_allclose(alone, pairs, rtol=1e-5, atol=1e-5)
    assert np.ptp(alone, axis=0).max() > 1e-2  # images differ, so that this is no empty claim


@pytest.mark.parametrize("name", features.FEATURES)
def test_grey_images_count_as_coloured_ones(name, params):
    feature = features.FEATURES[name](params, "cpu")
    grey = IMAGES[:2, :1]
    if name != "pooled_pixels":
        np.testing.assert_array_equal(feature(grey), feature(np.repeat(grey, 3, axis=1)))
    assert len(feature(grey)) == 2


@pytest.mark.parametrize("name", [name for name in features.FEATURES if name not in WITHOUT_WEIGHTS])
def test_a_feature_is_read_once(name, params, monkeypatch):
    first = features.FEATURES[name](params, "cpu")
    for library in ("torchvision.models.inception_v3", "open_clip.create_model_from_pretrained", "safetensors.safe_open"):
        monkeypatch.setattr(library, lambda *_, **__: pytest.fail("read again"))
    assert features.FEATURES[name](params, "cpu").digest == first.digest


def test_features_have_different_digests(params):
    params["clip_b32_path"] = params["clip_l14_path"]
    digests = {name: load(params, "cpu").digest for name, load in features.FEATURES.items()}
    assert digests.pop("clip_b32") == digests["clip_l14"]  # the same weights here, and the same function of them
    assert len(set(digests.values())) == len(digests)


def test_other_weights_have_another_digest(params, clip, tmp_path):
    before = features.FEATURES["clip_b32"](params, "cpu").digest
    weights = load_file(clip[0] / "open_clip_model.safetensors")
    save_file({**weights, "logit_scale": weights["logit_scale"] + 1}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_bytes((clip[0] / "open_clip_config.json").read_bytes())
    assert features.FEATURES["clip_b32"](params | {"clip_b32_path": str(tmp_path)}, "cpu").digest != before


def test_inception_probabilities_are_its_head_over_what_it_pools(params, inception):
    pooled, probabilities = (features.FEATURES[name](params, "cpu") for name in ("inception_pool", "inception_v3"))
    images = IMAGES[:2]
    expected = inception[1].fc(torch.tensor(pooled(images))).softmax(1).detach().numpy()
    assert pooled(images).shape == (2, 2048) and pooled.digest != probabilities.digest
    np.testing.assert_allclose(probabilities(images), expected, atol=1e-6)


def test_inception_probabilities_are_torchvisions(params, inception):
    feature = features.FEATURES["inception_v3"](params, "cpu")
    with torch.inference_mode():
        x = torch.nn.functional.interpolate(torch.tensor(IMAGES) / 255, (299, 299), mode="bilinear", align_corners=False)
        expected = inception[1](x * 2 - 1).softmax(1).numpy()
    found = feature(IMAGES)
    assert feature.kind == "probabilities" and found.shape == (5, 1000)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_the_blip_embedding_is_its_image_towers(params, blip):
    feature = features.FEATURES["blip_vqa"](params, "cpu")
    x = BlipImageProcessor.from_pretrained(blip[0])(pillow(IMAGES), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = blip[1].vision_model(x).pooler_output.numpy()
    assert feature.kind == "embedding" and expected.shape == (5, 32)
    np.testing.assert_allclose(feature(IMAGES), expected, atol=1e-5)


def test_blip_without_a_weight_is_refused(params, blip, tmp_path):
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((blip[0] / file).read_bytes())
    weights = load_file(blip[0] / "model.safetensors")
    del weights["vision_model.post_layernorm.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match="1 are missing, such as post_layernorm.bias"):
        features.FEATURES["blip_vqa"](params | {"blip_path": str(tmp_path)}, "cpu")


def test_blip_of_another_size_is_refused(params, blip, tmp_path):
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((blip[0] / file).read_bytes())
    weights = load_file(blip[0] / "model.safetensors")
    save_file(weights | {"vision_model.post_layernorm.bias": torch.zeros(7)}, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match="weights of another network: size mismatch for post_layernorm.bias"):
        features.FEATURES["blip_vqa"](params | {"blip_path": str(tmp_path)}, "cpu")


@pytest.mark.parametrize("name", ["clip_b32", "clip_l14"])
def test_the_clip_embedding_is_open_clips_with_quickgelu(name, params, clip):
    feature = features.FEATURES[name](params, "cpu")
    found = feature(IMAGES)
    assert feature.kind == "embedding"
    np.testing.assert_allclose(found, clip_by_hand(clip[1], IMAGES), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    other = open_clip.CLIP(**TINY_CLIP, quick_gelu=False).eval()
    other.load_state_dict(clip[1].state_dict())
    assert np.abs(found - clip_by_hand(other, IMAGES)).max() > 1e-4


def test_clip_without_a_configuration_is_of_the_known_architecture(params, clip, tmp_path, monkeypatch):
    (tmp_path / "open_clip_model.safetensors").write_bytes((clip[0] / "open_clip_model.safetensors").read_bytes())
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-clip", TINY_CLIP)
    monkeypatch.setitem(features.ARCHITECTURES, "clip_b32", "tiny-clip")
    feature = features.FEATURES["clip_b32"](params | {"clip_b32_path": str(tmp_path)}, "cpu")
    np.testing.assert_allclose(feature(IMAGES), clip_by_hand(clip[1], IMAGES), atol=1e-5)


@pytest.mark.parametrize(("name", "layers"), [("clip_b32", 12), ("clip_l14", 24)])
def test_the_known_architectures_have_quickgelu(name, layers):
    config = open_clip.get_model_config(features.ARCHITECTURES[name])
    assert config["quick_gelu"] and config["vision_cfg"]["layers"] == layers


def test_the_aesthetic_score_is_a_linear_head_over_clip(params, clip):
    feature = features.FEATURES["laion_aesthetic"](params, "cpu")
    assert feature.kind == "score"
    np.testing.assert_allclose(feature(IMAGES), clip_by_hand(clip[1], IMAGES) @ np.linspace(-1, 1, 16) + 5, atol=1e-5)


def test_a_head_for_another_clip_is_refused(params, clip, tmp_path, monkeypatch):
    head = tmp_path / "head.pth"
    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, head)
    part = dataclasses.replace(pretrained.PARTS["aesthetic"], pin=hashlib.sha256(head.read_bytes()).hexdigest())
    monkeypatch.setitem(pretrained.PARTS, "aesthetic", part)
    with pytest.raises(Refused, match="clip_l14_path: embeddings of length 16: must be 768"):
        features.FEATURES["laion_aesthetic"](params, "cpu")(IMAGES)


def test_grey_is_not_colourful():
    grey = np.repeat(IMAGES[:, :1], 3, axis=1)
    np.testing.assert_array_equal(features.FEATURES["colourfulness"]({}, "cpu")(grey), np.zeros(5, np.float32))


def test_colourfulness_of_a_red_and_a_blue_pixel():
    image = np.zeros((1, 3, 1, 2), np.uint8)
    image[0, 0, 0, 0], image[0, 2, 0, 1] = 200, 100
    # rg = 200, 0 and yb = 100, -100: deviations 100 and 100, means 100 and 0.
    expected = 100 * np.sqrt(2) + 0.3 * 100
    feature = features.FEATURES["colourfulness"]({}, "cpu")
    assert feature.kind == "score"
    np.testing.assert_allclose(feature(image), [expected], rtol=1e-6)


def test_pooled_pixels_are_the_means_of_cells():
    image = np.zeros((1, 3, 16, 32), np.uint8)
    image[0, 1, :2, 4:8] = 255  # the second cell of the first row, green
    feature = features.FEATURES["pooled_pixels"]({}, "cpu")
    assert feature.kind == "embedding"
    np.testing.assert_array_equal(feature(image), np.eye(192, dtype=np.float32)[[64 + 1]])


def test_pooled_pixels_of_unequal_cells_are_refused():
    with pytest.raises(Refused, match="30 x 32 pixels"):
        features.FEATURES["pooled_pixels"]({}, "cpu")(np.zeros((1, 3, 30, 32), np.uint8))


@pytest.mark.parametrize("images", [IMAGES / 255, IMAGES[0], IMAGES[:, :2]])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(Refused, match=r"must be uint8 \[n, 1 or 3, H, W\]"):
        features.FEATURES["colourfulness"]({}, "cpu")(images)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in features.FEATURES if name not in WITHOUT_WEIGHTS])
def test_a_gpu_computes_the_same(name, params):
    cpu, gpu = (features.FEATURES[name](params, device)(IMAGES) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu, cpu, atol=1e-3)
