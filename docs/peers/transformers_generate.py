"""What transformers' `generate` draws on a CPU, as `cargo xtask bench --peers` compares it: bf16, sampling, prompts of 52 tokens, 64 new ones each; then 64
prompts in one padded batch, whose answers end where the model ends them.

    OMP_NUM_THREADS=2 python transformers_generate.py MODEL

Prints a JSON object a line."""
import json
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT, NEW = 52, 64
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
transformers.logging.set_verbosity_error()
print(json.dumps({"version": "transformers", "is": transformers.__version__}))


def say(measure, value, unit="tokens/s"):
    print(json.dumps({"measure": measure, "value": value, "unit": unit}), flush=True)


@torch.no_grad()
def drawn(inputs, new, least):
    start = time.perf_counter()
    out = model.generate(**inputs, max_new_tokens=new, min_new_tokens=least, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                         pad_token_id=tokenizer.pad_token_id)
    return out[:, inputs["input_ids"].shape[1]:], time.perf_counter() - start


for batch in (1, 16, 64):
    ids = torch.tensor([[1000 + (i * 7919) % (model.config.vocab_size // 2) for i in range(PROMPT)]] * batch)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    drawn(inputs, 2, 2)
    first, all_of_them = drawn(inputs, 1, 1)[1], drawn(inputs, 1 + NEW, 1 + NEW)[1]
    say(f"decode, {batch} sequences", batch * NEW / (all_of_them - first))
    if batch == 16:
        say("prefill, 16 prompts", batch * PROMPT / first)

asked = ["Say in one sentence what", "Explain step by step how", "List three facts on how", "Write a poem on how"]
about = ["bread", "glass", "paper", "steel", "wool", "salt", "soap", "ice"]
texts = [[{"role": "user", "content": f"{a} {b} {c}."}] for a in asked for b in about for c in ("is made", "is used")]
inputs = tokenizer.apply_chat_template(texts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True)
torch.manual_seed(0)
out, seconds = drawn(inputs, 256, 0)
ends = [(row == tokenizer.eos_token_id).nonzero() for row in out]
tokens = sum(int(end[0]) + 1 if len(end) else out.shape[1] for end in ends)
say("answers of mixed length, 64 prompts", tokens / seconds)
say("answers of mixed length, mean", tokens / len(texts), "tokens")
