"""Small model folders and PEFT adapters, and what transformers and peft make of them, for core/engine/tests/weights.rs.

    python weights.py ../fixtures/weights > weights.json

transformers 5.24, peft 0.21, torch 2.15, f32. Each case is a folder `models/NAME` or `adapters/NAME` below the one given. A folder without
weights of its own is read with those of `base`. An answer is the logits (the score, for reward models) at the last of the tokens IDS; a
case without an answer is to be refused, by a message that holds the words given. Tolerance in the test: 1e-4 absolute."""
import copy
import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, logging

warnings.simplefilter("ignore")
logging.set_verbosity_error()
torch.set_num_threads(1)
IDS = [3, 1, 4, 1, 5, 9, 2, 6]
OUT = Path(sys.argv[1])
BASE = OUT / "base"
cases = []

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 12, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": None,
    "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "float32",
}


def shapes(c):
    d, f, h = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * h, c["num_key_value_heads"] * h
    out = {"model.embed_tokens.weight": [c["vocab_size"], d]}
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        out |= {at + "input_layernorm.weight": [d], at + "post_attention_layernorm.weight": [d]}
        out |= {at + f"self_attn.{n}_proj.weight": s for n, s in {"q": [q, d], "k": [kv, d], "v": [kv, d], "o": [d, q]}.items()}
        out |= {at + f"mlp.{n}_proj.weight": s for n, s in {"gate": [f, d], "up": [f, d], "down": [d, f]}.items()}
    return out | {"model.norm.weight": [d], "lm_head.weight": [c["vocab_size"], d]}


def weights(c, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda s: torch.randn(s, generator=generator) * 0.4 + (1.0 if len(s) == 1 else 0.0)
    return {name: draw(shape) for name, shape in shapes(c).items()}


def write(folder, config, tensors=None, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if tensors is not None:
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name, metadata={"format": "pt"})


def answer(model):
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([IDS])).logits
    return [round(v, 6) for v in (out[0, -1] if out.dim() == 3 else out[0]).double().tolist()]


def load(folder, kind):
    whole = folder
    if not any(folder.glob("*.safetensors")):
        whole = OUT / "whole"
        shutil.copytree(folder, whole)
        shutil.copy(BASE / "model.safetensors", whole)
    model = kind.from_pretrained(whole, dtype=torch.float32)
    if whole is not folder:
        shutil.rmtree(whole)
    return model.eval()


def model(name, changes=None, tensors=None, refused=None, kind=AutoModelForCausalLM):
    folder = OUT / "models" / name
    config = {k: v for k, v in {**CONFIG, **(changes or {})}.items() if v != "absent"}
    write(folder, config, tensors)
    cases.append({"model": name, "refused": refused} if refused else {"model": name, "answer": answer(load(folder, kind))})


def models():
    base = weights(CONFIG)
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    without = lambda *names: {k: v for k, v in base.items() if k not in names}
    model("plain")
    model("tied", {"tie_word_embeddings": True}, without(head))
    model("tied_with_equal_head", {"tie_word_embeddings": True}, base | {head: base[embedding].clone()})
    model("tied_with_another_head", {"tie_word_embeddings": True})
    model("tied_with_only_a_head", {"tie_word_embeddings": True}, without(embedding))
    model("untied_without_head", {}, without(head), refused="lm_head.weight")
    model("f16", {}, {k: v.half() for k, v in base.items()})
    model("bf16", {}, {k: v.bfloat16() for k, v in base.items()})
    model("f64", {}, {k: v.double() for k, v in base.items()})
    model("i64", {}, {k: v.long() for k, v in base.items()}, refused="I64")
    model("i8", {}, {k: v.to(torch.int8) for k, v in base.items()}, refused="I8")
    model("nan", {}, base | {"model.norm.weight": torch.full([8], float("nan"))}, refused="model.norm.weight")
    model("infinite", {}, base | {head: base[head].clone().index_fill(0, torch.tensor([3]), float("inf"))}, refused=head)
    model("overflowing", {}, {k: v.double() * 1e39 for k, v in base.items()}, refused="not finite")
    model("old_buffers", {}, base | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(2)})
    model("value_head", {}, base | {"v_head.summary.weight": torch.ones(1, 8), "v_head.summary.bias": torch.ones(1)})
    bias = {f"model.layers.{i}.self_attn.{n}_proj.bias": torch.ones(s) for i in range(2) for n, s in {"q": 8, "k": 4, "v": 4, "o": 8}.items()}
    model("biases", {"attention_bias": True}, base | bias)
    model("biases_missing", {"attention_bias": True}, refused="self_attn.q_proj.bias")
    model("biases_unsaid", {}, base | bias, refused="model.layers.0.self_attn.q_proj.bias")
    model("score_unsaid", {}, base | {"score.weight": torch.ones(1, 8)}, refused="score.weight")
    model("more_layers", {"num_hidden_layers": 3}, refused="model.layers.2")
    model("fewer_layers", {"num_hidden_layers": 1}, refused="model.layers.1")
    model("many_layers", {"num_hidden_layers": 2**29}, refused="num_hidden_layers")
    model("too_many_layers", {"num_hidden_layers": 2**40}, refused="num_hidden_layers")
    model("smaller_vocabulary", {"vocab_size": 11}, refused="model.embed_tokens.weight")
    wide = {**CONFIG, "head_dim": 6}
    model("wide_heads", {"head_dim": 6}, weights(wide))
    model("heads_unsaid", {"head_dim": "absent"})
    many = {**CONFIG, "num_key_value_heads": 2}
    model("all_heads", {"num_key_value_heads": "absent"}, weights(many))
    model("odd_groups", {"num_key_value_heads": 3}, refused="key-value heads")
    model("rotation_new", {"rope_theta": "absent", "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}})
    model("rotation_old", {"rope_theta": 700.0, "rope_scaling": None})
    model("rotation_twice", {"rope_theta": 700.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}})
    model("rotation_unsaid", {"rope_theta": "absent"})
    for how in [{"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "yarn", "factor": 2.0},
                {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}]:
        model("rotation_" + how.get("type", how.get("rope_type")), {"rope_scaling": how})
    model("rotation_unknown", {"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, refused="proportional")
    model("epsilon_unsaid", {"rms_norm_eps": "absent"})
    model("epsilon", {"rms_norm_eps": 0.1})
    model("swish", {"hidden_act": "swish"})
    model("gelu", {"hidden_act": "gelu"})
    model("activation_unknown", {"hidden_act": "mish"}, refused="hidden_act")
    model("split_matrices", {"pretraining_tp": 2})
    model("dropout", {"attention_dropout": 0.1})
    model("sampling", {"temperature": 0.2, "top_k": 3, "max_length": 7, "do_sample": True})
    model("unknown", {"colour": "red", "_name_or_path": "x", "use_cache": False, "initializer_range": 0.5})
    model("quantised", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, refused="quantization_config")
    model("window", {"sliding_window": 4}, refused="sliding_window")
    model("backbone", {"architectures": ["LlamaModel"]}, refused="LlamaModel")
    model("mistral", {"model_type": "mistral"}, refused="architectures")
    model("mixtral", {"model_type": "mixtral"}, refused="mixtral")
    model("no_family", {"model_type": "absent"}, refused="model_type")
    reward = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    score = without(head) | {"score.weight": torch.randn([1, 8], generator=torch.Generator().manual_seed(5))}
    model("reward", reward, score, kind=AutoModelForSequenceClassification)
    model("reward_with_head", reward, score | {head: base[head]}, kind=AutoModelForSequenceClassification)
    two = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    model("two_labels", reward | two, score | {"score.weight": torch.cat([score["score.weight"], -score["score.weight"]])},
          kind=AutoModelForSequenceClassification)
    shards(base)


def shards(base):
    names = sorted(base)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    right = {n: file for file, part in parts.items() for n in part}
    lies = {
        "sharded": (right, None),
        "sharded_wrongly": (right | {names[0]: "model-00002-of-00002.safetensors"}, "model.safetensors.index.json"),
        "sharded_unsaid": ({n: f for n, f in right.items() if n != names[3]}, names[3]),
        "sharded_outside": (right | {names[0]: "../plain/model.safetensors"}, "no name of a file beside it"),
    }
    for name, (index, refused) in lies.items():
        folder = OUT / "models" / name
        for file, part in parts.items():
            write(folder, CONFIG, {n: base[n] for n in part}, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": index}) + "\n")
        cases.append({"model": name, "refused": refused} if refused else {"model": name, "answer": answer(load(folder, AutoModelForCausalLM))})


def adapter(name, refused=None, config=None, change=None, **options):
    """An adapter whose factors are random, saved by peft; `change` edits its configuration and tensors afterwards."""
    folder = OUT / "adapters" / name
    torch.manual_seed(len(cases))
    options = {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), config or LoraConfig(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    said = json.loads((folder / "adapter_config.json").read_text())
    said["base_model_name_or_path"] = "base"
    if change:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(said, tensors)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=1) + "\n")
    if refused:
        cases.append({"adapter": name, "refused": refused})
        return
    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), folder).eval()
    cases.append({"adapter": name, "answer": answer(whole)})


def adapters():
    adapter("plain")
    adapter("rslora", use_rslora=True, r=4)
    adapter("ranks", rank_pattern={"q_proj": 1, r"layers\.1\..*down_proj": 3}, alpha_pattern={"layers.0.mlp.down_proj": 7})
    adapter("ranks_and_rslora", rank_pattern={"q_proj": 4}, use_rslora=True)
    adapter("all_linear", target_modules="all-linear")
    adapter("pattern", target_modules=r".*\.1\.(self_attn|mlp)\.(v|up)_proj")
    adapter("layers", layers_to_transform=[1])
    adapter("one_layer", layers_to_transform=0, layers_pattern="layers")
    adapter("excluded", exclude_modules=["q_proj"])
    adapter("excluded_pattern", exclude_modules=r".*layers\.0.*")
    adapter("whole_head", modules_to_save=["lm_head"])
    adapter("whole_norms", modules_to_save=["norm"])
    adapter("head", target_modules=["q_proj", "lm_head"])
    adapter("embedding", target_modules=["q_proj", "embed_tokens"])
    adapter("whole_embedding", modules_to_save=["embed_tokens", "lm_head"])
    adapter("turned", fan_in_fan_out=True)
    adapter("biases", bias="all")
    adapter("dropout", lora_dropout=0.5)
    adapter("gaussian", init_lora_weights="gaussian")
    adapter("orthogonal", init_lora_weights="orthogonal")
    adapter("random", init_lora_weights=False)
    adapter("mica", init_lora_weights="mica")
    for how in ["pissa", "pissa_niter_2", "olora"]:
        adapter(how, init_lora_weights=how, refused="init_lora_weights")
    adapter("dora", use_dora=True, refused="use_dora")
    adapter("lora_bias", lora_bias=True, refused="lora_bias")
    adapter("tokens", trainable_token_indices=[1, 2], refused="trainable_token_indices")
    adapter("replicated", layer_replication=[[0, 2], [1, 2]], refused="layer_replication")
    adapter("parameters", target_parameters=["self_attn.v_proj.weight"], refused="target_parameters")
    adapter("alora", alora_invocation_tokens=[1], refused="alora_invocation_tokens")
    adapter("ia3", config=IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]), refused="IA3")
    adapter("vera", config=VeraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2), refused="VERA")

    def says(**fields):
        return lambda said, tensors: said.update(fields)

    adapter("rank_zero", change=says(r=0), refused="rank of 0")
    adapter("rank_that_lies", change=says(r=4), refused="rank of 4")
    adapter("modules_unsaid", change=says(target_modules=["q_proj"]), refused="target_modules")
    adapter("modules_missing", change=says(target_modules=["q_proj", "down_proj", "up_proj"]), refused="target_modules")
    adapter("something_new", change=says(use_wonder=True), refused="use_wonder")

    def nan(said, tensors):
        next(iter(tensors.values()))[0, 0] = float("nan")

    def double(said, tensors):
        tensors["base_model.model.model.norm.weight"] = torch.ones(8)

    def rename(said, tensors):
        for key in list(tensors):
            tensors[key.removeprefix("base_model.model.")] = tensors.pop(key)

    adapter("nan", change=nan, refused="not finite")
    adapter("norm_unsaid", change=double, refused="model.norm.weight")
    adapter("other_names", change=rename, refused="neither a LoRA factor")


shutil.rmtree(OUT, ignore_errors=True)
write(BASE, CONFIG, weights(CONFIG))
models()
adapters()
print(json.dumps({"ids": IDS, "cases": cases}, indent=0))
