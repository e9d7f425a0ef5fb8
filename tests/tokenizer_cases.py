"""Tokenizers whose tokens cut characters: byte-level BPE, and sentence pieces that fall back to bytes."""

import json
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from policies.tokens import Tokenizer as Ours
from tests.chat_folder import chat_folder

WORDS = ("▁", "▁step", "▁1", "▁2", ":", "a", "b", ".", "\n", "\n\n", ".\n\n", ";", "é", "中", "▁1.\n", "Step")


def byte_level(folder: Path) -> Ours:
    """Every byte is a token, and merges of a few words, of which some end in a separator."""
    return Ours.load(chat_folder(folder, None))


def byte_fallback(folder: Path) -> Ours:
    """Llama's kind of decoder: a bad byte in a run of byte tokens undoes the characters before it."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    vocabulary |= {word: len(vocabulary) + at for at, word in enumerate(WORDS)}
    codec = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    codec.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    codec.decoder = decoders.Sequence(steps)
    codec.add_special_tokens(["<s>", "</s>"])
    codec.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    return Ours.load(folder)


@cache
def alphabet() -> dict[str, int]:
    """Character that stands for a byte in a byte-level vocabulary -> the byte (GPT-2's table, written out)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}


def bytes_of(tokenizer: Ours, token: int) -> bytes:
    """The bytes of a byte-level token; none of a special one."""
    table, name = alphabet(), str(tokenizer.codec.id_to_token(token))
    return b"" if name.startswith("<|") or name in ("<think>", "</think>") else bytes(table[one] for one in name)
