"""Llama, top to bottom: config, weights, forward.

RMSNorm before each half-layer, rotary positions inside attention, grouped key/value heads, a gated MLP
(Touvron et al., arXiv:2302.13971 and 2307.09288). Mistral and Qwen2 folders that differ by a bias or an
unused window are the same model.

Letters: T tokens, C model width, H query heads, K key/value heads, D head width, F MLP width, V vocabulary.
"""

from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from .attention import Dense, normaliser
from .fields import divides, flag, number, one_of, one_or_many, refuse, section, token_id, token_ids, whole
from .ops import linear, rms_norm, silu
from .positions import rope_frequencies, rotate

# Whether q, k and v carry a bias when the config does not say
QKV_BIAS = {"llama": False, "mistral": False, "qwen2": True}


@dataclass(frozen=True)
class Config:
    """The fixed numbers of one model.

    Attributes
    ----------
    d_model, n_layers, n_heads, n_kv_heads, head_dim, d_ff, vocab_size : int
        C, L, H, K, D, F and V.
    max_positions : int
        The longest text seen in training, in tokens.
    norm_eps : float
    rope_theta : float
    rope_scaling : dict or None
        See `positions.rope_frequencies`.
    qkv_bias, o_bias, mlp_bias : bool
        Which linear maps have a bias.
    tied : bool
        Whether the output matrix is the embedding.
    bos : int or None
        Token id that begins a text.
    eos : tuple of int
        Token ids that end one; Llama 3 has several.
    softmax : {"softmax", "softmax1"}
    sink_logit : bool
        Whether every head has a learned sink logit.
    model_type : {"llama", "mistral", "qwen2"}
        What the folder called itself.
    """

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab_size: int
    max_positions: int = 2048
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    bos: int | None = None
    eos: tuple[int, ...] = ()
    softmax: str = "softmax"
    sink_logit: bool = False
    model_type: str = "llama"

    @classmethod
    def from_hf(cls, raw):
        """Translate a parsed ``config.json``.

        Parameters
        ----------
        raw : dict

        Returns
        -------
        Config

        Raises
        ------
        ValueError
            Naming the key that is missing, impossible or not supported.
        """
        model_type = one_of(raw, "model_type", tuple(QKV_BIAS))
        one_of(raw, "hidden_act", ("silu", "swish"), "silu")
        refuse(raw, partial_rotary_factor=1.0, quantization_config=None)
        C, H = whole(raw, "hidden_size"), whole(raw, "num_attention_heads")
        if raw.get("head_dim") is None:
            divides(H, C, ("num_attention_heads", "hidden_size"))
        K = whole(raw, "num_key_value_heads", 8 if model_type == "mistral" else H)
        divides(K, H, ("num_key_value_heads", "num_attention_heads"))
        D = whole(raw, "head_dim", C // H or None)
        if D % 2:
            raise ValueError(f"head_dim is {D}; rotary positions need an even one")
        max_positions = whole(raw, "max_position_embeddings", 2048)
        _refuse_sliding_window(raw, model_type, max_positions)
        theta, scaling = _rope(raw)
        ours = section(raw, "minisink")
        V = whole(raw, "vocab_size")
        llama_bias = model_type == "llama" and flag(raw, "attention_bias", False)
        return cls(
            d_model=C,
            n_layers=whole(raw, "num_hidden_layers"),
            n_heads=H,
            n_kv_heads=K,
            head_dim=D,
            d_ff=whole(raw, "intermediate_size"),
            vocab_size=V,
            max_positions=max_positions,
            norm_eps=number(raw, "rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            qkv_bias=QKV_BIAS[model_type] or llama_bias,
            o_bias=llama_bias,
            mlp_bias=model_type == "llama" and flag(raw, "mlp_bias", False),
            tied=flag(raw, "tie_word_embeddings", False),
            bos=token_id(raw, "bos_token_id", V),
            eos=token_ids(raw, "eos_token_id", V),
            softmax=one_of(ours, "softmax", ("softmax", "softmax1"), "softmax"),
            sink_logit=flag(ours, "sink_logit", False),
            model_type=model_type,
        )

    def to_hf(self):
        """The ``config.json`` of this model, as `from_hf` and transformers read it.

        Returns
        -------
        dict

        Raises
        ------
        ValueError
            For biases that no ``config.json`` can express.
        """
        classes = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
        raw = {
            "architectures": [classes[self.model_type]],
            "model_type": self.model_type,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.d_ff,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.bos,
            "eos_token_id": one_or_many(self.eos),
        }
        if self.model_type == "llama":
            if self.qkv_bias != self.o_bias:
                raise ValueError("a config.json of Llama has one attention_bias: qkv_bias and o_bias must be alike")
            raw.update(attention_bias=self.o_bias, mlp_bias=self.mlp_bias)
        if self.model_type == "mistral":
            raw["sliding_window"] = None
        if self.softmax != "softmax" or self.sink_logit:
            raw["minisink"] = {"softmax": self.softmax, "sink_logit": self.sink_logit}
        return raw

    @property
    def frequencies(self):
        """ndarray of shape (D/2,): angle a position of each channel pair."""
        return rope_frequencies(self.head_dim, self.rope_theta, self.rope_scaling)


def _rope(raw):
    """The base and the scaling rule, from any of the three spellings Hugging Face has used."""
    rope = section(raw, "rope_parameters") or section(raw, "rope_scaling")
    refuse(rope, partial_rotary_factor=1.0)
    theta = number(rope, "rope_theta", number(raw, "rope_theta", 10000.0))
    rule = rope.get("rope_type", rope.get("type", "default"))
    rule = one_of({"rope type": rule}, "rope type", ("default", "linear", "llama3"))
    if rule == "default":
        return theta, None
    needed = ["factor"]
    if rule == "llama3":
        needed += ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
    scaling = {"rope_type": rule} | {key: number(rope, key) for key in needed}
    if rule == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        raise ValueError(f"high_freq_factor is {high}; it must be above low_freq_factor, which is {low}")
    return theta, scaling


def _refuse_sliding_window(raw, model_type, max_positions):
    """A window built into the model changes every layer's mask; one that no text can reach does not."""
    if model_type == "llama":
        return
    if model_type == "qwen2" and not flag(raw, "use_sliding_window", False):
        return
    if raw.get("sliding_window", 4096) is None:
        return
    window = whole(raw, "sliding_window", 4096)
    if window < max_positions:
        raise ValueError(
            f"sliding_window is {window}, shorter than max_position_embeddings {max_positions}: "
            "a window inside the model is not supported"
        )


@dataclass
class LayerWeights:
    """The learned arrays of one layer; a bias the model does not have is None."""

    attn_norm: np.ndarray  # (C,)
    wq: np.ndarray  # (C, H * D)
    wk: np.ndarray  # (C, K * D)
    wv: np.ndarray  # (C, K * D)
    wo: np.ndarray  # (H * D, C)
    mlp_norm: np.ndarray  # (C,)
    w_gate: np.ndarray  # (C, F)
    w_up: np.ndarray  # (C, F)
    w_down: np.ndarray  # (F, C)
    bq: np.ndarray | None = None  # (H * D,)
    bk: np.ndarray | None = None  # (K * D,)
    bv: np.ndarray | None = None  # (K * D,)
    bo: np.ndarray | None = None  # (C,)
    b_gate: np.ndarray | None = None  # (F,)
    b_up: np.ndarray | None = None  # (F,)
    b_down: np.ndarray | None = None  # (C,)
    sink_logits: np.ndarray | None = None  # (H,)


@dataclass
class Weights:
    """The learned arrays of the model."""

    embed: np.ndarray  # (V, C)
    layers: list[LayerWeights]
    norm: np.ndarray  # (C,)
    head: np.ndarray  # (C, V)


# Our name -> Hugging Face's, within "model.layers.{i}."
NAMES = {
    "attn_norm": "input_layernorm.weight",
    "wq": "self_attn.q_proj.weight",
    "wk": "self_attn.k_proj.weight",
    "wv": "self_attn.v_proj.weight",
    "wo": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "w_gate": "mlp.gate_proj.weight",
    "w_up": "mlp.up_proj.weight",
    "w_down": "mlp.down_proj.weight",
    "bq": "self_attn.q_proj.bias",
    "bk": "self_attn.k_proj.bias",
    "bv": "self_attn.v_proj.bias",
    "bo": "self_attn.o_proj.bias",
    "b_gate": "mlp.gate_proj.bias",
    "b_up": "mlp.up_proj.bias",
    "b_down": "mlp.down_proj.bias",
    "sink_logits": "self_attn.sinks",
}
# Tensors other tools write beside these, that a forward pass does not need.
HARMLESS = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"(model\.)?rotary_emb\.inv_freq")
PREFIX = "model."  # some files leave it out


def layer_shapes(config):
    """Shape of every array in `LayerWeights` that this model has, by our name and in our layout."""
    C, F = config.d_model, config.d_ff
    Q, KV = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes = {"attn_norm": (C,), "wq": (C, Q), "wk": (C, KV), "wv": (C, KV), "wo": (Q, C)}
    shapes |= {"mlp_norm": (C,), "w_gate": (C, F), "w_up": (C, F), "w_down": (F, C)}
    if config.qkv_bias:
        shapes |= {"bq": (Q,), "bk": (KV,), "bv": (KV,)}
    if config.o_bias:
        shapes["bo"] = (C,)
    if config.mlp_bias:
        shapes |= {"b_gate": (F,), "b_up": (F,), "b_down": (C,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def tensor_shapes(config):
    """Every tensor a checkpoint of this config must hold.

    Parameters
    ----------
    config : Config

    Returns
    -------
    dict of str to tuple
        Hugging Face's name to Hugging Face's shape: (out, in) for a matrix.
    """
    V, C = config.vocab_size, config.d_model
    shapes = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,)}
    for i in range(config.n_layers):
        for name, shape in layer_shapes(config).items():
            shapes[f"model.layers.{i}.{NAMES[name]}"] = shape[::-1]
    if not config.tied:
        shapes["lm_head.weight"] = (V, C)
    return shapes


def from_tensors(config, tensors):
    """Arrange checkpoint tensors as `Weights`; matrices become (in, out) views.

    Parameters
    ----------
    config : Config
    tensors : dict of str to ndarray
        As `tensor_shapes` lists them.

    Returns
    -------
    Weights
    """
    layers = [
        LayerWeights(**{name: tensors[f"model.layers.{i}.{NAMES[name]}"].T for name in layer_shapes(config)})
        for i in range(config.n_layers)
    ]
    embed = tensors["model.embed_tokens.weight"]
    head = embed if config.tied else tensors["lm_head.weight"]
    return Weights(embed, layers, tensors["model.norm.weight"], head.T)


def to_tensors(config, weights):
    """The inverse of `from_tensors`.

    Parameters
    ----------
    config : Config
    weights : Weights

    Returns
    -------
    dict of str to ndarray
    """
    tensors = {"model.embed_tokens.weight": weights.embed, "model.norm.weight": weights.norm}
    for i, layer in enumerate(weights.layers):
        for field in fields(layer):
            array = getattr(layer, field.name)
            if array is not None:
                tensors[f"model.layers.{i}.{NAMES[field.name]}"] = array.T
    if not config.tied:
        tensors["lm_head.weight"] = weights.head.T
    return tensors


def turn(config):
    """How this architecture gives a query or key its position: ``turn(x, positions)``, by rotation."""
    return partial(rotate, frequencies=config.frequencies)


def forward(ids, weights, config, *, path=None, rows=None, trace=None):
    """Logits of the next token after each token.

    Parameters
    ----------
    ids : ndarray of shape (T,), ints
    weights : Weights
    config : Config
    path : Dense, Cached or another with ``mix``, optional
        Which keys the tokens meet; `attention.Dense` by default.
    rows : slice or ndarray of ints, optional
        Tokens whose logits are wanted; the others are only worked out as far as attention needs them.
    trace : dict, optional
        Receives ``"layers"``, a list with a dict a layer: residual stream ``"x"`` (T, C) before the layer,
        un-rotated ``"q"`` (T, H, D), ``"k"`` and ``"v"`` (T, K, D), ``"scores"`` and ``"pattern"``
        (H, T, S), ``"mixed"`` (T, H, D); and ``"x"`` (T, C), the residual stream at the end.

    Returns
    -------
    ndarray of shape (T, V), or (len(rows), V)
    """
    path, look_inside = path or Dense(), trace is not None
    H, K, D = config.n_heads, config.n_kv_heads, config.head_dim
    T = len(ids)
    turn_to = turn(config)
    path.positions(T)  # refuses a cache it cannot go on with; rotation happens inside `mix`
    inside = [{} if look_inside else None for _ in weights.layers]
    x = weights.embed[np.asarray(ids, like=weights.embed)]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = rms_norm(x, layer.attn_norm, config.norm_eps)
        q = linear(h, layer.wq, layer.bq).reshape(T, H, D)  # (T, C) -> (T, H, D)
        k = linear(h, layer.wk, layer.bk).reshape(T, K, D)  # (T, C) -> (T, K, D)
        v = linear(h, layer.wv, layer.bv).reshape(T, K, D)
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, turn_to, normalise=normalise, trace=inside[i])  # (T, H, D)
        if look_inside:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, mixed = x[rows], mixed[rows]  # nobody looks at the other rows from here on
        x = x + linear(mixed.reshape(len(x), H * D), layer.wo, layer.bo)
        h = rms_norm(x, layer.mlp_norm, config.norm_eps)
        gated = silu(linear(h, layer.w_gate, layer.b_gate)) * linear(h, layer.w_up, layer.b_up)  # (T, F)
        x = x + linear(gated, layer.w_down, layer.b_down)
    if look_inside:
        trace.update(layers=inside, x=x)
    return linear(rms_norm(x, weights.norm, config.norm_eps), weights.head)  # (T, C) -> (T, V)
