#!/usr/bin/env bash
# Trains on Kubernetes: renders the manifests of k8s/ for one job, sends them, and shows or deletes the job.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: launch/k8s.sh render --name NAME [OPTION ...] [ARGUMENT ...]   prints the job's manifests
       launch/k8s.sh apply  --name NAME [OPTION ...] [ARGUMENT ...]   sends them to the cluster
       launch/k8s.sh status --name NAME [--layout LAYOUT]             shows pods, warnings and progress
       launch/k8s.sh logs   --name NAME [--layout LAYOUT] [ARGUMENT ...]
                                                                      shows the chief's log; arguments: of kubectl logs
       launch/k8s.sh delete --name NAME [--claims]                    deletes the job; with --claims all data and runs
       launch/k8s.sh render --layout shared, apply --layout shared    the claims and the account of all jobs

All other arguments of render and apply, and all arguments after `--`, go to `distrain train`; with --layout prepare
they go to `distrain prepare`. For example:

  launch/k8s.sh apply --name reviews --layout prepare -- --train /data/text/train.csv --test /data/text/test.csv
  launch/k8s.sh apply --name reviews --layout indexed --pods 4 --gpus 8 --image REGISTRY/distrain@sha256:... --epochs 20

  --name NAME           name of the job; the run directory is /runs/NAME
  -n, --namespace NAMESPACE
                        namespace of the job (default: the namespace of kubectl's context)
  --layout LAYOUT       single-gpu (default), multi-gpu (one pod, MirroredStrategy), indexed (several pods, Horovod, no
                        operator), mpijob (Kubeflow's mpi-operator), trainer (Kubeflow Trainer v2), prepare (text to
                        data), files (a pod that mounts the volumes and sleeps, for kubectl cp), shared (no job)
  --pods N              number of pods (default: 2 for indexed, mpijob and trainer)
  --gpus N              GPUs of each pod (default: 1, multi-gpu 2); 0 trains on CPUs
  --ranks N             processes in each pod (default: one for each GPU)
  --restarts N          how often a pod of indexed starts its ranks again, after a loss or drain elsewhere (default: 10)
  --cpus N              cores that each pod requests: 4, or 500m for half a core
  --memory SIZE         memory request and limit of each pod: 16Gi
  --image IMAGE         image built from k8s/Dockerfile (default: distrain:0.1.0)
  --data DATA           folder on the data volume (default: /data/prepared), or the URL of prepared data, which needs
                        --egress: s3://bucket/data, or a function as package.module:function
  --queue QUEUE         queue of Kueue in which the job waits
  --gang SCHEDULER      volcano or scheduler-plugins: starts the pods of indexed or mpijob together or not at all
  --protect             adds a PodDisruptionBudget: no drain of a node may evict a pod of the job
  --dry-run[=client]    apply and delete: the server checks, and changes nothing; with =client nothing is sent

Claims, which apply sends only if they are missing:
  --storage-class CLASS storage class of the claims distrain-data and distrain-runs (default: the cluster's)
  --access MODE         access mode of the claims: ReadWriteMany (default), or ReadWriteOnce for a cluster of one node
  --no-claims           send no claims

All pods of the job; options marked * may be repeated:
  --node-selector K=V * label of the nodes
  --toleration K[=V][:EFFECT] *
                        taint that the pods tolerate, as `kubectl taint` writes it
  --priority-class NAME, --runtime-class NAME, --scheduler NAME
  --env NAME=VALUE *    variable of the containers: NCCL_DEBUG=INFO
  --volume KIND/NAME:DIR[:ro] *
                        volume mounted on DIR; KIND is pvc, secret or configmap
  --resource NAME=N *   device of each pod that trains: rdma/hca=1
  --pull-secret NAME *  secret by which the image is pulled
  --host-network        the network of the node, without NetworkPolicy; Pod Security must allow it
  --egress CIDR[:PORT] *
                        addresses that the pods may connect to: 10.0.0.0/8:443
  --pod-spec FILE       YAML of other fields of a pod's `spec`, such as affinity, merged into all pods

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

name="" namespace="" layout="" pods="" gpus="" ranks="" restarts="" cpus="" memory="" image="" data=""
queue="" gang="" storage_class="" access="" priority_class="" runtime_class="" scheduler="" pod_spec="" dry_run=""
claims="" no_claims="" host_network="" protect=""
node_selectors=() tolerations=() variables=() volumes=() resources=() pull_secrets=() egresses=()
arguments=()

given=" "
# Refuses an option that does not fit the command, or that is given twice.
check_given() { # option
  local verbs="render apply"
  case $1 in
    --name | --namespace | --layout) verbs="render apply status logs delete" ;;
    --dry-run) verbs="apply delete" ;;
    --claims) verbs="delete" ;;
  esac
  [[ " $verbs " == *" $verb "* ]] || refuse "$1 does not fit the command $verb, only ${verbs/ / and }"
  case $1 in
    --node-selector | --toleration | --env | --volume | --resource | --pull-secret | --egress) ;;
    *) [[ $given != *" $1 "* ]] || refuse "$1 is given twice, but takes one value" ;;
  esac
  given+="$1 "
}

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
    -n)
      set -- --namespace "${@:2}" # read it again by its long name
      continue
      ;;
    -n*)
      rest=${1#-n}
      set -- "--namespace=${rest#=}" "${@:2}"
      continue
      ;;
    --no-claims | --claims | --host-network | --protect)
      check_given "$1"
      option=${1#--}
      printf -v "${option//-/_}" yes
      ;;
    --dry-run | --dry-run=*)
      check_given --dry-run
      dry_run=${1#--dry-run}
      dry_run=${dry_run:-=server}
      ;;
    --name | --namespace | --layout | --pods | --gpus | --ranks | --restarts | --cpus | --memory | --image | \
      --data | --queue | --storage-class | --access | --gang | --priority-class | --runtime-class | --scheduler | \
      --pod-spec | --node-selector | --toleration | --env | --volume | --resource | --pull-secret | --egress)
      check_given "$1"
      [ -n "${2:-}" ] || refuse "$1 needs a value"
      case $1 in
        --node-selector) node_selectors+=("$2") ;;
        --toleration) tolerations+=("$2") ;;
        --env) variables+=("$2") ;;
        --volume) volumes+=("$2") ;;
        --resource) resources+=("$2") ;;
        --pull-secret) pull_secrets+=("$2") ;;
        --egress) egresses+=("$2") ;;
        *)
          option=${1#--}
          printf -v "${option//-/_}" %s "$2"
          ;;
      esac
      shift
      ;;
    --name=* | --namespace=* | --layout=* | --pods=* | --gpus=* | --ranks=* | --restarts=* | --cpus=* | --memory=* | \
      --image=* | --data=* | --queue=* | --storage-class=* | --access=* | --gang=* | --priority-class=* | \
      --runtime-class=* | --scheduler=* | --pod-spec=* | --node-selector=* | --toleration=* | --env=* | --volume=* | \
      --resource=* | --pull-secret=* | --egress=*)
      option=${1%%=*}
      set -- "$option" "${1#*=}" "${@:2}" # read it again as two arguments
      continue
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
layout=${layout:-single-gpu}
data=${data:-/data/prepared}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$repository/launch/setup_venv.sh" # for fail and say
source "$repository/launch/k8s_checks.sh"
source "$repository/launch/k8s_arguments.sh"
source "$repository/launch/k8s_pods.sh"
source "$repository/launch/k8s_job.sh"
source "$repository/launch/k8s_status.sh"

command -v kubectl >/dev/null || refuse "kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools has it"
check_names
kubectl=(kubectl)
[ -z "$namespace" ] || kubectl+=(--namespace "$namespace")
ours=app.kubernetes.io/part-of=distrain,app.kubernetes.io/instance=$name

# Sends the claims and the account that the namespace lacks. Claims that are there stay as they are, unless options say
# how they must be: then the server compares.
send_shared() {
  local there
  there=$("${kubectl[@]}" get serviceaccounts/distrain persistentvolumeclaims/distrain-data \
    persistentvolumeclaims/distrain-runs --ignore-not-found --output name) || exit $?
  [ -z "$storage_class$access" ] || there=$(grep -vF persistentvolumeclaim/ <<<"$there" || true)
  [ -z "$no_claims" ] || there+=$'\npersistentvolumeclaim/distrain-data\npersistentvolumeclaim/distrain-runs'
  shared=$(render_shared "$there")
  [ -z "$shared" ] || send "$shared" || fail $? "kubectl could not send the claims or the account, see above. Claims \
that exist keep their class and access mode: leave --storage-class and --access out, or delete the claims first."
}

send() { # manifests
  "${kubectl[@]}" apply ${dry_run:+"--dry-run$dry_run"} --filename - <<<"$1"
}

delete_ours() { # options of kubectl delete
  "${kubectl[@]}" delete "$kinds" --selector "$ours" "$@" ${dry_run:+"--dry-run$dry_run"}
}

case $verb in
  render)
    check_job
    render
    ;;
  apply)
    check_job
    manifests=$(render)
    [ "$layout" = shared ] || send_shared
    send "$manifests" || fail $? "kubectl could not apply all objects, see above. If a field is immutable, the job \
exists already: launch/k8s.sh delete --name $name, and apply again; data and run stay."
    ;;
  status) show_status ;;
  logs)
    pod=$(find_logged_pod)
    [ -n "$pod" ] || fail 1 "there is no pod of $name with the label $component; launch/k8s.sh status --name $name \
lists the job's pods."
    exec "${kubectl[@]}" logs "$pod" ${arguments[@]+"${arguments[@]}"}
    ;;
  delete)
    # First and in the foreground what has pods: when the same job is applied again, no old pod trains or saves.
    # TrainJobs are left out, because Trainer would make their pods again until the TrainJob itself is gone.
    find_kinds jobs.batch mpijobs.kubeflow.org
    delete_ours --cascade=foreground --timeout=5m || fail $? "kubectl could not delete the job, see above. If its pods \
have not ended in five minutes: kubectl get pods --selector $ours. A pod of a lost node ends by: kubectl delete pod \
POD --force. Then repeat this command."
    find_kinds services networkpolicies.networking.k8s.io trainjobs.trainer.kubeflow.org \
      trainingruntimes.trainer.kubeflow.org poddisruptionbudgets.policy podgroups.scheduling.volcano.sh \
      podgroups.scheduling.x-k8s.io
    delete_ours
    [ -z "$claims" ] || "${kubectl[@]}" delete persistentvolumeclaims distrain-data distrain-runs --ignore-not-found \
      ${dry_run:+"--dry-run$dry_run"}
    ;;
esac
