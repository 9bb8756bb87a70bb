"""Metrics, evaluation of models, statistics over patients, and tables."""

from morelib.evaluation.evaluate import (
    ZeroFilled,
    best_device,
    evaluate,
    protocol,
    reconstruct_volume,
    write_metrics,
)
from morelib.evaluation.metrics import nmse, psnr, ssim
from morelib.evaluation.scores import VolumeScore
from morelib.evaluation.statistics import compare, means_by_category
from morelib.evaluation.tables import (
    Table,
    against_table,
    comparison_table,
    cost_table,
    paper_results_table,
    results_table,
    seed_table,
)

__all__ = [
    "Table",
    "VolumeScore",
    "ZeroFilled",
    "against_table",
    "best_device",
    "compare",
    "comparison_table",
    "cost_table",
    "evaluate",
    "means_by_category",
    "nmse",
    "paper_results_table",
    "protocol",
    "psnr",
    "reconstruct_volume",
    "results_table",
    "seed_table",
    "ssim",
    "write_metrics",
]
