"""Facts of a step that a control may wait for: which are known when, and what they can reach."""

OF_VERDICTS = frozenset({"accuracy", "reward_mean"})
"""Means over the verdicts on the learner's own rollouts."""

OF_ROLLOUTS = OF_VERDICTS | {"response_length_mean", "truncated_share"}
"""Known where the learner wrote something in the step."""

OF_TRAINING = frozenset(
    {
        "ess", "loss", "gradient_norm", "learning_rate", "share_learner", "share_demonstration", "share_teacher",
        "share_other", "on_policy_share", "staleness_mean", "seconds_train",
    }
)  # fmt: skip
"""Known where something was trained."""

OF_TIME = frozenset({"seconds", "seconds_generate", "seconds_score", "seconds_ledger", "seconds_publish"})

FACTS = OF_ROLLOUTS | OF_TRAINING | OF_TIME
"""Beside those of co-learners, `learners/NAME/loss` and the like."""

AT_MOST_ONE = frozenset(
    {
        "accuracy", "truncated_share", "share_learner", "share_demonstration", "share_teacher", "share_other",
        "on_policy_share", "ess",
    }
)  # fmt: skip
"""Shares of a whole."""
