"""The original's architecture options as our model configs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from arith_jax.config.model import McLeishConfig, ModelConfig

# Options with one meaning here. Everything else about them is refused by name.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "input_injection_type": ("add",),
    "state_init": ("embed",),
    "norm": ("LayerNorm",),
    "norm_scheme": ("post",),
    "nonlin": ("GELUglu",),
    "sub_normalization": (False,),
    "tie_weights": (False,),
    "decoder_bias": (False,),
    "use_bias": (False,),
    "final_norm": (True,),
    "head": ("ffn",),
    "objective_layout": ("TBPTT",),
    "mask_before_equals": (True, False),
    "loss_reduction": ("mean", "none"),
    "embedding.normalization": (True,),
    "embedding.pos_embedding": ("abacus", "learned", "None", None),
    "attention.type": ("pytorch", "self-attention"),
    "attention.rotary_embedding": (False, True, "fire"),
    "attention.skip_output_projection": (False,),
    "attention.qkv_bias": (False,),
    "attention.bias_in_proj": (False,),
    "attention.sequence_op": ("torch-softmax",),
    "attention.sub_normalization": (False,),
    "init.type": ("deepnorm-straight",),
}


def check_supported(arch: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming the first option this package does not have."""
    for path, allowed in SUPPORTED.items():
        section: Any = arch
        *parents, name = path.split(".")
        for parent in parents:
            section = section.get(parent, {})
        if name not in section:
            continue
        value = section[name]
        if not any(value == other and type(value) is type(other) for other in allowed):
            raise ValueError(
                f"model_config.json: {path}={value!r} is not supported; allowed: "
                f"{', '.join(map(repr, allowed))}"
            )
    attention, embedding = arch["attention"], arch["embedding"]
    if attention["type"] == "pytorch" and attention.get("rotary_embedding"):
        raise ValueError(
            "model_config.json: attention.rotary_embedding="
            f"{attention['rotary_embedding']!r} needs attention.type='self-attention'"
        )
    if embedding["embedding_dim"] != arch["hidden_size"]:
        raise ValueError(
            f"model_config.json: embedding.embedding_dim={embedding['embedding_dim']} "
            f"is not supported; it must equal hidden_size={arch['hidden_size']}"
        )


def model_config(arch: Mapping[str, Any]) -> ModelConfig:
    """Our model for a resolved architecture of the original.

    Raises:
        ValueError: If an option is not supported.
    """
    check_supported(arch)
    embedding, attention = arch["embedding"], arch["attention"]
    positions = []
    if embedding.get("pos_embedding") in ("abacus", "learned"):
        positions.append(embedding["pos_embedding"])
    rotary = attention.get("rotary_embedding", False)
    if rotary:
        positions.append("fire" if rotary == "fire" else "rope")
    by_layer = arch.get("forward_only_model_with_skip", False)
    randomized = arch.get("initial_hidden_randomized", True)
    return ModelConfig(
        width=arch["hidden_size"],
        num_heads=attention["num_attention_heads"],
        mlp_width=arch["intermed_size"],
        num_layers=arch["layers_in_recurrent_block"],
        num_recurrences=arch["maximal_recurrence"],
        # A plain standard transformer injects once too, before its first layer.
        injection="layer" if by_layer else "recurrence",
        initial_state="noise" if randomized else "embedding",
        positions=tuple(positions),
        # Without FIRE the original does not look at it.
        fire_max_length=attention.get("max_length", 0) if rotary == "fire" else 0,
        table_size=embedding["max_seq_length"],
        abacus_far="bias",
        norm="post",
        # The original's 1e-12; a library default of 1e-6 changes logits by up to 1e-2.
        norm_eps=arch["norm_eps"],
        mcleish=McLeishConfig(
            head_mlp=True,
            adapter=True,
            deepnorm=True,
            qkv_gain_quirk=attention["type"] == "self-attention",
        ),
        qk_norm=False,
        vocab_size=embedding["vocab_size"],
    )


def max_backprop(arch: Mapping[str, Any]) -> int:
    """Largest number of recurrences with gradient."""
    return arch.get("max_backprop") or max(arch["maximal_recurrence"] // 2, 1)


def architecture(config: ModelConfig, max_backprop: int) -> dict[str, Any]:
    """The original's architecture that is a model of ours.

    Raises:
        ValueError: If the original has no such model; names the options that differ.
    """
    rotary: bool | str = "rope" in config.positions
    if "fire" in config.positions:
        rotary = "fire"
    tables = [name for name in ("abacus", "learned") if name in config.positions]
    arch: dict[str, Any] = {
        "model_type": "ScriptableCrammedDepthRecurrent",
        "layers_in_recurrent_block": config.num_layers,
        "maximal_recurrence": config.num_recurrences,
        "max_backprop": max_backprop,
        "maximal_recurrence_in_eval": config.num_recurrences,
        "hidden_size": config.width,
        "intermed_size": config.mlp_width,
        "initial_hidden_randomized": config.initial_state == "noise",
        "norm_eps": config.norm_eps,
        "throttle": False,
        "alpha": 1.0,
        "local_compilation": True,
        "forward_only_model_with_skip": config.injection == "layer",
        "embedding": {
            "vocab_size": config.vocab_size,
            "pos_embedding": tables[0] if tables else "None",
            "max_seq_length": config.table_size,
            "embedding_dim": config.width,
            "stable_low_precision": False,
            "max_abacus_len": 100,
        },
        "attention": {
            "type": "self-attention" if rotary else "pytorch",
            "num_attention_heads": config.num_heads,
            "rotary_embedding": rotary,
            "max_length": config.fire_max_length,
            "seq_op_in_fp32": False,
        },
        "init": {"std": 0.02},
    }
    for path, allowed in SUPPORTED.items():
        *parents, name = path.split(".")
        section = arch[parents[0]] if parents else arch
        section.setdefault(name, allowed[0])
    # The window means nothing to such a model and leaves no trace in a checkpoint.
    theirs = dataclasses.asdict(
        dataclasses.replace(model_config(arch), abacus_window=config.abacus_window)
    )
    differing = [
        f"{name}={value!r} (there {theirs[name]!r})"
        for name, value in dataclasses.asdict(config).items()
        if value != theirs[name]
    ]
    if differing:
        raise ValueError(f"the original has no model with {', '.join(differing)}")
    return arch
