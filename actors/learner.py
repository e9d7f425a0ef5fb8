"""`LearnerRank`: one rank of the policy's training. A plain class; the ranks of a group are called alike.

    step:  old log-probabilities, if asked for   one pass without gradient, before the first update
           for each update                       parts -> forward, backward -> one optimizer step
           facts                                 gathered over ranks: every rank returns those of the whole step

A rank whose share is smaller runs idle parts, so that collectives always meet.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from actors import training_state
from actors.backend import Backend, Update
from actors.config import Learner
from actors.deepspeed_backend import DeepSpeedBackend
from actors.sharding import StepFacts
from actors.torch_backend import TorchBackend
from actors.training_state import Layout, StageState
from actors.weights import Weights, pack
from policies import models, step, strand_facts
from policies.attention import PACKED
from policies.config import HfModel, Optimizer, Strand, TinyModel
from policies.example import Example
from policies.failpoints import failpoint
from policies.reduce import Normalisers
from policies.schedule import learning_rate
from policies.sequences import plan_sequences
from policies.step import Objective, Policy

COLLECTIVE_DEADLINE = timedelta(minutes=30)
"""Longest wait for the other ranks in one collective; the caller's own deadline on a step is shorter."""


class LearnerRank:
    """Holds the model and its optimizer. `rendezvous` is rank 0's host:port; one rank alone needs none."""

    def __init__(  # noqa: PLR0913  (the two halves, what and where, are the caller's own words)
        self,
        folder: Path,
        model: TinyModel | HfModel,
        config: Learner,
        *,
        rank: int = 0,
        world_size: int = 1,
        rendezvous: str = "",
        seed: int = 0,
    ) -> None:
        _check(model, config)
        self._folder, self._config = folder, config
        self._rank, self._world_size = rank, world_size
        self._device = torch.device("cuda" if config.gpus else "cpu")
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // world_size))
        _join(config, rank, world_size, rendezvous)
        module = models.build(folder, model, seed, attention=PACKED)
        if config.lora is not None:
            module = models.attach_lora(module, config.lora, seed)
        if config.gradient_checkpointing:
            _checkpoint_activations(module)
        self._model = module.to(self._device)
        self._policy = Policy(*models.backbone_and_head(self._model))
        self._backend = self._make_backend()
        lora = None if config.lora is None else config.lora.model_dump(mode="json")
        zero_stage = config.zero_stage if config.engine == "deepspeed" else 0
        self._layout = Layout(config.engine, zero_stage, world_size, model.dtype, lora)
        self._stage: StageState | None = None

    # ------------------------------------------------------------ training

    def begin_stage(self, strands: Sequence[Strand], optimizer: Optimizer, steps: int) -> None:
        """A new recipe with fresh moments and schedule; the weights stay. `steps` counts optimizer updates."""
        self._backend.begin(optimizer)
        self._stage = StageState(tuple(strands), optimizer, steps, done=0, skipped=0)

    def step(
        self,
        updates: Sequence[Sequence[Example]],
        normalisers: Sequence[Normalisers],
        coefficients: Mapping[str, float],
        compute_old: bool,
    ) -> StepFacts:
        """One optimizer update for each of `updates`, this rank's shares; `normalisers` are global, one each.

        `compute_old`: recompute the old log-probabilities that strands read before the first update; without it, the
        current ones stand in. Returns the facts of the whole step, the same on every rank but for `seconds`.
        """
        started = time.perf_counter()
        stage = self._in_stage()
        if compute_old:
            updates = self._with_old(updates)
        parts: list[strand_facts.Facts] = []
        outcomes: list[Update] = []
        rate = math.nan
        for share, denominators in zip(updates, normalisers, strict=True):
            objective = Objective(stage.strands, denominators, coefficients, old_is_current=not compute_old)
            rate = learning_rate(stage.optimizer.schedule, stage.optimizer.learning_rate, stage.done, stage.updates)
            parts += self._accumulate(share, objective)
            failpoint("learner.after_backward")
            for group in self._backend.adam.param_groups:
                group["lr"] = rate
            outcomes.append(self._backend.step())
            stage = replace(stage, done=stage.done + 1, skipped=stage.skipped + (not outcomes[-1].applied))
        self._stage = stage
        failpoint("learner.after_step")
        return self._facts(parts, outcomes, rate, time.perf_counter() - started)

    def _accumulate(self, share: Sequence[Example], objective: Objective) -> list[strand_facts.Facts]:
        """Gradients of one update's share, part by part."""
        parts = step.plan(share, self._config.micro_batch_tokens)
        facts: list[strand_facts.Facts] = []

        def loss_of(index: int) -> Tensor:
            if index >= len(parts):
                return step.idle_loss(self._policy)
            found = step.evaluate_part(self._policy, parts[index], objective)
            facts.append(found.by_strand)
            return found.loss

        for index in range(self._most(len(parts))):
            self._backend.backward(_poisoned(self._backend.forward(_bound(loss_of, index))))
        return facts

    def _with_old(self, updates: Sequence[Sequence[Example]]) -> list[list[Example]]:
        """The same examples, with the learner's log-probabilities as they are now where a strand reads them."""
        reads = [step.reads_old(strand) for strand in self._in_stage().strands]
        flat = [example for share in updates for example in share if reads[example.strand]]
        pairs = [(example.trajectory.train_context, example.trajectory.tokens) for example in flat]
        parts = plan_sequences(pairs, self._config.micro_batch_tokens)
        old = [example.trajectory.behavior_logps for example in flat]  # right for an empty response: no token, no value

        def score(index: int) -> Tensor:
            if index >= len(parts):
                return step.idle_loss(self._policy)
            for place, one in zip(
                parts[index], step.score_part(self._policy, [pairs[i] for i in parts[index]]), strict=True
            ):
                old[place] = one.logps
            return torch.zeros(())

        with torch.no_grad():
            for index in range(self._most(len(parts))):
                self._backend.forward(_bound(score, index))
        known = iter(old)
        return [[replace(e, old_logps=next(known)) if reads[e.strand] else e for e in share] for share in updates]

    # ------------------------------------------------------------ weights and state

    def export_weights(self, version: int) -> Weights:
        """The policy as engines load it: Hugging Face names, adapters merged, tied weights once.

        All ranks call it, for stage 3 gathers; the ranks after the first return empty ones, which no engine accepts.
        """
        with self._backend.gathered():
            return pack(models.merged_state(self._model) if self._rank == 0 else (), version)

    def save(self, directory: Path) -> None:
        """directory/model (a Hugging Face folder, by rank 0) and directory/learner (every rank's state, no pickle)."""
        with self._backend.gathered():
            if self._rank == 0:
                models.save_hf(self._model, self._folder, directory / "model")
        training_state.save_state(directory / "learner", self._rank, self._layout, self._in_stage(), self._backend)
        self._meet()

    def load(self, directory: Path) -> None:
        """What `save` wrote, its stage included: later steps are bit for bit as if never stopped."""
        self._stage = training_state.load_state(directory / "learner", self._rank, self._layout, self._backend)
        self._meet()

    def close(self) -> None:
        """Leave the process group. A lone rank's stays: DeepSpeed holds on to it, and the next learner here uses it."""
        if self._world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    # ------------------------------------------------------------ ranks

    def _make_backend(self) -> Backend:
        if self._config.engine == "torch":
            return TorchBackend(self._model, self._world_size)
        return DeepSpeedBackend(
            self._model, [self._policy.head_VH], zero_stage=self._config.zero_stage, world_size=self._world_size
        )

    def _in_stage(self) -> StageState:
        if self._stage is None:
            raise RuntimeError("LearnerRank: no stage; call begin_stage or load first")
        return self._stage

    def _most(self, count: int) -> int:
        """The largest count of any rank."""
        if self._world_size == 1:
            return count
        largest = torch.tensor(count, device=self._device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def _meet(self) -> None:
        if self._world_size > 1:
            dist.barrier()

    def _facts(
        self, parts: list[strand_facts.Facts], outcomes: Sequence[Update], rate: float, seconds: float
    ) -> StepFacts:
        names = [strand.name for strand in self._in_stage().strands]
        nothing = strand_facts.merge([dict.fromkeys(names, _NO_FACTS)])
        merged = strand_facts.merge([nothing, *parts])
        merged = strand_facts.merge(self._gathered_facts(merged))
        norms = [outcome.gradient_norm for outcome in outcomes if outcome.applied]
        return StepFacts(
            loss=math.fsum(facts["loss"] for facts in merged.values()),
            gradient_norm=math.fsum(norms) / len(norms) if norms else math.nan,
            learning_rate=rate,
            skipped=len(outcomes) - len(norms),
            tokens=int(sum(facts["tokens"] for facts in merged.values())),
            seconds=seconds,
            by_strand=merged,
        )

    def _gathered_facts(self, mine: strand_facts.Facts) -> list[strand_facts.Facts]:
        """Every rank's facts, in rank order, so that their merge is the same everywhere."""
        if self._world_size == 1:
            return [mine]
        values = torch.tensor([v for facts in mine.values() for v in facts.values()], dtype=torch.float64)
        rows = [torch.empty_like(values, device=self._device) for _ in range(self._world_size)]
        dist.all_gather(rows, values.to(self._device))
        ranks: list[strand_facts.Facts] = []
        for row in rows:
            left = iter(row.tolist())
            ranks.append({name: {key: next(left) for key in facts} for name, facts in mine.items()})
        return ranks


_NO_FACTS = dict.fromkeys(strand_facts.SUMS, 0.0) | dict.fromkeys((*strand_facts.MEANS, *strand_facts.MAXIMA), math.nan)


def _bound(function: Callable[[int], Tensor], index: int) -> Callable[[], Tensor]:
    return lambda: function(index)


def _poisoned(loss: Tensor) -> Tensor:
    """A loss that is not finite gives gradients that are not finite, so that the update is dropped on every rank."""
    return loss if bool(loss.detach().isfinite()) else loss * math.nan


def _check(model: TinyModel | HfModel, config: Learner) -> None:
    if config.engine == "deepspeed" and config.zero_stage == 0 and model.dtype == "bfloat16":
        raise ValueError(
            "resources.learner.zero_stage: 0 with model.dtype bfloat16: DeepSpeed then takes a step of its own at the "
            "start; set zero_stage to 1 or more, or resources.learner.engine to torch"
        )
    if config.gpus and not torch.cuda.is_available():
        raise ValueError(f"resources.learner.gpus: {config.gpus}, but torch sees no GPU here; set it to 0")


def _join(config: Learner, rank: int, world_size: int, rendezvous: str) -> None:
    """Join the ranks' process group; a lone rank of bare torch needs none."""
    if config.engine == "torch" and world_size == 1:
        return
    host, _, port = rendezvous.rpartition(":")
    if host in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ |= {  # DeepSpeed reads these even where a group exists
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_SIZE": "1",
        "MASTER_ADDR": host or "127.0.0.1",
        "MASTER_PORT": port or "0",
    }
    if dist.is_initialized():  # an earlier learner of this process; DeepSpeed cannot change groups
        return
    store = dist.HashStore() if world_size == 1 else None  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if config.gpus else "gloo",
        init_method=None if store else f"tcp://{rendezvous}",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_DEADLINE,
    )


def _checkpoint_activations(model: torch.nn.Module) -> None:
    """Recompute activations in the backward. transformers does so in training mode alone: dropout is switched off."""
    inner = models.plain(model)
    for module in inner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inner.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    model.train()
