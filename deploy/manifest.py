"""`braid manifest`: a pipeline as a KubeRay RayJob, its pipeline file and its network policy, in one YAML stream.

    ConfigMap  NAME-pipeline   the resolved pipeline file, mounted at /etc/braid
    NetworkPolicy NAME         pods of this run talk to each other and to DNS; the operator reaches the dashboard
    RayJob     NAME            head (no work) + a worker group per role; each advertises `braid_<role>` to Ray

The claim's storage is mounted at /runs on every pod but those that only judge or answer, unless they read files of
the user's; the run lies in /runs/NAME, so a retry resumes it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actors.config import Resources
from orchestrator.config import FOUND, Pipeline, models_that_judge, reads_files, runs_programs

RAY_VERSION = "2.60.0"
RUNS = "/runs"
PIPELINES = "/etc/braid"
OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
STOP_SECONDS = 300
"""Time that a run gets to finish its step and commit, before its pod or its job is killed."""
PENDING_SECONDS = 3600
"""A cluster whose pods find no room within the hour ends the attempt, rather than wait for ever."""


OWN_NAMESPACES = {"seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"}}
"""A pod whose scorers run a model's programs makes user namespaces, as its own user and without a capability; the
runtime's default profiles forbid that. What runs inside them has a stricter filter than the default."""


class _Dumper(yaml.SafeDumper):
    """YAML for people: a text of several lines as a block, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write an object out each time it occurs."""
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        """A string, as a block where it has several lines."""
        return self.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _Dumper.text)


@dataclass(frozen=True, slots=True)
class Role:
    """A worker group: `pods` alike, one actor of the role in each."""

    name: str
    pods: int
    cpus: int
    memory: int
    """GiB of a pod; the share for /dev/shm, where Ray's object store lies, is inside it."""
    gpus: int = 0
    storage: bool = True
    sandbox: bool = False
    """Whether it makes sandboxes, for which the runtime's profiles leave no room."""


def manifest(
    pipeline: Pipeline,
    *,
    path: str,
    image: str,
    namespace: str = "default",
    storage_claim: str = "braid-runs",
    frozen: int | None = None,
) -> str:
    """Kubernetes documents that run `pipeline` under the KubeRay operator (v1.7); ValueError names what cannot be.

    `path` names the pipeline file, for its name in the ConfigMap. `storage_claim` is a ReadWriteMany claim. `frozen` is
    the number of models held by frozen actors; by default it is read off the recipes' teachers and KL coefficients.
    """
    faults = [*_named("namespace", namespace), *_named("storage_claim", storage_claim), *_relative(pipeline, path)]
    if not image.strip() or any(char.isspace() for char in image):
        faults.append(f"image: '{image}' names no image; give one like registry.example/braid:0.1.0")
    if faults:
        raise ValueError("\n".join(faults))
    name, file = pipeline.name, Path(path).name
    documents = [
        _config_map(pipeline, file, namespace),
        _network_policy(name, namespace),
        _ray_job(pipeline, file, _Pods(name, image, storage_claim), namespace, roles(pipeline, frozen)),
    ]
    about = f"# {name}: written by `braid manifest {file}`. Apply with `kubectl apply -f`; see docs/deploy.md.\n"
    return about + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)


def roles(pipeline: Pipeline, frozen: int | None = None) -> tuple[Role, ...]:
    """The worker groups that the pipeline's resources ask for; memory is a starting point, not a measurement."""
    has: Resources = pipeline.resources
    found = [
        Role("rollout", has.rollout.replicas, has.rollout.threads or 4, 16, math.ceil(has.rollout.gpus)),
        Role("learner", has.learner.replicas, has.learner.threads or 4, 32, math.ceil(has.learner.gpus)),
        *_judging(pipeline),
    ]
    models = _frozen_models(pipeline) if frozen is None else frozen
    if models:
        pods = models * has.frozen.replicas
        found.append(Role("frozen", pods, has.frozen.threads or 4, 16, math.ceil(has.frozen.gpus)))
    return tuple(found)


def _judging(pipeline: Pipeline) -> Iterator[Role]:
    """Scorers, the models that they ask, and the actors that hold an environment's episodes."""
    has, running, reading = pipeline.resources, runs_programs(pipeline), reads_files(pipeline)
    pods = {"scorer": has.scorer.replicas}
    if pipeline.held_out_verifier is not None:
        pods["held-out"] = has.scorer.replicas
    if pipeline.environment is not None:
        pods["environment"] = pipeline.environment.replicas
    for name, count in pods.items():
        yield Role(name, count, 2, 4, storage=name in reading, sandbox=name in running)
    if models := len(models_that_judge(pipeline)):
        yield Role("judge", models * has.judge.replicas, has.judge.threads or 4, 16, math.ceil(has.judge.gpus))


def _frozen_models(pipeline: Pipeline) -> int:
    """Teachers that recipes, demonstrations or repairs name, and one reference if any recipe has a KL coefficient."""
    chosen = [stage.recipe.model_extra or {} for stage in pipeline.stages]
    teachers = {str(extra["teacher"]) for extra in chosen if extra.get("teacher")}
    if pipeline.demonstrations is not None and pipeline.demonstrations.kind == "model":
        teachers.add("demonstrations")
    return len(teachers) + any(extra.get("kl") for extra in chosen) + _repairs(pipeline)


def _repairs(pipeline: Pipeline) -> int:
    """Stages that may be repaired by a teacher, the policy that each of them found."""
    if not (pipeline.handoff.repair.recipe.model_extra or {}).get("teacher"):
        return 0
    contracts = (pipeline.handoff.contract if one.contract is None else one.contract for one in pipeline.stages)
    return sum(any(term.otherwise == "repair" for term in own.values()) for own in contracts)


def _named(key: str, value: str) -> list[str]:
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        return []
    return [f"{key}: '{value}' is no Kubernetes name; use lower-case letters, digits and dashes, at most 63"]


def _relative(pipeline: Pipeline, path: str) -> Iterator[str]:
    """Paths that would be looked for beside the pipeline file, where the cluster has nothing."""

    def walk(node: Any, key: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                yield from walk(value, f"{key}.{name}" if key else name)
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from walk(value, f"{key}[{index}]")
        elif key.endswith((".path", ".teacher")) and isinstance(node, str) and not _placed(node):
            yield f"{path}: {key}: '{node}' is relative, and the cluster has no such file; put it on the claim, {RUNS}/"

    yield from walk(pipeline.model_dump(mode="json"), "")


def _placed(path: str) -> bool:
    """Whether it is the same place wherever the pipeline file lies, or none."""
    return path.startswith(("/", "stage:")) or path in ("self", FOUND)


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "braid", "app.kubernetes.io/instance": name}


def _metadata(name: str, run: str, namespace: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": _labels(run)}


def _config_map(pipeline: Pipeline, file: str, namespace: str) -> dict[str, Any]:
    text = yaml.safe_dump(pipeline.model_dump(mode="json"), sort_keys=False, width=120)
    metadata = _metadata(f"{pipeline.name}-pipeline", pipeline.name, namespace)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {file: text}}


def _network_policy(name: str, namespace: str) -> dict[str, Any]:
    """Everything that is not listed is denied, in both directions."""
    ours = {"podSelector": {"matchLabels": _labels(name)}}
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR}}
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    spec = {
        "podSelector": {"matchLabels": _labels(name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [ours]}, {"from": [operator], "ports": [{"port": 8265, "protocol": "TCP"}]}],
        "egress": [{"to": [ours]}, {"to": [dns], "ports": ports}],
    }
    metadata = _metadata(name, name, namespace)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _ray_job(pipeline: Pipeline, file: str, pods: "_Pods", namespace: str, groups: tuple[Role, ...]) -> dict[str, Any]:
    head = Role("head", 1, 2, 8)
    cluster = {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": pods.template(head),
        },
        "workerGroupSpecs": [pods.group(role) for role in groups],
    }
    spec = {
        "entrypoint": f"python -m deploy.attempt {PIPELINES}/{file} {RUNS}/{pipeline.name}",
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "preRunningDeadlineSeconds": PENDING_SECONDS,
        "backoffLimit": 2,
        "submitterPodTemplate": pods.submitter(),
        "rayClusterSpec": cluster,
    }
    metadata = _metadata(pipeline.name, pipeline.name, namespace)
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


@dataclass(frozen=True, slots=True)
class _Pods:
    """What the pods of one run share."""

    run: str
    image: str
    claim: str

    def group(self, role: Role) -> dict[str, Any]:
        """A worker group; the doubled quotes are KubeRay's, which passes the value through a shell."""
        return {
            "groupName": role.name,
            "replicas": role.pods,
            "minReplicas": role.pods,
            "maxReplicas": role.pods,
            "rayStartParams": {"resources": f'"{{\\"braid_{role.name}\\": 1}}"'},
            "template": self.template(role),
        }

    def template(self, role: Role) -> dict[str, Any]:
        """A Ray pod of the role."""
        shared = {"medium": "Memory", "sizeLimit": f"{math.ceil(role.memory * 0.4)}Gi"}
        volumes: list[dict[str, Any]] = [{"name": "shared-memory", "emptyDir": shared}]
        mounts: list[dict[str, Any]] = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
        if role.storage:
            volumes.append({"name": "runs", "persistentVolumeClaim": {"claimName": self.claim}})
            mounts.append({"name": "runs", "mountPath": RUNS})
        if role.name == "head":
            volumes.append({"name": "pipeline", "configMap": {"name": f"{self.run}-pipeline"}})
            mounts.append({"name": "pipeline", "mountPath": PIPELINES, "readOnly": True})
        size: dict[str, str | int] = {"cpu": str(role.cpus), "memory": f"{role.memory}Gi"}
        if role.gpus:
            size["nvidia.com/gpu"] = role.gpus
        environment = QUIET | ({"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)} if role.name == "head" else {})
        container = self._container(f"ray-{role.name}", size, environment) | {"volumeMounts": mounts}
        if role.sandbox:
            container["securityContext"] |= OWN_NAMESPACES
        return self._pod(container, volumes)

    def submitter(self) -> dict[str, Any]:
        """The pod that hands the job to the cluster and follows its log; KubeRay gives it the command and the token."""
        pod = self._pod(self._container("ray-job-submitter", {"cpu": "500m", "memory": "1Gi"}, QUIET), [])
        pod["spec"]["restartPolicy"] = "Never"
        return pod

    def _container(self, name: str, size: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
        return {
            "name": name,
            "image": self.image,
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "resources": {"requests": dict(size), "limits": dict(size)},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }

    def _pod(self, container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
        security = {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        spec = {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": STOP_SECONDS,
            "securityContext": security,
            "containers": [container],
            "volumes": volumes,
        }
        return {"metadata": {"labels": _labels(self.run)}, "spec": spec}
