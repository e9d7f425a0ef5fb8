"""The manifest says what the pipeline asked for, and KubeRay's own schema and rules accept it."""

import copy
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from deploy.attempt import command
from deploy.manifest import RAY_VERSION, manifest, roles
from orchestrator.config import Pipeline

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT.parent / "shared" / "kuberay"
"""KubeRay 1.7's published schemas, which Braid does not carry; without them the rules below still run."""


def pipeline(**changes: Any) -> Pipeline:
    base: dict[str, Any] = {"name": "quickstart", "stages": [{"name": "s", "recipe": {"kind": "grpo"}, "steps": 2}]}
    return Pipeline.model_validate(base | changes)


def documents(chosen: Pipeline | None = None, **arguments: Any) -> dict[str, Any]:
    defaults = {"path": "examples/quickstart.yaml", "image": "registry.example/braid:0.1.0"}
    text = manifest(chosen or pipeline(), **(defaults | arguments))
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def closed(schema: Any) -> Any:
    """The schema with every object closed, so that an unknown key is a fault and not silently pruned."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        out["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        out = {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": schema.get("pattern", "")}
    return out


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    file = SCHEMAS / "ray.io_rayjobs.yaml"
    if not file.is_file():
        pytest.skip("KubeRay's schemas are not beside the checkout")
    crd = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
    spec = closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return Draft202012Validator(spec)


def faults(job: dict[str, Any]) -> list[str]:
    """What KubeRay's operator refuses, or ignores to one's cost, though its schema lets it pass."""
    name, spec = job["metadata"]["name"], job["spec"]
    shutdown, ttl = spec.get("shutdownAfterJobFinishes", False), spec.get("ttlSecondsAfterFinished", 0)
    mode = spec.get("submissionMode", "K8sJobMode")
    found = {
        "name": len(name) > 47 or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name),
        "ttl is negative": ttl < 0,
        "ttl without shutdown": ttl > 0 and not shutdown,
        "backoffLimit is negative": spec.get("backoffLimit", 0) < 0,
        "submissionMode": mode not in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"),
        "submitterPodTemplate in SidecarMode": mode == "SidecarMode" and "submitterPodTemplate" in spec,
        "deletion rules beside shutdown or ttl": "deletionStrategy" in spec and (shutdown or ttl > 0),
        "activeDeadlineSeconds": spec.get("activeDeadlineSeconds", 1) <= 0,
        "preRunningDeadlineSeconds": spec.get("preRunningDeadlineSeconds", 1) <= 0,
        "runtimeEnvYAML": not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict),
    }
    return [fault for fault, present in found.items() if present] + list(cluster_faults(spec["rayClusterSpec"]))


def cluster_faults(cluster: dict[str, Any]) -> Iterator[str]:
    auth = cluster.get("authOptions", {})
    if auth.get("mode") != "token":
        yield "authOptions.mode"
    if tuple(map(int, cluster.get("rayVersion", "0").split(".")))[:2] < (2, 52):
        yield "rayVersion is too old for tokens"
    if "enableK8sTokenAuth" in auth:
        yield "enableK8sTokenAuth in a RayJob"
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    if len(set(names)) < len(names):
        yield "two groups of one name"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        if group.get("resources") and group["rayStartParams"].keys() & {"resources", "num-cpus", "num-gpus", "memory"}:
            yield "resources twice"
        if not group["template"]["spec"]["containers"]:
            yield "a group without a container"


def test_kuberays_schema_and_rules_accept_the_manifest(schema: Draft202012Validator) -> None:
    resources = {"rollout": {"gpus": 1, "replicas": 2}, "learner": {"gpus": 0.5}, "frozen": {"gpus": 1}}
    job = documents(pipeline(resources=resources, verifier={"kind": "program"}), frozen=2)["RayJob"]
    assert [error.message for error in schema.iter_errors(job["spec"])] == []
    assert faults(job) == []


def head(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(shutdownAfterJobFinish=True),
        lambda job: job["spec"]["rayClusterSpec"].update(workerGroupSpec=[]),
        lambda job: job["spec"].update(backoffLimit="two"),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="tokens"),
        lambda job: head(job).update(imagee="x"),
        lambda job: head(job)["resources"]["limits"].update(memory="8 gigabytes"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].pop("containers"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="1"),
    ],
)
def test_a_typo_in_the_manifest_is_refused(
    schema: Draft202012Validator, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    job = copy.deepcopy(documents()["RayJob"])
    spoil(job)
    assert list(schema.iter_errors(job["spec"]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["metadata"].update(name="a" * 48),
        lambda job: job["metadata"].update(name="Quick_start"),
        lambda job: job["spec"].pop("shutdownAfterJobFinishes"),
        lambda job: job["spec"].update(backoffLimit=-1),
        lambda job: job["spec"].update(submissionMode="K8SJobMode"),
        lambda job: job["spec"].update(submissionMode="SidecarMode"),
        lambda job: job["spec"].update(deletionStrategy={"deletionRules": []}),
        lambda job: job["spec"].update(activeDeadlineSeconds=0),
        lambda job: job["spec"].update(runtimeEnvYAML="- a list"),
        lambda job: job["spec"]["rayClusterSpec"].update(rayVersion="2.51.1"),
        lambda job: job["spec"]["rayClusterSpec"].pop("authOptions"),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(enableK8sTokenAuth=True),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(resources={"CPU": "1"}),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1].update(groupName="rollout"),
    ],
)
def test_what_the_schema_lets_pass_the_rules_refuse(spoil: Callable[[dict[str, Any]], Any]) -> None:
    job = copy.deepcopy(documents()["RayJob"])
    assert faults(job) == []
    spoil(job)
    assert len(faults(job)) == 1


def test_the_head_does_no_work_and_each_role_has_its_group() -> None:
    resources = {
        "rollout": {"replicas": 3, "threads": 8},
        "learner": {"replicas": 2, "gpus": 1},
        "scorer": {"replicas": 4},
    }
    cluster = documents(pipeline(resources=resources))["RayJob"]["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert {name: group["replicas"] for name, group in groups.items()} == {"rollout": 3, "learner": 2, "scorer": 4}
    limits = {n: g["template"]["spec"]["containers"][0]["resources"]["limits"] for n, g in groups.items()}
    assert limits["rollout"]["cpu"] == "8"
    assert limits["learner"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["rollout"]


def test_each_group_advertises_its_role_through_kuberays_shell() -> None:
    for group in documents(frozen=1)["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (word,) = shlex.split(group["rayStartParams"]["resources"])
        assert json.loads(word) == {f"braid_{group['groupName']}": 1}


@pytest.mark.parametrize(
    ("recipes", "models"),
    [
        ([{"kind": "grpo"}], 0),
        ([{"kind": "grpo", "kl": 0.01}, {"kind": "grpo", "kl": 0.02}], 1),
        (
            [
                {"kind": "on_policy_distillation", "teacher": "/runs/a"},
                {"kind": "on_policy_distillation", "teacher": "/b"},
            ],
            2,
        ),
        ([{"kind": "grpo", "kl": 0.01}, {"kind": "on_policy_distillation", "teacher": "/runs/a"}], 2),
    ],
)
def test_frozen_pods_are_one_for_each_model_that_the_recipes_hold(recipes: list[dict[str, Any]], models: int) -> None:
    stages = [{"name": f"s{i}", "recipe": recipe, "steps": 1} for i, recipe in enumerate(recipes)]
    assert sum(role.pods for role in roles(pipeline(stages=stages)) if role.name == "frozen") == models


def test_each_stage_that_a_teacher_may_repair_has_a_pod_for_it() -> None:
    stages = [{"name": name, "recipe": {"kind": "sft"}, "steps": 2} for name in ("a", "b", "c")]
    stages[1]["contract"] = {}
    handoff = {"contract": {"pass_at_1": {"at_least": 0.5, "otherwise": "repair"}}}
    for repair, pods_ in (({}, 2), ({"recipe": {"kind": "exgrpo"}}, 0)):
        found = roles(pipeline(stages=stages, handoff=handoff | {"repair": repair}))
        assert sum(role.pods for role in found if role.name == "frozen") == pods_


def pods(found: dict[str, Any]) -> list[dict[str, Any]]:
    spec = found["RayJob"]["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


def test_no_pod_is_root_or_holds_a_service_account_token() -> None:
    for pod in pods(documents(frozen=1)):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["terminationGracePeriodSeconds"] >= 60
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_pods_that_run_a_models_programs_may_make_namespaces_and_no_others() -> None:
    programs = pipeline(verifier={"kind": "rubric", "parts": [{"kind": "program"}, {"kind": "format"}]})
    for chosen, relaxed in ((programs, {"scorer"}), (pipeline(), set())):
        groups = documents(chosen)["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        contexts = {one["groupName"]: one["template"]["spec"]["containers"][0]["securityContext"] for one in groups}
        free = {name for name, own in contexts.items() if own.get("seccompProfile") == {"type": "Unconfined"}}
        assert free == relaxed
        assert all(own["capabilities"] == {"drop": ["ALL"]} for own in contexts.values())
        assert not any(own["allowPrivilegeEscalation"] for own in contexts.values())


def test_whoever_judges_or_answers_has_pods_of_its_own() -> None:
    chosen = pipeline(
        verifier={"kind": "rubric", "parts": [{"kind": "function", "path": "/runs/reward.py"}, {"kind": "answer"}]},
        held_out_verifier={"kind": "reward_model", "path": "/runs/scores"},
        environment={"kind": "tools", "tools": ["calculator", "interpreter"], "replicas": 3},
        resources={"scorer": {"replicas": 2}, "judge": {"replicas": 2, "gpus": 1}},
    )
    found = {role.name: role for role in roles(chosen)}
    assert (found["held-out"].pods, found["environment"].pods, found["judge"].pods) == (2, 3, 2)
    assert found["judge"].gpus == 1 and found["judge"].storage
    assert (found["scorer"].storage, found["held-out"].storage) == (True, False)
    assert (found["scorer"].sandbox, found["environment"].sandbox) == (False, True)
    assert [role.name for role in roles(pipeline())] == ["rollout", "learner", "scorer"]


def test_the_network_policy_covers_every_pod_and_lets_in_nothing_else() -> None:
    found = documents(frozen=1)
    policy = found["NetworkPolicy"]["spec"]
    selected = policy["podSelector"]["matchLabels"]
    assert all(selected.items() <= pod["metadata"]["labels"].items() for pod in pods(found))
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [[rule["from"], rule.get("ports")] for rule in policy["ingress"]] == [
        [[{"podSelector": {"matchLabels": selected}}], None],
        [
            [
                {
                    "namespaceSelector": {},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
                }
            ],
            [{"port": 8265, "protocol": "TCP"}],
        ],
    ]
    assert {port["port"] for rule in policy["egress"] for port in rule.get("ports", ())} == {53}
    assert all("ipBlock" not in peer for rule in policy["egress"] for peer in rule["to"])


def test_the_pipeline_travels_whole_and_scorers_do_not_see_the_storage() -> None:
    chosen = pipeline(seed=7, stages=[{"name": "s", "recipe": {"kind": "luffy", "rollouts": 5}, "steps": 3}])
    found = documents(chosen, path="a/b/mine.yaml", storage_claim="team", namespace="lab")
    assert Pipeline.model_validate(yaml.safe_load(found["ConfigMap"]["data"]["mine.yaml"])) == chosen
    assert found["RayJob"]["spec"]["entrypoint"].split()[-2:] == ["/etc/braid/mine.yaml", "/runs/quickstart"]
    assert {document["metadata"]["namespace"] for document in found.values()} == {"lab"}
    for group in found["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        claims = [
            v["persistentVolumeClaim"]["claimName"]
            for v in group["template"]["spec"]["volumes"]
            if len(v) > 1 and "persistentVolumeClaim" in v
        ]
        assert claims == ([] if group["groupName"] == "scorer" else ["team"])


def test_ray_in_the_manifest_is_the_ray_of_the_lock() -> None:
    assert f"ray=={RAY_VERSION}" in (ROOT / "requirements" / "cpu.lock").read_text().splitlines()


def test_bad_input_names_every_fault() -> None:
    chosen = pipeline(
        model={"kind": "hf", "path": "./SmolLM2"}, prompts={"train": {"kind": "jsonl", "path": "data/train.jsonl"}}
    )
    with pytest.raises(ValueError) as caught:
        manifest(chosen, path="p.yaml", image=" ", namespace="My Space")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["namespace", "p.yaml", "p.yaml", "image"]
    assert "model.path: './SmolLM2'" in lines[1]
    assert "prompts.train.path: 'data/train.jsonl'" in lines[2]


def test_the_first_attempt_runs_and_the_next_one_resumes(tmp_path: Path) -> None:
    file, run = Path("/etc/braid/p.yaml"), tmp_path / "quickstart"
    assert command(file, run) == [sys.executable, "-m", "orchestrator", "run", str(file), "--out", str(run)]
    run.mkdir()
    assert "run" in command(file, run)
    (run / "config.yaml").write_text("name: quickstart\n")
    assert command(file, run) == [sys.executable, "-m", "orchestrator", "resume", str(run)]
