"""Where sentence pairs come from: one file a corpus, and a reader of one's own."""

from s2s_helpers.corpora.pairs import Pair, Pairs, Splits, read_pairs
