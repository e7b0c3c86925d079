"""The denoising loop."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor

Predict = Callable[[Tensor, float, dict[str, Any]], Tensor]


def denoise(
    pipeline: Any,
    timesteps: np.ndarray,
    num_inference_steps: int,
    tensors: dict[str, Any],
    predict: Predict,
    step_kwargs: dict[str, Any],
    callback_on_step_end: Callable | None = None,
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    after_step: Callable[[int, dict[str, Any]], Tensor] | None = None,
    callback: Callable[[int, float, Tensor], None] | None = None,
    callback_steps: int = 1,
    scheduler: Any = None,
) -> Tensor:
    """Denoise `tensors["latents"]` step by step. Nothing in here reads the device.

    Args:
        pipeline: has the `scheduler`, the `progress_bar` and `interrupt`, and is what callbacks are given. Its `current_timestep` becomes
            that of each step.
        timesteps: the scheduler's, on the host.
        num_inference_steps: length of the progress bar.
        tensors: the latents and what else `predict` uses and callbacks may replace, by name. "step" becomes the number of each step;
            "denoised", if it is there, its prediction of the clean latents, for schedulers that give one.
        predict: `predict(latents, timestep, tensors)` gives the prediction that the scheduler steps with.
        step_kwargs: passed to `scheduler.step`.
        callback_on_step_end: `callback(pipeline, step, timestep, {name: tensor})` is called after each step. What it returns replaces
            those of `tensors`. By setting `pipeline._interrupt` it ends the loop.
        callback_on_step_end_tensor_inputs: the names it is given.
        after_step: `after_step(step, tensors)` gives the latents to go on with, before the callback.
        callback: the older kind, of pipelines that take it by name: `callback(step, timestep, latents)` is called when the progress bar
            goes on.
        callback_steps: at every how many steps.
        scheduler: instead of the pipeline's.

    Returns:
        The latents after the last step.
    """
    scheduler = scheduler or pipeline.scheduler
    warmup = len(timesteps) - num_inference_steps * scheduler.order
    with pipeline.progress_bar(total=num_inference_steps) as bar:
        for i, t in enumerate(timesteps.tolist()):
            if pipeline.interrupt:
                break
            tensors["step"], pipeline.current_timestep = i, t
            prediction = predict(tensors["latents"], t, tensors)
            tensors["latents"], *others = scheduler.step(prediction, t, tensors["latents"], **step_kwargs, return_dict=False)
            if "denoised" in tensors:
                tensors["denoised"] = others[0]
            if after_step is not None:
                tensors["latents"] = after_step(i, tensors)
            if callback_on_step_end is not None:
                given = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                changed = callback_on_step_end(pipeline, i, t, given)
                tensors.update({name: changed[name] for name in tensors.keys() & changed.keys()})
            if i == len(timesteps) - 1 or (i + 1 > warmup and (i + 1) % scheduler.order == 0):
                bar.update()
                if callback is not None and i % callback_steps == 0:
                    callback(i // scheduler.order, t, tensors["latents"])
    return tensors["latents"]
