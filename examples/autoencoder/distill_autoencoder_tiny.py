"""Distil an AutoencoderKL into an AutoencoderTiny, which decodes several times faster.

    python examples/autoencoder/distill_autoencoder_tiny.py --model FOLDER --train_data_dir IMAGES --output_dir outputs/vae_tiny \\
        --max_train_steps 1000

The small encoder learns the large one's latents, the small decoder its pictures (as github.com/madebyollin/taesd, without the
adversarial loss).
"""

import argparse
from pathlib import Path

import mindspore as ms
import numpy as np

from mindone_diffusers import AutoencoderKL, AutoencoderTiny, nn
from mindone_diffusers.training import BatchIndices, ImageFolder, add_training_arguments, make_train_step, process, step_rng, train


class DistillationLoss(nn.Module):
    """Errors of a small encoder and decoder on images, a teacher's scaled latents of them, and its pictures of those."""

    def __init__(self, tiny: AutoencoderTiny):
        super().__init__()
        self.tiny = tiny

    def construct(self, images: ms.Tensor, latents: ms.Tensor, pictures: ms.Tensor) -> ms.Tensor:
        encoded = self.tiny._encode(images)[0] - latents
        decoded = self.tiny._decode(latents)[0] - pictures
        return (encoded * encoded).mean() + decoded.abs().mean() + (decoded * decoded).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a folder with the teacher in `vae` and the AutoencoderTiny to train in `vae_tiny`")
    parser.add_argument("--teacher", help="a folder with a trained teacher, instead of the model's `vae`")
    parser.add_argument("--train_data_dir", required=True, help="folder of images")
    parser.add_argument("--resolution", type=int, default=256)
    add_training_arguments(parser)
    arguments = parser.parse_args()

    rank, world = process(arguments)
    teacher = AutoencoderKL.from_pretrained(arguments.teacher or Path(arguments.model) / "vae").enable_graph_mode()
    tiny = AutoencoderTiny.from_pretrained(arguments.model, subfolder="vae_tiny")
    data = ImageFolder(arguments.train_data_dir, resolution=arguments.resolution)
    batches = BatchIndices(len(data), arguments.train_batch_size, arguments.seed, rank, world)

    def batch(index: int) -> tuple[ms.Tensor, ...]:
        rng = step_rng(arguments.seed, index * world + rank)
        images = ms.Tensor(np.stack([data.image(item, rng) for item in batches[index]]))
        latents = teacher.encode(images).latent_dist.mean
        return images, latents * teacher.config.scaling_factor, teacher.decode(latents).sample

    train(make_train_step(DistillationLoss(tiny), arguments), batch, arguments, main_process=rank == 0)
    if rank == 0:
        tiny.save_pretrained(Path(arguments.output_dir) / "vae_tiny")
        print(f"AutoencoderTiny in {arguments.output_dir}/vae_tiny")


if __name__ == "__main__":
    main()
