"""Braid's orchestrator: who does what when."""
