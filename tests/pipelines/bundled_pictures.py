"""The bundled model's prompts that PyTorch diffusers' pictures are recorded of, for `tools/record_references.py`."""

import numpy as np

from mindone_diffusers import bundled

PROMPTS = (
    "a large red circle on a blue background",
    "a small yellow star on a purple background, at the top",
    "a green triangle on a white background, on the left",
    "a large black cross on a pink background, in the middle",
    "a white square on an orange background, at the bottom",
    "a blue circle on a yellow background",
)
OPTIONS = {"num_inference_steps": 25, "guidance_scale": bundled.GUIDANCE_SCALE}


def latents() -> np.ndarray:
    """The noise that the pictures start from."""
    return np.random.default_rng(0).standard_normal((len(PROMPTS), 4, 16, 16)).astype(np.float32)


def record(device: str) -> dict[str, np.ndarray]:
    """Pictures of the prompts, (prompts, 64, 64, 3)."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(bundled.path(), torch_dtype=torch.float32, safety_checker=None).to(device)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(list(PROMPTS), latents=torch.from_numpy(latents()).to(device), **OPTIONS).images
    return {"images": np.stack([np.asarray(image) for image in images])}
