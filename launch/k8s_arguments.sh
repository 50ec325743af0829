# Sourced by k8s.sh: the arguments that go to `distrain train` or `distrain prepare`, checked before anything is sent.
#
#   layout=prepare; arguments=(--train /data/a.csv --train=/data/b.csv); check_arguments
#
# A machine that sends jobs needs no distrain, so the options stand here. A test compares them with the commands.
# shellcheck shell=bash disable=SC2034,SC2154

train_options="--data --run --strategy --devices --model --batch-size --global-batch-size --accumulation-steps
--steps-per-execution --compression --seed --resume --checkpoint-every --keep --epochs --max-steps --max-time
--limit-batches --validate-every --patience --monitor --mode --learning-rate --warmup-steps --schedule
--scale-learning-rate --clip-norm --ema --class-weight --mixed-precision --units --embedding --blocks --filters
--dropout --prometheus --metrics-port --skip-nonfinite --check-every --data-workers --config --log-level"
train_flags="--no-jit --jit-model --deterministic"
train_lists=""
prepare_options="--out --source --dataset --vectorizer --tokens --top-k --label-column
--task --label-separator --weight-column --text-columns --max-length --holdout
--seed --memory-mib --max-rows --max-text-gib --max-expansion --workers --log-level"
prepare_flags=""
prepare_lists="--train --test"

# Refuses arguments that the command in the pod would refuse: unknown, without a value, given twice, or the layout's.
check_arguments() {
  local argument
  case $layout in
    files) [ ${#arguments[@]} -eq 0 ] || refuse "--layout files takes no arguments, but \"${arguments[0]}\" is one" ;;
    prepare)
      check_options prepare "$prepare_options" "$prepare_flags" "$prepare_lists"
      ! has_argument --out || refuse "--out cannot be among the arguments of distrain prepare: k8s.sh --data names \
the folder of the prepared data"
      has_argument --train || has_argument --source || refuse "--layout prepare needs --train FILE, a path on the data \
volume such as /data/text/train.csv, or --source module:function"
      ;;
    *)
      check_options train "$train_options" "$train_flags" "$train_lists"
      for argument in --data --run; do
        ! has_argument "$argument" || refuse "$argument cannot be among the arguments of distrain train: k8s.sh --data \
names the data, and the run directory is /runs/$name"
      done
      case $layout in
        multi-gpu | indexed) ! has_argument --strategy || refuse "--strategy cannot be among the arguments of distrain \
train: --layout $layout has its own" ;;
      esac
      ;;
  esac
  for argument in ${arguments[@]+"${arguments[@]}"}; do quote "$argument" >/dev/null; done
}

check_options() { # command, options of one value, flags, options that may be repeated
  local word option seen=" " number=0
  while [ $number -lt ${#arguments[@]} ]; do
    word=${arguments[$number]}
    option=${word%%=*}
    number=$((number + 1))
    [[ $option =~ ^--[a-z][a-z-]*$ ]] || refuse "\"$word\" is no option of distrain $1, or of k8s.sh"
    case " ${2//$'\n'/ } $3 $4 " in
      *" $option "*) ;;
      *) refuse "$option is no option of distrain $1, or of k8s.sh$(other_name "$option" "${2//$'\n'/ } $3 $4")" ;;
    esac
    if [[ " $3 " == *" $option "* ]]; then
      [ "$word" = "$option" ] || refuse "$option of distrain $1 takes no value"
    elif [ "$word" = "$option" ]; then
      # As Python's argparse: a value that begins with a dash is a negative number, or stands behind a `=`.
      word=${arguments[$number]--}
      [ $number -lt ${#arguments[@]} ] && [[ $word != -* || $word =~ ^-[0-9.]+$ ]] ||
        refuse "$option of distrain $1 needs a value"
      number=$((number + 1))
      while [[ " $4 " == *" $option "* && $number -lt ${#arguments[@]} && ${arguments[$number]} != -* ]]; do
        number=$((number + 1))
      done
    fi
    [[ " $4 " == *" $option "* || $seen != *" $option "* ]] ||
      refuse "$option is given twice, but distrain $1 takes one value"
    seen+="$option "
  done
}

# Prints which option was meant, if the text begins only one.
other_name() { # beginning, options
  local option found=()
  for option in $2; do
    case $option in "$1"*) found+=("$option") ;; esac
  done
  [ ${#found[@]} -ne 1 ] || printf '; write %s in full' "${found[0]}"
}

has_argument() { # option
  local argument
  for argument in ${arguments[@]+"${arguments[@]}"}; do
    case $argument in "$1" | "$1"=*) return 0 ;; esac
  done
  return 1
}

# Prints the value of an argument, or the default.
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
