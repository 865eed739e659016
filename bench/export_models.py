#!/usr/bin/env python3
"""Exports the networks that planish is measured and checked on, through both of PyTorch's ONNX exporters.

    python bench/export_models.py OUT [NAME …] [--exporter old|dynamo|both] [--force]

writes OUT/NAME.onnx (tracing exporter, opset 18) and OUT/NAME.dynamo.onnx, and OUT/models.json, which says for each
file the input's shape and which axes are free. Weights are random and seeded: coverage and speed do not need trained
ones. They are scaled so that every layer's output has unit variance, and batch normalisation gets real statistics and
uneven scales, so a wrong layer shows in the output. Needs torch, torchvision and onnx.
"""
import argparse
import json
import logging
import pathlib
import time
import traceback
import warnings
import zlib

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from torchvision.models import detection, segmentation

from networks import Detector, UNet

# Free axes: "batch" only, "all" (batch, height, width), "none".
SPEED = {
    "alexnet": ("batch", 224), "vgg16": ("batch", 224), "resnet18": ("all", 224), "resnet50": ("all", 224),
    "resnext50_32x4d": ("all", 224), "googlenet": ("all", 224), "densenet121": ("all", 224),
    "squeezenet1_1": ("all", 224), "mobilenet_v2": ("all", 224), "mobilenet_v3_large": ("all", 224),
    "shufflenet_v2_x1_0": ("all", 224), "efficientnet_b0": ("all", 224),
}
OTHERS = {
    "inception_v3": ("all", 299), "mnasnet1_0": ("all", 224), "regnet_y_400mf": ("all", 224),
    "convnext_tiny": ("all", 224), "deeplabv3_mobilenet_v3_large": ("all", 320), "fcn_resnet50": ("all", 224),
    "ssdlite320_mobilenet_v3_large": ("none", 320), "unet": ("all", 256), "yolo": ("all", 640),
}
NETWORKS = {**SPEED, **OTHERS}
# Height and width must be multiples of this (skip connections join halved maps again).
MULTIPLE = {"unet": 16, "yolo": 32}
# torchvision's detection code branches on the number of boxes found, which the newer exporter refuses.
OLD_ONLY = {"ssdlite320_mobilenet_v3_large"}
# Exported with batch normalisation left as nodes, so that folding it is also tested on a file.
KEEP_NORM = {"unet"}


class Output(nn.Module):
    """Unwraps torchvision's dictionary of segmentation outputs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)["out"]


class Detections(nn.Module):
    """Unwraps torchvision's list of detections for a batch of one image."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        found = self.inner([x[0]])[0]
        return found["boxes"], found["scores"], found["labels"]


def build(name):
    if name == "unet":
        return UNet()
    if name == "yolo":
        return Detector()
    if name in ("googlenet", "inception_v3"):
        return getattr(torchvision.models, name)(weights=None, aux_logits=False, init_weights=False)
    if name in ("deeplabv3_mobilenet_v3_large", "fcn_resnet50"):
        return Output(getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=False))
    if name == "ssdlite320_mobilenet_v3_large":
        return Detections(detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None))
    return getattr(torchvision.models, name)(weights=None)


def picture_noise(batch, size, generator):
    """Noise with coarse structure, so that pooled features differ between pictures."""
    coarse = torch.randn(batch, 3, 7, 7, generator=generator)
    fine = torch.randn(batch, 3, size, size, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.5 * fine


def make_healthy(model, name, size, generator):
    """Unit variance after every convolution and product, jittered normalisation with measured statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.7, 1.3, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
            module.momentum = None  # average over the passes below
            module.reset_running_stats()
        if hasattr(module, "layer_scale"):  # ConvNeXt starts it at 1e-6, which would hide whole blocks
            module.layer_scale.data.uniform_(0.2, 0.8, generator=generator)

    def rescale(module, _inputs, output):
        deviation = output.std().clamp_min(1e-6)
        module.weight.data /= deviation
        if module.bias is not None:
            module.bias.data /= deviation
        return output / deviation

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    hooks = [layer.register_forward_hook(rescale) for layer in layers]
    body = model
    if isinstance(model, Detections):
        body = lambda x: model.inner.head(list(model.inner.backbone(x).values()))  # noqa: E731
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout) or "StochasticDepth" in type(module).__name__:
            module.eval()
    with torch.no_grad():
        body(picture_noise(4, min(size, 256), generator))
        for hook in hooks:
            hook.remove()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        for _ in range(2):
            body(picture_noise(4, min(size, 256), generator))
    model.eval()


def free_axes(free):
    names = {"batch": {0: "batch"}, "all": {0: "batch", 2: "height", 3: "width"}, "none": {}}
    return names[free]


def export_old(model, example, path, name, free):
    output_names = ["boxes", "scores", "labels"] if isinstance(model, Detections) else ["output"]
    axes = free_axes(free)
    keep = name in KEEP_NORM
    torch.onnx.export(
        model, (example,), str(path), opset_version=18, dynamo=False, input_names=["input"],
        output_names=output_names,
        dynamic_axes={"input": axes, **{o: {0: "batch"} for o in output_names}} if axes else None,
        training=torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL,
        do_constant_folding=not keep)
    return sorted(axes)


def export_dynamo(model, example, path, name, free):
    """Tries the freest shapes first: what the exporter's guards refuse, it refuses loudly."""
    multiple = MULTIPLE.get(name, 1)
    batch = torch.export.Dim("batch", min=1, max=256)
    spatial = {}
    for axis, label in ((2, "height"), (3, "width")):
        if multiple > 1:
            spatial[axis] = multiple * torch.export.Dim(label, min=2, max=128)
        else:
            spatial[axis] = torch.export.Dim.AUTO
    choices = {"all": [{0: batch, **spatial}, {0: batch}, {}], "batch": [{0: batch}, {}], "none": [{}]}[free]
    example = torch.cat([example, example]) if free != "none" else example  # a batch of one would be specialised
    for position, axes in enumerate(choices):
        try:
            program = torch.onnx.export(
                model, (example,), dynamo=True, input_names=["input"],
                dynamic_shapes=(axes,) if axes else None, verbose=False)
            program.save(str(path), external_data=False)
            return sorted(axes)
        except Exception:
            if position + 1 == len(choices):
                raise
            print(f"  {name}: free axes {sorted(axes)} refused, trying fewer", flush=True)
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--exporter", choices=["old", "dynamo", "both"], default="both")
    parser.add_argument("--force", action="store_true", help="write files that exist again")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    unknown = [n for n in options.names if n not in NETWORKS]
    if unknown:
        parser.error(f"no network named {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    index_path = options.out / "models.json"
    failures = []
    exporters = [("old", "", export_old), ("dynamo", ".dynamo", export_dynamo)]
    for label, suffix, export in exporters:
        if options.exporter not in (label, "both"):
            continue
        for name in options.names or NETWORKS:
            free, size = NETWORKS[name]
            path = options.out / f"{name}{suffix}.onnx"
            if path.exists() and not options.force or (label == "dynamo" and name in OLD_ONLY):
                continue
            begin = time.time()
            try:
                seed = zlib.crc32(name.encode())
                torch.manual_seed(seed)
                generator = torch.Generator().manual_seed(seed)
                model = build(name)
                make_healthy(model, name, size, generator)
                temporary = path.with_suffix(".partial")
                axes = export(model, picture_noise(1, size, generator), temporary, name, free)
                temporary.rename(path)
                index = json.loads(index_path.read_text()) if index_path.exists() else {}
                index[path.name] = {
                    "network": name, "exporter": label, "input": "input", "shape": [1, 3, size, size],
                    "free_axes": axes, "multiple": MULTIPLE.get(name, 1), "speed": name in SPEED}
                index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
                print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, free axes {axes}, "
                      f"{time.time() - begin:.0f} s", flush=True)
            except Exception:
                failures.append(path.name)
                traceback.print_exc()
    if failures:
        raise SystemExit(f"failed: {', '.join(failures)}")


if __name__ == "__main__":
    main()
