"""Pictures of what a model looked at."""

from tubelet.visualize.kept import Drawing, Step, animation, check_out, contact_sheet, visualize

__all__ = ["Drawing", "Step", "animation", "check_out", "contact_sheet", "visualize"]
