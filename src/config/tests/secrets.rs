//! Secrets are read from safe places only, and nothing that is shown contains one.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid, mkfifo};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::super::secret::{SECRET_BYTES_MAX, SecretError, SecretSource};
use super::{REQUIRED, good, refused};

const SECRET: &str = "s3cr3t0123456789abcdef";

struct Room {
    directory: TempDir,
}

impl Room {
    fn new() -> Room {
        Room { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.directory.path().join("token");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Reads the file as a secret of this process's user.
    fn read(&self, path: &Path) -> Result<String, SecretError> {
        let secret = SecretSource::File(path.to_owned()).read()?;
        assert!(!format!("{secret:?}").contains(SECRET));
        Ok(secret.expose_secret().to_owned())
    }
}

/// The whole chain of an error, as a log would show it.
fn chain(error: &SecretError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    assert!(!text.contains(SECRET) && !text.contains(&SECRET[..8]), "{text}");
    text
}

#[test]
fn a_file_that_only_its_owner_reads_is_read_without_its_last_newline() {
    let room = Room::new();
    for (content, mode) in
        [(SECRET.to_owned(), 0o600), (format!("{SECRET}\n"), 0o400), (format!("{SECRET}\r\n"), 0o600)]
    {
        assert_eq!(room.read(&room.file(content, mode)).unwrap(), SECRET);
        std::fs::remove_file(room.directory.path().join("token")).unwrap();
    }
}

#[test]
fn a_file_with_any_access_for_group_or_others_is_refused_with_the_chmod_to_run() {
    let room = Room::new();
    for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o777] {
        let path = room.file(SECRET, mode);
        let error = room.read(&path).unwrap_err();
        assert!(matches!(error, SecretError::Mode { .. }), "{mode:o}: {error}");
        assert!(chain(&error).contains(&format!("chmod 600 {}", path.display())));
        assert!(chain(&error).contains(&format!("{mode:04o}")));
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let room = Room::new();
    let path = room.file(SECRET, 0o600);
    let source = SecretSource::File(path.clone());
    let stranger = Uid::from_raw(54_321);
    let user = if geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(stranger.as_raw()), None).unwrap();
        geteuid()
    } else {
        stranger
    };
    let error = source.read_as(user, None).unwrap_err();
    assert!(matches!(error, SecretError::Owner { .. }), "{error}");
    assert!(chain(&error).contains(&format!("chown {user}")));
}

#[test]
fn what_is_not_a_plain_file_is_refused_without_waiting() {
    let room = Room::new();
    let file = room.file(SECRET, 0o600);
    let link = room.directory.path().join("link");
    symlink(&file, &link).unwrap();
    assert!(matches!(room.read(&link), Err(SecretError::SymbolicLink(_))));
    let pipe = room.directory.path().join("pipe");
    mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(room.read(&pipe), Err(SecretError::NotAFile(_))));
    assert!(matches!(room.read(room.directory.path()), Err(SecretError::NotAFile(_))));
    let missing = room.read(&room.directory.path().join("none")).unwrap_err();
    assert!(matches!(missing, SecretError::Open { .. }));
    assert!(chain(&missing).contains("No such file"));
}

#[test]
fn content_that_cannot_be_a_token_is_refused() {
    let room = Room::new();
    for (content, expected) in [
        (Vec::new(), "is empty"),
        (b"\n\n".to_vec(), "is empty"),
        (format!("{SECRET}\nsecond line").into_bytes(), "visible ASCII"),
        (format!("{SECRET}\0").into_bytes(), "visible ASCII"),
        (format!("{SECRET} x").into_bytes(), "visible ASCII"),
        (format!("{SECRET}é").into_bytes(), "visible ASCII"),
        ([SECRET.as_bytes(), b"\xff"].concat(), "visible ASCII"),
        (vec![b'x'; SECRET_BYTES_MAX as usize + 1], "longer than 4096 bytes"),
    ] {
        let error = room.read(&room.file(&content, 0o600)).unwrap_err();
        assert!(chain(&error).contains(expected), "{error}");
    }
    assert_eq!(room.read(&room.file(vec![b'x'; SECRET_BYTES_MAX as usize], 0o600)).unwrap().len(), 4096);
}

/// systemd gives the unit's user access by an access control list; its mask shows as group bits.
#[test]
fn a_credential_may_show_group_bits_but_none_for_others() {
    let room = Room::new();
    let source = SecretSource::Credential("token".into());
    let directory = Some(room.directory.path());
    for (mode, good) in [(0o400, true), (0o440, true), (0o444, false), (0o442, false)] {
        room.file(SECRET, mode);
        assert_eq!(source.read_as(geteuid(), directory).is_ok(), good, "{mode:o}");
    }
    let error = source.read_as(geteuid(), None).unwrap_err();
    assert!(chain(&error).contains("LoadCredential=token:FILE"), "{error}");
    let error = SecretSource::Credential("other".into()).read_as(geteuid(), directory).unwrap_err();
    assert!(matches!(error, SecretError::Open { .. }));
}

#[test]
fn a_configuration_shows_where_a_secret_lies_and_never_the_secret() {
    let room = Room::new();
    let path = room.file(SECRET, 0o600);
    let text = REQUIRED.replace("token_credential = \"waldur-token\"", &format!("token_file = {path:?}"));
    let config = good(&text);
    let source = &config.sources[0].token;
    assert_eq!(source.read().unwrap().expose_secret(), SECRET);
    assert_eq!(config.secrets(), [("token of source waldur".to_owned(), source)]);
    for shown in [format!("{config:?}"), config.to_toml()] {
        assert!(shown.contains(path.to_str().unwrap()) && !shown.contains(SECRET));
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
    let line = "token_credential = \"waldur-token\"";
    for wrong in [
        format!("token = \"{SECRET}\""),
        format!("token_file = \"{SECRET}\""),
        format!("token_credential = \"{SECRET}/\""),
        format!("token = {SECRET}"),
        format!("token = \"{SECRET}"),
        format!("token_credential = '{SECRET}\""),
        format!("token_credential = {{ value = {SECRET} }}"),
        format!("{line}\nproxy = \"http://user:{SECRET}@proxy:3128\""),
        format!("{line}\nproxy = \"ftp://user:{SECRET}@proxy:3128\""),
        format!("{line}\npassword = \"\"\"\n{SECRET}\"\"\" x"),
    ] {
        let message = refused(&REQUIRED.replace(line, &wrong));
        assert!(!message.contains(SECRET), "{wrong}\n{message}");
    }
    for url in [
        format!("https://user:{SECRET}@waldur.example.org/api/"),
        format!("https://{SECRET}@waldur.example.org/api/"),
        format!("https://waldur.example.org/api/?token={SECRET}"),
        format!("http://user:{SECRET}@waldur.example.org/"),
        format!("https://user:{SECRET}@:0/"),
    ] {
        let message = refused(&REQUIRED.replace("https://waldur.example.org/api/", &url));
        assert!(!message.contains(SECRET), "{url}\n{message}");
    }
}
