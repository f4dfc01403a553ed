# Jobs with exact times, rollup, synthetic rows. Sourced by ../lab.
#
# slurmctld keeps its own, real times and raw usage; only slurmdbd's database is rewritten, and only rows that
# slurmctld has finished with (or, for a job that still runs, columns that it does not send again).

# Two habits of slurmctld 22.05 rule how a job is run here: it sends the starts of jobs every five seconds and learns
# the DBIndex from the answer; and a job that ended before that is sent once more afterwards, which would bring a
# second, endless row if the first had been moved. So every job waits at a gate, a file, until its row is there.

lab_job() {
  local -A job=([cpus]=1 [mem]=100M [gpus]=0 [partition]=debug [state]=COMPLETED [name]=job [time]=5)
  local key
  for key in account user qos start end submit eligible array suspended second; do job[$key]=""; done
  read_options job "$@"
  check_job
  local -a argv=(--parsable --chdir=/ --output=/dev/null --account="${job[account]}" --partition="${job[partition]}"
    --ntasks=1 --cpus-per-task="${job[cpus]}" --mem="${job[mem]}" --time="${job[time]}" --job-name="${job[name]}"
    ${job[qos]:+--qos="${job[qos]}"} ${job[array]:+--array=1-"${job[array]}"})
  ((job[gpus] == 0)) || argv+=(--gres=gpu:"${job[gpus]}")
  local id gate
  gate=$(mktemp -u "$LAB_RUN/gate/XXXXXX")
  case ${job[state]} in
    COMPLETED) run_to_the_end 0 ;;
    FAILED | TIMEOUT | NODE_FAIL) run_to_the_end 3 ;;
    CANCELLED | PREEMPTED) run_and_cancel ;;
    REQUEUED) run_twice ;;
    NEVER_STARTED | PENDING) queue_only ;;
    RUNNING | SUSPENDED) run_on ;;
  esac
  move_times
  lab_sql "select job_db_inx, id_job, state from $(table job) where $(is_this_job) order by job_db_inx" | print_records
}

# Runs the jobs described on standard input, one a line, beside each other; prints their records in that order.
lab_jobs() {
  local -a words pids=()
  local scratch line pid rc=0
  scratch=$(mktemp -d "$LAB_RUN/jobs.XXXXXX")
  while read -r line; do
    read -ra words <<<"$line"
    ((${#words[@]})) || continue
    (lab_job "${words[@]}" </dev/null) >"$scratch/${#pids[@]}" &
    pids+=("$!")
  done
  for pid in "${!pids[@]}"; do
    wait "${pids[$pid]}" || rc=1
    cat "$scratch/$pid"
  done
  rm -rf -- "$scratch"
  return $rc
}

check_job() {
  local key
  for key in account user start; do
    [[ -n ${job[$key]} ]] || die "$key= is required"
  done
  for key in start end submit eligible cpus gpus array; do
    [[ ${job[$key]} =~ ^[0-9]*$ ]] || die "$key= takes a whole number: ${job[$key]}"
  done
  for key in suspended second; do
    [[ ${job[$key]} =~ ^([0-9]+-[0-9]*)?$ ]] || die "$key= takes EPOCH-EPOCH: ${job[$key]}"
  done
  case ${job[state]} in
    COMPLETED | FAILED | TIMEOUT | NODE_FAIL) ;;
    CANCELLED | PREEMPTED | REQUEUED | NEVER_STARTED | PENDING | RUNNING | SUSPENDED)
      [[ -z ${job[array]} ]] || die "array= works with jobs that end by themselves"
      ;;
    *) die "unknown state: ${job[state]}" ;;
  esac
  case ${job[state]} in
    PENDING | RUNNING | SUSPENDED) ;;
    *) [[ -n ${job[end]} ]] || die "end= is required for ${job[state]}" ;;
  esac
  [[ ${job[state]} != SUSPENDED || ${job[suspended]} =~ ^[0-9]+-$ ]] || die "SUSPENDED needs suspended=EPOCH-"
}

# Names of this cluster's tables in the accounting database.
table() { printf '%s_%s_table' "$LAB_CLUSTER" "$1"; }
is_this_job() { printf '(id_job = %d or id_array_job = %d)' "$id" "$id"; }

# Submits the job; its script waits at the gate and exits with the code EXIT. It takes a second at least: one that begins and
# ends in the same second leaves no raw usage.
submit() {
  id=$(runuser -u "${job[user]}" -- sbatch "${argv[@]}" "${@:2}" \
    --wrap "sleep 1.1; until [ -e $gate ]; do sleep 0.2; done; exit $1") || die "sbatch refused the job"
  id=${id%%;*}
}

# True when the database holds COUNT rows of the job that fulfil CONDITION.
has_rows() {
  [[ $(lab_sql "select count(*) from $(table job) where $(is_this_job) and $2") == "$1" ]]
}

wait_for_start() {
  wait_for 120 "the start of job $id" has_rows "$1" 'state = 1 and time_start > 0 and time_end = 0'
}

wait_for_end() {
  wait_for 120 "the end of job $id" has_rows "$1" 'time_end > 0'
}

run_to_the_end() {
  submit "$1"
  wait_for_start "${job[array]:-1}"
  if [[ -n ${job[suspended]} ]]; then
    suspend
    scontrol resume "$id"
  fi
  touch "$gate"
  wait_for_end "${job[array]:-1}"
}

run_and_cancel() {
  submit 0
  wait_for_start 1
  runuser -u "${job[user]}" -- scancel "$id"
  wait_for_end 1
}

suspend() {
  scontrol suspend "$id"
  wait_for 60 "the suspension of job $id" has_rows 1 'state = 2'
}

run_twice() {
  submit 0
  wait_for_start 1
  scontrol requeue "$id"
  wait_for_end 1
  wait_for_start 1
  touch "$gate"
  wait_for_end 2
}

# A partition that is down queues jobs and starts none. (With a begin time instead, a cancelled job has Start = End.)
queue_only() {
  submit 0 --partition=closed
  wait_for 60 "job $id to be known" has_rows 1 'time_eligible > 0'
  [[ ${job[state]} == PENDING ]] && return
  runuser -u "${job[user]}" -- scancel "$id"
  wait_for_end 1
}

run_on() {
  submit 0
  wait_for_start 1
  [[ ${job[state]} == RUNNING ]] || suspend
}

# Rewrites the rows of the job. Steps get the times of their job, suspensions the interval asked for.
move_times() {
  local start=${job[start]} end=${job[end]:-0}
  local submit=${job[submit]:-$((start - 1))}
  move_row "$(row_id 0)" "$submit" "${job[eligible]:-$submit}" "$start" "$end"
  if [[ ${job[state]} == REQUEUED ]]; then
    local second=${job[second]:-$end-$((end + end - start))}
    move_row "$(row_id 1)" "$end" "$end" "${second%-*}" "${second#*-}"
  fi
  [[ -z ${job[suspended]} ]] || move_suspension "${job[suspended]%-*}" "${job[suspended]#*-}"
}

# Condition that selects the job's Nth run; an array's tasks are all moved alike.
row_id() {
  if [[ -n ${job[array]} ]]; then
    is_this_job
  else
    printf 'job_db_inx = %s' "$(lab_sql "select job_db_inx from $(table job) where $(is_this_job)
      order by job_db_inx limit 1 offset $1")"
  fi
}

move_row() {
  local row=$1 submit=$2 eligible=$3 start=$4 end=$5
  local -A code=([TIMEOUT]=6 [NODE_FAIL]=7 [PREEMPTED]=8)
  local state=${code[${job[state]}]:-}
  lab_sql "update $(table step) set time_end = if(time_end > 0, $end, 0), time_start = $start
      where job_db_inx in (select job_db_inx from $(table job) where $row);
    update $(table job) set time_submit = $submit, time_eligible = $eligible, time_start = if(time_start > 0, $start, 0),
      time_end = if(time_end > 0, $end, 0)${state:+, state = $state, exit_code = 0, derived_ec = 0} where $row;"
}

# slurmdbd keeps the seconds in time_suspended, and the beginning while the suspension is open.
move_suspension() {
  local from=$1 to=${2:-0}
  lab_sql "update $(table suspend) set time_start = $from, time_end = $to where $(row_id 0);
    update $(table job) set time_suspended = $((to ? to - from : from)) where $(row_id 0);"
}

# Prints DBINDEX JOBID STATE from rows of the job table, with the names that slurm.h gives to the numbers.
print_records() {
  local -A name=([0]=PENDING [1]=RUNNING [2]=SUSPENDED [3]=COMPLETED [4]=CANCELLED [5]=FAILED [6]=TIMEOUT
    [7]=NODE_FAIL [8]=PREEMPTED [1024]=REQUEUED)
  local index number state
  while read -r index number state; do
    printf '%s %s %s\n' "$index" "$number" "${name[$state]:-$state}"
  done
}

# Rolls whole hours up anew. Rows that are there already are dropped first: slurmdbd leaves a row that has become
# zero as it was. The node's registration is moved before the window: sreport leaves a cluster out that did not
# exist in an hour. A day or month is rolled up when the window covers it.
lab_rollup() {
  (($# == 2)) || die "usage: lab rollup DIR START END"
  local start=$1 end=$2 unit
  [[ $start =~ ^[0-9]+$ && $end =~ ^[0-9]+$ ]] || die "rollup takes epoch seconds"
  ((start % 3600 == 0 && end % 3600 == 0 && start < end)) || die "rollup takes whole hours, start before end"
  for unit in hour day month; do
    lab_sql "delete from $(table "assoc_usage_$unit") where time_start >= $start and time_start < $end;
      delete from $(table "usage_$unit") where time_start >= $start and time_start < $end;"
  done
  lab_sql "update $(table event) set time_start = least(time_start, $start) where node_name = ''
    order by time_start limit 1;"
  local answer
  answer=$(sacctmgr -i rollup "uts$start" "uts$end" 2>&1) || die "rollup failed: $answer"
  [[ $(lab_sql "select count(*) from $(table usage_hour) where time_start >= $start and time_start < $end and id_tres = 1") \
    == $(((end - start) / 3600)) ]] || die "rollup left hours out: $answer"
}

# Row i of COUNT: the i-th (cyclic) of the chosen associations, start spread evenly, 60 to 3599 s long, 1 to 7 CPUs,
# 100 MB for each CPU, a GPU for every tenth; billing as the partition debug has it. The same call inserts the same jobs.
lab_insert() {
  local count=${1:-}
  [[ $count =~ ^[1-9][0-9]*$ ]] || die "usage: lab insert DIR COUNT start=EPOCH end=EPOCH [account=A] [user=U]"
  local -A option=([start]="" [end]="" [account]="" [user]="")
  read_options option "${@:2}"
  [[ ${option[start]} =~ ^[0-9]+$ && ${option[end]} =~ ^[0-9]+$ ]] || die "start= and end= are required"
  local chosen="user <> '' and user <> 'root' and deleted = 0" key column
  for key in account user; do
    [[ ${option[$key]} =~ ^[a-z0-9_]*$ ]] || die "unknown $key: ${option[$key]}"
    column=${key/account/acct}
    [[ -z ${option[$key]} ]] || chosen+=" and $column = '${option[$key]}'"
  done
  # Ids far above slurmctld's own, and above those of an earlier insert.
  local first
  first=$(lab_sql "select greatest(9999999, max(id_job)) + 1 from $(table job)")
  [[ $first != NULL ]] || first=10000000
  lab_sql "insert into $(table job) (mod_time, account, cpus_req, job_name, id_assoc, id_job, id_qos, id_resv, id_wckey,
      id_user, id_group, het_job_id, het_job_offset, state_reason_prev, mem_req, nodelist, nodes_alloc, node_inx,
      \`partition\`, priority, state, timelimit, time_submit, time_eligible, time_start, time_end, work_dir,
      tres_alloc, tres_req)
    with chosen as (select row_number() over (order by id_assoc) - 1 as place, count(*) over () as places,
        id_assoc, acct, user from $(table assoc) where $chosen),
      row as (select seq, 1 + seq * 13 % 7 as cpus, seq % 10 = 0 as gpus, 60 + seq * 7919 % 3540 as seconds,
        ${option[start]} + seq * (${option[end]} - ${option[start]}) div $count as began from seq_0_to_$((count - 1))),
      charged as (select *, concat('1=', cpus, ',2=', 100 * cpus, ',4=1,5=',
        floor(cpus + 100 * cpus * 0.25 / 1024 + 8 * gpus), if(gpus, ',1001=1', '')) as tres from row)
    select began + seconds, acct, cpus, 'synthetic', id_assoc, $first + seq, 1, 0, 0,
      case user $(user_ids) end, case user $(user_ids) end, 0, 4294967294, 0, 100 * cpus, 'n1', 1, '0',
      'debug', 1, 3, 60, began - 1, began - 1, began, began + seconds, '/', tres, tres
    from charged join chosen on place = seq % places;"
  lab_sql "select count(*), ' rows, jobs ', min(id_job), ' to ', max(id_job), ', ',
    sum(time_end - time_start), ' s' from $(table job) where id_job >= $first" | tr -d '\t'
}

# The arms of an SQL case from the users of the lab to their ids.
user_ids() {
  local user
  for user in alice bob; do printf "when '%s' then %d " "$user" "$(id -u "$user")"; done
}
