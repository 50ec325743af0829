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
  [ -z "$state" ] || return 0
  explain_waiting
  [ "$component" = train ] || return 0
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

# Prints a line if the job has ended, waits or is not there; nothing while it runs.
job_state() {
  local run="" line='{.metadata.name}{"\t"}{.kind}{"\t"}{.metadata.labels.kueue\.x-k8s\.io/queue-name}'
  line+='{range .status.conditions[?(@.status=="True")]}{"\t"}{.type}{"\t"}{.reason}{"\t"}{.message}{end}'
  [ "$component" != train ] || run="the model is in /runs/$name, and "
  "${kubectl[@]}" get "$kinds" --selector "$ours" --output "jsonpath={range .items[*]}$line{\"\n\"}{end}" |
    awk -F '\t' -v job="$(job_name)" -v run="$run" -v pods="$(list_pods | wc -l)" '
      $1 == job {
        found = "yes"
        for (i = 4; i <= NF; i += 3) {
          said = $(i + 2) == "" ? "" : " Kubernetes: " $(i + 2)
          if ($i == "Complete" || $i == "Succeeded") end = " is complete: " run "`logs` shows the results."
          # An evicted worker is a failure only until there is another.
          if ($i == "Failed" && $(i + 1) == "DeadlineExceeded")
            end = " has reached its time limit: `delete`, then `apply` goes on from the last checkpoint." said
          else if ($i == "Failed" && $(i + 1) != "MPIJobEvicted")
            end = " has failed for good (" $(i + 1) "): `logs` says why. After the cure: `delete`, then `apply`." said
          if ($i == "Suspended" && end == "") end = " is suspended: " ($3 == "" ? paused($2) : queued($3))
        }
      }
      function queued(queue) {
        return "it waits in the queue " queue " for its whole quota. `kubectl get workloads` says what is missing."
      }
      function paused(kind,  field) {
        field = kind == "MPIJob" ? "{\"runPolicy\":{\"suspend\":false}}" : "{\"suspend\":false}"
        return "somebody paused it. To go on: kubectl patch " tolower(kind) " " job " --type merge -p \047{\"spec\":" \
          field "}\047"
      }
      END {
        if (end != "") print job end
        if (found == "" && pods == 0)
          print "there is no job " job " here: `apply` starts it. Kubernetes deletes a job a week after its end."
      }'
}

# Prints why pods wait, one sentence for all pods that wait for the same.
explain_waiting() {
  local line='{.metadata.name}{"\t"}{.status.phase}{"\t"}{.status.initContainerStatuses[*].state.running.startedAt}'
  line+='{"\t"}{.status.initContainerStatuses[*].state.waiting.reason}'
  line+='{"\t"}{.status.containerStatuses[*].state.waiting.reason}'
  line+='{"\t"}{.status.conditions[?(@.type=="PodScheduled")].status}'
  line+='{"\t"}{.status.conditions[?(@.type=="PodScheduled")].message}'
  "${kubectl[@]}" get pods --selector "$ours,app.kubernetes.io/component=$component" \
    --output "jsonpath={range .items[*]}$line{\"\n\"}{end}" |
    awk -F '\t' -v name="$name" -v wanted="$(wanted_pods)" '
      function wait_for(pod, what) {
        if (!(what in count)) { order[++kinds] = what; first[what] = pod }
        count[what]++
      }
      $2 != "Failed" { present++ }
      $2 != "Pending" { next }
      $6 == "False" { wait_for($1, "for a node: " $7); next }
      { why = $4 == "" ? $5 : $4 }
      why ~ /Image/ { wait_for($1, "for its image (" why "): see --image and --pull-secret."); next }
      why ~ /Error|BackOff/ { wait_for($1, "in vain (" why "): `kubectl describe pod` says for what."); next }
      $3 != "" { wait_for($1, "for prepared data: `logs --name " name " --layout prepare` shows its job."); next }
      { wait_for($1, "for its volumes and its image, as each pod does at its start.") }
      END {
        for (i = 1; i <= kinds; i++) {
          others = count[order[i]] - 1
          print first[order[i]] (others ? " (and " others " more)" : "") " waits " order[i]
        }
        if (present < wanted)
          print wanted - present " of " wanted " pods are missing. If no warning above says why, Kubernetes waits up to 10 " \
            "minutes before it replaces them. To hurry it: `delete`, then the same `apply`."
      }'
}

# Prints how many pods Kubernetes keeps of the job; nothing for the jobs of operators.
wanted_pods() {
  local job="{.items[?(@.metadata.name==\"$(job_name)\")]"
  "${kubectl[@]}" get jobs.batch --selector "$ours" --output "jsonpath=$job.spec.parallelism}"
}

# Prints the name of the object that stands for the job.
job_name() {
  case $component in train) echo "$name" ;; *) echo "$name-$component" ;; esac
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
      *) say "$1 reports no progress: it does not run, or has not begun to train. kubectl: ${problem##*$'\n'}" ;;
    esac
  fi
}
