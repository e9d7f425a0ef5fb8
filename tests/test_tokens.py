"""Tokens are those of transformers' AutoTokenizer, chat template included."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.config import HfModel, TinyModel
from policies.model_folder import CHARACTERS, materialise
from policies.tokens import Tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '(' + m['role'] + ')' + m['content'] }}\n"
    "  {% generation %}{{ eos_token }}{% endgeneration %}{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '(assistant)' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TinyModel(context=64), tmp_path_factory.mktemp("tiny") / "model")


def _with(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of the folder with keys of tokenizer_config.json changed."""
    shutil.copytree(folder, target)
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target


def test_encoding_equals_transformers(folder: Path):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    for text in ("346+77=", "a b\nc#12", CHARACTERS, " "):
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False)
        assert ours.prompt(text).tolist() == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text == theirs.decode(ours.encode(text).tolist())
    assert (ours.eos_id, ours.pad_id) == (theirs.eos_token_id, theirs.pad_token_id) == (1, 0)
    assert ours.vocab_size == len(theirs) == len(CHARACTERS) + 2


def test_a_response_ends_with_the_end_token_and_decodes_without_it(folder: Path):
    ours = Tokenizer.load(folder)
    tokens = ours.response("#423")
    assert tokens.dtype == np.int32 and tokens.tolist() == [*ours.encode("#423").tolist(), ours.eos_id]
    assert ours.decode(tokens) == "#423"
    assert ours.decode(tokens, skip_special=False) == "#423<eos>"


@pytest.mark.parametrize("place", ["config", "named", "file"])
def test_the_chat_template_gives_the_tokens_of_transformers(folder: Path, tmp_path: Path, place: str):
    from transformers import AutoTokenizer

    template = {"config": TEMPLATE, "named": [{"name": "default", "template": TEMPLATE}], "file": None}[place]
    changes = {"bos_token": "<pad>"} | ({} if template is None else {"chat_template": template})
    chat = _with(folder, tmp_path / "chat", **changes)
    if place == "file":
        (chat / "chat_template.jinja").write_text(TEMPLATE)
    messages = [{"role": "user", "content": "1+2="}]
    theirs = AutoTokenizer.from_pretrained(chat).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert Tokenizer.load(chat).prompt("1+2=").tolist() == theirs
    assert theirs != Tokenizer.load(folder).prompt("1+2=").tolist()


def test_a_character_outside_the_vocabulary_is_named(folder: Path):
    with pytest.raises(ValueError, match=r"no token for 'é'"):
        Tokenizer.load(folder).encode("caf\u00e9")


def test_every_listed_end_token_counts_and_the_tokenizers_own_comes_first(folder: Path, tmp_path: Path):
    several = _with(folder, tmp_path / "several")
    (several / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 1]}))
    assert Tokenizer.load(several).eos_ids == (1, 5)


def test_the_fingerprint_tells_tokenizers_apart(folder: Path, tmp_path: Path):
    same = materialise(TinyModel(preset="arithmetic-small"), tmp_path / "small")
    assert Tokenizer.load(same).fingerprint == Tokenizer.load(folder).fingerprint
    other = _with(folder, tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    assert Tokenizer.load(other).fingerprint != Tokenizer.load(folder).fingerprint


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"model\.path: .* has no config\.json"),
        ("tokenizer.json", r"model\.path: .* has no tokenizer\.json; save the fast tokenizer"),
        ("", r"model\.path: .* has no \*\.safetensors; .*import-model"),
    ],
)
def test_an_incomplete_folder_is_refused_with_the_key_and_the_fix(folder: Path, tmp_path: Path, missing, message):
    broken = _with(folder, tmp_path / "broken")
    if missing:
        (broken / missing).unlink()
    with pytest.raises(ValueError, match=message):
        materialise(HfModel(path="broken", context=32), tmp_path / "unused", base=tmp_path)
    with pytest.raises(ValueError, match=r"model\.path: no such folder"):
        materialise(HfModel(path="absent"), tmp_path / "unused", base=tmp_path)


def test_a_context_longer_than_the_model_is_refused(folder: Path, tmp_path: Path):
    whole = _with(folder, tmp_path / "whole")
    (whole / "model.safetensors").touch()
    assert materialise(HfModel(path=str(whole), context=64), tmp_path / "unused") == whole.resolve()
    with pytest.raises(ValueError, match=r"model\.context: 65 is more than the model's 64"):
        materialise(HfModel(path=str(whole), context=65), tmp_path / "unused")


def test_loading_a_tokenizer_needs_neither_torch_nor_transformers(folder: Path):
    code = (
        "import sys; from pathlib import Path; from policies.tokens import Tokenizer;"
        f"Tokenizer.load(Path({str(folder)!r})).prompt('1+1=');"
        "sys.exit(bool({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("ended", [True, False])
def test_a_second_turn_follows_the_response_as_the_chat_template_says(folder: Path, tmp_path: Path, ended: bool):
    chat = Tokenizer.load(_with(folder, tmp_path / "chat", chat_template=TEMPLATE, bos_token="<pad>"))
    said = [("user", "1+1="), ("assistant", "3"), ("user", "again")]
    messages = [{"role": role, "content": content} for role, content in said]
    assert chat.template is not None
    whole = chat.template.render(messages=messages, add_generation_prompt=True, **chat.special)
    answer = chat.response("3") if ended else chat.encode("3")
    joined = np.concatenate([chat.prompt("1+1="), answer, chat.turn("again", ended=ended)])
    # a response that ended did so without the blanks that this template has before the end token
    assert chat.decode(joined, skip_special=False) == (whole.replace("3\n<eos>", "3<eos>") if ended else whole)
    plain = Tokenizer.load(folder)
    np.testing.assert_array_equal(plain.turn("again", ended=ended), plain.encode("again"))
