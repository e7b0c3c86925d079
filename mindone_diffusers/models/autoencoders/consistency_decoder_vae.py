"""`ConsistencyDecoderVAE`: an autoencoder that decodes with a UNet in two denoising steps (openai/consistencydecoder)."""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ... import nn
from ...core.configuration import ConfigMixin, register_to_config
from ...core.random import randn_tensor
from ...nn import functional as F
from ...schedulers.scheduling_consistency_decoder import ConsistencyDecoderScheduler
from ..attention import AttentionMixin
from ..modeling_utils import ModelMixin
from ..unets.unet_2d import UNet2DModel
from .vae import AutoencoderKLOutput, DecoderOutput, Encoder, PosteriorMixin

ConsistencyDecoderVAEOutput = AutoencoderKLOutput

# Of the latents the UNet was trained on, by the channel.
_MEANS = np.array([0.38862467, 0.02253063, 0.07381133, -0.0171294]).reshape((1, 4, 1, 1))
_STDS = np.array([0.9654121, 1.0440036, 0.76147926, 0.77022034]).reshape((1, 4, 1, 1))


class ConsistencyDecoderVAE(AttentionMixin, PosteriorMixin, ModelMixin, ConfigMixin):
    """The encoder of `AutoencoderKL`, and a consistency model (arXiv:2303.01469) that decodes: a UNet which takes the noisy image and the
    latents, enlarged to its size.

    Slicing and tiling are for `encode`. Decoding draws random numbers, so that there is no `construct`: the tensor cores are `_encode` and
    `_denoise`.

    Args:
        scaling_factor: read by pipelines, which see latents as `latents * scaling_factor`, and by the decoder, which does too.
        latent_channels: of the latents; the decoder takes 4.
        sample_size: side of a tile of `enable_tiling`, in pixels.
        encoder_act_fn, encoder_block_out_channels, encoder_double_z, encoder_down_block_types, encoder_in_channels,
            encoder_layers_per_block, encoder_norm_num_groups, encoder_out_channels: the arguments of `Encoder`.
        decoder_add_attention, decoder_block_out_channels, decoder_down_block_types, decoder_downsample_padding, decoder_in_channels,
            decoder_layers_per_block, decoder_norm_eps, decoder_norm_num_groups, decoder_num_train_timesteps, decoder_out_channels,
            decoder_resnet_time_scale_shift, decoder_time_embedding_type, decoder_up_block_types: the arguments of `UNet2DModel`. It takes
            the 3 channels of an image and the 4 of the latents; of what it gives, the first 3 channels are used.

    Raises:
        ConfigError: as `Encoder` and `UNet2DModel` do.
    """

    @register_to_config
    def __init__(
        self,
        scaling_factor: float = 0.18215,
        latent_channels: int = 4,
        sample_size: int = 32,
        encoder_act_fn: str = "silu",
        encoder_block_out_channels: Sequence[int] = (128, 256, 512, 512),
        encoder_double_z: bool = True,
        encoder_down_block_types: Sequence[str] = ("DownEncoderBlock2D",) * 4,
        encoder_in_channels: int = 3,
        encoder_layers_per_block: int = 2,
        encoder_norm_num_groups: int = 32,
        encoder_out_channels: int = 4,
        decoder_add_attention: bool = False,
        decoder_block_out_channels: Sequence[int] = (320, 640, 1024, 1024),
        decoder_down_block_types: Sequence[str] = ("ResnetDownsampleBlock2D",) * 4,
        decoder_downsample_padding: int = 1,
        decoder_in_channels: int = 7,
        decoder_layers_per_block: int = 3,
        decoder_norm_eps: float = 1e-05,
        decoder_norm_num_groups: int = 32,
        decoder_num_train_timesteps: int = 1024,
        decoder_out_channels: int = 6,
        decoder_resnet_time_scale_shift: str = "scale_shift",
        decoder_time_embedding_type: str = "learned",
        decoder_up_block_types: Sequence[str] = ("ResnetUpsampleBlock2D",) * 4,
    ):
        super().__init__()
        # The arguments' names are the parts', after a prefix.
        self.encoder = Encoder(**self._arguments_of("encoder_"))
        self.decoder_unet = UNet2DModel(**self._arguments_of("decoder_"))
        self.decoder_scheduler = ConsistencyDecoderScheduler()
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self._downsampling = 2 ** (len(encoder_block_out_channels) - 1)
        self._set_tiles(sample_size)
        self.register_to_config(block_out_channels=encoder_block_out_channels, force_upcast=False)

    def _arguments_of(self, prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in self.config.items() if name.startswith(prefix)}

    def _denoise(self, x: Tensor, z: Tensor, timestep: Tensor) -> tuple[Tensor]:
        return (self.decoder_unet(F.cat((x, z), 1), timestep, None, False)[0][:, :3],)

    def decode(
        self, z: Tensor, generator: Any = None, return_dict: bool = True, num_inference_steps: int = 2
    ) -> DecoderOutput | tuple[Tensor]:
        """Images of latents (batch, 4, h, w).

        Args:
            generator: of the first image, which is noise, and of the noise after the first step; see `core.random.randn_tensor`.
            num_inference_steps: 2.

        Raises:
            TypeError: `z` is no tensor, or not of the model's dtype.
            ValueError: wrong rank or number of channels, or not 2 steps.
        """
        self._check_input("z", z, 4)
        scheduler = self.decoder_scheduler
        scheduler.set_timesteps(num_inference_steps)
        z = (z * self.config.scaling_factor - Tensor(_MEANS, z.dtype)) / Tensor(_STDS, z.dtype)
        z = F.interpolate(z, scale_factor=self._downsampling, mode="nearest")
        sample = scheduler.init_noise_sigma * randn_tensor((z.shape[0], 3, *z.shape[2:]), generator, dtype=z.dtype)
        for t in scheduler.timesteps:
            (output,) = self._run("_denoise", scheduler.scale_model_input(sample, t), z, Tensor([t], ms.float32))
            sample = scheduler.step(output, t, sample, generator).prev_sample
        return DecoderOutput(sample=sample) if return_dict else (sample,)
