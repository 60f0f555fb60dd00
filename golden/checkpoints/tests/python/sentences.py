"""What sentence-transformers and transformers say of texts: tests/vectors/sentences.json, and the small encoder tests/vectors/tiny-bert.

    python sentences.py MODEL        needs sentence-transformers; MODEL is the folder of all-MiniLM-L6-v2 (./setup --models)

Of all-MiniLM-L6-v2 the first dimensions of each text's vector and the cosines of all pairs are kept. The weights of the small encoder follow from their names, here and in the test.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors"

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "First, add 12 and 13 to get 25.",
    "12 + 13 = 25, so we have 25 left.",
    "First, subtract 12 from 13 to get 1.",
    "Größe ÄRGER 東京 🦀 don't",
    "\tspaces \n and\u00a0controls\u0007 ",
    "supercalifragilisticexpialidocious",
    "[SEP] is a token, x^2 + 3x - 7 <= 0 isn't.",
    "",
    "a very long text " * 100,
]
DIMENSIONS = 8

TINY = {
    "model_type": "bert",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "vocab_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
}
WORDS = "[PAD] [UNK] [CLS] [SEP] add sub ##tract ##s 1 2 3 ##0 ##1 + - = . and to get the two one three".split()
TINY_TEXTS = ["add 2 and 3", "subtract the 1 from 31.", "", "Adds Two and 30!", "1 + 2 = 3 . 3 + 3 - 1 + 2 + 2 + 1"]
LONGEST = 10


def weights(name, shape):
    """A linear congruential generator, seeded by the name; gains of norms lie around 1."""
    state = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    values = []
    for _ in range(int(np.prod(shape))):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 2**24 - 0.5)
    values = np.array(values, np.float32).reshape(shape)
    return np.float32(1) + values if name.endswith("LayerNorm.weight") else values


def tokenizer():
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [{"id": WORDS.index(token), "content": token, **special} for token in WORDS[:4]],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [WORDS.index(token)], "tokens": [token]} for token in ["[CLS]", "[SEP]"]},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {word: i for i, word in enumerate(WORDS)}},
    }


def tiny():
    folder = VECTORS / "tiny-bert"
    folder.mkdir(exist_ok=True)
    for name, content in [("config", TINY), ("tokenizer", tokenizer()), ("sentence_bert_config", {"max_seq_length": LONGEST, "do_lower_case": False})]:
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    model = transformers.BertModel(transformers.BertConfig(**TINY), add_pooling_layer=False).eval()
    state = {name: torch.from_numpy(weights(name, tuple(tensor.shape))) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    print(model.load_state_dict(state, strict=False))
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.enable_truncation(LONGEST)
    ids = [tokens.encode(text).ids for text in TINY_TEXTS]
    with torch.no_grad():
        states = [model(input_ids=torch.tensor([one])).last_hidden_state[0] for one in ids]
        vectors = [torch.nn.functional.normalize(state.mean(0), dim=0).tolist() for state in states]
    return {"texts": TINY_TEXTS, "tokens": ids, "vectors": vectors}


def minilm(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    vectors = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1, normalize_embeddings=True)
    vectors = vectors.astype(np.float64)
    cosines = vectors @ vectors.T
    return {
        "sha256": digest,
        "texts": TEXTS,
        "first": [[round(x, 7) for x in vector[:DIMENSIONS]] for vector in vectors.tolist()],
        "cosines": [[round(x, 7) for x in row[:i]] for i, row in enumerate(cosines.tolist())],
    }


if __name__ == "__main__":
    made = {
        "by": {"sentence-transformers": sentence_transformers.__version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "minilm": minilm(pathlib.Path(sys.argv[1])),
        "tiny": tiny(),
    }
    (VECTORS / "sentences.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
