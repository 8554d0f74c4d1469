"""The models of families.py: what config.json holds of each, spelled as folders that people share spell it."""
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
# name of the base, and how many soft tokens
SOFT = [("llama", 4), ("qwen2", 1), ("gpt2", 3), ("gpt_neox", 2), ("olmo2", 3)]
