"""Checks that models which planish read and wrote again mean the same to ONNX Runtime as the originals.

    cargo run --release -p planish-onnx --example rewrite -- OUT ORIGINALS/*.onnx
    python conformance/compare_rewritten.py ORIGINALS OUT

Runs both on the same random input (free extents become 1 for the batch, 64 otherwise) and compares. Needs onnx,
onnxruntime and numpy.
"""

import glob
import os
import sys

import numpy as np
import onnx
import onnxruntime


def session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    originals, rewritten = sys.argv[1:]
    failed = 0
    for path in sorted(glob.glob(os.path.join(rewritten, "*.onnx"))):
        name = os.path.basename(path)
        try:
            onnx.checker.check_model(path, full_check=True)
            random = np.random.default_rng(0)
            before, after = session(os.path.join(originals, name)), session(path)
            feeds = {}
            for value in before.get_inputs():
                extents = [d if isinstance(d, int) else (1 if i == 0 else 64) for i, d in enumerate(value.shape)]
                feeds[value.name] = random.standard_normal(extents).astype(np.float32)
            worst = 0.0
            for a, b in zip(before.run(None, feeds), after.run(None, feeds), strict=True):
                assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape)
                a, b = a.astype(np.float64), b.astype(np.float64)
                worst = max(worst, float((np.abs(a - b) / (1 + np.abs(a))).max(initial=0.0)))
            print(f"{name}: largest relative difference {worst:g}")
            # Other opsets choose other kernels in ONNX Runtime (AveragePool of 19), which sum in another order.
            failed += worst > 1e-4
        except Exception as error:
            print(f"{name}: {str(error).strip().splitlines()[0][:300]}")
            failed += 1
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
