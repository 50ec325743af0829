# Sourced by k8s.sh: what a job does, and which pod's log says most.
#
#   kubectl=(kubectl); ours=app.kubernetes.io/instance=reviews; component=train; show_status; find_logged_pod
#
# These functions only read.
# shellcheck shell=bash disable=SC2034,SC2154

# Sets $kinds to those of the kinds that the cluster knows and the user may list. The built-in role `edit` has no rights
# to kinds of operators.
find_kinds() { # KIND.GROUP ...
  local known kind problem
  known=$("${kubectl[@]}" api-resources --output name) || true # the next kubectl reports a cluster that does not answer
  kinds=""
  for kind in "$@"; do
    case $kind in
      services | jobs.batch | networkpolicies.networking.k8s.io) ;; # Kubernetes' own
      *)
        grep -qxF "$kind" <<<"$known" || continue
        if ! problem=$("${kubectl[@]}" get "$kind" --selector "$ours" --output name 2>&1); then
          case $problem in *[Ff]orbidden*) ;; *) fail 1 "$problem" ;; esac
          printf 'note: left out %s, which you may not list.\n' "$kind" >&2
          continue
        fi
        ;;
    esac
    kinds=${kinds:+$kinds,}$kind
  done
}

# Prints a line for each pod that does the work, the oldest first:
# role;replicated job;index;name;began;exit code;phase;reason of the pod
list_pods() {
  local line='{.metadata.labels.training\.kubeflow\.org/job-role}'
  line+=';{.metadata.labels.jobset\.sigs\.k8s\.io/replicatedjob-name}'
  line+=';{.metadata.labels.batch\.kubernetes\.io/job-completion-index};{.metadata.name}'
  line+=';{.status.containerStatuses[*].state.running.startedAt}'
  line+=';{.status.containerStatuses[*].state.terminated.exitCode};{.status.phase};{.status.reason}'
  "${kubectl[@]}" get pods --selector "$ours,app.kubernetes.io/component=$component" \
    --sort-by .metadata.creationTimestamp --output "jsonpath={range .items[*]}$line{\"\n\"}{end}"
}

# Prints the name of the chief's newest pod: the launcher's pod, or the pod of index 0.
find_pod() {
  list_pods | awk -F ';' '$1 != "worker" && $2 != "node" && $3 + 0 == 0 { pod = $4 } END { print pod }'
}

# Prints the name of the pod whose log says most: the chief's newest pod, unless it is gone or has not begun. Then a pod
# that failed, which is the newest with an exit code that ends the job, else the newest.
find_logged_pod() {
  local found
  found=$(list_pods | awk -F ';' '
    $1 != "worker" && $2 != "node" && $3 + 0 == 0 { chief = $4; began = $5 != "" || $6 != "" }
    $6 != "" && $6 != 0 { failed = $4; code = $6; if ($6 ~ /^[2346]$/) { final = $4; final_code = $6 } }
    END {
      if (final != "") { failed = final; code = final_code }
      if (!began && failed != "") print failed ";" code; else print chief ";"
    }')
  case $found in
    *";") ;;
    *) printf 'note: the chief has no log, so here is the log of %s, which ended with exit code %s.\n' \
      "${found%;*}" "${found#*;}" >&2 ;;
  esac
  printf '%s\n' "${found%;*}"
}

show_status() {
  local pod state
  find_kinds jobs.batch mpijobs.kubeflow.org trainjobs.trainer.kubeflow.org
  "${kubectl[@]}" get "$kinds,pods" --selector "$ours" --output wide
  explain
  state=$(job_state)
  [ -z "$state" ] || say "$state"
  advise_evicted
  [ "$component" = train ] && [ -z "$state" ] || return 0
  pod=$(find_pod)
  [ -z "$pod" ] || show_progress "$pod"
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

# Prints a line if the job has ended or waits; nothing while it runs.
job_state() {
  local job=$name line='{.metadata.name}{range .status.conditions[?(@.status=="True")]};{.type}={.reason}{end}'
  [ "$component" = train ] || job=$name-$component
  "${kubectl[@]}" get "$kinds" --selector "$ours" --output "jsonpath={range .items[*]}$line{\"\n\"}{end}" |
    awk -F ';' -v job="$job" -v run="$([ "$component" = train ] && echo "the model is in /runs/$name, and " || true)" '
      $1 == job {
        for (i = 2; i <= NF; i++) {
          split($i, condition, "=")
          if (condition[1] == "Complete" || condition[1] == "Succeeded") end = " is complete: " run "`logs` shows the results."
          # An evicted worker is a failure only until there is another.
          if (condition[1] == "Failed" && condition[2] != "MPIJobEvicted")
            end = " has failed for good (" condition[2] "): `logs` says why. After the cure: `delete`, then `apply`."
          if (condition[1] == "Suspended" && end == "") end = " is suspended: it waits in its queue, or somebody paused it."
        }
      }
      END { if (end != "") print job end }'
}

# mpi-operator keeps a failed pod of a worker, and makes a worker only if there is no pod of its name.
advise_evicted() {
  list_pods | awk -F ';' '
    $1 == "worker" && $7 == "Failed" {
      print $4 " is gone (" ($8 == "" ? "failed" : $8) "), and the operator replaces it only after: kubectl delete pod " $4
    }'
}

show_progress() { # pod
  local problem
  if problem=$("${kubectl[@]}" exec "$1" -- cat "/runs/$name/status.json" 2>&1); then
    say "$problem"
  else
    case $problem in
      *[Ff]orbidden*) say "$1 keeps its progress in /runs/$name/status.json, but you may not execute commands in pods." ;;
      *) say "$1 reports no progress: it does not run, or has not begun to train." ;;
    esac
  fi
}
