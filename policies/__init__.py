"""The maths of Braid: records, credit, kernels and the learner's step. Knows neither verifiers nor Ray."""
