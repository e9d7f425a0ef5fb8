"""What we ask of vLLM and what its answers mean: engine arguments, sampling parameters, completions, scores."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from actors.config import Rollout
from actors.engine import Completion, Limits, Load, RequestError, SampleRequest, TokenScores, Transport
from actors.vllm_transfer import WorkerExtension
from policies.config import Model
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Float32, Int32, Sampling


@dataclass(frozen=True, slots=True)
class Setup:
    """What an engine is made from."""

    folder: Path
    model: Model
    config: Rollout
    max_model_len: int
    load: Load
    transport: Transport


def engine_arguments(setup: Setup) -> dict[str, Any]:
    """Arguments of vLLM's engines, the same for the one in this process and the one in its own.

    On a CPU chunked prefill is off, since a per-request seed makes it fail there; blocks are 32 tokens, the least,
    so that short prompts are cached too; an explicit cache size and eager mode leave nothing to warm up.
    """
    config, length = setup.config, setup.max_model_len + 1  # scoring a full context asks for one token more
    shared = {
        "model": str(setup.folder),
        "dtype": setup.model.dtype,
        "seed": config.seed,
        "max_model_len": length,
        "max_num_seqs": config.max_concurrent,
        "load_format": "dummy" if setup.load == "publish" else "auto",
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": -1,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "async_scheduling": False,
        "weight_transfer_config": {"backend": setup.transport},
        "worker_extension_cls": f"{WorkerExtension.__module__}.{WorkerExtension.__qualname__}",
        "kv_cache_memory_bytes": config.kv_cache_bytes,
    }
    if config.gpus:
        return shared | {"tensor_parallel_size": max(1, int(config.gpus))}
    return shared | {
        "block_size": 32,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(8192, length),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """The model's tokenizer and context: what turns requests into parameters and outputs into completions."""

    tokenizer: Tokenizer
    limits: Limits

    @classmethod
    def of(cls, setup: Setup, vocabulary: int) -> "Reader":
        """Reads the folder's tokenizer."""
        return cls(Tokenizer.load(setup.folder), Limits(setup.max_model_len, vocabulary))

    def drawing(self, request: SampleRequest) -> SamplingParams:
        """Parameters that draw one response and keep its tokens' log-probabilities."""
        sampling = request.sampling
        if sampling.logprobs == "raw" and not neutral(sampling):
            raise RequestError(
                "sampling.logprobs: raw is not what vLLM keeps when temperature, top_p or top_k reshape the "
                "distribution; use processed, or draw at temperature 1 without top_p and top_k"
            )
        return SamplingParams(
            max_tokens=self.limits.room(request),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=max(sampling.top_k, 0),
            seed=request.seed & (2**63 - 1),  # vLLM reads -1 as no seed
            stop=list(sampling.stop),
            stop_token_ids=list(self.tokenizer.eos_ids),
            logprobs=0,
            flat_logprobs=True,
            detokenize=bool(sampling.stop),
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def completion(self, request: SampleRequest, output: CompletionOutput, started: float) -> Completion:
        """What was drawn."""
        tokens = np.asarray(output.token_ids, np.int32)
        text = output.text if request.sampling.stop else self.tokenizer.decode(tokens)
        return Completion(
            id=request.id,
            tokens=tokens,
            logps=_sampled_logps(output, len(tokens)),
            versions=_versions(output, len(tokens)),
            text=text,
            finish_reason=FinishReason(output.finish_reason or "error"),
            seconds=time.monotonic() - started,
        )


def neutral(sampling: Sampling) -> bool:
    """Whether the tokens are drawn from the model's own distribution."""
    return sampling.temperature in (0.0, 1.0) and sampling.top_p == 1.0 and sampling.top_k <= 0


def scoring(top_k: int) -> SamplingParams:
    """Parameters that score a prompt: one token is drawn and thrown away."""
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=top_k,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def scores(output: RequestOutput, tokens: int, top_k: int) -> TokenScores:
    """Scores of the last `tokens` tokens of a scored prompt; K = top_k."""
    flat: Any = output.prompt_logprobs
    columns = top_k + 1  # the token itself, then the top k
    logps_TK = np.asarray(flat.logprobs, np.float32).reshape(-1, columns)[-tokens:]
    if not top_k:
        return TokenScores(logps_TK[:, 0].copy())
    ids_TK = np.asarray(flat.token_ids, np.int32).reshape(-1, columns)[-tokens:]
    return TokenScores(logps_TK[:, 0].copy(), ids_TK[:, 1:].copy(), logps_TK[:, 1:].copy())


def _sampled_logps(output: CompletionOutput, tokens: int) -> Float32:
    flat: Any = output.logprobs
    if not tokens:
        return np.zeros(0, np.float32)
    starts = np.asarray(flat.start_indices[:tokens])
    logps_T: Float32 = np.asarray(flat.logprobs, np.float32)[starts]
    return logps_T


def _versions(output: CompletionOutput, tokens: int) -> Int32:
    versions = np.full(tokens, -1, np.int32)
    for span in output.weight_versions or ():
        versions[span.start : span.end] = int(span.version)
    return versions
