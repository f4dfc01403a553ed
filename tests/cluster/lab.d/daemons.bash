# Starting and ending the daemons of a lab. Sourced by ../lab.
#
# Everything lies in DIR, except what other users must reach or what has a name limited in length: the
# configuration, the sockets and the spool of jobs are in a short directory of their own, $LAB_RUN, and
# DIR/etc and DIR/run are links to it. (A unix socket's path holds at most 107 bytes, and DIR may be closed to
# others, as temporary directories are.)

# Where $LAB_RUN is made: not on a file system mounted noexec, since job scripts run there.
readonly LAB_RUNTIME_ROOT=${LAB_RUNTIME_ROOT:-/tmp}
# Ports are taken below Linux's range of ports for outgoing connections (from 32768), so that no client of
# anybody can take one between the choice and the start.
readonly LAB_PORT_MIN=20000 LAB_PORT_MAX=32000

lab_up() {
  local began=${EPOCHREALTIME/./}
  local -A option=([cluster]=lab [tz]=UTC)
  read_options option "$@"
  [[ ${option[cluster]} =~ ^[a-z][a-z0-9_]*$ ]] || die "a cluster name is a lower-case word: ${option[cluster]}"
  [[ ! -e $DIR/env ]] || die "there is a lab in $DIR already; end it with: lab down $DIR"
  require_programs
  mkdir -p "$DIR/log"
  LAB_CLUSTER=${option[cluster]} LAB_TZ=${option[tz]}
  trap 'lab_up_failed' EXIT
  make_runtime_directory
  ensure_users
  write_configuration
  write_env
  start_munge
  start_mariadb
  start_slurm
  seed_site
  trap - EXIT
  local micros=$((${EPOCHREALTIME/./} - began))
  printf 'lab %s up in %d.%d s: source %s/env\n' "$LAB_CLUSTER" $((micros / 1000000)) $((micros / 100000 % 10)) "$DIR"
}

lab_up_failed() {
  trap - EXIT
  printf 'lab: up failed; last lines of the logs in %s/log:\n' "$DIR" >&2
  tail -n 40 "$DIR"/log/* >&2 || true
  lab_down
  exit 1
}

require_programs() {
  local program
  for program in mariadbd mariadb mariadb-install-db munged munge slurmdbd slurmctld slurmd sbatch perl; do
    command -v "$program" >/dev/null || die "$program is missing: apt-get install slurm-wlm slurmdbd mariadb-server munge"
  done
}

# Chooses the runtime directory and four ports. The lock keeps two labs that start at once from choosing the same
# ports: a port counts as taken when a lab's file names it or when it cannot be bound.
make_runtime_directory() {
  local lock=$LAB_RUNTIME_ROOT/slurm-lab.lock
  exec {lock_fd}>"$lock"
  flock "$lock_fd"
  local taken
  taken=$(cat "$LAB_RUNTIME_ROOT"/slab.*/ports 2>/dev/null || true)
  LAB_RUN=$(mktemp -d "$LAB_RUNTIME_ROOT/slab.XXXXXX")
  chmod 755 "$LAB_RUN"
  free_ports 4 "$taken" >"$LAB_RUN/ports"
  exec {lock_fd}>&-
  mapfile -t LAB_PORTS <"$LAB_RUN/ports"
  mkdir -p "$LAB_RUN"/{etc,pid,munge,spool,gpu,gate} "$DIR"/{db,state}
  # Any character device passes for a GPU; slurmd complains about a plain file, and takes it.
  local gpu
  for gpu in "$LAB_RUN"/gpu/gpu{0..3}; do
    mknod "$gpu" c 1 3 2>/dev/null || touch "$gpu"
  done
  ln -sfnT "$LAB_RUN" "$DIR/run"
  ln -sfnT "$LAB_RUN/etc" "$DIR/etc"
}

# Prints COUNT ports that can be bound and are not among those TAKEN, one a line.
free_ports() {
  perl -MIO::Socket::INET -e '
    my ($count, $min, $max, %taken) = (shift, shift, shift, map { $_ => 1 } split " ", shift);
    my (@bound, $tries);
    while (@bound < $count) {
      die "no free ports between $min and $max\n" if ++$tries > 10000;
      my $port = $min + int rand($max - $min);
      next if $taken{$port}++;
      push @bound, IO::Socket::INET->new(Listen => 1, LocalAddr => "0.0.0.0", LocalPort => $port) // next;
    }
    print $_->sockport, "\n" for @bound;
  ' "$1" "$LAB_PORT_MIN" "$LAB_PORT_MAX" "$2"
}

write_configuration() {
  local db_port=${LAB_PORTS[0]} dbd_port=${LAB_PORTS[1]} ctld_port=${LAB_PORTS[2]} slurmd_port=${LAB_PORTS[3]}
  local host
  host=$(hostname -s)
  (umask 077 && cat >"$LAB_RUN/etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$LAB_RUN/munge/socket
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
LogFile=$DIR/log/slurmdbd.log
PidFile=$LAB_RUN/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$db_port
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  # cred_expire is also how long a requeued job waits for its next start.
  cat >"$LAB_RUN/etc/slurm.conf" <<CONF
ClusterName=$LAB_CLUSTER
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
AuthType=auth/munge
AuthInfo=socket=$LAB_RUN/munge/socket,cred_expire=10
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$LAB_RUN/spool
SlurmctldPidFile=$LAB_RUN/slurmctld.pid
SlurmdPidFile=$LAB_RUN/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
MessageTimeout=30
KillWait=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd_port
# The connection to slurmdbd takes the path of munge's socket from here and not from AuthInfo.
AccountingStoragePass=$LAB_RUN/munge/socket
AccountingStorageEnforce=associations,limits,qos,safe
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobCompType=jobcomp/none
PriorityType=priority/multifactor
PriorityDecayHalfLife=0
PriorityUsageResetPeriod=NONE
PriorityCalcPeriod=1
PriorityWeightFairshare=10000
PriorityWeightQOS=1000
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 CPUs=32 RealMemory=15000 Gres=gpu:4 State=UNKNOWN
PartitionName=debug Nodes=n1 Default=YES MaxTime=INFINITE State=UP TRESBillingWeights="CPU=1.0,Mem=0.25G,GRES/gpu=8.0"
PartitionName=small Nodes=n1 MaxTime=INFINITE State=UP TRESBillingWeights="CPU=0.5,Mem=1G"
PartitionName=plain Nodes=n1 MaxTime=INFINITE State=UP
PartitionName=closed Nodes=n1 MaxTime=INFINITE State=DOWN
CONF
  cat >"$LAB_RUN/etc/gres.conf" <<CONF
NodeName=n1 Name=gpu File=$LAB_RUN/gpu/gpu[0-3]
CONF
}

write_env() {
  cat >"$DIR/env" <<ENV
export SLURM_CONF=$LAB_RUN/etc/slurm.conf
export LAB_DIR=$(printf %q "$DIR")
export LAB_RUN=$LAB_RUN
export LAB_CLUSTER=$LAB_CLUSTER
export LAB_TZ=$LAB_TZ
export LAB_DB_SOCKET=$LAB_RUN/mariadb.sock
export LAB_DB_PORT=${LAB_PORTS[0]}
export LAB_DB_NAME=slurm_acct_db
export LAB_DB_USER=root
ENV
  # shellcheck source=/dev/null
  source "$DIR/env"
}

# Starts a daemon in a session of its own and records its process: start NAME COMMAND...
start() {
  local name=$1
  shift
  TZ=$LAB_TZ LC_ALL=C.UTF-8 setsid "$@" </dev/null >>"$DIR/log/$name.out" 2>&1 &
  printf '%s %s\n' "$!" "$(start_time "$!")" >"$LAB_RUN/pid/$name"
}

# When a process started, in clock ticks since boot; with its id it names a process for ever.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) }
  cut -d ' ' -f 20 <<<"$stat"
}

start_munge() {
  dd if=/dev/urandom of="$LAB_RUN/munge/key" bs=128 count=1 status=none
  chmod 400 "$LAB_RUN/munge/key"
  touch "$LAB_RUN/munge/log"
  chown -R munge:munge "$LAB_RUN/munge"
  # munged refuses to run as root without --force, and to write where others may.
  start munged setpriv --reuid=munge --regid=munge --clear-groups munged --foreground \
    --socket="$LAB_RUN/munge/socket" --key-file="$LAB_RUN/munge/key" --pid-file="$LAB_RUN/munge/pid" \
    --log-file="$LAB_RUN/munge/log" --seed-file="$LAB_RUN/munge/seed"
  wait_for 20 munged munge --no-input --socket="$LAB_RUN/munge/socket"
}

# Temporary tables have a directory of their own: a server that starts removes those of every other one that has the same.
start_mariadb() {
  mkdir -p "$DIR/db.tmp"
  mariadb-install-db --no-defaults --datadir="$DIR/db" --tmpdir="$DIR/db.tmp" --user=root \
    --auth-root-authentication-method=socket --auth-root-socket-user=root --skip-test-db --innodb-log-file-size=64M >"$DIR/log/mariadb-install.out" 2>&1 ||
    die "mariadb-install-db failed; see $DIR/log/mariadb-install.out"
  lab_start mariadbd
  database '' -e "create database slurm_acct_db; create user slurm@127.0.0.1 identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@127.0.0.1;"
}

# Starts one of the daemons that may be stopped, and waits until it answers.
lab_start() {
  local name=${1:-}
  is_running "$name" && die "$name runs already"
  case $name in
    mariadbd)
      # Nothing here outlives the lab, so nothing waits for the disk.
      start mariadbd mariadbd --no-defaults --datadir="$DIR/db" --tmpdir="$DIR/db.tmp" --user=root --socket="$LAB_DB_SOCKET" \
        --port="$LAB_DB_PORT" --bind-address=127.0.0.1 --pid-file="$LAB_RUN/mariadb.pid" \
        --innodb-buffer-pool-size=512M --innodb-log-file-size=64M --innodb-lock-wait-timeout=900 \
        --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --skip-name-resolve
      wait_for 30 mariadbd database ''
      ;;
    slurmdbd)
      start slurmdbd slurmdbd -D
      wait_for 30 slurmdbd sacctmgr -n list cluster
      ;;
    slurmctld)
      start slurmctld slurmctld -D
      wait_for 30 slurmctld slurmctld_is_up
      ;;
    *) die "lab start takes mariadbd, slurmdbd or slurmctld" ;;
  esac
}

# Stops one of them, and waits until it is gone. It is sent TERM; signal=KILL makes it a crash.
lab_stop() {
  local name=${1:-} pid ticks
  local -A option=([signal]=TERM)
  read_options option "${@:2}"
  [[ $name =~ ^(mariadbd|slurmdbd|slurmctld)$ ]] || die "lab stop takes mariadbd, slurmdbd or slurmctld"
  is_running "$name" || die "$name does not run"
  read -r pid ticks <"$LAB_RUN/pid/$name"
  kill -s "${option[signal]}" "$pid"
  wait_for 30 "the end of $name" is_stopped "$name"
}

is_running() {
  local pid ticks
  [[ -r $LAB_RUN/pid/$1 ]] && read -r pid ticks <"$LAB_RUN/pid/$1" && is_alive "$pid" "$ticks"
}

is_stopped() { ! is_running "$1"; }

# Runs the mariadb client as the lab's root: database NAME [ARGUMENT...]
database() {
  local name=$1
  shift
  mariadb --no-defaults --batch --skip-column-names --socket="$LAB_DB_SOCKET" "$@" ${name:+"$name"} </dev/null
}

lab_sql() {
  if (($#)); then
    database "$LAB_DB_NAME" -e "$*"
  else
    mariadb --no-defaults --batch --skip-column-names --socket="$LAB_DB_SOCKET" "$LAB_DB_NAME"
  fi
}

start_slurm() {
  lab_start slurmdbd
  sacctmgr -i add cluster "$LAB_CLUSTER" >/dev/null
  begin_rollups
  lab_start slurmctld
  start slurmd slurmd -D -N n1
  wait_for 30 "the node" node_is_idle
}

# Without a row here slurmdbd's next rollup begins at the cluster's first event, which lab rollup moves into the past.
begin_rollups() {
  local hour day month
  hour=$(TZ=$LAB_TZ date +%FT%H:00:00)
  day=$(TZ=$LAB_TZ date +%FT00:00:00)
  month=$(TZ=$LAB_TZ date +%Y-%m-01T00:00:00)
  lab_sql "insert into ${LAB_CLUSTER}_last_ran_table values ($(TZ=$LAB_TZ date -d "$hour" +%s),
    $(TZ=$LAB_TZ date -d "$day" +%s), $(TZ=$LAB_TZ date -d "$month" +%s));"
}

slurmctld_is_up() { scontrol ping | grep -q 'is UP'; }
node_is_idle() { [[ $(sinfo -h -N -n n1 -p debug -o %T) == idle ]]; }

lab_status() {
  local name rc=0
  for name in munged mariadbd slurmdbd slurmctld slurmd; do
    if is_running "$name"; then
      printf '%-10s running as %s\n' "$name" "$(cut -d ' ' -f 1 "$LAB_RUN/pid/$name")"
    else
      printf '%-10s not running\n' "$name"
      rc=1
    fi
  done
  timeout 20 scontrol ping || rc=1
  return $rc
}

lab_down() {
  local run
  run=$(readlink "$DIR/run" 2>/dev/null || true)
  if [[ -n $run ]]; then
    end_processes "$run"
    # The removal is limited to what make_runtime_directory made.
    [[ $run == */slab.?????? ]] && rm -rf -- "$run"
  fi
  rm -rf -- "$DIR/db" "$DIR/db.tmp" "$DIR/state"
  rm -f -- "$DIR/run" "$DIR/etc" "$DIR/env"
}

# Ends every process of the lab: first with TERM, after three seconds with KILL. Nothing is kept, so
# nothing needs more time. What was found once stays in the list, since a killed parent hides its children.
end_processes() {
  local run=$1 deadline=$((SECONDS + 3)) signal=TERM
  local -A ours=()
  while find_processes "$run" && ((${#ours[@]})); do
    ((SECONDS < deadline)) || signal=KILL
    ((SECONDS < deadline + 20)) || die "cannot end processes ${!ours[*]}"
    kill -s "$signal" -- "${!ours[@]}" 2>/dev/null || true
    sleep 0.1
  done
}

# Brings the array "ours" (process id to start time) up to date: the daemons recorded at their start, every
# slurmstepd that has this lab's configuration (each is in a session of its own), and the descendants of all.
find_processes() {
  local run=$1 file pid parent ticks found=1
  for pid in "${!ours[@]}"; do
    is_alive "$pid" "${ours[$pid]}" || unset "ours[$pid]"
  done
  for file in "$run"/pid/*; do
    read -r pid ticks <"$file" || continue
    if is_alive "$pid" "$ticks"; then ours[$pid]=$ticks; fi
  done
  while read -r pid; do
    if grep -qszxF "SLURM_CONF=$run/etc/slurm.conf" "/proc/$pid/environ"; then ours[$pid]=$(start_time "$pid"); fi
  done < <(pgrep -x slurmstepd || true)
  while ((found)); do
    found=0
    while read -r pid parent; do
      if [[ -v ours[$parent] && ! -v ours[$pid] ]]; then
        ours[$pid]=$(start_time "$pid")
        found=1
      fi
    done < <(ps -e -o pid=,ppid=)
  done
}

# True while process PID, started at TICKS, runs and is not a zombie.
is_alive() {
  [[ -n $2 && $(start_time "$1") == "$2" && $(ps -o stat= -p "$1") == [!Z]* ]]
}
