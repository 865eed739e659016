"""How much of the machine's roofline each layer of a network reaches.

    python bench/roofline.py MODEL.onnx --planish target/release/planish [--precision f32,bf16] [--worst 5] [--seconds 3]

The roofline of a layer (Williams, Waterman and Patterson, "Roofline", CACM 2009) is the larger of two times: its
multiply-accumulates at the peak rate of one core, as `planish conv` measures it, and the bytes of its input, weights and
output at the bandwidth at which this core reads memory. A layer that saves multiplications (Winograd, Strassen) can
exceed 100 %. Pinned to one processor; time only on a quiet machine.
"""
import argparse
import json
import subprocess
import time

import numpy as np
import onnx

from engines import pin


def shapes(path):
    """The shape of every value of a model, and the names of its constants."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    found = {i.name: list(i.dims) for i in graph.initializer}
    constants = set(found)
    for value in (*graph.input, *graph.value_info, *graph.output):
        found.setdefault(value.name, [d.dim_value or 1 for d in value.type.tensor_type.shape.dim])
    return graph, found, constants


def bandwidth():
    """Bytes a second that this core reads from memory: the best of some passes over 256 MiB."""
    data = np.ones(32 << 20)
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - begin)
    return data.nbytes / best


def planish(binary, *arguments):
    return json.loads(subprocess.run([binary, *arguments, "--threads", "1", "--json"], check=True,
                                     capture_output=True, text=True).stdout)


def layers(binary, model, precision, seconds, read):
    """What `planish bench` reports, the peak, and `(name, algorithm, shape, ms, share of the roofline, what binds it)` of
    every convolution and product."""
    graph, found, constants = shapes(model)
    nodes = {node.name: node for node in graph.node}
    measured = planish(binary, "conv", "--c", "256", "--hw", "14", "--kernel", "1", "--duration", "0.5", "--precision",
                  precision)
    peak = measured["peak_gflops"] * 1e9
    report = planish(binary, "bench", str(model), "--profile", "--duration", str(seconds), "--precision", precision)
    size = 2 if report["precision"] == "bf16" else 4
    rows = []
    for layer in report["layers"]:
        node = nodes.get(layer["node"])
        if not layer["macs"] or node is None:
            continue
        moved = sum(int(np.prod(found.get(name, [0]))) for name in (*node.input, *node.output)) * size
        arithmetic, memory = 2 * layer["macs"] / peak, moved / read
        floor = max(arithmetic, memory) * 1e3
        limit = "arithmetic" if arithmetic >= memory else "memory"
        rows.append((layer["node"], layer["algorithm"], layer["shape"], layer["ms"], floor / layer["ms"], limit))
    return report, peak, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--worst", type=int, default=0, help="only so many layers, those that lose the most time")
    arguments = parser.parse_args()
    pin(1)
    read = bandwidth()
    for precision in arguments.precision.split(","):
        report, peak, rows = layers(arguments.planish, arguments.model, precision, arguments.seconds, read)
        floor = sum(row[3] * row[4] for row in rows)
        taken = sum(row[3] for row in rows)
        print(f"\n{report['precision']}: peak {peak / 1e9:.0f} GFLOP/s, reads {read / 1e9:.1f} GB/s; convolutions and "
              f"products take {taken:.2f} ms, {floor / taken:.0%} of the roofline; the network {report['latency_ms']['p50']:.2f} ms\n")
        if arguments.worst:
            rows = sorted(rows, key=lambda row: row[3] * (row[4] - 1))[:arguments.worst]
        print("| layer | output | algorithm | ms | of the roofline | bound by |\n|---|---|---|---:|---:|---|")
        for name, algorithm, shape, ms, share, limit in rows:
            print(f"| `{name}` | {'×'.join(map(str, shape))} | {algorithm} | {ms:.3f} | {share:.0%} | {limit} |")


if __name__ == "__main__":
    main()
