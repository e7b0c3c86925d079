"""Write folders of pipelines without weights, which are all that an audit reads.

    python -m tools.config_folders FOLDER

writes FOLDER/sd15 and FOLDER/sdxl, of the published models' sizes.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.benchmarks.common import SD15_UNET, SD15_VAE

Component = tuple[str, str, Mapping[str, Any] | None]
"""Library, class and config; no config for a component without a folder."""

_DIFFUSERS, _TRANSFORMERS = "diffusers", "transformers"
_CLIP = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768}
_OPEN_CLIP = {
    "num_hidden_layers": 32, "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "projection_dim": 1280,
    "hidden_act": "gelu",
}  # fmt: skip
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

SD15: dict[str, Component] = {
    "text_encoder": (_TRANSFORMERS, "CLIPTextModel", _CLIP),
    "tokenizer": (_TRANSFORMERS, "CLIPTokenizer", None),
    "unet": (_DIFFUSERS, "UNet2DConditionModel", SD15_UNET),
    "vae": (_DIFFUSERS, "AutoencoderKL", SD15_VAE),
    "scheduler": (_DIFFUSERS, "DDIMScheduler", _NOISE | {"clip_sample": False, "set_alpha_to_one": False}),
}
SDXL: dict[str, Component] = {
    "text_encoder": SD15["text_encoder"],
    "text_encoder_2": (_TRANSFORMERS, "CLIPTextModelWithProjection", _OPEN_CLIP),
    "tokenizer": SD15["tokenizer"],
    "tokenizer_2": SD15["tokenizer"],
    "unet": (
        _DIFFUSERS, "UNet2DConditionModel",
        {
            "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": True,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "vae": (_DIFFUSERS, "AutoencoderKL", SD15_VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}),
    "scheduler": (_DIFFUSERS, "EulerDiscreteScheduler", _NOISE),
}  # fmt: skip
FULL_SIZE = {"sd15": ("StableDiffusionPipeline", SD15), "sdxl": ("StableDiffusionXLPipeline", SDXL)}


def write_configs(folder: Path, pipeline: str, components: Mapping[str, Component], **options: Any) -> Path:
    """Write `model_index.json`, with these options of the pipeline's `__init__`, and the components' configs."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {name: [library, kind] for name, (library, kind, _) in components.items()}
    _write(folder / "model_index.json", {"_class_name": pipeline, **index, **options})
    for name, (library, kind, config) in components.items():
        if config is not None:
            (folder / name).mkdir(exist_ok=True)
            file = "scheduler_config.json" if kind.endswith("Scheduler") else "config.json"
            named = {"_class_name": kind} if library != _TRANSFORMERS else {"architectures": [kind]}
            _write(folder / name / file, {**named, **config})
    return folder


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    for name, (pipeline, components) in FULL_SIZE.items():
        print(write_configs(Path(sys.argv[1], name), pipeline, components))
