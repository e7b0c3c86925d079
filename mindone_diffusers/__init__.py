"""The PyTorch diffusers API on MindSpore, for Ascend NPUs and any CPU.

    from mindone_diffusers import StableDiffusionPipeline

Names are loaded when first used, so that importing the package costs little more than importing MindSpore.
"""

from .aliases import ALIASES
from .backend.device import tune_cpu
from .core.lazy import exports, register_aliases
from .version import __version__

tune_cpu()
register_aliases(__name__, ALIASES)

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".callbacks": ("PipelineCallback", "MultiPipelineCallbacks"),
        ".core.configuration": ("ConfigMixin", "FrozenDict"),
        ".core.random": ("Generator",),
        ".image_processor": ("VaeImageProcessor",),
        ".models.autoencoders.autoencoder_kl": ("AutoencoderKL",),
        ".models.autoencoders.autoencoder_tiny": ("AutoencoderTiny",),
        ".models.modeling_utils": ("ModelMixin",),
        ".models.unets.unet_2d_condition": ("UNet2DConditionModel",),
        ".pipelines.pipeline_utils": ("DiffusionPipeline", "ImagePipelineOutput", "StableDiffusionMixin"),
        ".pipelines.stable_diffusion.pipeline_stable_diffusion": ("StableDiffusionPipeline",),
        ".schedulers.scheduling_ddim": ("DDIMScheduler",),
        ".schedulers.scheduling_dpmsolver_multistep": ("DPMSolverMultistepScheduler",),
        ".schedulers.scheduling_euler_ancestral_discrete": ("EulerAncestralDiscreteScheduler",),
        ".schedulers.scheduling_euler_discrete": ("EulerDiscreteScheduler",),
        ".schedulers.scheduling_heun_discrete": ("HeunDiscreteScheduler",),
        ".schedulers.scheduling_lms_discrete": ("LMSDiscreteScheduler",),
        ".schedulers.scheduling_pndm": ("PNDMScheduler",),
        ".schedulers.scheduling_utils": ("SchedulerMixin",),
        ".text_encoders.clip": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModel", "CLIPVisionModelWithProjection"),
        ".utils": ("logging",),
    },
)
__all__ += ["__version__"]
