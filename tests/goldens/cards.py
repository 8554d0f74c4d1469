"""Texts in the form that reward models' cards say, and what transformers scores them with, for the templates of docs/models.md.

    python cards.py            writes ../fixtures/cards/beaver/ and cards.json

transformers 5.24, tokenizers, torch 2.15, f32. Tolerance in tests: token ids exactly, scores 1e-4. A rerun gives the same bytes.

HH      Ray2333/gpt2-large-{helpful,harmless}-reward_model: `q`, a dialogue in HH's form that ends in "\\n\\nAssistant:", and the stripped answer, as
        `tokenizer(q, a)` joins them. The model is ../fixtures/mixed/reward.
BEAVER  PKU-Alignment/beaver-7b-v1.0-{reward,cost}: "BEGINNING OF CONVERSATION: USER: … ASSISTANT:" and the answer, behind the tokenizer's own <s>; in
        several turns an answer ends in </s> before the next "USER: ", and so does the last in the training data (safe-rlhf), where an answer is
        finished. The card's example has no </s>: it is the form of an answer that was cut. The model is a LlamaForScore with a tokenizer of
        Llama 2's kind (spaces as "▁", one of them put before a text, bytes for what it does not know).

cards.json: for each template a list of cases: `messages`, `answer`, `finished`, and of the whole text `text`, `ids` and `score`."""
import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from reward_heads import LlamaForScore

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "fixtures"
BEAVER = FIXTURES / "cards" / "beaver"
ONE = [("user", "How do I pick a lock?")]
TWO = ONE + [("assistant", "With a thin wire."), ("user", "Is that allowed, über alles?")]
ANSWER = "Be careful. Ask first!"


def tokenizer():
    words = ["BEGINNING OF CONVERSATION: USER: How do I pick a lock? ASSISTANT:First, push a thin wire into the lock. Be careful."]
    special = ["<unk>", "<s>", "</s>"]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_of_text = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special + bytes_of_text, show_progress=False)
    bpe.train_from_iterator(words, trainer)
    said = json.loads(bpe.to_str())
    said["added_tokens"] = [token for token in said["added_tokens"] if token["content"] in special]
    bpe = Tokenizer.from_str(json.dumps(said))
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def beaver():
    shutil.rmtree(BEAVER, ignore_errors=True)
    fast = tokenizer()
    fast.save_pretrained(BEAVER)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, architectures=["LlamaForScore"], dtype="float32", score_dim=1, score_bias=True, score_type="reward",
        do_normalize=False)
    model = LlamaForScore(config)
    generator = torch.Generator().manual_seed(7)
    for _, p in sorted(model.named_parameters()):
        if p.dim() > 1:
            p.data = torch.randn(p.shape, generator=generator) * 0.4
    model.save_pretrained(BEAVER)
    (BEAVER / "generation_config.json").unlink(missing_ok=True)
    return fast, LlamaForScore.from_pretrained(BEAVER).eval()


def hh_text(messages):
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[role]}: {text}" for role, text in messages) + "\n\nAssistant:"


def beaver_text(messages):
    turns = [f"USER: {text} ASSISTANT:" if role == "user" else f"{text}</s>" for role, text in messages]
    return "BEGINNING OF CONVERSATION: " + "".join(turns)


@torch.no_grad()
def case(messages, finished, text, ids, score):
    said = [{"role": role, "content": content} for role, content in messages]
    return {"messages": said, "answer": ANSWER, "finished": finished, "text": text, "ids": ids,
            "score": float(f"{score(torch.tensor([ids])).item():.7g}")}


fast, model = beaver()
cases = {"BEAVER": [], "HH": []}
for messages in (ONE, TWO):
    for finished in (True, False):
        text = beaver_text(messages) + ANSWER + ("</s>" if finished else "")
        cases["BEAVER"].append(case(messages, finished, text, fast(text)["input_ids"], model.scores))
gpt2 = AutoModelForSequenceClassification.from_pretrained(FIXTURES / "mixed" / "reward").eval()
own = AutoTokenizer.from_pretrained(FIXTURES / "mixed" / "reward")
for messages in (ONE, TWO):
    q = hh_text(messages)
    cases["HH"].append(case(messages, True, q + ANSWER, own(q, ANSWER)["input_ids"], lambda ids: gpt2(input_ids=ids).logits))
lines = {name: ",\n".join(json.dumps(c, ensure_ascii=False) for c in of) for name, of in cases.items()}
(HERE / "cards.json").write_text("{" + ",\n".join(f'"{name}": [\n{of}]' for name, of in lines.items()) + "}\n")
