"""Verifiers: text in, `Score` out. Know neither policies nor Ray."""
