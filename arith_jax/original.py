"""The original's architecture options, tensor names and layouts, to ours and back.

Source: mcleish7/arithmetic @ 86022a5. Linear weights are [out, in] there, except the
adapter. Imports `model_config`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from arith_jax.model_config import ModelConfig

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
    "mask_before_equals": (True,),
    "loss_reduction": ("mean", "none"),
    "embedding.normalization": (True,),
    "embedding.pos_embedding": ("abacus", "learned", "None", None),
    "attention.type": ("pytorch", "self-attention"),
    "attention.rotary_embedding": (False, True, "fire"),
    "attention.skip_output_projection": (False,),
    "attention.qkv_bias": (False,),
    "attention.bias_in_proj": (False,),
    "attention.max_length": (0,),
    "attention.sequence_op": ("torch-softmax",),
    "attention.sub_normalization": (False,),
    "init.type": ("deepnorm-straight",),
}
# Tensors that are no parameters: kept as they came, or made anew.
BUFFERS = ("position_ids", "norm_factor", "inv_freq", "init_L")


@dataclasses.dataclass(frozen=True)
class Original:
    """A checkpoint of the original as our model, with what only it needs.

    Attributes:
        config: Our model; the initial state is what `initial_hidden_randomized` says.
        params: Our parameters.
        arch: `model_config.json` as read.
        buffers: Its tensors that are no parameters, by their own names.
        compiled: Whether names have the `_orig_mod` part of `torch.compile`.
    """

    config: ModelConfig
    params: dict[str, Any]
    arch: Mapping[str, Any]
    buffers: Mapping[str, np.ndarray]
    compiled: bool


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


def config_of(arch: Mapping[str, Any]) -> ModelConfig:
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
    recurrences = arch["maximal_recurrence"]
    by_layer = arch.get("forward_only_model_with_skip", False)
    randomized = arch.get("initial_hidden_randomized", True)
    return ModelConfig(
        vocab_size=embedding["vocab_size"],
        width=arch["hidden_size"],
        heads=attention["num_attention_heads"],
        mlp_width=arch["intermed_size"],
        layers=arch["layers_in_recurrent_block"],
        recurrences=recurrences,
        max_backprop=arch.get("max_backprop") or max(recurrences // 2, 1),
        # A plain standard transformer injects once too, before its first layer.
        injection="layer" if by_layer else "recurrence",
        initial_state="noise" if randomized else "embedding",
        positions=tuple(positions),
        table_size=embedding["max_seq_length"],
        abacus_window=2,
        abacus_far="bias",
        position_levels=1,
        norm="post",
        # The original's 1e-12; a library default of 1e-6 changes logits by up to 1e-2.
        norm_eps=arch["norm_eps"],
        head_mlp=True,
        adapter=True,
        init="deepnorm",
        qkv_gain_quirk=attention["type"] == "self-attention",
        qk_norm=False,
        qk_gain=1.0,
        length_scale=False,
        key_noise=0.0,
        dtype="float32",
        unroll=False,
        kernels=True,
    )


def layer_prefix(config: ModelConfig, layer: int, compiled: bool) -> str:
    """Where the original keeps the parameters of a layer."""
    part = "_orig_mod." if compiled else ""
    if config.injection == "layer":
        return f"encoder.recurrent_blocks.{layer}.{part}layers.0."
    return f"encoder.recurrent_block.{part}layers.{layer}."


def split_qkv(weight: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """[3H, H] rows of the original as our [H, 3, H] kernel.

    `by_head`: head i owns rows 3di to 3d(i+1), its q, k and v (`self-attention`);
    else rows are all of Q, then K, then V (`pytorch`).
    """
    width = weight.shape[1]
    if by_head:
        parts = weight.reshape(heads, 3, width // heads, width).transpose(1, 0, 2, 3)
        weight = parts.reshape(3 * width, width)
    return weight.reshape(3, width, width).transpose(2, 0, 1)


def join_qkv(kernel: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """The inverse of `split_qkv`."""
    width = kernel.shape[0]
    weight = kernel.transpose(1, 2, 0)
    if by_head:
        weight = weight.reshape(3, heads, width // heads, width).transpose(1, 0, 2, 3)
    return weight.reshape(3 * width, width)


def norm_names(name: str, ours: str) -> list[tuple[str, str]]:
    """LayerNorm weight and bias."""
    return [
        (f"{name}.weight", f"{ours}/LayerNorm_0/scale"),
        (f"{name}.bias", f"{ours}/LayerNorm_0/bias"),
    ]


def outer_names(config: ModelConfig) -> list[tuple[str, str]]:
    """Names outside the layers: the original's and ours."""
    table = "encoder.embedding.pos_embedding.embedding.weight"
    names = [("encoder.embedding.word_embedding.weight", "token/embedding")]
    for scheme in ("abacus", "learned"):
        if scheme in config.positions:
            names.append((table, f"{scheme}/embedding"))
    names += norm_names("encoder.embedding.norm", "embed_norm")
    names += [
        ("encoder.head.dense_in.weight", "head_mlp/in/kernel"),
        ("encoder.head.dense_out.weight", "head_mlp/out/kernel"),
    ]
    names += norm_names("encoder.final_norm", "final_norm")
    return [
        *names,
        ("adapter.weight", "adapter/kernel"),
        ("decoder.weight", "decoder/kernel"),
    ]


def layer_names(config: ModelConfig, by_head: bool) -> list[tuple[str, str]]:
    """Names inside a layer: the original's and ours."""
    inner = "attn." if by_head else "attn.attn."
    names = [
        (f"{inner}in_proj_weight", "attention/qkv_kernel"),
        (f"{inner}out_proj.weight", "attention/out/kernel"),
        ("ffn.dense_in.weight", "mlp/in/kernel"),
        ("ffn.dense_out.weight", "mlp/out/kernel"),
        *norm_names("residual1.norm", "attention_norm"),
        *norm_names("residual2.norm", "mlp_norm"),
    ]
    if "fire" in config.positions:
        fire = "attn.rotary_emb."
        names += [
            (f"{fire}c", "attention/fire/slope"),
            (f"{fire}L_multiplier", "attention/fire/multiplier"),
            (f"{fire}mlp.0.weight", "attention/fire/hidden/kernel"),
            (f"{fire}mlp.0.bias", "attention/fire/hidden/bias"),
            (f"{fire}mlp.2.weight", "attention/fire/out/kernel"),
            (f"{fire}mlp.2.bias", "attention/fire/out/bias"),
        ]
    return names


def ours_from(name: str, tensor: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """A tensor of the original as ours: linear weights are [out, in] there.

    The adapter alone is applied untransposed (h A), so it stays as it is.
    """
    if name == "attention/qkv_kernel":
        return split_qkv(tensor, heads, by_head)
    return tensor.T if is_transposed(name) else tensor


def theirs_from(name: str, tensor: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """The inverse of `ours_from`."""
    if name == "attention/qkv_kernel":
        return np.ascontiguousarray(join_qkv(tensor, heads, by_head))
    return np.ascontiguousarray(tensor.T) if is_transposed(name) else tensor


def is_transposed(name: str) -> bool:
    """Whether the original keeps this matrix as [out, in]."""
    return name.endswith("/kernel") and name != "adapter/kernel"


def set_leaf(tree: dict[str, Any], name: str, value: Any) -> None:
    """Stores a leaf under a path with slashes."""
    *parents, last = name.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def get_leaf(tree: Any, name: str) -> Any:
    """The leaf under a path with slashes."""
    for part in name.split("/"):
        tree = tree[part]
    return tree


def from_original(
    tensors: Mapping[str, np.ndarray], arch: Mapping[str, Any]
) -> Original:
    """Our model and parameters from the original's tensors.

    Raises:
        ValueError: If an option is not supported, or tensors are missing, left over or
            of another shape.
    """
    config = config_of(arch)
    by_head = arch["attention"]["type"] == "self-attention"
    compiled = any("_orig_mod." in name for name in tensors)
    left = dict(tensors)
    params: dict[str, Any] = {}

    def take(name: str, ours: str) -> np.ndarray:
        if name not in left:
            raise ValueError(f"model.safetensors: tensor {name!r} is missing")
        return ours_from(ours, left.pop(name), config.heads, by_head)

    for name, ours in outer_names(config):
        set_leaf(params, ours, jnp.array(take(name, ours)))
    for name, ours in layer_names(config, by_head):
        stack = [
            take(layer_prefix(config, layer, compiled) + name, ours)
            for layer in range(config.layers)
        ]
        set_leaf(params, f"layers/{ours}", jnp.array(np.stack(stack)))
    buffers = {
        name: left.pop(name) for name in list(left) if name.split(".")[-1] in BUFFERS
    }
    for name, tensor in buffers.items():
        if name.endswith("init_L") and float(tensor) != 512.0:
            raise ValueError(f"model.safetensors: {name}={float(tensor)}; allowed: 512")
    if left:
        raise ValueError(f"model.safetensors: unknown tensors {sorted(left)}")
    return Original(config, params, arch, buffers, compiled)


def to_original(
    config: ModelConfig,
    params: Any,
    by_head: bool,
    compiled: bool = True,
    buffers: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Our parameters, or their gradients, under the original's names and layouts.

    Args:
        config: A model that the original has: built by `config_of`.
        params: Parameters, or a tree of their shape.
        by_head: Attention layout, True for `self-attention`.
        compiled: Whether names get the `_orig_mod` part.
        buffers: The original's own buffers; None writes parameters only.
    """
    found: dict[str, np.ndarray] = dict(buffers or {})
    for name, ours in outer_names(config):
        leaf = np.asarray(get_leaf(params, ours))
        found[name] = theirs_from(ours, leaf, config.heads, by_head)
    for name, ours in layer_names(config, by_head):
        stack = np.asarray(get_leaf(params, f"layers/{ours}"))
        for layer, leaf in enumerate(stack):
            where = layer_prefix(config, layer, compiled) + name
            found[where] = theirs_from(ours, np.asarray(leaf), config.heads, by_head)
    return found


def new_buffers(
    config: ModelConfig, by_head: bool, compiled: bool
) -> dict[str, np.ndarray]:
    """The buffers the original would make for this model."""
    found: dict[str, np.ndarray] = {}
    if {"abacus", "learned"} & set(config.positions):
        ids = np.arange(config.table_size, dtype=np.int64)[None]
        found["encoder.embedding.pos_embedding.position_ids"] = ids
    for layer in range(config.layers) if by_head else ():
        prefix = layer_prefix(config, layer, compiled) + "attn."
        half = np.arange(0, config.head_width, 2, dtype=np.float32) / config.head_width
        found[prefix + "norm_factor"] = np.array(config.head_width**-0.5, np.float32)
        if "rope" in config.positions:
            found[prefix + "rotary_emb.inv_freq"] = np.float32(1.0) / 10000.0**half
        if "fire" in config.positions:
            found[prefix + "rotary_emb.init_L"] = np.array(512.0, np.float32)
    return found
