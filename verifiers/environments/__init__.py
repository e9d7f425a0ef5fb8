"""Environments: what a model acts in over several turns. Text in, text out; no tokens and no Ray."""
