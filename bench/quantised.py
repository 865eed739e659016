#!/usr/bin/env python3
"""Compares a quantised classifier with ONNX Runtime picture by picture: the classes it names, and its logits in steps.

    python bench/quantised.py MODEL.onnx --inputs BATCHES.npy --planish target/release/planish [--isa ISA …]
        [--threads N …] [--limit N]

    python bench/quantised.py MODEL.onnx --pictures DIR --size 224 --mean 127.5 --std 127.5 --resize bilinear …
    python bench/quantised.py MODEL.onnx --cifar DIR [--mean M --std S] …

Pictures are a folder, CIFAR-10's test pictures (the folder with test_batch.bin), or an array that is the input already.
A step is the scale of the quantisation behind the last layer, read from the model; without one it is 1. Prints how many
pictures get the same class from both engines and the largest difference of a logit in steps; and with several --isa or
--threads, whether planish's bytes are the same in all of them. Exit status 1 where fewer than 99.5 % of the classes
agree, a logit is off by more than two steps, or bytes differ.

ONNX Runtime is run with its optimisations, and once without: what those two differ by is how much rounding explains.
"""
import argparse
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np


def last_step(path):
    """The scale of the last QuantizeLinear or DequantizeLinear of a model."""
    import onnx
    from onnx import numpy_helper
    graph = onnx.load(path).graph
    constants = {t.name: t for t in graph.initializer}
    for node in reversed(graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
            return float(numpy_helper.to_array(constants[node.input[1]]).ravel()[0])
    return 1.0


def pictures(arguments, shape):
    """The input, `[pictures, 3, height, width]`."""
    if arguments.inputs:
        return np.load(arguments.inputs)
    if arguments.cifar:
        data = np.fromfile(next(pathlib.Path(arguments.cifar).rglob("test_batch.bin")), np.uint8).reshape(-1, 3073)
        levels = data[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32)
    else:
        from PIL import Image
        filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST}
        files = sorted(f for f in pathlib.Path(arguments.pictures).iterdir() if f.suffix.lower() in (".jpg", ".png"))
        size = (arguments.size, arguments.size)
        load = lambda f: np.asarray(Image.open(f).convert("RGB").resize(size, filters[arguments.resize]))
        levels = np.stack([load(f) for f in files[:arguments.limit]]).transpose(0, 3, 1, 2).astype(np.float32)
    values = (levels[:arguments.limit] - arguments.mean) / arguments.std
    return values if shape[1] == 3 else values.transpose(0, 2, 3, 1)


def run_ort(path, values, optimise):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: part})[0] for part in batches(values)])


def batches(values):
    return [np.ascontiguousarray(values[i:i + 100]) for i in range(0, len(values), 100)]


def run_planish(binary, path, name, values, isa, threads):
    environment = dict(os.environ, **({"PLANISH_ISA": isa} if isa else {}))
    results = []
    for part in batches(values):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            np.save(folder / "input.npy", part)
            command = [binary, "run", path, "--input", f"{name}={folder / 'input.npy'}", "--output", str(folder / "out"),
                       "--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(done.stderr)
            results.append(np.load(next((folder / "out").glob("*.npy"))))
    return np.concatenate(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--inputs")
    source.add_argument("--pictures")
    source.add_argument("--cifar")
    parser.add_argument("--planish", required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--resize", default="bilinear")
    parser.add_argument("--mean", type=float, default=0.0)
    parser.add_argument("--std", type=float, default=1.0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--isa", nargs="+", default=[""])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    arguments = parser.parse_args()
    import onnx
    given = onnx.load(arguments.model).graph.input[0]
    shape = [d.dim_value for d in given.type.tensor_type.shape.dim]
    values = pictures(arguments, shape)
    step = last_step(arguments.model)
    theirs = run_ort(arguments.model, values, True).reshape(len(values), -1)
    plain = run_ort(arguments.model, values, False).reshape(len(values), -1)
    failed, first = False, None

    def compare(label, ours, others):
        same = int((ours.argmax(1) == others.argmax(1)).sum())
        steps = np.abs(ours - others) / step
        print(f"{label}: {same} of {len(ours)} classes the same, logits within {steps.max():.2f} steps, "
              f"{(steps < 0.5).mean() * 100:.2f} % of them the same")
        return same < 0.995 * len(ours) or steps.max() > 2.01

    compare("ONNX Runtime optimised / plain", theirs, plain)
    for isa, threads in itertools.product(arguments.isa, arguments.threads):
        found = run_planish(arguments.planish, arguments.model, given.name, values, isa, threads)
        ours = found.reshape(len(values), -1)
        label = f"planish {isa or 'best'} {threads} threads"
        failed |= compare(f"{label} / ONNX Runtime", ours, theirs)
        compare(f"{label} / ONNX Runtime plain", ours, plain)
        if first is None:
            first = found
        elif first.tobytes() != found.tobytes():
            failed = True
            print(f"{label}: {int((first != found).sum())} numbers differ from the first run's")
        else:
            print(f"{label}: the same bytes as the first run's")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
