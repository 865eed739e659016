#!/usr/bin/env python3
"""What the planner's estimates cost on first use: planish untuned over planish tuned, on the same files, in turn.

    python bench/planner.py MODELS_DIR [NAME …] [--planish target/release/planish] [--threads 1,2] [--tune-seconds 30]
                            [--rounds 5] [--seconds 0.5] [--markdown FILE] [--json FILE]

Every network is tuned once for each number of threads, into wisdom of its own; then untuned and tuned sessions take
turns, A B A B, each in a process of its own, and the median over rounds of the medians within counts. A ratio above 1
is what tuning gained, and so what the estimates cost. Time only on a quiet machine.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import engines
import peers


def measure(path, shape, threads, options):
    with tempfile.TemporaryDirectory() as folder:
        wisdom = ["--wisdom", f"{folder}/wisdom.json"]

        def planish(*extra):
            return engines.PlanishCommand(options.planish, path, shape, threads, extra)

        learned = planish(*wisdom, "--tune", "--tune-seconds", str(options.tune_seconds)).measure(0.01)
        contestants = {"untuned": planish("--no-wisdom"), "tuned": planish(*wisdom)}
        medians = peers.timed_rounds(contestants, options.rounds, options.seconds)
    result = {"model": path.name, "threads": threads, "plan_ms": learned["plan_ms"],
              "tuned_layers": learned["tuned_layers"], "rounds_ms": medians}
    result["ms"] = {name: statistics.median(values) for name, values in medians.items()}
    result["ratio"] = result["ms"]["untuned"] / result["ms"]["tuned"]
    return result


def table(results):
    counts = sorted({r["threads"] for r in results})
    lines = ["| model | " + " | ".join(f"untuned, {t} threads | tuned | ratio" for t in counts) + " |",
             "|---|" + "---:|" * (3 * len(counts))]
    for model in dict.fromkeys(r["model"] for r in results):
        cells = []
        for threads in counts:
            found = [r for r in results if r["model"] == model and r["threads"] == threads]
            cells += [f"{r['ms']['untuned']:.2f} ms | {r['ms']['tuned']:.2f} ms | {r['ratio']:.3f}" for r in found[:1]] \
                or ["– | – | –"]
        lines.append(f"| {pathlib.Path(model).stem} | " + " | ".join(cells) + " |")
    means = [peers.geometric_mean([r["ratio"] for r in results if r["threads"] == t]) for t in counts]
    lines.append("| **geometric mean** | " + " | ".join(f"| | **{mean:.3f}**" for mean in means) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, help="a folder of .onnx files")
    parser.add_argument("names", nargs="*", help="files without .onnx (default: the twelve classifiers)")
    parser.add_argument("--planish", type=pathlib.Path, default=pathlib.Path("target/release/planish"))
    parser.add_argument("--threads", default="1,2", help="one or more numbers, with commas")
    parser.add_argument("--tune-seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    results, failed = [], False
    # Pinning cannot be undone towards more processors, so the most threads come first.
    for threads in sorted(map(int, options.threads.split(",")), reverse=True):
        engines.pin(threads)
        for name in options.names or peers.SPEED:
            path = options.models / f"{name}.onnx"
            try:
                result = measure(path, peers.input_shape(path, 1), threads, options)
            except Exception as error:
                failed = True
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            results.append(result)
            print(f"{path.name} ×{threads}: {result['ms']} {result['ratio']:.3f}, planned and tuned in "
                  f"{result['plan_ms'] / 1e3:.1f} s", file=sys.stderr, flush=True)
    if results:
        print(table(results))
    if options.markdown and results:
        options.markdown.write_text(table(results))
    if options.json:
        options.json.write_text(json.dumps({"results": results}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
