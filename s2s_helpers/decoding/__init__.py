"""From a trained model to text: searches, sampling, and `translate` for texts and files."""

from s2s_helpers.decoding.diverse import diverse_beam_search
from s2s_helpers.decoding.risk import log_probabilities, minimum_risk, minimum_risk_search
from s2s_helpers.decoding.sampling import random_of, sample, sharpened, typical
from s2s_helpers.decoding.search import (
    BeamSearch,
    Hypothesis,
    Lines,
    beam_search,
    check_source,
    generate,
    greedy_decode,
    largest,
    length_penalty_of,
    most_probable,
    next_log_probabilities,
)
from s2s_helpers.decoding.translate import Translation, encode_source, translate
from s2s_helpers.decoding.translate_file import translate_file
