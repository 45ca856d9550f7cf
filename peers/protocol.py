"""What the Python programs share: cases, arguments, timing, the file."""

import argparse
import json
import pathlib
import statistics
import sys
import time

SAMPLE = 0.05
"""Seconds that one sample should take."""


class Case:
    """A case of cases.json; its sizes are attributes."""

    def __init__(self, fields):
        self.__dict__.update(fields)

    def shapes(self):
        if self.op == "matmul":
            return [[self.batch, self.m, self.k], [self.batch, self.k, self.n]]
        if self.op == "attention":
            keys = [self.batch, self.heads, self.keys, self.width]
            return [[self.batch, self.heads, self.rows, self.width], keys, keys]
        if self.op == "layer_norm":
            return [[self.rows, self.width], [self.width], [self.width]]
        return [[self.rows, self.width]]


def arguments(description, device=False):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=pathlib.Path(__file__).with_name("cases.json"))
    parser.add_argument("--case", action="append", default=[], help="only cases whose name contains this text")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    if device:
        parser.add_argument("--device", help="cuda or cpu")
    return parser.parse_args()


def measure(args, peer, device, load, wait):
    """Times `load(case)()` on every chosen case and writes the file. `wait` returns when the device is done."""
    rows = []
    for fields in json.loads(pathlib.Path(args.cases).read_text()):
        case = Case(fields)
        if args.case and not any(text in case.name for text in args.case):
            continue
        print(case.name, file=sys.stderr)
        start = time.perf_counter()
        run = load(case)
        run()
        wait()
        first_call = time.perf_counter() - start

        def sample(times):
            start = time.perf_counter()
            for _ in range(times):
                run()
            wait()
            return (time.perf_counter() - start) / times

        times = max(1, min(2000, int(SAMPLE / sample(3))))
        samples = [sample(times) for _ in range(args.rounds)]
        quartiles = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
        seconds = {"median": quartiles[1], "low": quartiles[0], "high": quartiles[2], "best": min(samples), "samples": len(samples)}
        rows.append({"case": case.name, "peer": peer, "device": device, "first_call": first_call, "seconds": seconds})
    pathlib.Path(args.out).write_text(json.dumps({"rows": rows}, indent=2) + "\n")
