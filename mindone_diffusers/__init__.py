"""The PyTorch diffusers API on MindSpore, for Ascend NPUs and any CPU.

    from mindone_diffusers import StableDiffusionPipeline

Names are loaded when first used, so that importing the package costs next to nothing; `import mindspore` follows when one needs it.
"""

from .aliases import ALIASES
from .backend.tuning import tune_cpu
from .core.lazy import exports, register_aliases, when_imported
from .version import __version__

# The settings have to be made before MindSpore's first operator, which may well run before anything of ours.
when_imported("mindspore", tune_cpu)
register_aliases(__name__, ALIASES)

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".callbacks": ("PipelineCallback", "MultiPipelineCallbacks"),
        ".core.configuration": ("ConfigMixin", "FrozenDict"),
        ".core.random": ("Generator",),
        ".image_processor": ("IPAdapterMaskProcessor", "VaeImageProcessor"),
        ".models.adapter": ("MultiAdapter", "T2IAdapter"),
        ".models.autoencoders.autoencoder_asym_kl": ("AsymmetricAutoencoderKL",),
        ".models.autoencoders.autoencoder_kl": ("AutoencoderKL",),
        ".models.autoencoders.autoencoder_tiny": ("AutoencoderTiny",),
        ".models.autoencoders.consistency_decoder_vae": ("ConsistencyDecoderVAE",),
        ".models.controlnets.controlnet": ("ControlNetModel",),
        ".models.controlnets.controlnet_union": ("ControlNetUnionModel",),
        ".models.controlnets.multicontrolnet": ("MultiControlNetModel",),
        ".models.controlnets.multicontrolnet_union": ("MultiControlNetUnionModel",),
        ".models.modeling_utils": ("ModelMixin",),
        ".models.unets.unet_2d": ("UNet2DModel",),
        ".models.unets.unet_2d_condition": ("UNet2DConditionModel",),
        ".optimization": (
            "get_constant_schedule",
            "get_constant_schedule_with_warmup",
            "get_cosine_schedule_with_warmup",
            "get_cosine_with_hard_restarts_schedule_with_warmup",
            "get_linear_schedule_with_warmup",
            "get_polynomial_decay_schedule_with_warmup",
            "get_scheduler",
        ),
        ".pipelines.ddim.pipeline_ddim": ("DDIMPipeline",),
        ".pipelines.ddpm.pipeline_ddpm": ("DDPMPipeline",),
        ".pipelines.pipeline_utils": ("DiffusionPipeline", "ImagePipelineOutput", "StableDiffusionMixin"),
        ".pipelines.stable_diffusion.pipeline_stable_diffusion": ("StableDiffusionPipeline",),
        ".schedulers.deprecated.scheduling_karras_ve": ("KarrasVeScheduler",),
        ".schedulers.scheduling_amused": ("AmusedScheduler",),
        ".schedulers.scheduling_block_refinement": ("BlockRefinementScheduler", "BlockRefinementSchedulerOutput"),
        ".schedulers.scheduling_consistency_models": ("CMStochasticIterativeScheduler",),
        ".schedulers.scheduling_cosine_dpmsolver_multistep": ("CosineDPMSolverMultistepScheduler",),
        ".schedulers.scheduling_ddim": ("DDIMScheduler",),
        ".schedulers.scheduling_ddim_cogvideox": ("CogVideoXDDIMScheduler",),
        ".schedulers.scheduling_ddim_inverse": ("DDIMInverseScheduler",),
        ".schedulers.scheduling_ddim_parallel": ("DDIMParallelScheduler",),
        ".schedulers.scheduling_ddpm": ("DDPMScheduler",),
        ".schedulers.scheduling_ddpm_parallel": ("DDPMParallelScheduler",),
        ".schedulers.scheduling_ddpm_wuerstchen": ("DDPMWuerstchenScheduler",),
        ".schedulers.scheduling_deis_multistep": ("DEISMultistepScheduler",),
        ".schedulers.scheduling_discrete_ddim": ("DiscreteDDIMScheduler", "DiscreteDDIMSchedulerOutput"),
        ".schedulers.scheduling_dpm_cogvideox": ("CogVideoXDPMScheduler",),
        ".schedulers.scheduling_dpmsolver_multistep": ("DPMSolverMultistepScheduler",),
        ".schedulers.scheduling_dpmsolver_multistep_inverse": ("DPMSolverMultistepInverseScheduler",),
        ".schedulers.scheduling_dpmsolver_sde": ("DPMSolverSDEScheduler",),
        ".schedulers.scheduling_dpmsolver_singlestep": ("DPMSolverSinglestepScheduler",),
        ".schedulers.scheduling_edm_dpmsolver_multistep": ("EDMDPMSolverMultistepScheduler",),
        ".schedulers.scheduling_edm_euler": ("EDMEulerScheduler",),
        ".schedulers.scheduling_entropy_bound": ("EntropyBoundScheduler", "EntropyBoundSchedulerOutput"),
        ".schedulers.scheduling_euler_ancestral_discrete": ("EulerAncestralDiscreteScheduler",),
        ".schedulers.scheduling_euler_discrete": ("EulerDiscreteScheduler",),
        ".schedulers.scheduling_flow_map_euler_discrete": ("FlowMapEulerDiscreteScheduler",),
        ".schedulers.scheduling_flow_match_euler_discrete": ("FlowMatchEulerDiscreteScheduler",),
        ".schedulers.scheduling_flow_match_heun_discrete": ("FlowMatchHeunDiscreteScheduler",),
        ".schedulers.scheduling_flow_match_lcm": ("FlowMatchLCMScheduler",),
        ".schedulers.scheduling_helios": ("HeliosScheduler",),
        ".schedulers.scheduling_helios_dmd": ("HeliosDMDScheduler",),
        ".schedulers.scheduling_heun_discrete": ("HeunDiscreteScheduler",),
        ".schedulers.scheduling_ipndm": ("IPNDMScheduler",),
        ".schedulers.scheduling_k_dpm_2_ancestral_discrete": ("KDPM2AncestralDiscreteScheduler",),
        ".schedulers.scheduling_k_dpm_2_discrete": ("KDPM2DiscreteScheduler",),
        ".schedulers.scheduling_lcm": ("LCMScheduler",),
        ".schedulers.scheduling_lms_discrete": ("LMSDiscreteScheduler",),
        ".schedulers.scheduling_ltx_euler_ancestral_rf": ("LTXEulerAncestralRFScheduler",),
        ".schedulers.scheduling_minimax_h3": ("MiniMaxH3Scheduler",),
        ".schedulers.scheduling_piflow": ("PiflowScheduler",),
        ".schedulers.scheduling_pndm": ("PNDMScheduler",),
        ".schedulers.scheduling_repaint": ("RePaintScheduler",),
        ".schedulers.scheduling_rfd4_proteina": ("RFD4ProteinaScheduler",),
        ".schedulers.scheduling_sasolver": ("SASolverScheduler",),
        ".schedulers.scheduling_scm": ("SCMScheduler",),
        ".schedulers.scheduling_sde_ve": ("ScoreSdeVeScheduler",),
        ".schedulers.scheduling_tcd": ("TCDScheduler",),
        ".schedulers.scheduling_unclip": ("UnCLIPScheduler",),
        ".schedulers.scheduling_unipc_multistep": ("UniPCMultistepScheduler",),
        ".schedulers.scheduling_utils": ("SchedulerMixin",),
        ".schedulers.scheduling_vq_diffusion": ("VQDiffusionScheduler",),
        ".text_encoders.clip": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModel", "CLIPVisionModelWithProjection"),
        ".training_utils": ("EMAModel",),
        ".utils": ("logging",),
    },
    modules=("models", "optimization", "pipelines", "schedulers", "training_utils", "utils"),
)
__all__ += ["__version__"]
