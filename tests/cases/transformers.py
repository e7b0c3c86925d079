"""Transformers: the prior of unCLIP and DiT, with what each entry of their configs does."""

_PRIOR = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 12, "num_embeddings": 7}
_TEXT = {"proj_embedding": (2, 12), "encoder_hidden_states": (2, 7, 12)}
_MASK = ("array", [[True, True, True, True, False, False, False], [True, True, False, False, False, False, False]])
_NORMS = {"norm_in_type": "layer", "embedding_proj_norm_type": "layer"}


def _prior(config: dict, inputs: dict, hidden_states: tuple[int, ...] = (2, 12), timestep=("array", [999, 3]), **more) -> dict:
    inputs = {"hidden_states": hidden_states, "timestep": timestep, **inputs}
    return {"class": "PriorTransformer", "config": {**_PRIOR, **config}, "inputs": inputs, **more}


_DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3, "sample_size": 8, "num_embeds_ada_norm": 10}


def _dit(config: dict, side: int = 8, timestep=("array", [999, 3]), **more) -> dict:
    config = {**_DIT, **config}
    inputs = {"hidden_states": (2, config.get("in_channels", 4), side, side), "timestep": timestep, "class_labels": ("int", (2,), 11)}
    return {"class": "DiTTransformer2DModel", "config": config, "inputs": inputs, **more}


CASES = {
    "prior": _prior({}, {**_TEXT, "attention_mask": _MASK}, graph=True, float16=True),
    "prior_without_mask": _prior({}, _TEXT, timestep=20),
    "prior_sizes": _prior(
        {**_NORMS, "time_embed_act_fn": "gelu", "time_embed_dim": 24, "embedding_proj_dim": 10, "clip_embed_dim": 6},
        {**_TEXT, "proj_embedding": (2, 10), "attention_mask": _MASK},
    ),
    # As many positions as noisy embeddings: the others have none (Shap-E).
    "prior_shap_e": _prior(
        {
            **_NORMS, "num_embeddings": 5, "additional_embeddings": 0, "encoder_hid_proj_type": None, "added_emb_type": None,
            "time_embed_act_fn": "gelu", "time_embed_dim": 24, "embedding_proj_dim": 10,
        },
        {"proj_embedding": (2, 10)}, (2, 5, 12), graph=True,
    ),
    "prior_some_positions": _prior({"num_embeddings": 2, "additional_embeddings": 1}, _TEXT, (2, 3, 12)),
    "prior_without_prd": _prior({"added_emb_type": None, "additional_embeddings": 3}, {**_TEXT, "attention_mask": _MASK}),
    "prior_text_as_it_is": _prior(
        {"encoder_hid_proj_type": None}, {**_TEXT, "encoder_hidden_states": (2, 7, 16), "attention_mask": _MASK}
    ),
    "prior_several_projections": _prior({"additional_embeddings": 6}, {**_TEXT, "proj_embedding": (2, 3, 12), "attention_mask": _MASK}),
    "dit": _dit({}, graph=True, float16=True),
    "dit_other_size": _dit({}, side=12, timestep=("array", [20]), graph=True),
    "dit_variances": _dit({"out_channels": 8, "in_channels": 3, "patch_size": 4, "attention_bias": False}),
    "dit_options": _dit(
        {"activation_fn": "geglu", "upcast_attention": True, "norm_elementwise_affine": True, "norm_eps": 1e-3, "num_layers": 1}
    ),
}  # fmt: skip
