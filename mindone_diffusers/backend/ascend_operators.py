"""What is documented of Ascend's operators: where, for which dtypes, and what fused attention takes.

The source is MindSpore 2.8's own documentation; `lowering.problems` holds graphs against it, and `attention.choose` decides by it.
"""

from typing import NamedTuple

# Ascend's operators, by the public function (under `mindspore`) whose documentation lists Ascend among its platforms.
SOURCES = {
    "Add": "mint.add",
    "ArgMaxExt": "mint.argmax",
    "AvgPool2D": "mint.nn.functional.avg_pool2d",
    "BatchMatMul": "ops.BatchMatMul",
    "BatchNormExt": "mint.nn.functional.batch_norm",
    "BroadcastTo": "mint.broadcast_to",
    "Cast": "ops.cast",
    "ChunkView": "mint.chunk",
    "ClampScalar": "mint.clamp",
    "Concat": "mint.cat",
    "ConstantPadND": "mint.nn.functional.pad",
    "Conv2DExt": "mint.nn.functional.conv2d",
    "Conv3DExt": "mint.nn.functional.conv3d",
    "ConvTranspose2D": "mint.nn.functional.conv_transpose2d",
    "Cos": "mint.cos",
    "CumsumExt": "mint.cumsum",
    "Dense": "mint.nn.functional.linear",
    "Div": "mint.div",
    "EluExt": "mint.nn.functional.elu",
    "Equal": "mint.eq",
    "ExpandDims": "ops.expand_dims",
    "FlashAttentionScore": "ops.flash_attention_score",
    "FusedInferAttentionScore": "ops.fused_infer_attention_score",
    "Gather": "ops.gather",
    "GeluExt": "mint.nn.functional.gelu",
    "Greater": "mint.gt",
    "GreaterEqual": "mint.greater_equal",
    "GroupNorm": "mint.nn.functional.group_norm",
    "LayerNormExt": "mint.nn.functional.layer_norm",
    "LeakyReLUExt": "mint.nn.functional.leaky_relu",
    "Log": "mint.log",
    "LogicalAnd": "mint.logical_and",
    "LogicalNot": "mint.logical_not",
    "LogicalOr": "mint.logical_or",
    "MaxPoolWithMask": "mint.nn.functional.max_pool2d",
    "MishExt": "mint.nn.functional.mish",
    "Mul": "mint.mul",
    "Muls": "mint.mul",
    "PadV3": "ops.pad",
    "PromptFlashAttention": "ops.prompt_flash_attention",
    "ReLU": "mint.nn.functional.relu",
    "ReduceAny": "mint.any",
    "ReduceMean": "mint.mean",
    **dict.fromkeys(("ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D"), "mint.nn.functional.pad"),
    "RepeatInterleaveInt": "mint.repeat_interleave",
    **dict.fromkeys(("ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D"), "mint.nn.functional.pad"),
    "Reshape": "ops.reshape",
    "RmsNorm": "ops.rms_norm",
    "Select": "mint.where",
    "SiLU": "mint.nn.functional.silu",
    "Sigmoid": "mint.sigmoid",
    "Sin": "mint.sin",
    "Softmax": "mint.nn.functional.softmax",
    "SoftplusExt": "mint.nn.functional.softplus",
    "SplitTensorView": "mint.split",
    "SplitWithSizeView": "mint.split",
    "Sqrt": "mint.sqrt",
    "Squeeze": "ops.squeeze",
    "StackExt": "mint.stack",
    "StridedSlice": "ops.strided_slice",
    "Sub": "mint.sub",
    "SumExt": "mint.sum",
    "Tanh": "mint.tanh",
    "Transpose": "mint.permute",
    "Triu": "mint.triu",
    **dict.fromkeys(("UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleLinear1D"), "mint.nn.functional.interpolate"),
    **dict.fromkeys(("UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D"), "mint.nn.functional.interpolate"),
    "UpsampleTrilinear3D": "mint.nn.functional.interpolate",
}

HALF = ("float16", "bfloat16")
FLOATS = (*HALF, "float32")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")

# The dtypes an operator takes. Where its documentation lists none, or all numbers, float64 is left out, of which the NPU has no kernels.
ANY_DTYPE = (*FLOATS, *INTEGERS, "bool")
DTYPES = {
    "BatchNormExt": FLOATS,
    "EluExt": FLOATS,
    "GeluExt": FLOATS,
    "MaxPoolWithMask": ("float32",),
    "MishExt": ("float16", "float32"),
    "RepeatInterleaveInt": ("float16", "float32", *INTEGERS),
    "RmsNorm": FLOATS,
    "SiLU": ("float16", "float32"),
    "Sigmoid": ("float16", "float32"),
    "SoftplusExt": FLOATS,
}

# Operators whose documentation leaves bfloat16 out, though the bfloat16 models of MindSpore's Transformers and mindone run them on Ascend.
BFLOAT16_UNDOCUMENTED = ("SiLU", "Sigmoid")

# Operators whose floating inputs have to be of one dtype: normalisations by their documentation, the others because nothing promotes them.
ONE_DTYPE = (
    "BatchMatMul", "Conv2DExt", "Conv3DExt", "ConvTranspose2D", "Dense", "GroupNorm", "LayerNormExt", "RmsNorm",
)  # fmt: skip


class FusedAttention(NamedTuple):
    """Attention in one operator, and its documented limits.

    Attributes:
        operator: its name in a graph.
        bias, discard, heads: where the bias, the mask and the number of heads are among its inputs.
        tokens_first: whether it is called with tensors (batch, tokens, heads, size), or (batch, heads, tokens, size).
        mask_by_head: whether each head may have a mask of its own.
        max_group: how many heads of the query may share one of the key; None for any number.
    """

    operator: str
    bias: int
    discard: int
    heads: int
    tokens_first: bool = False
    mask_by_head: bool = False
    max_group: int | None = 64

    def refusal(self, dtype: str, query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...]) -> str | None:
        """What it takes and inputs of this dtype and these shapes (batch, heads, tokens, size) are not; None if they are."""
        heads, size = query[1], query[3]
        if dtype not in HALF:
            return f"float16 and bfloat16, not {dtype}: load the model with mindspore_dtype=mindspore.float16"
        if size > MAX_HEAD_SIZE or value[3] != size:
            return f"heads of one size, at most {MAX_HEAD_SIZE}, for query and value, not {size} and {value[3]}"
        if heads > MAX_HEADS:
            return f"at most {MAX_HEADS} heads, not {heads}"
        if self.max_group is not None and heads > self.max_group * key[1]:
            return f"at most {self.max_group} heads of the query for one of the key, not {heads} for {key[1]}"
        return None


# Attention's limits in any of its operators. Smaller heads are padded to the multiple (`ascend.attention`).
HEAD_SIZE_MULTIPLE, MAX_HEAD_SIZE, MAX_HEADS = 16, 512, 256

# By the name of the kernel that `attention.choose` chooses.
FUSED_ATTENTION = {
    "flash": FusedAttention("FlashAttentionScore", bias=3, discard=6, heads=10, tokens_first=True, mask_by_head=True, max_group=None),
    "prompt_flash": FusedAttention("PromptFlashAttention", bias=6, discard=3, heads=12),
    "fused_infer": FusedAttention("FusedInferAttentionScore", bias=3, discard=4, heads=24),
}
