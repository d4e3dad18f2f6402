"""Judging models and selections: accuracy with intervals, paired on the same clips, and where a selection looks.

dataset = open_for(model, "jhmdb:split1_test")
judged = judge(model, dataset, ["none", "sta:keep=0.5"], data="jhmdb:split1_test")
rows = table([Candidate("mine", model, judged)], "jhmdb:split1_test")
"""

from tubelet.evaluation.ava import evaluate_ava
from tubelet.evaluation.boxes import bootstrap
from tubelet.evaluation.data import open_for, protocol_of, views_of
from tubelet.evaluation.detections import as_detections, of_tubes
from tubelet.evaluation.report import Candidate, pair_of, table, write
from tubelet.evaluation.rows import columns, read_rows
from tubelet.evaluation.run import judge
from tubelet.evaluation.tubes import EDGES, TubeRules, evaluate_tubes, link_tubes

__all__ = [
    "EDGES",
    "TubeRules",
    "as_detections",
    "bootstrap",
    "evaluate_ava",
    "evaluate_tubes",
    "link_tubes",
    "of_tubes",
    "Candidate",
    "columns",
    "judge",
    "open_for",
    "pair_of",
    "protocol_of",
    "read_rows",
    "table",
    "views_of",
    "write",
]
