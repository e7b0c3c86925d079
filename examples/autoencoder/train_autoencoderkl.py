"""Train an AutoencoderKL on a folder of images.

    python examples/autoencoder/train_autoencoderkl.py --model FOLDER --train_data_dir IMAGES --output_dir outputs/vae \\
        --max_train_steps 2000

The loss is the mean absolute and squared error of the reconstruction plus a small Kullback-Leibler term (arXiv 2112.10752, without the
perceptual and adversarial losses, which photographs need and drawings do not).
"""

import argparse
from pathlib import Path

import mindspore as ms
import numpy as np

from mindone_diffusers import AutoencoderKL, nn
from mindone_diffusers.training import BatchIndices, ImageFolder, add_training_arguments, make_train_step, process, step_rng, train

F = nn.functional


class AutoencoderLoss(nn.Module):
    """Reconstruction and Kullback-Leibler loss of images (batch, 3, height, width) with the noise of their latents."""

    def __init__(self, vae: AutoencoderKL, kl_weight: float):
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight

    def construct(self, images: ms.Tensor, noise: ms.Tensor) -> ms.Tensor:
        mean, logvar = F.chunk(self.vae._encode(images)[0], 2, 1)
        logvar = logvar.clip(-30.0, 20.0)
        kl = 0.5 * (mean * mean + logvar.exp() - 1.0 - logvar).mean()
        error = self.vae._decode(mean + (0.5 * logvar).exp() * noise)[0] - images
        return error.abs().mean() + (error * error).mean() + self.kl_weight * kl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder or repository with the AutoencoderKL to train")
    parser.add_argument("--subfolder", default="vae")
    parser.add_argument("--train_data_dir", required=True, help="folder of images")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument(
        "--crop", type=int, help="train on random parts of this side, in pixels; much faster, for autoencoders without attention"
    )
    parser.add_argument("--kl_weight", type=float, default=1e-4)
    add_training_arguments(parser)
    arguments = parser.parse_args()

    rank, world = process(arguments)
    vae = AutoencoderKL.from_pretrained(arguments.model, subfolder=arguments.subfolder)
    data = ImageFolder(arguments.train_data_dir, resolution=arguments.resolution, crop=arguments.crop)
    batches = BatchIndices(len(data), arguments.train_batch_size, arguments.seed, rank, world)
    size = (arguments.crop or arguments.resolution) // 2 ** (len(vae.config.block_out_channels) - 1)

    def batch(index: int) -> tuple[ms.Tensor, ms.Tensor]:
        rng = step_rng(arguments.seed, index * world + rank)
        images = np.stack([data.image(item, rng) for item in batches[index]])
        noise = rng.standard_normal((len(images), vae.config.latent_channels, size, size), dtype=np.float32)
        return ms.Tensor(images), ms.Tensor(noise)

    step = make_train_step(AutoencoderLoss(vae, arguments.kl_weight), arguments)
    train(step, batch, arguments, main_process=rank == 0)
    if rank == 0:
        # The scale that gives the latents a standard deviation of one (arXiv 2112.10752, section G).
        vae.disable_graph_mode()
        images = ms.Tensor(np.stack([data.image(item) for item in batches[0]]))
        vae.register_to_config(scaling_factor=float(1 / vae.encode(images).latent_dist.mean.asnumpy().std()))
        vae.save_pretrained(Path(arguments.output_dir) / "vae")
        print(f"AutoencoderKL in {arguments.output_dir}/vae, scaling factor {vae.config.scaling_factor:.4f}")


if __name__ == "__main__":
    main()
