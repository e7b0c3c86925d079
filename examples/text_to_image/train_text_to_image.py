"""Fine-tune a Stable Diffusion model on images with captions, or train one from scratch.

    python examples/text_to_image/train_text_to_image.py --pretrained_model_name_or_path FOLDER --train_data_dir IMAGES \\
        --output_dir outputs/model --max_train_steps 10000 --use_ema

IMAGES is a folder with a `metadata.jsonl`; `--dataset_name` takes a dataset on the Hugging Face hub instead. A killed run goes on with
`--resume_from_checkpoint latest` and ends with the same weights. Several processes: `msrun --worker_num=8 ... --distributed`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np

from mindone_diffusers import DDPMScheduler, StableDiffusionPipeline, nn
from mindone_diffusers.training import (
    BatchIndices,
    HubImages,
    ImageFolder,
    add_data_arguments,
    add_training_arguments,
    make_train_step,
    process,
    step_rng,
    take_final_weights,
    train,
    weights_dtype,
)
from mindone_diffusers.training_utils import EMAModel, compute_snr
from mindone_diffusers.utils import logging, make_image_grid

logger = logging.get_logger(__name__)


class DiffusionLoss(nn.Module):
    """Weighted mean squared error of a UNet's prediction, its captions encoded in the same graph.

    The inputs: noisy latents (batch, channels, h, w), timesteps (batch,), token ids (batch, tokens), the target of the prediction, of the
    latents' shape, and float32 weights (batch,).
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def construct(self, noisy: ms.Tensor, timesteps: ms.Tensor, input_ids: ms.Tensor, target: ms.Tensor, weights: ms.Tensor) -> ms.Tensor:
        encoder_hidden_states = self.text_encoder(input_ids, return_dict=False)[0]
        error = self.unet(noisy, timesteps, encoder_hidden_states, return_dict=False)[0].astype(ms.float32) - target
        return ((error * error).mean((1, 2, 3)) * weights).mean()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data_arguments(parser, resolution=512)
    parser.add_argument("--pretrained_model_name_or_path", required=True, help="a Stable Diffusion folder or repository")
    parser.add_argument("--caption_column", default="text")
    parser.add_argument(
        "--cache_latents", action="store_true", help="encode every image once, before training, in the middle and not mirrored"
    )
    parser.add_argument("--train_text_encoder", action="store_true", help="train the text encoder too")
    parser.add_argument("--proportion_empty_prompts", type=float, default=0.0, help="of captions left out, for classifier-free guidance")
    parser.add_argument("--prediction_type", choices=("epsilon", "v_prediction"), help="instead of the scheduler's")
    parser.add_argument("--snr_gamma", type=float, help="min-SNR weights (arXiv 2303.09556); 5.0 is usual")
    parser.add_argument("--noise_offset", type=float, default=0.0, help="standard deviation of a shift of each channel's noise")
    parser.add_argument("--use_ema", action="store_true", help="save the moving average of the weights")
    parser.add_argument("--ema_decay", type=float, default=0.9999)
    parser.add_argument("--validation_prompts", nargs="*", default=[], help="drawn while training")
    parser.add_argument("--validation_steps", type=int, default=1000)
    add_training_arguments(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    rank, world = process(arguments)
    pipe = StableDiffusionPipeline.from_pretrained(arguments.pretrained_model_name_or_path, safety_checker=None)
    unet, vae, text_encoder, tokenizer = pipe.unet, pipe.vae, pipe.text_encoder, pipe.tokenizer
    if arguments.prediction_type is not None:
        pipe.scheduler.register_to_config(prediction_type=arguments.prediction_type)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    dtype = weights_dtype(arguments)
    unet.to(dtype)
    text_encoder.to(dtype)
    for parameter in text_encoder.get_parameters():
        parameter.requires_grad = arguments.train_text_encoder

    options = {"resolution": arguments.resolution, "center_crop": arguments.center_crop, "random_flip": arguments.random_flip}
    if arguments.dataset_name is not None:
        data = HubImages(arguments.dataset_name, arguments.dataset_config_name, arguments.image_column, arguments.caption_column, **options)
    else:
        data = ImageFolder(arguments.train_data_dir, arguments.caption_column, **options)
    if data.captions is None:
        raise SystemExit(f"{arguments.train_data_dir} has no metadata.jsonl with captions")
    tokens = tokenizer(
        ["", *data.captions], padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="np"
    ).input_ids.astype(np.int32)
    batches = BatchIndices(len(data), arguments.train_batch_size, arguments.seed, rank, world)
    draw_latents = latent_source(vae, data, arguments.cache_latents)

    def batch(index: int) -> tuple[ms.Tensor, ...]:
        rng, items = step_rng(arguments.seed, index * world + rank), batches[index]
        latents = draw_latents(items, rng)
        noise = rng.standard_normal(latents.shape, dtype=np.float32)
        if arguments.noise_offset:
            noise += arguments.noise_offset * rng.standard_normal((*latents.shape[:2], 1, 1), dtype=np.float32)
        timesteps = rng.integers(noise_scheduler.config.num_train_timesteps, size=len(items))
        velocity = noise_scheduler.config.prediction_type == "v_prediction"
        target = noise_scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
        weights = np.ones(len(items), np.float32)
        if arguments.snr_gamma is not None:
            snr = np.asarray(compute_snr(noise_scheduler, timesteps))
            weights = (np.minimum(snr, arguments.snr_gamma) / (snr + 1 if velocity else snr)).astype(np.float32)
        captions = np.where(rng.random(len(items)) < arguments.proportion_empty_prompts, 0, items + 1)
        noisy = noise_scheduler.add_noise(latents, noise, timesteps)
        tensors = (timesteps.astype(np.int32), tokens[captions], target, weights)
        return ms.Tensor(noisy, dtype), *(ms.Tensor(values) for values in tensors)

    loss = DiffusionLoss(unet, text_encoder)
    step = make_train_step(loss, arguments)
    ema = EMAModel(step.optimizer.masters, decay=arguments.ema_decay) if arguments.use_ema else None

    def validate(done: int) -> None:
        if rank == 0 and arguments.validation_prompts and (done % arguments.validation_steps == 0 or done == arguments.max_train_steps):
            draw(pipe, arguments.validation_prompts, Path(arguments.output_dir) / f"validation-{done}.png")

    train(step, batch, arguments, ema=ema, after_step=validate, main_process=rank == 0)
    if rank == 0:
        take_final_weights(step, (unet, text_encoder), ema)
        pipe.save_pretrained(arguments.output_dir)
        print(f"the model is in {arguments.output_dir}")


def latent_source(vae: nn.Module, data: ImageFolder, cache: bool) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """A function that draws scaled latents (batch, channels, h, w) of the items, from their images or from their cached distributions."""

    def moments(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        distribution = vae.encode(ms.Tensor(np.stack(images))).latent_dist
        return distribution.mean.asnumpy(), distribution.std.asnumpy()

    def sample(mean: np.ndarray, std: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (mean + std * rng.standard_normal(mean.shape, dtype=np.float32)) * np.float32(vae.config.scaling_factor)

    vae.enable_graph_mode()
    if not cache:
        return lambda items, rng: sample(*moments([data.image(item, rng) for item in items]), rng)
    logger.info(f"encoding {len(data)} images")
    chunk = 16
    padded = [index % len(data) for index in range(-(-len(data) // chunk) * chunk)]  # whole chunks: one compilation
    parts = [moments([data.image(item) for item in padded[start : start + chunk]]) for start in range(0, len(padded), chunk)]
    means, stds = (np.concatenate(part)[: len(data)] for part in zip(*parts))
    return lambda items, rng: sample(means[items], stds[items], rng)


def draw(pipe: StableDiffusionPipeline, prompts: list[str], path: Path) -> None:
    """A row of pictures, one a prompt, always from the same noise."""
    trained = [model for model in (pipe.unet, pipe.text_encoder) if model.training]
    for model in trained:
        model.set_train(False)
    pipe.set_progress_bar_config(disable=True)
    images = [pipe(prompt, num_inference_steps=25, generator=np.random.default_rng(0)).images[0] for prompt in prompts]
    make_image_grid(images, 1, len(images)).save(path)
    for model in trained:
        model.set_train()


if __name__ == "__main__":
    main()
