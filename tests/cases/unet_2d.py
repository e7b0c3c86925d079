"""`UNet2DModel`: one case for each kind of stage and for each branch of the constructor."""

# fmt: off
_SMALL = {
    "block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1, "attention_head_dim": 8, "sample_size": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
_INPUTS = {"sample": (2, 3, 8, 8), "timestep": 601}


def _case(config=None, inputs=None, **flags):
    return {"class": "UNet2DModel", "config": {**_SMALL, **(config or {})}, "inputs": {**_INPUTS, **(inputs or {})}, **flags}


def _stages(first, second, **config):
    """Two stages of these kinds down, and their counterparts up."""
    up = [kind.replace("Down", "Up").replace("down", "up") for kind in (second, first)]
    return {"down_block_types": (first, second), "up_block_types": tuple(up), **config}


# Attention there has 32 groups.
_SKIP = {"block_out_channels": (32, 64, 64), "norm_num_groups": None, "layers_per_block": 2}
_FOURIER = {"time_embedding_type": "fourier"}
_SIGMAS = {"timestep": ("array", [0.7, 12.5])}

CASES = {
    # Published families, in small
    "ddpm": _case(  # google/ddpm-cifar10-32
        {
            "block_out_channels": (16, 32, 32), "layers_per_block": 2, "downsample_padding": 0, "freq_shift": 1, "flip_sin_to_cos": False,
            "attention_head_dim": None, "norm_eps": 1e-6, "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        },
        {"sample": (2, 3, 16, 16)}, graph=True, float16=True,
    ),
    "ncsnpp": _case(  # google/ncsnpp-celebahq-256
        {
            **_SKIP, **_FOURIER, "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
            "up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"), "mid_block_scale_factor": 1.41421356,
            "attention_head_dim": None,
        },
        _SIGMAS, graph=True, float16=True,
    ),
    "consistency": _case(  # openai/diffusers-cd_imagenet64_l2
        _stages(
            "ResnetDownsampleBlock2D", "AttnDownBlock2D", downsample_type="resnet", upsample_type="resnet", num_class_embeds=10,
            resnet_time_scale_shift="scale_shift", attn_norm_num_groups=4,
        ),
        {"class_labels": ("int", (2,), 10)}, graph=True, float16=True,
    ),
    # Stages
    "attention_resampled_by_resnets": _case(
        _stages("AttnDownBlock2D", "DownBlock2D", downsample_type="resnet", upsample_type="resnet")
    ),
    "attention_resampled_by_default": _case(_stages("AttnDownBlock2D", "DownBlock2D", downsample_type=None, upsample_type=None)),
    "attention_everywhere": _case(_stages("AttnDownBlock2D", "AttnDownBlock2D", attention_head_dim=4, layers_per_block=2)),
    "skip": _case(_stages("SkipDownBlock2D", "SkipDownBlock2D")),
    "skip_first": _case(_stages("SkipDownBlock2D", "DownBlock2D")),
    "skip_attention": _case(_stages("AttnSkipDownBlock2D", "AttnSkipDownBlock2D", block_out_channels=(32, 64), attention_head_dim=16)),
    "skip_attention_narrowing": _case(_stages("AttnSkipDownBlock2D", "SkipDownBlock2D", block_out_channels=(32, 16))),
    "skip_scale_shift": _case(_stages("SkipDownBlock2D", "DownBlock2D", resnet_time_scale_shift="scale_shift", act_fn="mish")),
    "k_diffusion": _case(_stages("KDownBlock2D", "KDownBlock2D", block_out_channels=(32, 64), norm_num_groups=None, layers_per_block=2)),
    "resnets": _case(_stages("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", mid_block_scale_factor=2.0)),
    "old_names": _case(_stages("UNetResAttnDownBlock2D", "UNetResDownBlock2D")),
    "no_middle": _case({"mid_block_type": None}),
    "middle_without_attention": _case({"add_attention": False}),
    "middle_groups": _case({"attn_norm_num_groups": 2}),
    "middle_without_norm": _case({"resnet_time_scale_shift": "scale_shift"}),
    "one_head": _case({"attention_head_dim": None}),
    "one_stage": _case(
        {"block_out_channels": (16,), "down_block_types": ("AttnDownBlock2D",), "up_block_types": ("AttnUpBlock2D",)},
        {"sample": (1, 3, 7, 5)},
    ),
    # Branches of the constructor
    "channels": _case({"in_channels": 6, "out_channels": 2, "center_input_sample": True}, {"sample": (1, 6, 8, 12)}),
    "dropout_activation": _case({"dropout": 0.3, "act_fn": "gelu", "norm_eps": 1e-3}),
    "padding_at_the_end": _case({"downsample_padding": 0}),
    "time_sine_first": _case({"flip_sin_to_cos": False, "freq_shift": 1, "time_embedding_dim": 48}, {"timestep": ("array", [999, 1])}),
    "time_fourier": _case(_FOURIER, _SIGMAS),
    "time_learned": _case({"time_embedding_type": "learned", "num_train_timesteps": 20}, {"timestep": 19}, graph=True),
    "class_table": _case({"num_class_embeds": 10}, {"class_labels": ("int", (2,), 10)}),
    "class_timestep": _case({"class_embed_type": "timestep"}, {"class_labels": ("array", [250.0, 17.0])}),
    "class_timestep_fourier": _case({"class_embed_type": "timestep", **_FOURIER}, {"class_labels": ("array", [250.0, 1.5]), **_SIGMAS}),
    "class_timestep_learned": _case(
        {"class_embed_type": "timestep", "time_embedding_type": "learned", "num_train_timesteps": 20},
        {"class_labels": ("int", (2,), 20), "timestep": ("array", [3, 18])},
    ),
    "class_identity": _case({"class_embed_type": "identity"}, {"class_labels": (2, 64)}),
}
# fmt: on
