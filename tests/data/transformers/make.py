"""Computes the files beside it: what transformers makes of small models of all kinds of configs, and PyTorch of attention
over all kinds of leading axes.

    pip install torch transformers safetensors
    python tests/data/transformers/make.py

Weights and inputs are those of `tests/common/models.rs`, a function of their names, so that only results are stored.
Used: see `versions` in cases.json; everything on a CPU, in f64 but for rotary tables, which transformers keeps in f32.
"""

import json
import math
import pathlib

import numpy
import torch
import transformers
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

here = pathlib.Path(__file__).parent
MASK = (1 << 64) - 1


def draw(name, n):
    """`draw` of tests/common/models.rs."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    values = []
    for i in range(1, n + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & MASK
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        values.append(numpy.float32((z ^ (z >> 31)) >> 40) / numpy.float32(1 << 23) - numpy.float32(1))
    return numpy.array(values, numpy.float32)


def weight(name, shape):
    """`weights` of tests/common/models.rs."""
    if len(shape) == 2 and any(part in name for part in ("emb", "wte", "wpe")):
        middle, scale = 0.0, numpy.float32(1)
    elif len(shape) == 2:
        middle, scale = 0.0, numpy.float32(1.7) / numpy.sqrt(numpy.float32(shape[1]))
    elif name.endswith("bias"):
        middle, scale = 0.0, numpy.float32(0.1)
    else:
        middle, scale = 1.0, numpy.float32(0.2)
    return (numpy.float32(middle) + scale * draw(name, math.prod(shape))).reshape(shape)


def ids(name, n, vocabulary):
    """`ids` of tests/common/models.rs."""
    return ((draw(name, n) + numpy.float32(1)) / numpy.float32(2) * numpy.float32(vocabulary)).astype(numpy.int64) % vocabulary


VOCABULARY = 31
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
GPT2 = {"model_type": "gpt2", "vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
BERT = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


def llama(kind="llama", **more):
    return {"model_type": kind, **LLAMA, **more}


def qwen2(**more):
    config = llama("qwen2", **more)
    del config["head_dim"]
    return config


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
MODELS = {
    "plain": llama(),
    "base of transformers 5": llama(rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}),
    "base of transformers 4": llama(rope_theta=500000.0),
    "linear, 5": llama(rope_parameters={"rope_theta": 100.0, "rope_type": "linear", "factor": 4.0}),
    "linear, 4": llama(rope_theta=100.0, rope_scaling={"type": "linear", "factor": 4.0}),
    "dynamic, longer": llama(
        max_position_embeddings=16, rope_parameters={"rope_theta": 100.0, "rope_type": "dynamic", "factor": 4.0}
    ),
    "dynamic, not longer": llama(rope_parameters={"rope_theta": 100.0, "rope_type": "dynamic", "factor": 4.0}),
    "llama3, 5": llama(rope_parameters={"rope_theta": 500.0, "rope_type": "llama3", **LLAMA3}),
    "llama3, 4": llama(rope_theta=500.0, rope_scaling={"rope_type": "llama3", **LLAMA3}),
    "yarn, 5": llama(rope_parameters={"rope_theta": 500.0, "rope_type": "yarn", **YARN}),
    "yarn, 4": llama(rope_theta=500.0, rope_scaling={"type": "yarn", **YARN}),
    "yarn with its own factor": llama(
        rope_parameters={"rope_theta": 500.0, "rope_type": "yarn", **YARN, "attention_factor": 0.8}
    ),
    "yarn with scales": llama(
        rope_parameters={"rope_theta": 500.0, "rope_type": "yarn", **YARN, "mscale": 0.7, "mscale_all_dim": 1.3}
    ),
    "yarn with betas, not rounded": llama(
        rope_parameters={
            "rope_theta": 500.0,
            "rope_type": "yarn",
            **YARN,
            "beta_fast": 4.0,
            "beta_slow": 0.5,
            "truncate": False,
        }
    ),
    "mistral, a window": llama("mistral", sliding_window=6),
    "mistral, no window": llama("mistral", sliding_window=None),
    "mistral, unsaid": {k: v for k, v in llama("mistral", num_attention_heads=8).items() if k != "num_key_value_heads"},
    "ministral, windows by layer": llama(
        "ministral",
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "qwen2, windows from a layer on": qwen2(use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "qwen2, windows by layer": qwen2(
        use_sliding_window=True,
        sliding_window=6,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "qwen2, an unused window": qwen2(use_sliding_window=False, sliding_window=6, max_window_layers=0),
    "qwen2, yarn": qwen2(rope_theta=1000.0, rope_scaling={"type": "yarn", **YARN}, tie_word_embeddings=True),
    "gpt2": GPT2,
    "gpt2, options": {
        **GPT2,
        "n_inner": 40,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
        "tie_word_embeddings": False,
        "reorder_and_upcast_attn": True,
    },
    "gpt2, gelu": {**GPT2, "activation_function": "gelu"},
    "bert": BERT,
    "bert, options": {**BERT, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "type_vocab_size": 3},
    "bert, relu": {**BERT, "hidden_act": "relu"},
}
TOKENS = 40


def run(name, config):
    """Logits of all tokens, or BERT's hidden states."""
    kind = AutoModel if config["model_type"] == "bert" else AutoModelForCausalLM
    built = AutoConfig.for_model(**config)
    model = kind.from_config(built, attn_implementation="eager").eval()
    with torch.no_grad():
        tied = getattr(built, "tie_word_embeddings", True)
        for parameter, value in model.named_parameters():
            known = parameter.removeprefix("transformer.")
            value.copy_(torch.from_numpy(weight(known, tuple(value.shape))))
        if tied and config["model_type"] != "bert":
            model.tie_weights()
        frequencies = {n: b.clone() for n, b in model.named_buffers() if n.endswith("inv_freq")}
        # Upcasting is only for what is narrower than f32.
        if not config.get("reorder_and_upcast_attn"):
            model.double()
        for n, b in model.named_buffers():
            if n in frequencies:
                b.data = frequencies[n]
        given = torch.from_numpy(ids(name, TOKENS, VOCABULARY))[None]
        out = model(given)
        return (out.last_hidden_state if config["model_type"] == "bert" else out.logits)[0].numpy().astype(numpy.float32)


TABLES = {
    **{name: MODELS[name] for name in MODELS if "rope_parameters" in MODELS[name] or "rope_scaling" in MODELS[name]},
    "llama 3.1 as published": llama(
        head_dim=128,
        max_position_embeddings=131072,
        rope_parameters={
            "rope_theta": 500000.0,
            "rope_type": "llama3",
            **LLAMA3,
            "original_max_position_embeddings": 8192,
        },
    ),
    "qwen 2.5 with yarn as its card says": llama(
        head_dim=128,
        max_position_embeddings=32768,
        rope_parameters={
            "rope_theta": 1000000.0,
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
        },
    ),
    "dynamic, far": llama(
        head_dim=64,
        max_position_embeddings=2048,
        rope_parameters={"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0},
    ),
}
# Half of the features, in all types.
for kind, more in {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": YARN,
    "llama3": LLAMA3,
}.items():
    TABLES[f"half, {kind}"] = llama(
        rope_parameters={"rope_theta": 500.0, "rope_type": kind, "partial_rotary_factor": 0.5, **more}
    )
POSITIONS = [0, 1, 7, 39]


def tables(name, config, tokens):
    """Frequencies, the factor, and cosines and sines of some positions, in a sequence of so many tokens."""
    from transformers.models.glm.modeling_glm import GlmRotaryEmbedding
    from transformers import GlmConfig

    partial = "partial_rotary_factor" in config.get("rope_parameters", {})
    # Of the models that turn a part of the features, one whose other choices are Llama's.
    if partial:
        built = GlmConfig(**{k: v for k, v in config.items() if k != "model_type"})
        embedding = GlmRotaryEmbedding(built)
    else:
        built = AutoConfig.for_model(**config)
        embedding = LlamaRotaryEmbedding(built)
    x = torch.zeros(1, dtype=torch.float32)
    cos, sin = embedding(x, torch.arange(tokens)[None])
    half = embedding.inv_freq.shape[0]
    return {
        "name": name,
        "config": config,
        "tokens": tokens,
        "frequencies": embedding.inv_freq.double().tolist(),
        "attention": float(embedding.attention_scaling),
        "positions": POSITIONS,
        "cos": [cos[0, p, :half].double().tolist() for p in POSITIONS],
        "sin": [sin[0, p, :half].double().tolist() for p in POSITIONS],
    }


def pattern(layers, every):
    """Which layers have windows where a file says that every so many-th has none."""
    from transformers import Cohere2Config

    config = Cohere2Config(num_hidden_layers=layers, sliding_window_pattern=every, sliding_window=6)
    return {"layers": layers, "pattern": every, "types": config.layer_types}


# Shapes of q, k, v, mask; the kind of mask; causal.
SDPA = [
    ([5, 8], [7, 8], [7, 6], None, None, False),
    ([3, 5, 8], [3, 7, 8], [3, 7, 6], [5, 7], "bool", False),
    ([3, 5, 8], [3, 7, 8], [3, 7, 6], [3, 1, 7], "float", False),
    ([2, 4, 3, 5, 8], [2, 4, 3, 7, 8], [2, 4, 3, 7, 6], None, None, True),
    ([2, 4, 3, 5, 8], [2, 4, 3, 7, 8], [2, 4, 3, 7, 6], [2, 1, 1, 5, 7], "bool", False),
    ([2, 4, 3, 5, 8], [2, 4, 3, 7, 8], [2, 4, 3, 7, 6], [4, 1, 1, 7], "float", False),
    ([2, 4, 3, 5, 8], [2, 1, 3, 7, 8], [1, 4, 3, 7, 6], [2, 4, 3, 5, 7], "float", False),
    ([2, 4, 3, 5, 8], [3, 7, 8], [4, 3, 7, 6], None, None, False),
    ([2, 2, 2, 3, 5, 8], [2, 2, 2, 3, 7, 8], [2, 2, 2, 3, 7, 6], [2, 1, 3, 5, 7], "bool", False),
    ([4, 3, 5, 8], [1, 3, 7, 8], [4, 3, 7, 6], [5, 7], "bool", False),
]


def sdpa(i, case):
    *shapes, mask_shape, kind, causal = case
    given = [
        torch.from_numpy(draw(f"sdpa.{i}.{name}", math.prod(shape)).reshape(shape)).double()
        for name, shape in zip("qkv", shapes)
    ]
    mask = None
    if kind:
        mask = torch.from_numpy(draw(f"sdpa.{i}.mask", math.prod(mask_shape)).reshape(mask_shape)).double()
        # The first key stays, so that no row is without one.
        mask = (mask > -0.3) | (torch.arange(mask_shape[-1]) == 0) if kind == "bool" else mask
    out = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=mask, is_causal=causal)
    form = {"q": shapes[0], "k": shapes[1], "v": shapes[2], "mask": mask_shape, "kind": kind, "causal": causal}
    return form, out.numpy().astype(numpy.float32)


results = {f"model.{name}": run(name, config) for name, config in MODELS.items()}
attentions = [sdpa(i, case) for i, case in enumerate(SDPA)]
results |= {f"sdpa.{i}": numpy.ascontiguousarray(out) for i, (_, out) in enumerate(attentions)}
save_file(results, here / "results.safetensors")
far = {"dynamic, far": 5000}
listed = {
    "versions": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
    "models": [{"name": name, "config": config} for name, config in MODELS.items()],
    "tables": [tables(name, config, far.get(name, TOKENS)) for name, config in TABLES.items()],
    "patterns": [pattern(7, 3), pattern(6, 1), pattern(4, 8)],
    "sdpa": [form for form, _ in attentions],
}
lines = [f'"{key}": ' + (json.dumps(value) if isinstance(value, dict) else "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]") for key, value in listed.items()]
(here / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
