"""What llama.cpp decodes on a CPU, as `cargo xtask bench --peers` compares it: bf16, prompts of 52 tokens, 64 new ones each, tokens given (nothing is
drawn); then 64 prompts at once, drawn at temperature 1, whose answers leave the batch where the model ends them (as with 64 slots of its server).

    python llama_cpp_decode.py MODEL.gguf THREADS

A GGUF of another type is made bf16 beside it first. Prints a JSON object a line."""
import json
import sys
import time
from pathlib import Path

import llama_cpp as L

PROMPT, NEW, SEQUENCES = 52, 64, 64
given, threads = Path(sys.argv[1]), int(sys.argv[2])
L.llama_backend_init()
quiet = L.llama_log_callback(lambda *_: None)
L.llama_log_set(quiet, None)
file = given.with_suffix(".bf16.gguf")
if not file.exists():
    how = L.llama_model_quantize_default_params()
    how.ftype, how.allow_requantize, how.nthread = 32, True, threads
    assert L.llama_model_quantize(str(given).encode(), str(file).encode(), how) == 0
model = L.llama_model_load_from_file(str(file).encode(), L.llama_model_default_params())
vocab = L.llama_model_get_vocab(model)
print(json.dumps({"version": "llama.cpp", "is": f"llama-cpp-python {L.__version__}"}))


def say(measure, value, unit="tokens/s"):
    print(json.dumps({"measure": measure, "value": value, "unit": unit}), flush=True)


class Batch:
    """Sequences of one context."""

    def __init__(self, length):
        how = L.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch, how.n_seq_max = SEQUENCES * length, 4096, 512, SEQUENCES
        how.n_threads = how.n_threads_batch = threads
        how.kv_unified = False
        self.context = L.llama_init_from_model(model, how)
        self.batch = L.llama_batch_init(4096, 0, 1)

    def clear(self):
        L.llama_memory_clear(L.llama_get_memory(self.context), True)

    def decode(self, rows):
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, position, 1, wanted
            b.seq_id[i][0] = sequence
        assert L.llama_decode(self.context, b) == 0
        L.llama_synchronize(self.context)

    def free(self):
        L.llama_batch_free(self.batch)
        L.llama_free(self.context)


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


ids = [1000 + (i * 7919) % (L.llama_vocab_n_tokens(vocab) // 2) for i in range(PROMPT)]
batch = Batch(PROMPT + NEW + 8)
for count in (1, 16, 64):
    batch.clear()
    rows = [(token, i, s, i + 1 == PROMPT) for s in range(count) for i, token in enumerate(ids)]
    batch.decode(rows)
    if count == 16:
        # The first pass over so many takes memory that the next one finds.
        batch.clear()
        say("prefill, 16 prompts", count * PROMPT / timed(lambda: batch.decode(rows)))
    batch.decode([(ids[0], PROMPT, s, True) for s in range(count)])
    steps = [[(ids[i % PROMPT], PROMPT + 1 + i, s, True) for s in range(count)] for i in range(NEW)]
    say(f"decode, {count} sequences", count * NEW / timed(lambda: [batch.decode(step) for step in steps]))
batch.free()


def tokens_of(text):
    data = text.encode()
    out = (L.llama_token * 256)()
    count = L.llama_tokenize(vocab, data, len(data), out, 256, False, True)
    return list(out[:count])


def mixed():
    asked = ["Say in one sentence what", "Explain step by step how", "List three facts on how", "Write a poem on how"]
    about = ["bread", "glass", "paper", "steel", "wool", "salt", "soap", "ice"]
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    prompts = [tokens_of(f"{system}<|im_start|>user\n{a} {b} {c}.<|im_end|>\n<|im_start|>assistant\n")
               for a in asked for b in about for c in ("is made", "is used")]
    sampler = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    L.llama_sampler_chain_add(sampler, L.llama_sampler_init_temp(1.0))
    L.llama_sampler_chain_add(sampler, L.llama_sampler_init_dist(0))
    batch = Batch(64 + 256)
    seconds_of_drawing = 0.0

    def draw(place):
        nonlocal seconds_of_drawing
        began = time.perf_counter()
        token = L.llama_sampler_sample(sampler, batch.context, place)
        seconds_of_drawing += time.perf_counter() - began
        return token

    lengths, made, alive, start = [len(p) for p in prompts], [0] * len(prompts), {}, time.perf_counter()
    for first in range(0, len(prompts), 32):
        rows, last = [], {}
        for s in range(first, first + 32):
            rows += [(t, i, s, i + 1 == lengths[s]) for i, t in enumerate(prompts[s])]
            last[s] = len(rows) - 1
        batch.decode(rows)
        alive |= {s: draw(at) for s, at in last.items()}
    while alive:
        for s in alive:
            made[s] += 1
        alive = {s: t for s, t in alive.items() if not L.llama_vocab_is_eog(vocab, t) and made[s] < 256}
        if alive:
            order = list(alive)
            batch.decode([(alive[s], lengths[s] + made[s] - 1, s, True) for s in order])
            alive = {s: draw(i) for i, s in enumerate(order)}
    seconds = time.perf_counter() - start
    say("answers of mixed length, 64 prompts", sum(made) / seconds)
    say("answers of mixed length, mean", sum(made) / len(made), "tokens")
    say("answers of mixed length, without drawing", sum(made) / (seconds - seconds_of_drawing))


mixed()
