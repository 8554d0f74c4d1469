"""One step of TRL's OnlineDPOTrainer on a CPU, as docs/performance.md measures motrain's: 8 prompts of 52 tokens, 2 completions of 64 tokens, one
micro-batch, AdamW, bf16.

    pip install trl peft datasets          # measured: requirements.txt
    OMP_NUM_THREADS=2 python trl_online_dpo.py MODEL [--lora] [--checkpointing]

Without --lora weights are f32 and computing is in bf16 (autocast), beside a reference model in bf16; with it the base is bf16, and the reference is the
base. Prints the seconds of each step, how much of them was drawing, and the process's peak memory; with --json an object a line."""
import argparse
import json
import resource
import statistics
import tempfile
import time
import warnings

import peft
import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

warnings.filterwarnings("ignore")
options = argparse.ArgumentParser()
options.add_argument("model")
options.add_argument("--lora", action="store_true")
options.add_argument("--checkpointing", action="store_true")
options.add_argument("--steps", type=int, default=3)
options.add_argument("--json", action="store_true")
options = options.parse_args()
PROMPTS, LENGTH, NEW = 8, 52, 64

tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
text = tokenizer.decode(tokenizer("how can one plan a good day when the weather is bad " * 8)["input_ids"][: LENGTH])
prompts = Dataset.from_list([{"prompt": text}] * (PROMPTS * (options.steps + 1)))


def load(dtype):
    return AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)


def distinct(prompts, completions, **_):
    return [float(len(set(completion))) for completion in completions]


class Timed(OnlineDPOTrainer):
    drawing, steps = 0.0, []

    def _generate(self, *args, **kwargs):
        start = time.perf_counter()
        drawn = super()._generate(*args, **kwargs)
        self.drawing += time.perf_counter() - start
        return drawn


class Clock(TrainerCallback):
    """From a step's begin to its end: drawing, gradient, clipping and AdamW."""

    def on_step_begin(self, *args, **kwargs):
        self.start, trainer.drawing = time.perf_counter(), 0.0

    def on_step_end(self, *args, **kwargs):
        trainer.steps.append((round(time.perf_counter() - self.start, 2), round(trainer.drawing, 2)))


trainer = Timed(
    model=load(torch.bfloat16 if options.lora else torch.float32),
    ref_model=None if options.lora else load(torch.bfloat16),
    reward_funcs=distinct,
    args=OnlineDPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PROMPTS,
        max_new_tokens=NEW,
        generation_kwargs={"min_new_tokens": NEW},
        max_steps=options.steps,
        learning_rate=1e-5,
        bf16=True,
        gradient_checkpointing=options.checkpointing,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    ),
    train_dataset=prompts,
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if options.lora else None,
)
trainer.add_callback(Clock())
trainer.train()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
if options.json:
    # The first step takes memory that the others find.
    seconds = statistics.median(step for step, _ in trainer.steps[1:])
    step, memory = ("LoRA step", "peak memory, LoRA") if options.lora else ("whole step", "peak memory")
    for package in (trl, torch, peft):
        print(json.dumps({"version": package.__name__, "is": package.__version__}))
    print(json.dumps({"measure": step, "value": seconds, "unit": "s"}))
    print(json.dumps({"measure": memory, "value": peak, "unit": "GB"}))
else:
    print("seconds a step, of which drawing:", *trainer.steps)
    print(f"peak memory {peak:.2f} GB")
