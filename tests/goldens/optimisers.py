"""Golden trajectories of core/engine/src/optim: three steps of AdamW and Adafactor on a 2x2 problem.

Needs torch 2.13 and transformers 5.23. Tolerance in the test: 1e-5."""
import torch
from transformers.optimization import Adafactor

SCALE = torch.tensor([[1.0, 2.0], [-1.0, 3.0]])


def run(make):
    w = torch.nn.Parameter(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
    optimiser = make([w])
    for _ in range(3):
        optimiser.zero_grad()
        (w * SCALE).square().sum().backward()
        optimiser.step()
    return [f"{v:.8f}" for v in w.detach().flatten().tolist()]


print("adamw", run(lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)))
print("adafactor", run(lambda p: Adafactor(p, lr=0.1, scale_parameter=False, relative_step=False, weight_decay=0.1)))
