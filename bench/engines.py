"""The engines that planish is measured against, each behind the same three calls.

An engine is made for one model, input shape and number of threads; `load_ms` says how long that took, `run()` does one
inference, `close()` lets go. Engines compute in f32 unless their name says otherwise. Which of them are there depends
on what is installed (all from PyPI): `available()` lists those that import.
"""
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np


def pin(threads):
    """Keeps this process, and those it starts, on the first `threads` processors."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])


def random_input(shape, seed=0):
    """Never zeros: some kernels are faster on them."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def picture_input(shape, seed=0):
    """Noise with coarse structure, as export_models.py sets the networks' statistics by.

    Plain noise is far from those statistics: some deep networks then amplify rounding errors a thousandfold, in every
    engine alike.
    """
    generator = np.random.default_rng(seed)
    coarse = generator.standard_normal((*shape[:2], 7, 7))

    def weights(extent):
        places = np.clip((np.arange(extent) + 0.5) * 7 / extent - 0.5, 0, 6)
        return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(7)))

    smooth = weights(shape[2]) @ coarse @ weights(shape[3]).T
    return (smooth + 0.5 * generator.standard_normal(shape)).astype(np.float32)


def tool(name):
    """A command that was installed beside this Python, or is on the path."""
    beside = pathlib.Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


class OnnxRuntime:
    def __init__(self, model, shape, threads):
        import onnxruntime
        free = free_dimensions(model, len(shape))
        begin = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for axis, name in enumerate(free):
            if name:
                options.add_free_dimension_override_by_name(name, shape[axis])
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.load_ms = (time.perf_counter() - begin) * 1e3
        self.feeds = {self.session.get_inputs()[0].name: random_input(shape)}

    def run(self):
        return self.session.run(None, self.feeds)

    def close(self):
        del self.session


def free_dimensions(model, rank):
    """The names of the first input's free axes, None for fixed ones."""
    import onnx
    value = first_input(onnx.load(str(model), load_external_data=False).graph)
    dims = value.type.tensor_type.shape.dim
    return [d.dim_param or None for d in dims] if len(dims) == rank else [None] * rank


def first_input(graph):
    constants = {i.name for i in graph.initializer}
    return next(i for i in graph.input if i.name not in constants)


class OpenVino:
    PRECISION = "f32"

    def __init__(self, model, shape, threads):
        import openvino
        begin = time.perf_counter()
        core = openvino.Core()
        network = self.network(core, model, shape)
        compiled = core.compile_model(network, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.PRECISION})
        self.request = compiled.create_infer_request()
        self.load_ms = (time.perf_counter() - begin) * 1e3
        self.input = random_input(shape)

    def run(self):
        return self.request.infer([self.input], share_inputs=True, share_outputs=True)

    def close(self):
        del self.request

    def network(self, core, model, shape):
        network = core.read_model(str(model))
        network.reshape({network.inputs[0]: list(shape)})
        return network


class OpenVinoBf16(OpenVino):
    PRECISION = "bf16"


class OpenVinoNncf(OpenVino):
    """What NNCF makes of the float model of the same name in the folder `float` beside the file, calibrated with noise:
    for its speed alone. What stays in floating point is `bf16`, as OpenVINO would have it, where the machine has that."""
    PRECISION = "bf16"

    def network(self, core, model, shape):
        import logging
        import nncf
        nncf.set_log_level(logging.ERROR)
        network = super().network(core, model.parent / "float" / model.name, shape)
        return nncf.quantize(network, nncf.Dataset([random_input(shape) for _ in range(4)]), subset_size=4)


class Tract:
    """One thread only, whatever is asked for."""

    def __init__(self, model, shape, threads):
        import tract
        if threads != 1:
            raise RuntimeError("tract's Python package runs on one thread")
        begin = time.perf_counter()
        network = tract.onnx().load(str(model))
        network.set_input_fact(0, ",".join(map(str, shape)) + ",f32")
        self.runnable = network.into_model().into_runnable()
        self.load_ms = (time.perf_counter() - begin) * 1e3
        self.input = random_input(shape)

    def run(self):
        return self.runnable.run([self.input])

    def close(self):
        del self.runnable


class Ncnn:
    """Stores weights as fp16; the file is converted by `pnnx`, which is not counted as loading."""

    def __init__(self, model, shape, threads):
        import ncnn
        converter = tool("pnnx")
        if not converter:
            raise RuntimeError("pnnx is not installed")
        self.folder = tempfile.TemporaryDirectory()
        copy = pathlib.Path(self.folder.name) / "m.onnx"
        shutil.copy(model, copy)
        subprocess.run([converter, copy.name, f"inputshape=[{','.join(map(str, shape))}]"], cwd=self.folder.name,
                       check=True, capture_output=True)
        begin = time.perf_counter()
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_vulkan_compute = False
        if self.net.load_param(f"{self.folder.name}/m.ncnn.param") or self.net.load_model(f"{self.folder.name}/m.ncnn.bin"):
            raise RuntimeError("ncnn cannot load what pnnx wrote")
        self.load_ms = (time.perf_counter() - begin) * 1e3
        if shape[0] != 1:
            raise RuntimeError("ncnn has no batches")
        self.input = ncnn.Mat(random_input(shape)[0])

    def run(self):
        extractor = self.net.create_extractor()
        extractor.input("in0", self.input)
        return extractor.extract("out0")

    def close(self):
        self.net.clear()
        self.folder.cleanup()


class Mnn:
    def __init__(self, model, shape, threads):
        import MNN
        converter = tool("mnnconvert")
        if not converter:
            raise RuntimeError("mnnconvert is not installed")
        self.folder = tempfile.TemporaryDirectory()
        converted = f"{self.folder.name}/m.mnn"
        subprocess.run([converter, "-f", "ONNX", "--modelFile", str(model), "--MNNModel", converted, "--bizCode", "x"],
                       check=True, capture_output=True)
        begin = time.perf_counter()
        manager = MNN.nn.create_runtime_manager(
            ({"backend": "CPU", "precision": "high", "numThread": threads},))
        self.net = MNN.nn.load_module_from_file(converted, [], [], runtime_manager=manager)
        self.load_ms = (time.perf_counter() - begin) * 1e3
        self.input = MNN.expr.convert(
            MNN.expr.const(random_input(shape), list(shape), MNN.expr.NCHW), MNN.expr.NC4HW4)

    def run(self):
        return self.net.forward([self.input])[0].read()

    def close(self):
        self.folder.cleanup()


class PlanishCommand:
    """planish through its command line: every round is a process of its own, which warms up before it measures."""

    def __init__(self, binary, model, shape, threads, extra=()):
        self.command = [str(binary), "bench", str(model), "--threads", str(threads), "--shape",
                        "x".join(map(str, shape)), "--json", *extra]

    def measure(self, seconds):
        """The JSON that `planish bench` prints."""
        done = subprocess.run([*self.command, "--duration", str(seconds)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1] if done.stderr or done.stdout
                               else f"planish ended with status {done.returncode}")
        return json.loads(done.stdout)


ENGINES = {"ort": ("onnxruntime", OnnxRuntime), "ov": ("openvino", OpenVino), "ov-bf16": ("openvino", OpenVinoBf16),
           "ov-nncf": ("nncf", OpenVinoNncf), "tract": ("tract", Tract), "ncnn": ("ncnn", Ncnn), "mnn": ("MNN", Mnn)}


def available():
    return [name for name, (package, _) in ENGINES.items() if importlib.util.find_spec(package)]


def create(name, model, shape, threads):
    return ENGINES[name][1](model, shape, threads)
