"""Train a UNet2DModel from scratch to draw images like those of a folder.

    python examples/unconditional_image_generation/train_unconditional.py --train_data_dir IMAGES --resolution 32 \\
        --output_dir outputs/ddpm --max_train_steps 10000 --use_ema

The folder that it writes is a DDPMPipeline, for this library and for PyTorch diffusers. A killed run goes on with
`--resume_from_checkpoint latest` and ends with the same weights. Several processes: `msrun --worker_num=8 ... --distributed`.
"""

import argparse
from pathlib import Path

import mindspore as ms
import numpy as np

from mindone_diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel, nn
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
from mindone_diffusers.utils import make_image_grid


class DenoisingLoss(nn.Module):
    """Weighted mean squared error of a UNet's prediction.

    The inputs: noisy images (batch, channels, h, w), timesteps (batch,), the target of the prediction, of the images' shape, and float32
    weights (batch,).
    """

    def __init__(self, unet: UNet2DModel):
        super().__init__()
        self.unet = unet

    def construct(self, noisy: ms.Tensor, timesteps: ms.Tensor, target: ms.Tensor, weights: ms.Tensor) -> ms.Tensor:
        error = self.unet(noisy, timesteps, return_dict=False)[0].astype(ms.float32) - target
        return ((error * error).mean((1, 2, 3)) * weights).mean()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data_arguments(parser, resolution=64)
    parser.add_argument("--model_config_name_or_path", help="folder or repository with a UNet2DModel's config.json")
    parser.add_argument("--prediction_type", choices=("epsilon", "sample", "v_prediction"), default="epsilon")
    parser.add_argument("--ddpm_num_steps", type=int, default=1000, help="length of the noise schedule")
    parser.add_argument("--ddpm_beta_schedule", default="linear", help="see DDPMScheduler")
    parser.add_argument("--use_ema", action="store_true", help="draw with, and save, the moving average of the weights")
    parser.add_argument("--ema_inv_gamma", type=float, default=1.0, help="see EMAModel")
    parser.add_argument("--ema_power", type=float, default=0.75, help="see EMAModel")
    parser.add_argument("--ema_max_decay", type=float, default=0.9999)
    parser.add_argument("--save_images_steps", type=int, default=1000, help="draw pictures after every so many steps, and at the end")
    parser.add_argument("--eval_batch_size", type=int, default=16, help="how many pictures; 0 for none")
    parser.add_argument("--ddpm_num_inference_steps", type=int, default=1000, help="steps of drawing them")
    add_training_arguments(parser)
    parser.set_defaults(lr_scheduler="cosine", lr_warmup_steps=500, adam_beta1=0.95, adam_weight_decay=1e-6)
    return parser.parse_args()


def make_unet(arguments: argparse.Namespace) -> UNet2DModel:
    """The model of the config that the options name, or one like the DDPM paper's; its weights are drawn from the seed."""
    if arguments.model_config_name_or_path is not None:
        config = UNet2DModel.load_config(arguments.model_config_name_or_path)
        unet = UNet2DModel.from_config(config, sample_size=arguments.resolution)
    else:
        unet = UNet2DModel(
            sample_size=arguments.resolution,
            block_out_channels=(128, 128, 256, 256, 512, 512),
            down_block_types=(*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
        )
    if unet.class_embedding is not None or unet.config.in_channels != 3 or unet.config.out_channels != 3:
        raise SystemExit("the model's config has classes, or other channels than the 3 of images: this script trains neither")
    unet.fill_parameters(arguments.seed)
    return unet


def main() -> None:
    arguments = parse_arguments()
    rank, world = process(arguments)
    unet = make_unet(arguments)
    dtype = weights_dtype(arguments)
    unet.to(dtype)
    noise_scheduler = DDPMScheduler(
        num_train_timesteps=arguments.ddpm_num_steps,
        beta_schedule=arguments.ddpm_beta_schedule,
        prediction_type=arguments.prediction_type,
    )
    options = {"resolution": arguments.resolution, "center_crop": arguments.center_crop, "random_flip": arguments.random_flip}
    if arguments.dataset_name is not None:
        data = HubImages(arguments.dataset_name, arguments.dataset_config_name, arguments.image_column, None, **options)
    else:
        data = ImageFolder(arguments.train_data_dir, **options)
    batches = BatchIndices(len(data), arguments.train_batch_size, arguments.seed, rank, world)

    def batch(index: int) -> tuple[ms.Tensor, ...]:
        rng = step_rng(arguments.seed, index * world + rank)
        images = np.stack([data.image(item, rng) for item in batches[index]])
        noise = rng.standard_normal(images.shape, dtype=np.float32)
        timesteps = rng.integers(arguments.ddpm_num_steps, size=len(images))
        weights = np.ones(len(images), np.float32)
        if arguments.prediction_type == "epsilon":
            target = noise
        elif arguments.prediction_type == "v_prediction":
            target = noise_scheduler.get_velocity(images, noise, timesteps)
        else:
            target, weights = images, np.asarray(compute_snr(noise_scheduler, timesteps))  # the loss is then that of the noise
        noisy = noise_scheduler.add_noise(images, noise, timesteps)
        return ms.Tensor(noisy, dtype), ms.Tensor(timesteps.astype(np.int32)), ms.Tensor(target), ms.Tensor(weights)

    step = make_train_step(DenoisingLoss(unet), arguments)
    ema = None
    if arguments.use_ema:
        ema = EMAModel(
            step.optimizer.masters,
            decay=arguments.ema_max_decay,
            use_ema_warmup=True,
            inv_gamma=arguments.ema_inv_gamma,
            power=arguments.ema_power,
        )
    pipe = DDPMPipeline(unet, noise_scheduler)
    pipe.set_progress_bar_config(disable=True)

    def sample(done: int) -> None:
        is_last = done == arguments.max_train_steps
        if rank == 0 and arguments.eval_batch_size and (done % arguments.save_images_steps == 0 or is_last):
            draw(pipe, arguments, ema, step.optimizer.params, Path(arguments.output_dir) / f"samples-{done}.png")

    train(step, batch, arguments, ema=ema, after_step=sample, main_process=rank == 0)
    if rank == 0:
        take_final_weights(step, (unet,), ema)
        pipe.save_pretrained(arguments.output_dir)
        print(f"the DDPMPipeline is in {arguments.output_dir}")


def draw(pipe: DDPMPipeline, arguments: argparse.Namespace, ema: EMAModel | None, parameters: ms.ParameterTuple, path: Path) -> None:
    """A row of pictures, always from the same noise, with the averaged weights if there are any."""
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    pipe.unet.eval()
    images = pipe(
        batch_size=arguments.eval_batch_size,
        generator=np.random.default_rng(0),
        num_inference_steps=arguments.ddpm_num_inference_steps,
    ).images
    pipe.unet.train()
    if ema is not None:
        ema.restore(parameters)
    make_image_grid(images, 1, len(images)).save(path)


if __name__ == "__main__":
    main()
