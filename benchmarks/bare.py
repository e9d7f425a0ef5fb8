"""The floor: vLLM's own `LLM.generate` and a plain torch step, each in a process of its own, on given shapes."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


class BareEngine:
    """vLLM as its users call it: `LLM.generate` over token prompts, with the same engine arguments as a replica."""

    def __init__(self, folder: str, dtype: str, context: int, concurrent: int, cache: int) -> None:
        from vllm import LLM

        self.llm = LLM(
            model=folder,
            dtype=dtype,
            max_model_len=context,
            max_num_seqs=concurrent,
            kv_cache_memory_bytes=cache,
            block_size=32,
            enforce_eager=True,
            enable_chunked_prefill=False,
            enable_prefix_caching=True,
            load_format="dummy",
            disable_log_stats=True,
        )

    def generate(self, prompts: Sequence[Tokens], lengths: Sequence[int], seeds: Sequence[int]) -> tuple[float, int]:
        """Seconds and tokens of drawing exactly `lengths[i]` tokens for prompt i, with log-probabilities."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        parameters = [
            SamplingParams(
                max_tokens=length, ignore_eos=True, seed=seed, logprobs=0, flat_logprobs=True, detokenize=False
            )
            for length, seed in zip(lengths, seeds, strict=True)
        ]
        asked = [TokensPrompt(prompt_token_ids=prompt.tolist()) for prompt in prompts]
        self.llm.reset_prefix_cache()
        began = time.perf_counter()
        outputs = self.llm.generate(asked, parameters, use_tqdm=False)
        return time.perf_counter() - began, sum(len(output.outputs[0].token_ids) for output in outputs)

    def ping(self) -> None:
        """Answer when the engine is up."""


class BareTrainer:
    """A Hugging Face model, padded micro-batches sorted by length, log-softmax over the responses, AdamW."""

    def __init__(self, folder: str, dtype: str, threads: int, micro_batch_tokens: int) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch = torch
        config = AutoConfig.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        self.masters = [parameter.detach().float().clone() for parameter in self.model.parameters()]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-6)
        self.budget = micro_batch_tokens

    def step(self, contexts: Sequence[Tokens], responses: Sequence[Tokens]) -> float:
        """Seconds of forward, backward, clip and AdamW over the given sequences."""
        torch = self.torch
        began = time.perf_counter()
        total = sum(len(response) for response in responses)
        for rows in self._micro_batches(contexts, responses):
            longest = max(len(contexts[row]) + len(responses[row]) for row in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            mask = torch.zeros(len(rows), longest, dtype=torch.bool)
            for place, row in enumerate(rows):
                whole = np.concatenate([contexts[row], responses[row]])
                ids[place, : len(whole)] = torch.from_numpy(whole)
                mask[place, len(contexts[row]) : len(whole)] = True
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden[:, :-1][mask[:, 1:]]).float()
            logps = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:][mask[:, 1:]].unsqueeze(-1))
            (-logps.sum() / total).backward()
        self._update()
        return time.perf_counter() - began

    def _update(self) -> None:
        torch = self.torch
        parameters = list(self.model.parameters())
        for master, parameter in zip(self.masters, parameters, strict=True):
            master.grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(self.masters, parameters, strict=True):
                parameter.copy_(master)

    def _micro_batches(self, contexts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[list[int]]:
        lengths = [len(context) + len(response) for context, response in zip(contexts, responses, strict=True)]
        batches: list[list[int]] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= self.budget:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches

    def ping(self) -> None:
        """Answer when the model is up."""
