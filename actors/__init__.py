"""Actors: thin shells round pure cores. Ray lives in cluster.py alone, vLLM in vllm_engine.py alone."""
