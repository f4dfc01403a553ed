//! Tells systemd how the service stands, over the socket that `NOTIFY_SOCKET` names (sd_notify(3)).
//!
//! Nothing here fails the daemon: without systemd, or with a broken socket, the messages go nowhere.

use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};

/// A way to the service manager; silent when there is none.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    address: Option<String>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// From the service's environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Notify {
        let variable = |name| std::env::var(name).ok();
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC")
            .filter(|_| ours)
            .and_then(|usec| usec.parse().ok())
            .map(Duration::from_micros);
        Notify { address: variable("NOTIFY_SOCKET"), watchdog }
    }

    /// How long the manager waits for [`Notify::alive`] before it restarts the service.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The daemon has read its configuration, opened its store and begun its first cycle.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The start takes longer than the unit allows for: the manager waits this much more from now on.
    pub fn extend_start(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// A cycle has finished, or one is under way and not overdue.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// A reload has begun; `ready` ends it. Type=notify-reload wants the monotonic time.
    pub fn reloading(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .map_or(0, |t| t.tv_sec() * 1_000_000 + t.tv_nsec() / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The daemon drains.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        if let Some(address) = &self.address
            && let Err(error) = send(address, message)
        {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }
}

fn send(address: &str, message: &str) -> nix::Result<()> {
    let to = match address.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(address)?,
    };
    let from = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sendto(from.as_raw_fd(), message.as_bytes(), &to, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_the_socket_of_the_service_manager() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let notify = Notify { address: Some(path.to_str().unwrap().to_owned()), watchdog: None };
        notify.ready();
        notify.status("two\nlines");
        notify.extend_start(Duration::from_secs(60));
        let mut buffer = [0; 64];
        let mut next = || {
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(next(), "READY=1");
        assert_eq!(next(), "STATUS=two lines");
        assert_eq!(next(), "EXTEND_TIMEOUT_USEC=60000000");
    }
}
