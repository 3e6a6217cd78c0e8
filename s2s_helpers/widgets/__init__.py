"""Pictures that answer: each widget is drawn in the browser, and leaves a still picture behind."""

from s2s_helpers.widgets.attention_explorer import AttentionExplorer
from s2s_helpers.widgets.label_smoothing import LabelSmoothing
from s2s_helpers.widgets.positional_encodings import PositionalEncodings

__all__ = ["AttentionExplorer", "LabelSmoothing", "PositionalEncodings"]
