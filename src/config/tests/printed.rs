//! What `check-config --print` prints reads back to the same configuration.

use proptest::prelude::*;

use super::{EXAMPLE, good};

/// `key = value` lines, each there or not.
fn lines(keys: Vec<(&'static str, BoxedStrategy<String>)>) -> BoxedStrategy<String> {
    let line = |(key, value): (&'static str, BoxedStrategy<String>)| {
        prop::option::of(value.prop_map(move |value| format!("{key} = {value}\n")))
            .prop_map(Option::unwrap_or_default)
    };
    keys.into_iter().map(line).collect::<Vec<_>>().prop_map(|lines| lines.concat()).boxed()
}

/// In double quotes, good for a key as well.
fn quoted(text: String) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn words() -> BoxedStrategy<String> {
    "[^\\p{C}\\p{Z}]\\PC{0,12}".prop_map(quoted).boxed()
}

fn path() -> BoxedStrategy<String> {
    "/\\PC{1,20}".prop_map(quoted).boxed()
}

fn name() -> BoxedStrategy<String> {
    "[a-zA-Z0-9_][a-zA-Z0-9_.+@:-]{0,8}".prop_map(quoted).boxed()
}

fn ms(least: u64, most: u64) -> BoxedStrategy<String> {
    (least..=most).prop_map(|ms| format!("\"{ms}ms\"")).boxed()
}

fn seconds(least: u64, most: u64) -> BoxedStrategy<String> {
    (least..=most).prop_map(|s| format!("\"{s} seconds\"")).boxed()
}

fn number(least: u64, most: u64) -> BoxedStrategy<String> {
    (least..=most).prop_map(|n| n.to_string()).boxed()
}

fn exact() -> BoxedStrategy<String> {
    prop_oneof![
        "(0|[1-9][0-9]{0,9})",
        "(0|[1-9][0-9]{0,5})\\.[0-9]{1,12}",
        "\"[1-9][0-9]{0,5}/[1-9][0-9]{0,5}\"",
    ]
    .boxed()
}

fn one_of(choices: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(choices).prop_map(str::to_owned).boxed()
}

fn table(key: BoxedStrategy<String>, value: BoxedStrategy<String>, least: usize) -> BoxedStrategy<String> {
    prop::collection::btree_map(key, value, least..4)
        .prop_map(|entries| {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            format!("{{ {} }}", entries.join(", "))
        })
        .boxed()
}

fn cluster() -> BoxedStrategy<String> {
    lines(vec![
        ("bin_dir", path()),
        ("slurm_conf", path()),
        ("time_zone", one_of(&["\"Europe/Berlin\"", "\"Asia/Kolkata\"", "\"UTC\""])),
        ("timeout", ms(1000, 3_600_000)),
        ("output_bytes_max", number(1 << 20, 1 << 40)),
    ])
}

fn source() -> BoxedStrategy<String> {
    let secret = prop_oneof![
        path().prop_map(|path| format!("token_file = {path}\n")),
        Just("token_credential = \"a-b.c_d\"\n".to_owned()),
    ];
    let rest = lines(vec![
        ("ca_file", path()),
        ("proxy", one_of(&["\"http://proxy:3128\"", "\"socks5h://[::1]:1080\""])),
        ("poll_interval", ms(1000, 3_600_000)),
        ("timeout", ms(100, 600_000)),
        ("response_bytes_max", number(64 << 10, 1 << 30)),
        ("attempts_max", number(1, 20)),
    ]);
    (any::<u128>(), secret, rest, kind())
        .prop_map(|(id, secret, rest, kind)| {
            let offering = if kind.contains("waldur-policy") { format!("offering = \"{id:032X}\"\n") } else { String::new() };
            format!(
                "[[source]]\nname = \"s{id}\"\nurl = \"http://localhost:8/x y/é\"\n{kind}{offering}{secret}{rest}"
            )
        })
        .boxed()
}

fn kind() -> BoxedStrategy<String> {
    let account = || "\"[a-z][a-z0-9]{0,6}\"".boxed();
    let tres = || one_of(&["\"cpu\"", "\"gres/gpu:a100\"", "\"mem\""]);
    let with = |kind: &'static str, required: BoxedStrategy<String>, rest: BoxedStrategy<String>| {
        (required, rest)
            .prop_map(move |(required, rest)| format!("kind = \"{kind}\"\n{required}{rest}"))
            .boxed()
    };
    let needed = |key: &'static str| {
        table("\"q-[a-zA-Z0-9-]{0,9}\"".boxed(), account(), 1)
            .prop_map(move |accounts| format!("{key} = {accounts}\n"))
            .boxed()
    };
    let member = one_of(&["\"account:bio\"", "\"user:Al.ice\"", "\"user:bob-2\""]);
    let members = prop::collection::vec(member, 0..3).prop_map(|all| format!("[{}]", all.join(", "))).boxed();
    prop_oneof![
        with(
            "waldur-policy",
            Just(String::new()).boxed(),
            lines(vec![("enforcement", one_of(&["\"agent\"", "\"server\"", "\"strictest\""]))]),
        ),
        with(
            "waldur-quota",
            Just(String::new()).boxed(),
            lines(vec![
                ("accounts", table(words(), account(), 0)),
                ("tres", table(words(), tres(), 1)),
                ("unit", one_of(&["\"seconds\"", "\"minutes\"", "\"hours\""])),
            ]),
        ),
        with(
            "nomad",
            needed("accounts"),
            lines(vec![
                ("region", words()),
                ("mhz_per_core", one_of(&["2500", "0.1", "\"1/3\"", "\"\""])),
                ("devices", table(words(), tres(), 0)),
                ("node_pools", table(words(), words(), 0)),
                ("shared", one_of(&["true", "false"])),
                ("prefix", one_of(&["\"\"", "\"q\"", "\"q-\""])),
                ("wait", ms(1000, 600_000)),
            ]),
        ),
        with(
            "datarobot",
            needed("resources"),
            lines(vec![("users", table(words(), account(), 0)), ("groups", table(words(), members, 0)),]),
        ),
    ]
    .boxed()
}

fn limits() -> BoxedStrategy<String> {
    lines(vec![
        ("overlap", seconds(60, 86_399)),
        ("window", seconds(86_400, 31 * 86_400)),
        ("rejects_max", number(0, 100_000)),
        ("changes_max", number(1, 100_000)),
        ("tighten_accounts_max", number(0, 1_000_000)),
        ("tighten_share_percent", number(0, 100)),
        ("command_age_max", seconds(60, 366 * 86_400)),
        ("clock_skew_max", seconds(1, 86_400)),
        ("facts_age_max", seconds(3601, 31 * 86_400)),
        ("delivery_attempts_max", number(1, 100_000)),
        ("delivery_batch_max", number(1, 100_000)),
        ("drain", ms(1000, 3_600_000)),
        ("runaway_after", seconds(3600, 3660 * 86_400)),
        ("apply_parallel_max", number(1, 32)),
        ("names_per_modify_max", number(1, 500)),
        ("history_rows_max", number(1, 10_000)),
    ])
}

fn small_sections() -> BoxedStrategy<String> {
    let cron =
        || one_of(&["\"17 3 * * *\"", "\"*/5   0-6 1,15 * *\"", "\"0 0 * JAN MON-FRI\"", "\"0 0 L * *\""]);
    let rung = (1u32..50, name());
    let ladder = prop::collection::vec(rung, 1..4).prop_map(|rungs| {
        let mut percent = 0;
        let rungs = rungs.into_iter().map(|(more, qos)| {
            percent += more;
            format!("{{ percent = {percent}.5, qos = {qos} }}")
        });
        format!("[{}]", rungs.collect::<Vec<_>>().join(", "))
    });
    let names =
        || prop::collection::vec(name(), 0..4).prop_map(|names| format!("[{}]", names.join(", "))).boxed();
    let sections = vec![
        (
            "qos",
            lines(vec![
                ("slowdown", Just("\"Slow\"".to_owned()).boxed()),
                ("lever", one_of(&["\"submit\"", "\"qos\""])),
                ("ladder", ladder.boxed()),
            ]),
        ),
        (
            "accounts",
            lines(vec![
                ("parents", names()),
                ("patterns", one_of(&["[\"Bio*\", \"?x\"]", "[]"])),
                ("exclude", names()),
            ]),
        ),
        (
            "schedule",
            lines(vec![
                ("poll", ms(1000, 86_400_000)),
                ("deep_scan", cron()),
                ("audit", cron()),
                ("report", cron()),
            ]),
        ),
        (
            "store",
            lines(vec![
                ("path", path()),
                ("keep_jobs", seconds(190 * 86_400, 36_600 * 86_400)),
                ("keep_history", seconds(31 * 86_400, 36_600 * 86_400)),
            ]),
        ),
        (
            "log",
            lines(vec![
                ("format", one_of(&["\"human\"", "\"json\""])),
                ("level", one_of(&["\"debug\"", "\"warn,a::b[c{d=1}]=trace\""])),
            ]),
        ),
        (
            "reports",
            lines(vec![
                ("previous_period", seconds(0, 366 * 86_400)),
                ("users", one_of(&["true", "false"])),
                ("backend_metadata", one_of(&["true", "false"])),
            ]),
        ),
    ];
    let texts =
        sections.into_iter().map(|(name, lines)| lines.prop_map(move |lines| format!("[{name}]\n{lines}")));
    texts.collect::<Vec<_>>().prop_map(|texts| texts.concat()).boxed()
}

fn amie() -> BoxedStrategy<String> {
    let required = (name(), words(), path());
    let rest = lines(vec![
        ("url", one_of(&["\"https://usage.example.org\"", "\"http://127.0.0.1:1/a/\""])),
        ("timeout", ms(100, 600_000)),
        ("since", one_of(&["\"\"", "\"2026-02-28\""])),
        ("batch_bytes_max", number(4096, 1_024_000)),
        ("batch_records_max", number(1, 100_000)),
        ("projects", table("[a-z][a-z0-9]{0,6}".boxed(), words(), 0)),
        ("users", table(words(), words(), 0)),
        ("resources", table(words(), words(), 0)),
    ]);
    (required, rest)
        .prop_map(|((site, resource, key), rest)| {
            format!("[amie]\nsite = {site}\nresource = {resource}\nkey_file = {key}\n{rest}")
        })
        .boxed()
}

fn allocation() -> BoxedStrategy<String> {
    let limits = table(one_of(&["cpu", "RAM", "gpu"]), exact(), 1);
    let rest = lines(vec![
        ("name", words()),
        ("period", one_of(&["\"month\"", "\"quarter\"", "\"year\"", "\"total\""])),
        ("limit_type", one_of(&["\"GrpTRESMins\"", "\"MaxTRESMins\"", "\"GrpTRES\""])),
        ("grace", one_of(&["0", "0.1", "\"1/3\"", "10"])),
        ("billing", one_of(&["true", "false"])),
        ("weights", table(words(), exact(), 0)),
        ("carryover_percent", number(0, 100)),
        ("raw_usage_reset", one_of(&["true", "false"])),
        ("qos_strategy", one_of(&["\"threshold\"", "\"progressive\""])),
        ("actions", one_of(&["[]", "[\"notify\", \"downscale\"]", "[\"pause\"]"])),
    ]);
    (any::<u64>(), limits, rest)
        .prop_map(|(id, limits, rest)| {
            format!("[[allocation]]\naccount = \"P{id}\"\nlimits = {limits}\n{rest}")
        })
        .boxed()
}

fn configuration() -> BoxedStrategy<String> {
    let parts = (
        cluster(),
        prop::collection::vec(source(), 0..3),
        limits(),
        small_sections(),
        prop::option::of(amie()),
        prop::collection::vec(allocation(), 0..3),
    );
    parts
        .prop_map(|(cluster, sources, limits, small, amie, allocations)| {
            format!(
                "[cluster]\nname = \"linux\"\n{cluster}{}[limits]\n{limits}{small}{}{}",
                sources.concat(),
                amie.unwrap_or_default(),
                allocations.concat()
            )
        })
        .boxed()
}

proptest! {
    #[test]
    fn a_printed_configuration_reads_back_to_the_same(text in configuration()) {
        let config = good(&text);
        let printed = config.to_toml();
        let again = good(&printed);
        prop_assert_eq!(&again, &config);
        prop_assert_eq!(again.to_toml(), printed);
    }
}

#[test]
fn the_printed_example_is_what_the_defaults_are() {
    insta::assert_snapshot!(good(EXAMPLE).to_toml());
}
