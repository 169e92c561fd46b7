"""The study of compression: plan, stages, report.

Reading order: `plan` (what is varied), `stages` (what is done), `findings` (what may be said),
`report`.
"""

from bytelm.experiments.compression.plan import CompressionPlan
from bytelm.experiments.compression.report import document
from bytelm.experiments.compression.stages import HeldOut, list_stages

__all__ = ["CompressionPlan", "HeldOut", "document", "list_stages"]
