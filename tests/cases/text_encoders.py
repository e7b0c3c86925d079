"""CLIP text and vision encoders. `class` is the same name in transformers and here."""

_TEXT = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 16, "projection_dim": 24, "pad_token_id": 1, "bos_token_id": 58, "eos_token_id": 59,
}  # fmt: skip
_VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 4,
    "projection_dim": 24,
}  # fmt: skip

# Start, words, end, padding: three lengths. The first has a second end token after the first (padding with the end token).
_IDS = ("array", [[58, 7, 21, 3, 40, 59, 59, 59], [58, 12, 59, 0, 0, 0, 0, 0], [58, 5, 6, 7, 8, 9, 10, 59]])
_MASK = ("array", [[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
_POSITIONS = ("array", [[0, 1, 2, 3, 8, 9, 10, 15]])
_ALL = {"input_ids": _IDS, "output_hidden_states": True}
_PIXELS = {"pixel_values": (2, 3, 16, 16), "output_hidden_states": True}

CASES = {
    "clip_text": {"class": "CLIPTextModel", "config": _TEXT, "inputs": _ALL, "graph": True, "float16": True},
    "clip_text_mask": {"class": "CLIPTextModel", "config": _TEXT, "inputs": {**_ALL, "attention_mask": _MASK}, "graph": True},
    "clip_text_positions": {"class": "CLIPTextModel", "config": _TEXT, "inputs": {**_ALL, "position_ids": _POSITIONS}},
    "clip_text_plain": {"class": "CLIPTextModel", "config": _TEXT, "inputs": {"input_ids": _IDS}},
    "clip_text_legacy_eos": {
        "class": "CLIPTextModel",
        "config": {**_TEXT, "eos_token_id": 2, "bos_token_id": 0},
        "inputs": {"input_ids": ("int", (4, 16), 60), "output_hidden_states": True},
    },
    "clip_text_gelu": {
        "class": "CLIPTextModel",
        "config": {**_TEXT, "hidden_act": "gelu", "num_hidden_layers": 3, "num_attention_heads": 2, "layer_norm_eps": 1e-3},
        "inputs": _ALL,
    },
    "clip_text_no_end": {"class": "CLIPTextModel", "config": _TEXT, "inputs": {"input_ids": ("int", (1, 5), 58)}},
    "clip_text_projection": {
        "class": "CLIPTextModelWithProjection",
        "config": {**_TEXT, "hidden_act": "gelu", "num_hidden_layers": 3, "num_attention_heads": 8},
        "inputs": {**_ALL, "attention_mask": _MASK},
        "graph": True,
        "float16": True,
    },
    "clip_text_projection_plain": {"class": "CLIPTextModelWithProjection", "config": _TEXT, "inputs": {"input_ids": _IDS}},
    "clip_text_projection_legacy_eos": {
        "class": "CLIPTextModelWithProjection",
        "config": {**_TEXT, "eos_token_id": 2, "projection_dim": 40},
        "inputs": {"input_ids": ("int", (2, 12), 60)},
    },
    "clip_vision": {"class": "CLIPVisionModel", "config": _VISION, "inputs": _PIXELS, "graph": True, "float16": True},
    "clip_vision_gelu": {
        "class": "CLIPVisionModel",
        "config": {**_VISION, "hidden_act": "gelu", "num_hidden_layers": 3, "num_attention_heads": 2, "num_channels": 1},
        "inputs": {"pixel_values": (1, 1, 16, 16)},
    },
    "clip_vision_cropped_patches": {
        "class": "CLIPVisionModel",
        "config": {**_VISION, "image_size": 18},
        "inputs": {"pixel_values": (1, 3, 18, 18), "output_hidden_states": True},
    },
    "clip_vision_projection": {
        "class": "CLIPVisionModelWithProjection",
        "config": {**_VISION, "num_attention_heads": 8, "projection_dim": 12},
        "inputs": _PIXELS,
        "graph": True,
        "float16": True,
    },
}
