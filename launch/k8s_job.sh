# Sourced by k8s.sh: renders the manifests of a job from an overlay of k8s/.
#
#   repository=...; name=reviews; layout=indexed; ...; check_names; check_job; render
#
# Variables with the names of the options hold their checked values. These functions send nothing.
# shellcheck shell=bash disable=SC2154

label=app.kubernetes.io~1instance # as JSON pointers write the slash
instance=/metadata/labels/$label

# The lines of a JSON patch (RFC 6902). kubectl refuses a path that does not exist.
patch() { # kind, name
  printf '  - target: {kind: %s, name: %s}\n    patch: |\n' "$1" "$2"
}
replace() { printf '      - {op: replace, path: %s, value: %s}\n' "$1" "$2"; }          # path, YAML
replace_text() { printf '      - {op: replace, path: %s, value: "%s"}\n' "$1" "$2"; }   # path, checked text
add() { printf '      - {op: add, path: %s, value: %s}\n' "$1" "$2"; }                  # path, YAML
remove() { printf '      - {op: remove, path: %s}\n' "$1"; }                            # path

leave_out() { # API version, kind, name
  # shellcheck disable=SC2016 # $patch is kustomize's
  printf '  - patch: |\n      {$patch: delete, apiVersion: %s, kind: %s, metadata: {name: %s}}\n' "$1" "$2" "$3"
}

# Patches the resources of a pod template, in any kind of object.
patch_pod() { # path of the template
  replace_text "$1$instance" "$name"
  if [ -n "$memory" ]; then
    replace_text "$1/spec/containers/0/resources/requests/memory" "$memory"
    replace_text "$1/spec/containers/0/resources/limits/memory" "$memory"
  fi
  [ -z "$cpus" ] || replace_text "$1/spec/containers/0/resources/requests/cpu" "$cpus"
}

# Patches the template of pods that run ranks.
patch_ranks() { # path of the template
  patch_pod "$1"
  if [ "$gpus" -gt 0 ]; then
    replace "$1/spec/containers/0/resources/limits/nvidia.com~1gpu" "$gpus"
  else
    remove "$1/spec/containers/0/resources/limits/nvidia.com~1gpu"
  fi
  replace_text "$1/spec/initContainers/0/env/0/value" "$data"
  [ "$layout" = single-gpu ] || [ "$layout" = multi-gpu ] ||
    replace_text "$1/spec/topologySpreadConstraints/0/labelSelector/matchLabels/$label" "$name"
}

# Patches the template of the pod that runs the command.
patch_command() { # path of the template, word of the command ...
  local template=$1 probe
  shift
  replace "$template/spec/containers/0/args" "$(quote_command "$@")"
  for probe in startupProbe livenessProbe; do
    replace_text "$template/spec/containers/0/$probe/exec/command/3" "/runs/$name"
  done
}

# Patches the name and the queue of the object itself.
patch_object() { # name
  replace_text "$instance" "$name"
  [ -z "$queue" ] || add /metadata/labels/kueue.x-k8s.io~1queue-name "\"$queue\""
  replace_text /metadata/name "$1"
}

patch_train_job() { # word of the command ...
  if [ "$layout" = indexed ]; then
    patch_service
    cat <<YAML # a strategic merge finds a variable by its name
  - patch: |
      apiVersion: batch/v1
      kind: Job
      metadata: {name: distrain}
      spec:
        completions: $pods
        parallelism: $pods
        backoffLimit: $((10 * pods))
        template:
          spec:
            subdomain: "$name"
            containers:
              - name: distrain
                env:
                  - {name: DISTRAIN_NUM_PODS, value: "$pods"}
                  - {name: DISTRAIN_RANKS_PER_POD, value: "$ranks"}
                  - {name: DISTRAIN_RENDEZVOUS, value: "$name-0.$name:29400"}
                  - {name: DISTRAIN_RESTARTS, value: "${restarts:-10}"}
YAML
  fi
  patch Job distrain
  patch_ranks /spec/template
  patch_command /spec/template "$@"
  patch_object "$name"
}

patch_mpi_job() { # word of the command ...
  patch MPIJob distrain
  replace /spec/slotsPerWorker "$ranks"
  replace /spec/mpiReplicaSpecs/Worker/replicas "$pods"
  patch_ranks /spec/mpiReplicaSpecs/Worker/template
  replace_text "/spec/mpiReplicaSpecs/Launcher/template$instance" "$name"
  patch_command /spec/mpiReplicaSpecs/Launcher/template "$@"
  # The launcher does not count: the operator creates it when the workers are ready.
  [ -z "$gang" ] || add /spec/runPolicy/schedulingPolicy "{minAvailable: $pods}"
  patch_object "$name"
}

# Patches Kubeflow Trainer's objects: a TrainingRuntime, and the TrainJob that uses it.
patch_train_runtime() { # word of the command ...
  local jobs=/spec/template/spec/replicatedJobs pod=template/spec/template
  patch TrainingRuntime distrain
  replace /spec/mlPolicy/numNodes "$pods"
  replace /spec/mlPolicy/mpi/numProcPerNode "$ranks"
  patch_ranks $jobs/0/$pod
  replace_text "$jobs/1/$pod$instance" "$name"
  patch_command $jobs/1/$pod "$@"
  replace_text "$instance" "$name"
  replace_text /metadata/name "$name"
  patch TrainJob distrain
  replace /spec/trainer/numNodes "$pods"
  replace /spec/trainer/numProcPerNode "$ranks"
  replace /spec/trainer/args "$(quote_command "$@")"
  replace_text /spec/runtimeRef/name "$name"
  patch_object "$name"
}

patch_service() {
  patch Service distrain
  replace_text "$instance" "$name"
  replace_text "/spec/selector/$label" "$name"
  replace_text /metadata/name "$name"
}

# Prints the cores of --cpus, rounded up.
whole_cores() {
  case $cpus in
    *m) echo $(((${cpus%m} + 999) / 1000)) ;;
    *) echo "${cpus:-4}" ;;
  esac
}

patch_prepare_job() {
  local argument args=/spec/template/spec/containers/0/args
  patch Job distrain-prepare
  patch_pod /spec/template
  replace_text $args/3 "$data"
  remove $args/6 # --train, --test and --workers of the overlay
  remove $args/5
  remove $args/4
  has_argument --workers || add $args/- "\"--workers=$(whole_cores)\""
  for argument in "${arguments[@]}"; do add $args/- "$(quote "$argument")"; done
  patch_object "$name-prepare"
}

patch_files_job() {
  patch Job distrain-files
  patch_pod /spec/template
  patch_object "$name-files"
}

patch_network_policy() {
  local address
  patch NetworkPolicy distrain
  replace_text "/spec/podSelector/matchLabels/$label" "$name"
  replace_text "/spec/ingress/0/from/0/podSelector/matchLabels/$label" "$name"
  replace_text "/spec/egress/0/to/0/podSelector/matchLabels/$label" "$name"
  for address in ${egresses[@]+"${egresses[@]}"}; do add /spec/egress/- "$(egress_rule "$address")"; done
  add "$instance" "\"$name\""
  replace_text /metadata/name "$name"
}

# Objects that only some jobs have. They stand before the job, which refers to them.
extra_objects() {
  local count=${pods:-1} api=""
  case $layout in mpijob | trainer) count=$((pods + 1)) ;; esac # and the launcher
  [ -z "$protect" ] || cat <<YAML
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: "$name"
  labels: {app.kubernetes.io/name: distrain, app.kubernetes.io/part-of: distrain, app.kubernetes.io/instance: "$name"}
spec:
  minAvailable: $count
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {app.kubernetes.io/instance: "$name", app.kubernetes.io/component: $component}
---
YAML
  case $layout/$gang in
    indexed/volcano) api=scheduling.volcano.sh/v1beta1 ;;
    indexed/scheduler-plugins) api=scheduling.x-k8s.io/v1alpha1 ;;
    *) return 0 ;; # mpi-operator makes the group itself
  esac
  cat <<YAML
apiVersion: $api
kind: PodGroup
metadata:
  name: "$name"
  labels: {app.kubernetes.io/name: distrain, app.kubernetes.io/part-of: distrain, app.kubernetes.io/instance: "$name"}
spec:
  minMember: $pods
YAML
}

# Prints the entry of kustomize's `images` that replaces the overlays' image.
name_image() {
  local rest=${image%@*} digest="" tag=""
  [ "$rest" = "$image" ] || digest=${image#*@}
  case ${rest##*/} in *:*) tag=${rest##*:} rest=${rest%:*} ;; esac
  printf '  - {name: distrain, newName: "%s"' "$rest"
  [ -z "$tag" ] || printf ', newTag: "%s"' "$tag"
  [ -z "$digest" ] || printf ', digest: "%s"' "$digest"
  printf '}\n'
}

begin_kustomization() {
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n'
  printf 'sortOptions: {order: fifo}\n' # what is referred to comes first
  [ -z "$namespace" ] || printf 'namespace: "%s"\n' "$namespace"
}

# Prints the kustomization of the job, for the parent folder of the overlays.
kustomization() {
  begin_kustomization
  printf 'resources: [%s"overlays/%s"]\n' "$([ ! -s "$work/objects.yaml" ] || printf '"objects.yaml", ')" "$layout"
  [ -z "$queue" ] || printf 'components: ["queue"]\n'
  [ -z "$image" ] || printf 'images:\n%s\n' "$(name_image)"
  printf 'patches:\n'
  patch_network_policy
  case $layout in
    prepare) patch_prepare_job ;;
    files) patch_files_job ;;
    *)
      leave_out batch/v1 Job distrain-prepare # --layout prepare renders it
      case $layout in
        single-gpu) patch_train_job distrain train ;;
        multi-gpu) patch_train_job distrain train --strategy=mirrored ;;
        indexed) patch_train_job python -m distrain.pod --strategy=horovod ;;
        mpijob) patch_mpi_job python -m distrain.launchers.mpi_pod launcher ;;
        trainer) patch_train_runtime python -m distrain.launchers.mpi_pod launcher ;;
      esac
      ;;
  esac
}

# Prints the manifests. kustomize takes no absolute paths, so it works in a copy. There a layer between the base and the
# overlays changes the pods of all layouts at once.
render() {
  if [ "$layout" = shared ]; then
    render_shared ""
    return
  fi
  copy_manifests
  mv "$work/base" "$work/defaults"
  mkdir "$work/base"
  patch_pods >"$work/base/pods.yaml"
  [ -z "$pod_spec" ] || begin_pod_patch | cat - <(printf '\n'; sed 's/^/      /' "$pod_spec") >"$work/base/spec.yaml"
  {
    printf 'resources: [../defaults]\npatches:\n  - {path: pods.yaml, target: {kind: Job}}\n'
    [ -z "$pod_spec" ] || printf '  - {path: spec.yaml, target: {kind: Job}}\n'
  } >"$work/base/kustomization.yaml"
  extra_objects >"$work/objects.yaml"
  kustomization >"$work/kustomization.yaml"
  kubectl kustomize "$work" || fail 2 "kustomize refused the manifests, see above.${pod_spec:+ $pod_spec \
must hold fields of the spec of a pod.}"
}

# Prints the claims and the account, but for those that exist.
render_shared() { # KIND/NAME of existing objects
  local claim
  [ "$(grep -c / <<<"$1")" -lt 3 ] || return 0 # kustomize refuses to print nothing
  copy_manifests
  {
    begin_kustomization
    printf 'resources: [shared]\npatches:\n'
    case $1 in *serviceaccount/*) leave_out v1 ServiceAccount distrain ;; esac
    for claim in distrain-data distrain-runs; do
      case $1 in
        */"$claim"*)
          leave_out v1 PersistentVolumeClaim "$claim"
          continue
          ;;
      esac
      patch PersistentVolumeClaim "$claim"
      replace /spec/accessModes "[${access:-ReadWriteMany}]"
      [ -z "$storage_class" ] || add /spec/storageClassName "\"$storage_class\""
    done
  } >"$work/kustomization.yaml"
  kubectl kustomize "$work"
}

# Sets $work to a temporary copy of the manifests, which the end of this shell removes.
copy_manifests() {
  local folder
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  for folder in base overlays queue shared; do cp -R "$repository/k8s/$folder" "$work"; done
}
