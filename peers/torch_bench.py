#!/usr/bin/env python3
"""PyTorch as a worker of the Rust program beside it, on CUDA if it is there. Needs `torch` and `numpy`."""

import json
import platform

try:
    import torch
    from torch import nn
    from torch.nn import functional as F

    from protocol import EPSILON, SCALAR, present, serve
except ImportError as error:
    print(json.dumps({"failed": {"error": str(error)}}))
    raise SystemExit(1) from None


def attention(case, x):
    q, k, v = x["q"], x["k"], x["v"]
    mask = None
    if case.bias:
        mask = x["bias"][None]
    if case.mask:
        mask = x["mask"][:, None] != 0
    if case.padded:
        mask = present_on(x["lengths"], case.keys)[:, None, None, :]
    if case.softcap is None:
        options = {"enable_gqa": True} if case.group > 1 else {}
        return lambda: F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=bool(case.causal), scale=case.scale, **options
        )

    # The fused function has no softcap.
    def by_hand():
        scores = case.softcap * torch.tanh(q @ k.transpose(-1, -2) * (case.score_scale / case.softcap))
        return torch.softmax(scores, -1) @ v

    if mask is not None or case.causal or case.group > 1:
        return None
    return by_hand


def present_on(lengths, tokens):
    return torch.from_numpy(present(lengths.cpu().numpy(), tokens)).to(lengths.device)


def encoder(case, x):
    layer = nn.TransformerEncoderLayer(
        case.width, case.heads, 4 * case.width, 0.0, "gelu", EPSILON, batch_first=True, device=x["x"].device
    )
    model = nn.TransformerEncoder(layer, case.layers).eval()
    model.load_state_dict({name: value for name, value in x.items() if name.startswith("layers.")})
    hidden = ~present_on(x["lengths"], case.tokens)
    return lambda: model(x["x"], src_key_padding_mask=hidden)


def compute(case, x):
    if case.op == "matmul":
        return lambda: torch.matmul(x["a"], x["b"])
    if case.op == "linear":
        if case.gelu:
            return lambda: F.gelu(F.linear(x["x"], x["weight"], x["bias"]))
        return lambda: F.linear(x["x"], x["weight"], x["bias"])
    if case.op == "attention":
        return attention(case, x)
    if case.op == "layer_norm":
        return lambda: F.layer_norm(x["x"], (case.width,), x["weight"], x["bias"], EPSILON)
    if case.op == "rms_norm":
        return lambda: F.rms_norm(x["x"], (case.width,), x["weight"], EPSILON)
    if case.op == "encoder":
        return encoder(case, x)
    of_elements = {
        "softmax": lambda: torch.softmax(x["x"], -1),
        "sum": lambda: x["x"].sum(-1),
        "add_scalar": lambda: x["x"] + SCALAR,
        "gelu": lambda: F.gelu(x["x"]),
        "bias_residual": lambda: x["x"] + x["bias"] + x["residual"],
    }
    return of_elements.get(case.op)


def main():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # f32 is f32: no TF32 in products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    on_gpu = device.type == "cuda"
    threads = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name(device) if on_gpu else threads

    def load(case, operands):
        run = compute(case, {name: torch.from_numpy(value.copy()).to(device) for name, value in operands.items()})
        return run and (run, lambda output: output.cpu().numpy())

    def wait():
        if on_gpu:
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        serve(f"PyTorch {torch.__version__} {device.type}", name, load, wait)


if __name__ == "__main__":
    main()
