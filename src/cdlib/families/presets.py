"""The models by name: which family, and the configuration of its network. No torch is needed to read them."""

_SMALL = dict(layers_per_block=1, attention_head_dim=None, add_attention=False, norm_num_groups=4)
PRESETS = {
    "unet_8x8": dict(  # 118,289 parameters: one step of 64 digits takes about 30 ms on one core
        family="pixel", sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), mid_block_type=None,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), **_SMALL,
    ),
    "ddpm_32x32": dict(  # 35,746,307 parameters: Ho et al. 2020, as in the paper's CIFAR-20 setting
        family="pixel", sample_size=32, in_channels=3, out_channels=3, block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"), layers_per_block=2,
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None, norm_num_groups=32, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
    ),
}  # fmt: skip
