# Sourced by k8s.sh: what a cluster asks of the pods of all layouts: nodes, variables, volumes, devices, secrets.
#
#   node_selectors=(pool=gpu); variables=(NCCL_DEBUG=INFO); ...; check_pods; patch_pods
#
# Arrays hold the options that may be repeated, as k8s.sh read them. These functions send nothing.
# shellcheck shell=bash disable=SC2034,SC2154

key='[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?' # of a label or a resource
value='[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?'
cidr='([0-9a-fA-F.:]+/[0-9]+)(:([1-9][0-9]*))?'
mounted="(pvc|secret|configmap)/($subdomain):(/[A-Za-z0-9_][A-Za-z0-9_./-]*)(:ro)?"

check_pods() {
  local item folder network port seen=" "
  for item in ${node_selectors[@]+"${node_selectors[@]}"}; do
    [[ $item =~ ^$key=($value)?$ ]] || refuse "--node-selector is \"$item\", but it must be a label like pool=gpu"
  done
  for item in ${tolerations[@]+"${tolerations[@]}"}; do
    [[ $item =~ ^$key(=($value)?)?(:(NoSchedule|PreferNoSchedule|NoExecute))?$ ]] || refuse "--toleration is \"$item\", \
but it must be a taint like team=research:NoSchedule"
  done
  for item in ${variables[@]+"${variables[@]}"}; do
    check_variable "$item"
    [[ $seen != *" ${item%%=*} "* ]] || refuse "--env sets ${item%%=*} twice"
    seen+="${item%%=*} "
  done
  for item in ${volumes[@]+"${volumes[@]}"}; do
    [[ $item =~ ^$mounted$ ]] || refuse "--volume is \"$item\", but it must look like pvc/NAME:/models or \
secret/NAME:/keys:ro"
    folder=${BASH_REMATCH[4]%/}
    case $folder in # training mounts /data read-only, so nothing can be mounted below it
      /data | /data/* | /runs | /tmp | /dev/shm | *//* | */../* | */..)
        refuse "--volume is \"$item\", but its folder cannot be $folder"
        ;;
    esac
    [[ $seen != *" $folder "* ]] || refuse "--volume names the folder $folder twice"
    seen+="$folder "
  done
  for item in ${resources[@]+"${resources[@]}"}; do
    [[ $item =~ ^$key=[1-9][0-9]{0,3}$ ]] || refuse "--resource is \"$item\", but it must be a device like rdma/hca=1"
    case $item in
      nvidia.com/gpu=* | cpu=* | memory=*) refuse "--resource is \"$item\", but --gpus, --cpus and --memory say that" ;;
    esac
  done
  for item in ${pull_secrets[@]+"${pull_secrets[@]}"}; do check_subdomain --pull-secret "$item"; done
  for item in ${egresses[@]+"${egresses[@]}"}; do
    [[ $item =~ ^$cidr$ ]] || refuse "--egress is \"$item\", but it must be addresses like 10.0.0.0/8:443"
    network=${BASH_REMATCH[1]} port=${BASH_REMATCH[3]}
    is_network "$network" || refuse "--egress is \"$item\", but $network is no network: all bits behind its prefix \
must be zero, as in 10.0.0.0/8"
    [ -z "$port" ] || { [ ${#port} -le 5 ] && [ "$port" -le 65535 ]; } ||
      refuse "--egress is \"$item\", but a port is at most 65535"
  done
  [ -z "$priority_class" ] || check_subdomain --priority-class "$priority_class"
  [ -z "$runtime_class" ] || check_subdomain --runtime-class "$runtime_class"
  [ -z "$scheduler" ] || check_subdomain --scheduler "$scheduler"
  [ -z "$pod_spec" ] || { [ -f "$pod_spec" ] && [ -r "$pod_spec" ]; } ||
    refuse "--pod-spec is \"$pod_spec\", but it must be a file that can be read"
  check_gang
}

# Returns 1 for IPv4 addresses that a server refuses or warns of; the server itself checks IPv6.
is_network() { # CIDR
  local byte='(0|[1-9][0-9]{0,2})' number=0 part
  case $1 in *:*) return 0 ;; esac
  [[ $1 =~ ^$byte\.$byte\.$byte\.$byte/(0|[1-9]|[12][0-9]|3[0-2])$ ]] || return 1
  for part in "${BASH_REMATCH[@]:1:4}"; do
    [ "$part" -le 255 ] || return 1
    number=$((number * 256 + part))
  done
  [ $((number & ((1 << (32 - BASH_REMATCH[5])) - 1))) -eq 0 ]
}

check_variable() { # NAME=VALUE
  [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || refuse "--env is \"$1\", but it must be a variable like NCCL_DEBUG=INFO"
  case ${1%%=*} in
    DISTRAIN_RESTARTS) refuse "--env cannot set DISTRAIN_RESTARTS: --restarts does, with --layout indexed" ;;
    DISTRAIN_NUM_PODS | DISTRAIN_RANKS_PER_POD | DISTRAIN_RENDEZVOUS | DISTRAIN_LAUNCH_ID | JOB_COMPLETION_INDEX)
      refuse "--env cannot set ${1%%=*}: the layout does"
      ;;
  esac
  quote "${1#*=}" >/dev/null
  case $layout in mpijob | trainer) ;; *) return 0 ;; esac
  case $1 in # see multi_node.sh
    TF_* | KERAS_* | XLA_* | HOROVOD_* | NCCL_* | DISTRAIN_* | OMPI_MCA_* | PYTHON* | OMP_NUM_THREADS=*) ;;
    *) refuse "--env cannot set ${1%%=*} with --layout $layout: ssh starts the processes there, and passes on only TF_*, \
KERAS_*, XLA_*, HOROVOD_*, NCCL_*, DISTRAIN_*, OMPI_MCA_*, PYTHON* and OMP_NUM_THREADS" ;;
  esac
}

check_gang() {
  case $gang in
    "") return 0 ;;
    volcano | scheduler-plugins) ;;
    *) refuse "--gang is \"$gang\", but it must be volcano or scheduler-plugins; --queue names a queue of Kueue" ;;
  esac
  case $layout in
    indexed) ;;
    # The operator sets the scheduler itself, by its own option --gang-scheduling.
    mpijob) [ -z "$scheduler" ] || refuse "--scheduler does not fit --gang of --layout mpijob: the operator sets it" ;;
    trainer) refuse "--gang does not fit --layout trainer, which counts a launcher that starts only after the workers; \
--queue does" ;;
    *) refuse "--gang does not fit --layout $layout, which is one pod" ;;
  esac
}

# Prints the beginning of a patch, up to the `spec` of a pod. The name counts for nothing: kustomize selects by kind.
begin_pod_patch() {
  printf 'apiVersion: batch/v1\nkind: Job\nmetadata: {name: any}\nspec:\n  template:\n'
  case $layout/$gang in
    indexed/volcano) printf '    metadata: {annotations: {scheduling.k8s.io/group-name: "%s"}}\n' "$name" ;;
    indexed/scheduler-plugins) printf '    metadata: {labels: {scheduling.x-k8s.io/pod-group: "%s"}}\n' "$name" ;;
  esac
  printf '    spec:'
}

# Prints a strategic merge patch of the Jobs in base, from which Kubeflow's pods are made too.
patch_pods() {
  local item number=0
  begin_pod_patch
  printf '\n      containers:\n        - name: distrain\n'
  ! ((${#variables[@]})) || printf '          env:\n'
  for item in ${variables[@]+"${variables[@]}"}; do
    printf '            - {name: %s, value: %s}\n' "${item%%=*}" "$(quote "${item#*=}")"
  done
  ! ((${#resources[@]})) || printf '          resources:\n            limits:\n'
  for item in ${resources[@]+"${resources[@]}"}; do printf '              "%s": %s\n' "${item%=*}" "${item##*=}"; done
  patch_volumes
  ! ((${#node_selectors[@]})) || printf '      nodeSelector:\n'
  for item in ${node_selectors[@]+"${node_selectors[@]}"}; do printf '        "%s": "%s"\n' "${item%%=*}" "${item#*=}"; done
  if ((${#tolerations[@]})); then # the list replaces base's
    printf '      tolerations:\n        - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}\n'
  fi
  for item in ${tolerations[@]+"${tolerations[@]}"}; do printf '        - {%s}\n' "$(toleration "$item")"; done
  ! ((${#pull_secrets[@]})) || printf '      imagePullSecrets:\n'
  for item in ${pull_secrets[@]+"${pull_secrets[@]}"}; do printf '        - {name: "%s"}\n' "$item"; done
  [ -z "$priority_class" ] || printf '      priorityClassName: "%s"\n' "$priority_class"
  [ -z "$runtime_class" ] || printf '      runtimeClassName: "%s"\n' "$runtime_class"
  if [ "$layout" = indexed ] && [ -z "$scheduler" ]; then
    case $gang in
      volcano) scheduler=volcano ;;
      scheduler-plugins) scheduler=scheduler-plugins-scheduler ;; # the name that its Helm chart gives
    esac
  fi
  [ -z "$scheduler" ] || printf '      schedulerName: "%s"\n' "$scheduler"
  [ -z "$host_network" ] || printf '      hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet\n'
}

patch_volumes() {
  local item kind number=0
  ((${#volumes[@]})) || return 0
  printf '          volumeMounts:\n'
  for item in "${volumes[@]}"; do
    [[ $item =~ ^$mounted$ ]]
    printf '            - {name: volume-%s, mountPath: "%s"%s}\n' $((number++)) "${BASH_REMATCH[4]}" \
      "${BASH_REMATCH[5]:+, readOnly: true}"
  done
  printf '      volumes:\n'
  number=0
  for item in "${volumes[@]}"; do
    [[ $item =~ ^$mounted$ ]]
    case ${BASH_REMATCH[1]} in
      pvc) kind='persistentVolumeClaim: {claimName' ;;
      secret) kind='secret: {secretName' ;;
      configmap) kind='configMap: {name' ;;
    esac
    printf '        - {name: volume-%s, %s: "%s"}}\n' $((number++)) "$kind" "${BASH_REMATCH[2]}"
  done
}

toleration() { # KEY[=VALUE][:EFFECT]
  local rest=$1 effect=""
  case $rest in *:*) effect=${rest##*:} rest=${rest%:*} ;; esac
  printf 'key: "%s", ' "${rest%%=*}"
  case $rest in
    *=*) printf 'operator: Equal, value: "%s"' "${rest#*=}" ;;
    *) printf 'operator: Exists' ;;
  esac
  [ -z "$effect" ] || printf ', effect: %s' "$effect"
}

egress_rule() { # CIDR[:PORT]
  [[ $1 =~ ^$cidr$ ]]
  printf '{to: [{ipBlock: {cidr: "%s"}}]' "${BASH_REMATCH[1]}"
  [ -z "${BASH_REMATCH[3]}" ] || printf ', ports: [{protocol: TCP, port: %s}]' "${BASH_REMATCH[3]}"
  printf '}'
}
