# What a site sets up once: users, accounts, QOS. Sourced by ../lab.

# Creates the Linux users that jobs run as. The lock is for labs that start at once.
ensure_users() {
  local user
  exec {lock_fd}>"$LAB_RUNTIME_ROOT/slurm-lab.lock"
  flock "$lock_fd"
  for user in alice bob; do
    id "$user" >/dev/null 2>&1 || useradd --no-create-home --home-dir / --shell /bin/bash "$user"
  done
  exec {lock_fd}>&-
}

# Runs sacctmgr and fails loudly: what it prints goes to the log.
account_manager() {
  sacctmgr -i "$@" >>"$DIR/log/sacctmgr.out" 2>&1 || die "sacctmgr $* failed; see $DIR/log/sacctmgr.out"
}

seed_site() {
  account_manager modify qos where name=normal set Priority=100
  account_manager add qos slowdown set Priority=10
  account_manager add qos blocked set Priority=0 MaxSubmitJobsPerUser=0
  # Every account may use the three; what it gets by default is the account's own affair.
  account_manager modify cluster "where" "name=$LAB_CLUSTER" set qos=normal,slowdown,blocked
  account_manager add account acc_top cluster="$LAB_CLUSTER" parent=root Description=top Organization=lab
  account_manager add account acc_mid,acc_other cluster="$LAB_CLUSTER" parent=acc_top Description=mid Organization=lab
  account_manager add account acc_leaf cluster="$LAB_CLUSTER" parent=acc_mid Description=leaf Organization=lab
  account_manager add user alice,bob cluster="$LAB_CLUSTER" account=acc_leaf,acc_top,acc_mid,acc_other DefaultAccount=acc_leaf
}
