"""Fisher information of a Hugging Face model of the Llama family, for `fgmp quantize --fisher`.

python fisher_torch.py MODEL-FOLDER TOKENS.u32 WINDOWS WINDOW OUT.safetensors
"""
import json, sys
import numpy, torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

folder, stream, windows, window, out = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5]
tokens = torch.from_numpy(numpy.fromfile(stream, "<u4").astype("int64"))
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
SITES = {"q_proj": "attention", "o_proj": "attention-output", "gate_proj": "mlp", "down_proj": "mlp-down"}
weights = {n: p for n, p in model.named_parameters() if n.endswith("_proj.weight")}
squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}

def watch(name, width):
    squares[name] = torch.zeros(width, dtype=torch.float64)
    def add(gradient):  # what all matrices that read the input say together
        squares[name] += gradient.double().square().sum((0, 1))
    def before(module, inputs):
        inputs[0].register_hook(add)
    return before

for layer, block in enumerate(model.model.layers):
    for name, module in block.named_modules():
        if site := SITES.get(name.rpartition(".")[2]):
            module.register_forward_pre_hook(watch(f"activations.0.{layer}.{site}", module.in_features))
loss_sum = 0.0
for i in range(windows):
    ids = tokens[i * window : (i + 1) * window + 1]  # the last is only predicted
    loss = torch.nn.functional.cross_entropy(model(ids[None, :-1], use_cache=False).logits[0], ids[1:])
    model.zero_grad()
    loss.backward()
    loss_sum += loss.item()
    for name, weight in weights.items():
        squares[name] += weight.grad.square()
mean = {name: (s / (windows if name in weights else windows * window)).float() for name, s in squares.items()}
summary = dict(version=1, tokens=windows * window, windows=windows, window=window, loss=loss_sum / windows)
save_file(mean, out, metadata={"fgmp": json.dumps({"fisher": summary})})
