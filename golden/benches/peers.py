#!/usr/bin/env python3
"""Speed of this crate on one core beside what Python users have: numpy with ml_dtypes, and ggml's C code.

    python3 golden/benches/peers.py

Uses the Python that runs it if that has the packages, else a virtual environment in .tools/peers. Where it also has PyTorch with torchao,
modelopt or compressed-tensors (as .tools/profiles has), those are measured, too. All times are CPU time of the process, the
median of many runs, so that other programs disturb them little; the ratio says how many times as fast this crate is.
"""

import ctypes
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".tools" / "peers"
ONE_THREAD = {name: "1" for name in ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"]}


def with_packages():
    """Goes on in a Python that has the packages, with one thread."""
    found = all(importlib.util.find_spec(module) for module in ["numpy", "ml_dtypes", "libggml"])
    if found and ONE_THREAD.items() <= os.environ.items():
        return
    python = pathlib.Path(sys.executable)
    if not found:
        if pathlib.Path(sys.prefix) == ENVIRONMENT:
            sys.exit("the packages were installed but can't be found")
        python = ENVIRONMENT / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "ml_dtypes", "libggml-python"], check=True)
    sys.exit(subprocess.run([python, __file__], env=os.environ | ONE_THREAD).returncode)


with_packages()
warnings.filterwarnings("ignore")

import ml_dtypes
import numpy as np


def rate(elements, run, seconds=2.0):
    """Million elements a second of CPU time, by the median of many runs."""
    run()
    times, start = [], time.process_time()
    while time.process_time() - start < seconds:
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return elements / statistics.median(times) / 1e6


def numpy_quantize(x):
    """NVFP4 by numpy and ml_dtypes' casts."""
    blocks = x.reshape(-1, 16) / (np.abs(x).max() / np.float32(2688))
    scales = (np.abs(blocks).max(axis=1) / np.float32(6)).astype(ml_dtypes.float8_e4m3fn)
    codes = (blocks / scales.astype(np.float32)[:, None]).astype(ml_dtypes.float4_e2m1fn).view(np.uint8)
    return scales, codes[:, ::2] | codes[:, 1::2] << 4


def numpy_decode(scales, packed, scale):
    """Back to FP32."""
    codes = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 16)
    values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return values * scales.astype(np.float32)[:, None] * scale


def ggml_library():
    import libggml

    return ctypes.CDLL(next(pathlib.Path(libggml.__file__).parent.rglob("libggml-base.so")))


def libraries(x):
    """Quantizers in PyTorch that are at hand, by profile."""
    found = {}
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    torch.set_num_threads(1)
    x = torch.tensor(x)
    if importlib.util.find_spec("torchao"):
        from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale

        found["torchao"] = lambda: nvfp4_quantize(x, 16, per_tensor_amax_to_scale(x.abs().max()))
    if importlib.util.find_spec("modelopt"):
        from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor

        found["modelopt"] = lambda: NVFP4QTensor.quantize(x, 16)
    return found


def main():
    command = ["cargo", "run", "-q", "--release", "-p", "fgmp-golden", "--example", "speed"]
    ours = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    elements, side = ours.pop("elements"), ours.pop("side")
    x = (np.random.default_rng(1).standard_normal((elements // 4096, 4096)) * 50).astype(np.float32)

    peers = []
    scales, packed = numpy_quantize(x)
    peers.append(("quantize NVFP4", "nvfp4", "numpy, ml_dtypes", rate(elements, lambda: numpy_quantize(x))))
    peers.append(("decode NVFP4", "decode", "numpy, ml_dtypes", rate(elements, lambda: numpy_decode(scales, packed, np.float32(0.1)))))

    ggml = ggml_library()
    blocks, out = np.zeros((elements // 64, 36), np.uint8), np.zeros(elements, np.float32)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, blocks, out)]
    count = ctypes.c_int64(elements)
    ggml_rate = rate(elements, lambda: ggml.quantize_row_nvfp4_ref(pointers[0], pointers[1], count))
    peers.append(("quantize, ggml's bits", "ggml", "ggml", ggml_rate))
    peers.append(("quantize NVFP4", "nvfp4", "ggml", ggml_rate))
    peers.append(("decode NVFP4", "decode", "ggml", rate(elements, lambda: ggml.dequantize_row_nvfp4(pointers[1], pointers[2], count))))

    for profile, run in libraries(x).items():
        peers.append((f"quantize, {profile}'s bits", profile, profile, rate(elements, run)))

    a, b = (np.random.default_rng(seed).integers(-448, 448, (side, side)).astype(np.float64) for seed in (1, 2))
    peers.append(("product, exact", "product", "numpy, FP64 @", rate(side**3, lambda: a @ b.T, 10.0)))

    print("million elements (products: multiply-adds) for each second of CPU time, one core")
    print(f"{'what':32} {'here':>9}   {'peer':18} {'there':>9} {'ratio':>7}")
    for what, key, peer, there in peers:
        print(f"{what:32} {ours[key]:9.1f}   {peer:18} {there:9.1f} {ours[key] / there:7.2f}")
    for key in sorted(ours.keys() - {key for _, key, _, _ in peers}):
        print(f"{key:32} {ours[key]:9.1f}")


main()
