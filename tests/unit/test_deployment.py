"""Deployment files keep what they promise: nobody is root, secrets are named and not written, and draining has time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from holdfast.config.model import Config
from tests.unit.kubernetes_rules import schema_of

DEPLOY = Path(__file__).parents[2] / "deploy"
DRAIN_S = Config().gateway.drain_s
SECRET = re.compile(r"(password|token|secret|key)$", re.IGNORECASE)


def kubernetes() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/holdfast.yaml").read_text())
    return {one["kind"]: one for one in documents}


def pod() -> dict[str, Any]:
    return kubernetes()["Deployment"]["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    [one] = pod()["containers"]
    return one


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())


def unit() -> list[tuple[str, str]]:
    lines = (DEPLOY / "systemd/holdfast.service").read_text().splitlines()
    return [
        (key, value) for line in lines if not line.startswith("#") for key, eq, value in [line.partition("=")] if eq
    ]


def test_a_pod_has_time_to_drain_after_it_left_the_service() -> None:
    before = container()["lifecycle"]["preStop"]["exec"]["command"][-1]
    waits_s = float(re.search(r"sleep\((\d+)\)", before).group(1))
    assert pod()["terminationGracePeriodSeconds"] > DRAIN_S + waits_s
    assert kubernetes()["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert kubernetes()["PodDisruptionBudget"]["spec"]["minAvailable"] >= 1


def test_a_pod_is_asked_whether_it_lives_and_apart_from_that_whether_it_takes_input() -> None:
    probes = {
        name: container()[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert probes == {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    [port] = container()["ports"]
    assert (port["name"], port["containerPort"]) == ("http", Config().gateway.port)
    assert kubernetes()["Service"]["spec"]["ports"][0]["targetPort"] == "http"


def test_a_pod_is_nobody_and_may_do_nothing() -> None:
    every, own = pod()["securityContext"], container()["securityContext"]
    assert [one["securityContext"] for one in pod()["initContainers"]] == [own]
    assert every["runAsNonRoot"] is True
    assert every["runAsUser"] > 0
    assert every["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod()["automountServiceAccountToken"] is False
    assert container()["resources"]["limits"]["memory"]
    mounted = {one["name"] for box in (container(), *pod()["initContainers"]) for one in box["volumeMounts"]}
    assert mounted == {one["name"] for one in pod()["volumes"]}


def test_what_selects_pods_finds_them() -> None:
    labels = kubernetes()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes()["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kubernetes()["Service"]["spec"]["selector"] == labels
    assert kubernetes()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def test_secrets_are_named_and_never_written() -> None:
    for one in container()["env"]:
        if SECRET.search(one["name"]):
            assert "secretKeyRef" in one["valueFrom"], one
    assert not re.search(r"://[^@/\s]*:[^@/\s]+@", (DEPLOY / "kubernetes/holdfast.yaml").read_text())
    assert not re.search(r"://[^@/\s]*:[^@/\s]+@", (DEPLOY / "docker/compose.yaml").read_text())
    for name, service in compose()["services"].items():
        for key, value in service.get("environment", {}).items():
            assert not SECRET.search(key) or str(value).startswith("/run/secrets/"), (name, key)


def test_two_gateways_of_a_compose_file_wait_for_their_database_and_drain() -> None:
    services = compose()["services"]
    gateways = [services[name] for name in services if name.startswith("gateway")]
    assert len(gateways) == 2
    for one in gateways:
        assert float(one["stop_grace_period"].removesuffix("s")) > DRAIN_S
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["user"].split(":")[0] != "0"
        assert one["depends_on"]["postgres"]["condition"] == "service_healthy"
        assert all(port.startswith("127.0.0.1:") for port in one["ports"])
        assert set(one["secrets"]) <= set(compose()["secrets"])
        assert one["entrypoint"][-1].rstrip().endswith("exec holdfast --json up")  # process 1 hears SIGTERM
        assert subprocess.run(["sh", "-n", "-c", one["entrypoint"][-1].replace("$$", "$")], check=False).returncode == 0
    assert len({port for one in gateways for port in one["ports"]}) == 2


def test_the_image_runs_as_nobody_and_hears_the_signal_that_drains() -> None:
    lines = [line.split(None, 1) for line in (DEPLOY / "docker/Dockerfile").read_text().splitlines() if line.strip()]
    said = {line[0]: line[1] for line in lines if len(line) == 2}
    assert int(said["USER"].split(":")[0]) > 0
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["ENTRYPOINT"].startswith("[")  # no shell between
    assert said["EXPOSE"] == str(Config().gateway.port)


def test_a_unit_drains_and_stays_down_when_starting_again_helps_nothing() -> None:
    said = dict(unit())
    assert float(said["TimeoutStopSec"]) > DRAIN_S
    assert said["KillSignal"] == "SIGTERM"
    assert set(said["RestartPreventExitStatus"].split()) == {"69", "78"}
    assert said["User"] not in ("", "root")
    assert (said["ProtectSystem"], said["NoNewPrivileges"], said["UMask"]) == ("strict", "yes", "0077")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """The program that it starts is not installed here; all else is judged."""
    text = (DEPLOY / "systemd/holdfast.service").read_text().replace("/opt/holdfast/bin/holdfast", "/bin/true")
    file = tmp_path / "holdfast.service"
    file.write_text(text)
    told = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert "holdfast.service:" not in told.stderr, told.stderr


def faults_of(document: Any) -> list[str]:
    """What the API server would say of a document."""
    rules = jsonschema.Draft202012Validator(schema_of(document["kind"]))
    return [f"{one.json_path}: {one.message}" for one in rules.iter_errors(document)]


def test_every_document_is_one_that_kubernetes_takes() -> None:
    for document in yaml.safe_load_all((DEPLOY / "kubernetes/holdfast.yaml").read_text()):
        assert faults_of(document) == [], document["kind"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("livenesProbe", "livenessProbe"),
        ("terminationGracePeriodSecond", "terminationGracePeriodSeconds"),
        ("failureThreshold: six", "failureThreshold: 6"),
        ("{memory: 1 GB}", "{memory: 1Gi}"),
        ("apiVersion: apps/v1beta1", "apiVersion: apps/v1"),
        ("mountPath: tmp", "mountPath: /tmp"),
        ("name: Token", "name: token"),
        ("whenUnsatisfiable: Perhaps", "whenUnsatisfiable: ScheduleAnyway"),
    ],
)
def test_a_mistake_in_a_manifest_would_be_found(wrong: str, right: str) -> None:
    text = (DEPLOY / "kubernetes/holdfast.yaml").read_text()
    assert right in text
    documents = list(yaml.safe_load_all(text.replace(right, wrong, 1)))
    assert any(faults_of(one) for one in documents)


def check_compose(file: Path) -> subprocess.CompletedProcess[str]:
    """Against the published schema of compose files, which comes with the tool."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    return subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", file], capture_output=True, text=True, check=False
    )


def test_the_compose_file_is_one_by_the_published_schema(tmp_path: Path) -> None:
    told = check_compose(DEPLOY / "docker/compose.yaml")
    assert told.returncode == 0, told.stdout + told.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DEPLOY / "docker/compose.yaml").read_text().replace("stop_grace_period", "stop_grace_perod"))
    assert check_compose(wrong).returncode != 0


INSTRUCTIONS = {
    "FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD", "LABEL",
}  # fmt: skip


def test_the_dockerfile_is_whole() -> None:
    """Instructions that exist, stages that are there, no root at the end, nothing fetched by `ADD`, a pinned base."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "docker/Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert all(len(line) == 2 and line[0] in INSTRUCTIONS for line in lines), lines
    assert lines[0][0] in ("FROM", "ARG")
    bases = [said.split() for word, said in lines if word == "FROM"]
    stages = {one[2] for one in bases if len(one) == 3 and one[1].upper() == "AS"}
    assert all(":" in one[0] and not one[0].endswith(":latest") for one in bases if one[0] not in stages), bases
    for said in (said for word, said in lines if word == "COPY"):
        named = re.search(r"--from=(\S+)", said)
        assert named is None or named[1] in stages or ":" in named[1], said
        if named is None:
            sources = [one for one in said.split() if not one.startswith("--")][:-1]
            assert all((DEPLOY.parent / one).exists() for one in sources), said
    words = [word for word, _ in lines]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert words.count("ENTRYPOINT") == 1
