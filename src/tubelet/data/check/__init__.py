"""`tubelet check-data`: what is wrong with a data set, found before training."""

from tubelet.data.check.ava import check_ava, is_ava
from tubelet.data.check.check import check_boxes, check_data, is_boxes
from tubelet.data.check.problems import KINDS, Problem, Report

__all__ = ["KINDS", "Problem", "Report", "check_ava", "check_boxes", "check_data", "is_ava", "is_boxes"]
