"""What changes in a pipeline that runs, or is measured, in one process."""

HERE = (
    "resources.rollout.engine=torch",
    "resources.rollout.replicas=1",
    "resources.frozen.engine=torch",
    "resources.frozen.replicas=1",
    "resources.learner.engine=torch",
    "resources.learner.zero_stage=0",
    "resources.learner.replicas=1",
    "resources.scorer.replicas=1",
    "resources.judge.engine=torch",
    "resources.judge.replicas=1",
)
"""As `--set` has them."""
