"""DeepSpeed, ZeRO stages 0 to 3 (arXiv 1910.02054): parameters, gradients and moments partitioned over ranks.

Own accumulation: any number of `backward` calls, then one `step`. DeepSpeed averages gradients over ranks; the loss
is multiplied by their number, so that they sum. torch's AdamW stands in for DeepSpeed's, which is compiled at start.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from actors.backend import Compute, Update, clip_in_place, configure, make_adam, trainable
from policies.config import Optimizer

NEVER: Final = 1 << 62
_NO_ELEMENTS: Final = (
    "resources.learner.zero_stage: 3 has no whole parameters to follow element by element, which a control of kind "
    "freeze needs; set it to 2 or less"
)


class DeepSpeedBackend:
    """Fits `actors.backend.Backend`. A process group must exist; stage 0 is for float32 alone."""

    def __init__(self, model: nn.Module, shared: list[nn.Parameter], *, zero_stage: int, world_size: int) -> None:
        self._model = model
        self._world_size = world_size
        self._stage = zero_stage
        parameters = trainable(model)
        self.adam = _ClippedAdam(parameters) if zero_stage == 0 else make_adam(parameters)
        half = parameters[0].dtype == torch.bfloat16
        self._engine = _initialize(_Root(model, shared), self.adam, _config(zero_stage, half, bucket(model)))

    def forward(self, compute: Compute) -> Tensor:
        """Run it inside the engine's own forward, which brings partitioned parameters in place."""
        loss: Tensor = self._engine(compute)
        return loss

    def backward(self, loss: Tensor) -> None:
        """DeepSpeed's backward; the factor undoes its mean over ranks."""
        self._engine.backward(loss * self._world_size)

    def step(self) -> Update:
        """DeepSpeed reduces, clips and steps; a norm that is not finite makes it drop the gradients on all ranks."""
        self._engine.step()
        dropped = bool(getattr(self._engine.optimizer, "overflow", False))
        norm = self._engine.get_global_grad_norm()
        return Update(math.nan if dropped or norm is None else float(norm))

    def begin(self, optimizer: Optimizer) -> None:
        """Fresh moments, this stage's constants."""
        self._engine.optimizer.clip_grad = optimizer.clip
        configure(self.adam, optimizer)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Whole parameters on every rank: stage 3 gathers them, the others hold them anyway."""
        if self._stage < 3:
            yield
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self._model.parameters())):
            yield

    def masters(self) -> list[Tensor]:
        """This rank's partitions, flat; at stage 0 the parameters."""
        zero = self._engine.optimizer
        match self._stage:
            case 0:
                return list(trainable(self._model))
            case 1 | 2:
                return list(zero.single_partition_of_fp32_groups)
            case _:
                return list(zero.fp32_partitioned_groups_flat)

    def refresh(self) -> None:
        """What DeepSpeed itself does after its optimizer moved the partitions."""
        zero = self._engine.optimizer
        if self._stage in (1, 2):
            zero.update_lp_params()
        if self._stage == 3:
            zero._partition_all_parameters()
            for group in range(len(zero.fp32_partitioned_groups_flat)):
                zero._reassign_or_swap_out_partitioned_parameters(group)
            if zero.persistent_parameters:
                zero.persistent_parameters[0].all_gather(zero.persistent_parameters)

    def adopt(self, parameters: Sequence[Tensor]) -> None:
        """Into the model, and from there into each rank's partitions, as when they were made."""
        own = trainable(self._model)
        with self._whole(own), torch.no_grad():
            for parameter, given in zip(own, parameters, strict=True):
                parameter.copy_(given)
        if self._stage:
            self._engine.optimizer.refresh_fp32_params()

    def as_masters(self, columns: list[Tensor]) -> list[Tensor]:
        """Stages 1 and 2 lay the parameters out in flat groups, of which this rank's masters are one partition each.

        ValueError at stage 3, where no rank has whole parameters to compare.
        """
        if self._stage == 0:
            return columns
        if self._stage == 3:
            raise ValueError(_NO_ELEMENTS)
        zero, by_parameter = self._engine.optimizer, dict(zip(trainable(self._model), columns, strict=True))
        cut = []
        for parameters, flat, parts, master in zip(
            zero.bit16_groups,
            zero.bit16_groups_flat,
            zero.parallel_partitioned_bit16_groups,
            zero.single_partition_of_fp32_groups,
            strict=True,
        ):
            column = torch.zeros(flat.numel(), dtype=columns[0].dtype, device=flat.device)
            for one in parameters:
                start = one.data.storage_offset() - flat.storage_offset()
                column[start : start + one.numel()] = by_parameter[one].flatten()
            mine = parts[torch.distributed.get_rank()]
            start = mine.storage_offset() - flat.storage_offset()
            cut.append(column[start : start + master.numel()])
        return cut

    def _whole(self, parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
        """Whole parameters that may be written to: at stage 3 rank 0's values are shared out on leaving."""
        if self._stage < 3:
            return nullcontext()
        import deepspeed

        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters, modifier_rank=0)
        return gathered


class _Root(nn.Module):
    """The module that DeepSpeed hooks: its forward runs a closure, so that any computation on the model is inside."""

    def __init__(self, model: nn.Module, shared: list[nn.Parameter]) -> None:
        super().__init__()
        self.model = model
        self.shared = shared

    def forward(self, compute: Compute) -> Tensor:
        return compute()


class _ClippedAdam(torch.optim.AdamW):
    """AdamW that clips and refuses what is not finite: at stage 0 DeepSpeed leaves both to its optimizer."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, lr=0.0, weight_decay=0.0, fused=True)
        self.clip_grad = 1.0
        self.overflow = False
        self._global_grad_norm = 0.0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update, or none and `overflow`."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self._global_grad_norm = clip_in_place(gradients, self.clip_grad)
        self.overflow = math.isnan(self._global_grad_norm)
        if not self.overflow:
            super().step()


BUCKET = 500_000_000
"""DeepSpeed's own `reduce_bucket_size`, in elements: stage 3 takes 2 GB for it at once, however small the model."""
SMALLEST_BUCKET = 1 << 20


def bucket(model: nn.Module) -> int:
    """Elements that are reduced together: the whole model, where it is smaller than DeepSpeed's bucket."""
    return min(BUCKET, max(SMALLEST_BUCKET, sum(_elements(one) for one in model.parameters())))


def _elements(parameter: nn.Parameter) -> int:
    """Also of one that stage 3 has parted among ranks already."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _config(zero_stage: int, half: bool, reduced: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        # Stage 0 clips in its optimizer; the others read clip_grad, which `begin` sets.
        "gradient_clipping": 0.0 if zero_stage == 0 else 1.0,
        "zero_optimization": {"stage": zero_stage, "overlap_comm": False, "reduce_bucket_size": reduced},
        "bf16": {"enabled": half, "check_grad_overflow": half},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }


def _initialize(root: _Root, adam: torch.optim.AdamW, config: dict[str, Any]) -> Any:
    if next(root.parameters()).device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    # Compiling the shared-memory all-reduce takes 40 s and leaks shared memory; gloo and NCCL do without.
    for name in ("deepspeed_shm_comm", "shm_comm"):
        deepspeed.ops.__compatible_ops__[name] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    engine, *_ = deepspeed.initialize(model=root, optimizer=adam, config=config, dist_init_required=False)
    if config["zero_optimization"]["stage"] == 3:
        for parameter in root.shared:
            deepspeed.zero.register_external_parameter(root, parameter)
    return engine
