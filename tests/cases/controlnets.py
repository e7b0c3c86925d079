"""`ControlNetModel` and `ControlNetUnionModel`: one case for each branch of the constructors and of the calls."""

# fmt: off
_SMALL = {
    "block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "conditioning_embedding_out_channels": (4, 8),
}
_INPUTS = {"sample": (2, 4, 8, 8), "timestep": 601, "encoder_hidden_states": (2, 5, 16), "controlnet_cond": (2, 3, 16, 16)}
_UNION = {
    **_SMALL, "addition_time_embed_dim": 8, "num_control_type": 3, "num_trans_channel": 16, "num_trans_head": 4, "num_proj_channel": 16,
}
_IMAGE = (2, 3, 16, 16)
_SDXL = {
    "block_out_channels": (16, 32, 32), "layers_per_block": 2, "attention_head_dim": (2, 4, 8), "transformer_layers_per_block": (1, 1, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "use_linear_projection": True,
    "upcast_attention": None, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 60,
}
_SDXL_INPUTS = {"added_cond_kwargs": {"text_embeds": (2, 12), "time_ids": ("array", [[1024.0, 1024, 0, 0, 1024, 768]] * 2)}}


def _case(config=None, inputs=None, **flags):
    return {"class": "ControlNetModel", "config": {**_SMALL, **(config or {})}, "inputs": {**_INPUTS, **(inputs or {})}, **flags}


def _union(kinds, config=None, inputs=None, **flags):
    """Given images of these kinds."""
    given = {
        "controlnet_cond": [_IMAGE] * len(kinds), "control_type_idx": kinds,
        "control_type": ("array", [[float(kind in kinds) for kind in range(3)]] * 2),
    }
    return {
        "class": "ControlNetUnionModel", "config": {**_UNION, **(config or {})}, "inputs": {**_INPUTS, **given, **(inputs or {})}, **flags,
    }


CASES = {
    # Published families, in small
    "sd15": _case(
        {
            "block_out_channels": (16, 32, 32, 32), "layers_per_block": 2, "conditioning_embedding_out_channels": (16, 32, 96, 256),
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        },
        {"controlnet_cond": (2, 3, 64, 64)}, graph=True, float16=True,
    ),
    "sd21": _case(
        {
            "block_out_channels": (16, 32, 32), "attention_head_dim": (2, 4, 8), "use_linear_projection": True, "upcast_attention": True,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        },
        {"timestep": ("array", [999, 1])},
    ),
    "sdxl": _case(_SDXL, _SDXL_INPUTS, graph=True, float16=True),
    "sdxl_small": _case(  # diffusers/controlnet-canny-sdxl-1.0-small: no transformer but in the middle, or none
        {
            **_SDXL, "down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": 1,
        },
        _SDXL_INPUTS,
    ),
    # Stages
    "self_attention": _case(
        {"down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D"), "num_attention_heads": (2, 8), "attention_head_dim": (4, None)}
    ),
    "resnets": _case({"down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), "attention_head_dim": 8}),
    "nested_depths": _case({"transformer_layers_per_block": [[2, 1], 1], "layers_per_block": 2}),
    # Branches of the constructor
    "bgr": _case({"controlnet_conditioning_channel_order": "bgr"}, graph=True),
    "condition": _case(
        {"conditioning_channels": 5, "conditioning_embedding_out_channels": (6, 4, 8), "in_channels": 9},
        {"sample": (2, 9, 8, 8), "controlnet_cond": (2, 5, 32, 32)},
    ),
    "only_cross_attention": _case({"only_cross_attention": True}),
    "only_cross_attention_some": _case({"only_cross_attention": (True, False)}),
    "scale_shift": _case({"resnet_time_scale_shift": "scale_shift", "mid_block_scale_factor": 1.5, "norm_num_groups": 4}),
    "activation": _case({"act_fn": "mish", "norm_eps": 1e-3, "downsample_padding": 0}),
    "time_sine_first": _case({"flip_sin_to_cos": False, "freq_shift": 1}),
    "class_table": _case({"num_class_embeds": 10}, {"class_labels": ("int", (2,), 10)}),
    "class_timestep": _case({"class_embed_type": "timestep", "act_fn": "gelu"}, {"class_labels": ("array", [250.0, 17.0])}),
    "class_identity": _case({"class_embed_type": "identity"}, {"class_labels": (2, 64)}),
    "class_projection": _case({"class_embed_type": "projection", "projection_class_embeddings_input_dim": 24}, {"class_labels": (2, 24)}),
    "added_text": _case({"addition_embed_type": "text", "addition_embed_type_num_heads": 4}),
    "added_text_image": _case({"addition_embed_type": "text_image"}),
    "text_projection": _case({"encoder_hid_dim": 24}),
    "text_image_projection": _case({"encoder_hid_dim": 24, "encoder_hid_dim_type": "text_image_proj"}),
    "pooled": _case({"global_pool_conditions": True}, {"conditioning_scale": 0.5}, graph=True),
    "pooled_guess": _case({"global_pool_conditions": True}, {"guess_mode": True}),
    # Inputs
    "scaled": _case({}, {"conditioning_scale": 0.3}, float16=True),
    "guess": _case({}, {"guess_mode": True, "conditioning_scale": 1.7}, graph=True, float16=True),
    "one_image_for_all": _case({}, {"controlnet_cond": (1, 3, 16, 16)}),
    "odd_size": _case({}, {"sample": (1, 4, 9, 11), "encoder_hidden_states": (1, 5, 16), "controlnet_cond": (1, 3, 17, 22)}),
    "self_attention_mask": _case(
        {"mid_block_type": "UNetMidBlock2D"},
        {"sample": (2, 4, 4, 2), "controlnet_cond": (2, 3, 8, 4), "attention_mask": ("bool", (2, 8))},
    ),
    # Unions
    "union": _union(
        [0, 2],
        {**_SDXL, "conditioning_embedding_out_channels": (48, 96, 192, 384)},
        {**_SDXL_INPUTS, "controlnet_cond": [(2, 3, 64, 64)] * 2}, graph=True, float16=True,
    ),
    "union_one": _union([1], {"num_trans_layer": 2}, {"conditioning_scale": 0.6}, graph=True, float16=True),
    "union_three": _union([2, 0, 1], {"num_class_embeds": 10}, {"conditioning_scale": [0.3, 1.2, 0.0], "class_labels": ("int", (2,), 10)}),
    "union_one_scale_for_all": _union(
        [0, 1], {"addition_embed_type": "text", "addition_embed_type_num_heads": 4}, {"conditioning_scale": 0.4}
    ),
    "union_guess": _union(
        [0, 1], {"encoder_hid_dim": 24, "class_embed_type": "identity"},
        {"guess_mode": True, "conditioning_scale": [0.3, 1.2], "class_labels": (2, 64)},
    ),
    "union_one_guess": _union([0], {"freq_shift": 1, "flip_sin_to_cos": False}, {"guess_mode": True, "conditioning_scale": 1.5}),
    "union_from_multi": _union([0, 2], {}, {"from_multi": True, "conditioning_scale": [0.7, 0.2]}, graph=True),
    "union_pooled": _union([1, 0], {"global_pool_conditions": True}, {"guess_mode": True}),
    "union_batch_of_one": _union(
        [1, 2], {}, {
            "sample": (1, 4, 8, 8), "encoder_hidden_states": (1, 5, 16), "controlnet_cond": [(1, 3, 16, 16)] * 2,
            "control_type": ("array", [[0.0, 1.0, 1.0]]),
        }, graph=True,
    ),
}
# fmt: on
