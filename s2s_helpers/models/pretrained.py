"""Pre-trained encoder-decoders of Hugging Face's transformers, with the methods of every model: T5
(Raffel et al. 2020), BART (Lewis et al. 2020) and Marian (Junczys-Dowmunt et al. 2018).

A checkpoint brings its own ids, where PAD, UNK, EOS and the start symbol stand elsewhere than here;
`HubVocabulary` renumbers them, so that decoding, trainer, metrics and widgets need not know.
"""

import base64
import json
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2s_helpers.corpora.hub import hub_address
from s2s_helpers.data import Batch
from s2s_helpers.files import new_folder
from s2s_helpers.models.interface import Memory, Seq2SeqModel, State, check_ids, check_target
from s2s_helpers.optional import import_optional
from s2s_helpers.text import normalise
from s2s_helpers.vocabulary import EOS, SOS, SPECIALS, BaseVocabulary

# Arguments of `load_pretrained`, each at a commit that stays as it is. Marian's weights lie there
# as a pickle, which torch reads with weights_only=True; a pickle cannot run code that way.
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
# What a tokenizer's or a model's configuration tells of where it was read and who wrote it.
READ_FROM = ("_name_or_path", "name_or_path", "is_local", "local_files_only",
             "transformers_version")  # fmt: skip
NEVER = -1e4  # the logit of what is never written; finite, so that label smoothing stays finite


class HubVocabulary(BaseVocabulary):
    """A Hugging Face tokenizer as a vocabulary of this package.

    specials: the checkpoint's ids of pad, unk, start and eos, which take the places of ours; size:
    how many ids it has. `theirs` has for each of our ids the checkpoint's. T5 and Marian start with
    pad, BART with eos: then one of its ids has two of ours, and there is one id more here
    (`shared_start`). prefix: put before every text, as T5 wants its task named. target: whether
    texts are of the target language.

    A text that spells a special token, such as "</s>", is text: it gets a space inside.
    """

    level, lowercase, language = "subword", False, None

    def __init__(
        self, tokenizer: Any, specials: list[int], size: int, prefix: str = "", target: bool = False
    ):
        pad, unk, start, eos = specials
        self.tokenizer, self.prefix, self.target = tokenizer, prefix, target
        self.shared_start = start in (pad, unk, eos)
        self.theirs = [*specials, *(i for i in range(size) if i not in specials)]
        self._ours = {index: number for number, index in enumerate(self.theirs) if number != SOS}
        if not self.shared_start:
            self._ours[start] = SOS
        named = {tokenizer.convert_ids_to_tokens(index) for index in specials}
        self._specials = re.compile("|".join(map(re.escape, sorted(named, key=len)[::-1])))

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, prefix and special tokens included, without EOS."""
        return self.tokens(self._ids(text))

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {
            "specials": self.theirs[: len(SPECIALS)],
            "size": len(self) - self.shared_start,
            "prefix": self.prefix,
            "target": self.target,
            "files": tokenizer_files(self.tokenizer),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "HubVocabulary":
        with tempfile.TemporaryDirectory() as folder:
            for name, content in saved["files"].items():
                Path(folder, Path(name).name).write_bytes(base64.b64decode(content))
            tokenizer = read_tokenizer(folder, local_files_only=True)
        return cls(tokenizer, *(saved[key] for key in ("specials", "size", "prefix", "target")))

    def __len__(self) -> int:
        return len(self.theirs)

    def _ids(self, text: str) -> list[int]:
        if not (text := normalise(text).strip()):
            return []
        text = self._specials.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        text = {"text_target" if self.target else "text": self.prefix + text}
        ids = [self._ours[index] for index in self.tokenizer(**text).input_ids]
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


def read_tokenizer(name: str | os.PathLike, **options: Any) -> Any:
    """transformers' tokenizer of this name or folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Marian's recommends one more package
        return quiet_transformers().AutoTokenizer.from_pretrained(name, **options)


def tokenizer_files(tokenizer: Any) -> dict[str, str]:
    """The files that `save_pretrained` writes, by name, in base64."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    # Where it was read does not make it another one.
    config = json.loads(files["tokenizer_config.json"])
    config = {key: value for key, value in config.items() if key not in READ_FROM}
    files["tokenizer_config.json"] = json.dumps(config, sort_keys=True).encode()
    return {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}


class Pretrained(Seq2SeqModel):
    """A checkpoint's model (`inner`: T5ForConditionalGeneration, BartForConditionalGeneration or
    MarianMTModel), with the methods and ids of this package.

    `Pretrained.of(inner, tokenizer)` wraps one that is there; called itself, it makes random
    weights for a configuration and a generation configuration, both in JSON. A `State` holds in
    `hidden`, for each layer, keys and values of the target so far and of the source, each (lines,
    heads, tokens, width of a head). In training mode there is no attention.
    """

    inner: Any
    theirs: Tensor

    def __init__(
        self, source_vocabulary: HubVocabulary, target_vocabulary: HubVocabulary, config: str,
        generation: str,
    ):  # fmt: skip
        super().__init__(source_vocabulary, target_vocabulary, config=config, generation=generation)
        library = quiet_transformers()
        read = library.AutoConfig.for_model(**json.loads(config))
        auto = library.AutoModelForSeq2SeqLM
        inner = auto.from_config(read, attn_implementation="eager")  # others give no attention
        inner.generation_config = library.GenerationConfig.from_dict(json.loads(generation))
        self._wrap(inner)

    @classmethod
    def of(cls, inner: Any, tokenizer: Any, prefix: str = "") -> "Pretrained":
        """A model and its tokenizer, as transformers gives them, as a model of this package; the
        "eager" implementation has attention. prefix: put before every source text.

        Raises ValueError where the checkpoint does not say how its decoder starts.
        """
        config, generation = inner.config, inner.generation_config
        start = getattr(config, "decoder_start_token_id", None)
        start = generation.decoder_start_token_id if start is None else start
        specials = [config.pad_token_id, tokenizer.unk_token_id, start, config.eos_token_id]
        if not all(isinstance(index, int) for index in specials):
            raise ValueError(f"this needs one id each for pad, unk, start and eos, got {specials}")
        size = config.vocab_size
        source = HubVocabulary(tokenizer, specials, size, prefix)
        target = HubVocabulary(tokenizer, specials, size, target=True)
        with torch.device("meta"):
            model = cls(source, target, as_json(config), as_json(generation))
        model._wrap(inner)
        return model

    def _wrap(self, inner: Any) -> None:
        self.inner = inner
        self.max_positions = getattr(inner.config, "max_position_embeddings", None)  # T5: no limit
        theirs = torch.tensor(self.source_vocabulary.theirs, device=inner.device)
        self.register_buffer("theirs", theirs, persistent=False)  # (vocabulary,)
        # Done now, as the first call would do it to whatever view of the model is called.
        hooks = import_optional("transformers.utils.output_capturing")
        hooks.maybe_install_capturing_hooks(inner)

    def encode(self, source: Tensor, source_mask: Tensor) -> Memory:
        check_ids(source, self.source_vocabulary, self.max_positions, "source")
        read = self.inner.get_encoder()
        found = read(input_ids=self.theirs[source], attention_mask=source_mask.long())
        return Memory(mask=source_mask, states=found.last_hidden_state)

    def start(self, memory: Memory) -> State:
        return State()

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        library = import_optional("transformers")
        # Theirs changes in place, and a `State` is a value: so a new one each time.
        empty = library.DynamicCache(), library.DynamicCache()
        cache = library.EncoderDecoderCache(*([state.hidden] if state.hidden else empty))
        logits, attention = self._decode(tokens[:, None], memory, cache)
        hidden = tuple(tuple(x for x in layer if x is not None) for layer in cache)
        state = State(hidden, position=state.position + 1)
        return logits[:, 0], state, None if attention is None else attention[..., 0, :]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if self.training and self.teacher_forcing < 1:
            return super().forward(batch)
        check_target(self, batch)
        memory = self.encode(batch.source, batch.source_mask)
        return self._decode(batch.target_input, memory)

    def _decode(
        self, tokens: Tensor, memory: Memory, cache: Any = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, target, vocabulary) in the order of our ids, and cross-attention (batch,
        layers, heads, target, source) or None."""
        found = self.inner(
            encoder_outputs=(memory.states,),
            attention_mask=memory.mask.long(),
            decoder_input_ids=self.theirs[tokens],
            cache=cache,
            use_cache=cache is not None,
            output_attentions=not self.training,
        )
        logits = found.logits.index_select(-1, self.theirs)  # (batch, target, vocabulary)
        if self.target_vocabulary.shared_start:  # else pad or eos would count twice
            logits = logits.index_fill(-1, self.theirs.new_tensor([SOS]), NEVER)
        attention = found.cross_attentions  # for each layer, (batch, heads, target, source)
        return logits, torch.stack(attention, dim=1) if attention else None

    def save(self, folder: str | os.PathLike) -> Path:
        """Write a checkpoint that `load_pretrained` and transformers read; the folder, which must
        be new, appears when all is there. Raises FileExistsError where it exists already."""
        with new_folder(folder) as scratch:
            for part in (self.inner, self.source_vocabulary.tokenizer):
                part.save_pretrained(scratch)
        return Path(folder)


def as_json(config: Any) -> str:
    """A configuration of transformers, without the version that wrote it and where it was read."""
    kept = {key: value for key, value in config.to_dict().items() if key not in READ_FROM}
    return json.dumps(kept, sort_keys=True)


def quiet_transformers() -> Any:
    """The library, without its progress bars and with errors only."""
    library = import_optional("transformers")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def load_pretrained(
    name: str | os.PathLike, revision: str | None = None, prefix: str = "", safetensors: bool = True
) -> Pretrained:
    """A `Pretrained` in evaluation mode, from a local folder, the hub's cache, or the hub.

    name: a folder that `Pretrained.save` wrote, or a model on the Hugging Face hub, there at the
    commit `revision`. safetensors: read this format alone; False: torch's own, with weights_only.
    No code of a checkpoint is ever run. What is in the cache is read without asking the hub.

    Raises FileNotFoundError, within `PATIENCE` seconds, where the model is neither at hand nor to
    be had; ValueError where a folder holds no checkpoint, the hub no such model or revision, or
    HF_ENDPOINT is no address.
    """
    library, hub = quiet_transformers(), import_optional("huggingface_hub")

    def read(offline: bool) -> Pretrained:
        options: dict[str, Any] = dict(local_files_only=offline, trust_remote_code=False)
        options |= {} if revision is None else dict(revision=revision)
        tokenizer = read_tokenizer(name, **options)
        options |= dict(use_safetensors=safetensors, attn_implementation="eager")
        inner = library.AutoModelForSeq2SeqLM.from_pretrained(name, **options)
        return Pretrained.of(inner, tokenizer, prefix).eval()

    try:
        return read(offline=True)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            raise ValueError(f"{name} holds no checkpoint that can be read: {error}") from error
    hub_address()  # raises where HF_ENDPOINT is none: the clients' own errors would not say so
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
            "to the network once (the files are then kept), or give a folder that holds them. "
            f"It failed with {type(error).__name__}: {error}"
        ) from error
