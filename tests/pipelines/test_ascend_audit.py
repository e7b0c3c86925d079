"""Every pipeline, lowered for Ascend with tiny models in float16: what it runs is documented for Ascend, each attention is one operator,
and there are no more operators than `ascend_operators.json` says. After a change that needs more:

    python -m tests.pipelines.test_ascend_audit

In bfloat16 the graphs are the same but for the dtype, which is shown for pipelines that have every kind of model between them.
The lowering runs in a process of its own, because MindSpore caches what it parsed for the CPU.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import mindone_diffusers
from mindone_diffusers.backend.lowering import COPY
from mindone_diffusers.pipelines.pipeline_utils import DiffusionPipeline
from tests.cases.dpt import CASES as DPT
from tools.config_folders import Component, write_configs

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).with_name("ascend_operators.json")


def diffusers(name: str, **config) -> Component:
    return "diffusers", name, config


def transformers(name: str, **config) -> Component:
    return "transformers", name, config


# Models

LEVELS = {"sample_size": 16, "block_out_channels": [32, 32], "layers_per_block": 1, "norm_num_groups": 8}
BLOCKS = LEVELS | {
    "attention_head_dim": 2, "cross_attention_dim": 32, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
XL_CONDITION = {
    "use_linear_projection": True, "cross_attention_dim": 64, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}  # fmt: skip
K_BLOCKS = {
    "sample_size": 16, "act_fn": "gelu", "norm_num_groups": None, "block_out_channels": [32, 64, 64], "layers_per_block": 2,
    "in_channels": 8, "out_channels": 5, "time_cond_proj_dim": 128 + 32, "conv_in_kernel": 1, "conv_out_kernel": 1,
    "cross_attention_dim": 32, "attention_head_dim": 16, "resnet_time_scale_shift": "scale_shift", "time_embedding_type": "fourier",
    "timestep_post_act": "gelu", "down_block_types": ["KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"],
    "mid_block_type": None, "up_block_types": ["KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"],
}  # fmt: skip
CONTROL = {key: value for key, value in BLOCKS.items() if key not in ("sample_size", "up_block_types")} | {
    "conditioning_embedding_out_channels": [8, 16]
}
UNION = {"num_trans_channel": 32, "num_trans_head": 2, "num_proj_channel": 32}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100}
NOISE = {"beta_schedule": "scaled_linear", "clip_sample": False, "steps_offset": 1}

PROCESSOR: Component = ("transformers", "CLIPImageProcessor", None)
TOKENIZER: Component = ("transformers", "CLIPTokenizer", None)
SCHEDULER = diffusers("DDIMScheduler", **NOISE)
VISION_MODEL = transformers("CLIPVisionModelWithProjection", **VISION, projection_dim=32)
PROJECTING_TEXT_MODEL = transformers("CLIPTextModelWithProjection", **TEXT, projection_dim=32, hidden_act="gelu")
VAE = {
    "block_out_channels": [32, 32], "norm_num_groups": 8, "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2, "sample_size": 32, "force_upcast": False,
}  # fmt: skip


def unet(**config) -> Component:
    return diffusers("UNet2DConditionModel", **BLOCKS | config)


SD = {
    "text_encoder": transformers("CLIPTextModel", **TEXT), "tokenizer": TOKENIZER, "unet": unet(), "scheduler": SCHEDULER,
    "vae": diffusers("AutoencoderKL", **VAE),
}  # fmt: skip
XL = SD | {"text_encoder_2": PROJECTING_TEXT_MODEL, "tokenizer_2": TOKENIZER, "unet": unet(**XL_CONDITION)}
SAFE = SD | {
    "safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker", {"vision_config": VISION, "projection_dim": 32}),
    "feature_extractor": PROCESSOR,
}  # fmt: skip
UNCLIP = SD | {
    "unet": unet(class_embed_type="projection", projection_class_embeddings_input_dim=64),
    "image_normalizer": ("stable_diffusion", "StableUnCLIPImageNormalizer", {"embedding_dim": 32}),
    "image_noising_scheduler": diffusers("DDPMScheduler", beta_schedule="squaredcos_cap_v2"),
}  # fmt: skip
PRIOR = {
    "prior_text_encoder": PROJECTING_TEXT_MODEL, "prior_tokenizer": TOKENIZER, "prior_scheduler": diffusers("UnCLIPScheduler"),
    "prior": diffusers("PriorTransformer", num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=32),
}  # fmt: skip
CONTROLLED = SD | {"controlnet": diffusers("ControlNetModel", **CONTROL)}
XL_CONTROLLED = XL | {"controlnet": diffusers("ControlNetModel", **CONTROL | XL_CONDITION)}
XL_UNION = XL | {"controlnet": diffusers("ControlNetUnionModel", **CONTROL | XL_CONDITION | UNION)}
ADAPTER = diffusers("T2IAdapter", channels=[32, 32], num_res_blocks=1, downscale_factor=2)
UNCONDITIONAL = {
    "unet": diffusers(
        "UNet2DModel", **LEVELS, attention_head_dim=16, down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
    ),
    "scheduler": SCHEDULER,
}  # fmt: skip

PIPELINES = {
    "DDIMPipeline": UNCONDITIONAL,
    "DDPMPipeline": UNCONDITIONAL | {"scheduler": diffusers("DDPMScheduler")},
    "DiTPipeline": {
        "transformer": diffusers(
            "DiTTransformer2DModel", num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2,
            sample_size=8, num_embeds_ada_norm=10,
        ),
        "vae": SD["vae"], "scheduler": SCHEDULER,
    },
    "LEditsPPPipelineStableDiffusion": SD,
    "LEditsPPPipelineStableDiffusionXL": XL,
    "LatentConsistencyModelImg2ImgPipeline": SD | {"unet": unet(time_cond_proj_dim=32), "scheduler": diffusers("LCMScheduler")},
    "LatentConsistencyModelPipeline": SD | {"unet": unet(time_cond_proj_dim=32), "scheduler": diffusers("LCMScheduler")},
    "StableDiffusionAdapterPipeline": SD | {"adapter": ADAPTER},
    "StableDiffusionControlNetImg2ImgPipeline": CONTROLLED,
    "StableDiffusionControlNetInpaintPipeline": CONTROLLED,
    "StableDiffusionControlNetPAGInpaintPipeline": CONTROLLED,
    "StableDiffusionControlNetPAGPipeline": CONTROLLED,
    "StableDiffusionControlNetPipeline": CONTROLLED,
    "StableDiffusionDepth2ImgPipeline": SD | {
        "unet": unet(in_channels=5), "depth_estimator": transformers("DPTForDepthEstimation", **DPT["hybrid"]["config"]),
        "feature_extractor": ("transformers", "DPTImageProcessor", None),
    },
    "StableDiffusionImageVariationPipeline": {name: SD[name] for name in ("unet", "vae", "scheduler")} | {
        "image_encoder": VISION_MODEL, "feature_extractor": PROCESSOR,
    },
    "StableDiffusionImg2ImgPipeline": SD,
    "StableDiffusionInpaintPipeline": SD | {"unet": unet(in_channels=9)},
    "StableDiffusionInstructPix2PixPipeline": SD | {"unet": unet(in_channels=8)},
    "StableDiffusionLatentUpscalePipeline": SD | {
        "unet": diffusers("UNet2DConditionModel", **K_BLOCKS), "scheduler": diffusers("EulerDiscreteScheduler", prediction_type="sample"),
    },
    "StableDiffusionPAGImg2ImgPipeline": SD,
    "StableDiffusionPAGInpaintPipeline": SD,
    "StableDiffusionPAGPipeline": SD,
    "StableDiffusionPipeline": SAFE,
    "StableDiffusionUpscalePipeline": SD | {
        "unet": unet(in_channels=7, num_class_embeds=1000), "low_res_scheduler": diffusers("DDPMScheduler"),
    },
    "StableDiffusionXLAdapterPipeline": XL | {"adapter": ADAPTER},
    "StableDiffusionXLControlNetImg2ImgPipeline": XL_CONTROLLED,
    "StableDiffusionXLControlNetInpaintPipeline": XL_CONTROLLED,
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": XL_CONTROLLED,
    "StableDiffusionXLControlNetPAGPipeline": XL_CONTROLLED,
    "StableDiffusionXLControlNetPipeline": XL_CONTROLLED,
    "StableDiffusionXLControlNetUnionImg2ImgPipeline": XL_UNION,
    "StableDiffusionXLControlNetUnionInpaintPipeline": XL_UNION,
    "StableDiffusionXLControlNetUnionPipeline": XL_UNION,
    "StableDiffusionXLImg2ImgPipeline": XL,
    "StableDiffusionXLInpaintPipeline": XL,
    "StableDiffusionXLInstructPix2PixPipeline": XL | {"unet": unet(**XL_CONDITION, in_channels=8)},
    "StableDiffusionXLPAGImg2ImgPipeline": XL,
    "StableDiffusionXLPAGInpaintPipeline": XL,
    "StableDiffusionXLPAGPipeline": XL,
    "StableDiffusionXLPipeline": XL,
    "StableUnCLIPImg2ImgPipeline": UNCLIP | {"image_encoder": VISION_MODEL, "feature_extractor": PROCESSOR},
    "StableUnCLIPPipeline": UNCLIP | PRIOR,
}  # fmt: skip
OPTIONS = {"StableDiffusionPipeline": {"requires_safety_checker": True}}

# They have every kind of model between them.
IN_BFLOAT16 = (
    "DDIMPipeline", "DiTPipeline", "StableDiffusionPipeline", "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionDepth2ImgPipeline",
    "StableDiffusionLatentUpscalePipeline", "StableDiffusionXLAdapterPipeline", "StableDiffusionXLControlNetUnionPipeline",
    "StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline",
)  # fmt: skip


def lower_all(pipelines) -> dict[str, dict[str, dict]]:
    """What there is to say of each pipeline's cores, by name and the shape of their first input."""
    from mindone_diffusers.pipelines.audit import audit

    results, graphs = {}, {"float16": {}, "bfloat16": {}}
    for name in pipelines:
        dtypes = ("float16", "bfloat16") if name in IN_BFLOAT16 else ("float16",)
        with tempfile.TemporaryDirectory() as folder:
            write_configs(Path(folder), name, PIPELINES[name], **OPTIONS.get(name, {}))
            audited = {dtype: audit(folder, dtype=dtype, graphs=graphs[dtype]) for dtype in dtypes}
        results[name] = {
            f"{core.name} {core.inputs[0]}": {
                "model": core.model, "operators": core.operators, "fused": core.fused_attentions, "layers": core.attention_layers,
                "problems": core.problems, "in bfloat16": in_bfloat16(core),
            }
            for core in audited["float16"]
        }  # fmt: skip
        for core, other in zip(*audited.values()) if name in IN_BFLOAT16 else ():
            results[name][f"{core.name} {core.inputs[0]}"]["same in bfloat16"] = renamed(core.graph) == renamed(other.graph)
    return results


def renamed(value):
    """A graph's float16 as bfloat16."""
    from mindone_diffusers.backend.lowering import Graph, Node, TensorType

    if isinstance(value, Node) and value.operator == "Cast":  # to a dtype by its number, which the output has by its name
        value = value._replace(inputs=value.inputs[:1])
    if isinstance(value, (Graph, Node, TensorType)):
        return type(value)(*map(renamed, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(renamed, value))
    return "bfloat16" if value == "float16" else value


def in_bfloat16(core) -> list[str]:
    """The problems that the core would have in bfloat16."""
    from mindone_diffusers.backend.lowering import problems

    return problems(renamed(core.graph).nodes)


def run(*pipelines: str) -> dict[str, dict[str, dict]]:
    """`lower_all` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        command = [sys.executable, "-m", "tests.pipelines.test_ascend_audit", str(path), *pipelines]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "GLOG_v": "3"})
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(path.read_text())


@pytest.fixture(scope="module")
def results():
    return run(*PIPELINES)


@pytest.fixture(scope="module")
def baseline():
    return json.loads(BASELINE.read_text())


def test_every_pipeline_is_here(baseline):
    kinds = {name: getattr(mindone_diffusers, name) for name in mindone_diffusers.__all__ if name.endswith("Pipeline") or "LEdits" in name}
    assert {name for name, kind in kinds.items() if issubclass(kind, DiffusionPipeline)} - {"DiffusionPipeline"} == set(PIPELINES)
    assert set(baseline) == set(PIPELINES)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline(name, results, baseline):
    assert results[name].keys() == baseline[name].keys()
    for core, result in results[name].items():
        assert result["problems"] == result["in bfloat16"] == [], core
        assert result["fused"] == result["layers"], core
        assert result.get("same in bfloat16", True), f"{core}: in bfloat16 the graph differs by more than the dtype"
        now, before = result["operators"], baseline[name][core]
        assert COPY not in now, f"{core}: weights are read again after a view"
        more = {name: f"{before.get(name, 0)} -> {count}" for name, count in now.items() if count > before.get(name, 0)}
        assert sum(now.values()) <= sum(before.values()), f"{core}: more operators than the baseline, see this file's top: {more}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kind_of_model_is_lowered_in_bfloat16(results):
    models = {name: {core["model"] for core in cores.values()} for name, cores in results.items()}
    assert set().union(*models.values()) == set().union(*(models[name] for name in IN_BFLOAT16))


def main() -> None:
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(lower_all(sys.argv[2:])))
        return
    lines = []
    for name, cores in run(*PIPELINES).items():
        counts = ",\n".join(f"  {json.dumps(core)}: {json.dumps(result['operators'])}" for core, result in cores.items())
        lines.append(f" {json.dumps(name)}: {{\n{counts}\n }}")
    BASELINE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
