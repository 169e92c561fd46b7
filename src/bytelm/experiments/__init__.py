"""Whole studies: declared in a file, run unattended, killed and resumed, reported on.

Reading order: `runner` (stages and their keys), `store` (where they are kept), `results` (the
record of a study), `plots` and `document` (a report before it has a form), `study` (from start to
report), `plan` (files and kinds), and one folder for each kind of study.
"""

from bytelm.experiments.plan import Plan, find_plan, rebuild, run_plan
from bytelm.experiments.results import Record
from bytelm.experiments.runner import Outcome, Stage, StageResult, Work

__all__ = [
    "Outcome",
    "Plan",
    "Record",
    "Stage",
    "StageResult",
    "Work",
    "find_plan",
    "rebuild",
    "run_plan",
]
