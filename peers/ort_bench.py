#!/usr/bin/env python3
"""ONNX Runtime as a worker of the Rust program beside it, on the fastest provider that is installed. Needs `onnxruntime` (or
`onnxruntime-gpu`), `onnx` and `numpy`.

Models are made of the operators that ONNX Runtime's own optimiser for Transformers puts in: attention is
`com.microsoft.MultiHeadAttention` (or ONNX's `Attention`, where only that has what is asked for), and the encoder is of
`Attention`, `SkipLayerNormalization` and `BiasGelu`. Weights are constants, which it lays out as it likes.
"""

import json

try:
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    from protocol import EPSILON, SCALAR, cores, present, serve
except ImportError as error:
    print(json.dumps({"failed": {"error": str(error)}}))
    raise SystemExit(1) from None

MICROSOFT = "com.microsoft"


class Model:
    """A graph under construction."""

    def __init__(self):
        self.nodes, self.inputs, self.constants, self.feeds = [], [], [], {}

    def input(self, name, value):
        kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "bool": TensorProto.BOOL}
        self.inputs.append(helper.make_tensor_value_info(name, kinds[value.dtype.name], value.shape))
        self.feeds[name] = np.ascontiguousarray(value)
        return name

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op, inputs, out="y", domain="", **attributes):
        self.nodes.append(helper.make_node(op, inputs, [out], domain=domain, **attributes))
        return out

    def session(self, options, provider):
        out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "case", self.inputs, out, self.constants)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return ort.InferenceSession(model.SerializeToString(), options, providers=[provider])


def tokens_first(x):
    """[batch, heads, tokens, width] to [batch, tokens, heads · width]."""
    return np.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)


def attention(model, case, x):
    """Adds it; gives what turns the result into [batch, heads, tokens, width]."""
    scale = {} if case.scale is None else {"scale": case.scale}
    if case.softcap is None and case.group == 1 and not case.mask:
        names = [model.input(name, tokens_first(x[name])) for name in ("q", "k", "v")]
        names += ["", model.input("lengths", x["lengths"].astype(np.int32)) if case.padded else ""]
        names += [model.input("bias", x["bias"][None]) if case.bias else ""]
        causal = {"unidirectional": 1} if case.causal else {}
        model.node("MultiHeadAttention", names, domain=MICROSOFT, num_heads=case.heads, **causal, **scale)
        return lambda y: np.swapaxes(y.reshape(case.batch, case.rows, case.heads, -1), 1, 2)
    seen = np.ones((case.batch, case.rows, case.keys), bool)
    if case.mask:
        seen &= x["mask"] != 0
    if case.padded:
        seen &= present(x["lengths"], case.keys)[:, None]
    names = [model.input(name, x[name]) for name in ("q", "k", "v")]
    if case.bias:
        hidden = np.where(seen[:, None], np.float32(0), np.float32(-np.inf))
        names.append(model.input("mask", hidden + x["bias"][None]))
    elif case.mask or case.padded:
        names.append(model.input("mask", seen[:, None]))
    softcap = {} if case.softcap is None else {"softcap": case.softcap}
    model.node("Attention", names, is_causal=int(bool(case.causal)), **softcap, **scale)
    return None


def encoder(model, case, x):
    y = model.input("x", x["x"])
    lengths = model.input("lengths", x["lengths"].astype(np.int32))
    for i in range(case.layers):

        def parameter(name, turned=False, i=i):
            value = x[f"layers.{i}.{name}"]
            return model.constant(f"{i}.{name}", value.T if turned else value)

        def node(op, inputs, out, domain=MICROSOFT, i=i, **attributes):
            return model.node(op, inputs, f"{i}.{out}", domain, **attributes)

        def norm(skip, x, bias, number):
            names = [parameter(f"norm{number}.weight"), parameter(f"norm{number}.bias"), parameter(bias)]
            return node("SkipLayerNormalization", [x, skip, *names], f"normed{number}", epsilon=EPSILON)

        qkv = [parameter("self_attn.in_proj_weight", True), parameter("self_attn.in_proj_bias")]
        seen = node("Attention", [y, *qkv, lengths], "seen", num_heads=case.heads)
        out = node("MatMul", [seen, parameter("self_attn.out_proj.weight", True)], "out", "")
        y = norm(y, out, "self_attn.out_proj.bias", 1)
        inner = node("MatMul", [y, parameter("linear1.weight", True)], "up", "")
        inner = node("BiasGelu", [inner, parameter("linear1.bias")], "inner")
        down = node("MatMul", [inner, parameter("linear2.weight", True)], "down", "")
        y = norm(y, down, "linear2.bias", 2)
    model.node("Identity", [y])


def build(model, case, x):
    """Adds a case's nodes; gives what the result has to go through, if anything."""
    if case.op == "attention":
        return attention(model, case, x)
    if case.op == "encoder":
        return encoder(model, case, x)
    if case.op == "linear":
        weight, bias = model.constant("weight", x["weight"].T), model.constant("bias", x["bias"])
        product = model.node("MatMul", [model.input("x", x["x"]), weight], "product")
        model.node(*(("BiasGelu", [product, bias], "y", MICROSOFT) if case.gelu else ("Add", [product, bias])))
        return None
    names = [model.input(name, value) for name, value in x.items()]
    if case.op == "matmul":
        model.node("MatMul", names)
    elif case.op == "layer_norm":
        model.node("LayerNormalization", names, axis=-1, epsilon=EPSILON)
    elif case.op == "rms_norm":
        model.node("RMSNormalization", names, axis=-1, epsilon=EPSILON)
    elif case.op == "softmax":
        model.node("Softmax", names, axis=-1)
    elif case.op == "sum":
        model.node("ReduceSum", [*names, model.constant("axes", np.array([-1], np.int64))], keepdims=0)
    elif case.op == "add_scalar":
        model.node("Add", [*names, model.constant("scalar", np.array(SCALAR, np.float32))])
    elif case.op == "gelu":
        model.node("Gelu", names)
    elif case.op == "bias_residual":
        model.node("Add", [model.node("Add", names[:2], "sum"), names[2]])
    else:
        raise ValueError(f"no model for {case.op}")
    return None


def main():
    order = ["CUDAExecutionProvider", "CoreMLExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider"]
    provider = next(p for p in order if p in ort.get_available_providers())
    place = "cuda" if provider == "CUDAExecutionProvider" else "cpu"
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores()
    # Threads that spin for more work would take the processor from whoever is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def load(case, operands):
        model = Model()
        turn = build(model, case, operands) or (lambda y: y)
        made = model.session(options, provider)
        binding = made.io_binding()
        for name, value in model.feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, place, 0))
        binding.bind_output("y", place)

        def run():
            # Returns when the output is there.
            made.run_with_iobinding(binding)

        return run, lambda _: turn(binding.copy_outputs_to_cpu()[0])

    serve(f"ONNX Runtime {ort.__version__}", f"{provider}, {cores()} threads", load, lambda: None)


if __name__ == "__main__":
    main()
