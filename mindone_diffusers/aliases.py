"""Import paths of PyTorch diffusers that our folders do not have, and the modules that serve them."""

ALIASES = {
    "configuration_utils": "core.configuration",
    "models.attention_processor": "models.attention",
    "models.autoencoder_kl": "models.autoencoders.autoencoder_kl",
    "models.controlnet": "models.controlnets.controlnet",
    "models.unet_2d": "models.unets.unet_2d",
    "models.unet_2d_blocks": "models.unets.unet_2d_blocks",
    "models.unet_2d_condition": "models.unets.unet_2d_condition",
    "models.vae": "models.autoencoders.vae",
    "pipeline_utils": "pipelines.pipeline_utils",
    "pipelines.controlnet.multicontrolnet": "models.controlnets.multicontrolnet",
    "utils.logging": "core.logging",
    "utils.outputs": "core.outputs",
    "utils.torch_utils": "core.random",
}
