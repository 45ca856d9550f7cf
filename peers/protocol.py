"""What the Python workers share: how they are asked and how they answer (see src/worker.rs)."""

import json
import math
import os
import pathlib
import sys
import time

import numpy as np

EPSILON = 1e-5
SCALAR = 0.5


class Case:
    """A case of cases.json; its sizes are attributes, None where it doesn't say."""

    def __init__(self, fields):
        self.__dict__.update(fields)

    def __getattr__(self, name):
        return None

    @property
    def group(self):
        """Query heads to a key head."""
        return self.heads // (self.key_heads or self.heads)

    @property
    def score_scale(self):
        return self.scale or 1.0 / math.sqrt(self.width)


def present(lengths, tokens):
    """Which tokens there are, [batch, tokens]."""
    return np.arange(tokens)[None, :] < lengths[:, None]


def answer(kind, **fields):
    print(json.dumps({kind: fields} if fields else kind), flush=True)


def serve(peer, device, load, wait):
    """Answers requests until there are none.

    `load(case, operands)` gives two functions, which run the case and which give the result of a run as an array, or None if
    it can't be done. `wait` returns when the device is done.
    """
    answer("ready", name=peer, device=device, adapter=None)
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "load" in request:
                run = None
                asked = request["load"]
                folder = pathlib.Path(asked["folder"])
                values, at, operands = np.fromfile(folder / "operands.f32", np.float32), 0, {}
                for name, shape in asked["operands"]:
                    operands[name] = values[at : at + math.prod(shape)].reshape(shape)
                    at += math.prod(shape)
                start = time.perf_counter()
                loaded = load(Case(asked["case"]), operands)
                if loaded is None:
                    answer("unsupported")
                    continue
                run, result = loaded
                output = run()
                wait()
                first_call = time.perf_counter() - start
                np.ascontiguousarray(result(output), np.float32).tofile(folder / "output.f32")
                answer("loaded", first_call=first_call)
            else:
                times = request["run"]["times"]
                start = time.perf_counter()
                for _ in range(times):
                    run()
                wait()
                answer("ran", seconds=(time.perf_counter() - start) / times)
        except Exception as error:  # whatever a library raises is told, and ends nothing
            answer("failed", error=f"{type(error).__name__}: {error}")


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
