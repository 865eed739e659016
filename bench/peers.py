#!/usr/bin/env python3
"""Measures planish against other engines on the same files, in turn, and prints the ratios.

    python bench/peers.py MODELS_DIR [NAME …] --planish target/release/planish [--against ort,ov] [--threads 1,2]
                          [--batch N] [--rounds 3] [--seconds 1] [--load] [--markdown FILE] [--json FILE]

Each round runs every engine once for --seconds, A B C A B C, so that a change in the machine's speed meets all of
them; an engine's time is the median over rounds of the medians within, a ratio the median of those of the rounds: on a
machine that is slow for seconds at a time it is steadier than the ratio of two times. Processes are pinned to as many
processors as threads. A ratio above 1 says that planish is faster. Time only on a quiet machine. --load measures instead
the time to load and the peak memory, each engine in a process of its own.
"""
import argparse
import datetime
import json
import math
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import engines

SPEED = ["alexnet", "vgg16", "resnet18", "resnet50", "resnext50_32x4d", "googlenet", "densenet121", "squeezenet1_1",
         "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b0"]


def input_shape(path, batch):
    """From models.json beside the file, or else from the model itself, with free axes taken as 224."""
    index = path.parent / "models.json"
    known = json.loads(index.read_text()) if index.exists() else {}
    if path.name in known:
        shape, free = list(known[path.name]["shape"]), 0 in known[path.name]["free_axes"]
    else:
        import onnx
        value = engines.first_input(onnx.load(str(path), load_external_data=False).graph)
        dims = value.type.tensor_type.shape.dim
        shape = [d.dim_value or (224 if axis > 1 else 1) for axis, d in enumerate(dims)]
        free = dims[0].dim_value == 0
    if batch != 1:
        if not free:
            return None
        shape[0] = batch
    return shape


def timed_rounds(contestants, rounds, seconds):
    """For each contestant the medians of its rounds, in ms."""
    medians = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            if isinstance(contestant, engines.PlanishCommand):
                medians[name].append(contestant.measure(seconds)["latency_ms"]["p50"])
                continue
            for _ in range(2):
                contestant.run()
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 3:
                begin = time.perf_counter()
                contestant.run()
                times.append((time.perf_counter() - begin) * 1e3)
            medians[name].append(statistics.median(times))
    return medians


def measure(path, shape, threads, options):
    contestants = {"planish": engines.PlanishCommand(options.planish, path, shape, threads, options.planish_option)}
    errors = {}
    for name in options.against:
        try:
            contestants[name] = engines.create(name, path, shape, threads)
        except Exception as error:  # an engine that cannot load a model is a result, not the end of the run
            errors[name] = str(error).strip().splitlines()[0][:120]
    if options.no_planish:
        del contestants["planish"]
    try:
        medians = timed_rounds(contestants, options.rounds, options.seconds)
    finally:
        for name, contestant in contestants.items():
            if name != "planish":
                contestant.close()
    result = {"model": path.name, "shape": shape, "threads": threads, "rounds_ms": medians, "errors": errors}
    result["ms"] = {name: statistics.median(values) for name, values in medians.items()}
    if "planish" in result["ms"]:
        result["ratio"] = {
            name: statistics.median(theirs / ours for theirs, ours in zip(rounds, medians["planish"]))
            for name, rounds in medians.items() if name != "planish"}
    return result


LOADER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import engines
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
name, model, shape, threads = sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), int(sys.argv[5])
__import__(engines.ENGINES[name][0])
before = peak()
engine = engines.create(name, model, shape, threads)
begin = time.perf_counter()
engine.run()
first = (time.perf_counter() - begin) * 1e3
print("RESULT" + json.dumps({"load_ms": engine.load_ms, "first_ms": first, "peak_rss_bytes": peak(), "idle_bytes": before}))
"""


def measure_load(path, shape, threads, options):
    """Loading time, first inference and peak memory; `idle_bytes` is what the bare interpreter with the engine takes."""
    result = {"model": path.name, "shape": shape, "threads": threads, "load": {}, "errors": {}}
    if not options.no_planish:
        runs = [engines.PlanishCommand(options.planish, path, shape, threads, options.planish_option).measure(0.2)
                for _ in range(options.rounds)]
        result["load"]["planish"] = {
            key: statistics.median(run[key] for run in runs) for key in ("load_ms", "first_ms", "peak_rss_bytes")}
    here = str(pathlib.Path(__file__).parent)
    for name in options.against:
        runs = []
        for _ in range(options.rounds):
            done = subprocess.run([sys.executable, "-c", LOADER, here, name, str(path), json.dumps(shape), str(threads)],
                                  capture_output=True, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
            if lines:
                runs.append(json.loads(lines[-1][len("RESULT"):]))
            else:
                result["errors"][name] = (done.stderr.strip().splitlines() or ["no answer"])[-1][:120]
        if runs:
            result["load"][name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return result


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def speed_table(results, names):
    lines = ["| model | shape | threads | " + " | ".join(f"{n} ms" for n in names) + " | "
             + " | ".join(f"{n} / planish" for n in names if n != "planish") + " |"]
    lines.append("|---|---|---:|" + "---:|" * (2 * len(names) - ("planish" in names)))
    for r in results:
        cells = [f"{r['ms'][n]:.2f}" if n in r["ms"] else "–" for n in names]
        cells += [f"{r['ratio'][n]:.2f}" if n in r.get("ratio", {}) else "–" for n in names if n != "planish"]
        lines.append(f"| {r['model']} | {'×'.join(map(str, r['shape']))} | {r['threads']} | " + " | ".join(cells) + " |")
    for threads in sorted({r["threads"] for r in results}):
        cells = ["" for _ in names]
        for n in names:
            if n != "planish":
                mean = geometric_mean([r["ratio"][n] for r in results if r["threads"] == threads and n in r.get("ratio", {})])
                cells.append(f"**{mean:.2f}**" if mean else "–")
        lines.append(f"| **geometric mean** | | {threads} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def load_table(results, names):
    lines = ["| model | threads | " + " | ".join(f"{n} load ms | {n} first ms | {n} peak MiB" for n in names) + " |"]
    lines.append("|---|---:|" + "---:|" * (3 * len(names)))
    for r in results:
        cells = []
        for n in names:
            found = r["load"].get(n)
            cells += [f"{found['load_ms']:.0f}", f"{found['first_ms']:.1f}", f"{found['peak_rss_bytes'] / 2**20:.0f}"] \
                if found else ["–"] * 3
        lines.append(f"| {r['model']} | {r['threads']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, help="a folder of .onnx files")
    parser.add_argument("names", nargs="*", help="files without .onnx (default: the twelve classifiers)")
    parser.add_argument("--planish", type=pathlib.Path, default=pathlib.Path("target/release/planish"))
    parser.add_argument("--planish-option", action="append", default=[], help="passed on to planish bench, repeatable")
    parser.add_argument("--no-planish", action="store_true", help="measure only the others")
    parser.add_argument("--against", default="ort", help=f"of {', '.join(engines.ENGINES)}, with commas; or all")
    parser.add_argument("--threads", default="1", help="one or more numbers, with commas")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--load", action="store_true", help="loading time and peak memory instead of latency")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    here = engines.available()
    options.against = here if options.against == "all" else options.against.split(",")
    missing = [name for name in options.against if name not in here]
    if missing:
        parser.error(f"not installed or not known: {', '.join(missing)}; there are {', '.join(here)}")
    results, failed = [], False
    # Pinning cannot be undone towards more processors, so the most threads come first.
    for threads in sorted(map(int, options.threads.split(",")), reverse=True):
        engines.pin(threads)
        for name in options.names or SPEED:
            path = options.models / f"{name}.onnx"
            shape = input_shape(path, options.batch)
            if shape is None:
                print(f"{path.name}: its batch is fixed", file=sys.stderr)
                continue
            try:
                result = (measure_load if options.load else measure)(path, shape, threads, options)
            except Exception as error:
                failed = True
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            results.append(result)
            for engine, message in result["errors"].items():
                print(f"{path.name}: {engine}: {message}", file=sys.stderr)
            shown = result["load"] if options.load else {k: round(v, 2) for k, v in result["ms"].items()}
            print(f"{path.name} ×{threads}: {shown}", file=sys.stderr, flush=True)
    names = ([] if options.no_planish else ["planish"]) + options.against
    table = (load_table if options.load else speed_table)(results, names)
    print(table)
    if options.markdown:
        options.markdown.write_text(table)
    if options.json:
        about = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                 "machine": platform.machine(), "rounds": options.rounds, "seconds": options.seconds}
        options.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
