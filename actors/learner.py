"""`LearnerRank`: one rank of the policy's training. A plain class; the ranks of a group are called alike.

    step:  old views and figures, if asked for   one pass without gradient, before the first update
           for each update                       parts -> forward, backward -> one optimizer step
           facts                                 gathered over ranks: every rank returns those of the whole step

A rank whose share is smaller runs idle parts, so that collectives always meet.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actors import training_state
from actors.backend import Backend, Update, trainable
from actors.config import Learner
from actors.deepspeed_backend import DeepSpeedBackend
from actors.freeze import Movement, held
from actors.interference import Gradients
from actors.interference import interference as cosines_of
from actors.meter import Work, joined
from actors.prepass import Reader, prepare
from actors.ranks import Ranks, join
from actors.sharding import StepFacts
from actors.torch_backend import TorchBackend
from actors.training_state import Layout, StageState
from actors.weights import Weights, pack
from policies import coefficients as pulls
from policies import models, origin_facts, step, strand_facts
from policies.attention import PACKED
from policies.config import HfModel, Optimizer, Strand, TinyModel
from policies.example import Example
from policies.failpoints import failpoint
from policies.models import Head
from policies.objective import Evaluation
from policies.reduce import Normalisers
from policies.schedule import learning_rate
from policies.step import Objective, Policy
from policies.trajectory import Float32, Int32


class LearnerRank:
    """Holds the model and its optimizer. `rendezvous` is rank 0's host:port; one rank alone needs none.

    With `head` scalar it trains a critic or a reward model: the same step over the head's outputs.
    """

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
        head: Head = "language",
    ) -> None:
        _check(model, config)
        self._folder, self._model_config, self._config = folder, model, config
        self._seed, self._head = seed, head
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // world_size))
        self._ranks = join(config, rank, world_size, rendezvous)
        self._model = self._build().to(self._ranks.device)
        self._policy = Policy(*models.backbone_and_head(self._model), scalar=head == "scalar")
        self._backend = self._make_backend()
        self._reader = Reader(self._policy, self._backend, self._ranks, config.micro_batch_tokens)
        lora = None if config.lora is None else config.lora.model_dump(mode="json")
        zero_stage = config.zero_stage if config.engine == "deepspeed" else 0
        self._layout = Layout(config.engine, zero_stage, world_size, model.dtype, lora)
        self._stage: StageState | None = None
        self._movement: Movement | None = None
        self._target_heads: dict[str, Tensor] = {}

    # ------------------------------------------------------------ training

    def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None:
        """A new recipe with fresh moments and schedule; the weights stay. `steps` counts optimizer updates.

        `track`: follow each parameter element's movement, decayed by this after a frozen step, so that `step` can
        freeze. ValueError at ZeRO stage 3.
        """
        self._backend.begin(optimizer)
        self._target_heads.clear()
        self._stage = StageState(tuple(strands), optimizer, steps, done=0, skipped=0, track=track)
        self._movement = self._follow(track)

    def restart(self) -> None:
        """The weights are the run's first ones again, bit for bit; call `begin_stage` for fresh moments."""
        self._backend.adopt([parameter.detach() for parameter in trainable(self._build())])

    def attach_head(self, target: str, head: Float32) -> None:
        """The (V, H) head of a frozen model, `teacher` or `reference`, for divergences over the whole vocabulary.

        Kept on the device until the next stage; given again when that model's weights change.
        """
        self._target_heads[target] = torch.from_numpy(np.array(head)).to(self._ranks.device)

    def step(
        self,
        updates: Sequence[Sequence[Example]],
        normalisers: Sequence[Normalisers],
        coefficients: Mapping[str, float],
        compute_old: bool,
        freeze: float | None = None,
        interference: bool = False,
    ) -> StepFacts:
        """One optimizer update for each of `updates`, this rank's shares; `normalisers` are global, one each.

        `compute_old`: recompute the old views that strands read before the first update; without it, the current ones
        stand in. `freeze`: this share of each tensor's elements, those that moved most in the steps without, stays as
        it is. `interference`: also the cosines between the strands' gradients, of the first update's share, before it.
        Returns the facts of the whole step, the same on every rank but for `seconds`.
        """
        started = time.perf_counter()
        stage = self._in_stage()
        reader = replace(self._reader, read=Work())
        updates, statistics = prepare(reader, stage.strands, updates, compute_old=compute_old)
        parts, outcomes, g = list[Evaluation](), list[Update](), list[Float32]()
        rate, cosines = math.nan, dict[str, float]()
        with self._moving(freeze) as masks:
            for share, denominators in zip(updates, normalisers, strict=True):
                objective = Objective(
                    stage.strands,
                    denominators,
                    coefficients,
                    old_is_current=not compute_old,
                    statistics=statistics,
                    target_heads=self._target_heads,
                )
                if interference and not outcomes:
                    cosines = self._interference(share, objective)
                rate = learning_rate(stage.optimizer.schedule, stage.optimizer.learning_rate, stage.done, stage.updates)
                found = self._accumulate(share, objective)
                failpoint("learner.after_backward")
                outcomes.append(self._update(rate, masks))
                parts += found
                if not self._policy.scalar:
                    known = found if outcomes[-1].applied else None
                    g += pulls.of_share(stage.strands, share, known, self._config.micro_batch_tokens)
                stage = replace(stage, done=stage.done + 1, skipped=stage.skipped + (not outcomes[-1].applied))
        self._stage = stage
        failpoint("learner.after_step")
        flat = None if self._policy.scalar else np.concatenate([np.empty(0, np.float32), *g])
        facts = _facts(self._ranks, stage.strands, parts, outcomes, rate, reader.read)
        return replace(facts, seconds=time.perf_counter() - started, interference=cosines, coefficients=flat)

    def _interference(self, share: Sequence[Example], objective: Objective) -> dict[str, float]:
        if self._layout.zero_stage == 3:
            raise ValueError(_NO_GRADIENTS)
        of = Gradients(self._policy, trainable(self._model), self._ranks, self._config.micro_batch_tokens)
        return cosines_of(of, share, objective)

    def _moving(self, freeze: float | None) -> AbstractContextManager[list[Tensor] | None]:
        """Follow what a step moves, or hold what earlier ones moved most: then the masks of the held elements."""
        if self._movement is None:
            if freeze is not None:
                raise RuntimeError(
                    "LearnerRank: nothing is followed, so nothing can freeze; begin the stage with track"
                )
            return nullcontext()
        return self._movement.followed() if freeze is None else self._movement.frozen(freeze)

    def _update(self, rate: float, masks: list[Tensor] | None) -> Update:
        for group in self._backend.adam.param_groups:
            group["lr"] = rate
        if masks is None:
            return self._backend.step()
        with held(self._backend, masks):
            return self._backend.step()

    def _accumulate(self, share: Sequence[Example], objective: Objective) -> list[Evaluation]:
        """Gradients of one update's share, part by part; what was found of each, without its graph."""
        parts = step.plan(share, self._config.micro_batch_tokens)
        facts: list[Evaluation] = []

        def loss_of(index: int) -> Tensor:
            if index >= len(parts):
                return step.idle_loss(self._policy)
            found = step.evaluate_part(self._policy, parts[index], objective)
            facts.append(replace(found, loss=found.loss.detach()))
            return found.loss

        for index in range(self._ranks.most(len(parts))):
            self._backend.backward(_poisoned(self._backend.forward(_bound(loss_of, index))))
        return facts

    def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response, by the policy as it is now; empty for an empty one. All ranks call it alike."""
        if self._policy.scalar:
            raise RuntimeError("LearnerRank: a scalar head has no log-probabilities; build it with head language")
        read = self._reader.scored(list(zip(contexts, tokens, strict=True)))
        return [np.empty(0, np.float32) if one is None else one.logps for one in read]

    # ------------------------------------------------------------ a scalar head, asked

    def values(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response: what the head foresees before each token. All ranks call it, each with its share."""
        return self._outputs(contexts, tokens, before=True)

    def scores(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[float]:
        """The head's output at each response's last token; NaN for an empty one. All ranks call it."""
        read = self._outputs(contexts, tokens, before=False)
        return [float(one[-1]) if len(one) else math.nan for one in read]

    def _outputs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], *, before: bool) -> list[Float32]:
        if not self._policy.scalar:
            raise RuntimeError("LearnerRank: a language model has no values; build it with head scalar")
        pairs = list(zip(contexts, tokens, strict=True))
        read = self._reader.values(pairs, [before] * len(pairs))
        return [np.empty(0, np.float32) if one is None else one for one in read]

    # ------------------------------------------------------------ weights and state

    def export_weights(self, version: int) -> Weights:
        """The policy as engines load it: Hugging Face names, adapters merged, tied weights once.

        All ranks call it, for stage 3 gathers; the ranks after the first return empty ones, which no engine accepts.
        """
        with self._backend.gathered():
            return pack(models.merged_state(self._model) if self._ranks.mine == 0 else (), version)

    def save(self, directory: Path) -> None:
        """directory/model (a Hugging Face folder, by rank 0) and directory/learner (every rank's state, no pickle)."""
        with self._backend.gathered():
            if self._ranks.mine == 0:
                models.save_hf(self._model, self._folder, directory / "model")
        where, stage = directory / "learner", self._in_stage()
        training_state.save_state(where, self._ranks.mine, self._layout, stage, self._backend)
        if self._movement is not None and self._ranks.mine == 0:
            self._movement.save(where)
        self._ranks.meet()

    def load(self, directory: Path) -> None:
        """What `save` wrote, its stage included: later steps are bit for bit as if never stopped."""
        where = directory / "learner"
        self._stage = training_state.load_state(where, self._ranks.mine, self._layout, self._backend)
        self._movement = self._follow(self._stage.track)
        if self._movement is not None:
            self._movement.load(where)
        self._ranks.meet()

    def close(self) -> None:
        """Leave the process group."""
        self._ranks.leave()

    # ------------------------------------------------------------ inside

    def _build(self) -> torch.nn.Module:
        """The model as the run's first version has it."""
        module = models.build(self._folder, self._model_config, self._seed, attention=PACKED, head=self._head)
        if self._config.lora is not None:
            module = models.attach_lora(module, self._config.lora, self._seed)
        if self._config.gradient_checkpointing:
            _checkpoint_activations(module)
        return module

    def _make_backend(self) -> Backend:
        world_size = self._ranks.count
        if self._config.engine == "torch":
            return TorchBackend(self._model, world_size)
        return DeepSpeedBackend(
            self._model, [self._policy.head_VH], zero_stage=self._config.zero_stage, world_size=world_size
        )

    def _follow(self, track: float | None) -> Movement | None:
        if track is None:
            return None
        parameters = trainable(self._model)
        self._backend.as_masters([torch.zeros_like(one, dtype=torch.bool) for one in parameters])  # refuses stage 3
        return Movement(parameters, track)

    def _in_stage(self) -> StageState:
        if self._stage is None:
            raise RuntimeError("LearnerRank: no stage; call begin_stage or load first")
        return self._stage


_NO_FACTS = dict.fromkeys(strand_facts.SUMS, 0.0) | dict.fromkeys((*strand_facts.MEANS, *strand_facts.MAXIMA), math.nan)


def _facts(
    ranks: Ranks,
    strands: Sequence[Strand],
    parts: Sequence[Evaluation],
    outcomes: Sequence[Update],
    rate: float,
    read: Work,
) -> StepFacts:
    """Those of the whole step, gathered over ranks."""
    names = [strand.name for strand in strands]
    nothing = strand_facts.merge([dict.fromkeys(names, _NO_FACTS)])
    own = strand_facts.merge([nothing, *(one.by_strand for one in parts)])
    gathered = ranks.gather([own, origin_facts.merge([one.by_origin for one in parts]), read.as_row()])
    merged = strand_facts.merge([strands for strands, _, _ in gathered])
    norms = [outcome.gradient_norm for outcome in outcomes if outcome.applied]
    return StepFacts(
        loss=math.fsum(facts["loss"] for facts in merged.values()),
        gradient_norm=math.fsum(norms) / len(norms) if norms else math.nan,
        learning_rate=rate,
        skipped=len(outcomes) - len(norms),
        tokens=int(sum(facts["tokens"] for facts in merged.values())),
        seconds=math.nan,  # known when everything is done
        by_strand=merged,
        by_origin=origin_facts.merge([origins for _, origins, _ in gathered]),
        scored=joined(rows for _, _, rows in gathered),
    )


_NO_GRADIENTS = (
    "stages.interference: at resources.learner.zero_stage 3 no rank holds whole parameters to take the gradients of; "
    "set it to 0, or the ZeRO stage to 2 or less"
)


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


def _checkpoint_activations(model: torch.nn.Module) -> None:
    """Recompute activations in the backward. transformers does so in training mode alone: dropout is switched off."""
    inner = models.plain(model)
    for module in inner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inner.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    model.train()
