"""Tiny models of each family of decoders, their reward heads and adapters, and what transformers and peft compute of them.

    python families.py                      writes ../fixtures/families/NAME/ and families.json
    python families.py --check FOLDER...    loads folders (each called as a case, or given as NAME=FOLDER) and compares with families.json;
                                            says how far each is off, and fails where that is more than the tolerance

transformers 5.24, peft 0.21, torch 2.15, f32 on a CPU, eager attention, one thread. Tolerance in tests: 2e-3 absolute on logits and scores;
greedy tokens are equal. A rerun gives the same bytes.

families.json: `prompt`, `completions`, `rows` (a longer and a shorter one; each is a sequence of its own, never padded) and `cases`, by name:
  kind      "lm", "score" (a sequence classifier), "adapter" (of the case `base`)
  weights   the case whose model.safetensors this one is read with, where its folder holds a config.json alone
  same      the case whose numbers are this one's too: another spelling of the same model
  lm        per row `logits` of its last two positions, `mean` and `abs_mean` of all its logits, `greedy`: the 8 likeliest tokens, one after
            another; `log_probs`: of each completion behind the prompt, summed
  score     `scores` per row; `rows`, if it has rows of its own; the last of a classifier's rows is the shorter one with a pad token behind
  adapter   as lm; `gradients` by tensor name, of the summed log-probs of the first completion: `norm` and the first two `rows`
Everything is computed on the whole sequence, by a model of its own: a dynamic rotation depends on the length and on earlier calls."""
import copy
import json
import shutil
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, logging

from reward_heads import HEADS, PATTERN

warnings.simplefilter("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
HERE = Path(__file__).parent
OUT = HERE.parent / "fixtures" / "families"
GOLDENS = HERE / "families.json"
TOLERANCE = 2e-3


def tokens(length, seed):
    """Ids above the special ones and below ArmoRM's pattern."""
    return torch.randint(3, 33, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


ROWS = [tokens(40, 1), tokens(11, 2)]
PROMPT, COMPLETIONS = tokens(9, 3), [tokens(7, 4), tokens(13, 5)]
GATED = [tokens(5, 6) + PATTERN + tokens(6, 7) + PATTERN + tokens(9, 8), tokens(3, 9) + PATTERN + tokens(4, 10)]
SPECIAL = {"vocab_size": 40, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "torch_dtype": "float32"}
SMALL = SPECIAL | {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                   "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu", "initializer_range": 0.02, "use_cache": True}
LLAMA = SMALL | {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "head_dim": 8, "rope_theta": 10000.0, "rope_scaling": None,
                 "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "pretraining_tp": 1, "tie_word_embeddings": False}
MISTRAL = SMALL | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "head_dim": 8, "rope_theta": 10000.0, "sliding_window": 6,
                   "attention_dropout": 0.0, "tie_word_embeddings": False}
QWEN2 = SMALL | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1000.0, "use_sliding_window": False,
                 "sliding_window": 6, "max_window_layers": 1, "use_mrope": False, "tie_word_embeddings": True}
QWEN3 = SMALL | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 8, "rope_theta": 1000.0, "rope_scaling": None,
                 "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2, "attention_bias": False, "tie_word_embeddings": True}
GEMMA = SMALL | {"head_dim": 8, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 6, "sliding_window": 6, "attention_bias": False}
GEMMA2 = GEMMA | {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 3, "rope_theta": 10000.0,
                  "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "cache_implementation": "hybrid"}
GEMMA3 = GEMMA | {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 4, "sliding_window_pattern": 2,
                  "rope_theta": 1000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                  "attn_logit_softcapping": None, "final_logit_softcapping": None}
GPT2 = SPECIAL | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64,
                  "n_ctx": 64, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.1, "embd_pdrop": 0.1,
                  "resid_pdrop": 0.1, "summary_type": "cls_index", "task_specific_params": {"text-generation": {"max_length": 50}}}
NEOX = SPECIAL | {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_size": 32, "intermediate_size": 40,
                  "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "rotary_pct": 0.25, "rotary_emb_base": 10000,
                  "use_parallel_residual": True, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "tie_word_embeddings": False}
OLMO2 = SMALL | {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "rope_theta": 500000, "rope_scaling": None, "attention_bias": False,
                 "tie_word_embeddings": False}
SMOLLM3 = SMALL | {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "num_hidden_layers": 4, "rope_theta": 5000.0,
                   "no_rope_layers": [1, 0, 1, 0], "no_rope_layer_interval": 2, "layer_types": ["full_attention"] * 4, "use_sliding_window": False,
                   "sliding_window": None, "attention_bias": False, "mlp_bias": False, "max_window_layers": 28}
PHI3 = SMALL | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 32, "rope_theta": 10000.0, "rope_scaling": None,
                "partial_rotary_factor": 0.5, "original_max_position_embeddings": 64, "sliding_window": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
                "attention_bias": False, "tie_word_embeddings": False}
LONG = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 7.0]}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16, "rope_type": "llama3"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 0.125, "mscale": 1.5,
        "mscale_all_dim": 0.5, "truncate": False}
REWARD = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
THREE = {"id2label": {"0": "helpful", "1": "harmless", "2": "humorous"}, "label2id": {"helpful": 0, "harmless": 1, "humorous": 2}}
BEAVER = LLAMA | {"architectures": ["LlamaForScore"], "score_dim": 1, "bias": True, "score_type": "reward", "do_normalize": True,
                  "normalizer_type": "RunningMeanStd", "mean": None, "var": None}
ABSENT = object()


def rope(**parameters):
    """As transformers 5 spells it."""
    return {"rope_theta": ABSENT, "rope_scaling": ABSENT, "rope_parameters": {"rope_theta": 10000.0, **parameters}}


def scaled(how, **fields):
    """As older folders spell it."""
    return {"rope_scaling": how, **fields}


# name, configuration, what it changes, and: weights of another case; the case that it spells anew
FAMILIES = [
    ("llama", LLAMA, {}),
    ("llama_new", LLAMA, rope(rope_type="default"), "llama", "llama"),
    ("llama_biases", LLAMA, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama_llama3", LLAMA, scaled(LLAMA3), "llama"),
    ("llama_llama3_new", LLAMA, rope(**LLAMA3), "llama", "llama_llama3"),
    ("llama_linear", LLAMA, scaled({"type": "linear", "factor": 2.5}), "llama"),
    ("llama_linear_new", LLAMA, rope(rope_type="linear", factor=2.5), "llama", "llama_linear"),
    ("llama_dynamic", LLAMA, scaled({"type": "dynamic", "factor": 2.0}, max_position_embeddings=16), "llama"),
    ("llama_dynamic_new", LLAMA, rope(rope_type="dynamic", factor=2.0) | {"max_position_embeddings": 16}, "llama", "llama_dynamic"),
    ("llama_yarn", LLAMA, scaled({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}), "llama"),
    ("llama_yarn_outer", LLAMA, scaled({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
                                       original_max_position_embeddings=16), "llama", "llama_yarn"),
    ("llama_yarn_options", LLAMA, rope(**YARN), "llama"),
    ("llama_yarn_factor", LLAMA, rope(rope_type="yarn", factor=4.0, attention_factor=1.3, original_max_position_embeddings=16), "llama"),
    ("mistral", MISTRAL, {}),
    ("mistral_full", MISTRAL, {"sliding_window": None}, "mistral"),
    ("mistral_layers", MISTRAL, {"layer_types": ["full_attention", "sliding_attention"]}, "mistral"),
    ("mistral_window_unsaid", MISTRAL, {"sliding_window": ABSENT}, "mistral", "mistral_full"),
    ("qwen2", QWEN2, {}),
    ("qwen2_window", QWEN2, {"use_sliding_window": True}, "qwen2"),
    ("qwen2_window_new", QWEN2, {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"], "max_window_layers": 28,
                                 "rope_theta": ABSENT, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}, "qwen2", "qwen2_window"),
    ("qwen3", QWEN3, {}),
    ("qwen3_biases", QWEN3, {"attention_bias": True, "tie_word_embeddings": False}),
    ("gemma2", GEMMA2, {}),
    ("gemma2_new", GEMMA2, {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "cache_implementation": ABSENT,
                            "tie_word_embeddings": True, **rope(rope_type="default")}, "gemma2", "gemma2"),
    ("gemma2_uncapped", GEMMA2, {"attn_logit_softcapping": None, "final_logit_softcapping": None}, "gemma2"),
    ("gemma2_unsaid", GEMMA2, dict.fromkeys(["attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"], ABSENT), "gemma2"),
    ("gemma3_text", GEMMA3, {}),
    ("gemma3_text_new", GEMMA3, {
        "sliding_window_pattern": ABSENT, "rope_local_base_freq": ABSENT, "rope_scaling": ABSENT, "rope_theta": ABSENT,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}, "gemma3_text", "gemma3_text"),
    ("gemma3_text_capped", GEMMA3, {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}, "gemma3_text"),
    ("gemma3_text_unsaid", GEMMA3, dict.fromkeys(["sliding_window_pattern", "rope_theta", "rope_local_base_freq", "rope_scaling"], ABSENT),
     "gemma3_text"),
    ("gpt2", GPT2, {}),
    ("gpt2_old", GPT2, {}, None, "gpt2"),
    ("gpt2_scaled", GPT2, {"scale_attn_by_inverse_layer_idx": True, "n_inner": 20, "activation_function": "gelu", "tie_word_embeddings": False}),
    ("gpt2_unscaled", GPT2, {"scale_attn_weights": False}, "gpt2"),
    ("gpt_neox", NEOX, {}),
    ("gpt_neox_new", NEOX, {"rotary_pct": ABSENT, "rotary_emb_base": ABSENT, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.25}}, "gpt_neox", "gpt_neox"),
    ("gpt_neox_unsaid", NEOX, dict.fromkeys(["rotary_pct", "rotary_emb_base", "use_parallel_residual", "hidden_act"], ABSENT),
     "gpt_neox", "gpt_neox"),
    ("gpt_neox_old", NEOX, {"rope_theta": 7.0}, None, "gpt_neox"),
    ("gpt_neox_sequential", NEOX, {"use_parallel_residual": False, "tie_word_embeddings": True, "rotary_pct": 1.0, "hidden_act": "gelu_new"}),
    ("olmo2", OLMO2, {}),
    ("olmo2_biases", OLMO2, {"attention_bias": True, "head_dim": 6, "tie_word_embeddings": True}),
    ("smollm3", SMOLLM3, {}),
    ("smollm3_interval", SMOLLM3, {"no_rope_layers": None, "layer_types": None}, "smollm3", "smollm3"),
    ("smollm3_window", SMOLLM3, {"use_sliding_window": True, "sliding_window": 6, "layer_types": None}, "smollm3"),
    ("smollm3_unsaid", SMOLLM3, dict.fromkeys(["no_rope_layers", "no_rope_layer_interval", "layer_types", "rope_theta"], ABSENT), "smollm3"),
    ("phi3", PHI3, {}),
    ("phi3_window", PHI3, {"sliding_window": 6}, "phi3"),
    ("phi3_longrope", PHI3, scaled({"type": "longrope", **LONG}, original_max_position_embeddings=16), "phi3"),
    ("phi3_longrope_old", PHI3, scaled({"type": "yarn", **LONG}, original_max_position_embeddings=16), "phi3", "phi3_longrope"),
    ("llama_score", LLAMA, {"architectures": ["LlamaForSequenceClassification"], **REWARD}),
    ("mistral_score", MISTRAL, {"architectures": ["MistralForSequenceClassification"], **REWARD}),
    ("qwen2_score", QWEN2, {"architectures": ["Qwen2ForSequenceClassification"], **THREE}),
    ("qwen3_score", QWEN3, {"architectures": ["Qwen3ForSequenceClassification"], **REWARD}),
    ("gemma2_score", GEMMA2, {"architectures": ["Gemma2ForSequenceClassification"], **THREE}),
    ("gemma3_text_score", GEMMA3, {"architectures": ["Gemma3TextForSequenceClassification"], **REWARD}),
    ("gpt2_score", GPT2, {"architectures": ["GPT2ForSequenceClassification"], **REWARD}),
    ("gpt_neox_score", NEOX, {"architectures": ["GPTNeoXForSequenceClassification"], **REWARD}),
    ("olmo2_score", OLMO2, {"architectures": ["Olmo2ForSequenceClassification"], **REWARD}),
    ("smollm3_score", SMOLLM3, {"architectures": ["SmolLM3ForSequenceClassification"], **REWARD}),
    ("phi3_score", PHI3, {"architectures": ["Phi3ForSequenceClassification"], **REWARD}),
    ("beaver_reward", BEAVER, {}),
    ("beaver_cost", BEAVER, {"score_type": "cost", "architectures": ["LlamaModelForScore"]}, "beaver_reward"),
    ("beaver_raw", BEAVER, {"do_normalize": False, "bias": ABSENT, "score_bias": True}, "beaver_reward"),
    ("armorm", LLAMA, {"architectures": ["LlamaForRewardModelWithGating"], "num_objectives": 19, "gating_temperature": 2, "gating_hidden_dim": 12,
                       "gating_n_hidden": 3, **REWARD}),
]
FAMILIES = [row + (None,) * (5 - len(row)) for row in FAMILIES]
# name of the base, and what LoraConfig says
LORA = [
    ("llama", {"r": 3, "lora_alpha": 6}),
    ("qwen2", {"r": 4, "lora_alpha": 3, "use_rslora": True}),
    ("gpt2", {"r": 2, "lora_alpha": 5, "fan_in_fan_out": True}),
    ("gpt_neox", {"r": 2, "lora_alpha": 2, "use_rslora": True}),
    ("phi3", {"r": 3, "lora_alpha": 4}),
]


def short(values):
    """Seven significant digits, of whatever is nested."""
    return [short(v) for v in values] if isinstance(values, list) else float(f"{values:.7g}")


def drawn(name, like, spread, centre=0.0):
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return centre + spread * torch.randn(like.shape, generator=generator)


def draw(model):
    """Weights that show what is left out: no norm is 1, no bias 0; scores of attention and logits have a spread of about 2."""
    gemma = model.config.model_type.startswith("gemma")
    for name, p in model.named_parameters():
        norm = p.dim() == 1 and name.endswith("weight") or name.endswith("logit_scale")
        with torch.no_grad():
            p.copy_(drawn(name, p, 0.4, 1.0 if norm and not gemma else 0.0))
    for name, buffer in model.named_buffers():
        if name.startswith("normalizer") and buffer.is_floating_point():
            buffer.copy_(drawn(name, buffer, 0.4, 2.0))
    return model


def old_names(base, tensors):
    """As the first files of these two families: buffers among the parameters, no prefix before GPT-2's names."""
    n = 64
    triangle = torch.ones(1, 1, n, n, dtype=torch.uint8).tril()
    for i in range(2):
        at = {"gpt2": f"transformer.h.{i}.attn.", "gpt_neox": f"gpt_neox.layers.{i}.attention."}[base]
        tensors |= {at + "bias": triangle.clone(), at + "masked_bias": torch.tensor(-1e4)}
        if base == "gpt_neox":
            tensors[at + "rotary_emb.inv_freq"] = torch.tensor([1.0, 0.01])
    return {k.removeprefix("transformer."): v for k, v in tensors.items()}


def class_of(config):
    named = config["architectures"][0].replace("LlamaModelForScore", "LlamaForScore")
    return HEADS.get(named) or (AutoModelForSequenceClassification if "Sequence" in named else AutoModelForCausalLM)


def dump(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ABSENT}, indent=1) + "\n")


def save(model, folder):
    """The tensors as transformers names them in a file."""
    with tempfile.TemporaryDirectory() as at:
        model.save_pretrained(at)
        tensors = load_file(Path(at) / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder, weights=None):
    """Of a folder, with the weights of another where it has none; whatever transformers finds missing or too much is an error."""
    with tempfile.TemporaryDirectory() as at:
        for file in [folder / "config.json", *sorted((weights or folder).glob("model*"))]:
            shutil.copy(file, at)
        kind = class_of(json.loads((folder / "config.json").read_text()))
        model, said = kind.from_pretrained(at, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = {k: v for k, v in said.items() if v and not all(n.endswith("masked_bias") for n in v)}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


def logits(model, ids):
    return copy.deepcopy(model)(input_ids=torch.tensor([ids])).logits[0]


def log_prob(model, completion):
    ids = PROMPT + completion
    rows = logits(model, ids)[len(PROMPT) - 1:-1].log_softmax(-1)
    return rows.gather(1, torch.tensor(completion)[:, None]).sum()


def greedy(model, ids):
    for _ in range(8):
        best, second = logits(model, ids)[-1].topk(2).values
        assert best - second > 2e-4, "two tokens are almost equally likely, for sums in f32 differ by 1e-5: draw other rows"
        ids = ids + [int(logits(model, ids)[-1].argmax())]
    return ids[-8:]


@torch.no_grad()
def language(model):
    rows = []
    for ids in ROWS:
        out = logits(model, ids)
        rows.append({"logits": short(out[-2:].tolist()), "mean": short(out.double().mean().item()),
                     "abs_mean": short(out.double().abs().mean().item()), "greedy": greedy(model, ids)})
    return {"rows": rows, "log_probs": [short(log_prob(model, c).item()) for c in COMPLETIONS]}


@torch.no_grad()
def scores(model):
    own = hasattr(model, "scores")
    gated = "gating_hidden_dim" in model.config.to_dict()
    rows = GATED if gated else ROWS
    rows = rows if own and not gated else rows + [rows[-1] + [0]]
    score = model.scores if own else lambda ids: model(input_ids=ids).logits
    return {"rows": rows, "scores": [short(score(torch.tensor([ids]))[0].tolist()) for ids in rows]}


def answers(model):
    return scores(model) if hasattr(model, "scores") or hasattr(model, "score") else language(model)


def case(name, base, changes, weights=None, same=None):
    folder = OUT / name
    config = base | changes
    dump(folder, config)
    if name.endswith("_old") and same and not weights:
        save_file(old_names(same, load_file(OUT / same / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    elif not weights:
        kind = class_of(config)
        torch.manual_seed(0)
        said = AutoConfig.from_pretrained(folder)
        save(draw(kind(said) if kind in HEADS.values() else kind.from_config(said)), folder)
    answer = answers(load(folder, weights and OUT / weights))
    kind = "score" if "scores" in answer else "lm"
    about = {"kind": kind} | ({"weights": weights} if weights else {})
    return about | ({"same": same} if same else answer), answer


def adapter(base, options):
    folder = OUT / f"{base}_lora"
    torch.manual_seed(0)
    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model = get_peft_model(load(OUT / base), config)
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data.copy_(drawn(name, p, 0.3))
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    said = json.loads((folder / "adapter_config.json").read_text())
    said |= {"base_model_name_or_path": base, "target_modules": sorted(said["target_modules"])}
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=1) + "\n")
    model = PeftModel.from_pretrained(load(OUT / base), folder, is_trainable=True).eval()
    return {"kind": "adapter", "base": base} | language(model) | {"gradients": gradients(model)}


def gradients(model):
    ids = torch.tensor([PROMPT + COMPLETIONS[0]])
    rows = model(input_ids=ids).logits[0, len(PROMPT) - 1:-1].log_softmax(-1)
    rows.gather(1, torch.tensor(COMPLETIONS[0])[:, None]).sum().backward()
    trained = {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    return {n: {"norm": short(g.double().norm().item()), "rows": short(g[:2].tolist())} for n, g in sorted(trained.items())}


def shown(answer):
    return answer.get("scores") or [row["logits"] for row in answer["rows"]]


def differ(answers):
    """Each case of a family shows something that no other does, far above the tolerance, or says that it is the same."""
    for i, (name, base, _, _, same) in enumerate(FAMILIES):
        for other, its_base, _, _, its_same in FAMILIES[:i]:
            if its_base is base and answers[name].keys() == answers[other].keys() and (same or name) != (its_same or other):
                assert difference(shown(answers[name]), shown(answers[other])) > 20 * TOLERANCE, f"{name} shows nothing that {other} does not"


def write():
    shutil.rmtree(OUT, ignore_errors=True)
    cases, answers = {}, {}
    for name, base, changes, weights, same in FAMILIES:
        cases[name], answers[name] = case(name, base, changes, weights, same)
        assert not same or answers[name] == answers[same], f"{name} is not {same}"
    differ(answers)
    for base, options in LORA:
        cases[f"{base}_lora"] = adapter(base, options)
    said = {"prompt": PROMPT, "completions": COMPLETIONS, "rows": ROWS, "pattern": PATTERN, "cases": cases}
    text = json.dumps(said, separators=(",", ":"))
    GOLDENS.write_text(text.replace('},"', '},\n"').replace('"cases":{', '"cases":{\n') + "\n")


def difference(a, b):
    if isinstance(a, (dict, list)):
        pairs = [(a[k], b[k]) for k in a] if isinstance(a, dict) else list(zip(a, b, strict=True))
        return max((difference(x, y) for x, y in pairs), default=0.0)
    if isinstance(a, int):
        return 0.0 if a == b else float("inf")
    return abs(a - b)


def check(folders):
    """Whether folders that another program saved load, with nothing missing or left over, and compute what the goldens say."""
    cases, bad = json.loads(GOLDENS.read_text())["cases"], 0
    for given in folders:
        name, _, folder = given.rpartition("=")
        folder = Path(folder)
        golden = cases[name or folder.name]
        expected = cases[golden.get("same", name or folder.name)]
        if golden["kind"] == "adapter":
            answer = language(PeftModel.from_pretrained(load(OUT / golden["base"]), folder).eval())
        else:
            answer = answers(load(folder, golden.get("weights") and not any(folder.glob("model*")) and OUT / golden["weights"] or None))
        far = difference(answer, {k: expected[k] for k in answer})
        bad += not far <= TOLERANCE
        print(f"{given}: largest difference {far:.2g}{'' if far <= TOLERANCE else ' WRONG'}")
    sys.exit(bool(bad))


if sys.argv[1:2] == ["--check"]:
    check(sys.argv[2:])
else:
    write()
