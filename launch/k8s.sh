#!/usr/bin/env bash
# Trains on Kubernetes: renders the manifests of k8s/ for one job, sends them, and shows or deletes the job.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/k8s.sh render --name NAME [OPTION ...] [ARGUMENT ...]   prints the manifests
       launch/k8s.sh apply  --name NAME [OPTION ...] [ARGUMENT ...]   sends them to the cluster
       launch/k8s.sh status --name NAME [OPTION ...]                  shows pods, warnings and progress
       launch/k8s.sh logs   --name NAME [OPTION ...] [ARGUMENT ...]   shows the chief's log; arguments: of kubectl logs
       launch/k8s.sh delete --name NAME [OPTION ...] [--claims]       deletes the job; with --claims all data and runs

All other arguments of render and apply, and all arguments after `--`, go to `distrain train`; with --layout prepare
they go to `distrain prepare`. For example:

  launch/k8s.sh apply --name reviews --layout prepare -- --train /data/text/train.csv --test /data/text/test.csv
  launch/k8s.sh apply --name reviews --layout indexed --pods 4 --gpus 8 --image REGISTRY/distrain@sha256:... --epochs 20

  --name NAME           name of the job; the run directory is /runs/NAME
  --namespace NAMESPACE namespace of the job (default: the namespace of kubectl's context)
  --layout LAYOUT       single-gpu (default), multi-gpu (one pod, MirroredStrategy), indexed (several pods, Horovod, no
                        operator), mpijob (Kubeflow's mpi-operator), trainer (Kubeflow Trainer v2), prepare (text to
                        data), files (a pod that mounts the volumes and sleeps, for kubectl cp)
  --pods N              number of pods (default: 2 for indexed, mpijob and trainer)
  --gpus N              GPUs of each pod (default: 1, multi-gpu 2); 0 trains on CPUs
  --ranks N             processes in each pod (default: one for each GPU)
  --cpus N              cores that each pod requests
  --memory SIZE         memory request and limit of each pod: 16Gi
  --image IMAGE         image built from k8s/Dockerfile (default: distrain:0.1.0)
  --data DIR            prepared data on the data volume (default: /data/prepared)
  --queue QUEUE         queue of Kueue in which the job waits
  --storage-class CLASS storage class of the claims distrain-data and distrain-runs (default: the cluster's)
  --access MODE         access mode of the claims: ReadWriteMany (default), or ReadWriteOnce for a cluster of one node
  --no-claims           render no claims, because they exist already

kubectl does the work, with its own settings ($KUBECONFIG). The script exits with 2 if the command is wrong, else with
kubectl's exit code.
TEXT
}

refuse() { # message
  printf 'error: %s\n\n' "$1" >&2
  usage >&2
  exit 2
}

verb=${1:-}
case $verb in
  -h | --help)
    usage
    exit 0
    ;;
  render | apply | status | logs | delete) shift ;;
  *) refuse "\"$verb\" is no command; it must be render, apply, status, logs or delete" ;;
esac

name=""
namespace=""
layout=single-gpu
pods=""
gpus=""
ranks=""
cpus=""
memory=""
image=""
data=/data/prepared
queue=""
storage_class=""
access=""
claims=yes # render the claims
delete_claims=""
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --)
      shift
      arguments+=(${@+"$@"})
      break
      ;;
    --no-claims) claims="" ;;
    --claims) delete_claims=yes ;;
    --name | --namespace | --layout | --pods | --gpus | --ranks | --cpus | --memory | --image | --data | --queue | \
      --storage-class | --access)
      [ -n "${2:-}" ] || refuse "$1 needs a value"
      option=${1#--}
      printf -v "${option//-/_}" %s "$2"
      shift
      ;;
    --name=* | --namespace=* | --layout=* | --pods=* | --gpus=* | --ranks=* | --cpus=* | --memory=* | --image=* | \
      --data=* | --queue=* | --storage-class=* | --access=*)
      option=${1%%=*}
      set -- "$option" "${1#*=}" "${@:2}" # read it again as two arguments
      continue
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$repository/launch/k8s_job.sh"

command -v kubectl >/dev/null || refuse "kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools has it"
check_names
kubectl=(kubectl)
[ -z "$namespace" ] || kubectl+=(--namespace "$namespace")
ours=app.kubernetes.io/part-of=distrain,app.kubernetes.io/instance=$name

# Sets $kinds to the kinds of a job's objects. Operators' kinds are included only if the cluster knows them.
find_kinds() {
  local known
  known=$("${kubectl[@]}" api-resources --output name) || true # the next kubectl reports a cluster that does not answer
  kinds=jobs.batch
  for kind in mpijobs.kubeflow.org trainjobs.trainer.kubeflow.org; do
    if grep -qxF "$kind" <<<"$known"; then kinds=$kinds,$kind; fi
  done
}

# Prints the name of the chief's newest pod: the launcher's pod, or the pod of index 0.
find_pod() {
  local role job index
  role='{.metadata.labels.training\.kubeflow\.org/job-role}'
  job='{.metadata.labels.jobset\.sigs\.k8s\.io/replicatedjob-name}'
  index='{.metadata.labels.batch\.kubernetes\.io/job-completion-index}'
  "${kubectl[@]}" get pods --selector "$ours,app.kubernetes.io/component=$component" \
    --sort-by .metadata.creationTimestamp \
    --output "jsonpath={range .items[*]}$role;$job;$index;{.metadata.name}{\"\n\"}{end}" |
    awk -F ';' '$1 != "worker" && $2 != "node" && $3 + 0 == 0 { pod = $4 } END { print pod }'
}

# Prints how containers ended, and the last warnings about the job, which say why a pod is pending or was not created.
explain() {
  local ended='{range .items[*]}{.metadata.name}{range .status.containerStatuses[*].state.terminated}'
  ended+=': ended with exit code {.exitCode}, {.reason}{end}{"\n"}{end}'
  "${kubectl[@]}" get pods --selector "$ours" --output "jsonpath=$ended" | grep ': ended' || true
  "${kubectl[@]}" get events --field-selector type=Warning --sort-by .metadata.creationTimestamp \
    --output 'jsonpath={range .items[*]}{.involvedObject.name}: {.reason}: {.message}{"\n"}{end}' |
    grep -E "^$name(-[a-z0-9-]+)?: " | tail -n 10 || true
}

case $verb in
  render | apply)
    check_job
    if [ "$verb" = render ]; then
      render
    else
      render | "${kubectl[@]}" apply --filename - || fail $? "kubectl could not apply all objects, see above. If a \
field is immutable, the job exists already: launch/k8s.sh delete --name $name, and apply again; data and run stay."
    fi
    ;;
  status)
    find_kinds
    "${kubectl[@]}" get "$kinds,pods" --selector "$ours" --output wide
    explain
    pod=$(find_pod)
    if [ -n "$pod" ] && [ "$component" = train ]; then
      "${kubectl[@]}" exec "$pod" -- cat "/runs/$name/status.json" 2>/dev/null ||
        say "$pod reports no progress: it does not run, or has not begun to train."
    fi
    ;;
  logs)
    pod=$(find_pod)
    [ -n "$pod" ] || fail 1 "there is no pod of $name with the label $component; launch/k8s.sh status --name $name \
lists the job's pods."
    exec "${kubectl[@]}" logs "$pod" ${arguments[@]+"${arguments[@]}"}
    ;;
  delete)
    find_kinds
    case $kinds in *trainjobs*) kinds=$kinds,trainingruntimes.trainer.kubeflow.org ;; esac
    "${kubectl[@]}" delete "$kinds,services,networkpolicies.networking.k8s.io" --selector "$ours"
    [ -z "$delete_claims" ] ||
      "${kubectl[@]}" delete persistentvolumeclaims distrain-data distrain-runs --ignore-not-found
    ;;
esac
