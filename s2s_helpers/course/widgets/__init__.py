"""Pictures that answer: each widget is drawn in the browser, and leaves a still picture behind."""

from s2s_helpers.course.widgets.attention_explorer import AttentionExplorer
from s2s_helpers.course.widgets.beam_search_tree import BeamSearchTree
from s2s_helpers.course.widgets.decoding_playground import DecodingPlayground
from s2s_helpers.course.widgets.forcing_schedules import ForcingSchedules
from s2s_helpers.course.widgets.label_smoothing import LabelSmoothing
from s2s_helpers.course.widgets.live_training import LiveTraining
from s2s_helpers.course.widgets.positional_encodings import PositionalEncodings
from s2s_helpers.course.widgets.teacher_forcing import TeacherForcing

__all__ = [
    "AttentionExplorer",
    "BeamSearchTree",
    "DecodingPlayground",
    "ForcingSchedules",
    "LabelSmoothing",
    "LiveTraining",
    "PositionalEncodings",
    "TeacherForcing",
]
