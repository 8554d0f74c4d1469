"""Tiny models of each family of decoders, their reward heads and adapters, and what transformers and peft compute of them.

    python families.py                      writes ../fixtures/families/NAME/ and families.json
    python families.py --check FOLDER...    loads folders (each called as a case, or given as NAME=FOLDER) and compares with families.json;
                                            says how far each is off, and fails where that is more than the tolerance

transformers 5.24, peft 0.21, torch 2.15 (5.23 and 2.13 give the same), f32 on a CPU, eager attention, one thread. Tolerance in tests: 2e-3 absolute
on logits and scores; greedy tokens are equal. A rerun gives the same bytes.

families.json: `prompt`, `completions`, `rows` (a longer and a shorter one; each is a sequence of its own, never padded) and `cases`, by name:
  kind      "lm", "score" (a sequence classifier), "adapter" (of the case `base`)
  weights   the case whose model.safetensors this one is read with, where its folder holds a config.json alone
  same      the case whose numbers are this one's too: another spelling of the same model
  lm        per row `logits` of its last two positions, `mean` and `abs_mean` of all its logits, `greedy`: the 8 likeliest tokens, one after
            another; `log_probs`: of each completion behind the prompt, summed
  score     `scores` per row, of ArmoRM also `ratings`, one for each objective; `rows`, if it has rows of its own; the last of a classifier's
            rows is the shorter one with a pad token behind
  soft      soft tokens (peft's prompt tuning, of the case `base`), as lm: of the tokens behind them
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
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, logging

from family_table import ABSENT, FAMILIES, LORA, SOFT
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
    return copy.deepcopy(model)(input_ids=torch.tensor([ids])).logits[0, -len(ids):]


def log_prob(model, completion):
    ids = PROMPT + completion
    rows = logits(model, ids)[len(PROMPT) - 1:-1].log_softmax(-1)
    return rows.gather(1, torch.tensor(completion)[:, None]).sum()


def greedy(model, ids):
    for _ in range(8):
        (best, second), (token, _) = (t.tolist() for t in logits(model, ids)[-1].topk(2))
        assert best - second > 2e-4, "two tokens are almost equally likely, for sums in f32 differ by 1e-5: draw other rows"
        ids = ids + [token]
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
    def of(score):
        return [short(score(torch.tensor([ids]))[0].tolist()) for ids in rows]
    found = {"rows": rows, "scores": of(model.scores if own else lambda ids: model(input_ids=ids).logits)}
    return found | ({"ratings": of(model.ratings)} if gated else {})


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


def trained(base, folder, config):
    """A model that peft changed and saved, read again."""
    torch.manual_seed(0)
    model = get_peft_model(load(OUT / base), config)
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data.copy_(drawn(name, p, 0.3))
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    said = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
    said |= {"target_modules": sorted(said["target_modules"])} if "target_modules" in said else {}
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=1) + "\n")
    return PeftModel.from_pretrained(load(OUT / base), folder, is_trainable=not isinstance(config, PromptTuningConfig)).eval()


def adapter(base, options):
    model = trained(base, OUT / f"{base}_lora", LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **options))
    return {"kind": "adapter", "base": base} | language(model) | {"gradients": gradients(model)}


def soft(base, count):
    model = trained(base, OUT / f"{base}_soft", PromptTuningConfig(num_virtual_tokens=count, task_type="CAUSAL_LM"))
    return {"kind": "soft", "base": base} | language(model)


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
    for base, count in SOFT:
        cases[f"{base}_soft"] = soft(base, count)
    said = {"prompt": PROMPT, "completions": COMPLETIONS, "rows": ROWS, "pattern": PATTERN, "cases": cases}
    text = json.dumps(said, separators=(",", ":"))
    GOLDENS.write_text(text.replace('},"', '},\n"').replace('"cases":{', '"cases":{\n') + "\n")


def difference(a, b):
    if isinstance(a, (dict, list)):
        pairs = [(a[k], b[k]) for k in a] if isinstance(a, dict) else list(zip(a, b, strict=True))
        return max((difference(x, y) for x, y in pairs), default=0.0)
    if isinstance(a, int):
        return 0.0 if a == b else float("inf")
    return abs(a - b) if a == a and b == b else float("inf")


def compared(folder, name, cases):
    golden = cases[name]
    if golden["kind"] in ("adapter", "soft"):
        answer = language(PeftModel.from_pretrained(load(OUT / golden["base"]), folder).eval())
    else:
        bare = "weights" in golden and not any(folder.glob("model*"))
        answer = answers(load(folder, OUT / golden["weights"] if bare else None))
    expected = cases[golden.get("same", name)]
    return difference(answer, {k: expected[k] for k in answer})


def check(folders):
    """Whether folders that another program saved load, with nothing missing or left over, and compute what the goldens say."""
    cases, bad = json.loads(GOLDENS.read_text())["cases"], 0
    for given in folders:
        name, _, folder = given.rpartition("=")
        try:
            far = compared(Path(folder), name or Path(folder).name, cases)
        except Exception as error:  # the other folders are told of too
            far = float("inf")
            print(f"{given}: {type(error).__name__}: {error}")
        bad += far > TOLERANCE
        print(f"{given}: largest difference {far:.2g}{' WRONG' if far > TOLERANCE else ''}")
    sys.exit(bool(bad))


if sys.argv[1:2] == ["--check"]:
    check(sys.argv[2:])
else:
    write()
