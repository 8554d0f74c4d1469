#!/usr/bin/env python3
"""Writes the seeds of the corpora: small whole files of every form that a reader knows. The rest of a corpus grew out of them."""

import gzip
import itertools
import json
import struct
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def seed(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(content if isinstance(content, bytes) else content.encode())


def bundle(**files):
    """Several files in one input; a double underscore stands for a dot."""
    parts = []
    for name, content in files.items():
        content = content if isinstance(content, (bytes, str)) else json.dumps(content)
        content = content if isinstance(content, bytes) else content.encode()
        parts.append(b"--- " + name.replace("__", ".").encode() + b"\n" + content)
    return b"\n".join(parts)


# safetensors

def safetensors(tensors, metadata=None):
    head, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, raw) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def floats(*shape):
    count = 1
    for size in shape:
        count *= size
    return "F32", list(shape), struct.pack(f"<{count}f", *(((i % 7) - 3) / 8 for i in range(count)))


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4, "hidden_size": 4, "intermediate_size": 4,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
}
LAYER = {
    "input_layernorm": [4], "post_attention_layernorm": [4], "self_attn.q_proj": [4, 4], "self_attn.k_proj": [2, 4],
    "self_attn.v_proj": [2, 4], "self_attn.o_proj": [4, 4], "mlp.gate_proj": [4, 4], "mlp.up_proj": [4, 4], "mlp.down_proj": [4, 4],
}
MODEL = {"model.embed_tokens.weight": floats(4, 4), "model.norm.weight": floats(4)}
MODEL |= {f"model.layers.0.{name}.weight": floats(*shape) for name, shape in LAYER.items()}
HALF = dict(itertools.islice(MODEL.items(), 4))
REST = {name: tensor for name, tensor in MODEL.items() if name not in HALF}
INDEX = {"metadata": {"total_size": 1}, "weight_map": {n: ("1" if n in HALF else "2") + ".safetensors" for n in MODEL}}
ADAPTER = {"peft_type": "LORA", "r": 1, "lora_alpha": 2.0, "target_modules": ["layers.1.self_attn.k_proj"], "lora_dropout": 0.0,
           "bias": "none", "fan_in_fan_out": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
           "task_type": "CAUSAL_LM", "base_model_name_or_path": "b", "layers_to_transform": None, "exclude_modules": None}
K_PROJ = "base_model.model.model.layers.1.self_attn.k_proj"


def weights():
    seed("safetensors", "types", safetensors({"a": ("F64", [1], bytes(8)), "b": ("BF16", [2, 1], bytes(4)), "c": ("F16", [], bytes(2)),
                                              "d": ("I64", [1], bytes(8)), "e": ("U8", [0], b"")}, {"format": "pt"}))
    seed("safetensors", "whole", bundle(config__json=LLAMA, model__safetensors=safetensors(MODEL)))
    shards = {"1.safetensors": safetensors(HALF), "2.safetensors": safetensors(REST)}
    seed("safetensors", "shards", bundle(config__json=LLAMA, **{"model.safetensors.index.json": INDEX}, **shards))
    reward = LLAMA | {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1, "pad_token_id": 3}
    seed("safetensors", "reward", bundle(config__json=reward, model__safetensors=safetensors(MODEL | {"score.weight": floats(1, 4)})))
    factors = {f"{K_PROJ}.lora_A.weight": floats(1, 8), f"{K_PROJ}.lora_B.weight": floats(4, 1)}
    seed("safetensors", "adapter", bundle(adapter_config__json=ADAPTER, adapter_model__safetensors=safetensors(factors)))
    saved = {"base_model.model.model.norm.weight": floats(8)}
    whole = ADAPTER | {"modules_to_save": ["model.norm"]}
    seed("safetensors", "saved", bundle(adapter_config__json=whole, adapter_model__safetensors=safetensors(factors | saved)))


def configs():
    long = LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                     "original_max_position_embeddings": 8}, "head_dim": 2, "attention_bias": False, "mlp_bias": False,
                    "eos_token_id": [2, 3], "torch_dtype": "bfloat16", "id2label": {"0": "a"}, "pretraining_tp": 1}
    new = LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "dtype": "float32", "layer_types": None}
    mistral = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
    for name, config in {"plain": LLAMA, "long": long, "new": new, "mistral": mistral}.items():
        seed("config", name, json.dumps(config))
    drawn = {"do_sample": True, "temperature": 0.6, "top_k": 50, "top_p": 0.9, "eos_token_id": [1, 2], "max_new_tokens": 8,
             "repetition_penalty": 1.0, "num_beams": 1, "min_p": 0.0, "typical_p": 1.0, "stop_strings": [], "pad_token_id": 0}
    seed("config", "drawn", bundle(generation_config__json=drawn))
    seed("config", "greedy", bundle(generation_config__json={"do_sample": False, "eos_token_id": 2, "suppress_tokens": [1]}))
    pattern = ADAPTER | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {".*k_proj": 4}, "target_modules": ".*(q|k)_proj",
                         "exclude_modules": ["mlp"], "layers_to_transform": [0, 1], "layers_pattern": "layers", "use_rslora": True}
    biased = LLAMA | {"attention_bias": True, "quantization_config": {"bits": 4}, "unheard_of": 1}
    seed("config", "biased", json.dumps(biased))
    seed("config", "adapter", bundle(adapter_config__json=ADAPTER))
    seed("config", "pattern", bundle(adapter_config__json=pattern))
    seed("config", "all", bundle(config__json=LLAMA, generation_config__json=drawn, adapter_config__json=pattern))


# GGUF

def text(string):
    raw = string.encode()
    return struct.pack("<Q", len(raw)) + raw


SCALARS = {"u8": (0, "<B"), "i8": (1, "<b"), "u16": (2, "<H"), "i16": (3, "<h"), "u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"),
           "bool": (7, "<?"), "u64": (10, "<Q"), "i64": (11, "<q"), "f64": (12, "<d")}


def value(kind, given):
    if kind == "text":
        return struct.pack("<I", 8) + text(given)
    if kind.startswith("list "):
        kind = kind[5:]
        items = b"".join(text(v) if kind == "text" else struct.pack(SCALARS[kind][1], v) for v in given)
        return struct.pack("<IIQ", 9, 8 if kind == "text" else SCALARS[kind][0], len(given)) + items
    number, layout = SCALARS[kind]
    return struct.pack("<I", number) + struct.pack(layout, given)


def gguf(metadata, tensors, version=3):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, (kind, given) in metadata.items():
        out += text(key) + value(kind, given)
    data = b""
    for name, (kind, sizes, raw) in tensors.items():
        out += text(name) + struct.pack("<I", len(sizes)) + b"".join(struct.pack("<Q", s) for s in sizes)
        out += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    return out + bytes(-len(out) % 32) + data


TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "h", "e", "l", "o", "Ġ", "W", "r", "d", "he", "hel", "ll", "Ċ", "x"]


def gguf_metadata(pre="smollm", **more):
    types = [3, 3, 3] + [1] * (len(TOKENS) - 3)
    return {
        "general.architecture": ("text", "llama"), "general.alignment": ("u32", 32), "general.file_type": ("u32", 0),
        "llama.block_count": ("u32", 1), "llama.embedding_length": ("u32", 32), "llama.feed_forward_length": ("u32", 32),
        "llama.attention.head_count": ("u32", 2), "llama.attention.head_count_kv": ("u32", 1), "llama.context_length": ("u64", 64),
        "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5), "llama.rope.freq_base": ("f32", 10000.0),
        "tokenizer.ggml.model": ("text", "gpt2"), "tokenizer.ggml.pre": ("text", pre), "tokenizer.ggml.tokens": ("list text", TOKENS),
        "tokenizer.ggml.token_type": ("list i32", types), "tokenizer.ggml.merges": ("list text", ["h e", "he l", "l l"]),
        "tokenizer.ggml.bos_token_id": ("u32", 1), "tokenizer.ggml.eos_token_id": ("u32", 2), "tokenizer.ggml.padding_token_id": ("u32", 2),
        "tokenizer.chat_template": ("text", "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"),
    } | more


BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 28: (1, 8), 30: (1, 2)}


def gguf_tensors(kind, own_head=False):
    shapes = {"token_embd": [32, len(TOKENS)], "output_norm": [32], "blk.0.attn_norm": [32], "blk.0.ffn_norm": [32],
              "blk.0.attn_q": [32, 32], "blk.0.attn_k": [32, 16], "blk.0.attn_v": [32, 16], "blk.0.attn_output": [32, 32],
              "blk.0.ffn_gate": [32, 32], "blk.0.ffn_up": [32, 32], "blk.0.ffn_down": [32, 32]}
    shapes |= {"output": [32, len(TOKENS)]} if own_head else {}
    tensors = {}
    for name, sizes in shapes.items():
        block, width = BLOCKS[kind]
        count = sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
        tensors[f"{name}.weight"] = (kind, sizes, bytes(count // block * width))
    return tensors


def ggufs():
    seed("gguf", "q4", gguf(gguf_metadata(), gguf_tensors(2)))
    seed("gguf", "q8", gguf(gguf_metadata("llama-bpe", **{"tokenizer.ggml.add_bos_token": ("bool", True)}), gguf_tensors(8, own_head=True)))
    seed("gguf", "q4_1", gguf(gguf_metadata("qwen2"), gguf_tensors(3), version=2))
    seed("gguf", "f16", gguf(gguf_metadata("gpt-2", **{"llama.rope.scaling.type": ("text", "none")}), {"output_norm.weight": (1, [2], bytes(4))}))
    kinds = {kind: (kind, 1) for kind in SCALARS} | {f"list {kind}": (f"list {kind}", [1, 0]) for kind in SCALARS}
    seed("gguf", "kinds", gguf(kinds | {"text": ("text", "x"), "none": ("list text", [])}, {"f": (0, [1, 1, 1, 2], bytes(8)), "g": (30, [], bytes(2))}))


# tokenizers

BYTES = ["<s>", "</s>", "<pad>"] + list("helo WrdkBbif12.,!") + ["Ġ", "Ċ", "he", "hel"]


def bpe(**more):
    vocab = {t: i for i, t in enumerate(BYTES)}
    added = [{"id": i, "content": BYTES[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i in range(3)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
                      "merges": ["h e", "he l"]}} | more


def sequence(inner, *parts):
    return {"type": "Sequence", inner: list(parts)}


def tokenizers():
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
                "clean_up_tokenization_spaces": True, "model_max_length": 64, "add_bos_token": True, "add_prefix_space": False}
    chat = ("{% for m in messages %}{{ bos_token }}{{ m['role'] | upper }}: {{ m.content.strip() }}{{ eos_token }}\n{% endfor %}"
            "{% if add_generation_prompt %}ASSISTANT:{% endif %}")
    seed("tokenizer", "bytes", bundle(tokenizer__json=bpe(), tokenizer_config__json=settings, chat_template__jinja=chat))
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}
    split = {"type": "Split", "pattern": {"Regex": "[^ ]+| +"}, "behavior": "Isolated", "invert": False}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    words = {w: i for i, w in enumerate(["<unk>", "</s>", "hello", "World", "ok", "##s", "x"])}
    files = {
        "split": bpe(pre_tokenizer=sequence("pretokenizers", split, {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Removed"},
                                            {"type": "CharDelimiterSplit", "delimiter": "x"}, {"type": "UnicodeScripts"}, {"type": "WhitespaceSplit"}),
                     post_processor=sequence("processors", template, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True})),
        "normal": bpe(normalizer=sequence("normalizers", {"type": "NFC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"},
                                          {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "▁"},
                                          {"type": "Replace", "pattern": {"String": " "}, "content": "Ġ"}, {"type": "ByteLevel"}),
                      decoder=sequence("decoders", {"type": "Replace", "pattern": {"Regex": "Ġ"}, "content": " "}, {"type": "Fuse"}, {"type": "ByteFallback"},
                                       {"type": "Strip", "content": " ", "start": 1, "stop": 0}, metaspace)),
        "words": bpe(model={"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}, added_tokens=[], pre_tokenizer={"type": "Whitespace"}, decoder=None),
        "pieces": bpe(model={"type": "WordPiece", "vocab": words, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
                      added_tokens=[], normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
                      pre_tokenizer={"type": "BertPreTokenizer"}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
                      post_processor={"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<unk>", 0]}),
        "unigram": bpe(model={"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", 0.0], ["▁", -2.0], ["hello", -3.0], ["▁World", -4.0]], "byte_fallback": False},
                       added_tokens=[], pre_tokenizer=metaspace, decoder=sequence("decoders", metaspace, {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}),
                       post_processor={"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<unk>", 0], "trim_offsets": True, "add_prefix_space": True}),
        "fallback": bpe(model=bpe()["model"] | {"byte_fallback": True, "fuse_unk": True, "unk_token": "<pad>", "end_of_word_suffix": "</w>", "ignore_merges": True},
                        decoder={"type": "BPEDecoder", "suffix": "</w>"}, padding={"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0, "pad_token": "<pad>"},
                        truncation={"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}),
    }
    for name, file in files.items():
        seed("tokenizer", name, bundle(tokenizer__json=file, tokenizer_config__json={"eos_token": "</s>"}))
    token = {"content": "</s>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False, "special": True}
    many = settings | {"added_tokens_decoder": {"1": token, "30": token | {"content": "<x>"}}, "additional_special_tokens": ["<x>"], "eos_token": token,
                       "chat_template": [{"name": "default", "template": chat}, {"name": "rag", "template": "{{ raise_exception('no') }}"}], "split_special_tokens": True}
    seed("tokenizer", "many", bundle(tokenizer__json=bpe(), tokenizer_config__json=many, special_tokens_map__json={"unk_token": "<s>", "eos_token": token},
                                     added_tokens__json={"<y>": 31}, generation_config__json={"eos_token_id": [1, 2]}))
    rich = ("{%- macro say(t, n=1) %}{{ t | trim | title }}{{ n }}{% endmacro -%}{% set ns = namespace(i=0) %}{% for m in messages if m.role != 'system' %}"
            "{% set ns.i = ns.i + loop.index0 %}{{ say(m['content'].split(' ')[0][::-1], n=ns.i) }}{% if loop.last and not add_generation_prompt %}{% break %}{% endif %}"
            "{% generation %}{{ m | tojson(indent=2) }}{% endgeneration %}{{ strftime_now('%d %b %Y') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
            "{{ 'a' ~ 'b' * 3 if m.content is string else none }}{% filter upper %}x{% endfilter %}{% endfor %}{{ '%s-%03d' % ('a', 7) if tools is not defined }}{{ eos_token }}")
    seed("tokenizer", "rich", bundle(tokenizer__json=bpe(), tokenizer_config__json=settings, chat_template__jinja=rich,
                                     **{"additional_chat_templates/tools.jinja": "{{ tools }}"}))


# rows

def rows():
    def turn(role, content):
        return {"role": role, "content": content}
    q, a, b = turn("user", "q é"), turn("assistant", "a"), turn("assistant", "b")
    hh = "\n\nHuman: q\n\nAssistant: {}\n\nHuman: r\n\nAssistant: {}"
    forms = {
        "text": [{"prompt": "q", "completion": "a", "finished": False, "score": 0.5}, {"prompt": "q", "chosen": "a", "rejected": "b"}],
        "hh": [{"chosen": hh.format("a", "b"), "rejected": hh.format("a", "c")}, {"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " a"}],
        "messages": [{"messages": [turn("system", "s"), q, a], "tools": [{}]}, {"prompt": [q], "chosen": [a], "rejected": [b]},
                     {"chosen": [q, a], "rejected": [q, b]}, {"prompt": [turn("user", [{"type": "text", "text": "q"}])], "completion": [a]}],
        "sharegpt": [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 1}], "system": "s"}],
        "calls": [{"messages": [q, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, turn("tool", "1"), a]}],
        "same": [{"chosen": "The sky is blue.", "rejected": "The sky is green."}, {"prompt": "", "completion": ""}, {"prompt": None}],
    }
    for name, lines in forms.items():
        seed("rows", name, "\n".join(map(json.dumps, lines)) + "\n")
    seed("rows", "gzip", gzip.compress(("\ufeff" + "\r\n\n".join(map(json.dumps, forms["text"]))).encode(), mtime=0))
    seed("rows", "gzips", gzip.compress(b'{"prompt": "a"}\n', mtime=0) + gzip.compress(b'{"prompt": "b"}', mtime=0))
    for name, content in {"list": b'[{"prompt": "q"}]', "parquet": b"PAR1\0\0", "csv": b"prompt,completion\nq,a\n", "latin": b'{"prompt": "\xe9"}', "utf16": "{}".encode("utf-16")}.items():
        seed("rows", name, content)


# configuration

def toml():
    seed("toml", "values", 'seed = 7\ndevice = "cuda:1"\ntasks.hh.train.epochs = 0.5\ntasks.hh.sampler = { name = "uniform_grid" }\n'
                           'plugins.roots = ["a"]\nplugins.load = ["p.so", { path = "q", sha256 = "0" }]\nplugins.call_seconds = 1e3\n')
    seed("toml", "tables", "[tasks.hh]\nloss = { name = 'ipo', options = { beta = 0.1, nan = nan } }\n[tasks.hh.train]\nbatch_size = 0x10\n"
                           "[[plugins.load]]\npath = '''x'''\n[paper]\nalphas = [1, 2.5, -inf]\n")
    seed("toml", "wrong", 'sed = 1\ntasks.hh.train.epoch = 1979-05-27T07:32:00Z\ntasks.hh.teach.on = "\\u00e9"\na.b.c.d.e = [[[]]]\nseed=many\n=1\n')


# plans and checkpoints

def plans():
    data = {"paths": ["p.jsonl"], "part": "train", "test_share": 0.1, "limit": 8, "max_prompt_tokens": 32}
    part = lambda name, **options: {"name": name, "options": options}
    train = {"epochs": 1.0, "batch_size": 4}
    optimizer = {"name": "adamw", "lr": 1e-5}
    reward = lambda name, source: {"name": name, "source": source}
    rewards = {"id": "r", "kind": "rewards", "sources": [reward("A", part("length", target=20.0)), reward("B", part("lexicon", words={"a": 1.0})),
                                                        reward("C", part("regex", pattern="a+", score=1.0))], "policy": "m", "prompts": data}
    online = {"id": "o", "kind": "online_preference", "policy": {"stage": "s"}, "prompts": data, "rewards": "r", "sampler": part("dirichlet", alpha=1.0),
              "conditioner": part("weight_prefix"), "label": part("weighted_sum"), "loss": part("dpo", beta=0.1), "train": train, "optimizer": optimizer}
    small = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 2, "kv_heads": 1, "context": 64}
    stages = [
        {"id": "i", "kind": "init_model", "corpus": ["p.jsonl"]} | small,
        {"id": "s", "kind": "sft", "model": {"stage": "i"}, "data": data, "train": train, "optimizer": optimizer},
        {"id": "rm", "kind": "reward_model", "model": {"stage": "i"}, "data": data, "layers": 1, "train": train, "optimizer": optimizer},
        rewards, online,
        {"id": "f", "kind": "reinforce", "policy": {"stage": "s"}, "prompts": data, "rewards": "r", "sampler": part("fixed", weights=[0.5, 0.25, 0.25]),
         "conditioner": part("template", text="{A} {B} {C} {prompt}"), "baseline": "value", "train": train, "optimizer": optimizer},
        {"id": "b", "kind": "best_of_n", "policy": {"stage": "s"}, "prompts": data, "rewards": "r", "sampler": part("grid", step=0.5),
         "conditioner": part("none"), "completions": 4},
        {"id": "d", "kind": "ric_data", "policy": {"stage": "s"}, "prompts": data, "rewards": "r"},
        {"id": "t", "kind": "sft", "model": {"stage": "s"}, "samples": "b", "rewards": "r", "conditioner": part("weight_prefix")},
        {"id": "u", "kind": "soup", "of": {"base": {"stage": "s"}, "parts": [{"stage": "o"}, "n"]}, "weights": [0.5, 0.5]},
        {"id": "e", "kind": "evaluate", "name": "E", "policy": {"stage": "o"}, "rewards": "r", "conditioner": part("weight_prefix"), "prompts": data,
         "step": 0.5, "generate": {"max_new_tokens": 8, "temperature": 1.0}},
        {"id": "g", "kind": "evaluate", "name": "G", "soup": {"base": "m", "parts": ["n", "n", "n"], "adapters": "factor"}, "rewards": "r",
         "conditioner": part("none"), "prompts": data, "weights": [[1.0, 0.0, 0.0]]},
        {"id": "c", "kind": "compare", "method": "e", "against": ["g"], "dimensions": [
            {"name": n, "weights": [1.0, 0.0, 0.0], "judge": part("chat", url="http://localhost:1/v1", model="m", question="which?")}
            for n in ("A", "B")]},
    ]
    head = {"name": "p", "seed": 1, "device": "cpu", "dtype": "auto", "directory": "/nowhere"}
    for stage in stages:
        seed("plan", f"stage-{stage['id']}", json.dumps(head | {"stages": [stage]}))
    seed("plan", "whole", bundle(plan__json=head | {"stages": stages}, manifest__json={"motrain": "0.1.0", "layout": 2, "stages": {"a": "0123"}, "inputs_sha256": {}},
                                 **{"stages/a/stage.json": {"hash": "x", "finished": True, "seconds": 1.5}}))
    script = {"path": "s.rhai", "source": "fn f(p, a) { 1.0 }", "modules": {}, "config": {"seed": 1}}
    plugin = {"path": "p.so", "sha256": "0" * 64, "components": ["reward x"]}
    seed("plan", "foreign", json.dumps(head | {"script": script, "plugins": [plugin], "call_seconds": 1.0, "stages": []}))


def checkpoints():
    state = {"step": 7, "recent_kl": [0.5, 1e-300], "stopped": False, "files": {}, "sha256": {}}
    optimizer = {"step": ("I64", [1], struct.pack("<q", 7))}
    front = state | {"front": [{"weights": [0.5, 0.5], "rewards": [1.0, 2.0]}], "value": {"weights": [0.1, 0.2, 0.3], "bias": 0.0}}
    seed("checkpoint", "plain", json.dumps(state))
    seed("checkpoint", "front", bundle(state__json=front, optimizer__safetensors=safetensors(optimizer)))
    seed("checkpoint", "sized", bundle(state__json=state | {"files": {"config.json": 2}, "sha256": {"config.json": "0"}}, config__json="{}"))
    seed("checkpoint", "model", bundle(state__json=state, config__json=LLAMA, model__safetensors=safetensors(MODEL), optimizer__safetensors=safetensors(optimizer)))


for write in (weights, configs, ggufs, tokenizers, rows, toml, plans, checkpoints):
    write()
