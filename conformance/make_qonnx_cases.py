"""Writes cases of QONNX's quantisers, evaluated by QONNX itself, for planish's conformance runner.

    pip install qonnx
    python conformance/make_qonnx_cases.py OUT
    cargo run --release -p planish-engine --example conformance -- OUT

Each case is one node with drawn attributes, scales and zero points; elements lie on ties often. The results must be
equal to the last bit (rtol and atol are 0). The form of the folders is that of make_cases.py.
"""

import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

QONNX = "qonnx.custom_op.general"
MODES = ["ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN", "round"]


def drawn(random: np.random.Generator, operator: str) -> tuple[list[np.ndarray], dict, int]:
    """The inputs and attributes of a node, and the version of the domain."""
    shape = [int(random.integers(1, 3)), 4, 5]
    powers = random.random() < 0.5
    scale = (2.0 ** random.integers(-4, 3, [1, 4, 1]) if powers else random.uniform(0.01, 2, [])).astype("f")
    x = (random.normal(size=shape) * 8 * scale).astype("f")
    # On the middle between two integers, which decides whether ties are told apart.
    x = np.where(random.random(shape) < 0.3, (np.round(x / scale) + np.float32(0.5)) * scale, x)
    zero = np.float32(random.choice([0, 0, 1, -3]))
    bits = np.float32(random.integers(2, 9))
    attributes = {
        "signed": int(random.integers(0, 2)),
        "narrow": int(random.integers(0, 2)),
        "rounding_mode": str(random.choice(MODES)),
    }
    if operator == "BipolarQuant":
        return [x, scale], {}, 1
    if operator == "Trunc":
        kept = np.float32(random.integers(1, bits))
        if random.random() < 0.5:
            mode = {"rounding_mode": attributes["rounding_mode"]}
            return [x, scale, zero, bits, kept], mode, 1
        return [x, scale, zero, bits, scale * np.float32(2) ** (bits - kept), kept], attributes, 2
    return [x, scale, zero, np.float32(1) if random.random() < 0.1 else bits], attributes, 1


def write(path: str, value: np.ndarray, name: str) -> None:
    with open(path, "wb") as out:
        out.write(numpy_helper.from_array(np.asarray(value), name).SerializeToString())


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    random = np.random.default_rng(0)
    count = 0
    for operator in ["Quant", "IntQuant", "BipolarQuant", "Trunc"]:
        for number in range(100):
            inputs, attributes, version = drawn(random, operator)
            names = [f"input_{i}" for i in range(len(inputs))]
            node = helper.make_node(operator, names, ["y"], domain=QONNX, **attributes)
            graph = helper.make_graph(
                [node],
                operator,
                [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, inputs[0].shape)],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, inputs[0].shape)],
                [numpy_helper.from_array(np.asarray(v), n) for n, v in list(zip(names, inputs))[1:]],
            )
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, version)]
            model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
            expected = execute_onnx(ModelWrapper(model), {names[0]: inputs[0]})["y"]
            folder = os.path.join(sys.argv[1], "qonnx", f"test_{operator.lower()}_{number}")
            data = os.path.join(folder, "test_data_set_0")
            os.makedirs(data, exist_ok=True)
            onnx.save(model, os.path.join(folder, "model.onnx"))
            with open(os.path.join(folder, "case.txt"), "w", encoding="ascii") as out:
                out.write("rtol 0.0\natol 0.0\n")
            write(os.path.join(data, "input_0.pb"), inputs[0], names[0])
            write(os.path.join(data, "output_0.pb"), expected.astype("f"), "y")
            count += 1
    print(f"{count} cases")


if __name__ == "__main__":
    main()
