#!/usr/bin/env python3
"""Accuracy after post-training quantisation: planish, NNCF and ONNX Runtime, from the same calibration pictures.

    python bench/quantize.py --planish target/release/planish [--photos PHOTOS_DIR --models MODELS_DIR]
                             [--cifar10 CIFAR_DIR] [--only NAME,…] [--peers nncf,ort] [--option=--equalize …]
                             [--markdown FILE] [--json FILE]

PHOTOS_DIR holds images/ and labels.tsv (file, class), CIFAR_DIR the official binary files, MODELS_DIR the networks of
the table NETWORKS below. Of the photographs a seeded shuffle puts 300 aside for calibration; all others are evaluated.
The CIFAR-10 networks calibrate with 300 training pictures and are evaluated on the test set. Pictures are prepared by
Pillow, once, for everybody; planish reads the files itself. Float, planish's and ONNX Runtime's models run in ONNX
Runtime, NNCF's in OpenVINO with `f32` for what is not int8. Each file that planish writes is checked by ONNX's checker.
Needs numpy, pillow, onnx, onnxruntime; and for NNCF openvino and nncf.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image

CALIBRATING = 300
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# name: file, size, filter, mean, std, channels, data, class of label 0
NETWORKS = {
    "efficientnet-lite0": ("efficientnet-lite0.onnx", 224, "bicubic", [127] * 3, [128] * 3, "rgb", "photos", 0),
    "squeezenet1.1": ("squeezenet1.1.onnx", 227, "bicubic", [123, 117, 104], [1] * 3, "bgr", "photos", 0),
    "mobilenet_v2": ("mobilenet_v2_1.0_224_quant.fp32.onnx", 224, "bilinear", [127.5] * 3, [127.5] * 3, "rgb", "photos", 1),
    "resnet20": ("resnet20.onnx", 32, None, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "rgb", "cifar10", 0),
    "resnet56": ("resnet56.onnx", 32, None, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "rgb", "cifar10", 0),
}


def prepare(pixels, mean, std, channels):
    """Planar f32 from pixels of shape [height, width, 3]."""
    x = (pixels.astype(np.float32) - np.float32(mean)) / np.float32(std)
    x = x.transpose(2, 0, 1)
    return np.ascontiguousarray(x[::-1] if channels == "bgr" else x)


class Photos:
    """Photographs in a folder, split once for all networks."""

    def __init__(self, folder):
        self.folder = folder / "images"
        lines = (folder / "labels.tsv").read_text().splitlines()
        pictures = [line.split("\t")[:2] for line in lines if not line.startswith("file\t")]
        random.Random(0).shuffle(pictures)
        self.calibrating, self.judging = pictures[:CALIBRATING], pictures[CALIBRATING:]

    def arrays(self, pictures, size, filter, mean, std, channels):
        def one(file):
            picture = Image.open(self.folder / file).convert("RGB").resize((size, size), FILTERS[filter])
            return prepare(np.asarray(picture), mean, std, channels)
        return np.stack([one(file) for file, _ in pictures]), np.array([int(label) for _, label in pictures])

    def for_planish(self, folder):
        for file, _ in self.calibrating:
            (folder / file).symlink_to((self.folder / file).resolve())
        return ["--images", str(folder)]


class Cifar10:
    """The official binary files; those that calibrate are training pictures."""

    def __init__(self, folder):
        read = lambda name: np.fromfile(folder / name, dtype=np.uint8).reshape(-1, 3073)
        train = read("data_batch_1.bin")
        order = list(range(len(train)))
        random.Random(0).shuffle(order)
        self.calibrating, self.judging = train[order[:CALIBRATING]], read("test_batch.bin")

    def arrays(self, records, _size, _filter, mean, std, channels):
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.stack([prepare(p, mean, std, channels) for p in pixels]), records[:, 0].astype(int)

    def for_planish(self, folder):
        # Unlabelled to planish: of labelled pictures it would keep half to judge by.
        for i, record in enumerate(self.calibrating):
            pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / f"{i:04}.png")
        return ["--images", str(folder)]


def top1(answer, inputs, labels, batch=10):
    right = 0
    for at in range(0, len(inputs), batch):
        right += int((answer(inputs[at:at + batch]).argmax(1) == labels[at:at + batch]).sum())
    return 100.0 * right / len(inputs)


def in_ort(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def by_ort(model, calibration, scratch):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    ready, out = scratch / "ort-ready.onnx", scratch / "ort.onnx"
    quant_pre_process(str(model), str(ready))
    name = onnx.load(str(ready), load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.items = ({name: x[None]} for x in calibration)

        def get_next(self):
            return next(self.items, None)

    quantize_static(str(ready), str(out), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return in_ort(out)


def by_nncf(model, calibration, _scratch):
    import nncf
    import openvino
    core = openvino.Core()
    loaded = core.read_model(str(model))
    small = nncf.quantize(loaded, nncf.Dataset([x[None] for x in calibration]), subset_size=len(calibration))
    compiled = core.compile_model(small, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(x)[0]


def by_planish(command, model, settings, data, scratch, options):
    _, size, filter, mean, std, channels, _, _ = settings
    pictures, out = scratch / "pictures", scratch / "planish.onnx"
    pictures.mkdir()
    flags = ["--size", str(size), "--mean", ",".join(map(str, mean)), "--std", ",".join(map(str, std)),
             "--channels", channels]
    flags += ["--resize", filter] if filter else []
    ran = subprocess.run([command, "quantize", str(model), *data.for_planish(pictures), *flags, *options, "--json",
                          "--count", str(CALIBRATING), "-o", str(out)], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    onnx.checker.check_model(str(out), full_check=True)
    return in_ort(out), json.loads(ran.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planish", default="target/release/planish")
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--cifar10", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--peers", default="nncf,ort", help="'' for none")
    parser.add_argument("--option", action="append", default=[], help="a further argument of planish quantize")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    sources = {"photos": arguments.photos and Photos(arguments.photos),
               "cifar10": arguments.cifar10 and Cifar10(arguments.cifar10)}
    peers = {"nncf": by_nncf, "ort": by_ort}
    peers = {name: peers[name] for name in arguments.peers.split(",") if name}
    columns = ["network", "pictures", "float", "planish", *peers, "planish − float", "observer", "seconds"]
    rows = []
    for name in arguments.only.split(","):
        settings = NETWORKS[name]
        file, *how, source, offset = settings
        data = sources[source]
        if data is None:
            continue
        model = arguments.models / file
        calibration, _ = data.arrays(data.calibrating, *how)
        inputs, labels = data.arrays(data.judging, *how)
        labels = labels + offset
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            row = {"network": name, "pictures": len(inputs), "float": top1(in_ort(model), inputs, labels)}
            answer, report = by_planish(arguments.planish, model, settings, data, scratch, arguments.option)
            row["planish"] = top1(answer, inputs, labels)
            for peer, quantise in peers.items():
                row[peer] = top1(quantise(model, calibration, scratch), inputs, labels)
        row["planish − float"] = row["planish"] - row["float"]
        row["observer"], row["seconds"] = report["observer"], report["seconds"]
        row["report"] = report
        rows.append(row)
        print({key: value for key, value in row.items() if key != "report"}, flush=True)
    cell = lambda value: f"{value:.2f}" if isinstance(value, float) else str(value)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row[column]) for column in columns) + " |" for row in rows]
    print("\n".join(lines))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
