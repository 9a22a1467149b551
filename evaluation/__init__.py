"""Predictions scored against dense labels, and models compared with a fully supervised one."""

from nnunet_attenscribble.evaluation.compare import Comparison, ComparisonRow, compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import read_comparison, to_csv, to_json, to_markdown
from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
from nnunet_attenscribble.evaluation.kept_scores import read_kept, write_kept
from nnunet_attenscribble.evaluation.metrics import (
    StructureScores,
    compute_assd,
    compute_dice,
    compute_hd95,
    compute_iou,
    compute_nsd,
    compute_scores,
    count_lesions,
)
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.postprocessing import postprocess_folder
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, get_protocol
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import Summary, read_summary, write_summary

__all__ = [
    "PROTOCOLS",
    "Comparison",
    "ComparisonRow",
    "Structure",
    "StructureScores",
    "Summary",
    "compare_summaries",
    "compute_assd",
    "compute_dice",
    "compute_hd95",
    "compute_iou",
    "compute_nsd",
    "compute_scores",
    "count_lesions",
    "evaluate_folder",
    "get_protocol",
    "pool_runs",
    "postprocess_folder",
    "read_comparison",
    "read_kept",
    "read_summary",
    "to_csv",
    "to_json",
    "to_markdown",
    "write_kept",
    "write_summary",
]
