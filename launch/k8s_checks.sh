# Sourced by k8s.sh: checks the options of a job, and sets the defaults that depend on the layout. It sends nothing.
#
#   name=reviews; layout=indexed; ...; check_names; check_job
#
# Variables with the names of the options hold their values, as k8s.sh read them.
# shellcheck shell=bash disable=SC2034,SC2154

subdomain='[a-z0-9]([a-z0-9.-]*[a-z0-9])?' # the names of most objects

# Sets $component, the label of the pods that do the work; k8s.sh selects pods by it.
check_names() {
  component=train
  case $layout in
    single-gpu | multi-gpu | indexed | mpijob | trainer) ;;
    prepare | files) component=$layout ;;
    shared) ;;
    *) refuse "--layout is \"$layout\", but it must be single-gpu, multi-gpu, indexed, mpijob, trainer, prepare, files \
or shared" ;;
  esac
  if [ "$layout" = shared ]; then
    case $verb in render | apply) ;; *) refuse "--layout shared is no job, so it has no $verb" ;; esac
    [ -z "$name" ] || refuse "--name does not fit --layout shared, which is for all jobs of the namespace"
  else
    [ -n "$name" ] || refuse "--name is missing"
    # The name of a Service may not begin with a digit.
    [[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || refuse "--name is \"$name\", but it must be a DNS label: small \
letters, digits and dashes, from a letter to a letter or digit"
    check_length --name "$name"
  fi
  [ -z "$namespace" ] || check_label --namespace "$namespace"
  [ -z "$queue" ] || check_label --queue "$queue"
  case $verb in
    status | delete) [ ${#arguments[@]} -eq 0 ] || refuse "$verb takes no arguments, but \"${arguments[0]}\" is one" ;;
  esac
  case $dry_run in
    "" | =client) ;;
    =server)
      # Trainer's webhook looks for the runtime among the objects that exist, so a dry run by the server must fail.
      [ "$layout" != trainer ] || dry_run="=client"
      ;;
    *) refuse "--dry-run is \"${dry_run#=}\", but it must be server or client" ;;
  esac
}

check_label() { # option, value
  [[ $2 =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]] || refuse "$1 is \"$2\", but it must be a DNS label: small letters, \
digits and dashes, from a letter or digit to a letter or digit"
  check_length "$1" "$2"
}

check_length() { # option, value
  [ ${#2} -le 63 ] || refuse "$1 has ${#2} characters, but a DNS label has at most 63"
}

check_subdomain() { # option, value
  [[ $2 =~ ^$subdomain$ ]] || refuse "$1 is \"$2\", but it must be the name of an object: small letters, digits, dashes \
and dots"
}

check_number() { # option, value, least, most
  [[ $2 =~ ^(0|[1-9][0-9]{0,3})$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] ||
    refuse "$1 is \"$2\", but it must be a whole number from $3 to $4"
}

check_data() {
  local name="[A-Za-z_][A-Za-z0-9_]*" trains=yes
  case $layout in prepare | files) trains="" ;; esac
  if [[ $trains && $data == *://* ]]; then
    # Manifests show a URL in clear, so it has neither login nor query.
    [[ $data =~ ^(s3|gs|hf|https?)://[A-Za-z0-9][A-Za-z0-9._/-]*$ ]] || refuse "--data is \"$data\", but a URL begins \
with s3://, gs://, hf:// or https://, and has plain letters, digits, dots, dashes, underscores and slashes"
  elif [[ $trains && $data == *:* ]]; then
    [[ $data =~ ^$name(\.$name)*:$name$ ]] || refuse "--data is \"$data\", but a function is package.module:function"
  else
    [[ $data =~ ^/data(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$ ]] || refuse "--data is \"$data\", but it must be a folder on the \
data volume, of plain letters, digits, dots, dashes and underscores: /data/reviews"
  fi
}

# Sets the defaults that depend on the layout, and refuses a job that could not run.
check_job() {
  check_claims
  [ "$layout" != shared ] || return 0
  check_arguments
  case $layout in
    prepare | files)
      local option
      for option in pods gpus ranks; do
        [ -z "${!option}" ] || refuse "--$option does not fit --layout $layout, which is one pod on CPUs"
      done
      ;;
    *)
      check_shape
      check_global_batch
      ;;
  esac
  [ -z "$restarts" ] || [ "$layout" = indexed ] || refuse "--restarts does not fit --layout $layout, only indexed"
  [ -z "$restarts" ] || check_number --restarts "$restarts" 0 9999
  check_derived_name
  check_data
  case $cpus in
    "") ;;
    *m) [[ $cpus =~ ^[1-9][0-9]{0,6}m$ ]] || refuse "--cpus is \"$cpus\", but thousandths of a core look like 500m" ;;
    *) check_number --cpus "$cpus" 1 1024 ;;
  esac
  [[ ${memory:-1Gi} =~ ^[1-9][0-9]{0,15}(Mi|Gi|Ti|M|G|T)?$ ]] ||
    refuse "--memory is \"$memory\", but it must be a number of bytes like 16Gi or 512Mi"
  [[ ${image:-any:tag} =~ ^[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$ ]] ||
    refuse "--image is \"$image\", but it must be REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST"
  check_pods
}

# A class or mode that no manifest takes would be lost without a word.
check_claims() {
  [ -z "$storage_class" ] || check_subdomain --storage-class "$storage_class"
  case ${access:-ReadWriteMany} in
    ReadWriteMany | ReadWriteOnce | ReadWriteOncePod) ;;
    *) refuse "--access is \"$access\", but it must be ReadWriteMany, ReadWriteOnce or ReadWriteOncePod" ;;
  esac
  [ -z "$storage_class$access" ] || [ -z "$no_claims" ] || refuse "--no-claims does not fit --storage-class and --access"
  [ -z "$storage_class$access" ] || [ "$verb" = apply ] || [ "$layout" = shared ] ||
    refuse "render prints no claims, so --storage-class and --access do not fit; render --layout shared prints them"
  if [ "$layout" = shared ]; then
    local option
    for option in $given; do
      case $option in
        --layout | --namespace | --storage-class | --access | --dry-run) ;;
        *) refuse "$option does not fit --layout shared, which is no job" ;;
      esac
    done
    [ ${#arguments[@]} -eq 0 ] || refuse "--layout shared takes no arguments, but \"${arguments[0]}\" is one"
  fi
}

# Refuses a name from which Kubernetes, or an operator, would derive a longer name than it allows.
check_derived_name() {
  local longest
  case $layout in
    indexed) longest=$name-$((pods - 1)) ;;
    mpijob) longest=$name-launcher ;;
    trainer) longest=$name-launcher-0-0-abcde ;; # JobSet counts the five random characters of a pod's name
    prepare | files) longest=$name-$layout ;;
    *) longest=$name ;;
  esac
  if [ "$layout" = mpijob ] && [ $((pods - 1)) -ge 10 ]; then longest=$name-worker-$((pods - 1)); fi
  [ ${#longest} -le 63 ] || refuse "--name has ${#name} characters: the derived name $longest would have ${#longest} \
characters, but at most 63 are allowed. Remove at least $((${#longest} - 63))"
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
