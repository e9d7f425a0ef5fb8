"""Braid's step beside its floor: the same shapes in the same run, alternating, as ratios.

    python -m benchmarks.step [--model tiny|PATH] [--rounds 8]

Each round: one whole Braid step (generate, score, credit, ledger, train, publish: the real loop and actors), then the
floor on the shapes that this very step drew: vLLM's `LLM.generate` of exactly those lengths, and a plain padded torch
forward, backward, clip and AdamW over exactly those sequences. Nothing else runs meanwhile. Overhead is everything of
Braid's step that is neither its generate nor its train call; the floor's share says how far the two calls themselves
are from bare parts.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from actors import cluster
from actors.vllm_environment import environment as vllm_environment
from benchmarks.bare import BareEngine, BareTrainer
from orchestrator import build
from orchestrator.config import Pipeline
from orchestrator.ledger import RunLedger
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.run_directory import RunDirectory, environment
from policies.arrow import from_table
