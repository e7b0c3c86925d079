"""The autoencoders of images: every branch of their constructors, on tiny models."""

_TWO = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "sample_size": 16,
}
_THREE = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 8),
    "norm_num_groups": 4,
    "layers_per_block": 2,
    "sample_size": 32,
}
_TINY = {
    "encoder_block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "num_encoder_blocks": (1, 2, 1, 1),
    "num_decoder_blocks": (1, 1, 2, 1),
}


def _kl(config: dict, image: tuple[int, ...], latents: tuple[int, ...], **more) -> dict:
    return {
        "class": "AutoencoderKL",
        "config": config,
        "inputs": {"x": image, "z": latents, "sample": image},
        "calls": ("encode", "decode", "__call__"),
        "arguments": {"encode": ("x",), "decode": ("z",), "__call__": ("sample",)},
        **more,
    }


def _tiny(config: dict, image: tuple[int, ...], **more) -> dict:
    return {
        "class": "AutoencoderTiny",
        "config": config,
        "inputs": {"x": image, "sample": image},
        "calls": ("encode", "__call__"),
        "arguments": {"encode": ("x",), "__call__": ("sample",)},
        **more,
    }


def _tiny_decode(config: dict, latents: tuple[int, ...], **more) -> dict:
    return {"class": "AutoencoderTiny", "config": config, "inputs": {"x": latents}, "calls": ("decode",), **more}


_ASYM = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "down_block_out_channels": (8, 16),
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "up_block_out_channels": (8, 16),
    "norm_num_groups": 4,
}
_ASYM_FOUR = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"),
    "down_block_out_channels": (4, 8, 8, 12),
    "layers_per_down_block": 2,
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
    "up_block_out_channels": (8, 16, 24, 24),
    "layers_per_up_block": 3,
    "norm_num_groups": 4,
    "latent_channels": 3,
    "act_fn": "relu",
    "scaling_factor": 0.5,
}
_CONSISTENCY = {
    "encoder_block_out_channels": (8, 16),
    "encoder_down_block_types": ("DownEncoderBlock2D",) * 2,
    "encoder_layers_per_block": 1,
    "encoder_norm_num_groups": 4,
    "decoder_block_out_channels": (8, 16),
    "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
    "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
    "decoder_layers_per_block": 1,
    "decoder_norm_num_groups": 4,
    "sample_size": 16,
}


def _asym(config: dict, image: tuple[int, ...], latents: tuple[int, ...], mask: tuple, **more) -> dict:
    return {
        "class": "AsymmetricAutoencoderKL",
        "config": config,
        "inputs": {"x": image, "z": latents, "sample": image, "image": image, "mask": mask},
        "calls": ("encode", "decode", "__call__"),
        "arguments": {"encode": ("x",), "decode": ("z", "image", "mask"), "__call__": ("sample", "mask")},
        **more,
    }


def _consistency(config: dict, image: tuple[int, ...], latents: tuple[int, ...], **more) -> dict:
    return {
        "class": "ConsistencyDecoderVAE",
        "config": config,
        "inputs": {"x": image, "z": latents, "sample": image, "generator": ("seed", 3)},
        "calls": ("encode", "decode", "__call__"),
        "arguments": {"encode": ("x",), "decode": ("z", "generator"), "__call__": ("sample", "generator")},
        **more,
    }


CASES = {
    "asym": _asym(_ASYM, (2, 3, 16, 12), (2, 4, 8, 6), ("uniform", (2, 1, 16, 12)), graph=True, float16=True),
    "asym_no_mask": {
        **_asym(_ASYM, (1, 3, 16, 16), (1, 4, 8, 8), None, graph=True),
        "arguments": {"encode": ("x",), "decode": ("z", "image"), "__call__": ("sample",)},
    },
    "asym_four_blocks": _asym(_ASYM_FOUR, (2, 3, 32, 16), (2, 3, 4, 2), ("uniform", (1, 1, 32, 16)), graph=True),
    "asym_one_block": _asym(
        {"down_block_out_channels": (8,), "up_block_out_channels": (16,), "norm_num_groups": 8, "in_channels": 2, "out_channels": 2,
         "act_fn": "mish"},
        (1, 2, 9, 10), (1, 4, 9, 10), ("uniform", (1, 1, 9, 10)),
    ),
    "asym_three_blocks_and_encoder_of_two": {
        **_asym(
            {**_ASYM, "up_block_types": ("UpDecoderBlock2D",) * 3, "up_block_out_channels": (8, 16, 16), "act_fn": "gelu"},
            (1, 3, 16, 16), (1, 4, 4, 4), ("uniform", (1, 1, 16, 16)),
        ),
        "calls": ("encode", "decode"),
    },
    "consistency": _consistency(_CONSISTENCY, (2, 3, 16, 12), (2, 4, 8, 6), graph=True, float16=True),
    "consistency_options": _consistency(
        {
            **_CONSISTENCY, "encoder_double_z": False, "encoder_out_channels": 8, "encoder_act_fn": "mish", "scaling_factor": 0.9,
            "decoder_add_attention": True, "decoder_resnet_time_scale_shift": "default", "decoder_out_channels": 3,
            "decoder_time_embedding_type": "positional", "decoder_norm_eps": 1e-3, "decoder_down_block_types": ("DownBlock2D",) * 2,
            "decoder_up_block_types": ("UpBlock2D",) * 2, "decoder_downsample_padding": 0,
        },
        (1, 3, 16, 16), (1, 4, 6, 8), graph=True,
    ),
    "kl": _kl(_TWO, (2, 3, 16, 16), (2, 4, 8, 8), graph=True, float16=True),
    "kl_three_blocks": _kl({**_THREE, "latent_channels": 3}, (1, 3, 24, 16), (1, 3, 6, 4), graph=True),
    "kl_one_block": _kl({"block_out_channels": (16,), "norm_num_groups": 8}, (1, 3, 8, 10), (1, 4, 8, 10)),
    "kl_odd_size": _kl(_TWO, (1, 3, 15, 13), (1, 4, 5, 7)),
    "kl_no_quant_convs": _kl(
        {
            **_TWO, "use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16, "shift_factor": 0.0609,
            "scaling_factor": 1.5305, "force_upcast": False,
        },
        (1, 3, 16, 16),
        (1, 16, 8, 8),
        graph=True,
    ),
    "kl_no_mid_attention": _kl({**_TWO, "mid_block_add_attention": False, "act_fn": "relu"}, (1, 3, 16, 16), (1, 4, 8, 8), graph=True),
    "kl_mish": _kl({**_TWO, "act_fn": "mish", "norm_num_groups": 2, "in_channels": 1, "out_channels": 2}, (1, 1, 16, 16), (1, 4, 8, 8)),
    "kl_gelu": _kl({**_TWO, "act_fn": "gelu", "norm_num_groups": 8, "layers_per_block": 3}, (1, 3, 16, 16), (1, 4, 8, 8)),
    "kl_block_attention": _kl(
        {
            **_TWO, "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), "latents_mean": [0.1, 0.2, 0.3, 0.4],
            "latents_std": [1.0, 1.1, 1.2, 1.3],
        },
        (1, 3, 16, 16),
        (1, 4, 8, 8),
        graph=True,
    ),
    "tiny": _tiny(_TINY, (2, 3, 32, 32), graph=True),
    "tiny_decode": _tiny_decode(_TINY, (2, 4, 4, 4), graph=True, float16=True),
    "tiny_odd_size": _tiny(_TINY, (1, 3, 29, 18)),
    "tiny_silu_magnitude": _tiny(
        {**_TINY, "act_fn": "silu", "latent_magnitude": 2, "latent_shift": 0.4, "latent_channels": 16, "scaling_factor": 0.9,
         "shift_factor": 0.1, "force_upcast": True},
        (1, 3, 16, 24),
    ),
    "tiny_channels": _tiny(
        {"encoder_block_out_channels": (4, 4), "num_encoder_blocks": (2, 1), "decoder_block_out_channels": (6, 6),
         "num_decoder_blocks": (1, 2), "in_channels": 1, "out_channels": 2, "act_fn": "gelu"},
        (1, 1, 10, 12),
    ),
    "tiny_bilinear": _tiny_decode({**_TINY, "upsample_fn": "bilinear", "act_fn": "mish"}, (1, 4, 3, 5)),
    "tiny_factor_three": _tiny_decode({**_TINY, "upsampling_scaling_factor": 3}, (1, 4, 2, 3)),
}  # fmt: skip
