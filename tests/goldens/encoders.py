"""Tiny classifiers of every encoder family and what transformers makes of texts and pairs, for plugins/reward-encoder/tests/goldens.rs.

    python encoders.py ../fixtures/encoders > encoders.json

transformers 5.24, tokenizers 0.23, torch 2.15, f32. Weights are random, and large enough that every part of a model moves its logits; each
tokenizer is of its family's own kind, trained on the texts below. Logits are of one padded batch per reading: a text, a pair whose first or second
text gives way, a text that loses its beginning. Tolerance in the test: 1e-4 absolute (both sides sum in f32, in different orders)."""
import json
import sys
import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig, BertForSequenceClassification, DebertaV2Config, DebertaV2ForSequenceClassification, DistilBertConfig,
    DistilBertForSequenceClassification, ModernBertConfig, ModernBertForSequenceClassification, PreTrainedTokenizerFast, RobertaConfig,
    RobertaForSequenceClassification, XLMRobertaConfig, XLMRobertaForSequenceClassification, logging,
)

warnings.simplefilter("ignore")
logging.set_verbosity_error()
torch.set_num_threads(1)
OUT = Path(sys.argv[1])

PAIRS = [
    ("How do I boil an egg?", "Put it into boiling water for seven minutes. Then cool it under the tap."),
    ("The post says that the cat sat on the mat all day and slept.", "A cat slept on a mat."),
    ("Déjà vu… in 1998, 42 cats!", "Naïve cats ate 3 fish, didn't they?"),
    ("word " * 400 + "and the end of a long premise.", "A short hypothesis about words."),
    ("", "An answer to nothing at all."),
    ("A question without an answer?", ""),
    ("You are kind.", "No, you are.\n\nYou  are\tkind: thank you, [SEP] friend."),
]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ANGLED = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}


def template(tokenizer, cls, sep, pair, types):
    ids = [(t, tokenizer.token_to_id(t)) for t in (cls, sep)]
    second = "1" if types else "0"
    middle = " ".join([sep] * pair)
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {middle} $B:{second} {sep}:{second}", special_tokens=ids)


def texts():
    return [text for pair in PAIRS for text in pair]


def word_pieces():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(texts(), trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = template(t, "[CLS]", "[SEP]", 1, True)
    t.decoder = decoders.WordPiece()
    return t, SPECIAL


def bytes_like_roberta():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")), add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    return t, ANGLED


def bytes_like_modernbert():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    t.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=310, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = template(t, "[CLS]", "[SEP]", 1, False)
    t.decoder = decoders.ByteLevel()
    return t, SPECIAL


def unigrams(special, names, pair, types):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(texts(), trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token=names["unk_token"], show_progress=False))
    t.post_processor = template(t, names["cls_token"], names["sep_token"], pair, types)
    t.decoder = decoders.Metaspace()
    return t, names


def like_deberta():
    return unigrams(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], SPECIAL, 1, True)


def like_xlm():
    return unigrams(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], ANGLED, 2, False)


SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
NLI = {0: "entailment", 1: "neutral", 2: "contradiction"}
DEBERTA = dict(**SMALL, relative_attention=True, pooler_hidden_size=16)
INPUTS = ["input_ids", "attention_mask"]
TYPED = ["input_ids", "token_type_ids", "attention_mask"]


def bert(n, **more):
    return BertForSequenceClassification(BertConfig(vocab_size=n, **SMALL, max_position_embeddings=48, **more))


def distilbert(n):
    sizes = dict(dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=n, **sizes, max_position_embeddings=48, id2label={0: "NEGATIVE", 1: "POSITIVE"}))


def roberta(n):
    return RobertaForSequenceClassification(RobertaConfig(
        vocab_size=n, **SMALL, max_position_embeddings=98, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1,
        id2label={0: "toxic", 1: "insult", 2: "threat"}, problem_type="multi_label_classification"))


def xlm_roberta(n):
    return XLMRobertaForSequenceClassification(XLMRobertaConfig(
        vocab_size=n, **SMALL, max_position_embeddings=82, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, hidden_act="relu", id2label=NLI))


def deberta_v3(n):
    return DebertaV2ForSequenceClassification(DebertaV2Config(
        vocab_size=n, **DEBERTA, max_position_embeddings=512, position_biased_input=False, pos_att_type="p2c|c2p", share_att_key=True, position_buckets=256,
        max_relative_positions=-1, norm_rel_ebd="layer_norm", type_vocab_size=0, id2label=NLI))


def deberta_v2(n):
    return DebertaV2ForSequenceClassification(DebertaV2Config(
        vocab_size=n, **DEBERTA, max_position_embeddings=80, position_biased_input=True, pos_att_type=["c2p", "p2c"], share_att_key=False, type_vocab_size=2,
        pooler_hidden_act="tanh", id2label={0: "score"}))


def modernbert(n, **more):
    return ModernBertForSequenceClassification(ModernBertConfig(
        vocab_size=n, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=24, max_position_embeddings=96,
        local_attention=8, pad_token_id=2, bos_token_id=0, cls_token_id=0, eos_token_id=1, sep_token_id=1, id2label=NLI,
        attn_implementation="eager", **more))


MODELS = {
    "bert": (word_pieces, TYPED, 48, lambda n: bert(n, id2label=NLI)),
    "bert_untyped": (word_pieces, INPUTS, 48, lambda n: bert(n, id2label={0: "score"}, hidden_act="gelu_new")),
    "distilbert": (word_pieces, INPUTS, 48, distilbert),
    "roberta": (bytes_like_roberta, INPUTS, 96, roberta),
    "xlm_roberta": (like_xlm, INPUTS, 80, xlm_roberta),
    "deberta_v2": (like_deberta, TYPED, 80, deberta_v2),
    "deberta_v3": (like_deberta, TYPED, 512, deberta_v3),
    "modernbert": (bytes_like_modernbert, INPUTS, 96, lambda n: modernbert(n)),
    "modernbert_mean": (bytes_like_modernbert, INPUTS, 96, lambda n: modernbert(n, classifier_pooling="mean")),
}


def draw(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1.0 + 0.3 * noise if "norm" in name.lower() and name.endswith("weight") else 0.4 * noise)


def rows(tokenizer, model, cut, first, second, longest):
    side = "left" if cut == "beginning" else "right"
    tokenizer.truncation_side = side
    only = {"beginning": "only_first", "first": "only_first", "second": "only_second"}[cut]
    batch = tokenizer(first, second, truncation=only, max_length=longest, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits.double()
    for i, one in enumerate(logits):
        yield {
            "first": first[i], "second": second[i] if second else None, "cut": cut, "max": longest,
            "ids": batch["input_ids"][i][batch["attention_mask"][i].bool()].tolist(), "logits": [round(v, 6) for v in one.tolist()],
        }


golden = {}
for name, (make, inputs, longest, build) in MODELS.items():
    core, special = make()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=longest, model_input_names=inputs, **special)
    torch.manual_seed(0)
    model = build(len(tokenizer)).eval()
    draw(model)
    tokenizer.save_pretrained(OUT / name)
    model.save_pretrained(OUT / name)
    first, second = [list(side) for side in zip(*PAIRS)]
    joined = [f"{a}\n{b}" for a, b in PAIRS]
    golden[name] = [
        *rows(tokenizer, model, "first", second, None, longest), *rows(tokenizer, model, "beginning", joined, None, 20),
        *rows(tokenizer, model, "first", first, second, longest), *rows(tokenizer, model, "second", second, first, longest - 4),
    ]
rows_of = lambda all: ",\n".join(json.dumps(row, ensure_ascii=False) for row in all)
print("{\n" + ",\n".join(f'"{name}": [\n{rows_of(all)}\n]' for name, all in golden.items()) + "\n}")
