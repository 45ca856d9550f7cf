#!/usr/bin/env python3
"""Times PyTorch on the cases of cases.json, as the Rust program beside it times the others: operands in place, several runs a
sample, a wait at the end, the median of several rounds. Writes the same JSON.

    python3 torch_bench.py --out torch.json [--device cuda|cpu] [--case TEXT]…
"""

import platform

import torch
from torch.nn.functional import layer_norm, scaled_dot_product_attention, softmax

from protocol import arguments, measure


def main():
    args = arguments(__doc__, device=True)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # f32 is f32: no TF32 in products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"

    def load(case):
        x = [torch.rand(shape, device=device) * 2 - 1 for shape in case.shapes()]
        if case.op == "matmul":
            return lambda: torch.matmul(x[0], x[1])
        if case.op == "attention":
            return lambda: scaled_dot_product_attention(*x, is_causal=case.causal)
        if case.op == "layer_norm":
            return lambda: layer_norm(x[0], (case.width,), x[1], x[2], 1e-5)
        return lambda: softmax(x[0], -1)

    def wait():
        if on_gpu:
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        measure(args, f"PyTorch {torch.__version__} {device.type}", name, load, wait)


if __name__ == "__main__":
    main()
