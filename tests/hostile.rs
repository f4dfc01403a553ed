//! Hostile input from Slurm, from the servers and from users: a clear error or a counted rejection, and nothing is changed
//! that should not be. `root` never is.

#[path = "support/bench.rs"]
mod bench;
mod support;

#[path = "hostile/raw.rs"]
mod raw;
#[path = "hostile/secrets.rs"]
mod secrets;
#[path = "hostile/server.rs"]
mod server;
#[path = "hostile/site.rs"]
mod site;
#[path = "hostile/slurm.rs"]
mod slurm;
