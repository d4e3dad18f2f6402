"""What a model costs: multiply-adds, time and memory, side by side."""

from tubelet.profiling.flops import Flops, count_flops, flops_table
from tubelet.profiling.latency import bench, choosing_share
from tubelet.profiling.report import remarks

__all__ = ["Flops", "bench", "choosing_share", "count_flops", "flops_table", "remarks"]
