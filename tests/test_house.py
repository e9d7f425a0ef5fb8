"""The house: sizes, names, inheritance, no stand-ins in tests, no machine's paths, and examples that load."""

import ast
import builtins
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from orchestrator.config import Pipeline

ROOT = Path(__file__).resolve().parents[1]
CODE = ("policies", "verifiers", "teachers", "actors", "orchestrator", "deploy", "benchmarks", "tests", "docs")
NOT_OURS = {".git", ".hypothesis", ".venv", "runs", "models", "dist", "__pycache__"}

FILE_LINES, FUNCTION_LINES, CLASS_LINES = 400, 60, 250
BASES = {
    *("Protocol", "Generic", "BaseModel", "Strict", "StrEnum", "IntEnum", "NamedTuple", "TypedDict"),
    *("nn.Module", "torch.nn.Module", "Function", "autograd.Function", "torch.autograd.Function"),
    *("WeightTransferEngine", "WeightTransferInitInfo", "WeightTransferUpdateInfo"),
    *("WeightSource", "TrainerInitInfo", "TrainerWeightTransferEngine"),
    *("Sequence", "Mapping"),  # data that are not in memory, read as if they were
    *("yaml.SafeLoader", "yaml.SafeDumper", "jinja2.ext.Extension", "torch.optim.AdamW"),
}
"""What a class may inherit from, besides exceptions and a shared config record; last, libraries' extension points."""
BANNED_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?)(_|$)")
STAND_INS = {"unittest.mock", "mock", "pytest_mock", "mocker", "MagicMock"}


def code() -> dict[str, str]:
    """Path relative to the root -> source text, of all our Python."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in CODE
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def too_long(files: Mapping[str, str]) -> list[str]:
    """Files, functions and classes past their size."""
    faults = []
    for path, text in files.items():
        if (lines := len(text.splitlines())) > FILE_LINES:
            faults.append(f"{path}: {lines} lines; at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            most = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > most:
                faults.append(f"{path}: {node.name} has {lines} lines; at most {most}")
    return faults


def inheritance(files: Mapping[str, str]) -> list[str]:
    """Classes that inherit from something else than records, ports, enums and exceptions do."""
    classes = [
        (path, node)
        for path, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    ]
    exceptions = {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
    }
    while more := {c.name for _, c in classes if {ast.unparse(b) for b in c.bases} & exceptions} - exceptions:
        exceptions |= more
    shared = {
        c.name for path, c in classes if path.endswith("config.py") and [ast.unparse(b) for b in c.bases] == ["Strict"]
    }
    return [
        f"{path}: class {node.name}({ast.unparse(base)}); compose, or add the base here with its reason"
        for path, node in classes
        for base in node.bases
        if ast.unparse(base).split("[")[0] not in BASES | exceptions | shared
    ]


def banned_names(files: Mapping[str, str]) -> list[str]:
    """Modules and folders whose name says nothing of what is in them."""
    return [path for path in files if any(BANNED_NAMES.search(part.removesuffix(".py")) for part in path.split("/"))]


def stand_ins(files: Mapping[str, str]) -> list[str]:
    """Mocks, patches and test classes."""
    faults = []
    for path, text in files.items():
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Import(names=names):
                    used = {alias.name for alias in names}
                case ast.ImportFrom(module=module, names=names):
                    used = {str(module)} | {f"{module}.{alias.name}" for alias in names}
                case ast.Name(id=name) | ast.arg(arg=name):
                    used = {name}
                case ast.Attribute(value=ast.Name(id="monkeypatch"), attr="setattr"):
                    faults.append(f"{path}: monkeypatch.setattr; give the part as an argument")
                    continue
                case ast.ClassDef(name=name) if name.startswith("Test") and path.startswith("tests/"):
                    faults.append(f"{path}: class {name}; tests are plain functions")
                    continue
                case _:
                    continue
            faults += [f"{path}: {name}; real parts, or fakes at the loop's ports" for name in sorted(used & STAND_INS)]
    return faults


def texts() -> Iterator[tuple[str, str]]:
    """Every text file that a commit could hold."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in NOT_OURS and not name.endswith("_cache")]
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and path.stat().st_size < 1 << 20 and b"\0" not in (raw := path.read_bytes()):
                yield str(path.relative_to(ROOT)), raw.decode("utf-8", errors="replace")


MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root)/[\w.]")
"""Written so that it does not find itself."""


def machine_paths(files: Iterator[tuple[str, str]]) -> list[str]:
    """Files that name a path of the machine they were written on."""
    return [f"{path}: {found.group()}..." for path, text in files if (found := MACHINE_PATH.search(text))]


def test_files_functions_and_classes_keep_their_size() -> None:
    assert too_long(code()) == []


def test_algorithms_do_not_inherit() -> None:
    assert inheritance({path: text for path, text in code().items() if not path.startswith("tests/")}) == []


def test_modules_are_named_for_what_they_hold() -> None:
    assert banned_names(code()) == []


def test_tests_use_real_parts() -> None:
    assert stand_ins(code()) == []


def test_no_path_of_a_machine_is_committed() -> None:
    assert machine_paths(texts()) == []


def test_scripts_can_be_executed() -> None:
    scripts = [ROOT / ".ci" / "run", *(ROOT / "requirements").glob("*.sh")]
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []


def test_the_documents_are_what_make_docs_writes() -> None:
    checked = [sys.executable, "docs/build.py", "--check"]
    done = subprocess.run(checked, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_a_pipeline(path: Path) -> None:
    Pipeline.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_the_lock_pins_each_package_once_and_no_cuda() -> None:
    lines = (ROOT / "requirements" / "cpu.lock").read_text().splitlines()
    pins = [re.fullmatch(r"([a-z0-9-]+)==([0-9][\w.+!]*)", line) for line in lines]
    assert [line for line, pin in zip(lines, pins, strict=True) if pin is None] == []
    names = [pin.group(1) for pin in pins if pin is not None]
    assert sorted(set(names)) == sorted(names)
    cuda = [name for name in names if name.startswith("nvidia-") or name in ("torchvision", "torchaudio", "triton")]
    assert cuda == []


def long_function(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


def test_planted_sizes_are_found() -> None:
    assert len(too_long({"policies/a.py": long_function(61), "policies/b.py": long_function(60)})) == 1
    assert len(too_long({"policies/a.py": "x = 1\n" * 401, "policies/b.py": "x = 1\n" * 400})) == 1
    assert len(too_long({"policies/a.py": "class A:\n" + "    x = 1\n" * 250})) == 1


def test_planted_inheritance_is_found() -> None:
    assert (
        len(inheritance({"policies/a.py": "class A(Base): ...\nclass B(StrEnum): ...\nclass C(Protocol[T]): ..."})) == 1
    )
    assert inheritance({"policies/a.py": "class A(ValueError): ...\nclass B(A): ..."}) == []
    assert len(inheritance({"policies/config.py": "class P(Strict): ...\nclass A(P): ...\nclass B(A): ..."})) == 1


def test_planted_names_are_found() -> None:
    files = dict.fromkeys(("policies/text_utils.py", "policies/common/a.py", "policies/commonsense.py"), "")
    assert banned_names(files) == ["policies/text_utils.py", "policies/common/a.py"]


def test_planted_stand_ins_are_found() -> None:
    lines = ["from unittest import mock", "from unittest.mock import patch", "class TestA: ..."]
    lines += ["def test(mocker): ...", "monkeypatch.setattr(a, 'b', 1)", "monkeypatch.setenv('A', 'b')"]
    assert len(stand_ins({"tests/a.py": "\n".join(lines)})) == 5


def test_planted_paths_are_found() -> None:
    files = {"a": "see /" + "work/x", "b": "/" + "root/.cache", "c": "a/" + "work/x", "d": "https://x.org/" + "root/a"}
    assert len(machine_paths(iter(files.items()))) == 2
