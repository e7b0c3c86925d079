"""The untrained Stable Diffusion folder that the training scripts start from: small, seeded, with a tokenizer of the captions' words.

python tools/bundled_model/initial_model.py FOLDER
"""

import argparse
import json
from pathlib import Path

from shapes import COLORS, PLACES, RADII, SHAPES, SIZE
from transformers import CLIPTokenizer

from mindone_diffusers import AutoencoderKL, AutoencoderTiny, CLIPTextModel, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

MAX_TOKENS = 24


def words() -> list[str]:
    """Every word of the captions, and a few a user might write instead; others are spelled letter by letter."""
    grammar = ["a", "an", "background", ",", *COLORS, *SHAPES, *RADII, *" ".join(PLACES).split()]
    return sorted({*grammar, "with", "and", "of", "is", "big", "picture"})


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-pair encoding) whose merges make one token of nearly each word (of "orange" four, of "triangle" six)."""
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + index) for index in range(256 - len(letters))]
    symbols = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in words():
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair, parts = (parts[0], parts[1]), [parts[0] + parts[1], *parts[2:]]
            if pair not in merges:
                merges.append(pair)
                symbols.append("".join(pair))
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


def write_model(folder: Path, seed: int = 0) -> None:
    """The pipeline folder, with an AutoencoderTiny in `vae_tiny`."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=SIZE // 4, block_out_channels=(32, 64, 96), layers_per_block=1, cross_attention_dim=96, attention_head_dim=4,
        norm_num_groups=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4, sample_size=SIZE, mid_block_add_attention=False,
    )  # fmt: skip
    text_encoder = CLIPTextModel(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=3,
        max_position_embeddings=MAX_TOKENS, hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 3, decoder_block_out_channels=(16,) * 3, num_encoder_blocks=(1,) * 3,
        num_decoder_blocks=(2, 1, 1),
    )  # fmt: skip
    for model in (unet, vae, text_encoder, tiny):
        model.fill_parameters(seed)
        print(f"{type(model).__name__}: {model.num_parameters() / 1e6:.2f} million parameters")
    # Zero-terminal-SNR and v-prediction (arXiv 2305.08891): from pure noise, so that no background colour is left over from training.
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", steps_offset=1,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipe.save_pretrained(folder)
    tiny.save_pretrained(folder / "vae_tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_model(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
