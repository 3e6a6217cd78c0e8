"""T5, BART and Marian behind the four verbs: what transformers itself computes, in our ids."""

import importlib.util
import io
import json
import socket
import time
from pathlib import Path

import pytest
import torch

from s2s_helpers.corpora import Pair, Splits
from s2s_helpers.course.tiny_checkpoints import TINY, tiny_tokenizer
from s2s_helpers.course.tiny_checkpoints import tiny_checkpoint as tiny
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.decoding import beam_search, greedy_decode, sample, translate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import MultiHeadAttention, load_model, save_model
from s2s_helpers.models.interface import unroll
from s2s_helpers.models.pretrained import (
    CHECKPOINTS,
    HubVocabulary,
    Pretrained,
    load_pretrained,
    quiet_transformers,
    read_tokenizer,
)
from s2s_helpers.models.view import eval_view
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.vocabulary import EOS, PAD, SOS, UNK, vocabulary_from_dict

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)

TEXTS = [
    *("Two young men ride their bicycles.", "A dog runs on the green grass.", "Children play."),
    *("Deux jeunes hommes font du vélo.", "Un chien court sur l'herbe verte.", "Les enfants !"),
]
PAIRS = [Pair(source, target) for source, target in zip(TEXTS[:3], TEXTS[3:], strict=True)]
STEPS = 80
SHAPE = dict(vocabulary=300, width=16, heads=2, layers=2)
# How each names its specials, as in the published checkpoints: pad, unk, start, eos.
SPECIALS = {"t5": (0, 2, 0, 1), "bart": (1, 3, 2, 2), "marian": (-1, 1, -1, 0)}


def trainer_of(model, epochs, smoothing=0.0, checkpoint_dir=None):
    dataset = Seq2SeqDataset(PAIRS, model.source_vocabulary, model.target_vocabulary)
    config = training_config(epochs, lr=1e-2, progress=False, checkpoint_dir=checkpoint_dir)
    loader, loss = make_loader(dataset, batch_size=3), Seq2SeqLoss(smoothing)
    return Seq2SeqTrainer(model, config, loader, loss=loss)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("checkpoints")
    return {kind: tiny(kind, TEXTS * 3, home / kind, **SHAPE) for kind in TINY}


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """The same after a few steps, so that they write different things, and end."""
    home = tmp_path_factory.mktemp("trained")
    for kind, folder in folders.items():
        trainer = trainer_of(load_pretrained(folder), STEPS)
        trainer.fit()
        trainer.model.save(home / kind)
    return {kind: home / kind for kind in folders}


@pytest.fixture(params=TINY)
def kind(request):
    return request.param


@pytest.fixture
def model(trained, kind):
    return load_pretrained(trained[kind])


@pytest.fixture
def batch(model):
    dataset = Seq2SeqDataset(PAIRS, model.source_vocabulary, model.target_vocabulary)
    return collate([dataset[number] for number in range(len(dataset))])


def generated(model, batch, beam, length):
    """What the library's own `generate` writes: our ids up to the end, and scores."""
    search = dict(length_penalty=0.0, early_stopping=False) if beam > 1 else {}
    found = model.inner.generate(
        model.theirs[batch.source], attention_mask=batch.source_mask.long(), num_beams=beam,
        do_sample=False, max_new_tokens=length, output_scores=True, return_dict_in_generate=True,
        suppress_tokens=[model.inner.config.pad_token_id], **search,
    )  # fmt: skip
    ours = {theirs: number for number, theirs in enumerate(model.theirs.tolist()) if number != SOS}
    rows = [[ours[index] for index in row[1:]] for row in found.sequences.tolist()]
    rows = [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]
    return rows, found.get("sequences_scores")


def test_ids_are_ours_and_text_comes_back(model, kind):
    words, pad = model.source_vocabulary, len(model.source_vocabulary.tokenizer) - 1
    expected = [pad if index == -1 else index for index in SPECIALS[kind]]
    assert [words.theirs[index] for index in (PAD, UNK, SOS, EOS)] == expected
    assert sorted(words.theirs) == sorted([*range(len(words) - 1), expected[2]])
    for text in TEXTS:
        ids = words.encode(text)
        assert ids[-1] == EOS and not {PAD, SOS} & set(ids)
        theirs = words.tokenizer(text).input_ids
        assert model.theirs[torch.tensor(ids)].tolist() == theirs
        assert words.decode([SOS, *ids, PAD]) == text
        assert words.tokens(ids) == [*words.tokenize(text), "<eos>"]
    assert words.tokens([PAD, UNK, SOS, EOS]) == ["<pad>", "<unk>", "<sos>", "<eos>"]
    with pytest.raises(ValueError, match="cannot encode an empty sentence"):
        words.encode(" ")
    assert words != model.target_vocabulary
    again = vocabulary_from_dict(json.loads(json.dumps(words.to_dict())))
    assert type(again) is HubVocabulary and again == words and again.theirs == words.theirs
    assert [again.encode(text) for text in TEXTS] == [words.encode(text) for text in TEXTS]


def test_special_tokens_in_a_text_are_text(model):
    words = model.source_vocabulary
    for text in "\ufeffA do\u00adg\u200b", "A \u202adog\x00":
        assert model.source_vocabulary.encode(text) == model.source_vocabulary.encode("A dog")
    for special in {"</s>", "<pad>", "<unk>"}:
        ids = words.encode(f"A dog {special} runs.")
        assert not {PAD, SOS, EOS} & set(ids[:-1])
        assert ids == words.encode(f"A dog < {special[1:]} runs.")
    assert len(translate(model, ["A </s> dog <pad>"], max_length=5)) == 1
    if "<mask>" in words.tokenizer.all_special_tokens:  # what BART is trained with stays one
        assert "<mask>" in words.tokenize("A <mask> runs.")


def test_where_a_tokenizer_was_read_does_not_matter():
    words = HubVocabulary(tiny_tokenizer("t5", TEXTS * 3, 300), [0, 2, 0, 1], 300)
    again = vocabulary_from_dict(words.to_dict())  # from a folder, the first from none
    assert again == words and vocabulary_from_dict(again.to_dict()) == words


def test_a_start_symbol_of_its_own_takes_no_further_id(folders):
    tokenizer = load_pretrained(folders["t5"]).source_vocabulary.tokenizer
    words = HubVocabulary(tokenizer, [0, 2, 7, 1], 300)
    assert not words.shared_start and len(words) == 300 and words.theirs[:4] == [0, 2, 7, 1]
    assert sorted(words.theirs) == list(range(300)) and words._ours[7] == SOS


def test_forward_gives_their_logits(model, batch):
    assert not any(part.training for part in model.modules())
    found = model.inner(
        input_ids=model.theirs[batch.source],
        attention_mask=batch.source_mask.long(),
        decoder_input_ids=model.theirs[batch.target_input],
    )
    logits, attention = model(batch)
    others = [index for index in range(logits.shape[-1]) if index != SOS]
    torch.testing.assert_close(logits[..., others], found.logits[..., model.theirs[others]])
    # The start symbol has no probability of its own, and all others have theirs.
    p, theirs = logits.softmax(-1), found.logits.softmax(-1)
    assert (p[..., SOS] == 0).all()
    torch.testing.assert_close(p[..., EOS], theirs[..., model.theirs[EOS]])
    assert attention.shape[1:3] == (2, 2)
    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    padding = ~batch.source_mask[:, None, None, None].expand_as(attention)
    assert padding.any() and (attention[padding] == 0).all()


def test_step_and_forward_agree(model, batch):
    with torch.no_grad():
        logits, attention = model(batch)
        stepped, step_attention = unroll(model, batch)
    torch.testing.assert_close(stepped, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(step_attention, attention, atol=1e-4, rtol=1e-4)
    assert model.train()(batch)[1] is None


def test_the_share_of_teacher_forcing_acts_in_training_only(model, batch):
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    model.teacher_forcing = 0.0
    with torch.no_grad():
        forced, free = model(batch)[0], model.train()(batch)[0]
        torch.testing.assert_close(free, unroll(model, batch, 0.0)[0])
    assert not torch.allclose(free, forced, atol=1e-3)


def test_a_sentence_gets_the_same_alone_and_in_a_padded_batch(model, batch):
    logits, _ = model(batch)
    for row in range(len(batch)):
        source = batch.source[row : row + 1, : int(batch.source_mask[row].sum())]
        target = batch.target[row : row + 1, : int(batch.target_mask[row].sum()) + 1]
        alone, _ = model(type(batch)(source, source != PAD, target))
        torch.testing.assert_close(alone[0], logits[row, : alone.shape[1]], atol=1e-4, rtol=1e-4)


def test_a_state_is_a_value_and_selects_its_lines(model, batch):
    with torch.inference_mode():
        memory = model.encode(batch.source, batch.source_mask)
        _, state, _ = model.step(batch.target[:, 0], model.start(memory), memory)
        rows = torch.tensor([2, 0, 0])
        expected, further, _ = model.step(batch.target[:, 1], state, memory)
        model.step(batch.target[:, 2], further, memory)
        again, _, _ = model.step(batch.target[:, 1], state, memory)
        picked, _, _ = model.step(batch.target[rows, 1], state.select(rows), memory.select(rows))
    torch.testing.assert_close(again, expected)
    torch.testing.assert_close(picked, expected[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_our_search_writes_what_generate_writes(model, batch, beam):
    expected, scores = generated(model, batch, beam, 40)
    ended = range(len(expected))
    if beam == 1:
        found = greedy_decode(model, batch.source, max_length=40)
    else:
        found = beam_search(model, batch.source, beam_size=beam, length_penalty=0.0, max_length=40)
        found = [hypotheses[0] for hypotheses in found]
        # At the limit the two differ: generate may prefer what is not finished.
        ended = [n for n in ended if found[n].finished and expected[n][-1] == EOS]
        assert len(ended) > len(expected) / 2
        ours = torch.tensor([found[n].log_probability for n in ended])
        torch.testing.assert_close(ours, scores[ended], atol=1e-4, rtol=1e-4)
    assert [found[n].ids for n in ended] == [expected[n] for n in ended]
    assert len({tuple(ids) for ids in expected}) > 1


def test_everything_that_decodes_serves(model):
    from s2s_helpers.course.widgets import AttentionExplorer

    found = translate(model, TEXTS[:2], beam_size=2, max_length=12)
    assert found[0].attention.shape[:2] == (2, 2) and found[0].source_tokens[-1] == "<eos>"
    assert len(sample(model, torch.tensor([[5, 6, EOS]]), top_k=5, max_length=6)[0].ids) <= 6
    explorer = AttentionExplorer(model, TEXTS[:2])
    torch.testing.assert_close(
        explorer.attention.sum(1), torch.ones(len(explorer.attention)), atol=1e-4, rtol=1e-4
    )


def test_the_trainer_teaches_it_and_resumes(folders, kind, tmp_path):
    smoothing = 0.1 if kind == "bart" else 0.0
    first = trainer_of(load_pretrained(folders[kind]), 20, smoothing, tmp_path)
    losses = [row["train_loss"] for row in first.fit().epochs]
    assert losses[-1] < losses[0] - 1
    again = trainer_of(load_pretrained(folders[kind]), 21, smoothing, tmp_path)
    again.fit(resume=True)
    assert len(again.history.epochs) == 21


def test_one_file_holds_it_all(model, kind, batch, tmp_path, no_network):
    save_model(model, tmp_path / "model.pt")
    state = torch.random.get_rng_state()
    again = load_model(tmp_path / "model.pt")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(again) is Pretrained and again.settings == model.settings
    (logits, attention), (expected, looked) = again(batch), model(batch)
    assert torch.equal(logits, expected) and torch.equal(attention, looked)
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())
    assert translate(again, TEXTS[:2])[0].text == translate(model, TEXTS[:2])[0].text
    assert again.source_vocabulary == model.source_vocabulary
    assert again.inner.generation_config.eos_token_id == model.inner.generation_config.eos_token_id
    # The tokenizers share their files, which the file has once.
    assert no_network == [] and [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_tokenizer_of_sentencepiece_models_comes_back(tmp_path):
    """The published Marian models have no tokenizer.json, but two sentencepiece models."""
    sentencepiece, piece = pytest.importorskip("sentencepiece"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=piece, vocab_size=50, bos_id=-1, eos_id=0,
        unk_id=1, minloglevel=2,
    )  # fmt: skip
    for side in "source", "target":
        (tmp_path / f"{side}.spm").write_bytes(piece.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=piece.getvalue())
    ids = {pieces.id_to_piece(index): index for index in range(len(pieces))}
    (tmp_path / "vocab.json").write_text(json.dumps(ids | {"<pad>": len(ids)}))
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "fr"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = read_tokenizer(tmp_path, local_files_only=True)
    pad = len(ids)
    words = HubVocabulary(tokenizer, [pad, 1, pad, 0], pad + 1, target=True)
    again = vocabulary_from_dict(words.to_dict())
    assert again == words and again.target and type(again.tokenizer) is type(tokenizer)
    assert again.encode(TEXTS[3]) == words.encode(TEXTS[3])
    assert again.decode(again.encode(TEXTS[3])) == TEXTS[3]


def test_views_leave_its_attention_as_it_is(model, batch):
    """transformers hooks the layers of which it wants attention; once, whatever is called first."""
    found = [translate(model, TEXTS[:1], max_length=3)[0].attention for _ in range(3)]
    with torch.inference_mode():
        found.append(eval_view(model)(batch)[1][0])
        found.append(model(batch)[1][0])
    assert {attention.shape[0] for attention in found} == {2}  # layers
    hooks = [len(part._forward_hooks) for part in model.inner.modules()]
    assert max(hooks) == 1


def test_a_saved_model_comes_back(model, batch, tmp_path):
    model.save(tmp_path / "mine")
    again = load_pretrained(str(tmp_path / "mine"), prefix="translate: ")
    assert torch.equal(again(batch)[0], model(batch)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "model.safetensors").is_file()
    assert (
        again.source_vocabulary.encode("A dog")[:-1]
        == (model.source_vocabulary.encode("translate: A dog")[:-1])
    )
    assert again.target_vocabulary.encode("A dog") == model.target_vocabulary.encode("A dog")
    with pytest.raises(FileExistsError, match="name a new folder"):
        model.save(tmp_path / "mine")


def test_an_address_of_the_hub_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(ValueError, match="HF_ENDPOINT must begin with https"):
        load_pretrained("nobody/knows-this")


def test_bad_input(folders, tmp_path):
    with pytest.raises(ValueError, match=r"kind must be one of \['bart', 'marian', 't5'\]"):
        tiny("gpt", TEXTS, tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no checkpoint that can be read"):
        load_pretrained(tmp_path / "empty")
    marian = load_pretrained(folders["marian"])
    with pytest.raises(ValueError, match="source id 900 is outside the source vocabulary"):
        marian.encode(torch.tensor([[900, EOS]]), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="only 256 positions"):
        marian.encode(torch.full((1, 300), 5), torch.ones(1, 300, dtype=torch.bool))
    assert load_pretrained(folders["t5"]).max_positions is None
    marian.inner.config.eos_token_id = [0, 5]
    with pytest.raises(ValueError, match="one id each for pad, unk, start and eos"):
        Pretrained.of(marian.inner, marian.source_vocabulary.tokenizer)


@pytest.fixture
def no_network(monkeypatch):
    asked = []

    def refuse(*inputs, **options):
        asked.append(inputs)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    return asked


def test_without_a_network_it_says_so_at_once(no_network):
    quiet_transformers()
    for options in CHECKPOINTS.values():
        started = time.perf_counter()
        with pytest.raises(FileNotFoundError, match=r"hub could not be reached.*give a folder"):
            load_pretrained(**options | dict(name="nobody/" + options["name"].split("/")[1]))
        assert time.perf_counter() - started < 5  # the library's own retries take 46 s


def test_checkpoints_are_pinned():
    for options in CHECKPOINTS.values():
        assert len(options["revision"]) == 40 and int(options["revision"], 16)


def test_their_attention_is_ours(folders, kind):
    """Notebook 07's module, with their weights, gives their cross-attention's output."""
    inner = load_pretrained(folders[kind]).inner
    torch.manual_seed(0)
    x, states = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    ours = MultiHeadAttention(16, 2)
    if kind == "t5":
        theirs = inner.decoder.block[0].layer[1].EncDecAttention
        parts = theirs.q, theirs.k, theirs.v, theirs.o
    else:
        theirs = inner.model.decoder.layers[0].encoder_attn
        parts = theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.out_proj
    with torch.no_grad():
        for own, part in zip(ours.children(), parts, strict=True):
            own.weight.copy_(part.weight)
            own.bias.copy_(part.bias if part.bias is not None else torch.zeros(16))
        if kind == "t5":  # it does not divide by the root of d_k
            ours.query.weight.mul_(8**0.5)
        expected = theirs(x, key_value_states=states)[0]
        found, _ = ours(x, ours.keys_values(states), None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_benchmark_measures_and_tells(monkeypatch, tmp_path):
    path = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(path)
    spec = importlib.util.spec_from_file_location("pretrained_benchmark", path / "pretrained.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # Captions of its own: the real ones are not on every machine.
    monkeypatch.setattr(script.multi30k, "load", lambda: Splits(PAIRS * 2000, PAIRS, PAIRS))
    run = script.one_run(0, (6,), 12, PAIRS, texts=60)
    assert run["pretraining"]["texts"] == 24 and set(script.STARTS) < set(run)
    assert all(0 <= run[name]["6"]["bleu"] <= 100 for name in script.STARTS)
    published = {"parameters": 60e6, "as it is": {"bleu": 12.34}, "fine-tuned": {"bleu": 23.44}}
    published["fine-tuning"] = {"steps": 19}
    results = {"runs": {"0": run, "1": run}, "hub": {"t5": published}}
    table = script.table(results)
    assert "| google-t5/t5-small | 60 M | 12.3 | 19 | 23.4 |" in table
    assert table.count("| BART, pre-trained | ") == 1 and "± 0.0" in table
    script.keep(results, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text("utf-8")) == results
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]
    monkeypatch.setattr(
        script, "load_pretrained", lambda **options: (_ for _ in ()).throw(FileNotFoundError())
    )
    assert script.hub_run("t5") is None
