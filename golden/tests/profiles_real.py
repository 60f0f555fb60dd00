#!/usr/bin/env python3
"""Compares the profiles with the libraries themselves: codes, block scales and the stored tensor scale, bit for bit.

    python3 golden/tests/profiles_real.py

Uses the Python that runs it if that has the libraries, else a virtual environment in .tools/profiles, into which it installs
them (PyTorch among them, about 6 GB). The tensors go through `cargo run --example profiles`. TransformerEngine needs a GPU, but its
reference in PyTorch doesn't: only that file of the package is loaded. Exits with 1 if a bit differs.
"""

import ctypes
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest.mock
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".tools" / "profiles"
PACKAGES = ["torch", "numpy", "safetensors", "nvidia-modelopt", "torchao", "compressed-tensors", "libggml-python"]
MODULES = ["torch", "numpy", "safetensors", "modelopt", "torchao", "compressed_tensors", "libggml", "transformer_engine"]


def with_libraries():
    """Goes on in a Python that has the libraries."""
    if all(importlib.util.find_spec(module) for module in MODULES):
        return
    python = ENVIRONMENT / "bin" / "python"
    if pathlib.Path(sys.prefix) == ENVIRONMENT:
        sys.exit("the libraries were installed but can't be found")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, *PACKAGES], check=True)
    # Without its compiled parts, which want CUDA.
    subprocess.run([*install, "--no-deps", "transformer-engine"], check=True)
    sys.exit(subprocess.run([python, __file__]).returncode)


with_libraries()
warnings.filterwarnings("ignore")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

BOUNDS = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]


def e4m3(code):
    """Value of a positive E4M3 code."""
    exponent, mantissa = code >> 3, code & 7
    return mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)


def tensors():
    """Tensors by name: random ones, and those on which implementations differ."""
    random = np.random.default_rng(1)
    shape = (64, 512)
    normal = random.standard_normal(shape)
    wide = normal * 2.0 ** random.uniform(-40, 0, shape)
    outlier = normal * 1e-3
    outlier[5, 77] = 1000.0
    signed = random.choice([-1.0, 1.0], shape)
    # Multiples of decision points under all scales, when the largest is 6 · 448.
    ties = signed * random.choice(BOUNDS, shape) * random.choice([e4m3(c) for c in range(1, 0x7F)], (64, 32, 1)).repeat(16, 2).reshape(shape)
    ties[0, 0] = 2688.0
    # Blocks whose largest magnitude lies half-way between two scales.
    scale_ties = normal * 1e-3
    for index in range(126):
        scale_ties[index // 32, index % 32 * 16] = 6 * (e4m3(index) + e4m3(index + 1)) / 2
    scale_ties[8, 0] = 2688.0
    zeros = np.where(random.random((64, 32, 1)) < 0.5, 0.0, normal.reshape(64, 32, 16)).reshape(shape)
    zeros[random.random(shape) < 0.2] = -0.0
    made = {
        "normal": normal,
        "student": random.standard_t(2, shape),
        "wide": wide,
        "tiny": normal * 1e-30,
        "huge": normal * 1e30,
        "ties": ties,
        "ties_of_other_amax": ties * 1.203125,
        "constant": np.full(shape, 0.3),
        "outlier": outlier,
        "scale_ties": scale_ties,
        "scale_ties_of_other_amax": scale_ties * 1.09375,
        "zeros": zeros,
        "one": np.eye(64, 512),
    }
    made = {name: torch.tensor(x.astype(np.float32)) for name, x in made.items()}
    bf16 = {f"{name}_bf16": x.bfloat16().float() for name, x in made.items()}
    return made | bf16


def nibbles(packed):
    """Codes of bytes that hold two, the first one low."""
    packed = packed.view(torch.uint8).reshape(-1)
    return torch.stack([packed & 15, packed >> 4], 1).reshape(-1)


def modelopt(x):
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

    quantized, scales, scale = NVFP4QTensor.quantize(x.clone(), 16)
    return nibbles(quantized._quantized_data), scales.view(torch.uint8), scale


def torchao(x):
    from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale

    scale = per_tensor_amax_to_scale(x.abs().max())
    scales, packed = nvfp4_quantize(x, 16, scale)
    return nibbles(packed), scales.view(torch.uint8), scale


def compressed_tensors(x):
    from compressed_tensors.compressors.nvfp4.helpers import quantize_and_pack_fp4
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils.helpers import calculate_qparams, generate_gparam

    fp8 = torch.float8_e4m3fn
    args = QuantizationArgs(
        num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16, scale_dtype=fp8, zp_dtype=fp8
    )
    scale = generate_gparam(x.min(), x.max())
    groups = x.reshape(x.shape[0], -1, 16)
    scales, _ = calculate_qparams(groups.amin(2), groups.amax(2), args, global_scale=scale)
    packed = quantize_and_pack_fp4(x, scales, global_scale=scale, zero_point=None, group_size=16)
    return nibbles(packed), scales.to(fp8).view(torch.uint8), scale


def transformer_engine_reference():
    """The class of TransformerEngine's reference, the rest of the package left out."""
    package = "transformer_engine"
    folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
    for name in ["", ".pytorch", ".pytorch.custom_recipes", ".pytorch.quantized_tensor"]:
        sys.modules[package + name] = types.ModuleType(package + name)
    recipes = sys.modules[f"{package}.pytorch.custom_recipes"]
    # Only named in annotations and defaults.
    recipes.gemm = unittest.mock.MagicMock()
    recipes.reference_utils = unittest.mock.MagicMock()
    classes = sys.modules[f"{package}.pytorch.quantized_tensor"]
    classes.QuantizedTensorStorage = classes.Quantizer = object
    path = folder / "pytorch" / "custom_recipes" / "reference_nvfp4.py"
    spec = importlib.util.spec_from_file_location("reference_nvfp4", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference_nvfp4"] = module
    spec.loader.exec_module(module)
    return module.NVFP4QuantizerRef


def transformer_engine(x):
    amax = x.abs().max()
    packed, scales = REFERENCE._quantize_blockwise_reference(x, amax, 16, 1, pow_2_scales=False, eps=0.0)
    return nibbles(packed), scales.view(torch.uint8), amax


def ggml(x):
    import libggml

    library = ctypes.CDLL(next(pathlib.Path(libggml.__file__).parent.rglob("libggml-base.so")))
    data = x.contiguous().numpy()
    # Blocks of 64: 4 scales, then 4 · 8 bytes, whose low nibbles are the first 8 elements.
    out = np.zeros((data.size // 64, 36), np.uint8)
    library.quantize_row_nvfp4_ref(
        data.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(data.size)
    )
    packed = out[:, 4:].reshape(-1, 8)
    codes = np.concatenate([packed & 15, packed >> 4], 1)
    return torch.tensor(codes), torch.tensor(out[:, :4].copy()), torch.ones(1)


REFERENCE = transformer_engine_reference()
# A library, its profile, and whether it is given BF16.
LIBRARIES = [
    (modelopt, "modelopt", False),
    (transformer_engine, "transformer-engine", False),
    (torchao, "torchao", False),
    (compressed_tensors, "compressed-tensors", False),
    (compressed_tensors, "compressed-tensors-bf16", True),
    (ggml, "ggml", False),
]


def main():
    given = tensors()
    with tempfile.TemporaryDirectory() as folder:
        source, made = pathlib.Path(folder, "in.safetensors"), pathlib.Path(folder, "out.safetensors")
        save_file(given, source)
        command = ["cargo", "run", "-q", "--release", "-p", "fgmp-golden", "--example", "profiles", "--", source, made]
        subprocess.run(command, check=True, cwd=ROOT)
        ours = load_file(made)
    different = 0
    print(f"{'profile':24} {'tensors':>7} {'codes':>9} {'wrong':>6} {'scales':>7} {'wrong':>6} {'stored':>6} {'wrong':>6}")
    for library, profile, bf16 in LIBRARIES:
        counts = np.zeros(7, int)
        for name, x in given.items():
            if bf16 and not name.endswith("_bf16"):
                continue
            theirs = library(x.bfloat16() if bf16 else x)
            counts[0] += 1
            for column, (what, theirs) in enumerate(zip(["codes", "scales", "stored_scale"], theirs)):
                mine = ours[f"{name}.{profile}.{what}"].reshape(-1)
                theirs = theirs.reshape(-1).to(mine.dtype)
                wrong = int((mine != theirs).sum())
                counts[1 + 2 * column] += mine.numel()
                counts[2 + 2 * column] += wrong
                if wrong:
                    print(f"{profile}, {name}: {wrong} {what} differ", file=sys.stderr)
        print(f"{profile:24} {counts[0]:7} {counts[1]:9} {counts[2]:6} {counts[3]:7} {counts[4]:6} {counts[5]:6} {counts[6]:6}")
        different += counts[2] + counts[4] + counts[6]
    sys.exit(1 if different else 0)


main()
