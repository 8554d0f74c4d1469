"""Losses that reward models are trained with, and their gradients, for core/engine/src/stage/reward_model/.

    python reward_losses.py            writes reward_losses.json

torch 2.15, f64. Tolerance in tests, which compute in f32: 1e-5 of the loss, 1e-6 of a gradient. A rerun gives the same bytes.

pairs    scores [pairs, 2] (chosen, rejected), margins m, c = center_rewards_coefficient
         loss = mean(-log sigmoid(r_c - r_r - m)) + c * mean((r_c + r_r)^2)          TRL's RewardTrainer
ratings  scores [answers, attributes], ratings y or null
         loss = sum((s - y)^2) / n over the n ratings that are there
`gradient` is that of the loss by the scores."""
import json
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)


def golden(scores, loss):
    scores = torch.tensor(scores, requires_grad=True)
    value = loss(scores)
    value.backward()
    return {"scores": scores.tolist(), "loss": value.item(), "gradient": scores.grad.tolist()}


def pairs(scores, margins, c):
    m = torch.tensor(margins)

    def loss(s):
        chosen, rejected = s.unbind(1)
        return -torch.log(torch.sigmoid(chosen - rejected - m)).mean() + c * ((chosen + rejected) ** 2).mean()

    return {"margins": margins, "center_rewards_coefficient": c} | golden(scores, loss)


def ratings(scores, rows):
    def loss(s):
        given = [(s[i, k] - y) ** 2 for i, row in enumerate(rows) for k, y in enumerate(row) if y is not None]
        return torch.stack(given).sum() / len(given)

    return {"ratings": rows} | golden(scores, loss)


SCORES = [[1.5, -0.25], [-2.0, 0.75], [0.125, 0.0]]
RATED = [[1.0, 3.5, -0.5], [2.25, 0.0, 4.0]]
cases = {
    "pairs": [pairs(SCORES, m, c) for m in ([0.0, 0.0, 0.0], [0.5, 2.0, -1.0]) for c in (0.0, 0.01, 0.5)],
    "ratings": [ratings(RATED, rows) for rows in ([[2.0, 3.0, 0.0], [2.0, 4.0, 4.0]], [[None, 3.0, 0.0], [2.0, None, None]],
                                                  [[None, None, 1.0], [None, -3.0, None]])],
}
lines = {kind: ",\n".join(json.dumps(case) for case in of_kind) for kind, of_kind in cases.items()}
text = ",\n".join(f'"{kind}": [\n{of_kind}]' for kind, of_kind in lines.items())
Path(__file__).with_suffix(".json").write_text("{" + text + "}\n")
