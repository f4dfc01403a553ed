//! Blocking queries against a server that does whatever servers do. It holds nothing: every answer comes at once, which is
//! the worst that can happen to who follows. Waits are noted, not waited.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::central::nomad::{FIRST_PAUSE, Followed, Follower, LONGEST_PAUSE, NomadClient};
use crate::central::{CentralError, Class};

const WAIT: Duration = Duration::from_secs(60);

fn follower_with(connection: &Connection, wait: Duration) -> (Follower, Waits) {
    let (surroundings, waits) = surroundings();
    let client = NomadClient::new(connection, surroundings.clone()).unwrap();
    (Follower::new(client, "bio".to_owned(), wait, surroundings), waits)
}

fn follower(server: &Server) -> (Follower, Waits) {
    follower_with(&connection(server), WAIT)
}

/// A list whose content is a number.
fn list(index: &str, content: u64) -> Reply {
    let head = if index.is_empty() { String::new() } else { format!("X-Nomad-Index: {index}\r\n") };
    let body = serde_json::json!([{
        "Name": "bio", "ModifyIndex": content,
        "Limits": [{"Region": "global", "RegionLimit": {"Cores": content}}],
    }]);
    json(200, &head, &body.to_string())
}

fn no_leader() -> Reply {
    raw(500, "content-type: text/plain\r\n", b"No cluster leader")
}

fn truncated() -> Reply {
    Reply::Bytes(
        b"HTTP/1.1 200 OK\r\nX-Nomad-Index: 99\r\ncontent-length: 5000\r\n\r\n[{\"Name\": \"bi".to_vec(),
    )
}

/// Index and wait of a question.
fn asked(seen: &Seen) -> (Option<String>, Option<String>) {
    assert_eq!((seen.query("prefix"), seen.method.as_str()), (Some("bio"), "GET"));
    (seen.query("index").map(str::to_owned), seen.query("wait").map(str::to_owned))
}

fn indexes(server: &Server) -> Vec<Option<String>> {
    server.seen().iter().map(|seen| asked(seen).0).collect()
}

fn some(index: &str) -> Option<String> {
    Some(index.to_owned())
}

#[tokio::test]
async fn the_first_question_never_blocks_and_the_next_waits_for_the_index_to_pass() {
    let server = Server::start(|number, _| match number {
        0 => list("10", 1),
        1 => list("12", 2),
        _ => list("13", 2),
    })
    .await;
    let (mut follower, _) = follower(&server);
    assert_eq!(
        follower.next().await.unwrap(),
        Followed::Changed,
        "whoever begins to follow knows nothing yet"
    );
    assert_eq!(follower.next().await.unwrap(), Followed::Changed);
    assert_eq!(follower.next().await.unwrap(), Followed::Same, "something else has moved the index");
    let questions: Vec<_> = server.seen().iter().map(asked).collect();
    assert_eq!(questions, [(None, None), (some("10"), some("60s")), (some("12"), some("60s"))]);
}

#[tokio::test]
async fn an_index_that_goes_back_is_forgotten_and_what_changed_meanwhile_is_seen() {
    let server = Server::start(|number, _| match number {
        0 => list("100", 1),
        // Restored from a backup.
        1 => list("40", 1),
        2 => list("40", 1),
        _ => list("41", 7),
    })
    .await;
    let (mut follower, _) = follower(&server);
    let mut followed = Vec::new();
    for _ in 0..4 {
        followed.push(follower.next().await.unwrap());
    }
    assert_eq!(followed, [Followed::Changed, Followed::Same, Followed::Same, Followed::Changed]);
    assert_eq!(indexes(&server), [None, some("100"), None, some("40")]);
}

#[tokio::test]
async fn a_server_that_repeats_at_once_is_asked_ever_more_slowly_and_a_change_makes_it_quick_again() {
    const QUESTIONS: usize = 40;
    let server = Server::start(|number, _| match number {
        0..QUESTIONS => list("10", 1),
        _ => list("11", 2),
    })
    .await;
    let (mut follower, waits) = follower(&server);
    assert_eq!(follower.next().await.unwrap(), Followed::Changed);
    for _ in 1..QUESTIONS {
        assert_eq!(follower.next().await.unwrap(), Followed::Same);
    }
    let waited = waits.lock().unwrap().clone();
    assert!(waited.windows(2).take(5).all(|pair| pair[0] < pair[1]), "{waited:?}");
    assert!(waited[0] <= FIRST_PAUSE && waited.iter().all(|wait| *wait <= LONGEST_PAUSE), "{waited:?}");
    // 7 questions until the longest pause is reached; an answer takes less than a second of it.
    let least = (LONGEST_PAUSE - Duration::from_secs(1)) * u32::try_from(QUESTIONS - 8).unwrap();
    assert!(waited.iter().sum::<Duration>() > least, "{waited:?}");
    assert_eq!(follower.next().await.unwrap(), Followed::Changed);
    follower.next().await.unwrap();
    assert!(*waits.lock().unwrap().last().unwrap() <= FIRST_PAUSE);
}

#[tokio::test]
async fn an_answer_without_an_index_is_not_waited_upon_and_asked_for_slowly() {
    for index in ["", "0", "soon", "-4"] {
        let server = Server::start(move |_, _| list(index, 1)).await;
        let (mut follower, waits) = follower(&server);
        for _ in 0..20 {
            follower.next().await.unwrap();
        }
        assert_eq!(indexes(&server), vec![None; 20], "{index:?}");
        assert!(waits.lock().unwrap().iter().sum::<Duration>() > LONGEST_PAUSE * 10, "{index:?}");
    }
}

#[tokio::test]
async fn a_server_that_fails_is_asked_ever_more_slowly_and_from_the_start_when_it_is_back() {
    const FAILURES: usize = 30;
    type Failure = fn() -> Reply;
    let failures: [(Failure, &str); 4] = [
        (|| Reply::HangUp, "no answer"),
        (no_leader, "No cluster leader"),
        (truncated, "broke off"),
        (|| raw(502, "", b"<html>Bad Gateway</html>"), "Bad Gateway"),
    ];
    for (failure, words) in failures {
        let server = Server::start(move |number, _| match number {
            0 => list("10", 1),
            1..=FAILURES => failure(),
            // Another server now: the same index, and another content at it.
            _ => list("10", 5),
        })
        .await;
        let (mut follower, waits) = follower(&server);
        follower.next().await.unwrap();
        for _ in 0..FAILURES {
            let error = follower.next().await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.class(), Class::Transient);
        }
        assert_eq!(follower.next().await.unwrap(), Followed::Changed, "{words}");
        let asked = indexes(&server);
        assert_eq!(asked.len(), FAILURES + 2, "every question is one request");
        assert_eq!((&asked[1], &asked[2]), (&some("10"), &None), "an index of before says nothing any more");
        assert!(asked[2..].iter().all(Option::is_none));
        let waited = waits.lock().unwrap().clone();
        assert!(waited.iter().all(|wait| *wait >= FIRST_PAUSE / 4 && *wait <= LONGEST_PAUSE), "{waited:?}");
        let least = LONGEST_PAUSE / 2 * u32::try_from(FAILURES - 8).unwrap();
        assert!(waited.iter().sum::<Duration>() > least, "{waited:?}");
    }
}

#[tokio::test]
async fn the_first_answer_after_a_failure_is_a_change_though_it_looks_the_same() {
    let server = Server::start(|number, _| if number == 1 { no_leader() } else { list("10", 1) }).await;
    let (mut follower, _) = follower(&server);
    follower.next().await.unwrap();
    follower.next().await.unwrap_err();
    assert_eq!(
        follower.next().await.unwrap(),
        Followed::Changed,
        "the agent may have failed to read it as well"
    );
    assert_eq!(follower.next().await.unwrap(), Followed::Same);
}

#[tokio::test]
async fn a_server_that_comes_and_goes_is_no_busy_loop_either() {
    let server = Server::start(|number, _| if number % 2 == 0 { list("10", 1) } else { no_leader() }).await;
    let (mut follower, waits) = follower(&server);
    for _ in 0..40 {
        let _ = follower.next().await;
    }
    assert!(waits.lock().unwrap().iter().sum::<Duration>() > LONGEST_PAUSE * 10);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_after_the_wait_its_jitter_and_the_time_for_an_answer() {
    let server = Server::start(|number, _| match number {
        0 => list("10", 1),
        1 => Reply::Silence,
        _ => list("11", 2),
    })
    .await;
    let short = Connection { timeout: Duration::from_millis(50), ..connection(&server) };
    let (mut follower, _) = follower_with(&short, Duration::from_millis(160));
    follower.next().await.unwrap();
    let error = follower.next().await.unwrap_err();
    assert!(matches!(error, CentralError::Unreachable { attempts: 1, .. }), "{error}");
    assert_eq!(asked(&server.seen()[1]), (some("10"), some("160ms")));
    assert_eq!(follower.next().await.unwrap(), Followed::Changed);
    assert_eq!(indexes(&server), [None, some("10"), None]);
}

#[tokio::test]
async fn the_servers_retry_after_is_kept() {
    let server = Server::start(|number, _| match number {
        0 => raw(429, "retry-after: 77\r\n", b""),
        _ => list("10", 1),
    })
    .await;
    let (mut follower, waits) = follower(&server);
    follower.next().await.unwrap_err();
    follower.next().await.unwrap();
    assert_eq!(*waits.lock().unwrap(), [Duration::from_secs(77)]);
}

/// What the server of the next test did last: contents it has shown, in order, and failures.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Done {
    Shown(u64),
    Failed,
}

#[tokio::test]
async fn whatever_a_server_does_no_change_is_missed_and_none_is_invented() {
    const QUESTIONS: usize = 60;
    for seed in 0..20 {
        let done = Arc::new(Mutex::new(Vec::new()));
        let (log, rng) = (done.clone(), Mutex::new((StdRng::seed_from_u64(seed), 1u64)));
        let server = Server::start(move |_, _| {
            let mut guard = rng.lock().unwrap();
            let (rng, content) = &mut *guard;
            if rng.random_bool(0.3) {
                *content = rng.random_range(1..4);
            }
            let failure = rng.random_range(0..10);
            log.lock().unwrap().push(if failure < 3 { Done::Failed } else { Done::Shown(*content) });
            let index = rng.random_range(1..50).to_string();
            match failure {
                0 => Reply::HangUp,
                1 => no_leader(),
                2 => truncated(),
                _ => list(&index, *content),
            }
        })
        .await;
        let (mut follower, waits) = follower(&server);
        let mut known = None;
        for question in 0..QUESTIONS {
            let followed = follower.next().await.ok();
            let done = *done.lock().unwrap().last().unwrap();
            let expected = match done {
                Done::Failed => None,
                Done::Shown(content) if known == Some(content) => Some(Followed::Same),
                Done::Shown(_) => Some(Followed::Changed),
            };
            assert_eq!(followed, expected, "seed {seed}, question {question}: {done:?} after {known:?}");
            known = if let Done::Shown(content) = done { Some(content) } else { None };
        }
        assert_eq!(server.seen().len(), QUESTIONS, "seed {seed}");
        let waited: Duration = waits.lock().unwrap().iter().sum();
        assert!(waited > FIRST_PAUSE / 3 * u32::try_from(QUESTIONS - 1).unwrap(), "seed {seed}: {waited:?}");
    }
}
