"""Two reward models that are not in transformers, written here from what is public of them, for families.py.

LlamaForScore (Beaver's reward and cost models, PKU-Alignment/safe-rlhf; older folders say "LlamaModelForScore")
    tensors  model.* as Llama's; score_head.weight [score_dim, hidden], score_head.bias [score_dim] if biased;
             normalizer.mean, normalizer.var [score_dim] f32, normalizer.count [1] i64
    config   score_dim (1); bias (false) in older folders, score_bias (true) in newer ones; score_type "reward", "cost" or "critic";
             do_normalize (false); normalizer_type null, "RunningMeanStd" or "ExponentialMovingAverage" (how training updates it);
             mean, var: lists or null, what the buffers hold before tensors of a file, which win, are read
    formula  s = score_head(h at the last token that the attention mask holds), h after the last norm
             reward: (s - mean) / (sqrt(var) + 1e-8); cost: s / (sqrt(var) + 1e-8); critic, or without do_normalize: s
             A cost is better when lower.

LlamaForRewardModelWithGating (ArmoRM, RLHFlow)
    tensors  model.*; regression_layer.weight [objectives, hidden]; reward_transform_matrix [objectives, objectives];
             gating.logit_scale [1]; gating.layers.I.{weight,bias}, I from 0 to n_hidden, the last of them [objectives, gating_hidden_dim]
    config   num_objectives (19), gating_temperature (10), gating_hidden_dim (1024), gating_n_hidden (3), pad_token_id
    formula  ratings = regression_layer(h at `end`), one for each objective
             r = ratings @ reward_transform_matrix
             g = softmax(mlp(h at `start`) / gating_temperature) * logit_scale, mlp: linear layers, ReLU between them
             score = sum(g * r)
             end: the token before the first pad token, or the last of all; start: the first token of the last occurrence of the pattern that
             ends a prompt, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n": [128009, 128006, 78191, 128007, 271] in Llama 3.
"""
import torch
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel

PATTERN = [33, 34, 35, 36]  # as ArmoRM's, in the vocabulary of the tiny model


class Normalizer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.register_buffer("mean", torch.tensor(getattr(config, "mean", None) or [0.0] * config.score_dim))
        self.register_buffer("var", torch.tensor(getattr(config, "var", None) or [1.0] * config.score_dim))
        self.register_buffer("count", torch.zeros(1, dtype=torch.long))


class LlamaForScore(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score_head = nn.Linear(config.hidden_size, config.score_dim, bias=getattr(config, "score_bias", getattr(config, "bias", False)))
        self.normalizer = Normalizer(config)
        self.post_init()

    def scores(self, ids):
        score = self.score_head(self.model(input_ids=ids).last_hidden_state[:, -1])
        if not self.config.do_normalize or self.config.score_type == "critic":
            return score
        mean = self.normalizer.mean if self.config.score_type == "reward" else 0.0
        return (score - mean) / (self.normalizer.var.sqrt() + 1e-8)


class Gating(nn.Module):
    def __init__(self, config):
        super().__init__()
        sizes = [config.hidden_size] + [config.gating_hidden_dim] * config.gating_n_hidden
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:] + [config.num_objectives])])
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.temperature = config.gating_temperature

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return (self.layers[-1](x) / self.temperature).softmax(-1) * self.logit_scale


class LlamaForRewardModelWithGating(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, config.num_objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(config.num_objectives))
        self.gating = Gating(config)
        self.post_init()

    def read(self, ids):
        row, n = ids[0].tolist(), len(PATTERN)
        start = max(i for i in range(len(row)) if row[i:i + n] == PATTERN)
        end = row.index(self.config.pad_token_id) - 1 if self.config.pad_token_id in row else -1
        hidden = self.model(input_ids=ids).last_hidden_state
        ratings = self.regression_layer(hidden[:, end])
        return ratings, (self.gating(hidden[:, start]) * (ratings @ self.reward_transform_matrix)).sum(-1, keepdim=True)

    def ratings(self, ids):
        return self.read(ids)[0]

    def scores(self, ids):
        return self.read(ids)[1]


HEADS = {c.__name__: c for c in (LlamaForScore, LlamaForRewardModelWithGating)}
