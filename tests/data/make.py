#!/usr/bin/env python3
"""Makes the pictures that the tests of src/images read, with what Pillow (and torchvision) makes of them.

    python tests/data/make.py        (needs numpy, Pillow; torchvision for one member)

Drawn with a fixed seed, so the files only change when this script or Pillow does.
"""
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
FILTERS = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
generator = np.random.default_rng(7)


def draw(width, height):
    """Smooth colour with hard edges: filters overshoot at edges, and smooth parts compress well."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [128 + 127 * np.sin(x / (3 + 2 * c) + c) * np.cos(y / (4 + c)) for c in range(3)]
    picture = np.stack(planes, -1).clip(0, 255).astype(np.uint8)
    picture[height // 4 : height // 2, width // 4 : width // 2] = [255, 0, 255]
    picture[height // 2 :, width // 2 :] //= 3
    return picture


def write_archive(path, members):
    """np.savez_compressed with a fixed date."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in members.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)


def resized():
    sources = {"a": draw(32, 25), "b": draw(7, 23), "c": draw(1, 1),
               "d": generator.integers(0, 256, (8, 11, 3), dtype=np.uint8)}
    members = dict(sources)
    sizes = [(1, 1), (32, 25), (16, 25), (32, 7), (13, 9), (7, 23), (3, 30), (29, 4), (38, 5), (11, 8), (2, 33)]
    sizes += [tuple(int(n) for n in generator.integers(1, 25, 2)) for _ in range(5)]
    for filter_name in FILTERS:
        for position, (width, height) in enumerate(sizes):
            name = "abdabdacd"[position % 9]
            picture = Image.fromarray(sources[name])
            result = picture.resize((width, height), getattr(Image.Resampling, filter_name.upper()))
            members[f"{filter_name}-{width}x{height}-{name}"] = np.asarray(result)
    from torchvision import transforms
    recipe = transforms.Compose([
        transforms.Resize(24), transforms.CenterCrop(20), transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    members["torchvision"] = recipe(Image.fromarray(sources["a"])).numpy()
    write_archive(HERE / "resized.npz", members)


def pictures():
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    colour = Image.fromarray(draw(24, 17))
    alpha = Image.fromarray(generator.integers(0, 256, (17, 24), dtype=np.uint8))
    with_alpha = colour.copy()
    with_alpha.putalpha(alpha)
    cmyk = Image.fromarray(np.concatenate([draw(24, 17), draw(17, 24)[:17, :, :1].repeat(2, 1)[:, :24] // 4], -1), "CMYK")
    lossless = {
        "rgb.png": colour, "rgba.png": with_alpha, "gray.png": colour.convert("L"),
        "gray-alpha.png": with_alpha.convert("LA"), "palette.png": colour.quantize(16), "bits.png": colour.convert("1"),
        "rgb.bmp": colour}
    for name, picture in lossless.items():
        picture.save(folder / name)
    colour.save(folder / "rgb.webp", lossless=True)
    colour.save(folder / "rgb-444.jpg", quality=92, subsampling=0)
    colour.save(folder / "rgb-420.jpg", quality=92, subsampling=2)
    colour.save(folder / "progressive.jpg", quality=85, progressive=True, subsampling=0)
    colour.convert("L").save(folder / "gray.jpg", quality=90)
    cmyk.save(folder / "cmyk.jpg", quality=92)
    decoded = {path.name: np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())}
    write_archive(HERE / "decoded.npz", decoded)


if __name__ == "__main__":
    resized()
    pictures()
