"""Writes what other implementations make of planish's number formats, for cargo test to compare with.

    pip install numpy ml_dtypes        (ml_dtypes comes with onnx)
    python conformance/number_formats.py crates/planish-graph/tests/data/number_formats.txt
    python conformance/number_formats.py --check crates/planish-graph/tests/data/number_formats.txt

The second form only compares, and fails where the installed packages say otherwise. The oracles are ml_dtypes and
NumPy; where torch is installed and has the format, it must agree, or the script fails.

Each line of the file is one format. `decode` is a digest of the numbers of all codes; `encode` of the codes of a fixed
set of f32 inputs. Formats of at most 8 bits also list the numbers themselves. The inputs are made from the format's
finite numbers, each once and in order (+0 for both zeros): every number, the middle between it and the next, and the
f32 neighbours of that middle on both sides; before these, ±inf, ±0, ±the smallest f32, ±the largest f32, and NaN where
the format has one; behind them, beyond each end, the number that would come next, half of the way there, and that
half's neighbours. Of E8M0 the inputs from 2^-126 on are taken: below, where f32 is subnormal, ml_dtypes does not round
to the nearest.

The digest is FNV-1a of 64 bits over little-endian bytes: numbers as f32 with every NaN as 0x7fc00000, codes in 1 or 2
bytes.
"""

import sys

import ml_dtypes
import numpy as np

FORMATS = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp8-e4m3": ml_dtypes.float8_e4m3,
    "fp8-e4m3fn": ml_dtypes.float8_e4m3fn,
    "fp8-e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8-e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "fp8-e5m2": ml_dtypes.float8_e5m2,
    "fp8-e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp8-e8m0": ml_dtypes.float8_e8m0fnu,
    "fp6-e2m3": ml_dtypes.float6_e2m3fn,
    "fp6-e3m2": ml_dtypes.float6_e3m2fn,
    "fp4-e2m1": ml_dtypes.float4_e2m1fn,
}
BITS = {"fp16": 16, "bf16": 16, "fp6-e2m3": 6, "fp6-e3m2": 6, "fp4-e2m1": 4}
TORCH = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8-e4m3fn": "float8_e4m3fn",
    "fp8-e4m3fnuz": "float8_e4m3fnuz",
    "fp8-e5m2": "float8_e5m2",
    "fp8-e5m2fnuz": "float8_e5m2fnuz",
    "fp8-e8m0": "float8_e8m0fnu",
}


def digest(content: bytes) -> str:
    state = 0xCBF29CE484222325
    for byte in content:
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{state:016x}"


def decoded(name: str) -> np.ndarray:
    """The number of every code, as f32."""
    bits = BITS.get(name, 8)
    codes = np.arange(1 << bits, dtype=np.uint16 if bits > 8 else np.uint8)
    numbers = codes.view(FORMATS[name]).astype(np.float32)
    return np.where(np.isnan(numbers), np.float32(np.nan), numbers)


def between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The middles and their neighbours: below, middle, above for each pair. Middles are numbers of f32."""
    middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    below, above = np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))
    return np.stack([below, middle, above], axis=1).reshape(-1)


def inputs(name: str, numbers: np.ndarray) -> np.ndarray:
    finite = np.unique(numbers[np.isfinite(numbers)] + np.float32(0))
    info = np.finfo(np.float32)
    extremes = [np.inf, 0.0, info.smallest_subnormal, info.max]
    first = [sign * x for x in extremes for sign in (1, -1)]
    if np.isnan(numbers).any():
        first.append(np.nan)
    inner = np.concatenate([finite, between(finite[:-1], finite[1:])])
    with np.errstate(over="ignore"):
        ends = []
        for outer, inside in [(finite[-1], finite[-2]), (finite[0], finite[1])]:
            following = np.float32(2 * np.float64(outer) - inside)
            if np.isfinite(following):
                ends += [following, *between(np.array([outer]), np.array([following]))]
    result = np.concatenate([np.array(first, np.float32), inner, np.array(ends, np.float32)])
    if name == "fp8-e8m0":
        result = result[~(result < np.float32(2.0**-126))]
    return result


def encoded(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        codes = values.astype(FORMATS[name])
    return codes.view(np.uint16 if BITS.get(name, 8) > 8 else np.uint8)


def agrees_with_torch(name: str, numbers: np.ndarray, values: np.ndarray, codes: np.ndarray) -> str:
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    kind = getattr(torch, TORCH.get(name, ""), None)
    if kind is None:
        return "torch does not have it"
    integers = torch.uint16 if codes.itemsize == 2 else torch.uint8
    theirs = torch.from_numpy(values).to(kind).view(integers).numpy()
    every = torch.from_numpy(np.arange(len(numbers), dtype=codes.dtype)).view(kind).float().numpy()
    same = np.array_equal(every, numbers, equal_nan=True)
    # The sign of a NaN says nothing; of fp8-e4m3fn, newer versions of torch saturate where ml_dtypes makes NaN.
    allowed = np.isnan(numbers[codes]) & np.isnan(numbers[theirs])
    allowed |= np.isnan(numbers[codes]) & ~np.isnan(values) & (np.abs(numbers[theirs]) == np.nanmax(numbers))
    wrong = (theirs != codes) & ~allowed
    if not same or wrong.any():
        sys.exit(f"{name}: torch differs, of {len(codes)} inputs at {values[wrong][:5]}")
    return "torch agrees"


def text() -> str:
    lines = ["# Written by conformance/number_formats.py, which says what this is."]
    for name in FORMATS:
        numbers = decoded(name)
        values = inputs(name, numbers)
        codes = encoded(name, values)
        print(f"{name}: {len(numbers)} codes, {len(values)} inputs, {agrees_with_torch(name, numbers, values, codes)}")
        line = f"{name} decode {digest(numbers.tobytes())} encode {len(values)} {digest(codes.tobytes())}"
        if len(numbers) <= 256:
            line += " table " + " ".join(f"{x:.9g}" for x in numbers)
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    check = sys.argv[1:2] == ["--check"]
    if len(sys.argv) != 2 + check:
        sys.exit(__doc__)
    path = sys.argv[-1]
    made = text()
    if check:
        with open(path, encoding="ascii") as file:
            if file.read() != made:
                sys.exit(f"{path} is not what the installed packages say")
    else:
        with open(path, "w", encoding="ascii") as file:
            file.write(made)


if __name__ == "__main__":
    main()
