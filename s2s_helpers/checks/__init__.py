"""The checks of the notebooks' exercises: `from s2s_helpers import checks as check`.

Each takes the learner's function or guess and prints one answer (`running.py`); a file for each
notebook, two for the bug museum.
"""

# ruff: noqa: F403

from s2s_helpers.checks.attention import *
from s2s_helpers.checks.data import *
from s2s_helpers.checks.decoding import *
from s2s_helpers.checks.loss import *
from s2s_helpers.checks.museum import *
from s2s_helpers.checks.museum_scores import *
from s2s_helpers.checks.real import *
from s2s_helpers.checks.rnn import *
from s2s_helpers.checks.training import *
from s2s_helpers.checks.transformer import *
