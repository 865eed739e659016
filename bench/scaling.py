#!/usr/bin/env python3
"""Measures how planish gains from a second thread and from larger batches.

    python bench/scaling.py MODELS_DIR [NAME …] --planish target/release/planish [--threads 1,2] [--batch 1,8]
                            [--rounds 5] [--seconds 0.7] [--markdown FILE] [--json FILE]

Each round runs every number of threads with every batch once, in turn, so that a change in the machine's speed meets all
of them. Beside the medians of the rounds stands the best, because a processor shared with a neighbour makes single
rounds slow; and beside the network, what the machine itself gained at the same moments: as many copies of a plain loop as
threads, one on each processor, against a single one. Time only on a quiet machine.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import engines
from peers import SPEED, geometric_mean, input_shape

SPIN = "import time; b = time.perf_counter(); sum(range(6_000_000)); print(time.perf_counter() - b)"


def pin(processors, threads):
    """Keeps this process, and those it starts, on the first of these processors."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors[:threads])


def spin(processors, threads):
    """Loops per second of all processes together that do nothing but count."""
    running = []
    for index in range(threads):
        pin(processors[index:], 1)
        running.append(subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True))
    return sum(1 / float(process.communicate()[0]) for process in running)


def measure(path, options, processors):
    """Medians of the rounds in ms, by batch and threads, and what the machine gained in each round."""
    shapes = {batch: input_shape(path, batch) for batch in options.batch}
    rounds = {(batch, threads): [] for batch in options.batch if shapes[batch] for threads in options.threads}
    spins = {threads: [] for threads in options.threads}
    for _ in range(options.rounds):
        for threads in options.threads:
            spins[threads].append(spin(processors, threads))
        for batch, threads in rounds:
            pin(processors, threads)
            command = engines.PlanishCommand(options.planish, path, shapes[batch], threads, options.planish_option)
            rounds[batch, threads].append(command.measure(options.seconds)["latency_ms"]["p50"])
    least = options.threads[0]
    gained = {threads: [a / b for a, b in zip(spins[threads], spins[least])] for threads in options.threads}
    return {"model": path.name, "gained_by_spinning": gained,
            "rounds_ms": [{"batch": b, "threads": t, "ms": ms} for (b, t), ms in rounds.items()]}


def table(results, threads, batches):
    """A line for each network and batch."""
    least, most = threads[0], threads[-1]
    lines = ["| model | batch | " + " | ".join(f"{t} thr. ms" for t in threads)
             + " | scaling, medians | scaling, bests | spinning | an image to batch 1 |",
             "|---|---:|" + "---:|" * (len(threads) + 4)]
    gains = {}
    for result in results:
        found = {(r["batch"], r["threads"]): r["ms"] for r in result["rounds_ms"]}
        for batch in batches:
            if (batch, least) not in found:
                continue
            median = {t: statistics.median(found[batch, t]) for t in threads}
            scaling = median[least] / median[most]
            best = min(found[batch, least]) / min(found[batch, most])
            gains.setdefault(batch, []).append(scaling)
            spinning = statistics.median(result["gained_by_spinning"][most])
            alone = found.get((1, most))
            image = f"{median[most] / batch / statistics.median(alone):.2f}" if alone and batch != 1 else "–"
            lines.append(f"| {result['model']} | {batch} | " + " | ".join(f"{median[t]:.2f}" for t in threads)
                         + f" | {scaling:.2f} | {best:.2f} | {spinning:.2f} | {image} |")
    for batch, values in gains.items():
        blank = " | ".join("" for _ in threads)
        lines.append(f"| **geometric mean** | {batch} | {blank} | **{geometric_mean(values):.2f}** | | | |")
    return "\n".join(lines) + "\n"


def numbers(text):
    return sorted(int(number) for number in text.split(","))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, help="a folder of .onnx files")
    parser.add_argument("names", nargs="*", help="files without .onnx (default: the twelve classifiers)")
    parser.add_argument("--planish", type=pathlib.Path, default=pathlib.Path("target/release/planish"))
    parser.add_argument("--planish-option", action="append", default=[], help="passed on to planish bench, repeatable")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers, with commas")
    parser.add_argument("--batch", type=numbers, default=[1, 8], help="numbers, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))
    if len(processors) < options.threads[-1]:
        parser.error(f"{options.threads[-1]} threads need as many processors; there are {len(processors)}")
    results = []
    for name in options.names or SPEED:
        result = measure(options.models / f"{name}.onnx", options, processors)
        results.append(result)
        print(table([result], options.threads, options.batch), file=sys.stderr, flush=True)
    text = table(results, options.threads, options.batch)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
