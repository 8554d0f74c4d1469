"""Small GGUF files, and what llama.cpp makes of them, for core/engine/tests/gguf.rs.

    python gguf_files.py ../fixtures/gguf && node gguf.mjs ../fixtures/gguf > gguf.json

gguf-py 0.19; gguf.mjs asks node-llama-cpp (llama.cpp release v0.5.0). A file named `refused-WORD…` is to be refused by a message that holds
the word."""
import sys
from pathlib import Path

import gguf
import numpy as np

OUT = Path(sys.argv[1])
HEADS, HEAD = 4, 8
SPECIAL = ["<pad>", "<stop>", "<s>", "<user>", "<answer>"]
MERGES = ["h e", "Ġ he", "l l", "he ll", "1 2", "12 3", "' s", "Ġ Ġ", "o r", "Ġ w", "Ġw or"]


def alphabet():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in kept]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(len(others))]


def vocabulary(special):
    return special + alphabet() + [m.replace(" ", "") for m in MERGES]


def write(name, pre="gpt-2", kinds={}, special=SPECIAL, kv_heads=2, head=HEAD, quantised=None, own_head=False, template=None, more=None):
    # Blocks of quantised rows hold 32 values.
    hidden = feed = 32 if quantised else 16
    rng = np.random.default_rng(7)
    draw = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)
    tokens = vocabulary(special)
    types = [kinds.get(t, gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL) for t in tokens]
    w = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
    w.add_name("small")
    w.add_block_count(1), w.add_context_length(64), w.add_embedding_length(hidden), w.add_feed_forward_length(feed)
    w.add_head_count(HEADS), w.add_head_count_kv(kv_heads), w.add_key_length(head), w.add_value_length(head)
    w.add_rope_dimension_count(head), w.add_layer_norm_rms_eps(1e-5), w.add_rope_freq_base(10000.0)
    w.add_tokenizer_model("gpt2")
    if pre:
        w.add_tokenizer_pre(pre)
    w.add_token_list(tokens), w.add_token_types(types), w.add_token_merges(MERGES)
    w.add_eos_token_id(1), w.add_bos_token_id(2), w.add_pad_token_id(0)
    if template:
        w.add_chat_template(template)
    tensors = {"token_embd": draw(len(tokens), hidden), "output_norm": 1 + draw(hidden), "blk.0.attn_norm": 1 + draw(hidden)}
    tensors |= {"blk.0.attn_q": draw(HEADS * head, hidden), "blk.0.attn_k": draw(kv_heads * head, hidden), "blk.0.attn_v": draw(kv_heads * head, hidden)}
    tensors |= {"blk.0.attn_output": draw(hidden, HEADS * head), "blk.0.ffn_norm": 1 + draw(hidden)}
    tensors |= {"blk.0.ffn_gate": draw(feed, hidden), "blk.0.ffn_up": draw(feed, hidden), "blk.0.ffn_down": draw(hidden, feed)}
    if own_head:
        tensors["output"] = draw(len(tokens), hidden)
    for key, value in tensors.items():
        if quantised is not None and value.ndim == 2:
            w.add_tensor(key + ".weight", gguf.quants.quantize(value, quantised), raw_dtype=quantised)
        elif value.ndim == 2:
            # Half the size of f32, and exact in f32.
            w.add_tensor(key + ".weight", value.astype(np.float16))
        else:
            w.add_tensor(key + ".weight", value)
    if more:
        more(w)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


OUT.mkdir(parents=True, exist_ok=True)
for old in OUT.glob("*.gguf"):
    old.unlink()
write("plain")
write("own-head", own_head=True)
write("all-heads", kv_heads=4)
write("wide-heads", head=16)
write("smollm", pre="smollm")
write("llama3", pre="llama-bpe")
write("qwen2", pre="qwen2")
write("bf16", quantised=gguf.GGMLQuantizationType.BF16)
write("q8_0", quantised=gguf.GGMLQuantizationType.Q8_0)
write("q4_0", quantised=gguf.GGMLQuantizationType.Q4_0)
write("q4_1", quantised=gguf.GGMLQuantizationType.Q4_1)
write("begins", more=lambda w: w.add_add_bos_token(True))
write("begins-not", pre="llama-bpe", more=lambda w: w.add_add_bos_token(False))
write("eot", more=lambda w: w.add_eot_token_id(4))
write("eom", more=lambda w: w.add_uint32("tokenizer.ggml.eom_token_id", 3))
write("named-end", special=["<pad>", "<stop>", "<s>", "<user>", "<|im_end|>"])
write("named-end-as-text", special=["<pad>", "<stop>", "<s>", "<user>", "<|eot_id|>"], kinds={"<|eot_id|>": gguf.TokenType.NORMAL})
write("user-defined", kinds={"<user>": gguf.TokenType.USER_DEFINED, "<answer>": gguf.TokenType.UNUSED})
write("refused-rope_freqs", more=lambda w: w.add_tensor("rope_freqs.weight", np.full(HEAD // 2, 4.0, np.float32)))
write("refused-attn_q.bias", more=lambda w: w.add_tensor("blk.0.attn_q.bias", np.full(HEADS * HEAD, 2.0, np.float32)))
write("refused-rope.scaling", more=lambda w: (w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR), w.add_rope_scaling_factor(4.0)))
write("refused-tokenizer.ggml.pre", pre="default")
write("refused-suppress_tokens", more=lambda w: w.add_array("tokenizer.ggml.suppress_tokens", [5, 6]))
write("refused-attention.scale", more=lambda w: w.add_float32("llama.attention.scale", 0.7))
