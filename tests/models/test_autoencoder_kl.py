"""AutoencoderKL: what the reference cases do not show."""

import numpy as np
from safetensors.numpy import load_file, save_file

from mindone_diffusers import AutoencoderKL


def test_checkpoints_from_before_diffusers_0_12(tmp_path) -> None:
    """Stable Diffusion 1's own files call the attention's projections query, key, value and proj_attn."""
    vae = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    vae.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in load_file(file).items():
        for new, former in names.items():
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = value
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in old
    save_file(old, file)
    loaded = AutoencoderKL.from_pretrained(tmp_path).state_dict()
    for name, parameter in vae.state_dict().items():
        np.testing.assert_array_equal(loaded[name].asnumpy(), parameter.asnumpy())
