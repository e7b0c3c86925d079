"""DPT, depth from images. `class` is the same name in transformers and here."""

_VIT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    "backbone_out_indices": [0, 2, 3, 4], "neck_hidden_sizes": [8, 8, 12, 16], "fusion_hidden_size": 8,
}  # fmt: skip
_BACKBONE = {
    "model_type": "bit", "layer_type": "bottleneck", "depths": [2, 1, 1], "embedding_size": 8, "hidden_sizes": [8, 40, 32],
    "num_groups": 2, "global_padding": "same", "embedding_dynamic_padding": True, "out_features": ["stage1", "stage2", "stage3"],
}  # fmt: skip
_HYBRID = _VIT | {
    "is_hybrid": True, "image_size": 64, "patch_size": 16, "neck_hidden_sizes": [8, 40, 12, 16], "reassemble_factors": [1, 1, 1, 0.5],
    "backbone_featmap_shape": [1, 32, 4, 4], "backbone_config": _BACKBONE,
}  # fmt: skip


def _case(config: dict, pixels: tuple[int, ...], **more) -> dict:
    return {"class": "DPTForDepthEstimation", "config": config, "inputs": {"pixel_values": pixels}, **more}


def _hybrid(pixels: tuple[int, ...] = (1, 3, 64, 64), **backbone) -> dict:
    return _case(_HYBRID | {"backbone_config": _BACKBONE | backbone}, pixels)


CASES = {
    "vit": _case(_VIT, (2, 3, 32, 32), graph=True, float16=True),
    "vit_other_size": _case(_VIT, (1, 3, 27, 24)),  # three patches, of which the deepest map has two
    "vit_add": _case(_VIT | {"readout_type": "add", "qkv_bias": False, "hidden_act": "relu"}, (1, 3, 32, 32)),
    "vit_ignore": _case(
        _VIT | {"readout_type": "ignore", "num_channels": 1, "head_in_index": 1, "use_bias_in_fusion_residual": False}, (1, 1, 32, 32)
    ),
    "vit_projection": _case(
        _VIT | {"add_projection": True, "fusion_hidden_size": 256, "reassemble_factors": [2, 1, 1, 0.25], "image_size": [32, 32]},
        (1, 3, 32, 32),
    ),
    "hybrid": _case(_HYBRID, (2, 3, 64, 64), graph=True, float16=True),
    "hybrid_padding": _hybrid(global_padding=None, embedding_dynamic_padding=False),
    "hybrid_dilation": _case(
        _HYBRID | {
            "image_size": 40, "patch_size": 8,
            "backbone_config": _BACKBONE | {"output_stride": 8, "width_factor": 2, "depths": [1, 1, 2], "hidden_sizes": [8, 20, 16]},
            "neck_hidden_sizes": [16, 40, 12, 16],
        },
        (1, 3, 40, 40),
    ),
}  # fmt: skip
