"""Noise schedulers: from a model's predictions to a less noisy sample."""

from ..core.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".scheduling_ddim": ("DDIMScheduler",),
        ".scheduling_dpmsolver_multistep": ("DPMSolverMultistepScheduler",),
        ".scheduling_euler_ancestral_discrete": ("EulerAncestralDiscreteScheduler",),
        ".scheduling_euler_discrete": ("EulerDiscreteScheduler",),
        ".scheduling_heun_discrete": ("HeunDiscreteScheduler",),
        ".scheduling_lms_discrete": ("LMSDiscreteScheduler",),
        ".scheduling_pndm": ("PNDMScheduler",),
        ".scheduling_utils": ("AysSchedules", "KarrasDiffusionSchedulers", "SchedulerMixin"),
    },
)
