"""The checks of the notebooks' exercises: `from s2s_helpers.course import checks as check`.

Each takes the learner's function or guess and prints one answer (`running.py`); a file for each
notebook, two for the bug museum.
"""

# ruff: noqa: F403

from s2s_helpers.course.checks.attention import *
from s2s_helpers.course.checks.data import *
from s2s_helpers.course.checks.decoding import *
from s2s_helpers.course.checks.hour import *
from s2s_helpers.course.checks.loss import *
from s2s_helpers.course.checks.museum import *
from s2s_helpers.course.checks.museum_scores import *
from s2s_helpers.course.checks.real import *
from s2s_helpers.course.checks.rnn import *
from s2s_helpers.course.checks.training import *
from s2s_helpers.course.checks.transformer import *
