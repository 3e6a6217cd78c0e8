"""From a trained model to text: searches, sampling, and `translate` for texts and files."""

from s2s_helpers.decoding.search import (
    BeamSearch,
    Hypothesis,
    barred,
    beam_search,
    check_source,
    greedy_decode,
    largest,
    length_penalty_of,
    next_log_probabilities,
    sample,
    stack_attention,
    write,
)
from s2s_helpers.decoding.streaming import translate_file
from s2s_helpers.decoding.translate import Translation, as_translation, encode_source, translate
from s2s_helpers.decoding.variety import (
    Group,
    diverse_beam_search,
    draws,
    log_probabilities,
    minimum_risk,
    typical,
)
