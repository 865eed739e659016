#!/usr/bin/env python3
"""Checks planish's outputs against ONNX Runtime's on whole networks: both exporters, batches, a second size.

    python bench/check_models.py MODELS_DIR [NAME …] --planish target/release/planish [--tolerance 1e-4] [--self]

For every file in MODELS_DIR/models.json (made by export_models.py): the shape it was exported with; batch 3 where the
batch is free; a larger, uneven height and width where those are free. Prints for each output the relative L2 error
|ours − theirs| / |theirs| and fails (exit status 1) above the tolerance. Integers and truth values must be equal.

Detection networks with non-maximum suppression (outputs boxes, scores, labels) choose and order boxes by score, and
with random weights scores nearly tie: even ONNX Runtime's optimised and plain runs differ. There, a box is found again
where one of the same label lies within 0.1 % of the picture and of its score; the error is the share of boxes that are
not found again, and 5 % of them may be missing.

--self compares ONNX Runtime with itself, optimised and not, instead: how much of an error rounding alone explains.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

import engines


def shapes(entry):
    """The shapes to try, each with a label."""
    base = list(entry["shape"])
    yield "as exported", base
    free = entry["free_axes"]
    if 0 in free:
        yield "batch 3", [3, *base[1:]]
    if 2 in free:
        step = 32 if entry["multiple"] == 1 else entry["multiple"]
        odd = 1 if entry["multiple"] == 1 else 0
        yield "second size", [1, base[1], base[2] - step + odd, base[3] + step + odd]


def run_ort(path, values, optimise=True):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: values})))


def run_planish(binary, path, input_name, values, extra):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.save(folder / "input.npy", values)
        done = subprocess.run([str(binary), "run", str(path), "--input", f"{input_name}={folder / 'input.npy'}",
                               "--output", str(folder / "out"), *extra], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
        # Names may hold what file names may not: compare with everything but letters and digits made equal.
        return {plain(file.stem): np.load(file) for file in (folder / "out").glob("*.npy")}


def plain(name):
    return re.sub(r"[^0-9A-Za-z]", "_", name)


def error(ours, theirs):
    """The relative L2 error; infinite where the shapes differ or integers do."""
    if ours.shape != theirs.shape:
        return float("inf")
    if theirs.dtype.kind in "biu":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))


DETECTION = {"boxes", "scores", "labels"}
MAY_MISS = 0.05


def lost_boxes(ours, theirs, size):
    """The share of their boxes that ours lack."""
    if not len(theirs["boxes"]) or not len(ours["boxes"]):
        return float(len(theirs["boxes"]) != len(ours["boxes"]))
    near = np.abs(theirs["boxes"][:, None] - ours["boxes"][None]).max(-1) <= 1e-3 * size
    near &= np.abs(theirs["scores"][:, None] - ours["scores"][None]) <= 1e-3 * np.abs(theirs["scores"][:, None])
    near &= theirs["labels"][:, None] == ours["labels"][None]
    return float(1 - near.any(1).mean())


def check(path, entry, shape, options):
    """Pairs of output name and error."""
    values = engines.picture_input(shape, seed=1)
    theirs = run_ort(path, values)
    if options.self:
        ours = {plain(k): v for k, v in run_ort(path, values, optimise=False).items()}
    else:
        ours = run_planish(options.planish, path, entry["input"], values, options.planish_option)
    missing = [name for name in theirs if plain(name) not in ours]
    if missing:
        raise RuntimeError(f"no output named {', '.join(missing)}; got {', '.join(ours)}")
    if set(theirs) == DETECTION:
        return [("boxes lost", lost_boxes(ours, theirs, shape[-1]))]
    return [(name, error(ours[plain(name)], value)) for name, value in theirs.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="networks or files (default: all)")
    parser.add_argument("--planish", type=pathlib.Path, default=pathlib.Path("target/release/planish"))
    parser.add_argument("--planish-option", action="append", default=[], help="passed on to planish run, repeatable")
    parser.add_argument("--exporter", choices=["old", "dynamo", "both"], default="both")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--self", action="store_true")
    options = parser.parse_args()
    index = json.loads((options.models / "models.json").read_text())
    unknown = set(options.names) - set(index) - {e["network"] for e in index.values()}
    if unknown:
        parser.error(f"not in models.json: {', '.join(sorted(unknown))}")
    print("| file | shape | error | |\n|---|---|---|---|")
    passed = failed = 0
    for file, entry in sorted(index.items()):
        if options.names and not {file, entry["network"]} & set(options.names):
            continue
        if options.exporter not in (entry["exporter"], "both"):
            continue
        for label, shape in shapes(entry):
            try:
                errors = check(options.models / file, entry, shape, options)
                good = all(e <= (MAY_MISS if name == "boxes lost" else options.tolerance) for name, e in errors)
                text = ", ".join(f"{name} {e:.1e}" for name, e in errors)
            except Exception as problem:
                good, text = False, str(problem).strip().splitlines()[0][:200]
            passed, failed = passed + good, failed + (not good)
            print(f"| {file} | {label} {'×'.join(map(str, shape))} | {text} | {'pass' if good else '**FAIL**'} |", flush=True)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
