"""Batches are mappings for a transformers model, which says whether a sequence of ones and twos has more twos."""

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

from tune_lr import Workload


class Sequences(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int, seed: int) -> None:
        self.tokens = torch.randint(1, 3, (count, 15), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": ((self.tokens[index] == 2).sum() > 7).long()}


def make_workload() -> Workload:
    config = BertConfig(vocab_size=3, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    return Workload(
        model=lambda: BertForSequenceClassification(config),
        train_data=Sequences(2000, seed=0),
        val_data=Sequences(500, seed=1),
        criterion=lambda outputs, _: outputs.loss,
        batch_size=50,
    )
