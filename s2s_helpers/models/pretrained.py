"""Pre-trained encoder-decoders of Hugging Face's transformers, behind the four verbs: T5 (Raffel et
al. 2020), BART (Lewis et al. 2020) and Marian (Junczys-Dowmunt et al. 2018).

A checkpoint brings its own ids, where PAD, UNK, EOS and the start symbol stand elsewhere than here;
`HubVocabulary` renumbers them, so that decoding, trainer, metrics and widgets need not know.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from s2s_helpers.files import new_folder
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State, check_ids
from s2s_helpers.optional import import_optional
from s2s_helpers.vocabulary import EOS, SOS, SPECIALS, BaseVocabulary

# Arguments of `load`, each at a commit that stays as it is. Marian's weights lie there as a pickle,
# which torch reads with weights_only=True; a pickle cannot run code that way.
CHECKPOINTS = {
    "t5": dict(
        name="google-t5/t5-small", revision="df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
        prefix="translate English to French: ",
    ),
    "bart": dict(name="facebook/bart-base", revision="aadd2ab0ae0c8268c7c9693540e9904811f36177"),
    "marian": dict(
        name="Helsinki-NLP/opus-mt-en-fr", revision="dd7f6540a7a48a7f4db59e5c0b9c42c8eea67f18",
        safetensors=False,
    ),
}  # fmt: skip
PATIENCE = 5.0  # seconds to wait for the hub's first answer
NEVER = -1e4  # the logit of what is never written; finite, so that label smoothing stays finite


class HubVocabulary(BaseVocabulary):
    """A Hugging Face tokenizer as a vocabulary of this package.

    theirs: for each of our ids the checkpoint's. Its pad, unk and eos take our places, and its
    decoder's start symbol is our SOS. T5 and Marian start with pad, BART with eos: then one of its
    ids has two of ours, and there is one id more here (`shared_start`). prefix: put before every
    text, as T5 wants its task named. target: whether texts are of the target language.
    """

    level, lowercase, language = "subword", False, None

    def __init__(self, tokenizer, specials: list[int], size: int, prefix="", target=False):
        pad, unk, start, eos = specials
        self.tokenizer, self.prefix, self.target = tokenizer, prefix, target
        self.shared_start = start in (pad, unk, eos)
        self.theirs = [*specials, *(i for i in range(size) if i not in specials)]
        self._ours = {index: number for number, index in enumerate(self.theirs) if number != SOS}
        if not self.shared_start:
            self._ours[start] = SOS

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, prefix and special tokens included, without EOS."""
        return self.tokens(self._ids(text))

    def to_dict(self) -> dict:
        """The tokens in the order of their ids, and the prefix: to compare, not to load."""
        tokens = self.tokens(range(len(self)))
        return {"format": "Hugging Face", "prefix": self.prefix, "tokens": tokens}

    def __len__(self) -> int:
        return len(self.theirs)

    def _ids(self, text: str) -> list[int]:
        if not text.strip():
            return []
        told = {"text_target" if self.target else "text": self.prefix + text}
        ids = [self._ours[index] for index in self.tokenizer(**told).input_ids]
        return ids[:-1] if ids[-1] == EOS else ids

    def _token(self, index: int) -> str:
        if index < len(SPECIALS):
            return SPECIALS[index]
        # An embedding may have more rows than there are tokens, for the sake of round numbers.
        return self.tokenizer.convert_ids_to_tokens(self.theirs[index]) or f"<{index}>"

    def _join(self, ids: list[int]) -> str:
        theirs = [self.theirs[index] for index in ids]
        text = self.tokenizer.decode(
            theirs, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()


class Pretrained(Seq2SeqModel):
    """A checkpoint's model (`inner`: T5ForConditionalGeneration, BartForConditionalGeneration or
    MarianMTModel) and its tokenizer, speaking the four verbs.

    A `State` holds in `hidden`, for each layer, keys and values of the target so far and of the
    source, each (lines, heads, tokens, d). Attention needs the model's "eager" implementation; in
    training mode there is none. Raises ValueError where the checkpoint does not say how its decoder
    starts.
    """

    def __init__(self, inner: nn.Module, tokenizer, prefix: str = ""):
        config, told = inner.config, inner.generation_config
        start = getattr(config, "decoder_start_token_id", None)
        start = told.decoder_start_token_id if start is None else start
        specials = [config.pad_token_id, tokenizer.unk_token_id, start, config.eos_token_id]
        if not all(isinstance(index, int) for index in specials):
            raise ValueError(f"this needs one id each for pad, unk, start and eos, got {specials}")
        texts = tokenizer, specials, config.vocab_size
        super().__init__(
            HubVocabulary(*texts, prefix), HubVocabulary(*texts, target=True), prefix=prefix
        )
        self.inner = inner
        self.max_positions = getattr(config, "max_position_embeddings", None)  # T5 has no limit
        theirs = torch.tensor(self.source_vocabulary.theirs)
        self.register_buffer("theirs", theirs, persistent=False)

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        read = self.inner.get_encoder()
        found = read(input_ids=self.theirs[source], attention_mask=source_mask.long())
        return Memory(mask=source_mask, states=found.last_hidden_state)

    def start(self, memory: Memory) -> State:
        return State()

    def step(self, tokens: Tensor, state: State, memory: Memory):
        kept = import_optional("transformers")
        # Theirs changes in place, and a `State` is a value: so a new one each time.
        empty = kept.DynamicCache(), kept.DynamicCache()
        cache = kept.EncoderDecoderCache(*([state.hidden] if state.hidden else empty))
        logits, looks = self._decode(tokens[:, None], memory, cache)
        hidden = tuple(tuple(x for x in layer if x is not None) for layer in cache)
        state = State(hidden, position=state.position + 1)
        return logits[:, 0], state, None if looks is None else looks[..., 0, :]

    def teacher_forced(self, batch):
        self.check_target(batch)
        memory = self.encode(batch.source, batch.source_mask)
        return self._decode(batch.target_input, memory)

    def _decode(self, tokens: Tensor, memory: Memory, cache=None):
        """Logits (batch, target, vocabulary) in the order of our ids, and cross-attention (batch,
        layers, heads, target, source) or None."""
        wanted = self.wants_attention and not self.training
        found = self.inner(
            encoder_outputs=(memory.states,),
            attention_mask=memory.mask.long(),
            decoder_input_ids=self.theirs[tokens],
            cache=cache,
            use_cache=cache is not None,
            output_attentions=wanted,
        )
        logits = found.logits.index_select(-1, self.theirs)
        if self.target_vocabulary.shared_start:  # else pad or eos would count twice
            logits = logits.index_fill(-1, self.theirs.new_tensor([SOS]), NEVER)
        return logits, torch.stack(found.cross_attentions, dim=1) if wanted else None

    def save(self, folder) -> Path:
        """Write a checkpoint that `load` and transformers read; the folder, which must be new,
        appears when all is there. Raises FileExistsError where it exists already."""
        with new_folder(folder) as scratch:
            for part in (self.inner, self.source_vocabulary.tokenizer):
                part.save_pretrained(scratch)
        return Path(folder)


def quiet_transformers():
    """The library, without its progress bars and with errors only."""
    library = import_optional("transformers")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def load(name, revision: str | None = None, prefix: str = "", safetensors: bool = True):
    """A `Pretrained` in evaluation mode, from a local folder, the hub's cache, or the hub.

    name: a folder that `save_pretrained` wrote, or a model on the Hugging Face hub, there at the
    commit `revision`. safetensors: read this format alone; False: torch's own, with weights_only.
    No code of a checkpoint is ever run. What is in the cache is read without asking the hub.

    Raises FileNotFoundError, within `PATIENCE` seconds, where the model is neither at hand nor to
    be had; ValueError where a folder holds no checkpoint, or the hub no such model or revision.
    """
    library, hub = quiet_transformers(), import_optional("huggingface_hub")

    def read(offline: bool) -> Pretrained:
        told = dict(local_files_only=offline, trust_remote_code=False)
        told |= {} if revision is None else dict(revision=revision)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Marian's tokenizer recommends one more package
            tokenizer = library.AutoTokenizer.from_pretrained(name, **told)
        told |= dict(use_safetensors=safetensors, attn_implementation="eager")
        inner = library.AutoModelForSeq2SeqLM.from_pretrained(name, **told)
        return Pretrained(inner, tokenizer, prefix).eval()

    try:
        return read(offline=True)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            raise ValueError(f"{name} holds no checkpoint that can be read: {error}") from error
    try:
        # Asked first and once: the library itself tries again and again, for most of a minute.
        hub.HfApi().model_info(name, revision=revision, timeout=PATIENCE)
        return read(offline=False)
    except (hub.errors.HFValidationError, hub.errors.RepositoryNotFoundError) as error:
        raise ValueError(f"{name!r} is neither a folder nor a model on the hub: {error}") from error
    except hub.errors.RevisionNotFoundError as error:
        raise ValueError(f"{name} has no revision {revision!r} on the hub") from error
    except Exception as error:  # whatever a network can do wrong
        raise FileNotFoundError(
            f"{name} is not on this machine and the Hugging Face hub could not be reached. Connect "
            "to the network once (the files are then kept), or give load a folder that holds them. "
            f"It failed with {type(error).__name__}: {error}"
        ) from error


# What a class's name starts with, and the special tokens before and after the pieces: the order of
# ids that the real ones have.
TINY = {
    "t5": ("T5", ["<pad>", "</s>", "<unk>"], [f"<extra_id_{i}>" for i in range(20)]),
    "bart": ("Bart", ["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"]),
    "marian": ("Marian", ["</s>", "<unk>"], ["<pad>"]),
}


def tiny_tokenizer(kind: str, texts, size: int):
    """A tokenizer of up to `size` pieces learned from texts (unigram, Kudo 2018), numbered as this
    kind's is."""
    parts, (_, before, after) = import_optional("tokenizers"), TINY[kind]
    tokenizer = parts.Tokenizer(parts.models.Unigram())
    tokenizer.pre_tokenizer = parts.pre_tokenizers.Metaspace()
    tokenizer.decoder = parts.decoders.Metaspace()
    told = dict(special_tokens=before, unk_token="<unk>", show_progress=False)
    trainer = parts.trainers.UnigramTrainer(vocab_size=size - len(after), **told)
    tokenizer.train_from_iterator(texts, trainer)
    frame = ["<s>", "$A", "</s>"] if kind == "bart" else ["$A", "</s>"]
    ends = [(token, tokenizer.token_to_id(token)) for token in frame if token != "$A"]
    tokenizer.post_processor = parts.processors.TemplateProcessing(frame, special_tokens=ends)
    return quiet_transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>",
        additional_special_tokens=after,
    )  # fmt: skip


def tiny_checkpoint(
    kind: str, texts, folder, vocabulary=2000, width=64, heads=4, layers=2, seed=0
) -> Path:
    """Random weights and a tokenizer for `texts` in a new folder, as `load` wants them.

    Raises ValueError for a kind other than "t5", "bart" and "marian".
    """
    if kind not in TINY:
        raise ValueError(f"kind must be one of {sorted(TINY)}, got {kind!r}")
    library, name = quiet_transformers(), TINY[kind][0]
    tokenizer = tiny_tokenizer(kind, texts, vocabulary)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    start = eos if kind == "bart" else pad
    told = dict(vocab_size=len(tokenizer), d_model=width, pad_token_id=pad, eos_token_id=eos)
    if kind == "t5":
        told |= dict(num_layers=layers, num_heads=heads, d_kv=width // heads, d_ff=2 * width)
        told |= dict(dropout_rate=0.0)
    else:
        sizes = dict(layers=layers, attention_heads=heads, ffn_dim=2 * width).items()
        told |= {f"{side}_{k}": size for side in ("encoder", "decoder") for k, size in sizes}
        told |= dict(dropout=0.0, init_std=width**-0.5, max_position_embeddings=256)
        told |= dict(scale_embedding=kind == "marian", forced_eos_token_id=None)
    config = getattr(library, f"{name}Config")(decoder_start_token_id=start, **told)
    ending = "MTModel" if kind == "marian" else "ForConditionalGeneration"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Pretrained(getattr(library, name + ending)(config), tokenizer).save(folder)
