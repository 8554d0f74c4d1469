"""A policy and a reward model of other families, with random weights, for tests/models.rs.

    python mixed.py            writes ../fixtures/mixed/{policy,reward}/

transformers 5.24, torch 2.15. The policy is a Qwen 2 that reads the embedded tasks' tokens (its tokenizer is assets/hh/policy's, which the test
puts beside it); the reward model is a GPT-2 with a byte-level tokenizer of its own, without chat template and without pad token. A rerun gives
the same bytes."""
import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

HERE = Path(__file__).parent
OUT = HERE.parent / "fixtures" / "mixed"
TOKENS = json.loads((HERE.parent.parent / "assets/hh/policy/config.json").read_text())


def save(model, folder, std):
    generator = torch.Generator().manual_seed(7)
    for name, p in sorted(model.named_parameters()):
        if p.dim() > 1:
            p.data = torch.randn(p.shape, generator=generator) * std
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def policy():
    config = Qwen2Config(
        vocab_size=TOKENS["vocab_size"], hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=True, eos_token_id=TOKENS["eos_token_id"], pad_token_id=TOKENS["pad_token_id"])
    save(Qwen2ForCausalLM(config), OUT / "policy", 0.3)


def reward():
    words = ["How do I pick a lock?", "I will not help you to do that.", "First, push a thin wire into the lock.", "Be careful."]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    fast.save_pretrained(OUT / "reward")
    config = GPT2Config(
        vocab_size=len(fast), n_embd=16, n_layer=2, n_head=2, n_positions=256, num_labels=1, bos_token_id=0, eos_token_id=0)
    save(GPT2ForSequenceClassification(config), OUT / "reward", 0.4)


shutil.rmtree(OUT, ignore_errors=True)
torch.manual_seed(0)
policy()
reward()
