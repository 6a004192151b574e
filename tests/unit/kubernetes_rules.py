"""What the API server of Kubernetes (1.30) takes, of the kinds and fields that `deploy/kubernetes` uses: which fields
there are and of which type. A field that is not here is refused, as the server does with `--validate=strict`; a field
that is added to the manifest is added here from the reference (https://kubernetes.io/docs/reference/kubernetes-api/).
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
FROM_ROOT = {"type": "string", "pattern": "^/"}
COUNT = {"type": "integer", "minimum": 0}
BOOL = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
PORT = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, NAME]}


def exactly(required: str = "", **fields: Any) -> dict[str, Any]:
    """An object of these fields and no others."""
    return {
        "type": "object", "properties": fields, "required": required.split(), "additionalProperties": False,
    }  # fmt: skip


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


METADATA = exactly("name", name=NAME, labels=TEXTS)
SELECTOR = exactly("matchLabels", matchLabels=TEXTS)
PROBE = exactly(
    "httpGet", httpGet=exactly("path port", path=TEXT, port=PORT), periodSeconds=COUNT, failureThreshold=COUNT,
    timeoutSeconds=COUNT,
)  # fmt: skip
AMOUNTS = {"type": "object", "propertyNames": {"enum": ["cpu", "memory", "ephemeral-storage"]},
           "additionalProperties": QUANTITY}  # fmt: skip
KEY_OF = exactly("name key", name=NAME, key=TEXT)
CONTAINER = exactly(
    "name image", name=NAME, image=TEXT, command=many(TEXT), args=many(TEXT),
    envFrom=many(exactly(configMapRef=exactly("name", name=NAME), secretRef=exactly("name", name=NAME))),
    env=many(exactly("name", name=TEXT, value={"type": "string"}, valueFrom=exactly(secretKeyRef=KEY_OF))),
    ports=many(exactly("containerPort", name=NAME, containerPort=PORT)),
    startupProbe=PROBE, readinessProbe=PROBE, livenessProbe=PROBE,
    lifecycle=exactly(preStop=exactly(exec=exactly("command", command=many(TEXT)))),
    resources=exactly(requests=AMOUNTS, limits=AMOUNTS),
    securityContext=exactly(
        allowPrivilegeEscalation=BOOL, readOnlyRootFilesystem=BOOL, capabilities=exactly(drop=many(TEXT))
    ),
    volumeMounts=many(exactly("name mountPath", name=NAME, mountPath=FROM_ROOT, readOnly=BOOL)),
)  # fmt: skip
VOLUME = {
    **exactly(
        "name", name=NAME, emptyDir=exactly(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
        secret=exactly("secretName", secretName=NAME, defaultMode={"type": "integer", "minimum": 0, "maximum": 0o777},
                       items=many(exactly("key path", key=TEXT, path=TEXT))),
    ),
    "minProperties": 2, "maxProperties": 2,
}  # fmt: skip
POD = exactly(
    "containers", terminationGracePeriodSeconds=COUNT, automountServiceAccountToken=BOOL,
    securityContext=exactly(
        runAsNonRoot=BOOL, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT,
        seccompProfile=exactly("type", type={"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}),
    ),
    topologySpreadConstraints=many(exactly(
        "maxSkew topologyKey whenUnsatisfiable", maxSkew={"type": "integer", "minimum": 1}, topologyKey=TEXT,
        whenUnsatisfiable={"enum": ["DoNotSchedule", "ScheduleAnyway"]}, labelSelector=SELECTOR,
    )),
    initContainers=many(CONTAINER), containers=many(CONTAINER), volumes=many(VOLUME),
)  # fmt: skip
AMOUNT_OF_PODS = {"anyOf": [COUNT, {"type": "string", "pattern": "^[0-9]+%$"}]}
SPEC = {
    "Deployment": exactly(
        "selector template", replicas=COUNT, selector=SELECTOR,
        strategy=exactly(
            type={"enum": ["RollingUpdate", "Recreate"]},
            rollingUpdate=exactly(maxSurge=AMOUNT_OF_PODS, maxUnavailable=AMOUNT_OF_PODS),
        ),
        template=exactly("metadata spec", metadata=exactly("labels", labels=TEXTS), spec=POD),
    ),
    "Service": exactly(
        "ports", selector=TEXTS, ports=many(exactly("port", name=NAME, port=PORT, targetPort=PORT)),
        type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    ),
    "PodDisruptionBudget": exactly("selector", minAvailable=AMOUNT_OF_PODS, selector=SELECTOR),
}  # fmt: skip
VERSIONS = {"ConfigMap": "v1", "Service": "v1", "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1"}


def schema_of(kind: str) -> dict[str, Any]:
    """The rules for a document of that kind. Raises KeyError: none are known."""
    body = {"data": TEXTS} if kind == "ConfigMap" else {"spec": SPEC[kind]}
    return exactly(
        f"apiVersion kind metadata {next(iter(body))}", apiVersion={"const": VERSIONS[kind]}, kind={"const": kind},
        metadata=METADATA, **body,
    )  # fmt: skip
