"""Judging models and selections: accuracy with intervals, paired on the same clips, and where a selection looks."""
