"""A tiny Stable Diffusion checkpoint with seeded random weights."""

import json
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

from mindone_diffusers import AutoencoderKL, CLIPTextModel, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer of single letters: 256 byte symbols, each also as the end of a word, and two special tokens."""
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + index) for index in range(256 - len(letters))]
    symbols = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def write_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A Stable Diffusion folder whose parts are small and seeded; PyTorch diffusers reads it too."""
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = make_tokenizer(Path(temporary) / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=128,
    )  # fmt: skip
    text_encoder = CLIPTextModel(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    for model in (unet, vae, text_encoder):
        model.fill_parameters(seed)
    pipe = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet,
        PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder
