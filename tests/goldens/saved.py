"""Folders that motrain saves, loaded by transformers: the same token ids, rendered texts, decoded texts, answers and logits.

    python saved.py PATH-OF-motrain

transformers 5.24, peft 0.21, torch 2.15, f32. Every folder of text_matrix.json that transformers accepts goes through motrain as a soup of one part
(whose parameters stay exactly) and is held against the goldens, and its logits against those of the folder that it was made of. So do imported
GGUF files, a LoRA adapter against peft's merge, and two trained policies, whose greedy answers are motrain's own. Prints what differs; exit code 1 if
anything does. Tolerance: logits 0 for copies, 2e-5 for the merge; texts and ids exactly. Not run by the tests: it needs Python's libraries."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
MOTRAIN = Path(sys.argv[1]).resolve()
ENV = {**os.environ, "MOTRAIN_HOME": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
GOLDEN = json.loads((HERE / "text_matrix.json").read_text())
QUESTION = "How do I pick a lock?"
wrong, right = [], 0


def motrain(*args):
    return subprocess.run([MOTRAIN, *args], env=ENV, capture_output=True, text=True)


def said(done):
    return "\n".join(line for line in done.stderr.splitlines() if " INFO " not in line)


def write(folder, case):
    """As text_matrix.py writes it."""
    base, files = HERE / "text_matrix", dict(case["files"])
    whole = {"tokenizer.json": base / f"{case['base']}.json", "config.json": base / "config.json"}
    for name, path in whole.items():
        (folder / name).write_text(json.dumps({**json.loads(path.read_text()), **files.pop(name, {})}))
    (folder / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())


def run(work, script):
    """The folder that a plan's stage `s` saved, or None with what was said."""
    (work / "s.rhai").write_text(script)
    done = motrain("--script", str(work / "s.rhai"), "--out", str(work / "out"))
    return (work / "out/stages/s/model" if done.returncode == 0 else None), said(done)


def copy_of(work, folder, part=None):
    return run(work, f'soup("s", #{{ of: #{{ base: "{folder}", parts: ["{part or folder}"] }}, weights: [1.0] }});')


def load(folder):
    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(network, ids):
    with torch.inference_mode():
        return network(input_ids=torch.tensor([ids])).logits


def conversation(tokenizer, turns):
    messages = [{"role": r, "content": c} for r, c in turns]
    if tokenizer.chat_template is None:
        return {"ids": tokenizer("\n".join(c for _, c in turns))["input_ids"]}
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages + [{"role": "assistant", "content": GOLDEN["answer"]}], tokenize=False)
    except Exception as error:
        return {"refuses": str(error).splitlines()[0]}
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    return {"rendered": rendered, "ids": encode(rendered), "whole_ids": encode(whole)}


def greedy(network, tokenizer, ids, new):
    network.generation_config.pad_token_id = 0
    out = network.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=new)[0, len(ids):].tolist()
    return {"tokens": out, "text": tokenizer.decode(out, skip_special_tokens=True)}


def compare(name, what, found, expected):
    global right
    if found == expected:
        right += 1
    else:
        wrong.append(f"{name}: {what}\n  saved    {str(found)[:300]}\n  expected {str(expected)[:300]}")


def near(name, what, found, expected, tolerance):
    difference = (found - expected).abs().max().item() if found.shape == expected.shape else found.shape
    compare(name, what, difference if not isinstance(difference, float) or difference > tolerance else 0, 0)


def text_variants():
    for case in GOLDEN["cases"]:
        expected, name = case["expected"], case["name"]
        if "refused" in expected:
            continue
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            (work / "given").mkdir()
            write(work / "given", case)
            saved, why = copy_of(work, work / "given")
            if saved is None:
                wrong.append(f"{name}: {why}")
                continue
            (tokenizer, network), (_, before) = load(saved), load(work / "given")
            rows = [conversation(tokenizer, turns) for turns in GOLDEN["conversations"]]
            for at, (row, golden) in enumerate(zip(rows, expected["conversations"])):
                compare(name, f"conversation {at}", row, golden)
            chosen, text = expected["decoded"]
            compare(name, "decoded", tokenizer.decode(chosen, skip_special_tokens=True), text)
            ids = rows[0].get("ids", [1, 2, 3])
            near(name, "logits", logits(network, ids), logits(before, ids), 0.0)
            if "answer" in expected:
                compare(name, "answer", greedy(network, tokenizer, ids, 12), expected["answer"])


def answers(name, folder, new=8):
    """motrain's greedy answer and transformers'."""
    tokenizer, network = load(folder)
    ids = conversation(tokenizer, [("user", QUESTION)])["ids"]
    done = motrain("generate", str(folder), "--prompt", QUESTION, "--temperature", "0", "--max-new-tokens", str(new))
    compare(name, "greedy answer", done.stdout.rstrip("\n"), greedy(network, tokenizer, ids, new)["text"].rstrip("\n"))


def gguf_files():
    for file in sorted((HERE.parent / "fixtures/gguf").glob("*.gguf")):
        if file.name.startswith("refused"):
            continue
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            done = motrain("import", str(file), str(work / "given"))
            if done.returncode:
                wrong.append(f"{file.name}: {said(done)}")
                continue
            saved, why = copy_of(work, work / "given")
            if saved is None:
                wrong.append(f"{file.name}: {why}")
                continue
            (tokenizer, network), (given, before) = load(saved), load(work / "given")
            turns = [("user", QUESTION)]
            compare(file.name, "conversation", conversation(tokenizer, turns), conversation(given, turns))
            ids = conversation(given, turns).get("ids", [1, 2, 3])
            near(file.name, "logits", logits(network, ids), logits(before, ids), 0.0)
            answers(file.name, saved)


def base(work):
    (work / "given").mkdir()
    write(work / "given", next(c for c in GOLDEN["cases"] if c["base"] == "byte" and "chat_template.jinja" in c["files"]))
    return work / "given"


def adapter():
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        given = base(work)
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_pretrained(given, dtype=torch.float32)
        peft = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
        peft.save_pretrained(work / "adapter")
        saved, why = copy_of(work, given, work / "adapter")
        if saved is None:
            wrong.append(f"adapter: {why}")
            return
        near("adapter", "logits", logits(load(saved)[1], [5, 6, 7, 8]), logits(peft.merge_and_unload().eval(), [5, 6, 7, 8]), 2e-5)
        answers("adapter", saved)


def trained():
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        given = base(work)
        rows = [{"prompt": f"{i} wires?", "completion": "Be careful, because it is not safe."} for i in range(16)]
        (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        saved, why = run(work, f'sft("s", #{{ model: "{given}", data: #{{ paths: ["{work}/rows.jsonl"] }}, train: #{{ steps: 30, batch_size: 8 }}, '
                               'optimizer: #{ lr: 1e-2 } });')
        if saved is None:
            wrong.append(f"sft: {why}")
        else:
            compare("sft", "conversation", *(conversation(load(f)[0], [("user", QUESTION)]) for f in (saved, given)))
            answers("sft", saved)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        done = motrain("--script", "experiments/hh.rhai", "--out", str(work / "out"), "--set", "tasks.hh.train.steps=2", "--set",
                       "tasks.hh.train.batch_size=8", "--set", "tasks.hh.evaluation_prompts=4", "--set", "tasks.hh.fit_samples=32")
        assert done.returncode == 0, said(done)
        answers("policy/", work / "out/policy", 24)


text_variants()
gguf_files()
adapter()
trained()
print(*wrong, f"{right} comparisons the same, {len(wrong)} differ", sep="\n")
sys.exit(bool(wrong))
