"""Deployment files keep what they promise: nobody is root, secrets are named and not written, and draining has time."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.config.model import Config

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
