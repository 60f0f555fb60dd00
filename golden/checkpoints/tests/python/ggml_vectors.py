"""Blocks of each of ggml's types with the values that ggml's own Python package gives them.

    python ggml_vectors.py > ../vectors/ggml.json        needs the packages gguf and numpy
"""

import json

import gguf
import numpy as np

TYPES = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K MXFP4 NVFP4".split()
# Offsets of FP16 numbers in a block: these stay finite, so that no value is NaN and all can be compared bit for bit.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
ELEMENTS = 512


def main():
    random = np.random.default_rng(20)
    vectors = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (ELEMENTS // elements, size), dtype=np.uint8)
        for offset in HALVES.get(name, []):
            # Normal, subnormal, negative, and both zeros.
            scale = random.normal(size=len(blocks)) * 10.0 ** random.integers(-8, 3, len(blocks))
            if len(blocks) > 2:
                scale[:2] = [0.0, -0.0]
            blocks[:, offset:offset + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
        if name in ("F32", "F16", "BF16"):
            blocks[:, -1] &= 0xBF
        if name == "MXFP4":
            blocks[:4, 0] = [0, 1, 254, 255]
        if name == "NVFP4":
            blocks[0, :4] = [0, 0x7E, 0x7F, 0xFF]
        with np.errstate(over="ignore"):
            values = gguf.quants.dequantize(blocks, kind).astype(np.float32).reshape(-1)
        assert not np.isnan(values).any() and len(values) == ELEMENTS, name
        vectors[name] = {
            "blocks": blocks.tobytes().hex(),
            "values": values.astype("<f4").tobytes().hex(),
        }
    print(json.dumps(vectors, indent=1))


if __name__ == "__main__":
    main()
