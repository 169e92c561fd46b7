"""A byte model of a few thousand parameters with every parameter role, for tests of training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytelm.data import Batch
from bytelm.training.optimizers import OptimConfig, Optimizer
from bytelm.training.precision import gradient_scaler
from bytelm.training.step import Stepper
from bytelm.vocab import IGNORE, OFFSET, VOCAB_SIZE

CPU = torch.device("cpu")


class ToyLM(nn.Module):
    """The id, a hashed bigram and one hidden layer; with dropout, so that random states matter."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB_SIZE, 8)
        self.table = nn.Parameter(torch.randn(64, 8))
        self.hidden = nn.Linear(8, 16)
        self.head = nn.Linear(16, VOCAB_SIZE)
        self.dropout = dropout

    def forward(self, ids: Tensor) -> Tensor:
        bigrams = (ids + 31 * F.pad(ids, (1, 0))[:, :-1]) % 64
        h = self.embed(ids) + F.embedding(bigrams, self.table, sparse=True)
        h = F.dropout(torch.tanh(self.hidden(h)), self.dropout, self.training)
        return self.head(h)


def role(name: str, parameter: nn.Parameter) -> str:
    if name == "table":
        return "hash_table"
    return "matrix" if name == "hidden.weight" else "other"


def stepper(model: nn.Module, config: OptimConfig | None = None, **changes) -> Stepper:
    optimizer = Optimizer(config or OptimConfig(), model.named_parameters(), role=role)
    settings = {"scaler": gradient_scaler(None, CPU), "dtype": None, "device": CPU, **changes}
    return Stepper(model, optimizer, **settings)


def batch(seed: int, rows: int = 6, length: int = 10) -> Batch:
    """Random bytes; a third of the first rows' targets is ignored, so rows count differently."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(OFFSET, VOCAB_SIZE, (rows, length), generator=generator)
    ids = F.pad(targets, (1, 0), value=1)[:, :-1]
    targets[0, : length // 3] = IGNORE
    return Batch(ids, targets)
