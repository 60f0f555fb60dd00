"""Decodes an NVFP4 checkpoint or a packed file with the packages safetensors and numpy alone.

    python read_nvfp4.py FILE.safetensors DECODED.safetensors

All weights are written as F32 under `X.weight`. Which layout the file has, its names tell.
"""

import json
import struct
import sys

import numpy as np
import safetensors
from safetensors.numpy import save_file

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e4m3(codes):
    """Values of E4M3 codes, from the format's definition."""
    exponent = ((codes >> 3) & 15).astype(np.int32)
    mantissa = (codes & 7).astype(np.float32)
    magnitude = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(8 + mantissa, exponent - 10))
    magnitude = np.where((codes & 0x7F) == 0x7F, np.nan, magnitude)
    return np.where(codes & 0x80, -magnitude, magnitude).astype(np.float32)


def raw(path):
    """Every tensor as its type's name, shape and bytes: numpy has no type for F8_E4M3."""
    with open(path, "rb") as file:
        data = file.read()
    tensors = {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in safetensors.deserialize(data)}
    (length,) = struct.unpack("<Q", data[:8])
    return tensors, json.loads(data[8:8 + length]).get("__metadata__", {})


def u8(tensors, name, dtype):
    found, shape, data = tensors[name]
    assert found == dtype, (name, found)
    return np.frombuffer(data, np.uint8).reshape(shape)


def f32(tensors, name):
    dtype, shape, data = tensors[name]
    assert dtype == "F32" and int(np.prod(shape)) == 1, (name, dtype, shape)
    return np.frombuffer(data, "<f4")[0]


def nibbles(codes):
    return np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)


def blocks(codes, scales, tensor_scale):
    """Values of FP4 blocks: scale times element is exact, and the tensor's scale rounds once."""
    values = E2M1[nibbles(codes)]
    return values * np.repeat(e4m3(scales), 16, axis=-1) * np.float32(tensor_scale)


def packed(tensors, name, shape):
    """A packed tensor of three dense streams."""
    rows, k = int(np.prod(shape[:-1])), shape[-1]
    count = rows * -(-k // 16)
    tags = np.unpackbits(u8(tensors, name + ".tags", "U8"), bitorder="little")[:count]
    scales = e4m3(u8(tensors, name + ".scales", "F8_E4M3"))
    payload = u8(tensors, name + ".payload", "U8")
    tensor_scale = f32(tensors, name + ".tensor_scale")
    values = np.empty((count, 16), np.float32)
    at = fp4 = 0
    for index, tag in enumerate(tags):
        if tag:
            values[index] = e4m3(payload[at:at + 16])
            at += 16
        else:
            values[index] = E2M1[nibbles(payload[at:at + 8])] * scales[fp4]
            at += 8
            fp4 += 1
    assert at == len(payload) and fp4 == len(scales)
    return (values.reshape(rows, -1)[:, :k] * tensor_scale).reshape(shape)


def main(source, target):
    tensors, metadata = raw(source)
    decoded = {}
    if "fgmp" in metadata:
        for name, shape in json.loads(metadata["fgmp"])["shapes"].items():
            decoded[name] = packed(tensors, name, shape)
    for name in tensors:
        stem, _, last = name.rpartition(".")
        scale = stem + ".weight_scale"
        if last == "weight_packed":
            one = np.float32(1)
            tensor_scale = one / f32(tensors, stem + ".weight_global_scale")
            decoded[stem + ".weight"] = blocks(u8(tensors, name, "U8"), u8(tensors, scale, "F8_E4M3"), tensor_scale)
        elif last == "weight" and stem + ".weight_scale_2" in tensors:
            tensor_scale = f32(tensors, stem + ".weight_scale_2")
            decoded[name] = blocks(u8(tensors, name, "U8"), u8(tensors, scale, "F8_E4M3"), tensor_scale)
    assert decoded, "nothing is packed"
    save_file({name: np.ascontiguousarray(values) for name, values in decoded.items()}, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
