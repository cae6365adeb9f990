from __future__ import annotations

import torch
from torch import nn

from zoo.model.norms import settle_batch_norms


def test_statistics_are_the_plain_average_over_the_batches() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Dropout(0.9))
    module(torch.full((1, 2, 3, 3), 1e6))  # what was there before takes no part
    batches = torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    settle_batch_norms(module, batches)
    norm = module[0]
    torch.testing.assert_close(norm.running_mean, batches.mean(dim=(1, 3, 4)).mean(dim=0))
    torch.testing.assert_close(norm.running_var, batches.transpose(1, 2).flatten(2).var(dim=2).mean(dim=0))
    assert norm.momentum == 0.3 and not any(part.training for part in module.modules())


def test_dropout_takes_no_part() -> None:
    module = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(1)).train()
    settle_batch_norms(module, [torch.ones(64, 1, 4, 4)])
    assert module[1].running_mean == 1.0 and module[1].running_var == 0.0
