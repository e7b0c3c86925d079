"""`UNet2DConditionModel`: one case for each kind of stage and for each branch of the constructor."""

# fmt: off
_SMALL = {
    "block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_INPUTS = {"sample": (2, 4, 8, 8), "timestep": 601, "encoder_hidden_states": (2, 5, 16)}
# Two ones and a zero at different places, and a row that keeps all.
_MASK = ("array", [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def _case(config=None, inputs=None, **flags):
    return {
        "class": "UNet2DConditionModel", "config": {**_SMALL, **(config or {})}, "inputs": {**_INPUTS, **(inputs or {})}, **flags,
    }


def _stages(kind, **config):
    """A stage of this kind next to a plain one, with its counterpart on the way up."""
    return {"down_block_types": (f"{kind}DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", f"{kind}UpBlock2D"), **config}


_RESNET = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
# The way up begins with a stage whose input, output and time embedding have equally many channels.
_K = {
    "block_out_channels": (32, 64, 64), "norm_num_groups": None, "act_fn": "gelu", "mid_block_type": None, "attention_head_dim": 16,
    "time_embedding_dim": 64, "down_block_types": ("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"), "layers_per_block": 2,
    "up_block_types": ("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
}
_SDXL = {
    "block_out_channels": (16, 32, 32), "layers_per_block": 2, "attention_head_dim": (2, 4, 8), "transformer_layers_per_block": (1, 1, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "use_linear_projection": True,
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "upcast_attention": None,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 60,
}
_IMAGE_EMBEDS = {"added_cond_kwargs": {"image_embeds": (2, 16)}}

CASES = {
    # Published families, in small
    "sd15": _case(
        {
            "block_out_channels": (16, 32, 32, 32), "layers_per_block": 2,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        },
        {"sample": (2, 4, 16, 16)}, graph=True, float16=True,
    ),
    "sd21": _case(
        {
            "block_out_channels": (16, 32, 32), "attention_head_dim": (2, 4, 8), "use_linear_projection": True, "upcast_attention": True,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        },
        {"timestep": ("array", [999, 1])},
    ),
    "sdxl": _case(
        _SDXL,
        {"added_cond_kwargs": {"text_embeds": (2, 12), "time_ids": ("array", [[1024.0, 1024, 0, 0, 1024, 768]] * 2)}},
        graph=True, float16=True,
    ),
    "nested_depths": _case(
        {
            **_SDXL, "layers_per_block": (1, 2, 1), "transformer_layers_per_block": [1, [2, 1], [1]],
            "reverse_transformer_layers_per_block": [[1, 2], [1, 1, 2], 1],
        },
        {"added_cond_kwargs": {"text_embeds": (2, 12), "time_ids": ("array", [[64.0, 64, 0, 0, 64, 64]] * 2)}},
    ),
    "inpainting": _case({"in_channels": 9, "out_channels": 3}, {"sample": (1, 9, 8, 12), "encoder_hidden_states": (1, 7, 16)}),
    "unclip": _case({"class_embed_type": "projection", "projection_class_embeddings_input_dim": 24}, {"class_labels": (2, 24)}),
    "kandinsky22": _case(
        {
            **_RESNET, "resnet_time_scale_shift": "scale_shift", "encoder_hid_dim": 16, "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image", "attention_head_dim": 8, "out_channels": 8,
        },
        {"encoder_hidden_states": None, **_IMAGE_EMBEDS},
    ),
    "kandinsky22_controlnet": _case(
        {
            **_RESNET, "resnet_time_scale_shift": "scale_shift", "encoder_hid_dim": 16, "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image_hint", "in_channels": 8,
        },
        {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": (2, 16), "hint": (2, 3, 64, 64)}}, graph=True,
    ),
    "kandinsky21": _case(
        {**_RESNET, "encoder_hid_dim": 24, "encoder_hid_dim_type": "text_image_proj", "addition_embed_type": "text_image"},
        {"encoder_hidden_states": (2, 5, 24), "added_cond_kwargs": {"image_embeds": (2, 16), "text_embeds": (2, 16)}},
    ),
    "deepfloyd_if": _case(
        {
            **_RESNET, "encoder_hid_dim": 24, "addition_embed_type": "text", "addition_embed_type_num_heads": 4, "act_fn": "gelu",
            "resnet_skip_time_act": True, "resnet_out_scale_factor": 1.41421, "mid_block_scale_factor": 1.41421, "time_embedding_dim": 32,
            "time_embedding_act_fn": "gelu", "cross_attention_norm": "group_norm", "timestep_post_act": "silu", "attention_head_dim": 8,
            "resnet_time_scale_shift": "scale_shift", "cross_attention_dim": 32,
        },
        {"encoder_hidden_states": (2, 5, 24), "encoder_attention_mask": _MASK}, graph=True,
    ),
    "deepfloyd_if_upscaler": _case(
        {
            **_RESNET, "class_embed_type": "timestep", "cross_attention_norm": "layer_norm", "only_cross_attention": (False, True),
            "mid_block_only_cross_attention": True, "block_out_channels": (16, 16),
        },
        {"class_labels": ("array", [250.0, 17.0])},
    ),
    "latent_upscaler": _case(
        {
            **_K, "time_embedding_type": "fourier", "time_cond_proj_dim": 12, "conv_in_kernel": 1, "conv_out_kernel": 1, "in_channels": 8,
            "out_channels": 5,
        },
        {"sample": (2, 8, 8, 8), "timestep": 1.25, "timestep_cond": (2, 12), "encoder_attention_mask": _MASK}, graph=True,
    ),
    # Stages
    "self_attention": _case(_stages("Attn", attention_head_dim=8), graph=True),
    "simple_cross_attention": _case(_stages("SimpleCrossAttn"), {"encoder_attention_mask": _MASK}),
    "simple_cross_attention_only": _case(_stages("SimpleCrossAttn", only_cross_attention=True)),
    "simple_cross_attention_reversed_heads": _case({**_RESNET, "attention_head_dim": (4, 8)}),
    "k_diffusion": _case(_K),
    "k_diffusion_one_layer_more": _case({**_K, "layers_per_block": 3, "attention_head_dim": 8}),
    "plain_middle": _case({"mid_block_type": "UNetMidBlock2D"}),
    "no_middle": _case({"mid_block_type": None}),
    "old_names": _case({"down_block_types": ("UNetResCrossAttnDownBlock2D", "UNetResDownBlock2D")}),
    # Branches of the constructor
    "only_cross_attention": _case({"only_cross_attention": True}),
    "only_cross_attention_some": _case({"only_cross_attention": (True, False), "mid_block_only_cross_attention": True}),
    "scale_shift": _case({"resnet_time_scale_shift": "scale_shift", "mid_block_scale_factor": 1.5}),
    "contexts": _case({"cross_attention_dim": (16, 16), "layers_per_block": (2, 1), "transformer_layers_per_block": (2, 1)}),
    "text_projection": _case({"encoder_hid_dim": 24}, {"encoder_hidden_states": (2, 5, 24)}),
    "class_table": _case({"num_class_embeds": 10}, {"class_labels": ("int", (2,), 10)}),
    "class_table_joined": _case({"num_class_embeds": 10, "class_embeddings_concat": True}, {"class_labels": ("int", (2,), 10)}),
    "class_identity": _case({"class_embed_type": "identity"}, {"class_labels": (2, 64)}),
    "class_linear": _case(
        {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 20, "class_embeddings_concat": True},
        {"class_labels": (2, 20)},
    ),
    "time_sine_first": _case({"flip_sin_to_cos": False, "freq_shift": 1, "center_input_sample": True, "time_embedding_dim": 48}),
    "time_fourier": _case({"time_embedding_type": "fourier", "flip_sin_to_cos": False}, {"timestep": 0.7}),
    "time_condition": _case({"time_cond_proj_dim": 8, "time_embedding_act_fn": "silu"}, {"timestep_cond": (2, 8)}),
    "kernels": _case({"conv_in_kernel": 5, "conv_out_kernel": 1, "act_fn": "mish", "norm_eps": 1e-3}),
    "padding_at_the_end": _case({"downsample_padding": 0, "act_fn": "relu"}),
    "gligen": _case(
        {"attention_type": "gated"},
        {
            "cross_attention_kwargs": {
                "gligen": {"boxes": ("uniform", (2, 3, 4)), "positive_embeddings": (2, 3, 16), "masks": ("int", (2, 3), 2)},
            },
        },
    ),
    "gligen_text_image": _case(
        {"attention_type": "gated-text-image"},
        {
            "cross_attention_kwargs": {
                "gligen": {
                    "boxes": ("uniform", (2, 3, 4)), "masks": ("int", (2, 3), 2), "phrases_masks": ("int", (2, 3), 2),
                    "image_masks": ("int", (2, 3), 2), "phrases_embeddings": (2, 3, 16), "image_embeddings": (2, 3, 16),
                },
            },
        },
    ),
    # Inputs
    "odd_size": _case(
        {
            "block_out_channels": (16, 16, 32), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        },
        {"sample": (1, 4, 9, 11), "encoder_hidden_states": (1, 5, 16)}, graph=True,
    ),
    "masks": _case({"norm_num_groups": 4}, {"encoder_attention_mask": _MASK}),
    "self_attention_mask": _case(
        {"mid_block_type": None}, {"sample": (2, 4, 4, 2), "attention_mask": ("bool", (2, 8)), "encoder_attention_mask": _MASK}
    ),
    "controlnet": _case(
        {},
        {
            "down_block_additional_residuals": [(2, 16, 8, 8), (2, 16, 8, 8), (2, 16, 4, 4), (2, 32, 4, 4)],
            "mid_block_additional_residual": (2, 32, 4, 4),
        },
        graph=True,
    ),
    "t2i_adapter": _case(
        {}, {"down_intrablock_additional_residuals": [(2, 16, 8, 8), (2, 32, 4, 4), (2, 32, 4, 4)]}
    ),
    "t2i_adapter_old_call": _case({}, {"down_block_additional_residuals": [(2, 16, 8, 8), (2, 32, 4, 4)]}),
    "t2i_adapter_plain_first": _case(
        {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")},
        {"down_intrablock_additional_residuals": [(2, 16, 4, 4), (2, 32, 4, 4)]},
    ),
}
# fmt: on
