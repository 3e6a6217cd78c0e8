"""States are values: however a tree of them is grown, each path is `forward` of what it read."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import KINDS, RNN, SOURCE, TINY, build, next_step, padded, sentences

from s2s_helpers.models import PointerGenerator, TransformerSeq2Seq
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.models.view import eval_view
from s2s_helpers.vocabulary import SOS

ALSO = {
    "post-norm": lambda: TransformerSeq2Seq(
        SOURCE, TINY, width=8, heads=2, layers=1, norm_first=False, positions="learned"
    ),
    "pointer": lambda: PointerGenerator(SOURCE, SOURCE, **RNN),
    "coverage": lambda: PointerGenerator(SOURCE, SOURCE, coverage=True, **RNN),
}
ROWS = sentences(4)


def made(kind):
    torch.manual_seed(0)
    return build(kind) if kind in KINDS else ALSO[kind]().eval()


@dataclass
class Node:
    """A state, its memory, and of every line the row it translates and the tokens it has read."""

    state: object
    memory: object
    lines: list

    @property
    def beams(self):
        return len(self.lines) // len(self.memory.mask)


def read(model, node, tokens):
    """The node after one token a line; what the model says must be what `forward` says."""
    logits, state, _ = model.step(torch.tensor(tokens), node.state, node.memory)
    lines = [(row, [*ids, token]) for (row, ids), token in zip(node.lines, tokens, strict=True)]
    for line, (row, ids) in enumerate(lines):
        expected = torch.tensor(next_step(model.inner, ROWS[row], ids[1:]))
        found = logits[line].log_softmax(-1)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    return Node(state, node.memory, lines)


def chosen(model, data, node):
    """A node of some lines of this one, several of a sentence where the model can share memory."""
    rows, beams = len(node.memory.mask), 1
    if model.shares_memory:
        beams = data.draw(st.integers(1, 3))
        sentences = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=4))
        place = st.integers(0, node.beams - 1)
        lines = [s * node.beams + data.draw(place) for s in sentences for _ in range(beams)]
    else:
        everyone = st.integers(0, len(node.lines) - 1)
        lines = data.draw(st.lists(everyone, min_size=1, max_size=6))
        sentences = [line // node.beams for line in lines]
    state = node.state.select(torch.tensor(lines), beams)
    memory = node.memory.select(torch.tensor(sentences))
    return Node(state, memory, [node.lines[line] for line in lines])


@pytest.mark.parametrize("kind", [*KINDS, *ALSO])
@given(data=st.data())
@settings(max_examples=20)
def test_each_path_through_a_tree_is_forward_of_its_prefix(kind, data):
    inner = MADE.setdefault(kind, made(kind))
    view = data.draw(st.sampled_from([eval_view, prepacked]), "view")
    gradients = view is eval_view and data.draw(st.booleans(), "gradients")
    with torch.set_grad_enabled(gradients):
        model = view(inner)
        object.__setattr__(model, "inner", inner)
        batch = padded(ROWS)
        memory = model.encode(batch.source, batch.source_mask)
        first = Node(model.start(memory), memory, [(row, []) for row in range(len(ROWS))])
        nodes = [first, read(model, first, [SOS] * len(ROWS))]
        word = st.integers(4, len(model.target_vocabulary) - 1)
        for _ in range(data.draw(st.integers(1, 8), "moves")):
            node = nodes[data.draw(st.integers(0, len(nodes) - 1), "node")]
            if not node.lines[0][1]:
                nodes.append(read(model, node, [SOS] * len(node.lines)))
            elif data.draw(st.booleans(), "step"):
                nodes.append(read(model, node, [data.draw(word) for _ in node.lines]))
            else:
                nodes.append(chosen(model, data, node))
        for node in nodes[1:]:  # all of them can go on, in whatever order they were made
            read(model, node, [data.draw(word) for _ in node.lines])


MADE: dict = {}
