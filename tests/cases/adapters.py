"""T2IAdapter: its three kinds, on tiny models. Odd sizes after the first cells are rounded up."""


def _adapter(config: dict, image: tuple[int, ...], **more) -> dict:
    return {"class": "T2IAdapter", "config": config, "inputs": {"x": image}, **more}


CASES = {
    "full": _adapter({"channels": [8, 16, 24, 24], "downscale_factor": 4}, (2, 3, 64, 32), graph=True, float16=True),
    "full_odd_sizes": _adapter({"channels": [8, 16, 16], "downscale_factor": 2, "num_res_blocks": 1, "in_channels": 1}, (1, 1, 22, 14)),
    "full_one_feature": _adapter({"channels": [8], "downscale_factor": 8, "num_res_blocks": 3}, (1, 3, 16, 24)),
    "xl": _adapter(
        {"channels": [8, 16, 24, 24], "downscale_factor": 4, "adapter_type": "full_adapter_xl"}, (2, 3, 32, 40), graph=True, float16=True
    ),
    "xl_three_features": _adapter(
        {"channels": [8, 8, 16], "downscale_factor": 2, "adapter_type": "full_adapter_xl", "num_res_blocks": 1}, (1, 3, 10, 6), graph=True
    ),
    "light": _adapter(
        {"channels": [8, 16, 24], "downscale_factor": 4, "adapter_type": "light_adapter", "num_res_blocks": 3}, (2, 3, 64, 32), graph=True,
        float16=True,
    ),
    "light_odd_sizes": _adapter(
        {"channels": [8, 12], "downscale_factor": 2, "adapter_type": "light_adapter", "num_res_blocks": 1, "in_channels": 1}, (1, 1, 10, 14)
    ),
}  # fmt: skip
