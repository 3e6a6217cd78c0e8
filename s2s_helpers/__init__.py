"""Real implementations behind the sequence-to-sequence notebooks.

Import from the rooms themselves, for example `from s2s_helpers.models import AttentionSeq2Seq`.
"""

import warnings

# torch looks for NVIDIA's driver through a package whose import warns; a first cell stays clean.
warnings.filterwarnings("ignore", message=".*pynvml.*", category=FutureWarning)

__version__ = "0.2.0"
