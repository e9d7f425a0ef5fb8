"""Text to tokens and back, as the model's own folder says, without transformers.

`tokenizer.json` does the encoding and jinja2 renders the chat template, so that the driver needs neither torch nor
transformers. A test holds every method equal to transformers' AutoTokenizer.
"""

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import numpy as np
import numpy.typing as npt
import tokenizers

from policies.model_folder import read_json
from policies.prompt import Message
from policies.trajectory import Int32

_ANSWER = "(the-answer-stands-here)"
"""Marks where a response stands in a rendered conversation."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """The model's tokenizer: encode, decode, and the framing of prompts and responses."""

    eos_id: int
    """Ends a response."""
    pad_id: int
    eos_ids: tuple[int, ...]
    """Every token at which generation stops; `eos_id` first."""
    vocab_size: int
    fingerprint: str
    """sha256 of tokenizer.json, hex: two models share a tokenizer if and only if this is equal."""
    codec: tokenizers.Tokenizer
    template: jinja2.Template | None
    """The chat template, where the model has one."""
    special: dict[str, str]
    """Named special tokens that a chat template may use: bos_token, eos_token, ..."""

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read tokenizer.json, tokenizer_config.json, generation_config.json and chat_template.jinja of `folder`."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder}: has no tokenizer.json; save the model's fast tokenizer there")
        raw = path.read_bytes()
        codec = tokenizers.Tokenizer.from_str(raw.decode("utf-8"))
        config = read_json(folder / "tokenizer_config.json")
        special = _special_tokens(config)
        eos_ids = _eos_ids(folder, codec, special)
        pad = codec.token_to_id(special["pad_token"]) if "pad_token" in special else None
        source = _template_source(folder, config)
        return cls(
            eos_id=eos_ids[0],
            pad_id=eos_ids[0] if pad is None else pad,
            eos_ids=eos_ids,
            vocab_size=codec.get_vocab_size(with_added_tokens=True),
            fingerprint=hashlib.sha256(raw).hexdigest(),
            codec=codec,
            template=None if source is None else _environment().from_string(source),
            special=special,
        )

    def encode(self, text: str) -> Int32:
        """Token ids of the text alone. ValueError names characters that the vocabulary does not have."""
        return self._encode(text, framed=False)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer], skip_special: bool = True) -> str:
        """Text of the ids; special tokens are left out unless asked for."""
        return str(self.codec.decode([int(i) for i in ids], skip_special_tokens=skip_special))

    def pieces(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """[T] the text that each token completes; joined they are what `decode` gives.

        Special tokens complete nothing, nor does a token that ends within a character: its last token has it whole.
        """
        numbers = [int(i) for i in ids]
        whole, stream = self.decode(numbers), tokenizers.decoders.DecodeStream(skip_special_tokens=True)
        try:
            found = [stream.step(self.codec, i) or "" for i in numbers]
        except Exception:  # noqa: BLE001  (tokenizers raises nothing narrower: a byte that changes the text before it)
            found = []
        told = "".join(found)
        if not whole.startswith(told) or not found:
            return _settled(whole, [self.decode(numbers[:end]) for end in range(1, len(numbers) + 1)])
        found[-1] += whole[len(told) :]  # bytes that end in no character
        return found

    def prompt(self, text: str) -> Int32:
        """Context tokens for one user message: through the chat template where there is one, else the text as it is."""
        if self.template is None:
            return self._encode(text, framed=True)
        messages = [{"role": "user", "content": text}]
        rendered = self.template.render(messages=messages, add_generation_prompt=True, **self._template_names())
        return self._encode(rendered, framed=False)

    def rendered(self, messages: Sequence[Message], *, reply: bool = False) -> str:
        """The conversation as the chat template writes it; `reply` adds the opening of the assistant's next turn.

        Raises ValueError where the model has no chat template, or the template refuses the conversation.
        """
        if self.template is None:
            raise ValueError("the model has no chat template, which a conversation needs; give the text alone")
        spoken = [{"role": one.role, "content": one.content} for one in messages]
        try:
            return self.template.render(messages=spoken, add_generation_prompt=reply, **self._template_names())
        except (jinja2.TemplateError, TypeError) as error:
            raise ValueError(f"the model's chat template fails on the conversation: {error}") from error

    def response(self, text: str) -> Int32:
        """Tokens of a whole response: the text, then the end token."""
        return np.append(self.encode(text), np.int32(self.eos_id)).astype(np.int32)

    def turn(self, text: str, *, ended: bool) -> Int32:
        """Tokens between a response and the next one, when the user says `text`: what the chat template puts there.

        `ended` says that the response holds its end token already. Without a chat template, the text as it is.
        """
        if self.template is None:
            return self._encode(text, framed=False)
        spoken = (("user", "?"), ("assistant", _ANSWER), ("user", text))
        messages = [{"role": role, "content": content} for role, content in spoken]
        rendered = self.template.render(messages=messages, add_generation_prompt=True, **self._template_names())
        rest = rendered.partition(_ANSWER)[2]
        end = str(self.codec.id_to_token(self.eos_id))
        frame, found, _ = rest.partition(end)
        if ended and found and text not in frame:
            rest = rest[len(frame) + len(end) :]
        return self._encode(rest, framed=False)

    def _template_names(self) -> dict[str, Any]:
        return {"tools": None, "documents": None, **self.special}

    def _encode(self, text: str, *, framed: bool) -> Int32:
        try:
            ids = self.codec.encode(text, add_special_tokens=framed).ids
        except Exception as error:  # tokenizers raises nothing narrower
            known = self.codec.get_vocab(with_added_tokens=False)
            strange = "".join(sorted({c for c in text if c not in known}))
            raise ValueError(
                f"the tokenizer has no token for {strange!r} in {text[:80]!r}; "
                "write the text with the model's characters, or choose another model"
            ) from error
        return np.asarray(ids, np.int32)


def _settled(whole: str, prefixes: Sequence[str]) -> list[str]:
    """What each prefix of the tokens has in common with the whole text, beyond what those before it had.

    Some decoders (byte fallback) make one bad byte of a run undo the characters before it, so that a prefix's text is
    not always the beginning of the whole's.
    """
    found, known = [], 0
    for one in prefixes:
        common = max(known, _alike(one, whole))
        found.append(whole[known:common])
        known = common
    return found


def _alike(left: str, right: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Named special tokens: a plain string, or an AddedToken's {"content": ...}."""
    found = {}
    for key in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
        value = config.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[key] = value
    return found


def _eos_ids(folder: Path, codec: tokenizers.Tokenizer, special: dict[str, str]) -> tuple[int, ...]:
    """The tokenizer's own end token, then those that generation_config.json and config.json list."""
    own = codec.token_to_id(special["eos_token"]) if "eos_token" in special else None
    listed: list[int] = [] if own is None else [own]
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        listed += _as_ids(value)
    if not listed:
        raise ValueError(
            f"{folder}: no end token; set eos_token in tokenizer_config.json or eos_token_id in config.json"
        )
    return tuple(dict.fromkeys(listed))


def _as_ids(value: object) -> list[int]:
    match value:
        case int():
            return [value]
        case list():
            return [i for i in value if isinstance(i, int)]
        case _:
            return []


# ---------------------------------------------------------------- chat template


def _template_source(folder: Path, config: dict[str, Any]) -> str | None:
    """chat_template.jinja before tokenizer_config.json; of several named templates the one called `default`."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    match config.get("chat_template"):
        case str() as source:
            return source
        case list() as named:
            return next((str(t["template"]) for t in named if t.get("name") == "default"), None)
        case _:
            return None


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's words for training masks; to a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The block's body, unchanged."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise ValueError(f"the model's chat template refused the prompt: {message}")


def _to_json(value: object, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    # jinja2's own tojson escapes HTML, which would change the tokens.
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _environment() -> jinja2.Environment:
    """A sandbox with the names and whitespace rules that chat templates are written for."""
    extensions: Iterable[type[jinja2.ext.Extension]] = (_GenerationTag, jinja2.ext.loopcontrols)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=list(extensions)
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment
