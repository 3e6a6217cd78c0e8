"""Others who decode, with our weights: what `decoding.py` measures.

Each function takes our model and returns decode(sentences, beam, batch size) -> ids of each
sentence, in the order given. None counts the loading of the model. All get the same limit and, in
beam search, the same objective: the sum of log-probabilities, without a length penalty.
"""

import importlib.util
import logging
import math
import tempfile
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import nn

from s2s_helpers.corpora import multi30k
from s2s_helpers.data import Seq2SeqDataset, collate
from s2s_helpers.decoding import beam_search, greedy_decode, translate
from s2s_helpers.decoding.search import Hypothesis
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.optional import import_optional
from s2s_helpers.production.ctranslate2 import CTranslate2Model, export_ctranslate2
from s2s_helpers.production.shortlist import Shortlisted, learn_shortlist
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK

LIMIT = 64  # tokens at most, which no sentence here reaches
BATCH, BATCHES = 64, (64, 128, 256)
SEARCHES = {"greedy": 1, "beam of 5": 5}


class Sentence(NamedTuple):
    """A caption, its ids with EOS, and what people made of it."""

    text: str
    ids: list[int]
    reference: str = ""


def until_end(ids) -> list[int]:
    """Ids up to and with the first EOS."""
    ids = [int(i) for i in ids]
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


def sorted_batches(
    sentences: list[Sentence], batch_size: int, decode, device="cpu"
) -> list[list[int]]:
    """Decode sentences of like lengths together; `decode` takes a padded `Batch` and gives the
    ids of each row. Returns the results in the caller's order."""
    order = sorted(range(len(sentences)), key=lambda number: len(sentences[number].ids))
    results: list = [None] * len(sentences)
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        batch = collate([(sentences[number].ids, None) for number in numbers])
        found = decode(batch.to(device))
        for number, ids in zip(numbers, found, strict=True):
            results[number] = until_end(ids)
    return results


def ours(model, dtype=torch.float32):
    """greedy_decode and beam_search of this package, asked for ids alone; its large matrix products
    are in `dtype`."""
    ready = prepacked(model, dtype)
    device = next(model.parameters()).device

    def batch_of(beam):
        def decode(batch):
            inputs = dict(source_mask=batch.source_mask, max_length=LIMIT, attention=False)
            if beam == 1:
                found = greedy_decode(ready, batch.source, **inputs)
                return [hypothesis.ids for hypothesis in found]
            found = beam_search(ready, batch.source, beam_size=beam, length_penalty=0.0, **inputs)
            return [hypotheses[0].ids for hypotheses in found]

        return decode

    return lambda sentences, beam, size: sorted_batches(sentences, size, batch_of(beam), device)


@cache
def shortlist_of(model):
    """What the captions that the model was trained on speak for."""
    vocabularies = model.source_vocabulary, model.target_vocabulary
    return learn_shortlist(Seq2SeqDataset(multi30k.load().train, *vocabularies))


def by_own_search(ready):
    """The searches that a model brings along."""

    def batch_of(beam):
        search = ready.own_search(beam, 0.0, 1)

        def decode(batch):
            inputs = dict(source_mask=batch.source_mask, max_length=LIMIT, attention=False)
            found = search(ready, batch.source, **inputs)
            return [(some if isinstance(some, Hypothesis) else some[0]).ids for some in found]

        return decode

    return lambda sentences, beam, size: sorted_batches(sentences, size, batch_of(beam))


def shortlisted(model):
    """The package's searches on a model that knows what a source can call for."""
    return by_own_search(prepacked(Shortlisted(model, shortlist_of(model))))


def ours_translate(model):
    """`translate`, from text to text: subwords are cut and joined as well."""
    tokens = model.target_vocabulary.tokens(range(len(model.target_vocabulary)))
    numbers = {token: number for number, token in enumerate(tokens)}

    def decode(sentences, beam, size):
        found = translate(
            model, [sentence.text for sentence in sentences],
            beam_size=beam, length_penalty=0.0, batch_size=size, max_length=LIMIT,
        )  # fmt: skip
        return [[numbers[token] for token in translation.tokens] for translation in found]

    return decode


def residuals(layer) -> list[str]:
    """The names of a layer's residual connections, in their order."""
    return [name for name, _ in layer.named_children() if name.endswith("_residual")]


def carry(theirs, own, attentions, projections, norms, feedforward) -> None:
    """Copy the weights of one of our layers into a peer's, by the names its modules have there."""
    pairs = [
        (f"{theirs_name}.{part}", f"{name}.{own_part}")
        for theirs_name, name in zip(attentions, ("attention", "cross"), strict=False)
        for part, own_part in zip(projections, ("query", "key", "value", "output"), strict=True)
    ]
    pairs += zip(norms, (f"{name}.norm" for name in residuals(own)), strict=True)
    pairs += zip(feedforward, ("feedforward.0", "feedforward.2"), strict=True)
    for name, own_name in pairs:
        theirs.get_submodule(name).load_state_dict(own.get_submodule(own_name).state_dict())


def hugging_face(model):
    """MarianMTModel.generate, with its cache and the attention it picks by itself."""
    hub = import_optional("transformers")
    size = model.settings
    marian = hub.MarianMTModel(
        hub.MarianConfig(
            vocab_size=len(model.target_vocabulary), d_model=size["width"], dropout=0.0,
            encoder_layers=size["layers"], decoder_layers=size["layers"],
            encoder_attention_heads=size["heads"], decoder_attention_heads=size["heads"],
            encoder_ffn_dim=size["feedforward"], decoder_ffn_dim=size["feedforward"],
            activation_function="relu", scale_embedding=True, forced_eos_token_id=None,
            max_position_embeddings=model.max_positions, pad_token_id=PAD, bos_token_id=SOS,
            decoder_start_token_id=SOS, eos_token_id=EOS,
        )
    ).eval()  # fmt: skip
    device = next(model.parameters()).device
    marian.to(device)
    names = ["q_proj", "k_proj", "v_proj", "out_proj"]
    norms = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
    with torch.no_grad():
        marian.model.shared.weight.copy_(model.target_embedding.weight)
        marian.final_logits_bias.copy_(model.output.bias[None])
        for side, own, attentions, kept in [
            (marian.model.encoder, model.encoder, ["self_attn"], [norms[0], norms[2]]),
            (marian.model.decoder, model.decoder, ["self_attn", "encoder_attn"], norms),
        ]:
            side.embed_positions.weight.copy_(model.table)
            for layer, own_layer in zip(side.layers, own, strict=True):
                carry(layer, own_layer, attentions, names, kept, ["fc1", "fc2"])
    check_logits(
        "Hugging Face", model,
        lambda batch: marian(
            input_ids=batch.source, attention_mask=batch.source_mask.long(),
            decoder_input_ids=batch.target_input,
        ).logits,
    )  # fmt: skip

    def batch_of(beam):
        # False stops when no unfinished hypothesis can win any more: exact where log-probabilities
        # are not divided by the length.
        search = hub.GenerationConfig(
            num_beams=beam, do_sample=False, max_new_tokens=LIMIT, use_cache=True, pad_token_id=PAD,
            eos_token_id=EOS, bos_token_id=SOS, decoder_start_token_id=SOS,
            **(dict(length_penalty=0.0, early_stopping=False) if beam > 1 else {}),
        )  # fmt: skip

        def decode(batch):
            with torch.inference_mode():
                found = marian.generate(
                    batch.source, generation_config=search, attention_mask=batch.source_mask.long()
                )
            return found[:, 1:].tolist()

        return decode

    return lambda sentences, beam, size: sorted_batches(sentences, size, batch_of(beam), device)


def check_logits(name: str, model, theirs, tolerance: float = 1e-4) -> None:
    """Raise ValueError where a peer's logits, on a padded batch, are not ours."""
    some = [[5, 6, 7, 8, 9, EOS], [10, 11, EOS], [12, 13, 14, 15, EOS]]
    batch = collate([(ids, ids[::-1]) for ids in some]).to(next(model.parameters()).device)
    with torch.inference_mode():
        expected, found = model.eval()(batch)[0], theirs(batch)
    difference = (expected - found)[batch.target_output != PAD].abs().max().item()
    if not difference < tolerance:
        raise ValueError(f"the logits of {name} differ from ours by up to {difference:.2g}")


def production(model, compute_type="float32", shortlist=None):
    """The package's own way to CTranslate2, a batch after the other."""
    with tempfile.TemporaryDirectory() as empty:
        folder = export_ctranslate2(model, f"{empty}/model", shortlist=shortlist)
        return by_own_search(CTranslate2Model(folder, torch.get_num_threads(), compute_type))


def ctranslate2(model, compute_type="float32"):
    """CTranslate2's translate_batch, which sorts and cuts batches by itself; a batch size is a
    number of sentences or ("tokens", number). Several threads work on a batch each, which is its
    fastest way, and together on a sentence that is alone."""
    from ctranslate2 import Translator

    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as empty:
        folder = str(export_ctranslate2(model, f"{empty}/model"))
        many = Translator(folder, compute_type=compute_type, inter_threads=threads, intra_threads=1)
        one = Translator(folder, compute_type=compute_type, inter_threads=1, intra_threads=threads)
    tokens = model.target_vocabulary.tokens(range(len(model.target_vocabulary)))
    numbers = {token: number for number, token in enumerate(tokens)}

    def decode(sentences, beam, size):
        kind, size = ("examples", size) if isinstance(size, int) else size
        found = (many if len(sentences) > 1 else one).translate_batch(
            [[tokens[i] for i in sentence.ids] for sentence in sentences],
            beam_size=beam, length_penalty=0.0, patience=1.0, max_decoding_length=LIMIT,
            max_batch_size=size, batch_type=kind, return_end_token=True,
        )  # fmt: skip
        return [[numbers[token] for token in result.hypotheses[0]] for result in found]

    return decode


def joey_nmt(model):
    """Joey NMT's `search`, which runs the prefix again for each token."""
    from joeynmt.batch import Batch
    from joeynmt.model import build_model
    from joeynmt.search import search
    from joeynmt.vocabulary import Vocabulary

    logging.getLogger("joeynmt.model").setLevel(logging.WARNING)
    tokens = model.target_vocabulary.tokens(range(len(model.target_vocabulary)))
    shared = Vocabulary(
        tokens[4:],
        SimpleNamespace(
            unk_token="<pad>", pad_token="<unk>", bos_token="<sos>", eos_token="<eos>",
            unk_id=0, pad_id=1, bos_id=SOS, eos_id=EOS, sep_token=None, sep_id=None, lang_tags=[],
        ),
    )  # fmt: skip
    # It wants <unk> first and <pad> second; only these two numbers matter.
    shared.pad_index, shared.unk_index = PAD, UNK
    size = model.settings
    side = dict(
        type="transformer", hidden_size=size["width"], ff_size=size["feedforward"], dropout=0.0,
        num_layers=size["layers"], num_heads=size["heads"], layer_norm="post", activation="relu",
        embeddings=dict(embedding_dim=size["width"], scale=True),
    )  # fmt: skip
    config = dict(encoder=side, decoder=side, tied_embeddings=True, tied_softmax=True)
    joey = build_model(config, shared, shared).eval()
    names = ["q_layer", "k_layer", "v_layer", "output_layer"]
    inner = ["feed_forward.pwff_layer.0", "feed_forward.pwff_layer.3"]
    with torch.no_grad():
        joey.src_embed.lut.weight.copy_(model.target_embedding.weight)
        joey.decoder.output_layer.bias = nn.Parameter(model.output.bias.detach().clone())
        for part in joey.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = model.decoder[0].cross_residual.norm.eps
        for layer, own in zip(joey.encoder.layers, model.encoder, strict=True):
            norms = ["layer_norm", "feed_forward.layer_norm"]
            carry(layer, own, ["src_src_att"], names, norms, inner)
        for layer, own in zip(joey.decoder.layers, model.decoder, strict=True):
            norms = ["x_layer_norm", "dec_layer_norm", "feed_forward.layer_norm"]
            carry(layer, own, ["trg_trg_att", "src_trg_att"], names, norms, inner)
    check_logits(
        "Joey NMT", model,
        lambda batch: joey._encode_decode(
            src=batch.source, trg_input=batch.target_input, src_mask=batch.source_mask[:, None],
            src_length=batch.source_mask.sum(1),
            trg_mask=(batch.target_input != PAD)[:, None],
        )[0],
    )  # fmt: skip

    def batch_of(beam):
        def decode(batch):
            count = len(batch.source)
            theirs = Batch(
                src=batch.source, src_length=batch.source_mask.sum(1), src_prompt_mask=None,
                trg=None, trg_prompt_mask=None, indices=torch.arange(count), pad_index=PAD,
                device=torch.device("cpu"), eos_index=EOS, is_train=False,
            )  # fmt: skip
            with torch.inference_mode():
                found, _, _ = search(
                    joey, theirs, max_output_length=LIMIT, beam_size=beam, beam_alpha=0.0,
                    min_output_length=0,
                )  # fmt: skip
            return found.tolist()

        return decode

    return lambda sentences, beam, size: sorted_batches(sentences, size, batch_of(beam))


def naive_torch(model):
    """nn.TransformerEncoder and nn.TransformerDecoder in the loop everyone writes first: no cache,
    the whole prefix at every step, until all sentences have ended. Greedy only."""
    size = model.settings
    shape = (size["width"], size["heads"], size["feedforward"], 0.0)
    encoder = nn.ModuleList(
        nn.TransformerEncoderLayer(*shape, batch_first=True) for _ in model.encoder
    )
    decoder = nn.ModuleList(
        nn.TransformerDecoderLayer(*shape, batch_first=True) for _ in model.decoder
    )
    norms = ["norm1", "norm2", "norm3"]
    for layers, own_layers in (encoder, model.encoder), (decoder, model.decoder):
        for layer, own in zip(layers, own_layers, strict=True):
            carry(layer, own, [], [], norms[: len(residuals(own))], ["linear1", "linear2"])
            for name, own_name in ("self_attn", "attention"), ("multihead_attn", "cross"):
                if hasattr(layer, name):
                    into, out_of = getattr(layer, name), getattr(own, own_name)
                    three = [out_of.query, out_of.key, out_of.value]
                    with torch.no_grad():
                        into.in_proj_weight.copy_(torch.cat([part.weight for part in three]))
                        into.in_proj_bias.copy_(torch.cat([part.bias for part in three]))
                    into.out_proj.load_state_dict(out_of.output.state_dict())
    encoder.eval(), decoder.eval()

    def embed(ids):
        return model.target_embedding(ids) * math.sqrt(size["width"]) + model.table[: ids.shape[1]]

    def encode(batch):
        x = embed(batch.source)
        for layer in encoder:
            x = layer(x, src_key_padding_mask=~batch.source_mask)
        return x

    def logits(ids, memory, batch):
        x = embed(ids)
        future = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        for layer in decoder:
            x = layer(x, memory, tgt_mask=future, memory_key_padding_mask=~batch.source_mask)
        return model.output(x)

    check_logits(
        "nn.Transformer", model, lambda batch: logits(batch.target_input, encode(batch), batch)
    )

    @torch.inference_mode()
    def greedy(batch):
        memory = encode(batch)
        ids = torch.full((len(batch.source), 1), SOS)
        ended = torch.zeros(len(ids), dtype=torch.bool)
        for _ in range(LIMIT):
            best = logits(ids, memory, batch)[:, -1].argmax(-1)
            ids = torch.cat([ids, best[:, None]], dim=1)
            ended |= best == EOS
            if ended.all():
                break
        return ids[:, 1:].tolist()

    return lambda sentences, beam, size: sorted_batches(sentences, size, greedy)


class Peer(NamedTuple):
    """label: its row in the table. package: what pip installs, or None. build: our model to its
    decode function. batches: what to try for its best batch size. searches: what it can do."""

    label: str
    package: str | None
    build: object
    batches: tuple = BATCHES
    searches: tuple = tuple(SEARCHES)


TOKENS = tuple(("tokens", size) for size in (1024, 2048, 4096))
PEERS = {
    "ours": Peer("s2s_helpers", None, ours),
    "bfloat16": Peer(
        "s2s_helpers, bfloat16", None, lambda model: ours(model, torch.bfloat16)
    ),
    "ours int8": Peer("s2s_helpers, int8", None, lambda model: ours(model, torch.int8)),
    "shortlist": Peer("s2s_helpers, shortlist", None, shortlisted),
    "translate": Peer("s2s_helpers, text to text", None, ours_translate),
    "production": Peer("s2s_helpers with CTranslate2", "ctranslate2", production),
    "production int8": Peer(
        "s2s_helpers with CTranslate2, int8", "ctranslate2",
        lambda model: production(model, "int8"),
    ),
    "production shortlist": Peer(
        "s2s_helpers with CTranslate2, shortlist", "ctranslate2",
        lambda model: production(model, shortlist=shortlist_of(model)),
    ),
    "transformers": Peer("Hugging Face Marian", "transformers", hugging_face),
    "ctranslate2": Peer("CTranslate2, float32", "ctranslate2", ctranslate2, BATCHES + TOKENS),
    "int8": Peer(
        "CTranslate2, int8", "ctranslate2", lambda model: ctranslate2(model, "int8"),
        BATCHES + TOKENS,
    ),
    "joeynmt": Peer("Joey NMT", "joeynmt importlib_metadata", joey_nmt, (BATCH,)),
    "naive": Peer("nn.Transformer without a cache", None, naive_torch, (BATCH,), ("greedy",)),
}  # fmt: skip
ON_GPU = ("ours", "translate", "transformers")
QUICK = ("ours", "bfloat16", "ours int8", "transformers", "production", "ctranslate2", "int8")


def installed(names) -> list[str]:
    """Those of the peers that are here; for the others a line that says how to get them."""
    here = []
    for name in names:
        package = PEERS[name].package
        if package is None or all(importlib.util.find_spec(part) for part in package.split()):
            here.append(name)
        else:
            print(f"{PEERS[name].label} is left out; to have it: pip install {package}")
    return here
