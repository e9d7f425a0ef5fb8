"""Deploy: a pipeline as a Ray job or a KubeRay manifest. Knows the config alone, never the parts that run it."""
