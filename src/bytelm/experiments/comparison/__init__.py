"""The study that compares a patched model with its twin without patches.

Reading order: `plan` (what is compared), `rows` (on which rows), `space`, `search` and `ledger`
(settings, if they are searched), `stages` (what is done), `checked` (what a record must hold),
`findings` (what may be said), `report`.
"""

from bytelm.experiments.comparison.checked import check
from bytelm.experiments.comparison.outputs import NAMES, files
from bytelm.experiments.comparison.plan import ComparisonPlan
from bytelm.experiments.comparison.report import document
from bytelm.experiments.comparison.rows import Rows
from bytelm.experiments.comparison.space import Grid
from bytelm.experiments.comparison.stages import keep_best, list_stages

__all__ = [
    "NAMES",
    "ComparisonPlan",
    "Grid",
    "Rows",
    "check",
    "document",
    "files",
    "keep_best",
    "list_stages",
]
