"""Golden group advantages, as TRL's GRPO has them: core/base/src/advantage/grpo.rs. Needs torch."""

import torch

rewards = torch.tensor([0.9, 0.4, 0.1, 0.6], dtype=torch.float64)
print([round(a, 6) for a in ((rewards - rewards.mean()) / (rewards.std() + 1e-4)).tolist()])
