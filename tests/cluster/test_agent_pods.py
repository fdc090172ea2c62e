"""The node agent: what a pod is given, how it is run, and what its status says."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.node import Pods, TestNode, eventually, running_node
from whimbrel_testbed.kubernetes.agent.client import connect
from whimbrel_testbed.kubernetes.agent.sources import TokenJar
from whimbrel_testbed.kubernetes.agent.volumes import TokenWish
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.kubernetes.credentials import NODE_NAME

REPORT = """
import json, os, pathlib, sys, urllib.request, ssl
folders = sys.argv[1:]
files = {f"{i}/{p.relative_to(d)}": [p.read_text(), oct(p.stat().st_mode & 0o777)]
         for i, d in enumerate(folders) for p in pathlib.Path(d).iterdir() if not p.name.startswith("..")}
context = ssl.create_default_context(cafile=folders[2] + "/ca.crt")
url = "https://%s:%s/api/v1/nodes" % (os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"])
token = pathlib.Path(folders[2], "token").read_text()
try:
    urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Bearer " + token}), context=context)
except urllib.error.HTTPError as error:
    answer = json.load(error)["message"]
print(json.dumps({"environment": dict(os.environ), "files": files, "answer": answer}))
"""


@pytest.fixture(scope="module")
def node(cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestNode]:
    with running_node(cluster, tmp_path_factory.mktemp("agent")) as started:
        yield started


@pytest.fixture
def pods(node: TestNode, namespace: str) -> Pods:
    return Pods(node, namespace)


def test_the_node_says_what_it_is(node: TestNode) -> None:
    found = json.loads(node.cluster.kubectl("get", "node", node.name, "-o", "json"))
    assert found["metadata"]["annotations"]["whimbrel.dev/node-agent"] == "processes-not-containers"
    assert found["status"]["nodeInfo"]["kubeletVersion"] == "processes-not-containers"
    lease = ("-n", "kube-node-lease", "get", "lease", node.name, "-o", "jsonpath={.spec.renewTime}")
    before = node.cluster.kubectl(*lease)
    eventually(lambda: node.cluster.kubectl(*lease) > before)


def test_a_pod_is_given_environment_volumes_and_a_token(pods: Pods, tmp_path: Path) -> None:
    pods.kubectl("create", "secret", "generic", "keys", "--from-literal=password=swordfish", "--from-literal=other=x")
    pods.kubectl("create", "configmap", "plain", "--from-literal=MODE=fast", "--from-literal=SIZE=3")
    script = yaml.safe_dump(REPORT, default_style='"', width=10**6).strip()
    pods.create("report", f"""
      containers:
      - command: [python, -c, {script}]
        args: [/etc/keys, /etc/plain, /var/run/access, /etc/about]
        envFrom: [{{configMapRef: {{name: plain}}}}, {{secretRef: {{name: nowhere, optional: true}}}}]
        env:
        - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}}
        - {{name: ADDRESS, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        - {{name: COLOUR, valueFrom: {{fieldRef: {{fieldPath: "metadata.labels['colour']"}}}}}}
        - {{name: LISTEN, value: "0.0.0.0:80 $(ADDRESS) $$(ADDRESS) $(MODE) $(NOBODY) /etc/keys/password"}}
        - {{name: ABSENT, valueFrom: {{configMapKeyRef: {{name: plain, key: absent, optional: true}}}}}}
        volumeMounts:
        - {{name: keys, mountPath: /etc/keys}}
        - {{name: plain, mountPath: /etc/plain/}}
        - {{name: access, mountPath: /var/run/access}}
        - {{name: about, mountPath: /etc/about}}
      volumes:
      - {{name: keys, secret: {{secretName: keys, defaultMode: 0400, items: [{{key: password, path: password}}]}}}}
      - {{name: plain, configMap: {{name: plain}}}}
      - {{name: about, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
      - name: access
        projected:
          sources:
          - {{serviceAccountToken: {{path: token, expirationSeconds: 700}}}}
          - {{configMap: {{name: kube-root-ca.crt, items: [{{key: ca.crt, path: ca.crt}}]}}}}
    """, labels={"colour": "grey"})  # fmt: skip
    pod = pods.phase("report", "Succeeded", "Failed")
    log = pods.logs("report")
    assert pod["status"]["phase"] == "Succeeded", log
    said = json.loads(log)
    ip, environment, files = pod["status"]["podIP"], said["environment"], said["files"]
    assert ip.startswith("127.")
    folder = environment["LISTEN"].split()[-1].removesuffix("/password")
    assert environment["LISTEN"] == f"{ip}:80 {ip} $(ADDRESS) fast $(NOBODY) {folder}/password"
    assert (environment["PASSWORD"], environment["COLOUR"], environment["SIZE"]) == ("swordfish", "grey", "3")
    assert "ABSENT" not in environment
    assert not {name for name in environment if name.startswith(("PYTEST", "KUBECONFIG", "PYTHON"))}
    assert files["0/password"] == ["swordfish", "0o400"]
    assert "0/other" not in files
    assert files["1/MODE"] == ["fast", "0o644"]
    assert files["3/labels"][0] == 'colour="grey"'
    assert f"system:serviceaccount:{pods.namespace}:default" in said["answer"]
    claims = json.loads(urlsafe_b64decode(files["2/token"][0].split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 700
    assert claims["kubernetes.io"]["pod"]["name"] == "report"


def test_a_rotated_secret_reaches_a_running_pod(pods: Pods) -> None:
    pods.kubectl("create", "secret", "generic", "keys", "--from-literal=password=one")
    pods.create("reader", """
      containers:
      - command: [sh, -c, 'echo began; until grep -q two /etc/keys/password; do sleep 0.05; done; cat /etc/keys/extra']
        volumeMounts: [{name: keys, mountPath: /etc/keys}]
      volumes: [{name: keys, secret: {secretName: keys}}]
    """)  # fmt: skip
    eventually(lambda: "began" in pods.logs("reader") if pods.phase("reader", "Running") else False)
    began = time.monotonic()
    pods.kubectl("patch", "secret", "keys", "-p", json.dumps({"stringData": {"password": "two", "extra": "more"}}))
    pods.phase("reader", "Succeeded")
    assert time.monotonic() - began < 5
    assert pods.logs("reader") == "began\nmore"


def test_a_missing_secret_keeps_the_pod_waiting_until_it_comes(pods: Pods) -> None:
    pods.create("patient", """
      containers:
      - command: [cat, /etc/late/word]
        env: [{name: NAME, valueFrom: {configMapKeyRef: {name: late, key: name}}}]
        volumeMounts: [{name: late, mountPath: /etc/late}, {name: never, mountPath: /etc/never}]
      volumes: [{name: late, secret: {secretName: late}}, {name: never, secret: {secretName: never, optional: true}}]
    """)  # fmt: skip
    assert pods.state("patient", "waiting")["reason"] == "ContainerCreating"
    eventually(lambda: 'Secret "late" not found' in pods.events("patient").get("FailedMount", ""))
    assert pods.conditions("patient")["Ready"] == "False"
    pods.kubectl("create", "secret", "generic", "late", "--from-literal=word=hello")
    eventually(lambda: pods.state("patient", "waiting")["reason"] == "CreateContainerConfigError")
    assert 'ConfigMap "late" not found' in pods.state("patient", "waiting")["message"]
    pods.kubectl("create", "configmap", "late", "--from-literal=name=x")
    pods.phase("patient", "Succeeded")
    assert pods.logs("patient") == "hello"


def test_init_containers_run_in_order_and_share_scratch(pods: Pods) -> None:
    pods.create("steps", """
      initContainers:
      - {name: one, command: [sh, -c, 'echo one >> /scratch/steps'], volumeMounts: [{name: work, mountPath: /scratch}]}
      - {name: two, command: [sh, -c, 'echo two >> /scratch/steps'], volumeMounts: [{name: work, mountPath: /scratch}]}
      containers:
      - {name: main, command: [cat, /scratch/steps], volumeMounts: [{name: work, mountPath: /scratch}]}
      - {name: also, command: [sh, -c, 'echo said > /dev/termination-log; kill -9 $$$$']}
      volumes: [{name: work, emptyDir: {}}]
    """)  # fmt: skip
    status = pods.phase("steps", "Failed")["status"]
    assert pods.logs("steps", "-c", "main") == "one\ntwo\n"
    assert [one["state"]["terminated"]["reason"] for one in status["initContainerStatuses"]] == ["Completed"] * 2
    ended = status["containerStatuses"][1]["state"]["terminated"]
    assert (ended["exitCode"], ended["signal"], ended["reason"]) == (137, 9, "Error")
    assert ended["message"] == "said\n"
    assert status["observedGeneration"] == 1


def test_a_container_that_fails_is_started_again_with_a_pause(pods: Pods) -> None:
    pods.create("stubborn", """
      restartPolicy: OnFailure
      containers:
      - command: [sh, -c, 'echo x >> /scratch/n; n=$(wc -l < /scratch/n); echo run $n; [ $n -ge 3 ] || exit 7']
        terminationMessagePolicy: FallbackToLogsOnError
        volumeMounts: [{name: work, mountPath: /scratch}]
      volumes: [{name: work, emptyDir: {}}]
    """)  # fmt: skip
    assert pods.state("stubborn", "waiting")["reason"] in {"ContainerCreating", "CrashLoopBackOff"}
    [status] = pods.phase("stubborn", "Succeeded")["status"]["containerStatuses"]
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 7
    assert status["lastState"]["terminated"]["message"] == "run 2\n"
    assert pods.logs("stubborn") == "run 3\n"
    assert pods.logs("stubborn", "--previous") == "run 2\n"


def test_what_cannot_start_says_why(pods: Pods) -> None:
    pods.create("empty", "containers: [{}]")
    pods.create("lost", "containers: [{command: [no-such-program]}]")
    waiting = pods.state("empty", "waiting")
    eventually(lambda: pods.state("empty", "waiting")["reason"] == "CreateContainerError")
    waiting = pods.state("empty", "waiting")
    assert "has no images" in waiting["message"]
    ended = pods.phase("lost", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert "no-such-program" in ended["message"]


def test_a_deployment_becomes_available_by_its_readiness(pods: Pods) -> None:
    """Both replicas listen on one port of "every" address: each has an address of its own."""
    template = pods.spec("""
      restartPolicy: Always
      containers:
      - command: [python, -m, http.server, "8080", --bind, 0.0.0.0, --directory, /srv]
        ports: [{name: web, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1}
        volumeMounts: [{name: srv, mountPath: /srv}]
      volumes: [{name: srv, emptyDir: {}}]
    """)  # fmt: skip
    labels = {"app": "web"}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": template},
    }
    pods.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    pods.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=30s")
    pods.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    addresses = pods.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}").split()
    assert len(set(addresses)) == 2


def test_a_liveness_probe_restarts_the_container(pods: Pods) -> None:
    pods.create("dull", """
      restartPolicy: Always
      terminationGracePeriodSeconds: 1
      containers:
      - command: [sh, -c, 'echo x >> /scratch/n; while :; do sleep 0.1; done']
        livenessProbe:
          exec: {command: [sh, -c, '[ $(wc -l < /scratch/n) -ge 2 ]']}
          periodSeconds: 1
          failureThreshold: 1
          initialDelaySeconds: 1
        volumeMounts: [{name: work, mountPath: /scratch}]
      volumes: [{name: work, emptyDir: {}}]
    """)  # fmt: skip

    def restarted() -> bool:
        [status] = pods.phase("dull", "Running")["status"]["containerStatuses"]
        return bool(status["restartCount"] == 1 and status["ready"])

    eventually(restarted)
    assert "Liveness probe" in pods.events("dull")["Unhealthy"]


def test_a_node_with_the_rights_of_a_node_runs_pods_too(pods: Pods) -> None:
    """The other tests' agent is an administrator; the cluster's own one has what the Node authorizer gives."""
    if "node-agent" not in pods.node.cluster.pids:
        pytest.skip("this cluster's nodes were not started by the tests")
    pods.kubectl("create", "secret", "generic", "keys", "--from-literal=password=one")
    pods.create("modest", f"""
      nodeSelector: {{kubernetes.io/hostname: {NODE_NAME}}}
      containers:
      - command: [sh, -c, 'cat /etc/keys/password && test -s /run/a/token && echo " fine"']
        volumeMounts: [{{name: keys, mountPath: /etc/keys}}, {{name: access, mountPath: /run/a}}]
      volumes:
      - {{name: keys, secret: {{secretName: keys}}}}
      - {{name: access, projected: {{sources: [{{serviceAccountToken: {{path: token}}}}]}}}}
    """)  # fmt: skip
    pods.phase("modest", "Succeeded")
    assert pods.logs("modest") == "one fine\n"
    eventually(lambda: "Started" in pods.events("modest"))
    pods.kubectl("delete", "pod", "modest", "--timeout=20s")


def test_tokens_are_renewed_when_four_fifths_of_their_time_are_over(pods: Pods) -> None:
    pods.create("holder", "containers: [{command: [sleep, '600']}]")
    pod, wish = pods.phase("holder", "Running"), TokenWish("", 1000)

    async def renewals() -> list[str]:
        moment, seen = 0.0, list[str]()
        api = await connect(pods.node.cluster.kubeconfig)
        jar = TokenJar(api, pod, lambda: moment)
        for moment in (0.0, 799.0, 801.0, 1600.0):  # noqa: B007 (read by the jar's clock)
            await jar.renew([wish])
            seen.append(jar.tokens[wish])
        await api.close()
        assert jar.seconds_left() == pytest.approx(1.0)
        return seen

    first, same, second, still = asyncio.run(renewals())
    assert first == same != second == still


JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: JOB_NAME}
spec:
  completionMode: Indexed
  completions: 2
  parallelism: 2
  backoffLimit: 6
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
    - {action: FailJob, onExitCodes: {operator: In, values: [2, 3, 4]}}
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
"""


@pytest.mark.parametrize(("code", "condition"), [(0, "Complete"), (2, "Failed")])
def test_an_indexed_job_completes_or_fails_by_exit_code(pods: Pods, code: int, condition: str) -> None:
    job = yaml.safe_load(JOB.replace("JOB_NAME", f"job-{code}"))
    job["spec"]["template"] = {
        "spec": pods.spec(f"""
      containers:
      - command: [sh, -c, 'echo "index $JOB_COMPLETION_INDEX"; [ $JOB_COMPLETION_INDEX = 0 ] || exit {code}']
        terminationMessagePolicy: FallbackToLogsOnError
    """)
    }
    pods.apply(job)
    pods.kubectl("wait", f"job/job-{code}", f"--for=condition={condition}", "--timeout=30s")
    found = json.loads(pods.kubectl("get", "job", f"job-{code}", "-o", "json"))
    reasons = {one["type"]: one["reason"] for one in found["status"]["conditions"]}
    if code:
        assert reasons["Failed"] == "PodFailurePolicy"
        chosen = json.loads(pods.kubectl("get", "pods", "-l", f"job-name=job-{code}", "-o", "json"))["items"]
        ended = [one["status"]["containerStatuses"][0]["state"]["terminated"] for one in chosen]
        assert "index 1\n" in [one.get("message") for one in ended]
    else:
        assert found["status"]["completedIndexes"] == "0,1"
