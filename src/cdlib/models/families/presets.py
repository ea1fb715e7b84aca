"""The models by name: the family, its network, and what of it is frozen. No torch is needed to read them.

frozen      a pretrained part (pretrained.PARTS), or one that the run makes itself (bases.BASES)
network     arguments of diffusers' network; of text_to_image those of the frozen one, for counting and timing without it
scale       pixels of an image for one of its latent, a side
prediction_type    v_prediction (Salimans & Ho 2022) of the small ones for own images, which draw noise after so few steps else
minutes     of one coalition's training and sampling by procedure: Table 2 of the paper (RTX 6000, A40 or A100)
"""

_SMALL = dict(layers_per_block=1, attention_head_dim=None, add_attention=False, norm_num_groups=4)
PRESETS = {
    "unet_8x8": {  # 118,289 parameters: one step of 64 digits takes about 30 ms on one core
        "family": "pixel",
        "network": dict(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), mid_block_type=None,
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), **_SMALL,
        ),
    },
    "unet_16x16": {  # 463,731 parameters: for one's own images on a laptop; one step of 32 takes about 60 ms on one core
        "family": "pixel", "prediction_type": "v_prediction",
        "network": dict(
            sample_size=16, in_channels=3, out_channels=3, block_out_channels=(16, 32, 64), mid_block_type=None,
            down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3, **_SMALL,
        ),
    },
    "unet_32x32": {  # 455,707 parameters: the same for images twice as large, in two to three times the time
        "family": "pixel", "prediction_type": "v_prediction",
        "network": dict(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=(8, 16, 32, 64), mid_block_type=None,
            down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4, **_SMALL,
        ),
    },
    "ddpm_32x32": {  # 35,746,307 parameters: Ho et al. 2020, as in the paper's CIFAR-20 setting
        "family": "pixel",
        "network": dict(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=(128, 256, 256, 256), layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None, norm_num_groups=32, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        ),
        "minutes": {"retrain": (77.4, 20.8), "finetune": (6.06, 18.9), "sparse_finetune": (4.37, 14.0)},
    },
    "ldm_8x8": {  # for faces of 32 x 32 pixels: latents 8 x 8 x 3, attention in heads of 8 as the large one has heads of 32
        "family": "latent",
        "frozen": "faces_vqvae",
        "scale": 4,
        "network": dict(
            sample_size=8, in_channels=3, out_channels=3, block_out_channels=(24, 48), layers_per_block=1, attention_head_dim=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4, mid_block_type=None,
        ),
    },
    "ldm_64x64": {  # 274,056,163 parameters: Rombach et al. 2022, as in the paper's CelebA-HQ setting
        "family": "latent",
        "frozen": "vqvae",
        "scale": 4,
        "network": dict(
            sample_size=64, in_channels=3, out_channels=3, block_out_channels=(224, 448, 672, 896), layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=32, norm_num_groups=32, norm_eps=1e-5, downsample_padding=1, flip_sin_to_cos=True, freq_shift=0,
        ),
        "minutes": {"retrain": (213.4, 26.5), "finetune": (17.5, 27.0), "sparse_finetune": (11.0, 11.9)},
    },
    "painter_lora": {  # for canvases of 32 x 32 pixels: LoRA on a small Stable Diffusion that the run trains first
        "family": "text_to_image", "frozen": "painters_base", "rank": 16, "prompt": "a painting", "guidance": 1.0, "scale": 4,
        "network": dict(
            sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=32, norm_num_groups=8, layers_per_block=1,
            block_out_channels=(32, 64), attention_head_dim=4, mid_block_type="UNetMidBlock2DCrossAttn",
            down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        ),
    },
    "minisd_lora": {  # 51,019,776 parameters: rank 256 on q, k, v and out of all attention, as in the paper's ArtBench setting
        "family": "text_to_image", "frozen": "minisd", "rank": 256, "prompt": "a Post-Impressionist painting", "guidance": 7.5,
        "scale": 8,  # guidance as released: the paper does not say
        "network": dict(sample_size=32, cross_attention_dim=768, attention_head_dim=8),  # else as diffusers has it: SD v1's
        "minutes": {"retrain": (190.6, 6.4), "finetune": (4.4, 6.4), "sparse_finetune": (4.5, 6.1)},
    },
}  # fmt: skip
