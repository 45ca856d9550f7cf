#!/usr/bin/env python3
"""Times ONNX Runtime on the cases of cases.json, as the Rust program beside it times the others. Needs `onnxruntime` (or
`onnxruntime-gpu`), `onnx` and `numpy`. Writes the same JSON.

    python3 ort_bench.py --out ort.json [--case TEXT]…

Attention is `com.microsoft.MultiHeadAttention`, which takes q, k and v as [batch, tokens, heads · width].
"""

import os

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from protocol import arguments, measure


def session(case, provider):
    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    shapes = case.shapes()
    if case.op == "attention":
        shapes = [[b, t, h * d] for b, h, t, d in shapes]
    names = ["a", "b", "c"][: len(shapes)]
    if case.op == "matmul":
        node, out = helper.make_node("MatMul", names, ["y"]), [case.batch, case.m, case.n]
    elif case.op == "attention":
        node = helper.make_node("MultiHeadAttention", names, ["y"], domain="com.microsoft", num_heads=case.heads, unidirectional=int(case.causal))
        out = shapes[0]
    elif case.op == "layer_norm":
        node, out = helper.make_node("LayerNormalization", names, ["y"], axis=-1, epsilon=1e-5), shapes[0]
    else:
        node, out = helper.make_node("Softmax", names, ["y"], axis=-1), shapes[0]
    graph = helper.make_graph([node], case.op, [value(n, s) for n, s in zip(names, shapes)], [value("y", out)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    made = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    random = np.random.default_rng(1)
    return made, {n: random.uniform(-1, 1, s).astype(np.float32) for n, s in zip(names, shapes)}


def main():
    args = arguments(__doc__)
    # The fastest that is installed.
    order = ["CUDAExecutionProvider", "CoreMLExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider"]
    provider = next(p for p in order if p in ort.get_available_providers())
    on_cpu = provider == "CPUExecutionProvider"

    def load(case):
        made, feeds = session(case, provider)
        binding = made.io_binding()
        for name, value in feeds.items():
            if on_cpu:
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        binding.bind_output("y", "cpu" if on_cpu else "cuda")
        return lambda: made.run_with_iobinding(binding)

    # A run returns when its output is there.
    name = f"{provider}, {os.cpu_count()} cores"
    measure(args, f"ONNX Runtime {ort.__version__}", name, load, lambda: None)


if __name__ == "__main__":
    main()
