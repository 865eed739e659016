"""Checks models that planish wrote, as others read them: ONNX's checker with shape inference, and ONNX Runtime.

    cargo run --release -p planish-engine --example conformance -- CASES --save WRITTEN
    python conformance/check_written.py WRITTEN

Needs onnx and onnxruntime. A model that ONNX Runtime has no kernel for (an element type, most often) is counted, not
failed; anything that the checker refuses, or that ONNX Runtime finds malformed, is listed, and the exit status is 1.
"""

import glob
import os
import sys

import onnx
import onnxruntime


def check(path: str) -> tuple[str, str]:
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    except Exception as error:
        return "refused by the checker", str(error)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        missing = "NOT_IMPLEMENTED" in str(error)
        return ("no kernel in ONNX Runtime" if missing else "refused by ONNX Runtime"), str(error)
    return "good", ""


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    counts: dict[str, int] = {}
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "**", "*.onnx"), recursive=True)):
        verdict, reason = check(path)
        counts[verdict] = counts.get(verdict, 0) + 1
        if verdict.startswith("refused"):
            print(f"{os.path.basename(path)}: {verdict}: {reason.strip().splitlines()[0][:300]}")
    print(counts)
    sys.exit(any(verdict.startswith("refused") for verdict in counts) or not counts)


if __name__ == "__main__":
    main()
