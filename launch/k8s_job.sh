# Sourced by k8s.sh: checks the options of a job, and renders its manifests from an overlay of k8s/.
#
#   repository=...; source launch/k8s_job.sh; name=reviews; layout=indexed; ...; check_names; check_job; render
#
# Variables with the names of the options hold their values, as k8s.sh read them. These functions send nothing.
# shellcheck shell=bash disable=SC2034,SC2154

: "${repository:?the script that sources this file sets it}"
source "$repository/launch/setup_venv.sh" # for fail

label=app.kubernetes.io~1instance # as JSON pointers write the slash
instance=/metadata/labels/$label

# Sets $component, the label of the pods that do the work; k8s.sh selects pods by it.
check_names() {
  [ -n "$name" ] || refuse "--name is missing"
  check_label --name "$name"
  [ -z "$namespace" ] || check_label --namespace "$namespace"
  [ -z "$queue" ] || check_label --queue "$queue"
  component=train
  case $layout in
    single-gpu | multi-gpu | indexed | mpijob | trainer) ;;
    prepare | files) component=$layout ;;
    *) refuse "--layout is \"$layout\", but it must be single-gpu, multi-gpu, indexed, mpijob, trainer, prepare or \
files" ;;
  esac
}

# The name of a Service may not begin with a digit, so no name here may.
check_label() { # option, value
  [[ $2 =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || refuse "$1 is \"$2\", but it must be a DNS label: small letters, digits \
and dashes, from a letter to a letter or digit"
  [ ${#2} -le 63 ] || refuse "$1 has ${#2} characters, but a DNS label has at most 63"
}

check_number() { # option, value, least, most
  [[ $2 =~ ^(0|[1-9][0-9]{0,3})$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] ||
    refuse "$1 is \"$2\", but it must be a whole number from $3 to $4"
}

# Sets the defaults that depend on the layout, and refuses a job that could not run.
check_job() {
  local longest option argument
  case $layout in
    prepare | files)
      for option in pods gpus ranks; do
        [ -z "${!option}" ] || refuse "--$option does not fit --layout $layout, which is one pod on CPUs"
      done
      ;;
    *)
      check_shape
      check_global_batch
      ;;
  esac
  case $layout in
    prepare)
      ! has_argument --out || refuse "--out cannot be among the arguments of distrain prepare: k8s.sh --data names \
the folder of the prepared data"
      has_argument --train || refuse "--layout prepare needs --train FILE, a path on the data volume: \
--train /data/text/train.csv"
      ;;
    files) [ ${#arguments[@]} -eq 0 ] || refuse "--layout files takes no arguments, but \"${arguments[0]}\" is one" ;;
    *) for option in --data --run; do
      ! has_argument "$option" || refuse "$option cannot be among the arguments of distrain train: k8s.sh --data names \
the data, and the run directory is /runs/$name"
    done ;;
  esac
  for argument in ${arguments[@]+"${arguments[@]}"}; do quote "$argument" >/dev/null; done
  # The longest name that Kubernetes derives from the job's name, usually the hostname of a pod.
  case $layout in
    indexed) longest=$name-$((pods - 1)) ;;
    mpijob) longest=$name-launcher ;;
    trainer) longest=$name-launcher-0-0 ;;
    prepare | files) longest=$name-$layout ;;
    *) longest=$name-0 ;;
  esac
  if [ "$layout" = mpijob ] && [ $((pods - 1)) -ge 10 ]; then longest=$name-worker-$((pods - 1)); fi
  [ ${#longest} -le 63 ] || refuse "--name has ${#name} characters: the hostname $longest would have ${#longest} \
characters, but at most 63 are allowed. Remove at least $((${#longest} - 63))"
  [[ $data =~ ^/data(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$ ]] || refuse "--data is \"$data\", but it must be a folder on the \
data volume, of plain letters, digits, dots, dashes and underscores: /data/reviews"
  [ -z "$cpus" ] || check_number --cpus "$cpus" 1 1024
  [[ ${memory:-1Gi} =~ ^[1-9][0-9]{0,15}(Mi|Gi|Ti|M|G|T)?$ ]] ||
    refuse "--memory is \"$memory\", but it must be a number of bytes like 16Gi or 512Mi"
  [[ ${image:-any:tag} =~ ^[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$ ]] ||
    refuse "--image is \"$image\", but it must be REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST"
  [[ ${storage_class:-any} =~ ^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$ ]] ||
    refuse "--storage-class is \"$storage_class\", but it must be a name like nfs-csi"
  case ${access:-ReadWriteMany} in
    ReadWriteMany | ReadWriteOnce | ReadWriteOncePod) ;;
    *) refuse "--access is \"$access\", but it must be ReadWriteMany, ReadWriteOnce or ReadWriteOncePod" ;;
  esac
}

# Sets $pods, $gpus and $ranks.
check_shape() {
  case $layout in
    single-gpu)
      pods=${pods:-1} gpus=${gpus:-1}
      [ "$pods" = 1 ] || refuse "--pods is \"$pods\", but --layout single-gpu is one pod; --layout indexed has several"
      [[ $gpus =~ ^[01]$ ]] || refuse "--gpus is \"$gpus\", but --layout single-gpu has 1, or 0; --layout multi-gpu \
has several in one pod"
      ;;
    multi-gpu)
      pods=${pods:-1} gpus=${gpus:-2}
      [ "$pods" = 1 ] || refuse "--pods is \"$pods\", but --layout multi-gpu is one pod; --layout indexed has several"
      check_number --gpus "$gpus" 2 64
      ;;
    *)
      pods=${pods:-2} gpus=${gpus:-1}
      check_number --pods "$pods" 1 1000
      check_number --gpus "$gpus" 0 64
      ;;
  esac
  if [ -z "$ranks" ]; then
    ranks=$gpus
    [ "$gpus" -gt 0 ] || ranks=1
  elif [ "$layout" = single-gpu ] || [ "$layout" = multi-gpu ]; then
    refuse "--ranks does not fit --layout $layout, which is one process"
  else
    check_number --ranks "$ranks" 1 64
    [ "$gpus" -eq 0 ] || [ "$ranks" -eq "$gpus" ] || refuse "--ranks is $ranks and --gpus $gpus, but each process \
needs its own GPU. Leave --ranks out, or train on CPUs with --gpus 0"
  fi
}

has_argument() { # option
  local argument
  for argument in ${arguments[@]+"${arguments[@]}"}; do
    case $argument in "$1" | "$1"=*) return 0 ;; esac
  done
  return 1
}

# Prints the last value of an argument, or the default.
argument_value() { # option, default
  local argument value=$2 is_next=""
  for argument in ${arguments[@]+"${arguments[@]}"}; do
    [ -z "$is_next" ] || value=$argument
    is_next=""
    case $argument in
      "$1") is_next=yes ;;
      "$1"=*) value=${argument#*=} ;;
    esac
  done
  printf '%s\n' "$value"
}

# Refuses replicas that do not divide the global batch. A --config file or a batch size per replica is not checked.
check_global_batch() {
  local batch accumulation replicas=$((pods * ranks))
  ! has_argument --batch-size || return 0
  has_argument --global-batch-size || ! has_argument --config || return 0
  batch=$(argument_value --global-batch-size 128) # distrain's default; a test compares them
  accumulation=$(argument_value --accumulation-steps 1)
  [ "$layout" != multi-gpu ] || replicas=$gpus
  [[ $batch =~ ^[1-9][0-9]{0,8}$ ]] || refuse "--global-batch-size is \"$batch\", but it must be a whole number from 1"
  [[ $accumulation =~ ^[1-9][0-9]{0,5}$ ]] ||
    refuse "--accumulation-steps is \"$accumulation\", but it must be a whole number from 1"
  [ $((batch % (replicas * accumulation))) -eq 0 ] || refuse "the global batch of $batch does not divide by \
$replicas replicas$([ "$accumulation" -eq 1 ] || echo " x $accumulation accumulation steps"), so the model would \
differ from the model of one replica. Choose --pods and --gpus that divide it, or another --global-batch-size"
}

# Prints a string as a YAML string of code points, so that no character has a special meaning. Kubernetes would expand
# $(NAME), and replace $$ by $, so each $ is doubled.
quote() { # string
  local codes twice='$$'
  codes=$(printf '%s' "${1//[\$]/$twice}" | iconv -f UTF-8 -t UTF-32BE 2>/dev/null | od -An -v -tx1 | tr -d ' \n' |
    sed 's/......../\\U&/g') || fail 2 "$(printf 'the argument %q is not UTF-8, which manifests must be' "$1")"
  case $codes in
    *\\U0000007f* | *\\U0000008* | *\\U0000009* | *\\U0000fffe* | *\\U0000ffff*)
      fail 2 "$(printf 'the argument %q has a control character that kubectl cannot carry' "$1")"
      ;;
  esac
  printf '"%s"' "$codes"
}

# Prints the command and its arguments as a YAML list on one line.
quote_command() { # word of the command ...
  local text separator="["
  for text in "$@" "--data=$data" "--run=/runs/$name" ${arguments[@]+"${arguments[@]}"}; do
    printf '%s' "$separator"
    quote "$text"
    separator=", "
  done
  printf ']'
}

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

patch_prepare_job() {
  local argument args=/spec/template/spec/containers/0/args
  patch Job distrain-prepare
  patch_pod /spec/template
  replace_text $args/3 "$data"
  replace_text $args/4 "--workers=${cpus:-4}"
  remove $args/6 # --train and --test of the overlay
  remove $args/5
  for argument in "${arguments[@]}"; do add $args/- "$(quote "$argument")"; done
  patch_object "$name-prepare"
}

patch_files_job() {
  patch Job distrain-files
  patch_pod /spec/template
  patch_object "$name-files"
}

patch_network_policy() {
  patch NetworkPolicy distrain
  replace_text "/spec/podSelector/matchLabels/$label" "$name"
  replace_text "/spec/ingress/0/from/0/podSelector/matchLabels/$label" "$name"
  replace_text "/spec/egress/0/to/0/podSelector/matchLabels/$label" "$name"
  add "$instance" "\"$name\""
  replace_text /metadata/name "$name"
}

patch_claims() {
  local claim
  for claim in distrain-data distrain-runs; do
    if [ -z "$claims" ]; then
      leave_out v1 PersistentVolumeClaim "$claim"
      continue
    fi
    patch PersistentVolumeClaim "$claim"
    replace /spec/accessModes "[${access:-ReadWriteMany}]"
    [ -z "$storage_class" ] || add /spec/storageClassName "\"$storage_class\""
  done
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

# Prints the kustomization of the job, for a folder from which the path `up` leads to the root directory.
kustomization() { # up
  printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n'
  [ -z "$namespace" ] || printf 'namespace: "%s"\n' "$namespace"
  printf 'resources: ["%s"]\n' "$1$repository/k8s/overlays/$layout"
  [ -z "$queue" ] || printf 'components: ["%s"]\n' "$1$repository/k8s/queue"
  [ -z "$image" ] || printf 'images:\n%s\n' "$(name_image)"
  printf 'patches:\n'
  patch_network_policy
  patch_claims
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

# Prints the manifests.
render() {
  local up
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  up=$(cd "$work" && pwd -P | sed 's#/[^/]*#../#g') # kustomize takes no absolute path
  kustomization "${up%/}" >"$work/kustomization.yaml"
  kubectl kustomize "$work"
}
