"""The frozen parts that the laptop runs make themselves, once, where the paper's settings take pretrained ones.

    faces_vqvae      VQ-VAE of other people's drawn faces, 32 x 32 -> latents 8 x 8 x 3 (f = 4)
    painters_base    a small Stable Diffusion of other painters' canvases: autoencoder, text encoder, tokenizer, U-Net

Both are saved in diffusers' layout, and read by the code that reads the pretrained ones.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel, VQModel
from diffusers.utils import logging
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cdlib.base import disk, seeds
from cdlib.base.machine import one_thread
from cdlib.data.datasets import faces, painters
from cdlib.models.families.presets import PRESETS

logging.disable_progress_bar()
OTHERS = 7_000_000  # seed of the people and painters who are no contributors
N_IMAGES, BATCH, LR = 960, 32, 3e-3
AUTOENCODER_STEPS, UNET_STEPS = 500, 500
PROMPT_LENGTH = 16


def _made(purpose: str, model_class, **config):
    """A model with the initial weights that belong to a purpose."""
    torch.manual_seed(seeds.number(0, purpose))
    return model_class(**config)


def _fit(network, images, loss: Callable, steps: int, progress: Callable):
    """Minimise loss(batch) by Adam, over batches drawn with replacement."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    network.train()
    for _ in range(steps):
        loss(images[torch.randint(0, len(images), (BATCH,))]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress()
    network.eval()


def _scaled(images) -> torch.Tensor:
    return torch.as_tensor(images).float() / 127.5 - 1


_BLOCKS = dict(block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8, sample_size=32)
_DOWN, _UP = ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3


def faces_vqvae(folder: Path, progress: Callable):
    """Train and save the VQ-VAE; its latents have mean square 1, as a U-Net likes them. Writes folder/vqvae."""
    images = _scaled(faces.load({"n_contributors": 60, "assignment_seed": OTHERS})[0])
    vae = _made("vqvae", VQModel, down_block_types=_DOWN, up_block_types=_UP, latent_channels=3, num_vq_embeddings=512, **_BLOCKS)

    def loss(x):
        quantised, commitment, _ = vae.quantize(vae.encode(x).latents)
        return F.mse_loss(vae.decoder(vae.post_quant_conv(quantised)), x) + commitment

    _fit(vae, images, loss, AUTOENCODER_STEPS, progress)
    with torch.no_grad():  # the same function, in other units
        scale = vae.encode(images[:256]).latents.pow(2).mean().sqrt()
        for part in (vae.quant_conv.weight, vae.quant_conv.bias, vae.quantize.embedding.weight):
            part /= scale
        vae.post_quant_conv.weight *= scale
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(folder / "vqvae")


def painters_base(folder: Path, progress: Callable):
    """Train and save a small Stable Diffusion. Writes folder in the layout of a diffusers pipeline.

    The autoencoder sees canvases from grey to vivid, as a pretrained one has; the U-Net only those of moderate painters.
    """
    images = _scaled(painters.others(N_IMAGES, OTHERS, painters.VIVIDNESS))
    vae = _made("vae", AutoencoderKL, down_block_types=_DOWN, up_block_types=_UP, latent_channels=4, **_BLOCKS)

    def loss(x):
        latent = vae.encode(x).latent_dist
        return F.mse_loss(vae.decode(latent.sample()).sample, x) + 1e-4 * latent.kl().mean() / x[0].numel()

    _fit(vae, images, loss, AUTOENCODER_STEPS, progress)
    moderate = _scaled(painters.others(N_IMAGES, OTHERS))
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in moderate.split(64)])
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    tokenizer, encoder = _text()
    solver = PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1)
    unet = _made("unet", UNet2DConditionModel, **PRESETS["painter_lora"]["network"])
    tokens = tokenizer(
        "a painting", padding="max_length", max_length=PROMPT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        prompt = encoder(tokens)[0]

    def noise_loss(x):
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        return F.mse_loss(unet(solver.add_noise(x, noise, t), t, prompt.expand(len(x), -1, -1)).sample, noise)

    _fit(unet, latents * vae.config.scaling_factor, noise_loss, UNET_STEPS, progress)
    for name, part in dict(vae=vae, unet=unet, text_encoder=encoder, tokenizer=tokenizer, scheduler=solver).items():
        part.save_pretrained(folder / name)


def _text() -> tuple[CLIPTokenizer, CLIPTextModel]:
    """A tokenizer of single letters, and a text encoder with random weights: it has but one prompt to tell from none."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=PROMPT_LENGTH)
    first, last = len(words) - 2, len(words) - 1
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=PROMPT_LENGTH, bos_token_id=first, eos_token_id=last, pad_token_id=last,
    )  # fmt: skip
    return tokenizer, _made("text encoder", CLIPTextModel, config=config).eval()


BASES = {"faces_vqvae": (faces_vqvae, AUTOENCODER_STEPS), "painters_base": (painters_base, AUTOENCODER_STEPS + UNET_STEPS)}


def make(name: str, folder: Path, progress: Callable):
    """Train one of BASES and save it; the folder is there whole or not at all. `progress` is called after each step."""
    unfinished = disk.beside(folder)
    try:
        with one_thread(), torch.random.fork_rng(devices=[]):
            BASES[name][0](unfinished, progress)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another run on this folder was first: the same
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
