"""A collected benchmark as a page to read, and the pictures that it is made of."""

from nnunet_attenscribble.evaluation.report.attention import AttentionView, draw_view, read_view, write_view
from nnunet_attenscribble.evaluation.report.build import write_report
from nnunet_attenscribble.evaluation.report.pictures import Panel, draw_case, find_largest_slice

__all__ = [
    "AttentionView",
    "Panel",
    "draw_case",
    "draw_view",
    "find_largest_slice",
    "read_view",
    "write_report",
    "write_view",
]
